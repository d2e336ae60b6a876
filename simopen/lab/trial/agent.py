"""One side of `simopen lab`: a program on a lab host that does what its user would, when it is told, by the library.

Theory of operation: `python -m simopen.lab.trial.agent` reads one order a line from standard input, JSON, and answers
each with a line on standard output. `discover` is `simopen nat --ticket`: it finds out what the NATs do to the punch
port, answers with a ticket, and holds the mapping until the punch is over. `punch` is `simopen connect TICKET`, and
where a stream comes up, sends a byte through it and back. All hosts of a lab share CLOCK_MONOTONIC, so instants travel
as that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import sys
import time
from dataclasses import replace
from typing import Any

from simopen.clock import source as clock
from simopen.errors import ImpossiblePair, LocalEndpointError, PunchError, StunError
from simopen.holepunch import api
from simopen.model.endpoint import Endpoint
from simopen.model.estimate import Estimate
from simopen.model.nat import Profile
from simopen.model.times import MonoNs
from simopen.ticket.codec import Ticket, parse_ticket
from simopen.ticket.hold import holding, issued

Order = dict[str, Any]
Answer = dict[str, Any]

# A byte each way, or a SYN lost twice (the kernel resends after 1 and 2 s): then something is wrong.
_PATIENCE_S = 5.0


class Agent:
    """This host's end: the clock, and the mapping that is held."""

    def __init__(self, now: Estimate) -> None:
        self._now = now
        self._held = contextlib.AsyncExitStack()
        self._mine: Ticket | None = None

    async def obey(self, order: Order) -> Answer:
        """Carry out one order. What goes wrong with the network is in the answer, as `error`."""
        try:
            return await {"discover": self._discover, "punch": self._punch}[order["do"]](order)
        except (LocalEndpointError, StunError) as error:
            return {"error": str(error)}

    async def _discover(self, order: Order) -> Answer:
        """{"local": [address, port], "servers": [address, ...]}: the `ticket`, and where the servers saw the port."""
        await self.let_go()  # the other side may have had nothing to fire at
        local, servers = tuple(order["local"]), order["servers"]
        found = await self._held.enter_async_context(holding(local, servers=servers))
        instant = math.ceil(self._now.utc_at(MonoNs(time.monotonic_ns())) / 1e9)  # the true one is not agreed on yet
        text = issued(found.profile, instant, found.port, ahead_ns=self._now.utc_at(MonoNs(0))).encode()
        self._mine = parse_ticket(text)  # both sides must plan with the very same
        return {"ticket": text, "seen": _seen(found.profile, found.port)}

    async def _punch(self, order: Order) -> Answer:
        """{"theirs": a ticket, "at_ns", "late_ns", "window_s", "spray", "asks"}: what came of it.

        `late_ns`: how far this side's clock is behind. Both sides agree on one instant, so that their plans are one.
        """
        assert self._mine is not None
        behind = replace(self._now, utc_ns=self._now.utc_ns - order["late_ns"])
        try:
            sock, report = await api.punch(
                parse_ticket(order["theirs"]).profile,
                mine=self._mine.profile,
                spray=order["spray"],
                at=self._now.utc_at(order["at_ns"]) / 1e9,
                window=order["window_s"],
                clock=behind,
            )
        except PunchError as error:
            return _failed(error)
        finally:
            await self.let_go()
        with sock:
            ends = {"local": sock.getsockname(), "remote": sock.getpeername(), "via": report.via}
            times = {"fired_ns": report.fired_ns, "established_ns": report.established_ns}
            told = {"plan": report.plan, "report": report.as_dict()}
            return {**ends, **times, **told, **await _exchange(sock, asks=order["asks"])}

    async def let_go(self) -> None:
        """Close the connections that hold the mapping."""
        await self._held.aclose()


def _seen(profile: Profile, port: int) -> list[Endpoint]:
    """Where the servers saw the punch port: one endpoint, unless each destination gets its own."""
    return list(dict.fromkeys(each.mapped for each in profile.observations if each.local.port == port))


def _failed(error: PunchError) -> Answer:
    report = error.report
    said = {"error": str(error), "refused": isinstance(error, ImpossiblePair)}
    if report is None:
        return said
    return {**said, "plan": report.plan, "fired_ns": report.fired_ns, "report": report.as_dict()}


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
    agent, orders = Agent(clock.plain()), asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print(json.dumps({"ready": True}), flush=True)
    while line := await orders.readline():
        print(json.dumps(await agent.obey(json.loads(line))), flush=True)
    await agent.let_go()


if __name__ == "__main__":
    asyncio.run(serve())
