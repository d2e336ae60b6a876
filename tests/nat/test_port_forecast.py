from __future__ import annotations

import pytest

from simopen.nat.port_forecast import ahead, each_ahead
from simopen.nat.port_sequence import HIGHEST, JUMP, LOWEST, SPAN, Hypothesis, Taken, weigh

QUIET = tuple(Taken(port, 40000 + index // 2, 0.0) for index, port in enumerate((6999, 7001, 7003, 7005, 7007)))


def test_where_parity_is_kept_a_port_of_the_wrong_one_is_skipped() -> None:
    quiet = {Hypothesis(1, True, 0.0, 0.0): 0.0}
    for last, local, port in ((7000, 50001, 7001), (7000, 50002, 7002), (HIGHEST, 50001, LOWEST + 1)):
        assert ahead(quiet, Taken(last, 50000, 0.0), local, 0.0) == pytest.approx({port: 0.99})


def test_ahead_the_next_step_comes_first_and_the_chances_are_one_at_most() -> None:
    chances = ahead(weigh((QUIET,)), QUIET[-1], 50000, 0.0)
    assert max(chances, key=chances.__getitem__) == 7009
    assert 0.8 < sum(chances.values()) <= 1
    assert all(LOWEST <= port <= HIGHEST for port in chances)


def test_ahead_each_mapping_before_is_one_more_step() -> None:
    chances = ahead(weigh((QUIET,)), QUIET[-1], 50000, 0.0, before=2)
    assert max(chances, key=chances.__getitem__) == 7013


def moved_one_by_one(walk: Hypothesis, last: Taken, local: int, elapsed_s: float, count: int) -> dict[int, float]:
    """Each port by each number of steps, as many times as there are mappings: slow, and plainly right."""
    chances = {last.port: 1.0}
    for pause_s in (elapsed_s, *[0.0] * (count - 1)):
        found: dict[int, float] = {}
        for port, chance in chances.items():
            for steps, move in enumerate(walk.chances(pause_s), start=1):
                target = port + steps * walk.step
                target += (target ^ local) & 1 if walk.keeps_parity else 0
                target = LOWEST + (target - LOWEST) % SPAN
                found[target] = found.get(target, 0.0) + (1 - JUMP) * chance * move
        chances = found
    return chances


@pytest.mark.parametrize("step", [1, 2, 3, 4, 8, -1])
@pytest.mark.parametrize("keeps_parity", [False, True])
@pytest.mark.parametrize("last", [7000, 7001, LOWEST + 2, HIGHEST - 3])
def test_a_row_goes_on_as_port_by_port_and_step_by_step(step: int, last: int, *, keeps_parity: bool) -> None:
    for busy, rate, local in ((0.0, 0.0, 50000), (0.25, 0.0, 50001), (0.4, 8.0, 50000), (0.12, 30.0, 50001)):
        walk = Hypothesis(step, keeps_parity, busy, rate)
        for mappings in (1, 4):
            wanted = moved_one_by_one(walk, Taken(last, 50000, 0.0), local, 0.5, mappings)
            *_, found = each_ahead({walk: 0.0}, Taken(last, 50000, 0.0), local, 0.5, mappings)
            assert found.keys() <= wanted.keys()
            assert {port: found.get(port, 0.0) for port in wanted} == pytest.approx(wanted, abs=2e-3)
            assert sum(found.values()) == pytest.approx(sum(wanted.values()), abs=0.02)
