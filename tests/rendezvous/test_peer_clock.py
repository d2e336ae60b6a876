"""Four time stamps: the sign, the bound, and a difference of an hour that is like none."""

from __future__ import annotations

import pytest

from simopen.model.estimate import Reading, Source
from simopen.model.times import MonoNs
from simopen.rendezvous.peer_clock import Sample, best, own_time, peers_time

HOUR_NS = 3600 * 10**9
NOW_NS = 1_700_000_000 * 10**9


def sample(ahead_ns: int, out_ns: int, back_ns: int, asked_ns: int = 0, took_ns: int = 1000) -> Sample:
    came_ns = asked_ns + out_ns + ahead_ns
    return Sample(asked_ns, came_ns, came_ns + took_ns, asked_ns + out_ns + took_ns + back_ns)


@pytest.mark.parametrize("ahead_ns", [-HOUR_NS, -1, 0, 1, HOUR_NS])
@pytest.mark.parametrize(("out_ns", "back_ns"), [(10**6, 10**6), (0, 10**7), (10**7, 0)])
def test_the_difference_is_right_to_half_of_the_delay(ahead_ns: int, out_ns: int, back_ns: int) -> None:
    found = sample(ahead_ns, out_ns, back_ns)
    assert found.delay_ns == out_ns + back_ns
    assert abs(found.ahead_ns - ahead_ns) <= found.delay_ns // 2 + 1


def test_the_least_delay_counts_and_no_impossible_one() -> None:
    good = sample(5, 10, 10)
    assert best((sample(5, 100, 3), good, sample(5, 90, 90))) == good
    assert best((Sample(0, 0, 100, 50),)) is None
    assert best(()) is None


def test_the_peers_time_is_what_its_clock_says() -> None:
    reading = Reading(MonoNs(1000), NOW_NS, 1000)
    theirs = peers_time(sample(NOW_NS + HOUR_NS, 10**6, 10**6), reading)
    assert theirs.utc_at(MonoNs(0)) == NOW_NS + HOUR_NS
    assert theirs.source is Source.PEER
    assert theirs.bound_ns == 10**6 + 1
    assert round(theirs.offset_s) == 3600
    assert own_time(reading, None).utc_ns == NOW_NS
