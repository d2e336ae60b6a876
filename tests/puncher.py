"""What the lab tests run on a host: `python puncher.py LOOP JSON` punches and prints the report, or the error.

It says "ready" when it has loaded all, and reads the instant: a line with CLOCK_MONOTONIC ns, since all hosts of a lab
share one machine. The JSON is a list of objects of `punch`'s arguments, as many punches at once, and as many answers;
`at` is ns after the instant.
"""

from __future__ import annotations

from tests import quick_start

# isort: split
import asyncio
import json
import socket
import sys
from typing import Any

import uvloop

import simopen
from simopen.clock import source as clock
from simopen.model.times import MonoNs

FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


async def punch(peer: list[list[Any]], at: int, **options: Any) -> dict[str, Any]:
    now = clock.plain()
    endpoints = [(host, port) for host, port in peer]
    try:
        sock, report = await simopen.punch(endpoints, at=now.utc_at(MonoNs(at)) / 1e9, clock=now, **options)
    except simopen.PunchError as error:
        told = {"report": error.report and error.report.as_dict()}
        diagnosis = error.diagnosis and error.diagnosis.as_dict()
        return {"error": type(error).__name__, "message": str(error), "diagnosis": diagnosis, **told}
    with sock:
        try:
            heard = await greeted(sock)
        except OSError as error:
            return {"error": type(error).__name__, "message": str(error), "report": report.as_dict()}
    return {"heard": heard.decode(), "report": report.as_dict()}


async def greeted(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, b"I love you.")
    heard = b""
    while len(heard) < 11 and (more := await loop.sock_recv(sock, 100)):
        heard += more
    return heard


async def obey(orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    print("ready", flush=True)
    instant_ns = int(sys.stdin.readline())
    return await asyncio.gather(*(punch(**{**order, "at": instant_ns + order["at"]}) for order in orders))


if __name__ == "__main__":
    quick_start.loaded(simopen.punch)
    with asyncio.Runner(loop_factory=FACTORIES[sys.argv[1]]) as runner:
        print(json.dumps(runner.run(obey(json.loads(sys.argv[2])))))
