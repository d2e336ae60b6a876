"""Instants: what may name one, the slots that two sides pick alike, and what people type.

Theory of operation: pure. An instant is UTC. One that is told from now on, or as a time of day, depends on what the
time is: it stays unresolved (`Unresolved`) until that is known, as the local clock may be wrong. What it is resolved
against comes in as `now`.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import TypeAlias

from simopen.model.times import MonoNs, UtcNs
from simopen.model.wording import quoted

LONGEST_S = 1e9
"""No duration is longer: 31 years. The timers of event loops end somewhere beyond."""
SHORTEST_PERIOD_S = 1e-3
"""Slots closer together than this mean nothing: no two sides agree that well on what the time is."""
FIRST_S, LAST_S = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (2, 9999))
"""An instant lies between the two: what Python's calendar can show in any zone."""

_PART = r"(\d+(?:\.\d*)?|\.\d+)"  # of ASCII: Python reads the digits of every script
_DURATION = re.compile(rf"(?:{_PART}h)?(?:{_PART}m)?(?:{_PART}s)?(?:{_PART}ms)?", re.ASCII)
_UNITS_S = (3600.0, 60.0, 1.0, 1e-3)
_BARE = re.compile(_PART, re.ASCII)
_SECONDS = re.compile(r"\d{9,}(?:\.\d*)?", re.ASCII)  # fewer digits would be a time before 2001, and so a slip
_CLOCK_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?([Zz]|([+-])(\d{2}):?(\d{2}))?", re.ASCII)
_DATE = len("2026-01-01")  # the longest of ISO 8601's dates, and no instant; with a time, the shortest has 11
_DAY_S = 86_400
# What a zone is off by: a local time that was typed for UTC misses by that, give or take the time it took to type.
_TYPING_S = 60


@dataclass(frozen=True, slots=True)
class Ahead:
    """So many seconds from when it was told."""

    seconds: float

    def resolve(self, now: float) -> float:
        """UTC seconds."""
        return checked(now) + self.seconds


@dataclass(frozen=True, slots=True)
class Slot:
    """The next whole multiple of a period: see `next_slot`."""

    period_s: float

    def resolve(self, now: float) -> float:
        """UTC seconds."""
        return next_slot(self.period_s, now=now)


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """The nearest occurrence of a time of day, in seconds since midnight UTC."""

    seconds: float

    def resolve(self, now: float) -> float:
        """UTC seconds."""
        midnight = datetime.fromtimestamp(checked(now), UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        today = midnight.timestamp() + self.seconds
        return min((today + days * _DAY_S for days in (-1, 0, 1)), key=lambda at: abs(at - now))


Unresolved: TypeAlias = Ahead | Slot | TimeOfDay
"""An instant that depends on what the time is. `resolve(now)` is it, in UTC seconds, where it was told at `now`."""


@dataclass(frozen=True, slots=True)
class Told:
    """An unresolved instant that was told some time ago: when CLOCK_MONOTONIC was at `told_ns`."""

    instant: Unresolved
    told_ns: MonoNs


Instant: TypeAlias = datetime | float | Unresolved | Told | None
"""What `connect` takes for `at`."""


def next_slot(period_s: float = 10, *, lead_s: float = 1.0, now: float | None = None) -> float:
    """The next instant, in UTC seconds, that is a whole multiple of `period_s` and at least `lead_s` ahead.

    Two sides that share no channel pick the same instant, unless they ask on different sides of such a boundary: a
    long period makes that rare. `now` is in UTC seconds; left out, the local clock's, which may be wrong: give it
    (`(await check_clock()).utc_ns / 1e9`), or have `connect` pick the slot, by true time:
    `at=simopen.read_instant("next:10s")`.

    Raises:
        TypeError: what is no number.
        ValueError: a period below 1 ms or above 10^9 s, a lead below zero or as long, a `now` that no calendar holds.
    """
    for what, given in (("period", period_s), ("lead", lead_s), ("time", 0.0 if now is None else now)):
        _require_number(what, given)
    if not SHORTEST_PERIOD_S <= period_s <= LONGEST_S:
        raise ValueError(f"the period must be a positive number of seconds, 1 ms to 10^9 s, not {_short(period_s)}")
    if not 0 <= lead_s <= LONGEST_S:
        raise ValueError(f"the lead must be zero or more seconds, at most 10^9, not {_short(lead_s)}")
    earliest = checked(time.time() if now is None else now) + lead_s
    return math.ceil(earliest / period_s) * period_s


def instant_ns(at: Instant) -> UtcNs | None:
    """A resolved instant as UTC ns since 1970; None for "now".

    Raises:
        ValueError: a naive datetime (two hosts rarely share a zone), or a number that is no time.
        TypeError: anything else.
    """
    if at is None:
        return None
    if isinstance(at, datetime):
        if at.utcoffset() is None:
            raise ValueError(f"{at!r} has no time zone, and two hosts rarely share one: use datetime(..., tzinfo=UTC)")
        since = at - datetime(1970, 1, 1, tzinfo=UTC)
        checked(since.total_seconds())
        return UtcNs(((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000)
    if isinstance(at, bool) or not isinstance(at, (int, float)):
        raise TypeError(f"the instant must be an aware datetime or UTC seconds, not {type(at).__name__}")
    return UtcNs(round(checked(at) * 1e9))


def checked(at: float) -> float:
    """The same instant, in UTC seconds. Raises: ValueError where no calendar holds it."""
    if isinstance(at, float) and not math.isfinite(at):
        raise ValueError(f"the instant must be a finite number of UTC seconds, not {at!r}")
    if not FIRST_S <= at < LAST_S:
        raise ValueError(f"the instant must be UTC seconds of a year from 2 to 9998, not {_short(at)}")
    return at


def positive_s(name: str, seconds: float) -> float:
    """The same number of seconds. `name`: what it is.

    Raises: TypeError where it is no number; ValueError where it is not above zero, or above 10^9.
    """
    _require_number(name, seconds)
    if not 0 < seconds <= LONGEST_S:
        raise ValueError(
            f"the {name} must be a positive number of seconds, above zero and at most 10^9, not {_short(seconds)}"
        )
    return seconds


def _require_number(name: str, seconds: object) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"the {name} must be a number of seconds, not {type(seconds).__name__}")


def _require_text(what: str, text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{what} is read from a string, not {type(text).__name__}")


def _short(number: float) -> str:
    """At most a few digits of it: an int may have thousands."""
    return quoted(number) if isinstance(number, int) and abs(number) >= 10**300 else f"{number:.6g}"


def parse_duration(text: str) -> float:
    """Seconds from `10s`, `1.5m`, `1m30s`, `250ms`, `2h`, or a bare number of seconds.

    Raises:
        TypeError: no string.
        ValueError: none of these, or longer than 10^9 s.
    """
    _require_text("a duration", text)
    if _BARE.fullmatch(text):
        parts = [(text, 1.0)]
    elif text and (match := _DURATION.fullmatch(text)):
        parts = [(number, unit) for number, unit in zip(match.groups(), _UNITS_S, strict=True) if number]
    else:
        raise ValueError(f"{_cut(text)!r} is no duration: write 10s, 250ms, 1m30s or 1h")
    seconds = sum(float(number) * unit for number, unit in parts)
    if not seconds <= LONGEST_S:
        raise ValueError(f"{_cut(text)!r} is longer than 10^9 s, which is 31 years")
    return seconds


def read_instant(text: str) -> float | Unresolved:
    """What people type, as `connect` takes it for `at`: UTC seconds, or unresolved where it depends on the time.

    `22:14:30`, `22:14:30Z`, `23:14:30+01:00`: that time of day, in UTC unless told otherwise; its nearest occurrence.
    `2026-01-01T00:00:00Z`: ISO 8601 with a zone. `+10s`, `+1m30s`: that long from now. `next:10s`: the next full ten
    seconds (`next_slot`). A number: UTC seconds since 1970.

    Raises:
        TypeError: no string.
        ValueError: none of these, a date without a zone, or an instant that no calendar holds.
    """
    _require_text("an instant", text)
    if text.startswith("+"):
        return Ahead(parse_duration(text[1:]))
    if text.startswith("next:"):
        slot = Slot(parse_duration(text[5:]))
        slot.resolve(0.0)  # a period that is none is told now
        return slot
    if _SECONDS.fullmatch(text):
        return checked(float(text))
    if match := _CLOCK_TIME.fullmatch(text):
        return TimeOfDay(_since_midnight(match))
    return _iso(text)


def parse_instant(text: str, now: float) -> float:
    """UTC seconds from what people type, as `read_instant` takes it, where it was typed at `now`, in UTC seconds.

    The local clock may be wrong: `read_instant` leaves it to `connect` to find out what the time is.

    Raises:
        ValueError: as `read_instant`, and for a `now` that no calendar holds.
    """
    read = read_instant(text)
    _require_number("time", now)
    return read if isinstance(read, float) else read.resolve(now)


def _iso(text: str) -> float:
    try:
        instant = datetime.fromisoformat(text if len(text) > _DATE else "")
    except ValueError:
        raise ValueError(
            f"{_cut(text)!r} is no instant: write 22:14:30 (UTC), 2026-01-01T00:00:00Z, +10s or next:10s"
        ) from None
    if instant.utcoffset() is None:
        raise ValueError(f"{text!r} has no time zone, and two hosts rarely share one: end it with Z or an offset")
    return checked(instant.timestamp())


def _since_midnight(match: re.Match[str]) -> float:
    hours, minutes, seconds = int(match[1]), int(match[2]), float(match[3] or 0)
    if hours > 23 or minutes > 59 or seconds >= 60:
        raise ValueError(f"{match[0]!r} is no time of day")
    zone = UTC
    if match[5]:
        ahead = timedelta(hours=int(match[6]), minutes=int(match[7]))
        if ahead >= timedelta(days=1) or int(match[7]) > 59:
            raise ValueError(f"{match[0]!r} has an offset that no time zone has")
        zone = timezone(-ahead if match[5] == "-" else ahead)
    offset = zone.utcoffset(None) or timedelta()
    return (hours * 3600 + minutes * 60 + seconds - offset.total_seconds()) % _DAY_S


def _cut(text: str) -> str:
    """Enough of it to be known again."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def local_for_utc(late_s: float, offset_s: float) -> bool:
    """Whether an instant that was missed by `late_s` looks like a local time that was typed for UTC.

    `offset_s`: the local zone's, east of Greenwich above zero. A negative `late_s` is one that is still so far ahead.
    A time of day means its nearest occurrence, so up to half a day a whole one more or less does not count.
    """
    apart_s = late_s + offset_s
    if abs(late_s) <= _DAY_S / 2:
        apart_s = (apart_s + _DAY_S / 2) % _DAY_S - _DAY_S / 2
    return bool(offset_s) and abs(apart_s) <= _TYPING_S


def zone_offset_s(at: float) -> float:
    """What the local zone is off UTC by at that instant (UTC seconds), in seconds; 0 where that cannot be told."""
    try:
        offset = datetime.fromtimestamp(at, UTC).astimezone().utcoffset()
    except (ValueError, OverflowError, OSError):  # a year that the zone's tables do not have
        return 0.0
    return offset.total_seconds() if offset else 0.0
