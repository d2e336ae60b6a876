"""UTC and CLOCK_MONOTONIC are two types: a type checker refuses each where the other is meant.

Strict mypy complains of a mark that marks nothing, so it proves itself that both calls below are refused.
"""

from __future__ import annotations

from simopen.model.estimate import Estimate, Reading, Source
from simopen.model.times import MonoNs, UtcNs

ESTIMATE = Estimate(1_800_000_000_000_000_000, None, Source.PLAIN, Reading(5, 1_800_000_000_000_000_000, 5))


def test_a_mix_up_is_off_by_the_whole_uptime_and_refused_by_a_type_checker() -> None:
    utc_ns, now_ns = UtcNs(ESTIMATE.utc_ns + 7), MonoNs(12)
    assert (ESTIMATE.utc_at(now_ns), ESTIMATE.monotonic_at(utc_ns)) == (utc_ns, now_ns)
    assert ESTIMATE.utc_at(utc_ns) != utc_ns  # type: ignore[arg-type]
    assert ESTIMATE.monotonic_at(now_ns) != now_ns  # type: ignore[arg-type]
