"""Obeys `benchmarks.peers`: an order per line on stdin, an answer per line on stdout. Standard library only.

An order has "at_ns" (CLOCK_MONOTONIC, the same for all hosts of the lab), "host" and "public" (this host's own address
and what others see), "peer" (the address to fire at), "port" (both sides' port, inside and outside), "first" (true on
one side of each pair, false on the other), "window_s" and "hold_s" (how long to keep the stream). The answer has
"established_ns", when the program had a stream that it could use, or "error"; "cpu_s", what the punch took of the
processor, all threads, from getting the order until the stream; and "peak_kib", the process's largest resident set.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Order = dict[str, Any]
Answer = dict[str, Any]
Punch = Callable[[Order], tuple[Answer, Callable[[], object]]]
"""Punches: returns `established()` as of when the stream was up, and what closes it. Raises where there is none."""


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_kib() -> int:
    """The largest resident set. Not getrusage's, which counts what the process was before it executed this."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def obey(punch: Punch) -> None:
    """Obey until stdin ends, one order after the other."""
    for line in sys.stdin:
        order = json.loads(line)
        answer = {} if order.get("method") == "ready" else _obeyed(punch, order)
        print(json.dumps({"id": order["id"], **answer}), flush=True)


def _obeyed(punch: Punch, order: Order) -> Answer:
    before_s = cpu_s()
    try:
        answer, close = punch(order)
    except Exception as error:  # whatever a rival raises is its answer
        answer, close = {"error": _named(error), "cpu_s": cpu_s()}, _nothing
    answer |= {"cpu_s": answer["cpu_s"] - before_s, "peak_kib": peak_kib()}
    if "error" not in answer:
        time.sleep(order["hold_s"])
    close()
    return answer


def _named(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):  # trio's nurseries wrap whatever ends them
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _nothing() -> None:
    pass


def established() -> Answer:
    """To be called as soon as the stream can be used."""
    return {"established_ns": time.monotonic_ns(), "cpu_s": cpu_s()}


def sleep_until(at_ns: int) -> None:
    time.sleep(max(0.0, (at_ns - time.monotonic_ns()) / 1e9))
