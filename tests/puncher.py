"""What the lab tests run on a host: `python puncher.py LOOP JSON` punches and prints the report, or the error.

The JSON object holds `punch`'s arguments, `at` as CLOCK_MONOTONIC ns, since all hosts of a lab share one machine. A
list of such objects is as many punches at once, and as many answers.
"""

from __future__ import annotations

import asyncio
import json
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
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, b"I love you.")
        heard = b""
        while len(heard) < 11:
            heard += await loop.sock_recv(sock, 100)
    return {"heard": heard.decode(), "report": report.as_dict()}


async def obey(orders: Any) -> Any:
    if isinstance(orders, list):
        return await asyncio.gather(*(punch(**order) for order in orders))
    return await punch(**orders)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=FACTORIES[sys.argv[1]]) as runner:
        print(json.dumps(runner.run(obey(json.loads(sys.argv[2])))))
