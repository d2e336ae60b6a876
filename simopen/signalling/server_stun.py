"""STUN on a rendezvous server, over TCP and UDP, on two ports and at up to two addresses; and connecting back.

Theory of operation. Each end answers Binding requests and names the other port, at the other address where there is
one (RFC 5780 §7.4). Over TCP a host may ask to be connected to: then its mapping is tried from a port of ours that it
has not contacted, and from the other address, and the answer says what came of it. That goes only to the endpoint that
asks, which a TCP handshake has shown to be there: nobody makes this server knock at a third party.

What it costs is bounded: so many connections in all and of one address, none that says nothing for long, and so many
connections back at a time. Over UDP an answer is four times its request, and so many are sent in a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from simopen import _logs
from simopen.errors import LocalEndpointError, StunError
from simopen.model.endpoint import ANY, Endpoint, normalise, own_address
from simopen.nat import stun_answer
from simopen.nat.stun_answer import Back, ConnectBack
from simopen.net.os_errors import local_error
from simopen.net.own_flows import Flows
from simopen.net.sockets import connect, keep, open_socket
from simopen.signalling.server_door import Door, at_a_free_port, listeners
from simopen.signalling.server_limits import Accounts, Bucket, Limits, owner

logger = _logs.logger("signalling.stun")

PORTS = (3478, 3479)
"""RFC 8489's, and the one beside it, as RFC 5780 §6.1's servers have it."""
IDLE_S = 120.0
"""A host that holds a mapping asks every 25 s."""
TRY_S, TRY_TRIPS, TRY_MOST_S = 1.1, 3, 2.5
"""How long a connection back is tried: a SYN that was lost is sent again after 1 s, and needs its round trips."""
_UNREAD_BYTES = 4096
"""What may wait for who asks and does not read."""
_RTT = struct.Struct("=I")
_TCPI_RTT = 68  # linux/tcp.h, struct tcp_info: tcpi_rtt, in us
_UDP_A_SECOND, _UDP_AT_ONCE = 2_000.0, 4_000.0


@dataclass(frozen=True, slots=True)
class Site:
    """One address of the server's: as others see it, and as it is on this host, where a NAT lies between."""

    public: str
    local: str


def sites(addresses: Sequence[str]) -> tuple[Site, ...]:
    """The addresses meant: "public" or "public/local" each, at most two, of one family.

    Raises: TypeError, ValueError.
    """
    if isinstance(addresses, str) or not all(isinstance(each, str) for each in addresses):
        raise TypeError("the server's addresses are a sequence of them, each a string")
    read = [each.partition("/") for each in addresses]
    found = tuple(Site(own_address(public), own_address(local or public)) for public, _, local in read)
    if len(found) > 2 or len({each.public for each in found}) < len(found):
        raise ValueError("a STUN server has one address, or two that differ")
    if len({Endpoint(each.public, 1).family for each in found}) > 1:
        raise ValueError("the two addresses of a STUN server are of one family: it compares what is seen at both")
    return found


class StunService:
    """The ends of one server. `ports`: two, 0 for free ones; `at`: its addresses.

    `hosts`: where to listen where it has none of its own; none: at any of this host's.
    """

    def __init__(
        self, limits: Limits, at: Sequence[Site], ports: tuple[int, int] = PORTS, hosts: Sequence[str] = ()
    ) -> None:
        self._limits = limits
        self._sites = tuple(at)
        self._hosts = tuple(hosts)
        self._backs: dict[str, Bucket] = {}
        self._trying = 0
        bounded = replace(
            limits, connections=limits.stun_connections, connections_an_address=limits.stun_connections_an_address
        )
        self._accounts = Accounts(bounded)
        self._datagrams = Bucket(_UDP_AT_ONCE, time.monotonic())
        self._doors: list[Door[_Asker]] = []
        self._udp: list[asyncio.DatagramTransport] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.ports = ports
        self.answered = 0
        self.connected_back = 0

    async def open(self) -> None:
        """Listen.

        Raises: LocalEndpointError; the message names the port.
        """
        try:
            first = await self._listen(self.ports[0])
            second = await self._listen(self.ports[1])
        except BaseException:
            await self.close()
            raise
        self.ports = (first, second)

    async def close(self) -> None:
        """End every connection, and listen no more."""
        for door in self._doors:
            await door.close()
        for transport in self._udp:
            transport.abort()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.sleep(0)  # transports close in the loop's next turn

    def sweep(self, now: float) -> None:
        """Forget of whom nothing is to be remembered."""
        self._accounts.sweep(now)
        pace = self._pace()
        self._backs = {whose: each for whose, each in self._backs.items() if not each.is_full(now, **pace)}

    def other(self, local: Endpoint) -> Endpoint | None:
        """The OTHER-ADDRESS of an end of ours; None where it is not known."""
        port = self.ports[1] if local.port == self.ports[0] else self.ports[0]
        if not self._sites:
            return None if local.address in ANY.values() else Endpoint(local.address, port)
        return Endpoint(self._other_site(local).public, port)

    def _other_site(self, local: Endpoint) -> Site:
        return next((each for each in self._sites if each.local != local.address), self._sites[0])

    def _local_addresses(self) -> tuple[str, ...]:
        return tuple(each.local for each in self._sites) or self._hosts

    async def _listen(self, port: int) -> int:
        socks, udp = at_a_free_port(port, self._bound)
        full, handshake_s = self._accounts.is_full, self._limits.handshake_s
        self._doors.append(Door(socks, self._admit, self._lost, full, tls=None, handshake_s=handshake_s))
        for sock in udp:
            made = partial(_Datagrams, self, normalise(sock.getsockname()))
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(made, sock=sock)
            self._udp.append(transport)
        return int(udp[0].getsockname()[1])

    def _bound(self, port: int) -> tuple[list[socket.socket], list[socket.socket]]:
        """Sockets of both protocols at one port."""
        try:
            socks, udp = listeners(self._local_addresses(), port), list[socket.socket]()
        except LocalEndpointError as error:
            if self._sites and error.errno == errno.EADDRNOTAVAIL:
                named = ", ".join(each.local for each in self._sites)
                raise LocalEndpointError(
                    f"cannot serve STUN at {named}: not all of that is this host's. Where a NAT lies before it, name "
                    f"both: PUBLIC/LOCAL, as 203.0.113.7/10.0.0.5"
                ) from error
            raise
        try:
            for each in socks:
                udp.append(_bound_udp(normalise(each.getsockname())))
        except BaseException:
            for each in (*socks, *udp):
                each.close()
            raise
        return socks, udp

    def _admit(self, peer: Endpoint) -> _Asker | None:
        whose = owner(peer.address)
        return None if self._accounts.connect(whose) is not None else _Asker(self, whose, peer)

    def _lost(self, asker: _Asker) -> None:
        if asker.counted:
            asker.counted = False
            self._accounts.disconnect(asker.whose)

    def _answer_datagram(self, data: bytes, seen: Endpoint, end: Endpoint) -> bytes | None:
        if self._datagrams.take(1, time.monotonic(), a_second=_UDP_A_SECOND, most=_UDP_AT_ONCE):
            return None
        try:
            request = stun_answer.read(data)
        except StunError:  # nobody is told: whoever sent it may have named another as its sender
            return None
        self.answered += 1
        return stun_answer.answer(request, seen, self.other(end))

    def _run(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def can(self, local: Endpoint) -> ConnectBack:
        """What this end could try."""
        two = len(self._sites) > 1 and self._other_site(local).local != local.address
        return ConnectBack(Back.CAN, Back.CAN if two else Back.CANNOT)

    async def try_back(
        self, wanted: ConnectBack, whose: str, local: Endpoint, seen: Endpoint, rtt_s: float
    ) -> ConnectBack:
        """Connect to who asks, from another port and from the other address, side by side, and say what came of it."""
        bucket = self._backs.setdefault(whose, Bucket(self._limits.connect_backs_at_once, time.monotonic()))
        if bucket.take(1, time.monotonic(), **self._pace()) or self._trying >= self._limits.connect_backs:
            return ConnectBack(Back.BUSY, Back.BUSY)
        limit_s = min(TRY_MOST_S, TRY_S + TRY_TRIPS * rtt_s)
        self._trying += 1
        can = self.can(local)
        try:
            port, address = await asyncio.gather(
                _tried(wanted.port, can.port, local.address, seen, limit_s),
                _tried(wanted.address, can.address, self._other_local(local), seen, limit_s),
            )
        finally:
            self._trying -= 1
        self.connected_back += 1
        return ConnectBack(port, address)

    def _other_local(self, local: Endpoint) -> str:
        return self._other_site(local).local if self._sites else local.address

    def _pace(self) -> dict[str, float]:
        return {"a_second": self._limits.connect_backs_a_minute / 60, "most": self._limits.connect_backs_at_once}


async def _tried(wanted: Back, can: Back, address: str, seen: Endpoint, limit_s: float) -> Back:
    return await _connects((address, 0), seen, limit_s) if wanted is can is Back.CAN else Back.CANNOT


async def _connects(local: tuple[str, int], seen: Endpoint, limit_s: float) -> Back:
    """Whether a connection to where the asker was seen comes up."""
    try:
        with open_socket(local, seen.family) as sock:
            async with asyncio.timeout(limit_s):
                await connect(sock, seen, Flows())
            keep(sock)
            return Back.CONNECTED
    except TimeoutError:
        return Back.SILENT
    except LocalEndpointError:  # for want of descriptors, say
        return Back.BUSY
    except OSError:
        return Back.REFUSED


class _Asker(asyncio.Protocol):
    """One TCP connection of who asks. `seen`: from where; its socket no longer tells where it was reset meanwhile."""

    def __init__(self, service: StunService, whose: str, seen: Endpoint) -> None:
        self._service = service
        self._seen = seen
        self._data = b""
        self._asking: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self.whose = whose
        self.counted = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._local = normalise(transport.get_extra_info("sockname"))
        self._wait()

    def data_received(self, data: bytes) -> None:
        """One question at a time is taken: what comes with it, or before its answer, ends the connection."""
        self._data += data
        try:
            if self._asking is not None or len(self._data) > stun_answer.MOST_BYTES:
                raise StunError("one question at a time")  # noqa: TRY301 - all that is wrong ends alike
            if stun_answer.missing(self._data):
                return
            request, self._data = stun_answer.read(self._data), b""
        except StunError:
            self._transport.abort()  # type: ignore[attr-defined]
            return
        self._wait()
        if request.connect_back is None:
            self._say(request, self._service.can(self._local))
            return
        self._asking = asyncio.get_running_loop().create_task(self._connect_back(request, request.connect_back))
        self._service._run(self._asking)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._asking is not None:
            self._asking.cancel()
        self._service._lost(self)

    async def _connect_back(self, request: stun_answer.Request, wanted: ConnectBack) -> None:
        try:
            back = await self._service.try_back(wanted, self.whose, self._local, self._seen, _rtt_s(self._transport))
            self._say(request, back)
        finally:
            self._asking = None

    def _say(self, request: stun_answer.Request, back: ConnectBack) -> None:
        self._service.answered += 1
        data = stun_answer.answer(request, self._seen, self._service.other(self._local), back)
        transport: asyncio.Transport = self._transport  # type: ignore[assignment]
        transport.write(data)
        if transport.get_write_buffer_size() > _UNREAD_BYTES:
            transport.abort()

    def _wait(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._transport.close)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, service: StunService, end: Endpoint) -> None:
        self._service = service
        self._end = end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        said = self._service._answer_datagram(data, normalise(addr), self._end)
        if said is not None:
            with contextlib.suppress(OSError):
                self._transport.sendto(said, addr)  # type: ignore[attr-defined]


def _bound_udp(end: Endpoint) -> socket.socket:
    sock = socket.socket(end.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if end.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(end)
    except OSError as error:
        sock.close()
        raise local_error(error, end) from error
    return sock


def _rtt_s(transport: asyncio.BaseTransport) -> float:
    """The kernel's estimate of the round trip to the other side; 0.2 s where it does not tell."""
    sock = transport.get_extra_info("socket")
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_RTT + _RTT.size)
        return float(_RTT.unpack_from(info, _TCPI_RTT)[0]) / 1e6
    except (OSError, AttributeError, struct.error):
        return 0.2
