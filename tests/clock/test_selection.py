"""How servers' answers become one estimate. Nothing here reads a clock, or asks a server."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.clock.ntp import Answer, Answers, sample
from simopen.clock.selection import contradiction_ns, intersect, interval, judge
from simopen.errors import ClockError
from simopen.model.estimate import Reading, Source
from simopen.model.times import MonoNs, UtcNs

S, MS = 1_000_000_000, 1_000_000


READING = Reading(monotonic_ns=MonoNs(500 * S), realtime_ns=1_800_000_000 * S, boottime_ns=700 * S)


def later(seconds: float, *, asleep_s: float = 0.0, step_s: float = 0.0) -> Reading:
    passed_ns = round(seconds * S)
    return Reading(
        MonoNs(READING.monotonic_ns + passed_ns),
        READING.realtime_ns + passed_ns + round((asleep_s + step_s) * S),
        READING.boottime_ns + passed_ns + round(asleep_s * S),
    )


@pytest.mark.parametrize(
    ("intervals", "hull"),
    [
        ([], None),
        ([(1, 3)], (1, 3)),
        ([(1, 3), (2, 4)], (2, 3)),
        ([(1, 3), (3, 4)], (3, 3)),
        ([(1, 2), (3, 4)], None),
        ([(0, 10), (4, 14), (8, 20)], (4, 14)),
        ([(0, 10), (4, 14), (100, 200)], (4, 10)),
        ([(0, 10), (2, 3), (5, 6)], (2, 6)),
        ([(0, 10), (1, 9), (2, 8), (100, 200)], (2, 8)),
        ([(0, 10), (1, 9), (2, 20), (5, 30)], (2, 10)),
        ([(0, 1), (0, 1), (5, 6), (5, 6)], None),
        ([(5, 5), (5, 5)], (5, 5)),
    ],
)
def test_the_hull_of_what_a_majority_covers(intervals: list[tuple[int, int]], hull: tuple[int, int] | None) -> None:
    assert intersect(intervals) == hull
    assert intersect(intervals[::-1]) == hull


def brute(intervals: list[tuple[int, int]]) -> tuple[int, int] | None:
    covered = [x for x in range(-1, 42) if sum(lo <= x <= hi for lo, hi in intervals) > len(intervals) / 2]
    return (covered[0], covered[-1]) if covered else None


small = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda ends: (min(ends), max(ends)))


@given(st.lists(small, max_size=6))
def test_the_hull_is_what_counting_says(intervals: list[tuple[int, int]]) -> None:
    assert intersect(intervals) == brute(intervals)


@given(
    truth=st.integers(-(10**6), 10**6),
    honest=st.lists(st.tuples(st.integers(0, 10**5), st.integers(0, 10**5)), min_size=1, max_size=5),
    lies=st.data(),
)
def test_with_a_minority_of_liars_the_truth_is_in_the_hull(
    truth: int, honest: list[tuple[int, int]], lies: st.DataObject
) -> None:
    liars = lies.draw(
        st.lists(st.tuples(st.integers(-(10**6), 10**6), st.integers(0, 10**6)), max_size=len(honest) - 1)
    )
    intervals = [(truth - a, truth + b) for a, b in honest] + [(lo, lo + width) for lo, width in liars]
    hull = intersect(intervals)
    assert hull is not None
    assert hull[0] <= truth <= hull[1]


def heard(name: str, offset_ns: int, out_ns: int, held_ns: int, back_ns: int) -> Answers:
    """What a server says whose clock is `offset_ns` ahead of CLOCK_MONOTONIC, over a path of such delays."""
    t1_ns = 500 * S
    t2_ns = t1_ns + out_ns + offset_ns
    answer = Answer(UtcNs(t2_ns), UtcNs(t2_ns + held_ns), stratum=2, root_distance_ns=0)
    return Answers(name, samples=[sample(name, MonoNs(t1_ns), answer, MonoNs(t1_ns + out_ns + held_ns + back_ns))])


delays = st.integers(0, 50 * MS)


exchange = st.tuples(delays, st.integers(0, MS), delays)


@given(
    offset_ns=st.integers(-5 * S, 5 * S),
    honest=st.lists(exchange, min_size=2, max_size=3),
    liar=exchange,
    lie_ns=st.integers(-100 * MS, 100 * MS) | st.integers(-5 * S, 5 * S),
    asymmetric=st.booleans(),
)
def test_one_liar_in_three_or_four_never_moves_the_truth_out_of_the_bound(
    *,
    offset_ns: int,
    honest: list[tuple[int, int, int]],
    liar: tuple[int, int, int],
    lie_ns: int,
    asymmetric: bool,
) -> None:
    paths = [(out, held, 0) for out, held, _ in honest] if asymmetric else honest
    answers = [heard(f"s{i}", offset_ns, *path) for i, path in enumerate(paths)]
    answers.append(heard("liar", offset_ns + lie_ns, *liar))
    now = later(0.2)
    estimate = judge(answers, READING, now)
    assert estimate.bound_ns is not None
    assert abs(estimate.utc_at(MonoNs(now.monotonic_ns)) - now.monotonic_ns - offset_ns) <= estimate.bound_ns


def test_the_interval_holds_half_the_delay_and_all_that_is_added_to_it() -> None:
    answer = Answer(t2_ns=UtcNs(20 * MS), t3_ns=UtcNs(20 * MS), stratum=2, root_distance_ns=7)
    low_ns, high_ns = interval(sample("a", MonoNs(0), answer, MonoNs(40 * MS)), MonoNs(100 * MS))
    assert (low_ns + high_ns) / 2 == 0
    assert (high_ns - low_ns) / 2 == 20 * MS + 7 + 500 + 1500 + 1


def test_the_estimate_tells_every_servers_part() -> None:
    answers = [
        heard("a", S, MS, 0, MS),
        heard("b", S, MS, 0, MS),
        heard("liar", 2 * S, MS, 0, MS),
        Answers("mute"),
    ]
    answers[3].queries = 8
    estimate = judge(answers, READING, later(0.2))
    assert [each.accepted for each in estimate.servers] == [True, True, False, False]
    assert [each.refused for each in estimate.servers[2:]] == [
        "disagrees with the others",
        "no answer to 8 queries",
    ]
    first = estimate.servers[0]
    assert (first.address, first.stratum, first.answers, first.delay_s) == ("a", 2, 1, 0.002)
    assert first.offset_s == pytest.approx(estimate.offset_s)
    assert str(estimate).endswith("(NTP, 2 of 4 servers)")


def test_one_alone_proves_nothing_unless_it_was_the_only_one_asked() -> None:
    assert judge([heard("a", S, MS, 0, MS)], READING, later(0.2)).source is Source.NTP
    with pytest.raises(ClockError, match=r"one alone proves nothing \(1 of 2 answered\).*a:.*mute: no answer to 0"):
        judge([heard("a", S, MS, 0, MS), Answers("mute")], READING, later(0.2))


def test_without_a_majority_there_is_no_answer() -> None:
    with pytest.raises(ClockError, match=r"disagree.*a: .* ± 1.0 ms, no majority \| b: .*"):
        judge([heard("a", S, MS, 0, MS), heard("b", 2 * S, MS, 0, MS)], READING, later(0.2))


def test_nobody_believed_says_why_for_each() -> None:
    refused = Answers("a", refusals=["stratum 16", "leap alarm"])
    with pytest.raises(ClockError, match=r"no time server could be believed.*a: stratum 16; leap alarm"):
        judge([refused], READING, later(0.2))


def test_a_suspend_during_the_check_voids_it() -> None:
    with pytest.raises(ClockError, match=r"slept for 30.0 s"):
        judge([heard("a", S, MS, 0, MS)], READING, later(0.2, asleep_s=30))


def test_answers_of_one_server_must_overlap() -> None:
    """By what each says it is true to, and by what the kernel may slew the clock by meanwhile."""
    good = heard("a", S, MS, 0, MS)
    for moved_ns, overlaps in ((0, True), (2 * MS, True), (5 * MS, False), (3600 * S, False), (-3600 * S, False)):
        both = replace(good, samples=good.samples + heard("a", S + moved_ns, MS, 0, MS).samples)
        assert (contradiction_ns(both, MonoNs(500 * S)) == 0) is overlaps
    slewed = heard("a", S + 1, 0, 0, 1)
    second = slewed.samples[0]
    later_ns = 500 * S + S // 1_000_000 * 4
    stood_still = replace(second, t1_ns=MonoNs(second.t1_ns + S), t4_ns=MonoNs(second.t4_ns + S))  # for a second
    slewed.samples.append(stood_still)
    assert contradiction_ns(slewed, MonoNs(later_ns)) > S // 2
    assert contradiction_ns(Answers("mute"), MonoNs(500 * S)) == 0
