"""How far two peers' clocks are apart, by the four time stamps of RFC 5905 §8 through any channel.

Theory of operation: pure. One side asks and keeps when (T1), the other says when that came and when the answer left (T2
and T3, by its own clock), and the first one sees when it comes back (T4). The exchange of least delay counts; what it
tells is right to half of that delay, however long either way took. Only the difference between the two matters for
crossing SYNs, so neither needs to know what time it truly is: the asked side's clock is the meeting's.
"""

from __future__ import annotations

from dataclasses import dataclass

from simopen.model.estimate import Estimate, Reading, Source
from simopen.model.times import UtcNs

EXCHANGES = 8
MOST = 16


@dataclass(frozen=True, slots=True)
class Sample:
    """T1 and T4 in the asking side's CLOCK_MONOTONIC, T2 and T3 in the asked side's UTC, all ns."""

    t1_ns: int
    t2_ns: int
    t3_ns: int
    t4_ns: int

    @property
    def delay_ns(self) -> int:
        """There and back, without what the asked side took; below zero only where it lies."""
        return self.t4_ns - self.t1_ns - (self.t3_ns - self.t2_ns)

    @property
    def ahead_ns(self) -> int:
        """Add this to the asking side's CLOCK_MONOTONIC to get the asked side's UTC."""
        return (self.t2_ns - self.t1_ns + self.t3_ns - self.t4_ns) // 2


def best(samples: tuple[Sample, ...]) -> Sample | None:
    """The one of least delay; None where there is none that can be."""
    return min((each for each in samples if each.delay_ns >= 0), key=lambda each: each.delay_ns, default=None)


def peers_time(sample: Sample, reading: Reading) -> Estimate:
    """The asked side's UTC, as the asking side knows it, anchored at `reading`, one of its own clocks."""
    utc_ns = reading.monotonic_ns + sample.ahead_ns
    return Estimate(UtcNs(utc_ns), sample.delay_ns // 2 + 1, Source.PEER, reading)


def own_time(reading: Reading, bound_ns: int | None) -> Estimate:
    """The asked side's own clock, unchecked: what the peer goes by, to `bound_ns`, is right by definition."""
    return Estimate(UtcNs(reading.realtime_ns), bound_ns, Source.PLAIN if bound_ns is None else Source.PEER, reading)
