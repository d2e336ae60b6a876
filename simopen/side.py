"""One side of `simopen lab`: a program on a lab host that punches when it is told, by the real library.

Theory of operation: `python -m simopen.side` reads one order a line from standard input, JSON, and answers each with a
line on standard output. `observe` connects from the punch port to the observer and tells which endpoint that saw; the
connection stays open until the punch is over, as one to a rendezvous would. `punch` fires at the instant, and where a
stream comes up, sends a byte through it and back. All hosts of a lab share CLOCK_MONOTONIC, so instants travel as that.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from typing import Any

from simopen import clock, opening
from simopen.address import ANY
from simopen.clock import Estimate
from simopen.errors import LocalEndpointError, PunchError
from simopen.sockets import keep, open_socket

Order = dict[str, Any]
Answer = dict[str, Any]

# A byte each way, or a SYN lost twice (the kernel resends after 1 and 2 s): then something is wrong.
_PATIENCE_S = 5.0


class Side:
    """This host's end: the clock, and the connection to the observer."""

    def __init__(self, now: Estimate) -> None:
        self._now = now
        self._observed: socket.socket | None = None

    async def obey(self, order: Order) -> Answer:
        """Carry out one order. What goes wrong with the network is in the answer, as `error`."""
        try:
            return await {"observe": self._observe, "punch": self._punch}[order["do"]](order)
        except LocalEndpointError as error:
            return {"error": str(error)}

    async def _observe(self, order: Order) -> Answer:
        """{"port", "observer": [address, port]}: the endpoint at which `port` is seen, as `seen`."""
        loop = asyncio.get_running_loop()
        self._observed = open_socket((ANY[socket.AF_INET], order["port"]), socket.AF_INET)
        keep(self._observed)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await loop.sock_connect(self._observed, tuple(order["observer"]))
                said = await loop.sock_recv(self._observed, 100)
        except OSError as error:
            self.forget()
            return {"error": f"no word from the observer: {error.strerror or 'no answer'}"}
        address, port = said.split()
        return {"seen": [address.decode(), int(port)]}

    async def _punch(self, order: Order) -> Answer:
        """{"port", "peer": [address, port], "at_ns", "window_s", "asks"}: what came of it."""
        at = self._now.utc_at(order["at_ns"]) / 1e9
        try:
            sock, report = await opening.punch(
                tuple(order["peer"]), at=at, local=order["port"], window=order["window_s"], clock=self._now
            )
        except PunchError as error:
            fired_ns = error.report.fired_ns if error.report else None
            return {"error": str(error), "fired_ns": fired_ns, "report": error.report and error.report.as_dict()}
        finally:
            self.forget()
        with sock:
            answer = {"fired_ns": report.fired_ns, "established_ns": report.established_ns, "via": report.via}
            return {**answer, "report": report.as_dict(), **await _exchange(sock, asks=order["asks"])}

    def forget(self) -> None:
        """Close the connection to the observer."""
        if self._observed is not None:
            self._observed.close()
            self._observed = None


async def _exchange(sock: socket.socket, *, asks: bool) -> Answer:
    """A byte there and back: `rtt_s` on the side that asks; both then wait for the other's end."""
    loop = asyncio.get_running_loop()
    begun_s = time.monotonic()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            if asks:
                await loop.sock_sendall(sock, b"?")
            heard = await loop.sock_recv(sock, 1)
            rtt_s = time.monotonic() - begun_s if asks else None
            if not asks:
                await loop.sock_sendall(sock, b"!")
                await loop.sock_recv(sock, 1)
    except OSError as error:
        return {"error": f"the stream came up, but carried nothing: {error.strerror or 'no answer'}"}
    return {"rtt_s": rtt_s} if heard else {"error": "the stream came up, and was closed by the other side"}


async def serve() -> None:
    """Obey until standard input ends."""
    side, orders = Side(clock.plain()), asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print(json.dumps({"ready": True}), flush=True)
    while line := await orders.readline():
        print(json.dumps(await side.obey(json.loads(line))), flush=True)
    side.forget()


if __name__ == "__main__":
    asyncio.run(serve())
