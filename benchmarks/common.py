"""What every benchmark measures with, prints and writes.

A result is one JSON object: {"benchmark", "conditions": {...}, "rows": [{...}, ...]}, where a row is flat and its names
carry their units. `benchmarks.tables` makes the tables of `docs/measured.md` from it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from benchmarks import stolen
from simopen.cli.console import plain_table

T = TypeVar("T")
Row = dict[str, Any]

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run_on(loop: str, work: Coroutine[object, object, T]) -> T:
    """Run a coroutine on the loop of that name."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(work)


def options_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with what all benchmarks have in common."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the result there")
    return parser


def conditions(**more: object) -> Row:
    """Machine, kernel and Python, how busy the machine was, and whatever else the numbers depend on.

    To be taken before the measuring begins. `load` is the mean number of running processes over the last minute.
    """
    return {
        "machine": f"{os.cpu_count()} × {_cpu()}",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "load": round(os.getloadavg()[0], 1),
        **more,
    }


@contextmanager
def measuring(**more: object) -> Iterator[Row]:
    """Tell the conditions, let the measuring be done, and add what share of the machine's time was stolen meanwhile."""
    given = conditions(**more)
    print(f"{_machine(given)}{_rest(given)}", flush=True)
    before = stolen.ticks()
    yield given
    given["stolen_percent"] = stolen.percent_between(before, stolen.ticks())
    print(stolen.in_words(given["stolen_percent"]), flush=True)


_MACHINE = ("machine", "system", "python", "uvloop", "date", "load", "stolen_percent")


def described(given: Mapping[str, Any]) -> str:
    """Conditions in words, after the measuring."""
    return f"{_machine(given)}, {stolen.in_words(given.get('stolen_percent'))}{_rest(given)}"


def _machine(given: Mapping[str, object]) -> str:
    return "{machine}, {system}, Python {python}, uvloop {uvloop}, {date}, load {load} before".format_map(given)


def _rest(given: Mapping[str, object]) -> str:
    more = (f"; {name.replace('_', ' ')} {value}" for name, value in given.items() if name not in _MACHINE)
    return "".join(more)


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", path.read_text() if path.exists() else "", re.MULTILINE)
    return found[1] if found else platform.machine()


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def shape(values: Sequence[float], name: str, unit: str) -> Row:
    """The median and the 99th percentile as two fields of a row; None where there are no values."""
    places = (median(values), quantile(values, 0.99)) if values else (None, None)
    return {f"{name}_{place}_{unit}": value for place, value in zip(("p50", "p99"), map(rounded, places), strict=True)}


def rounded(value: float | None) -> float | None:
    """To four significant digits, more than any of these figures deserves."""
    return None if value is None else float(f"{value:.4g}")


def shown(value: object) -> str:
    """A field of a row, for a table: three significant digits, and "NO" where something does not hold."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "NO"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def table(title: str, rows: Sequence[Row]) -> None:
    """Print rows that have the same fields."""
    columns = [name.replace("_", " ") for name in rows[0]] if rows else []
    cells = [[shown(value) for value in row.values()] for row in rows]
    print(f"\n{title}\n{plain_table(columns, cells)}", flush=True)


def save(path: str | None, benchmark: str, given: Row, rows: Sequence[Row]) -> None:
    """Write the result as JSON, a row per line, where a path was given; all of it or nothing."""
    if not path:
        return
    lines = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in rows)
    head = json.dumps({"benchmark": benchmark, "conditions": given}, indent=1, ensure_ascii=False)
    target, new = Path(path), Path(f"{path}.new")
    target.parent.mkdir(parents=True, exist_ok=True)
    new.write_text(f'{head[:-2]},\n "rows": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    new.replace(target)


def progress(text: str) -> None:
    """One line on standard error that replaces itself on a terminal; elsewhere now and then a line of its own."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text and time.monotonic() - _told[0] > _PAUSE_S:
        _told[0] = time.monotonic()
        print(text, file=sys.stderr, flush=True)


_PAUSE_S = 10
_told = [0.0]
