from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.nat.port_sequence import (
    Hypothesis,
    Taken,
    evidence,
    likeliest,
    log_sum,
    weigh,
    without_own,
    wrapped,
)


def run(*ports: int, pause_s: float = 0.0) -> tuple[Taken, ...]:
    """Mappings of local ports of either parity."""
    return tuple(Taken(port, 40000 + index // 2, index * pause_s) for index, port in enumerate(ports))


QUIET = run(6999, 7001, 7003, 7005, 7007)


@pytest.mark.parametrize(("port", "back"), [(1024, 1024), (65535, 65535), (65536, 1024), (1023, 65535), (70000, 5488)])
def test_the_range_goes_round(port: int, back: int) -> None:
    assert wrapped(port) == back


@given(st.floats(0, 0.9), st.floats(0, 100), st.floats(0, 1))
def test_chances_add_up_to_all_but_a_negligible_rest(busy: float, rate: float, elapsed_s: float) -> None:
    chances = list(Hypothesis(1, False, busy, rate).chances(elapsed_s))
    assert 1 - 2e-5 <= sum(chances) <= 1 + 1e-9


@given(st.floats(0, 0.9), st.floats(0, 100), st.floats(0, 1), st.integers(1, 20))
def test_one_chance_is_that_of_them_all(busy: float, rate: float, elapsed_s: float, steps: int) -> None:
    walk = Hypothesis(1, False, busy, rate)
    chances = [*walk.chances(elapsed_s), *[0.0] * 20]
    assert walk.chance(steps, elapsed_s) == pytest.approx(chances[steps - 1], abs=1e-5)


def test_others_at_a_rate_come_by_the_clock_and_others_by_chance_do_not() -> None:
    by_rate, by_chance = Hypothesis(1, False, 0.0, 10.0), Hypothesis(1, False, 0.3, 0.0)
    assert [by_rate.chance(1, each) > 0.99 for each in (0.0, 1.0)] == [True, False]
    assert by_chance.chance(2, 0.0) == by_chance.chance(2, 9.0) == pytest.approx(0.21)
    mean = sum(steps * chance for steps, chance in enumerate(by_rate.chances(2.0)))
    assert mean == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize(
    ("runs", "step", "busy"),
    [
        ((QUIET,), 2, 0.0),
        ((run(7000, 7001, 7002), run(30000, 30001)), 1, 0.0),
        ((run(7000, 7001, 7004, 7005, 7006),), 1, 1 / 3),
        ((run(7000, 7004, 7008, 7020, 7024, 7028),), 4, 2 / 7),
        ((run(7010, 7009, 7008, 7007),), -1, 0.0),
        # A jump, as of a counter that wraps elsewhere, belongs to no walk.
        ((run(7000, 7001, 7002, 40000, 40001, 40002),), 1, 0.0),
    ],
)  # fmt: skip
def test_the_likeliest_step_and_how_busy(runs: tuple[tuple[Taken, ...], ...], step: int, busy: float) -> None:
    found_step, found_busy = likeliest(weigh(runs), runs)
    assert found_step == step
    assert found_busy == pytest.approx(busy)


def test_no_gap_says_nothing() -> None:
    assert evidence((run(7000), run(9000))) == pytest.approx(0.0, abs=0.05)
    assert evidence(()) == pytest.approx(0.0, abs=0.05)
    assert likeliest(weigh((run(7000),)), (run(7000),))[1] == 0.0


def test_a_walk_is_evidence_of_itself() -> None:
    assert evidence((QUIET,)) > -6 > -40 > evidence((run(7000, 20000, 9000, 50000, 31000),))


def test_logs_add_up() -> None:
    assert log_sum([0.0, 0.0]) == pytest.approx(0.6931, abs=1e-4)
    assert log_sum([-1e6, -1e6]) == pytest.approx(-1e6 + 0.6931, abs=1e-3)
    assert log_sum([]) == log_sum([float("-inf")]) == float("-inf")


@pytest.mark.parametrize("rate", [0.0, 8.0])
@pytest.mark.parametrize("own", [1, 2, 5])
def test_others_come_at_the_steps_of_our_other_flows_too(own: int, rate: float) -> None:
    """The chances add up to one, and others are as many at each step as they are at one."""
    lone, among = (
        [Hypothesis(1, False, 0.25, rate).chance(steps, 0.5, each) for steps in range(1, 80)] for each in (0, own)
    )
    assert sum(among) == pytest.approx(1, abs=1e-4)
    means = [sum(others * chance for others, chance in enumerate(chances)) for chances in (lone, among)]
    assert means[1] - means[0] == pytest.approx(own * 0.25 / 0.75, abs=1e-3)


@pytest.mark.parametrize("rate", [0.0, 600.0])
def test_a_spray_among_many_others_leads_out_of_no_number(rate: float) -> None:
    """The ways in which 999 others come at 2,049 steps are more than any float holds; their chance is a small one."""
    chances = [Hypothesis(1, False, 0.25, rate).chance(steps, 0.5, 2048) for steps in (1, 684, 1000)]
    assert chances[0] < chances[1] < 0.02 > chances[2]


@pytest.mark.parametrize(
    ("gap", "own", "step", "gone"),
    [
        (1, 0, 1, 0),
        (3, 2, 1, 2),
        (6, 2, 2, 2),
        (4, 2, 1, 3),
        (8, 3, 1, 6),
        (-4, 3, -1, 3),
        (1, 2, 1, 0),
        (3, 5, 1, 2),
        (-9, 2, 1, 0),
    ],
)
def test_what_goes_with_our_other_flows_is_theirs_and_a_share_of_the_others(
    gap: int, own: int, step: int, gone: int
) -> None:
    assert without_own(Taken(7000, 1, 0.0), Taken(7000 + gap, 2, 1.0, own), step) == gone
