"""The wait for an instant: learn the time, wait on the loop until shortly before it, and notice what goes wrong.

Theory of operation: until the handover to the scheduler's thread the loop waits, and looks every second whether the
machine slept, or the clock should be asked about anew. Whether the instant was missed is judged by the best that is
known of the time, after everybody was asked. A wait that lasts longer than asked for tells a process that was stopped,
or a loop that was blocked: then it is this process that came too late, and nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from simopen.clock.source import TimeSource
from simopen.clock.true_time import VAIN_S, Learnt, When, good_enough_s, learn, must_ask, patience_s
from simopen.model.estimate import SUSPEND_S, Estimate
from simopen.model.times import NEVER, MonoNs
from simopen.model.wording import span

HANDOVER_NS = 2_000_000_000
"""From here on the scheduler's thread waits; until here the loop does."""
STALLED_NS = 500_000_000
"""A wait that lasts so much longer than asked for is told."""
_TICK_S = 1.0
_PULSE_S = 0.5
# So long before the instant, and so often, somebody looks for a peer that fires too early. It stops at the handover: a
# SYN that was dropped then is sent again, by the peer's kernel after 1 s, before our own.
_LOOKOUT_NS = 60_000_000_000
_LOOK_S = 0.1
# A check made this long before the instant is repeated shortly before it, and so is one that left more than 5 ms of
# doubt: 15 ppm of 10 minutes are 9 ms.
_STALE_NS = 600_000_000_000
_RECHECK_NS = 30_000_000_000
_STALE_S = 0.005
# While nobody has told the time, somebody may be there to be asked by now: a network that came up, say. The pauses grow
# with the time for which nobody has, as how far ahead the instant is is not known either.
_SOONEST_RETRY_NS, _RETRY_NS = round(VAIN_S * 1e9), 30_000_000_000


class Notes(Protocol):
    """Where what is worth telling goes."""

    def note(self, text: str) -> None: ...
    def note_clock(self, learnt: Learnt) -> None: ...


@dataclass(slots=True)
class Wait:
    """One wait. `estimate` and `instant_ns` (CLOCK_MONOTONIC) are the best that is known; see `until_handover`.

    `stalled_ns`: by how much the last wait was too long, because this process was stopped or busy; 0 where it was not.
    """

    when: When
    source: TimeSource
    window_s: float
    notes: Notes
    estimate: Estimate
    instant_ns: MonoNs = field(default=MonoNs(0))
    stalled_ns: int = 0
    _began_ns: MonoNs = NEVER
    _asked_ns: MonoNs = NEVER
    _doubtful: bool = False

    async def until_handover(self, look_out: Callable[[], bool]) -> int:
        """Wait until the scheduler takes over, and return how many ns the instant is ahead; below zero where over.

        `look_out`: looks for a peer that fires too early, and returns whether there is any sense in looking again.
        """
        self._began_ns = MonoNs(time.monotonic_ns())
        await self._learn(good_enough_s(self.source, self.window_s))
        return await self.on_until_handover(look_out)

    async def on_until_handover(self, look_out: Callable[[], bool]) -> int:
        """Wait on, as `until_handover` did: the machine has slept since."""
        while True:
            now = self.source.local.read()
            self.instant_ns = self.estimate.monotonic_at(self.when.utc_ns(self.estimate))
            left_ns = self.instant_ns - now.monotonic_ns
            if asleep_s := self.estimate.suspended(now):
                await self._wake(asleep_s)
            elif left_ns <= HANDOVER_NS:
                return left_ns
            elif (good_s := self._wanted_s(left_ns, now.monotonic_ns)) is not None:
                await self._learn(good_s)
            else:
                pause_s = min(_looked(look_out, left_ns), (left_ns - HANDOVER_NS) / 1e9)
                await asyncio.sleep(pause_s)
                self._note_stall(now.monotonic_ns, pause_s)

    def has_slept(self) -> bool:
        """Whether the machine slept since what is known of the time was learnt, so that the instant is not known."""
        known = self.estimate.reading
        asleep_ns = self.source.local.asleep_ns() - (known.boottime_ns - known.monotonic_ns)
        return asleep_ns > SUSPEND_S * 1e9 and bool(self.estimate.suspended(self.source.local.read()))

    def left_ns(self) -> int:
        """How many ns the instant is ahead, as far as is known now."""
        return self.estimate.monotonic_at(self.when.utc_ns(self.estimate)) - time.monotonic_ns()

    async def _wake(self, asleep_s: float) -> None:
        self.notes.note(f"this machine slept for {asleep_s:.1f} s while waiting, so its clock is checked again")
        self.when = self.when.fixed(self.estimate)  # CLOCK_MONOTONIC stood still since it was told
        await self._learn(good_enough_s(self.source, self.window_s))

    def _wanted_s(self, left_ns: int, now_ns: MonoNs) -> float | None:
        """The bound that is asked for, where it is time to ask again; None where it is not."""
        since_ns = now_ns - self._asked_ns
        pause_ns = min(_RETRY_NS, max(_SOONEST_RETRY_NS, self._asked_ns - self._began_ns))
        if self._doubtful and since_ns > pause_ns:
            return good_enough_s(self.source, self.window_s)
        return _STALE_S if left_ns <= _RECHECK_NS and since_ns > _STALE_NS else None

    async def _learn(self, good_s: float) -> None:
        estimate = self.source.now_estimate()
        left_s = (estimate.monotonic_at(self.when.utc_ns(estimate)) - estimate.monotonic_ns) / 1e9
        asking_s = patience_s(left_s, self.window_s)
        began_ns = MonoNs(time.monotonic_ns())
        learnt = await learn(self.source, good_s, asking_s)
        self._note_stall(began_ns, asking_s)
        if not must_ask(self.source, learnt.estimate, good_enough_s(self.source, self.window_s)):
            learnt = Learnt(learnt.estimate)  # asked in vain, but an earlier check will do
        self.estimate, self._asked_ns = learnt.estimate, MonoNs(time.monotonic_ns())
        self._doubtful = learnt.doubt is not None
        self.notes.note_clock(learnt)

    def _note_stall(self, began_ns: MonoNs, seconds: float) -> None:
        """Whether what was to take so long at most, and is over now, took much longer."""
        over_ns = time.monotonic_ns() - began_ns - round(seconds * 1e9)
        self.stalled_ns = over_ns if over_ns > STALLED_NS else 0


class Pulse:
    """Whether the loop comes round in time. `stalled_ns`: the longest that it did not, where that is worth telling."""

    __slots__ = ("_timer", "stalled_ns")

    def __init__(self) -> None:
        self.stalled_ns = 0
        self._timer: asyncio.TimerHandle

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """While inside, feel it; what lasts twice as long as that pause is noticed at any rate."""
        self._beat()
        try:
            yield
        finally:
            self._timer.cancel()

    def _beat(self, due_ns: MonoNs | None = None) -> None:
        now_ns = time.monotonic_ns()
        if due_ns is not None and now_ns - due_ns > STALLED_NS:
            self.stalled_ns = max(self.stalled_ns, now_ns - due_ns)
        next_ns = MonoNs(now_ns + round(_PULSE_S * 1e9))
        self._timer = asyncio.get_running_loop().call_later(_PULSE_S, self._beat, next_ns)


def _looked(look_out: Callable[[], bool], left_ns: int) -> float:
    """Look for a peer that comes too early, where the instant is near, and say after how many seconds to come back."""
    return _LOOK_S if left_ns <= _LOOKOUT_NS and look_out() else _TICK_S


def stalled(stalled_ns: int) -> str:
    """What to say of this process."""
    return f"this process was stopped, or too busy, for {span(stalled_ns / 1e9)}"
