"""Estimates of true time: what one holds, how it ages, and how servers' answers become one.

Theory of operation. An `Estimate` ties one moment of CLOCK_MONOTONIC, in integer ns, to UTC, with a bound on
the error where one is known; from then on only CLOCK_MONOTONIC counts, so that nobody who steps the wall
clock can move an instant. The bound ages by 15 ppm (RFC 5905's PHI). CLOCK_MONOTONIC stands still while the
machine sleeps, so a suspend voids the estimate.

Pure: readings, samples and numbers in, values out. What must not live here: reading a clock, asking a server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from simopen.clock import ntp
from simopen.errors import ClockError, no_names
from simopen.model.wording import by_reason, listed

SUSPEND_S = 0.01
"""CLOCK_BOOTTIME ahead of CLOCK_MONOTONIC by this much means a suspend: no machine sleeps and wakes faster,
and reading the clocks one after the other takes microseconds."""
SLEW_PPM = 500
"""How fast the kernel slews CLOCK_MONOTONIC where something corrects the clock meanwhile (MAXFREQ of linux/timex.h)."""
NO_ANSWER = "no answer to"
"""How the words begin for a server from which nothing came."""
_NS = 1_000_000_000


class Source(StrEnum):
    """Who said what time it is."""

    PEER = "peer"
    NTP = "ntp"
    KERNEL = "kernel"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Reading:
    """The machine's clocks at one moment, ns. Without CLOCK_BOOTTIME that is the monotonic clock again."""

    monotonic_ns: int
    realtime_ns: int
    boottime_ns: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one server said. Where `refused` is None it agrees with the majority; else that is the reason.

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

    @property
    def accepted(self) -> bool:
        return self.refused is None

    def __str__(self) -> str:
        measured = "" if self.offset_s is None else f"{self.offset_s:+.4f} s ± {human(self.bound_s)}"
        return f"{self.name}: {', '.join(filter(None, (measured, self.refused)))}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """UTC at one reading of the local clocks. `bound_ns` at that moment; None: nobody knows."""

    utc_ns: int
    bound_ns: int | None
    source: Source
    reading: Reading
    servers: tuple[Evidence, ...] = ()

    @property
    def monotonic_ns(self) -> int:
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

    def monotonic_at(self, utc_ns: int) -> int:
        """CLOCK_MONOTONIC, ns, at that true instant (UTC ns since 1970)."""
        return self.reading.monotonic_ns + utc_ns - self.utc_ns

    def utc_at(self, monotonic_ns: int) -> int:
        """UTC ns since 1970 when CLOCK_MONOTONIC says that."""
        return self.utc_ns + monotonic_ns - self.reading.monotonic_ns

    def bound_at(self, monotonic_ns: int) -> int | None:
        """The error bound, ns, at that CLOCK_MONOTONIC: it grows by 15 ppm. Unknown (None) stays unknown."""
        if self.bound_ns is None:
            return None
        elapsed_ns = monotonic_ns - self.reading.monotonic_ns
        return self.bound_ns + ntp.drift_ns(elapsed_ns) if elapsed_ns else self.bound_ns

    def suspended(self, reading: Reading) -> float:
        """Seconds that the machine slept between the anchor and `reading`; 0.0 where it did not."""
        return slept_s(self.reading, reading)

    def valid(self, reading: Reading) -> bool:
        """Still good: the machine has not slept since. Age does not void it, it shows in `bound_at`."""
        return not self.suspended(reading)

    def at(self, reading: Reading) -> Estimate:
        """The same knowledge anchored at a later reading: bound aged, offset that of the wall clock then."""
        monotonic_ns = reading.monotonic_ns
        return replace(self, utc_ns=self.utc_at(monotonic_ns), bound_ns=self.bound_at(monotonic_ns), reading=reading)

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


def human(seconds: float | None) -> str:
    """A duration for people: `12 ms`."""
    if seconds is None:
        return "unknown"
    scales = (("s", 1.0), ("ms", 1e-3))
    unit, size = next((each for each in scales if seconds >= each[1]), ("µs", 1e-6))
    return f"{seconds / size:.{1 if seconds < 10 * size else 0}f} {unit}"


def span(seconds: float) -> str:
    """A longer duration for people, to two parts of it: `1 h`, `59 min 52 s`, `14 days`, `40 s`, `3.2 s`."""
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    left, told = round(seconds), []
    for unit, size in (("day", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            told.append(f"{count} {unit}{'s' * (unit == 'day' and count != 1)}")
        elif told:  # what is below a part that is missing is of no interest
            break
    return " ".join(told[:2])


def intersect(intervals: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The hull of all points that more than half of the closed intervals (lo, hi) cover; None: no such point.

    As long as more than half of the intervals hold the truth, the truth is such a point, so it is in the
    hull. That is why this is not Marzullo's algorithm as usually told, which keeps only the points covered
    most often: a liar that overlaps some of the honest intervals makes a region that is covered more often
    than the truth is. Take (0, 10), (4, 14) and a liar's (8, 20) with the truth at 5: Marzullo answers (8, 10),
    this (4, 14).
    """
    majority = len(intervals) // 2 + 1
    edges = sorted([(lo, 0) for lo, _ in intervals] + [(hi, 1) for _, hi in intervals])
    depth, borders = 0, []
    for at, closing in edges:
        if depth + (not closing) == majority:
            borders.append(at)  # the depth rises to a majority here, or falls from it
        depth += -1 if closing else 1
    return (borders[0], borders[-1]) if borders else None


def interval(sample: ntp.Sample, anchor_ns: int) -> tuple[int, int]:
    """Where "UTC minus CLOCK_MONOTONIC" (ns) must lie at `anchor_ns`, if the server tells the truth.

    Half the delay for any asymmetry of the path; the server's own root distance; ntplib's rounding; and what
    the local clock may have gone wrong by since the query left.
    """
    half_ns = -(-sample.delay_ns // 2) + sample.answer.root_distance_ns
    half_ns += ntp.ROUNDING_NS + ntp.drift_ns(anchor_ns - sample.t1_ns)
    return sample.offset_ns - half_ns, sample.offset_ns + half_ns


def contradiction_ns(answers: ntp.Answers, anchor_ns: int) -> int:
    """How far apart a server's own answers are: no moment of time fits all of them. 0 where they overlap, as they must.

    Each is true to within its bound, unless the server lies, or the local clock is being slewed meanwhile.
    """
    if not answers.samples:
        return 0
    spread_ns = max(each.t1_ns for each in answers.samples) - min(each.t1_ns for each in answers.samples)
    intervals = [interval(each, anchor_ns) for each in answers.samples]
    gap_ns = max(low for low, _ in intervals) - min(high for _, high in intervals)
    return gap_ns if gap_ns > spread_ns * SLEW_PPM // 1_000_000 else 0


def agreed(answers: Sequence[ntp.Answers], anchor_ns: int) -> tuple[int, int] | None:
    """Where "UTC minus CLOCK_MONOTONIC" lies by the majority of those that answered; None: no majority.

    One that contradicts itself has no vote, and counts for nobody.

    One alone proves nothing, unless it was the only one asked: then the caller trusts it. With two, no liar is
    tolerated; with three or four, one. That is why `check_clock` does not stop at two of four that agree.
    """
    heard = [each for each in answers if not contradiction_ns(each, anchor_ns)]
    intervals = [interval(best, anchor_ns) for each in heard if (best := each.best)]
    if len(intervals) < min(2, len(answers)):
        return None
    return intersect(intervals)


def judge(answers: Sequence[ntp.Answers], before: Reading, now: Reading) -> Estimate:
    """The estimate that the answers allow, anchored at `now`; `before` was read when the check began.

    Raises:
        ClockError: no majority, or the machine slept meanwhile. The message has each server's own answer.
    """
    if asleep_s := slept_s(before, now):
        raise ClockError(f"the machine slept for {asleep_s:.1f} s during the check: ask again")
    hull = agreed(answers, now.monotonic_ns)
    evidence = tuple(_evidence(each, hull, now) for each in answers)
    if hull is None:
        raise _disagreement(evidence)
    middle_ns = (hull[0] + hull[1]) // 2
    return Estimate(now.monotonic_ns + middle_ns, hull[1] - middle_ns, Source.NTP, now, evidence)


def _evidence(answers: ntp.Answers, hull: tuple[int, int] | None, now: Reading) -> Evidence:
    best = answers.best
    if best is None:
        reasons = answers.reasons or f"{NO_ANSWER} {answers.queries} queries"
        return Evidence(answers.name, refused=reasons)
    if gap_ns := contradiction_ns(answers, now.monotonic_ns):
        reasons = f"contradicts itself: its own answers are {human(gap_ns / _NS)} apart"
        return Evidence(answers.name, address=best.address, answers=len(answers.samples), refused=reasons)
    low_ns, high_ns = interval(best, now.monotonic_ns)
    agrees = hull is not None and low_ns <= hull[1] and hull[0] <= high_ns
    return Evidence(
        name=answers.name,
        address=best.address,
        offset_s=(best.offset_ns + now.monotonic_ns - now.realtime_ns) / _NS,
        bound_s=(high_ns - low_ns) / 2 / _NS,
        delay_s=best.delay_ns / _NS,
        root_distance_s=best.answer.root_distance_ns / _NS,
        stratum=best.answer.stratum,
        answers=len(answers.samples),
        refused=None if agrees else "disagrees with the others" if hull else "no majority",
    )


def _disagreement(evidence: Sequence[Evidence]) -> ClockError:
    each_said = listed(by_reason(map(str, evidence)), " | ")
    if len(evidence) > 1 and all((each.refused or "").startswith(ntp.NO_NAME) for each in evidence):
        error = ClockError(no_names(len(evidence), "time"))
        error.add_note(each_said)
        return error
    answered = sum(each.answers > 0 for each in evidence)
    believed = sum(each.offset_s is not None for each in evidence)
    what = {0: "no time server could be believed", 1: "one alone proves nothing"}
    said = what.get(believed, "the time servers disagree, and no majority is right")
    return ClockError(f"{said} ({answered} of {len(evidence)} answered): {each_said}")
