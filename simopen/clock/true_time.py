"""What time it is, learnt before anything is decided by it: how long to ask, what to say of the local clock.

Theory of operation: the local clock may be off by weeks, so what it says of an instant, that it is over, say, is no
reason not to ask. What is asked is a `TimeSource`; how long, and what people are told, is decided here, from numbers.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from simopen.clock.instant import Instant, TimeOfDay, Told, Unresolved, instant_ns, local_for_utc, zone_offset_s
from simopen.clock.source import CHECK_TIMEOUT_S, Clock, FixedClock, TimeSource
from simopen.errors import ClockError
from simopen.model.estimate import Estimate, Source
from simopen.model.times import MonoNs, UtcNs
from simopen.model.wording import span

ARMING_S = 0.02
"""What the shot needs to be armed in time: a check of the clock ends this much before the instant."""
LEAST_S = 0.5
"""So long is asked at least, however near the instant seems to be: names are looked up, and an answer comes from the
other side of the world."""
VAIN_S = CHECK_TIMEOUT_S
"""Time servers that could not tell are not asked again for so long."""
WRONG_S = 1.0
"""A clock that is off by this is told to be wrong: whoever looks at it, or types a time of day, is misled."""
_TRUSTED = {
    Source.PEER: "the peer's word",
    Source.NTP: "an earlier check",
    Source.KERNEL: "the kernel's word",
    Source.PLAIN: "the local clock, unchecked,",
}


@dataclass(frozen=True, slots=True)
class When:
    """An instant: UTC ns, or unresolved as it was told when CLOCK_MONOTONIC said `told_ns`; None: now."""

    at: UtcNs | Unresolved | None
    told_ns: MonoNs

    @classmethod
    def told(cls, at: Instant, source: TimeSource) -> When:
        """Told right now, unless it says when. Raises: TypeError and ValueError as `instant_ns` does."""
        if isinstance(at, Told):
            return cls(at.instant, MonoNs(at.told_ns))
        now_ns = MonoNs(source.local.read().monotonic_ns)
        if isinstance(at, Unresolved):
            return cls(at, now_ns)
        fixed_ns = instant_ns(at)
        return cls(None if fixed_ns is None else UtcNs(fixed_ns), now_ns)

    @property
    def is_now(self) -> bool:
        """Whether nothing is to be waited for."""
        return self.at is None

    @property
    def is_unresolved(self) -> bool:
        """Whether it depends on what the time is."""
        return isinstance(self.at, Unresolved)

    def utc_ns(self, estimate: Estimate) -> UtcNs:
        """UTC ns since 1970, if that is the time; of "now", when it was told."""
        told_ns = estimate.utc_at(self.told_ns)
        if self.at is None:
            return told_ns
        return self.at if isinstance(self.at, int) else UtcNs(round(self.at.resolve(told_ns / 1e9) * 1e9))

    @property
    def as_told(self) -> Instant:
        """As `connect` takes it for `at`."""
        if self.at is None:
            return None
        return self.at / 1e9 if isinstance(self.at, int) else Told(self.at, self.told_ns)

    def fixed(self, estimate: Estimate) -> When:
        """The same, resolved: it moves no more, whatever is learnt of the time."""
        return replace(self, at=self.utc_ns(estimate))


@dataclass(frozen=True, slots=True)
class Learnt:
    """The best that is known of the time, and why it is not known well; None where it is."""

    estimate: Estimate
    doubt: str | None = None


def good_enough_s(source: TimeSource, window_s: float) -> float:
    """The largest error bound that needs no better one, where there are so many seconds to fire in."""
    return min(source.limit_s, window_s / 10)


def patience_s(left_s: float, window_s: float) -> float:
    """How long to ask, where by a clock that nobody has checked an instant is `left_s` seconds ahead.

    Until shortly before it; where it is almost now, a moment; where it is over, as long as usual, but half of what is
    left of its window, if anything is, is kept for the shot.
    """
    if left_s > 0:
        return min(CHECK_TIMEOUT_S, max(left_s - ARMING_S, LEAST_S))
    inside_s = left_s + window_s
    return min(CHECK_TIMEOUT_S, inside_s / 2) if inside_s > 0 else CHECK_TIMEOUT_S


async def learn(source: TimeSource, good_s: float, asking_s: float) -> Learnt:
    """Ask for the time, unless it is known to within `good_s` or there is nobody to ask; `asking_s` at most."""
    estimate = source.now_estimate()
    if not must_ask(source, estimate, good_s):
        return Learnt(estimate)
    if (doubt := _recent_doubt(source)) is not None:
        return Learnt(estimate, doubt)
    try:
        # Not asyncio.wait_for: Python 3.11's loses a cancellation that comes as the check ends.
        async with asyncio.timeout(asking_s):
            return Learnt(await source.refresh(asking_s))
    except (ClockError, TimeoutError) as error:
        doubt = str(error) or "no time server answered in time"
    if isinstance(source, Clock):
        source.in_vain = source.local.read().monotonic_ns, doubt
    return Learnt(source.now_estimate(), doubt)


def must_ask(source: TimeSource, estimate: Estimate, good_s: float) -> bool:
    """Whether there is somebody to ask, and reason to."""
    if isinstance(source, FixedClock):  # the caller's own word, which nobody can better; void after a suspend
        return not source.is_good
    return estimate.bound_s is None or estimate.bound_s > good_s


def _recent_doubt(source: TimeSource) -> str | None:
    if not isinstance(source, Clock) or source.in_vain is None:
        return None
    asked_ns, doubt = source.in_vain
    return doubt if source.local.read().monotonic_ns - asked_ns <= VAIN_S * 1e9 else None


def remark(learnt: Learnt) -> str | None:
    """What people should know of this machine's clock; None where it is right, or nobody was asked."""
    if learnt.doubt is not None:
        trusted = _TRUSTED[learnt.estimate.source]
        return f"the clock's offset is not known well, so {trusted} decides when to fire: {learnt.doubt}"
    return correction(learnt.estimate)


def is_news(source: TimeSource, learnt: Learnt) -> bool:
    """Whether nobody has been told of this yet: once a clock is enough, and who brought an estimate knows it."""
    if not isinstance(source, Clock):
        return not isinstance(source, FixedClock) or learnt.doubt is not None
    kind = "doubt" if learnt.doubt is not None else "wrong"
    if kind in source.told:
        return False
    source.told.add(kind)
    return True


def correction(estimate: Estimate) -> str | None:
    """That this machine's clock is wrong, by how much, and who says so; None where it is not."""
    if estimate.bound_s is None or abs(estimate.offset_s) < max(WRONG_S, 2 * estimate.bound_s):
        return None
    if estimate.source is Source.NTP and not estimate.servers:  # nobody can be named who says so
        return None
    side = "behind" if estimate.offset_s > 0 else "ahead"
    who = estimate.who()
    return f"this machine's clock is {span(abs(estimate.offset_s))} {side} ({who}); corrected for this meeting"


def zone_hint(instant_s: float, late_s: float) -> str:
    """What to add where an instant (UTC seconds) that was missed by `late_s` seems to be a local time; "" elsewhere."""
    offset_s = zone_offset_s(instant_s)
    if not local_for_utc(late_s, offset_s):
        return ""
    side = "ahead of" if offset_s > 0 else "behind"
    return (
        f"this host's time zone is {span(abs(offset_s))} {side} UTC: was a local time typed for UTC? "
        f"A time of day may end with its offset, as {_example(offset_s)} does"
    )


def local_note(when: When, estimate: Estimate) -> str | None:
    """A time of day that is as far ahead as the local zone is from UTC may have been a local one."""
    if not isinstance(when.at, TimeOfDay):
        return None
    instant_s = when.utc_ns(estimate) / 1e9
    late_s = estimate.utc_ns / 1e9 - instant_s
    hint = zone_hint(instant_s, late_s) if late_s < 0 else ""
    return f"the instant is {span(-late_s)} ahead; {hint}" if hint else None


def _example(offset_s: float) -> str:
    hours, minutes = divmod(round(abs(offset_s) / 60), 60)
    return f"22:14:30{'+' if offset_s > 0 else '-'}{hours:02}:{minutes:02}"
