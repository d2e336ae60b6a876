"""Doing something at an instant, to the microsecond.

Theory of operation: one thread serves every instant of the process. It exists only while somebody waits. It sleeps on a
condition (CLOCK_MONOTONIC, absolute) until 600 µs before the earliest instant, spins the rest, and runs the action
itself: handing back to the event loop first would cost 160 to 300 µs. So an action must be short and must not block,
as a non-blocking `connect` is and does.

An event loop's own timers will not do: asyncio's wake 0.9 ms late at the median, uvloop's up to 1.3 ms early.

Limit: where other code holds the GIL for 5 ms at a time, an action may be up to 5 ms late.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

# A sleep's error is below this at p99 even with every core busy (60 µs to 0.4 ms measured); and the kernel throttles
# real-time threads that spin much longer.
SPIN_NS = 600_000
# A virtual machine's core that has slept long may wake ms late. So the sleep ends early, and naps from there on keep
# the core at hand: more than 50 µs late were 3 wake-ups of 400 and 6 of 250, against 14 and 10 after one long sleep.
WAKE_NS, NAP_NS = 4_000_000, 200_000
# A rehearsal takes 20 µs for one connect; where there is less time than this, it would make its action late.
REHEARSAL_NS = 300_000
# The condition's wait takes seconds as a float and some platforms cap it; a longer wait just wakes now and then.
LONGEST_SLEEP_NS = 3_600_000_000_000
_PR_SET_TIMERSLACK = 29  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Fired(Generic[T]):
    """What an action returned, and the CLOCK_MONOTONIC ns at which it was begun: never before its instant."""

    at_ns: int
    result: T


@dataclass(order=True, slots=True)
class _Shot:
    when_ns: int
    order: int
    loop: asyncio.AbstractEventLoop = field(compare=False)
    action: Callable[[], object] = field(compare=False)
    rehearsal: Callable[[], object] | None = field(compare=False)
    done: asyncio.Future[Fired[object]] = field(compare=False)
    # Flags and no lock: taking even a free lock costs 3 µs at the one moment that counts. The thread sets `begun` and
    # then looks at `cancelled`, `cancel` does the reverse, so one of the two always sees the other.
    cancelled: bool = field(default=False, compare=False)
    begun: bool = field(default=False, compare=False)
    ended: bool = field(default=False, compare=False)

    def spin_and_fire(self) -> None:
        """Spin until the instant, then run the action, with nothing in between that was not looked up before."""
        now_ns, when_ns, action = time.monotonic_ns, self.when_ns, self.action
        if self.rehearsal is not None and now_ns() < when_ns - REHEARSAL_NS:
            self.rehearsal()
        while (at_ns := now_ns()) < when_ns and not self.cancelled:
            pass
        self.begun = True
        if self.cancelled:
            self.ended = True
            return
        try:
            outcome: Fired[object] | BaseException = Fired(at_ns, action())
        except BaseException as error:  # it is the waiter's, raised there
            outcome = error
        self.ended = True
        # The loop may have been closed by now: then nobody waits.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(_settle, self.done, outcome)

    def cancel(self) -> None:
        """See to it that the action never starts, or, where it has started, wait for the microseconds it takes."""
        self.cancelled = True
        while self.begun and not self.ended:
            time.sleep(0)


def _settle(done: asyncio.Future[Fired[object]], outcome: Fired[object] | BaseException) -> None:
    if done.done():
        return
    if isinstance(outcome, BaseException):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


class Scheduler:
    """Runs actions at instants of CLOCK_MONOTONIC. Safe to share between threads and event loops."""

    def __init__(self) -> None:
        self._heap: list[_Shot] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._order = 0

    async def at(
        self, when_ns: int, action: Callable[[], T], *, rehearsal: Callable[[], object] | None = None
    ) -> Fired[T]:
        """Run `action` in the scheduler's thread at `when_ns`, or at once where that has passed.

        `action` must be short and must not block. What it raises is raised here. Cancelling is safe in every
        phase: once `CancelledError` comes out, the action has either run to its end or never will.

        `rehearsal`, where given and where there is time, is run in that thread right before the spin: one that takes
        the action's steps without their effect brings its code and data into the caches.
        """
        loop = asyncio.get_running_loop()
        shot = self._add(when_ns, loop, action, rehearsal)
        try:
            return await shot.done  # type: ignore[return-value]
        finally:
            self._drop(shot)

    def _add(
        self,
        when_ns: int,
        loop: asyncio.AbstractEventLoop,
        action: Callable[[], object],
        rehearsal: Callable[[], object] | None,
    ) -> _Shot:
        with self._changed:
            self._order += 1
            shot = _Shot(when_ns, self._order, loop, action, rehearsal, loop.create_future())
            heapq.heappush(self._heap, shot)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="simopen-scheduler", daemon=True)
                self._thread.start()
            elif self._heap[0] is shot:
                self._changed.notify()
            return shot

    def _drop(self, shot: _Shot) -> None:
        shot.cancel()
        with self._changed:
            if self._heap and self._heap[0] is shot:
                self._changed.notify()

    def _run(self) -> None:
        _be_punctual()
        while (shot := self._next()) is not None:
            shot.spin_and_fire()

    def _next(self) -> _Shot | None:
        """Sleep until shortly before the earliest shot and take it; None, once, when nobody waits any more."""
        with self._changed:
            while self._heap:
                if self._heap[0].cancelled:
                    heapq.heappop(self._heap)
                    continue
                left_ns = self._heap[0].when_ns - time.monotonic_ns() - SPIN_NS
                if left_ns <= 0:
                    break
                self._changed.wait(_nap_ns(left_ns) / 1e9)
            else:
                self._thread = None
                return None
            return heapq.heappop(self._heap)


def _nap_ns(left_ns: int) -> int:
    """How long to sleep next: until shortly before the spin, and from there on in naps."""
    if left_ns > WAKE_NS:
        return min(left_ns - WAKE_NS, LONGEST_SLEEP_NS)
    return min(left_ns, NAP_NS)


def _be_punctual() -> None:
    """Ask for exact timers and a real-time priority for this thread; both are refused to some, and optional."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # 7 ms, which only those who wait for an instant need to pay

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


shared = Scheduler()
"""The process's scheduler: every wait of every loop goes through one thread."""
