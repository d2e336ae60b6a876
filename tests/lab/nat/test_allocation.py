"""Which ports a NAT tries: the order, the range, and that no port is ever left out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, pairwise
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simopen.lab.nat.allocation import HIGHEST, LOWEST, Ports, Preserving, Scattered, Sequential

ALL = set(range(LOWEST, HIGHEST + 1))
SPACE = "udp at 198.51.100.1"
KINDS: list[Callable[[bool], Ports]] = [
    Preserving,
    lambda parity: Sequential(1, 0.0, parity, Random(1)),
    lambda parity: Sequential(6, 0.5, parity, Random(1)),
    lambda parity: Scattered(parity, Random(1)),
]


def allocate(ports: Ports, wanted: int = 1314, count: int = 1) -> list[int]:
    """What a NAT allocates one after the other, while every first candidate is free."""
    found = []
    for _ in range(count):
        found.append(next(ports.candidates(SPACE, wanted)))
        ports.take(SPACE, found[-1])
    return found


def gaps(allocated: list[int]) -> list[int]:
    """How far each port is from the one before it, round the range."""
    return [(later - earlier) % len(ALL) for earlier, later in pairwise(allocated)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize("wanted", [1024, 1315, 65535])
def test_a_walk_ends_and_leaves_no_port_out(kind: Callable[[bool], Ports], parity: bool, wanted: int) -> None:
    candidates = list(kind(parity).candidates(SPACE, wanted))
    assert set(candidates) == ALL
    if parity:
        assert all((port ^ wanted) & 1 == 0 for port in candidates[: len(ALL) // 2])


@pytest.mark.parametrize("kind", KINDS)
@given(wanted=st.integers(0, 65535), parity=st.booleans(), count=st.integers(1, 20))
def test_what_is_allocated_is_a_port_of_the_range(
    kind: Callable[[bool], Ports], wanted: int, parity: bool, count: int
) -> None:
    allocated = allocate(kind(parity), wanted, count)
    assert set(allocated) <= ALL | {wanted}
    if parity:
        assert all((port ^ wanted) & 1 == 0 for port in allocated)


@pytest.mark.parametrize(
    ("wanted", "parity", "first"),
    [
        (1314, False, [1314, 1315, 1316]),
        (1314, True, [1314, 1316, 1318]),
        (65534, False, [65534, 65535, 1024, 1025]),
        (65535, True, [65535, 1025, 1027]),
        (80, False, [80, 81, 82]),
    ],
)
def test_a_port_is_preserved_or_the_next_one_taken(wanted: int, parity: bool, first: list[int]) -> None:
    assert list(islice(Preserving(parity).candidates(SPACE, wanted), len(first))) == first


@given(st.integers(1, 70_000), st.integers(0, 2**32))
@example(1, 0)
@example(64_512, 0)
def test_ports_in_sequence_are_a_step_apart_and_wrap(step: int, seed: int) -> None:
    allocated = allocate(Sequential(step, 0.0, False, Random(seed)), count=200)
    assert set(allocated) <= ALL
    assert {(gap - step) % len(ALL) for gap in gaps(allocated)} == {0}


@given(st.integers(1, 9), st.integers(0, 2**32))
def test_other_traffic_takes_whole_steps(step: int, seed: int) -> None:
    allocated = allocate(Sequential(step, 0.5, False, Random(seed)), count=100)
    assert all(gap >= step and gap % step == 0 for gap in gaps(allocated))
    assert len(set(gaps(allocated))) > 1


def test_other_traffic_takes_its_share() -> None:
    """Of the ports passed by, `others` are other traffic's: a half, give or take four deviations."""
    allocated = allocate(Sequential(1, 0.5, False, Random(7)), count=2001)
    passed = sum(gaps(allocated))
    assert 0.46 < 1 - 2000 / passed < 0.54


@given(st.integers(1, 9))
def test_a_sequence_that_keeps_parity_goes_on_where_it_was(step: int) -> None:
    ports = Sequential(step, 0.0, True, Random(3))
    allocated = [*allocate(ports, 1314, 50), *allocate(ports, 1315, 50)]
    assert all(step <= gap <= step + 1 for gap in gaps(allocated))


def test_each_space_has_a_sequence_of_its_own() -> None:
    ports = Sequential(1, 0.0, False, Random(1))
    first = allocate(ports)[0]
    ports.take("tcp", 2000)
    assert next(ports.candidates("tcp", 1)) == 2001
    assert allocate(ports) == [first + 1]


def test_scattered_ports_are_spread_over_the_range() -> None:
    allocated = allocate(Scattered(False, Random(1)), count=4000)
    quarters = [sum((port - LOWEST) * 4 // len(ALL) == quarter for port in allocated) for quarter in range(4)]
    assert all(880 < quarter < 1120 for quarter in quarters)  # a thousand each, give or take four deviations


@pytest.mark.parametrize(
    "make",
    [lambda seed: Scattered(False, Random(seed)), lambda seed: Sequential(1, 0.5, False, Random(seed))],
)
def test_a_seed_decides(make: Callable[[int], Ports]) -> None:
    assert allocate(make(1), count=9) == allocate(make(1), count=9) != allocate(make(2), count=9)
