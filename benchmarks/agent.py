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
from typing import Any

import simopen
from benchmarks.common import run_on
from simopen import clock, punch  # by name: loaded now, and not at the first instant

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
    hold(sock, order["hold_s"])
    shots = len(report.attempts)
    return {"first_ns": report.fired_ns, "established_ns": report.established_ns, "via": report.via, "shots": shots}


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


async def observe(order: Order, now: simopen.Estimate) -> Order:
    """Learn from the observer at "peer" and "port" as which endpoint it sees "local"; stay connected for "hold_s"."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("", order["local"]))
    hold(sock, order["hold_s"])
    await asyncio.get_running_loop().sock_connect(sock, (order["peer"], order["port"]))
    seen = await asyncio.get_running_loop().sock_recv(sock, 100)
    address, port = seen.decode().split()
    return {"address": address, "port": int(port)}


async def when_ready(order: Order, now: simopen.Estimate) -> Order:
    """Nothing: whoever gets the answer knows that this process has started and loaded what it needs."""
    return {}


METHODS = {"ready": when_ready, "observe": observe, "simopen": by_simopen, "open_connection": by_open_connection}


def hold(sock: socket.socket, hold_s: float) -> None:
    """Keep the stream until the other side must have it too, then close it."""
    asyncio.get_running_loop().call_later(hold_s, sock.close)


async def obey(order: Order, now: simopen.Estimate) -> None:
    try:
        answer = await METHODS[order["method"]](order, now)
    except (OSError, TimeoutError) as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps({"id": order["id"], **answer}), flush=True)


async def serve() -> None:
    """Obey until stdin ends."""
    loop, now = asyncio.get_running_loop(), clock.plain()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    running = set()
    while line := await orders.readline():
        running.add(loop.create_task(obey(json.loads(line), now)))
    for task in running:
        task.cancel()


if __name__ == "__main__":
    run_on(sys.argv[1], serve())
