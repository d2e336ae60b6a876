"""Estimates: what they hold, and how they age. Nothing here reads a clock."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.model.estimate import Estimate, Evidence, Reading, Source
from simopen.model.times import MonoNs, UtcNs

S, MS, US = 1_000_000_000, 1_000_000, 1_000
READING = Reading(monotonic_ns=MonoNs(500 * S), realtime_ns=1_800_000_000 * S, boottime_ns=700 * S)
ESTIMATE = Estimate(UtcNs(READING.realtime_ns + 12 * MS), 4 * MS, Source.NTP, READING)


def later(seconds: float, *, asleep_s: float = 0.0, step_s: float = 0.0) -> Reading:
    passed_ns = round(seconds * S)
    return Reading(
        MonoNs(READING.monotonic_ns + passed_ns),
        READING.realtime_ns + passed_ns + round((asleep_s + step_s) * S),
        READING.boottime_ns + passed_ns + round(asleep_s * S),
    )


def test_the_offset_is_what_to_add_to_the_wall_clock() -> None:
    assert ESTIMATE.offset_s == 0.012
    assert ESTIMATE.bound_s == 0.004
    assert ESTIMATE.monotonic_ns == 500 * S


@given(st.integers(-(10**18), 10**18))
def test_instants_map_to_the_monotonic_clock_and_back_without_loss(utc_ns: int) -> None:
    assert ESTIMATE.utc_at(ESTIMATE.monotonic_at(UtcNs(utc_ns))) == utc_ns


def test_ten_seconds_later_the_monotonic_clock_is_ten_seconds_further() -> None:
    assert ESTIMATE.monotonic_at(UtcNs(ESTIMATE.utc_ns + 10 * S)) == 510 * S


def test_the_bound_ages_by_15_ppm_either_way_and_unknown_stays_unknown() -> None:
    assert ESTIMATE.bound_at(MonoNs(500 * S)) == 4 * MS
    assert ESTIMATE.bound_at(MonoNs(600 * S)) == 4 * MS + 1500 * US + 1
    assert ESTIMATE.bound_at(MonoNs(400 * S)) == 4 * MS + 1500 * US + 1
    assert replace(ESTIMATE, bound_ns=None).bound_at(MonoNs(600 * S)) is None
    assert replace(ESTIMATE, bound_ns=None).bound_s is None


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_step_of_the_wall_clock_changes_nothing(step_s: float) -> None:
    now = later(10, step_s=step_s)
    assert ESTIMATE.valid(now)
    anew = ESTIMATE.at(now)
    assert anew.utc_ns == ESTIMATE.utc_at(MonoNs(510 * S))
    assert anew.monotonic_at(UtcNs(READING.realtime_ns)) == ESTIMATE.monotonic_at(UtcNs(READING.realtime_ns))
    assert anew.offset_s == pytest.approx(0.012 - step_s)


def test_a_suspend_voids_it_and_says_how_long() -> None:
    assert ESTIMATE.valid(later(3600))
    assert ESTIMATE.suspended(later(3600)) == 0.0
    assert not ESTIMATE.valid(later(5, asleep_s=0.5))
    assert ESTIMATE.suspended(later(5, asleep_s=0.5)) == 0.5


def test_reading_the_clocks_one_after_the_other_is_no_suspend() -> None:
    assert ESTIMATE.valid(later(5, asleep_s=0.009))
    assert ESTIMATE.valid(later(5, asleep_s=-0.009))


GOOD, BAD = Evidence("a", offset_s=0.0123, bound_s=0.004), Evidence("b", refused="stratum 16")


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (replace(ESTIMATE, servers=(GOOD, GOOD, GOOD, BAD)), "+0.0120 s ± 4.0 ms (NTP, 3 of 4 servers)"),
        (replace(ESTIMATE, servers=(GOOD,)), "+0.0120 s ± 4.0 ms (NTP, 1 of 1 server)"),
        (replace(ESTIMATE, source=Source.KERNEL), "+0.0120 s ± 4.0 ms (the kernel's word)"),
        (replace(ESTIMATE, source=Source.PEER, bound_ns=31 * US), "+0.0120 s ± 31 µs (the peer's word)"),
        (replace(ESTIMATE, source=Source.PEER, bound_ns=42 * MS), "+0.0120 s ± 42 ms (the peer's word)"),
        (replace(ESTIMATE, source=Source.PEER, bound_ns=S), "+0.0120 s ± 1.0 s (the peer's word)"),
        (replace(ESTIMATE, source=Source.PLAIN, bound_ns=None), "unchecked"),
    ],
)  # fmt: skip
def test_it_reads_well(estimate: Estimate, text: str) -> None:
    assert str(estimate) == text


def test_it_goes_into_json_and_back() -> None:
    told = json.loads(json.dumps(replace(ESTIMATE, servers=(GOOD, BAD)).as_dict()))
    assert told["source"] == "ntp"
    assert told["offset_s"] == 0.012
    assert told["bound_s"] == 0.004
    assert (told["utc_ns"], told["monotonic_ns"]) == (ESTIMATE.utc_ns, 500 * S)
    assert [each["refused"] for each in told["servers"]] == [None, "stratum 16"]
