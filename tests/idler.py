"""What test_liveness.py runs on lab hosts: `python idler.py LOOP JSON` punches, does as told, and says how it went.

The JSON object holds `punch`'s arguments, `at` as CLOCK_MONOTONIC ns, and `does`, the name of a function below. A list
of such objects is as many punches at once, and as many answers.
"""

from __future__ import annotations

from tests import quick_start

# isort: split
import asyncio
import contextlib
import errno
import fcntl
import json
import os
import socket
import struct
import sys
from typing import Any

import simopen
from simopen.apps.pipe import pipe
from simopen.clock import source as clock
from simopen.model.times import MonoNs
from tests.puncher import FACTORIES

QUIET_S = 4.5
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1  # linux/sockios.h, linux/if.h


async def reads(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.readexactly(2)


async def writes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():  # a write would then be a RuntimeError on uvloop
        writer.write(b"x")
        await asyncio.sleep(0.1)
    await reader.readexactly(2)


async def pipes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Without an end, to a peer that takes nothing any more; and has the time-out's own word for an error."""
    zeros, nowhere = os.open("/dev/zero", os.O_RDONLY), os.open(os.devnull, os.O_WRONLY)
    carried = await pipe(reader, writer, source=zeros, sink=nowhere)
    if carried.error and "nothing was acknowledged" in carried.error:
        raise TimeoutError(errno.ETIMEDOUT, carried.error)


async def pulls_the_cable(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """And stays, so that its kernel says nothing."""
    writer.write(b"!")
    await asyncio.sleep(0.3)
    for _, name in socket.if_nameindex():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            asked = struct.pack("16sh14x", name.encode(), 0)
            (flags,) = struct.unpack_from("16xh", fcntl.ioctl(sock, _SIOCGIFFLAGS, asked))
            fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", name.encode(), flags & ~_IFF_UP))
    await asyncio.sleep(60)


async def asks_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(QUIET_S)
    writer.write(b"?")
    async with asyncio.timeout(1):
        await reader.readexactly(1)


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(QUIET_S + 1.5):
        writer.write(await reader.readexactly(1))
        await writer.drain()


async def run(does: str, at: int, **options: Any) -> str:
    now = clock.plain()
    reader, writer = await simopen.connect(at=now.utc_at(MonoNs(at)) / 1e9, clock=now, **options)
    try:
        await globals()[does](reader, writer)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    finally:
        with contextlib.suppress(OSError):
            writer.transport.abort()
    return "well"


async def obey(orders: list[dict[str, Any]]) -> list[str]:
    return await asyncio.gather(*(run(**{**order, "peer": tuple(order["peer"])}) for order in orders))


if __name__ == "__main__":
    quick_start.loaded(simopen.connect)
    with asyncio.Runner(loop_factory=FACTORIES[sys.argv[1]]) as runner:
        print(json.dumps(runner.run(obey(json.loads(sys.argv[2])))))
