"""UTC and CLOCK_MONOTONIC are two types: a type checker refuses each where the other is meant.

Strict mypy complains of a mark that marks nothing, so it proves itself that what is marked below is refused.
"""

from __future__ import annotations

from simopen.clock.scheduler import Fired, spin
from simopen.holepunch.engine_events import Begun
from simopen.holepunch.retry import Window
from simopen.model.endpoint import Endpoint
from simopen.model.estimate import Estimate, Reading, Source
from simopen.model.event import Armed, ClockKnown
from simopen.model.report import Arrival, Attempt
from simopen.model.times import MonoNs, UtcNs

ESTIMATE = Estimate(
    UtcNs(1_800_000_000_000_000_000), None, Source.PLAIN, Reading(MonoNs(5), 1_800_000_000_000_000_000, 5)
)


def test_a_mix_up_is_off_by_the_whole_uptime_and_refused_by_a_type_checker() -> None:
    utc_ns, now_ns = UtcNs(ESTIMATE.utc_ns + 7), MonoNs(12)
    assert (ESTIMATE.utc_at(now_ns), ESTIMATE.monotonic_at(utc_ns)) == (utc_ns, now_ns)
    assert ESTIMATE.utc_at(utc_ns) != utc_ns  # type: ignore[arg-type]
    assert ESTIMATE.monotonic_at(now_ns) != now_ns  # type: ignore[arg-type]


def test_what_is_fired_recorded_and_told_is_timed_by_the_monotonic_clock_alone() -> None:
    utc_ns, now_ns, peer = UtcNs(ESTIMATE.utc_ns), MonoNs(12), Endpoint("192.0.2.1", 9)
    refused = (
        Attempt(peer, now_ns, utc_ns, now_ns, 0),  # type: ignore[arg-type]
        Arrival(peer, utc_ns),  # type: ignore[arg-type]
        Armed(now_ns, utc_ns),  # type: ignore[arg-type]
        ClockKnown(now_ns, ESTIMATE, now_ns),  # type: ignore[arg-type]
        Reading(utc_ns, utc_ns, 5),  # type: ignore[arg-type]
        Fired(utc_ns, 0),  # type: ignore[arg-type]
        Window(now_ns, utc_ns),  # type: ignore[arg-type]
        Begun(Window(now_ns, now_ns), utc_ns, now_ns),  # type: ignore[arg-type]
        lambda: spin(utc_ns, ()),  # type: ignore[arg-type]
    )
    assert all(each is not None for each in refused)
