"""Have a STUN server connect back to fresh local ports, and see whose SYNs arrive: `filtering` says what that shows.

Theory of operation: of each of the server's two addresses a port of its own sees the SYNs, without letting anybody in
(`early_syn`), while the server is asked from that port. It tries for a second and more, since a SYN may be lost, and
then answers: who has not been seen by then was not let in. Linux only, as that is; elsewhere nothing is found out.
"""

from __future__ import annotations

import asyncio
import socket

from simopen.errors import LocalEndpointError, StunError
from simopen.model.endpoint import Endpoint
from simopen.nat import stun
from simopen.nat.filtering import LetIn, shown
from simopen.nat.stun_answer import Back, ConnectBack
from simopen.nat.stun_tcp import Binding
from simopen.net.early_syn import EarlySynWatch, watch

LOOK_S = 0.02


class Backs:
    """What one inquiry has connect back, and what that shows, by address family. `most`: servers that are asked to."""

    def __init__(self, most: int) -> None:
        self.let_in: dict[socket.AddressFamily, LetIn] = {}
        self.under_way = 0
        self._left = most

    def takes(self, answer: stun.Answer) -> bool:
        """Whether who answers so is to connect back, which is under way from now on: `ask` him."""
        if answer.back is None or not self._left:
            return False
        self._left -= 1
        self.under_way += 1
        return True

    async def ask(self, local: tuple[str, int], server: Endpoint, other: Endpoint | None) -> str | None:
        """Have it done, as `connected_back`; returns why that was not to be had."""
        try:
            found = await connected_back(local, server, other)
            self.let_in[server.family] = self.let_in.get(server.family, LetIn()).and_so(found)
        except (StunError, LocalEndpointError) as error:
            return str(error)
        finally:
            self.under_way -= 1
        return None


async def connected_back(local: tuple[str, int], server: Endpoint, other: Endpoint | None) -> LetIn:
    """Whose SYNs arrive. Bound it with a time-out.

    `local`: this host's address, or any, and port 0. `server`: who is asked; `other`: its OTHER-ADDRESS.

    Raises:
        LocalEndpointError: no socket can be had.
        StunError: the server did not answer.
    """
    tries = [_let_in(local, server, server.address, ConnectBack(Back.CAN, Back.CANNOT))]
    if other is not None and other.address != server.address:
        tries.append(_let_in(local, server, other.address, ConnectBack(Back.CANNOT, Back.CAN)))
    return LetIn(*await asyncio.gather(*tries))


async def _let_in(local: tuple[str, int], server: Endpoint, address: str, wanted: ConnectBack) -> bool | None:
    """Whether a SYN from that address of the server's arrives. `wanted`: which end of it that is."""
    watching = watch(local, server.family, [address])
    if watching is None:
        return None
    try:
        async with Binding((local[0], watching.port), server) as binding:
            said = await _until_seen(binding, watching, wanted)
            binding.give_up()
    finally:
        watching.close()
    return True if said is None else shown(said.port if wanted.port is Back.CAN else said.address)


async def _until_seen(binding: Binding, watching: EarlySynWatch, wanted: ConnectBack) -> ConnectBack | None:
    """The server's word; None where a SYN was seen, before that or with it."""
    asking = asyncio.create_task(binding.ask(connect_back=wanted))
    try:
        while not watching.saw():
            if asking.done():
                return (await asking).back or ConnectBack(Back.CANNOT, Back.CANNOT)
            await asyncio.wait({asking}, timeout=LOOK_S)
    finally:
        asking.cancel()
        await asyncio.wait({asking})
    return None
