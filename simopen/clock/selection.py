"""Which time servers to believe: their answers become one estimate, or nobody knows.

Theory of operation. Each answer says where true time lies, to within its bound. What more than half of the servers
agree on is the estimate; a server that contradicts itself has no vote.

Pure: samples and numbers in, values out. What must not live here: reading a clock, asking a server.
"""

from __future__ import annotations

from collections.abc import Sequence

from simopen.clock import ntp
from simopen.errors import ClockError, no_names
from simopen.model.estimate import Estimate, Evidence, Reading, Source, drift_ns, slept_s
from simopen.model.server import Heard
from simopen.model.times import MonoNs, UtcNs
from simopen.model.wording import by_reason, human, listed

SLEW_PPM = 500
"""How fast the kernel slews CLOCK_MONOTONIC where something corrects the clock meanwhile (MAXFREQ of linux/timex.h)."""
_NS = 1_000_000_000


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


def interval(sample: ntp.Sample, anchor_ns: MonoNs) -> tuple[int, int]:
    """Where "UTC minus CLOCK_MONOTONIC" (ns) must lie at `anchor_ns`, if the server tells the truth.

    Half the delay for any asymmetry of the path; the server's own root distance; the rounding of its time stamps;
    and what the local clock may have gone wrong by since the query left.
    """
    half_ns = -(-sample.delay_ns // 2) + sample.answer.root_distance_ns
    half_ns += ntp.ROUNDING_NS + drift_ns(anchor_ns - sample.t1_ns)
    return sample.offset_ns - half_ns, sample.offset_ns + half_ns


def contradiction_ns(answers: ntp.Answers, anchor_ns: MonoNs) -> int:
    """How far apart a server's own answers are: no moment of time fits all of them. 0 where they overlap, as they must.

    Each is true to within its bound, unless the server lies, or the local clock is being slewed meanwhile.
    """
    if not (told := answers.samples + answers.repeated):
        return 0
    spread_ns = max(each.t1_ns for each in told) - min(each.t1_ns for each in told)
    intervals = [interval(each, anchor_ns) for each in told]
    gap_ns = max(low for low, _ in intervals) - min(high for _, high in intervals)
    return gap_ns if gap_ns > spread_ns * SLEW_PPM // 1_000_000 else 0


def agreed(answers: Sequence[ntp.Answers], anchor_ns: MonoNs) -> tuple[int, int] | None:
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
    return Estimate(UtcNs(now.monotonic_ns + middle_ns), hull[1] - middle_ns, Source.NTP, now, evidence)


def _evidence(answers: ntp.Answers, hull: tuple[int, int] | None, now: Reading) -> Evidence:
    best = answers.best
    if best is None:
        heard = answers.unnamed or (Heard.UNUSABLE if answers.reasons else Heard.NOTHING)
        return Evidence(answers.name, refused=answers.reasons or f"no answer to {answers.queries} queries", heard=heard)
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
    heard = tuple(each.heard for each in evidence if each.heard)
    if len(evidence) > 1 and sum(each.is_unnamed for each in heard) == len(evidence):
        error = ClockError(no_names(len(evidence), "time"), heard, has_advice=True)
        error.add_note(each_said)
        return error
    answered = sum(each.answers > 0 for each in evidence)
    believed = sum(each.offset_s is not None for each in evidence)
    what = {0: "no time server could be believed", 1: "one alone proves nothing"}
    said = what.get(believed, "the time servers disagree, and no majority is right")
    return ClockError(f"{said} ({answered} of {len(evidence)} answered): {each_said}", heard)
