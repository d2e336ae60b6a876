from __future__ import annotations

import asyncio
import socket

from simopen.address import Endpoint
from simopen.connector import Connector
from simopen.plan import Shot
from simopen.report import Via
from simopen.scheduler import spin
from simopen.window import Window
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]
FAR_NS = 2**62


async def test_a_stream_that_the_loop_has_not_accepted_yet_is_not_taken_for_another_program_s(
    ports: tuple[int, int],
) -> None:
    """The kernel has established it, and shots at the same 5-tuple fail meanwhile."""
    peer = Endpoint(THERE, ports[1])
    with Connector.opened(HERE, [Shot(ports[0], peer)]) as connector, socket.socket() as other:
        connector.fired(spin(0, connector.aim(0)))
        connector.watch(Window(0, FAR_NS))
        [lane] = connector._lanes
        while lane not in connector._timers:  # noqa: ASYNC110 - until a RST has come and no shot is in flight
            await asyncio.sleep(0)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((THERE, ports[1]))
        other.connect((HERE, ports[0]))
        for _ in range(2):  # no await: the loop comes round to nothing in between
            connector._timers[lane].cancel()
            connector._refire(lane, 0)
        async with asyncio.timeout(5):
            stream = await connector.stream()
        with stream.sock:
            assert (stream.via, stream.remote) == (Via.ACCEPT, peer)
