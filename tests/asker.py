"""One side of HTTP over a session, on a host of the lab: a line of JSON for each request, and for what happens.

`python -m tests.asker LOOP JSON`: {"name", "folder", "via", "servers", "keepalive", "user_timeout"}. `laptop` asks, by
GET and POST in turn, a number each, ten times a second at most, and tells of each answer (`heard`) or error (`failed`);
`desk` answers, and tells of each request (`heard`). All hosts of a lab share CLOCK_MONOTONIC.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from itertools import count
from typing import Any

import httpx2

import simopen
import simopen.http
from tests.rejoiner import EVERY_S, by_loop, session_of, tell

ASKS = "laptop"


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Says yes."""
    if scope["type"] != "http":
        raise RuntimeError("it has no lifespan")
    tell("heard", time.monotonic_ns(), method=scope["method"], number=int(scope["path"][1:]))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": b"yes"})


async def ask(session: simopen.Session) -> None:
    """Without an end."""
    transport = simopen.http.Transport(session.connect)
    async with httpx2.AsyncClient(transport=transport, base_url="http://peer", timeout=None) as http:
        for number in count():
            method = ("GET", "POST")[number % 2]
            try:
                answer = await http.request(method, f"/{number}")
            except httpx2.TransportError as error:
                tell("failed", time.monotonic_ns(), method=method, number=number, said=str(error))
            else:
                assert answer.text == "yes"
                tell("heard", time.monotonic_ns(), method=method, number=number)
            await asyncio.sleep(EVERY_S)


async def run(order: dict[str, Any]) -> None:
    """Until it is ended."""
    async with session_of(order) as session:
        with contextlib.suppress(asyncio.CancelledError):
            await (ask(session) if order["name"] == ASKS else simopen.http.serve(application, session))


if __name__ == "__main__":
    by_loop(sys.argv[1], run(json.loads(sys.argv[2])))
