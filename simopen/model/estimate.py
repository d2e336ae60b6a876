"""Estimates of true time: what one holds, and how it ages.

Theory of operation. An `Estimate` ties one moment of CLOCK_MONOTONIC, in integer ns, to UTC, with a bound on
the error where one is known; from then on only CLOCK_MONOTONIC counts, so that nobody who steps the wall
clock can move an instant. The bound ages by 15 ppm (RFC 5905's PHI). CLOCK_MONOTONIC stands still while the
machine sleeps, so a suspend voids the estimate.

Pure: readings and numbers in, values out. What must not live here: reading a clock, asking a server.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from simopen.model.server import Heard
from simopen.model.times import MonoNs, UtcNs
from simopen.model.wording import human

SUSPEND_S = 0.01
"""CLOCK_BOOTTIME ahead of CLOCK_MONOTONIC by this much means a suspend: no machine sleeps and wakes faster,
and reading the clocks one after the other takes microseconds."""
PHI_PPM = 15
"""RFC 5905 §7.2: what a clock may gain or lose between two looks at it."""
_NS = 1_000_000_000


class Source(StrEnum):
    """Who said what time it is."""

    PEER = "peer"
    NTP = "ntp"
    KERNEL = "kernel"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Reading:
    """The machine's clocks at one moment, ns. Without CLOCK_BOOTTIME that is the monotonic clock again.

    `realtime_ns` is no true time: what the wall clock says is off by whatever it is off by.
    """

    monotonic_ns: MonoNs
    realtime_ns: int
    boottime_ns: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one server said. Where `refused` is None it agrees with the majority; else that is the reason.

    `heard`: where nothing usable came, what did.

    `offset_s`: add it to the local wall clock, at the estimate's anchor, to get this server's time.
    `bound_s`: half of the delay, root distance and the rest: true to within that, unless the server lies.
    """

    name: str
    address: str | None = None
    offset_s: float | None = None
    bound_s: float | None = None
    delay_s: float | None = None
    root_distance_s: float | None = None
    stratum: int | None = None
    answers: int = 0
    refused: str | None = None
    heard: Heard | None = None

    @property
    def accepted(self) -> bool:
        return self.refused is None

    def __str__(self) -> str:
        measured = "" if self.offset_s is None else f"{self.offset_s:+.4f} s ± {human(self.bound_s)}"
        return f"{self.name}: {', '.join(filter(None, (measured, self.refused)))}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """UTC at one reading of the local clocks. `bound_ns` at that moment; None: nobody knows."""

    utc_ns: UtcNs
    bound_ns: int | None
    source: Source
    reading: Reading
    servers: tuple[Evidence, ...] = ()

    @property
    def monotonic_ns(self) -> MonoNs:
        """The anchor."""
        return self.reading.monotonic_ns

    @property
    def offset_s(self) -> float:
        """Add this to the local wall clock, as it stood at the anchor, to get true time (RFC 5905's sign)."""
        return (self.utc_ns - self.reading.realtime_ns) / _NS

    @property
    def bound_s(self) -> float | None:
        """`offset_s` was right to within this, either way, at the anchor. None: unknown."""
        return None if self.bound_ns is None else self.bound_ns / _NS

    def monotonic_at(self, utc_ns: UtcNs) -> MonoNs:
        """CLOCK_MONOTONIC, ns, at that true instant (UTC ns since 1970)."""
        return MonoNs(self.reading.monotonic_ns + utc_ns - self.utc_ns)

    def utc_at(self, monotonic_ns: MonoNs) -> UtcNs:
        """UTC ns since 1970 when CLOCK_MONOTONIC says that."""
        return UtcNs(self.utc_ns + monotonic_ns - self.reading.monotonic_ns)

    def bound_at(self, monotonic_ns: MonoNs) -> int | None:
        """The error bound, ns, at that CLOCK_MONOTONIC: it grows by 15 ppm. Unknown (None) stays unknown."""
        if self.bound_ns is None:
            return None
        elapsed_ns = monotonic_ns - self.reading.monotonic_ns
        return self.bound_ns + drift_ns(elapsed_ns) if elapsed_ns else self.bound_ns

    def suspended(self, reading: Reading) -> float:
        """Seconds that the machine slept between the anchor and `reading`; 0.0 where it did not."""
        return slept_s(self.reading, reading)

    def valid(self, reading: Reading) -> bool:
        """Still good: the machine has not slept since. Age does not void it, it shows in `bound_at`."""
        return not self.suspended(reading)

    def at(self, reading: Reading) -> Estimate:
        """The same knowledge anchored at a later reading: bound aged, offset that of the wall clock then."""
        then_ns = reading.monotonic_ns
        return replace(self, utc_ns=self.utc_at(then_ns), bound_ns=self.bound_at(then_ns), reading=reading)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: offset and bound in s, the anchor in ns, each server's own answer."""
        return {
            "source": str(self.source),
            "offset_s": self.offset_s,
            "bound_s": self.bound_s,
            "utc_ns": self.utc_ns,
            "monotonic_ns": self.monotonic_ns,
            "servers": [asdict(each) for each in self.servers],
        }

    def __str__(self) -> str:
        if self.source is Source.PLAIN:
            return "unchecked"
        known = f"± {human(self.bound_s)}" if self.bound_ns is not None else "± unknown"
        offset_s = round(self.offset_s, 4) + 0.0  # no minus before a zero
        servers = f"NTP, {self._agreeing()} server{'s' * (len(self.servers) != 1)}"
        return f"{offset_s:+.4f} s {known} ({servers if self.source is Source.NTP else self.who()})"

    def who(self) -> str:
        """Who says so: `4 of 4 time servers`."""
        if self.source is Source.NTP:
            return f"{self._agreeing()} time server{'s' * (len(self.servers) != 1)}"
        return f"the {self.source}'s word"

    def _agreeing(self) -> str:
        return f"{sum(each.accepted for each in self.servers)} of {len(self.servers)}"


def slept_s(before: Reading, after: Reading) -> float:
    """Seconds of suspend between two readings; 0.0 where there was none."""
    awake_ns = after.monotonic_ns - before.monotonic_ns
    asleep_s = (after.boottime_ns - before.boottime_ns - awake_ns) / _NS
    return asleep_s if asleep_s > SUSPEND_S else 0.0


def drift_ns(elapsed_ns: int) -> int:
    """How far the local clock may have gone wrong in `elapsed_ns`, ns, rounded up."""
    return PHI_PPM * abs(elapsed_ns) // 1_000_000 + 1
