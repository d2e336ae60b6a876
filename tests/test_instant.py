from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.instant import instant_ns, next_slot, parse_duration, parse_instant

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC).timestamp()


def test_an_aware_datetime_and_utc_seconds_are_instants() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    assert instant_ns(datetime(2026, 1, 2, 17, 30, tzinfo=zone)) == int(NOON) * 10**9
    assert instant_ns(NOON) == int(NOON) * 10**9
    assert instant_ns(None) is None


def test_a_datetime_keeps_its_microseconds() -> None:
    assert instant_ns(datetime(2026, 1, 2, 12, 0, 0, 1, tzinfo=UTC)) == int(NOON) * 10**9 + 1000


def test_a_naive_datetime_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        instant_ns(datetime(2026, 1, 2))


@pytest.mark.parametrize("at", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_no_time_is_a_value_error(at: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        instant_ns(at)


@pytest.mark.parametrize("at", ["12:00", True, [], object()])
def test_anything_else_is_a_type_error(at: object) -> None:
    with pytest.raises(TypeError, match="aware datetime or UTC seconds"):
        instant_ns(at)  # type: ignore[arg-type]


@given(st.floats(1e9, 3e9), st.sampled_from([1, 2, 5, 10, 60, 0.5]), st.floats(0, 100))
def test_a_slot_is_a_multiple_at_least_the_lead_ahead(now: float, period_s: float, lead_s: float) -> None:
    slot = next_slot(period_s, lead_s=lead_s, now=now)
    assert slot % period_s == 0
    assert now + lead_s <= slot <= now + lead_s + period_s + 1e-6


def test_two_who_ask_in_the_same_period_pick_the_same_slot() -> None:
    assert next_slot(10, now=NOON + 0.5) == next_slot(10, now=NOON + 8.9) == NOON + 10


@pytest.mark.parametrize("period_s", [0, -1, math.nan, math.inf])
def test_a_period_must_be_a_positive_number(period_s: float) -> None:
    with pytest.raises(ValueError, match="period"):
        next_slot(period_s)


@pytest.mark.parametrize("lead_s", [-1, math.nan])
def test_a_lead_must_not_be_negative(lead_s: float) -> None:
    with pytest.raises(ValueError, match="lead"):
        next_slot(lead_s=lead_s)


@pytest.mark.parametrize(
    ("text", "expected"), [("10s", 10), ("250ms", 0.25), ("1.5m", 90), ("2h", 7200), ("3", 3), (".5s", 0.5)]
)
def test_durations(text: str, expected: float) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "s", "-1s", "10 s", "10d", "1e3", "nan", "+5s"])
def test_what_is_no_duration_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12:00:05", 5),
        ("12:00", 0),
        ("11:59:59.5", -0.5),
        ("23:00", 11 * 3600),
        ("01:00", -11 * 3600),
        ("+10s", 10),
        ("+1.5m", 90),
        ("next:10s", 10),
        ("2026-01-02T12:00:01Z", 1),
        ("2026-01-02T14:00:01+02:00", 1),
        (f"{NOON + 7}", 7),
    ],
)
def test_what_people_type(text: str, expected: float) -> None:
    assert parse_instant(text, NOON) == pytest.approx(NOON + expected)


def test_a_time_of_day_is_the_nearest_across_midnight() -> None:
    midnight = NOON + 12 * 3600
    assert parse_instant("00:00:10", midnight - 5) == midnight + 10
    assert parse_instant("23:59:50", midnight + 5) == midnight - 10


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "12:60", "2026-01-02T12:00:00", "2026-01-02", "next:0s", "+", "12"]
)
def test_what_is_no_instant_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"instant|time zone|time of day|duration|period"):
        parse_instant(text, NOON)


@given(st.text(max_size=30))
def test_any_text_is_an_instant_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert math.isfinite(parse_instant(text, NOON))
