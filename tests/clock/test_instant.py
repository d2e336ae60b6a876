from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.clock.instant import (
    Unresolved,
    instant_ns,
    local_for_utc,
    next_slot,
    parse_duration,
    parse_instant,
    read_instant,
)

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


@pytest.mark.parametrize("period_s", [0, -1, math.nan, math.inf, 1e-4, 1e300, 10**400])
def test_a_period_must_be_a_positive_number(period_s: float) -> None:
    with pytest.raises(ValueError, match="period"):
        next_slot(period_s)


@pytest.mark.parametrize("lead_s", [-1, math.nan, math.inf, 1e300])
def test_a_lead_must_not_be_negative(lead_s: float) -> None:
    with pytest.raises(ValueError, match="lead"):
        next_slot(lead_s=lead_s)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10s", 10),
        ("250ms", 0.25),
        ("1.5m", 90),
        ("2h", 7200),
        ("3", 3),
        (".5s", 0.5),
        ("1m30s", 90),
        ("1h1m1s250ms", 3661.25),
        ("1000000000", 1e9),
    ],
)
def test_durations(text: str, expected: float) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "s", "-1s", "10 s", "10d", "1e3", "nan", "+5s", "30s1m", "1m30", "1m1m"])
def test_what_is_no_duration_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12:00:05", 5),
        ("12:00:05Z", 5),
        ("13:00:05+01:00", 5),
        ("06:30:05-05:30", 5),
        ("17:45:05+0545", 5),
        ("01:00+13:00", 0),
        ("+1m30s", 90),
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
    "text",
    [
        "",
        "soon",
        "25:00",
        "12:60",
        "2026-01-02T12:00:00",
        "2026-01-02",
        "next:0s",
        "+",
        "12",
        "12:00+24:00",
        "12:00+01:60",
        "12:00:05 Z",
    ],
)
def test_what_is_no_instant_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"instant|time zone|time of day|duration|period"):
        parse_instant(text, NOON)


@given(st.text(max_size=30))
def test_any_text_is_an_instant_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert math.isfinite(parse_instant(text, NOON))


@pytest.mark.parametrize("text", ["+10s", "next:10s", "22:14:30", "22:14:30Z", "23:14:30+01:00"])
def test_what_depends_on_the_time_is_not_resolved_when_it_is_read(text: str) -> None:
    read = read_instant(text)
    assert isinstance(read, Unresolved)
    assert read.resolve(NOON) == parse_instant(text, NOON)
    assert read.resolve(NOON + 86_400) - read.resolve(NOON) == 86_400


def test_what_does_not_is() -> None:
    assert read_instant("2026-01-02T12:00:00Z") == read_instant("2026-01-02T13:00:00+01:00") == NOON
    assert read_instant(f"{NOON:.0f}") == NOON


@pytest.mark.parametrize("number", ["9" * 300, "9" * 400, "1" + "0" * 12])
@pytest.mark.parametrize("form", ["{}", "+{}", "+{}h", "next:{}s"])
def test_numbers_that_no_calendar_holds_are_told(form: str, number: str) -> None:
    with pytest.raises(ValueError, match=r"a year from 2 to 9998|finite|longer than 10\^9 s") as caught:
        read_instant(form.format(number))
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("now", [1e300, -1e300, math.nan, math.inf])
@pytest.mark.parametrize("text", ["+10s", "next:10s", "22:14:30"])
def test_nor_is_one_resolved_at_a_time_that_it_does_not_hold(text: str, now: float) -> None:
    with pytest.raises(ValueError, match=r"a year from|finite"):
        parse_instant(text, now)


@pytest.mark.parametrize("at", [1e300, -1e300, 10**400, -(10**400), 1e12, datetime.max.replace(tzinfo=UTC)])
def test_an_instant_that_no_calendar_holds_is_a_value_error(at: float) -> None:
    with pytest.raises(ValueError, match="a year from 2 to 9998"):
        instant_ns(at)


@pytest.mark.parametrize(
    ("late_s", "offset_s", "is_local"),
    [
        (5 * 3600, -5 * 3600, True),  # New York, at the same time of day
        (5 * 3600 - 50, -5 * 3600, True),  # typed for 50 s from then
        (5 * 3600 - 70, -5 * 3600, False),
        (4 * 3600, -5 * 3600, False),
        (4 * 3600, -4 * 3600, True),  # in summer
        (12_600, -12_600, True),  # Newfoundland
        (-3600 + 10, 3600, True),  # Berlin: still ahead
        (-19_800, 19_800, True),  # India
        (11 * 3600, 13 * 3600, True),  # Tonga: yesterday's was nearer
        (19 * 3600, 5 * 3600, False),  # no time of day misses by so much
        (0, 0, False),  # London in winter: the same
        (3600, 0, False),
    ],
)
def test_a_local_time_that_was_typed_for_utc(late_s: float, offset_s: float, is_local: bool) -> None:
    assert local_for_utc(late_s, offset_s) is is_local


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: next_slot("10"), "the period must be a number of seconds, not str"),  # type: ignore[arg-type]
        (lambda: next_slot(None), "the period must be a number of seconds, not NoneType"),  # type: ignore[arg-type]
        (lambda: next_slot(True), "the period must be a number of seconds, not bool"),
        (lambda: next_slot(10, lead_s="1"), "the lead must be a number of seconds, not str"),  # type: ignore[arg-type]
        (lambda: next_slot(10, now="now"), "the time must be a number of seconds, not str"),  # type: ignore[arg-type]
        (lambda: parse_duration(10), "a duration is read from a string, not int"),  # type: ignore[arg-type]
        (lambda: read_instant(10), "an instant is read from a string, not int"),  # type: ignore[arg-type]
        (lambda: parse_instant("+1s", "x"), "the time must be a number of seconds, not str"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_number_or_no_text_is_told_in_this_library_s_words(call: Callable[[], object], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        call()
