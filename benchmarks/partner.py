"""Meets a partner again and again from one port: `python -m benchmarks.partner LOOP`, a JSON object per line on stdin.

{"id", "method": "connect" or "punch", "peer", "port", "at_ns" (CLOCK_MONOTONIC), "window_s", "end": "fin" or "rst",
"after_s"} opens a stream, as that call does, says a few words and hears the peer's. So long after the stream came up it
ends it in that way; where "after_s" is null, the peer is left to do that, and only then it is closed here. The answer
has "elapsed_s", from the first SYN until the stream was up; or "error".
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import time

import simopen
from benchmarks.agent import serve
from benchmarks.common import run_on
from benchmarks.orders import Order

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_WORDS = b"again"
_PATIENCE_S = 5.0


async def by_connect(order: Order, now: simopen.Estimate) -> Order:
    """`simopen.connect`; a writer's `close`, or its transport's `abort`, ends the stream."""
    reader, writer = await simopen.connect((order["peer"], order["port"]), **_agreed(order, now))
    report: simopen.Report = writer.get_extra_info("simopen")
    ends_ns = _ends_ns(order)
    writer.write(_WORDS)
    with contextlib.suppress(OSError):  # the peer's end came first
        if ends_ns is None:
            async with asyncio.timeout(_PATIENCE_S):
                await reader.read()
        await asyncio.sleep(max(0, (ends_ns or 0) - time.monotonic_ns()) / 1e9)
        if ends_ns is not None and order["end"] == "fin":
            await _closed_in_order(reader, writer)
    if ends_ns is not None and order["end"] == "rst" and (sock := writer.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return {"elapsed_s": report.elapsed_s}


async def _closed_in_order(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Our end at once, and the close with the peer's: what is closed with something unread is reset."""
    writer.write_eof()
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(_PATIENCE_S):
            await reader.read()
    writer.close()


async def by_punch(order: Order, now: simopen.Estimate) -> Order:
    """`simopen.punch`; the socket's own `close` ends the stream."""
    sock, report = await simopen.punch((order["peer"], order["port"]), **_agreed(order, now))
    ends_ns = _ends_ns(order)
    loop = asyncio.get_running_loop()
    with sock, contextlib.suppress(OSError):  # the peer's end came first
        await loop.sock_sendall(sock, _WORDS)
        if ends_ns is None:
            async with asyncio.timeout(_PATIENCE_S):
                while await loop.sock_recv(sock, 100):
                    pass
        await asyncio.sleep(max(0, (ends_ns or 0) - time.monotonic_ns()) / 1e9)
        if ends_ns is not None and order["end"] == "rst":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    return {"elapsed_s": report.elapsed_s}


def _agreed(order: Order, now: simopen.Estimate) -> Order:
    return {
        "at": now.utc_at(order["at_ns"]) / 1e9,
        "local": order["port"],
        "window": order["window_s"],
        "clock": now,
    }


def _ends_ns(order: Order) -> int | None:
    return None if order["after_s"] is None else time.monotonic_ns() + round(order["after_s"] * 1e9)


if __name__ == "__main__":
    run_on(sys.argv[1], serve({"connect": by_connect, "punch": by_punch}))
