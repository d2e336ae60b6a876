"""What the tests of a stream's end run on a host: `python ender.py LOOP JSON`, a list of meetings at the same time.

Each is {"peer", "port", "at" (CLOCK_MONOTONIC ns), "way"}: the stream comes up, says a word, and is ended at once in
that way. The answer, in the same order, is null where it came up, or what the error and the diagnosis say.
"""

from __future__ import annotations

from tests import quick_start

# isort: split
import asyncio
import json
import os
import socket
import struct
import sys
from typing import Any

import uvloop

import simopen
from simopen.clock import source as clock
from simopen.model.times import MonoNs

FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
WORD = b"again"
RESET = struct.pack("ii", 1, 0)


async def end(way: str, peer: tuple[str, int], **options: Any) -> None:
    if way.startswith("punch"):
        sock, _ = await simopen.punch(peer, **options)
        sock.send(WORD)
        if way == "punch, shutdown":
            sock.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.5)
        elif way == "punch, reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif way == "punch, around the library":
            with socket.socket(fileno=os.dup(sock.fileno())) as other:
                other.shutdown(socket.SHUT_WR)
            while await asyncio.get_running_loop().sock_recv(sock, 100):
                pass
        sock.close()
        return
    _, writer = await simopen.connect(peer, **options)
    writer.write(WORD)
    if way == "end of file":
        writer.write_eof()
        await asyncio.sleep(0.5)
    elif way == "reset":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
    writer.close()  # and where the program ends now, at once


async def meet(peer: list[Any], port: int, at: int, way: str, **options: Any) -> dict[str, Any] | None:
    now = clock.plain()
    try:
        await end(way, (peer[0], peer[1]), local=port, at=now.utc_at(MonoNs(at)) / 1e9, clock=now, **options)
    except simopen.PunchError as error:
        return {"message": str(error), "diagnosis": error.diagnosis and error.diagnosis.as_dict()}
    return None


async def main(orders: list[dict[str, Any]]) -> None:
    print(json.dumps(await asyncio.gather(*(meet(**order) for order in orders))), flush=True)


if __name__ == "__main__":
    quick_start.loaded(simopen.punch, simopen.connect)
    with asyncio.Runner(loop_factory=FACTORIES[sys.argv[1]]) as runner:
        runner.run(main(json.loads(sys.argv[2])))
