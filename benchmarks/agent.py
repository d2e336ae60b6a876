"""Fires on a lab host what a benchmark orders: `python -m benchmarks.agent LOOP`, a JSON object per line on stdin.

An order to fire is {"id", "method", "peer", "port", "local", "at_ns" (CLOCK_MONOTONIC), "window_s", "hold_s"}, and may
have "listen"; the answer, one line on stdout, has "first_ns" (our first SYN's call), "established_ns", both
CLOCK_MONOTONIC, or "error".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import simopen
from benchmarks.common import run_on
from simopen import punch
from simopen.clock import source as clock  # by name: loaded now, and not at the first instant

Order = dict[str, Any]


async def by_simopen(order: Order, now: simopen.Estimate) -> Order:
    """`simopen.punch`, with a clock that all hosts of the lab share."""
    sock, report = await punch(
        (order["peer"], order["port"]),
        at=now.utc_at(order["at_ns"]) / 1e9,
        local=order["local"],
        window=order["window_s"],
        listen=order.get("listen", True),
        clock=now,
    )
    established_ns = time.monotonic_ns()  # as the others: when the program has it
    hold(sock, order["hold_s"])
    shots = len(report.attempts)
    return {"first_ns": report.fired_ns, "established_ns": established_ns, "via": report.via, "shots": shots}


async def by_open_connection(order: Order, now: simopen.Estimate) -> Order:
    """What one writes without simopen: sleep until the instant, then `asyncio.open_connection` until it succeeds."""
    await asyncio.sleep((order["at_ns"] - time.monotonic_ns()) / 1e9)
    first_ns = time.monotonic_ns()
    local = ("0.0.0.0" if ":" not in order["peer"] else "::", order["local"])
    async with asyncio.timeout(order["window_s"]):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(order["peer"], order["port"], local_addr=local)
                break
            await asyncio.sleep(0)
    established_ns = time.monotonic_ns()
    asyncio.get_running_loop().call_later(order["hold_s"], writer.transport.abort)
    return {"first_ns": first_ns, "established_ns": established_ns}


async def when_ready(order: Order, now: simopen.Estimate) -> Order:
    """Nothing: whoever gets the answer knows that this process has started and loaded what it needs."""
    return {}


Method = Callable[[Order, simopen.Estimate], Awaitable[Order]]
METHODS: dict[str, Method] = {"simopen": by_simopen, "open_connection": by_open_connection}


def hold(sock: socket.socket, hold_s: float) -> None:
    """Keep the stream until the other side must have it too, then close it."""
    asyncio.get_running_loop().call_later(hold_s, sock.close)


async def obey(order: Order, method: Method, now: simopen.Estimate) -> None:
    try:
        answer = await method(order, now)
    except Exception as error:  # whatever it is, who gave the order waits for an answer
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps({"id": order["id"], **answer}), flush=True)


async def serve(methods: Mapping[str, Method]) -> None:
    """Obey until stdin ends."""
    loop, now, known = asyncio.get_running_loop(), clock.plain(), {"ready": when_ready, **methods}
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    running = set()
    while line := await orders.readline():
        order = json.loads(line)
        running.add(loop.create_task(obey(order, known[order["method"]], now)))
    for task in running:
        task.cancel()


if __name__ == "__main__":
    run_on(sys.argv[1], serve(METHODS))
