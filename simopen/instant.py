"""Instants: what may name one, the slots that two sides pick alike, and what people type.

Theory of operation: pure. An instant is UTC; the local clock's reading comes in as `now` where one is needed.
"""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

Instant: TypeAlias = "datetime | float | None"

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h)?")
_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SECONDS = re.compile(r"\d{9,}(?:\.\d*)?")  # fewer digits would be a time before 2001, and so a slip
_CLOCK_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?")


def next_slot(period_s: float = 10, *, lead_s: float = 1.0, now: float | None = None) -> float:
    """The next instant, in UTC seconds, that is a whole multiple of `period_s` and at least `lead_s` ahead.

    Two sides that share no channel pick the same instant, unless they ask on different sides of such a boundary: a
    long period makes that rare. `now` is in UTC seconds; left out, the local clock's.

    Raises:
        ValueError: a period that is not a positive number, or a negative lead.
    """
    if not (math.isfinite(period_s) and period_s > 0):
        raise ValueError(f"the period must be a positive number of seconds, not {period_s!r}")
    if not (math.isfinite(lead_s) and lead_s >= 0):
        raise ValueError(f"the lead must be zero or more seconds, not {lead_s!r}")
    earliest = (time.time() if now is None else now) + lead_s
    return math.ceil(earliest / period_s) * period_s


def instant_ns(at: Instant) -> int | None:
    """An instant as UTC ns since 1970; None for "now".

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
        return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
    if isinstance(at, bool) or not isinstance(at, (int, float)):
        raise TypeError(f"the instant must be an aware datetime or UTC seconds, not {type(at).__name__}")
    if not math.isfinite(at):
        raise ValueError(f"the instant must be a finite number of UTC seconds, not {at!r}")
    return round(at * 1e9)


def parse_duration(text: str) -> float:
    """Seconds from `10s`, `1.5m`, `250ms`, `2h`, or a bare number of seconds.

    Raises:
        ValueError: none of these.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration: write 10s, 250ms, 2m or 1h")
    return float(match[1]) * _UNITS_S[match[2] or "s"]


def parse_instant(text: str, now: float) -> float:
    """UTC seconds from what people type; `now` is the local clock's UTC seconds.

    `22:14:30`: that time of day in UTC, whichever occurrence is nearest. `2026-01-01T00:00:00Z`: ISO 8601 with a zone.
    `+10s`: that long from now. `next:10s`: the next full ten seconds (`next_slot`). A number: UTC seconds since 1970.

    Raises:
        ValueError: none of these, or a date without a zone.
    """
    if text.startswith("+"):
        return now + parse_duration(text[1:])
    if text.startswith("next:"):
        return next_slot(parse_duration(text[5:]), now=now)
    if _SECONDS.fullmatch(text):
        return float(text)
    if match := _CLOCK_TIME.fullmatch(text):
        return _nearest(match, now)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no instant: write 22:14:30 (UTC), 2026-01-01T00:00:00Z, +10s or next:10s"
        ) from None
    if instant.utcoffset() is None:
        raise ValueError(f"{text!r} has no time zone, and two hosts rarely share one: end it with Z or an offset")
    return instant.timestamp()


def _nearest(match: re.Match[str], now: float) -> float:
    hours, minutes, seconds = int(match[1]), int(match[2]), float(match[3] or 0)
    if hours > 23 or minutes > 59 or seconds >= 60:
        raise ValueError(f"{match[0]!r} is no time of day")
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    today = midnight + timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return min((today.timestamp() + days * 86_400 for days in (-1, 0, 1)), key=lambda at: abs(at - now))
