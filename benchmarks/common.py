"""What every benchmark prints and how."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import uvloop

from simopen.screen import plain_table

T = TypeVar("T")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run_on(loop: str, work: Coroutine[object, object, T]) -> T:
    """Run a coroutine on the loop of that name."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(work)


def conditions(**more: object) -> str:
    """Machine, kernel and Python, and whatever else the numbers depend on."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    python = f"Python {platform.python_version()}, uvloop {version('uvloop')}"
    given = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in more.items())
    return f"{os.cpu_count()} × {cpu}, {platform.system()} {platform.release()}, {python}" + (
        f"; {given}" if given else ""
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="ascii", errors="replace").splitlines() if Path(path).exists() else []


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n{title}\n{plain_table(columns, rows)}", flush=True)


def verdict(holds: bool) -> str:
    return "yes" if holds else "NO"


def save(path: str | None, value: object) -> None:
    """Write the raw results as JSON, where a path was given."""
    if path:
        Path(path).write_text(json.dumps(value, indent=1), encoding="utf-8")


def progress(text: str) -> None:
    """One line that replaces itself on a terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
