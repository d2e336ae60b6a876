"""One side of a session, on a host of the lab: what happens, a line of JSON each.

`python -m tests.rejoiner LOOP JSON`: {"name", "folder", "via", "servers", "keepalive", "user_timeout"}. It writes a
byte every tenth of a second, and tells of what comes: `heard`. All hosts of a lab share CLOCK_MONOTONIC, so the times
of two sides are compared as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop

import simopen

EVERY_S = 0.1


def tell(step: str, at_ns: int, **more: Any) -> None:
    print(json.dumps({"step": step, "at_ns": at_ns, **more}), flush=True)


def on_event(event: simopen.Event) -> None:
    if event.step.startswith("session"):
        tell(event.step, event.at_ns, said=str(event))


async def write(writer: StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(EVERY_S)


async def talk(reader: StreamReader, writer: StreamWriter) -> None:
    writing = asyncio.ensure_future(write(writer))
    try:
        while await reader.read(1000):
            tell("heard", time.monotonic_ns())
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        writer.close()


def session_of(order: dict[str, Any]) -> simopen.Session:
    """As it was told."""
    return simopen.Session(
        order["name"],
        folder=Path(order["folder"]),
        via=order["via"],
        servers=order["servers"],
        allow_plain=True,
        keepalive=order["keepalive"],
        user_timeout=order["user_timeout"],
        on_event=on_event,
    )


async def run(order: dict[str, Any]) -> None:
    """Until it is ended."""
    async with session_of(order) as session:
        async for reader, writer in session:
            with contextlib.suppress(OSError):
                await talk(reader, writer)


def by_loop(loop: str, work: Coroutine[Any, Any, None]) -> None:
    (uvloop.run if loop == "uvloop" else asyncio.run)(work)


if __name__ == "__main__":
    by_loop(sys.argv[1], run(json.loads(sys.argv[2])))
