"""Doing something at an instant, to the microsecond.

Theory of operation: one thread serves every instant of the process. It exists only while somebody waits. It sleeps on a
condition (CLOCK_MONOTONIC, absolute) until 900 µs before the earliest instant, spins the rest, and makes the calls
itself: handing back to the event loop first would cost 160 to 300 µs. So a call must be short and must not block, as a
non-blocking `connect` is and does.

Other threads want the GIL too, a loop with many tasks for milliseconds at a time. Three things keep them off the
instant:

- From 10 ms before it on, the interpreter's switch interval is 0.2 ms instead of 5 ms, so that the thread gets the GIL
  soon after it wakes.
- The thread leaves the loop's core to the loop, which could not let go of the GIL without running.
- The spin and the calls are one chain of C iterators (`spin`). The interpreter looks whether another thread asks
  for the GIL only between its own instructions, and in there it executes none.

An event loop's own timers will not do: asyncio's wake 0.9 ms late at the median, uvloop's up to 1.3 ms early.

Limit: where C code of another thread holds the GIL (a long `json.dumps`, say), the calls come when it lets go.

A process that is forked has no threads but the one that forked it, and maybe a lock that another held for ever. So
every scheduler begins anew in the child, and what the parent waits for is the parent's alone to make.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from operator import call
from typing import ClassVar, NamedTuple, Self

from simopen.errors import PunchError
from simopen.model.times import MonoNs

# A sleep ends up to 0.4 ms late with every core busy, and then the GIL is to be had. Not more: a core is kept busy.
SPIN_NS = 900_000
# The 5 ms for which another thread may hold the GIL when this one wakes, and as much again for waking.
HURRY_NS = 10_000_000
HURRIED_INTERVAL_S = 200e-6
# A rehearsal takes 20 µs for one connect; where there is less time than this, it would make its calls late.
REHEARSAL_NS = 300_000
# The condition's wait takes seconds as a float and some platforms cap it; a longer wait just wakes now and then.
LONGEST_SLEEP_NS = 3_600_000_000_000
_PR_SET_TIMERSLACK = 29  # linux/prctl.h
_HIGHEST = -20  # setpriority(2); on Linux it is a thread's own
_EVER = MonoNs(sys.maxsize)
_STAT_PROCESSOR = 36  # proc(5): field 39 of stat, counted from the one after the name


class Fired(NamedTuple):
    """The CLOCK_MONOTONIC ns right before a call, never before its instant, and what the call returned."""

    at_ns: MonoNs
    result: object


def spin(when_ns: MonoNs, calls: Iterable[Callable[[], object]], until_ns: MonoNs = _EVER) -> list[Fired]:
    """Spin until `when_ns`, then make the calls: from the first look at the clock to the last call all of it in C.

    None is made after `until_ns`, so fewer may come back.
    """
    instants = takewhile(until_ns.__ge__, filter(when_ns.__le__, iter(time.monotonic_ns, None)))
    made = list(zip(instants, map(call, calls), strict=False))
    return [Fired(MonoNs(at_ns), result) for at_ns, result in made]


@dataclass(order=True, slots=True)
class _Shot:
    when_ns: MonoNs
    order: int
    until_ns: MonoNs = field(compare=False)
    loop: asyncio.AbstractEventLoop = field(compare=False)
    calls: Sequence[Callable[[], object]] = field(compare=False)
    rehearsal: Callable[[], object] | None = field(compare=False)
    unless: Callable[[], bool] | None = field(compare=False)
    waiter: int = field(compare=False)  # the native id of the loop's thread
    done: asyncio.Future[list[Fired]] = field(compare=False)
    outcome: list[Fired] | BaseException = field(default_factory=list, compare=False)
    # Flags and no lock. The thread sets `begun` and then looks at `cancelled`, `cancel` does the reverse, so one of the
    # two always sees the other.
    cancelled: bool = field(default=False, compare=False)
    begun: bool = field(default=False, compare=False)
    ended: bool = field(default=False, compare=False)

    def fire(self) -> None:
        """Spin until the instant, then make the calls, unless cancelled by now or too late."""
        self.begun = True
        if not self.cancelled:
            try:
                if self.unless is None or not self.unless():
                    self.outcome = spin(self.when_ns, self.calls, self.until_ns)
            except BaseException as error:  # it is the waiter's, raised there
                self.outcome = error
        self.ended = True

    def rehearse(self) -> None:
        """Bring what the calls need into the caches, where there is time."""
        if self.rehearsal is not None and time.monotonic_ns() < self.when_ns - REHEARSAL_NS:
            with contextlib.suppress(Exception):  # it must not cost anybody the shot itself
                self.rehearsal()

    def cancel(self) -> None:
        """See to it that no call is ever made, or, where the spin has begun, wait for the ms it takes."""
        self.cancelled = True
        while self.begun and not self.ended:
            time.sleep(0)

    def disown(self) -> None:
        """It is the parent's: in a forked child nobody makes these calls, nor waits until they have been made."""
        self.cancelled = self.ended = True

    def settle(self) -> None:
        """Hand the outcome to who waits; in the loop's thread."""
        if self.done.done():
            return
        if isinstance(self.outcome, BaseException):
            self.done.set_exception(self.outcome)
        else:
            self.done.set_result(self.outcome)


class Scheduler:
    """Makes calls at instants of CLOCK_MONOTONIC. Safe to share between threads and event loops, and over a fork."""

    _all: ClassVar[weakref.WeakSet[Scheduler]] = weakref.WeakSet()

    def __init__(self) -> None:
        self._begin()
        self._all.add(self)

    def _begin(self) -> None:
        self._heap: list[_Shot] = []
        self._taken: list[_Shot] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._order = 0

    @classmethod
    def begin_anew(cls) -> None:
        """Every scheduler as it was made; in a child, right after the fork."""
        for scheduler in tuple(cls._all):
            for shot in (*scheduler._heap, *scheduler._taken):
                shot.disown()
            scheduler._begin()

    async def at(
        self,
        when_ns: MonoNs,
        *calls: Callable[[], object],
        until_ns: MonoNs = _EVER,
        rehearsal: Callable[[], object] | None = None,
        unless: Callable[[], bool] | None = None,
    ) -> list[Fired]:
        """Make the calls in the scheduler's thread, in their order, at `when_ns` or at once where that has passed.

        None is made after `until_ns`, whatever kept the thread (a process that was stopped, say): then fewer outcomes
        come back than calls were given.

        A call must be short and must not block. What one raises is raised here, and the ones after it are not made.
        Cancelling is safe in every phase: once `CancelledError` comes out, the calls have either been made or never
        will be.

        `rehearsal`, where given and where there is time, is run in that thread right before the spin: one that takes
        the calls' steps without their effect brings their code and data into the caches. `unless`: asked in that
        thread, too, right before the spin; where it says yes, no call is made.

        Raises: PunchError where no thread can be had.
        """
        loop = asyncio.get_running_loop()
        waiter, done = threading.get_native_id(), loop.create_future()
        shot = _Shot(when_ns, 0, until_ns, loop, calls, rehearsal, unless, waiter, done)
        self._add(shot)
        try:
            return await shot.done
        finally:
            self._drop(shot)

    def _add(self, shot: _Shot) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = self._start()
            self._order += 1
            shot.order = self._order
            heapq.heappush(self._heap, shot)
            if self._heap[0] is shot:
                self._changed.notify()

    def _start(self) -> threading.Thread:
        """With the lock held: it has something to do when it gets that."""
        thread = threading.Thread(target=self._run, name="simopen-scheduler", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise PunchError(f"this process gets no thread that keeps the instant ({error}); see ulimit -u") from error
        return thread

    def _drop(self, shot: _Shot) -> None:
        shot.cancel()
        with self._changed:
            if self._heap and self._heap[0] is shot:
                self._changed.notify()

    def _run(self) -> None:
        _be_punctual()
        with _Hurry() as hurry:
            while shots := self._due(hurry):
                shots[0].rehearse()
                shots[0].fire()
                if len(shots) > 1:
                    _go_anywhere()
                for shot in shots[1:]:
                    shot.fire()
                _settle(shots)

    def _due(self, hurry: _Hurry) -> list[_Shot]:
        """Sleep until shortly before the earliest instant and take what is due; empty, once, when nobody waits."""
        with self._changed:
            while self._heap:
                if self._heap[0].cancelled:
                    heapq.heappop(self._heap)
                    continue
                left_ns = self._heap[0].when_ns - time.monotonic_ns()
                if left_ns <= SPIN_NS:
                    return self._take(MonoNs(time.monotonic_ns() + SPIN_NS))
                hurried = left_ns <= HURRY_NS
                hurry.set(hurried)
                if hurried:
                    _leave_core_of(self._heap[0].waiter)
                    left_ns = self._heap[0].when_ns - time.monotonic_ns()
                ahead_ns = SPIN_NS if hurried else HURRY_NS
                self._changed.wait(max(0, min(left_ns - ahead_ns, LONGEST_SLEEP_NS)) / 1e9)
            self._thread = None
            return []

    def _take(self, until_ns: MonoNs) -> list[_Shot]:
        shots = self._taken = []
        while self._heap and self._heap[0].when_ns <= until_ns:
            shots.append(heapq.heappop(self._heap))
        return shots


class _Hurry:
    """The interpreter's switch interval: short while any scheduler of the process is close to an instant."""

    _lock = threading.Lock()
    _hurried = 0
    _usual_s = 0.0

    def __init__(self) -> None:
        self._on = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.set(False)

    def set(self, on: bool) -> None:
        """Be in a hurry, or no longer; the last one out restores what was found."""
        if on == self._on:
            return
        self._on = on
        with _Hurry._lock:
            _Hurry._hurried += 1 if on else -1
            if on and _Hurry._hurried == 1:
                _Hurry._usual_s = sys.getswitchinterval()
                sys.setswitchinterval(HURRIED_INTERVAL_S)
            elif not on and _Hurry._hurried == 0:
                sys.setswitchinterval(_Hurry._usual_s)

    @classmethod
    def begin_anew(cls) -> None:
        """In a child, right after the fork: those that were in a hurry are not there."""
        if cls._hurried:
            sys.setswitchinterval(cls._usual_s)
        cls._lock, cls._hurried = threading.Lock(), 0


def _settle(shots: list[_Shot]) -> None:
    """Wake each loop once for all its waiters."""
    for loop in dict.fromkeys(shot.loop for shot in shots):
        theirs = [shot for shot in shots if shot.loop is loop]
        # The loop may have been closed by now: then nobody waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_hand_over, theirs)


def _hand_over(shots: list[_Shot]) -> None:
    for shot in shots:
        shot.settle()


def _be_punctual() -> None:
    """Ask for exact timers and the highest ordinary priority for this thread; both are refused to some, and optional.

    Not for a real-time one: the thread waits for the GIL, and whoever holds that must get a core. Measured with two
    programs on two cores: with SCHED_FIFO, streams now and then came up to 2 s late, without it never in 800; and from
    Linux 6.12 on ("fair server") such a thread itself may wait up to 60 ms for its core.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # 7 ms, which only those who wait for an instant need to pay

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _HIGHEST)


def _leave_core_of(thread: int) -> None:
    """Keep off the core that this process's `thread` runs on, where there is another.

    On the same core, one that waits for the GIL and the one that holds it stand in each other's way. Measured with 200
    tasks ticking: 36 shots of 250 more than 50 µs late on any core, 12 of 250 away from the loop's.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError):
        with open(f"/proc/self/task/{thread}/stat", "rb") as stat:
            core = int(stat.read().rpartition(b")")[2].split()[_STAT_PROCESSOR])
        # The process's main thread has the cores that the user allows.
        os.sched_setaffinity(0, os.sched_getaffinity(os.getpid()) - {core})  # EINVAL where that leaves none


def _go_anywhere() -> None:
    """Take any core of the process again.

    A thousand calls last 40 ms. Measured with two programs doing so on two cores, both driven off the same one:
    770 ms.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, os.sched_getaffinity(os.getpid()))


shared = Scheduler()
"""The process's scheduler: every wait of every loop goes through one thread."""

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=Scheduler.begin_anew)
    os.register_at_fork(after_in_child=_Hurry.begin_anew)
