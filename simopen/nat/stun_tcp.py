"""STUN over TCP: one connection to one server, and the mapping that lasts as long as it is open.

Theory of operation (RFC 8489 §6.2.2): connect, send one Binding request, read one message to its exact last byte. The
socket shares its local port with every other of ours (see `sockets`), so that what the server sees is the mapping of
the punch port itself. TCP resends what is lost; a server that does not answer is the caller's to time out.

`stun` judges an answer, `classify` what it says of the NAT; `probe` decides whom to ask, and when.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections.abc import Sequence
from typing import Self

from simopen.errors import LocalEndpointError, StunError
from simopen.model.endpoint import Endpoint, normalise
from simopen.model.server import Heard, Server, read_servers
from simopen.model.times import NEVER, MonoNs
from simopen.nat import stun
from simopen.nat.stun_answer import ConnectBack
from simopen.net import own_flows
from simopen.net.os_errors import connection_reason
from simopen.net.routes import NO_WAY, source_address
from simopen.net.sockets import connect, drop, keep, open_socket, sockaddr

STUN_PORT = 3478

DEFAULT_SERVERS = (
    # STUNTMAN's own, by its author: TCP, and two addresses with two ports each (github.com/jselbie/stunserver)
    "stunserver2025.stunprotocol.org",
    # anycast in every Cloudflare city; TURN over TCP 3478 is documented, and that answers Binding to anyone. Not
    # stun.cloudflare.com, which is documented for UDP only (developers.cloudflare.com/realtime/turn)
    "turn.cloudflare.com",
    # Nextcloud Talk's default; 443 passes firewalls that let only the web through. Plain STUN there, not TLS
    "stun.nextcloud.com:443",
    # in natmap's and Natter's lists for TCP (github.com/heiher/natmap/issues/18); no OTHER-ADDRESS (pion/stun#152)
    "stun.voip.blackberry.com",
    # in always-online-stun's list for TCP; answers RFC 5780's tests, over UDP at least (pion/stun#152)
    "stun.voipgate.com",
    # in Natter's and always-online-stun's lists for TCP
    "stun.sonetel.com",
)
"""Six operators that are open to the public and known to answer over TCP. Known from what is written about them: pass
your own as `servers`, any RFC 8489 server that listens on TCP. Two that answer are enough, one with OTHER-ADDRESS too.

Left out: stun.l.google.com (UDP only) and whatever is in lists of UDP servers alone.
"""

# What ends a connection before anything came is no answer; a refusal is one, by the server or a firewall.
_HEARD = {errno.ECONNRESET: Heard.NOTHING, errno.ENETUNREACH: Heard.NO_WAY}
_MOST_STRAYS = 64
"""Datagrams that are no answer. A server sends one answer, maybe twice, and what it does not say here, over TCP. One
that is long and almost right takes 1 ms to be refused."""


def parse_servers(servers: Sequence[str | tuple[str, int]]) -> tuple[Server, ...]:
    """The servers meant: "host", "host:port", "v6", "[v6]:port" or (host, port) each; port 3478 unless given.

    One that is named twice is asked once.

    Raises:
        TypeError: a bare string, where a sequence of them is meant; a name that is no string.
        ValueError: none at all, or one that cannot be read.
    """
    return tuple(dict.fromkeys(read_servers(servers, STUN_PORT, "a STUN server")))


class Binding:
    """One connection to a STUN server: `async with Binding(local, server) as binding: await binding.ask()`.

    Leaving closes it, and the NAT may then forget the mapping. `local` is this host's end once connected, `at_ns` (on
    CLOCK_MONOTONIC) when the SYN left, and `handshake_s` how long the handshake took: one RTT.

    Raises:
        LocalEndpointError: the local endpoint cannot be had.
    """

    def __init__(self, local: tuple[str, int], server: Endpoint) -> None:
        self.local = Endpoint(*local)
        self.server = server
        self.at_ns = NEVER
        self.handshake_s = 0.0
        self._sock: socket.socket = open_socket(local, server.family)
        self._under_way = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def ask(self, *, connect_back: ConnectBack | None = None) -> stun.Answer:
        """Ask for the mapping; the first time, connect. Takes as long as the server does: bound it with a time-out.

        `connect_back`: these ends of the server are to connect to where it sees us, first.

        Raises:
            StunError: no answer, or none that can be believed. The connection is of no more use then.
        """
        if self._under_way:  # what comes next would answer the request that was given up
            raise StunError("an earlier question to it was given up")
        self._under_way = True
        try:
            if not self.at_ns:
                await self._connect()
            answer = await self._transaction(connect_back=connect_back)
        except OSError as error:
            raise StunError(*self._judged(error)) from error
        self._under_way = False
        return answer

    @property
    def ended(self) -> bool:
        """Whether the server has closed it. Not to be asked while a question is under way."""
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Close it, by a FIN where it was connected: some NATs take a RST for the end of the whole mapping."""
        self._sock.close()

    def give_up(self) -> None:
        """Let `close` send a RST: the mapping may go, and this port can ask this server again at once."""
        if self._sock.fileno() >= 0:  # else it has been closed, and that by a FIN
            drop(self._sock)

    async def _connect(self) -> None:
        self.at_ns = await connect(self._sock, self.server)
        keep(self._sock)
        self.handshake_s = (time.monotonic_ns() - self.at_ns) / 1e9
        self.local = normalise(self._sock.getsockname())

    async def _transaction(self, *, connect_back: ConnectBack | None) -> stun.Answer:
        transaction = os.urandom(stun.TRANSACTION_BYTES)
        await asyncio.get_running_loop().sock_sendall(self._sock, stun.request(transaction, connect_back=connect_back))
        return stun.parse(await self._message(), transaction, self.server)

    async def _message(self) -> bytes:
        loop, data = asyncio.get_running_loop(), b""
        while count := stun.missing(data):
            came = await loop.sock_recv(self._sock, count)
            if not came:
                heard = Heard.UNUSABLE if data else Heard.NOTHING
                raise StunError(f"it hung up after {len(data)} bytes of an answer", (heard,))
            data += came
        return data

    def _judged(self, error: OSError) -> tuple[str, tuple[Heard, ...]]:
        """What it means, in words and as what came of it."""
        if error.errno == errno.EADDRNOTAVAIL and not self._has_way():
            return NO_WAY, (Heard.NO_WAY,)
        return connection_reason(error), (_HEARD.get(error.errno or 0, Heard.UNUSABLE),)

    def _has_way(self) -> bool:
        """Without one of its family's addresses, a kernel refuses a connection by the word it has for a taken port."""
        try:
            return source_address(self.server, self.local.address) is not None
        except LocalEndpointError:  # who knows
            return True


async def other_address(server: Endpoint) -> Endpoint | None:
    """A server's OTHER-ADDRESS, asked over UDP: one round trip, where TCP needs two to tell it.

    Only that is asked: what UDP is mapped to says nothing about TCP. None where nothing can be sent there, or where
    more than a few things come back that are no answer. Waits for a good one as long as it takes: bound it with a
    time-out, and do without where UDP is blocked.
    """
    loop, transaction = asyncio.get_running_loop(), os.urandom(stun.TRANSACTION_BYTES)
    try:
        with socket.socket(server.family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(sockaddr(server))
            own_flows.shared.note_socket(sock, server, MonoNs(time.monotonic_ns()))
            sock.send(stun.request(transaction))
            for _ in range(_MOST_STRAYS):
                with contextlib.suppress(StunError):  # a stray: anyone can send one
                    return stun.parse(await loop.sock_recv(sock, stun.MOST_BYTES), transaction, server).other
                await asyncio.sleep(0)  # where more is there already, `sock_recv` does not let the loop run
    except OSError:
        pass
    return None
