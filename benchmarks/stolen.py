"""The share of this machine's processor time that its host gave to others, in words that say what it does to a result.

A virtual machine that wants to run and may not is late by milliseconds, whatever the program: the tails of a time
distribution then tell of the host. Linux counts it in /proc/stat, as `steal`; elsewhere the share is unknown.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

# Above it a 99th percentile may be the host's. On a quiet machine 0.07 % were stolen, and the p99 of shots was 0.1 ms.
TAILS_UP_TO_PERCENT = 0.5

# user, nice, system, idle, iowait, irq, softirq, steal (proc(5)); the guests' two after them are in `user` already.
_COLUMNS = 8


class Ticks(NamedTuple):
    """Clock ticks of all cores together since boot."""

    stolen: int
    all: int


def ticks(path: Path = Path("/proc/stat")) -> Ticks | None:
    """What has passed so far; None where nobody counts it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        name, *columns = path.read_text(encoding="ascii").partition("\n")[0].split()
        counts = [int(each) for each in columns[:_COLUMNS]]
        if name == "cpu" and len(counts) == _COLUMNS:
            return Ticks(counts[-1], sum(counts))
    return None


def percent_between(before: Ticks | None, after: Ticks | None) -> float | None:
    """The share of all ticks between the two that was stolen; None where it cannot be told."""
    if before is None or after is None or after.all <= before.all:
        return None
    # The kernel's count may go back a little where a virtual machine is moved.
    return round(max(0, after.stolen - before.stolen) * 100 / (after.all - before.all), 2)


def in_words(percent: float | None) -> str:
    """For a result's conditions: plainly marked where its tails are not its own."""
    if percent is None:
        return "stolen time unknown"
    return f"{percent:.2g} % stolen" + (": tails say nothing" if percent > TAILS_UP_TO_PERCENT else "")
