"""A rendezvous server: `async with simopen.serve() as server:`. It speaks magic-wormhole's mailbox protocol.

Theory of operation. `server_conversation` decides what each message makes go out, `server_door` lets connections in,
`server_line` is one of them, and here they are put together: each message to its line, what changed to the store, and
a look at every line and room when its time comes. All that is one task and one loop.

What the server learns: from where somebody comes, when, and how much is said. What is said it cannot read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from websockets.frames import CloseCode

from simopen import _logs
from simopen.errors import LocalEndpointError
from simopen.model.endpoint import Endpoint, host_and_port, normalise, own_address
from simopen.model.nat import check_whole
from simopen.model.wording import quoted
from simopen.net.sockets import make_room
from simopen.signalling.server_agenda import Agenda
from simopen.signalling.server_conversation import Conversation, House, Sending
from simopen.signalling.server_door import Door, listeners
from simopen.signalling.server_limits import Limits, owner
from simopen.signalling.server_line import CLOSING_S, PATH, Line, lines_of
from simopen.signalling.server_metrics import Metrics, Number
from simopen.signalling.server_rooms import Change
from simopen.signalling.server_store import Store
from simopen.signalling.server_stun import PORTS, StunService, sites

logger = _logs.logger("signalling.server")

DEFAULT_LIMITS = Limits()
PORT = 4000
"""magic-wormhole's mailbox servers have it."""
LOOK_S = 0.25
LOOKS = 500
"""Lines and rooms looked at in one go, so that nobody has to wait for it."""
SWEEP_S = 60.0
UNKEPT_S = 5.0
"""Where the disk takes nothing, until the next try."""
EXPIRED = "the room is too old: make a new code"
GOING = "this server is shutting down, and keeps no rooms: make a new code once it is back"
COMING_BACK = "this server is going down, and keeps its rooms: connect again soon"
_COUNTED = {
    "messages": "Messages of clients",
    "refused": "Commands that were refused",
    "bad": "Messages that could not be understood",
    "turned_away": "Connections that were not let in",
    "not_kept": "Times that rooms could not be written to disk",
}
_OTHER_FILES = 64
_FEW_GONE = 1_000
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@contextlib.asynccontextmanager
async def serve(
    host: str | Sequence[str] = (),
    port: int = PORT,
    *,
    tls: ssl.SSLContext | None = None,
    motd: str | None = None,
    stun_ports: tuple[int, int] | None = PORTS,
    stun_addresses: Sequence[str] = (),
    state: str | Path | None = None,
    metrics: tuple[str, int] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> AsyncIterator[RendezvousServer]:
    """A rendezvous server, as long as this is inside. Leaving tells those who wait that it ends.

    Args:
        host: this host's IP addresses to listen at; none: all.
        port: 0 for one that is free.
        tls: the server's certificate and key; None: in the clear, for loopback or behind what speaks TLS.
        motd: a line that clients show their users.
        stun_ports: two ports for STUN over TCP and UDP, 0 for free ones; None: no STUN.
        stun_addresses: this host's public addresses that STUN is served at, "203.0.113.7", or "203.0.113.7/10.0.0.5"
            where it has another behind a NAT. Two tell a host all of its own NAT; none: it is served where `host` says.
        state: a file that keeps the rooms through a restart (SQLite); None: they end with this.
        metrics: this host's (address, port) for Prometheus, which needs the extra `serve`; None: no numbers are told.
        limits: what one client, one address and all together may take.

    Raises:
        LocalEndpointError: an address or port cannot be had; the message names it.
        SimopenError: the state file cannot be used, or the extra is missing.
        TypeError, ValueError: a bad argument.
    """
    _check_addresses(host=host, stun_addresses=stun_addresses)
    _check_ports(port, stun_ports, metrics)
    if not (state is None or isinstance(state, (str, Path))):
        raise TypeError(f"state is a file's path, or None, not {quoted(state)}")
    if not isinstance(limits, Limits):
        raise TypeError(f"limits are Limits, not {quoted(limits)}")
    hosts = [own_address(each) for each in ([host] if isinstance(host, str) else host)]
    at, limits = sites(stun_addresses), _as_far_as_descriptors_go(limits)
    stun = None if stun_ports is None else StunService(limits, at, stun_ports, hosts)
    with contextlib.ExitStack() as stack:
        store = None if state is None else stack.enter_context(contextlib.closing(Store(state)))
        server = RendezvousServer(limits, motd=motd, stun=stun, store=store)
        server._metrics = None if metrics is None else Metrics(server, metrics)
        try:
            await server._open(listeners(hosts, port), tls)
            yield server
        finally:
            await server._close()


def _check_addresses(**given: object) -> None:
    """Raises: TypeError for what are no addresses."""
    for what, addresses in given.items():
        if not isinstance(addresses, (str, list, tuple)):
            raise TypeError(f"{what} names IP addresses, not {quoted(addresses)}")


def _check_ports(port: object, stun_ports: object, metrics: object) -> None:
    """Raises: TypeError, ValueError for what are no ports, or no pairs with ports."""
    for what, pair in (("stun_ports are two ports", stun_ports), ("metrics is an address and a port", metrics)):
        if pair is not None and not (isinstance(pair, (list, tuple)) and len(pair) == 2):
            raise TypeError(f"{what}, or None, not {quoted(pair)}")
    for number in (port, *(stun_ports or ()), *(metrics or ())[1:]):  # type: ignore[misc, index]
        check_whole(number, "a port", 0, 2**16)


def _as_far_as_descriptors_go(limits: Limits) -> Limits:
    """As many connections as this process may have open."""
    try:
        make_room(limits.connections + _OTHER_FILES)
    except LocalEndpointError as error:
        import resource

        most = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _OTHER_FILES)
        logger.warning("%s; until then, at most %d connections", error, most)
        limits = replace(limits, connections=most)
        make_room(most)
    return limits


def _name_in(host: str | None) -> str | None:
    """The name or address in a request's Host, as a URL has it; None where there is none."""
    try:
        name, _ = host_and_port(host or "")
    except ValueError:
        return None
    return f"[{name}]" if ":" in name else name


class RendezvousServer:
    """One that is up. `url`: how to reach it from this host; `addresses`: where it listens. Made by `serve`."""

    def __init__(
        self,
        limits: Limits,
        *,
        motd: str | None = None,
        stun: StunService | None = None,
        store: Store | None = None,
    ) -> None:
        self.limits = limits
        self._house = House(limits)
        if store is not None:
            self._house.rooms.restore(store.rooms(), time.monotonic())
        self._motd = motd
        self._stun = stun
        self._store = store
        self._unkept_s: float | None = None
        """When the disk took nothing last; None: it takes all."""
        self._metrics: Metrics | None = None
        self._door: Door[Line] | None = None
        self._tls: ssl.SSLContext | None = None
        self._tending: asyncio.Task[None] | None = None
        self.addresses: tuple[Endpoint, ...] = ()
        self._lines: dict[Conversation, Line] = {}
        self._agenda: Agenda[Line] = Agenda()
        self._to_write: set[Line] = set()
        self._ending = False
        self._empty = asyncio.Event()  # set, while ending, once nobody is connected

    @property
    def port(self) -> int:
        """The port that was asked for, or the free one that was found."""
        return self.addresses[0].port

    @property
    def stun_ports(self) -> tuple[int, int] | None:
        """The two ports of STUN; None where there is none."""
        return None if self._stun is None else self._stun.ports

    @property
    def url(self) -> str:
        """The first address as a `via`; any of this host's is loopback."""
        address, port = self.addresses[0]
        host = _LOOPBACK.get(address, address)
        return f"{'ws' if self._tls is None else 'wss'}://{Endpoint(host, port)}{PATH}"

    async def _open(self, socks: list[socket.socket], tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        full, handshake_s = self._house.accounts.is_full, self.limits.handshake_s
        self._door = Door(socks, self._admit, self._mute, full, tls=tls, handshake_s=handshake_s)
        self.addresses = tuple(normalise(each.getsockname()) for each in socks)
        if self._stun is not None:
            await self._stun.open()
        if self._metrics is not None:
            await self._metrics.open()
        self._tending = asyncio.create_task(self._tend())
        logger.info("listening at %s", ", ".join(map(str, self.addresses)))

    def _admit(self, peer: Endpoint) -> Line | None:
        whose, now = owner(peer.address), time.monotonic()
        if self._ending or (why := self._house.accounts.connect(whose)) is not None:
            self._house.counts["turned_away"] += 1
            logger.debug("%s is not let in: %s", peer, "going down" if self._ending else why)
            return None
        line = Line(self, whose, now)
        self._agenda.put(now + self.limits.handshake_s, line)
        return line

    def _mute(self, line: Line) -> None:
        """It ended before it was any connection."""
        self._uncount(line)

    def _uncount(self, line: Line) -> None:
        if line.counted:
            line.counted = False
            self._house.accounts.disconnect(line.whose)
            if len(self._agenda) > 2 * self._house.accounts.connections + _FEW_GONE:
                self._agenda.keep(lambda each: each.counted)
        if self._ending and not self._house.accounts.connections:
            self._empty.set()

    def spend(self, whose: str, count: int, now: float) -> float:
        """Count what comes from an address."""
        return self._house.accounts.spend(whose, count, now)

    def opened(self, line: Line, host: str | None) -> None:
        """Say who this is."""
        line.conversation = Conversation(self._house, line.whose, line.heard_s)
        self._lines[line.conversation] = line
        self._house.counts["clients"] += 1
        self._agenda.put(line.heard_s + self.limits.ping_s, line)
        self._send([line.conversation.welcome(self._welcome(host), time.time())])

    def heard(self, line: Line, data: bytes, now: float) -> None:
        """One message; what it makes go out is written by `settle`."""
        assert line.conversation is not None
        self._send(line.conversation.hear(data, now, time.time()))

    def settle(self) -> None:
        """What has changed is kept first, and then said."""
        changes = self._house.rooms.changes()
        if self._store is not None and changes:
            self._keep(self._store, changes)
        lines, self._to_write = self._to_write, set()
        for line in lines:
            line.flush()

    def _keep(self, store: Store, changes: list[Change]) -> None:
        """Who is here goes on where the disk does not; that is said in the log, and counted.

        Once the disk goes on, too, all that there is then is written.
        """
        now = time.monotonic()
        if self._unkept_s is not None and now < self._unkept_s + UNKEPT_S:
            return
        try:
            if self._unkept_s is None:
                store.write(changes)
            else:
                store.write_anew(self._house.rooms.all_as_changes())
                logger.warning("rooms are kept again")
            self._unkept_s = None
        except sqlite3.Error as error:
            self._house.counts["not_kept"] += 1
            if self._unkept_s is None:
                logger.warning("rooms cannot be kept for now, and a restart would lose them: %s", error)
            self._unkept_s = now

    def closing(self, line: Line) -> None:
        """See that it ends."""
        self._agenda.put(time.monotonic() + CLOSING_S, line)

    def lost(self, line: Line) -> None:
        """Nobody is there any more; the side keeps its place."""
        self._uncount(line)
        if line.conversation is not None:
            line.conversation.leave(time.monotonic())
            del self._lines[line.conversation]

    @property
    def metrics_address(self) -> Endpoint | None:
        """Where Prometheus finds the numbers; None where it does not."""
        return None if self._metrics is None else self._metrics.address

    def numbers(self) -> Iterator[Number]:
        """What is told Prometheus."""
        house, counts = self._house, self._house.counts
        yield Number("connections", "Connections that are open", house.accounts.connections)
        yield Number("clients", "Of these, WebSockets", len(self._lines))
        yield Number("rooms", "Rooms", len(house.rooms))
        yield Number("rooms_waiting", "Of these, with one side alone", house.rooms.waiting)
        yield Number("kept_bytes", "Messages that are kept", house.rooms.size)
        for name, says in _COUNTED.items():
            yield Number(name, says, counts[name], total=True)
        yield Number("rooms_ended", "Rooms that ended, by mood", house.rooms.moods, total=True, by="mood")
        if self._stun is not None:
            yield Number("stun_answers", "Answers to Binding requests", self._stun.answered, total=True)
            yield Number("connect_backs", "Times that hosts were connected to", self._stun.connected_back, total=True)

    def _welcome(self, host: str | None) -> dict[str, object]:
        """`stun` is ours: STUN servers of this host, by the name that the client knows it by."""
        said: dict[str, object] = {} if self._motd is None else {"motd": self._motd}
        if self._stun is not None and (name := _name_in(host)):
            said["stun"] = [f"{name}:{self._stun.ports[0]}"]
        return said

    def _send(self, sendings: Iterable[Sending]) -> None:
        self._to_write |= lines_of(sendings, self._lines)

    async def _tend(self) -> None:
        swept_s = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            for line in self._agenda.due(now, LOOKS):
                if (again_s := line.look(now)) is not None:
                    self._agenda.put(again_s, line)
            for room in self._house.rooms.expire(now, LOOKS):
                members = [each for each in room.members if isinstance(each, Conversation)]
                self._send([each.end(EXPIRED, time.time()) for each in members])
            self.settle()
            if now >= swept_s + SWEEP_S:
                self._house.accounts.sweep(now)
                if self._stun is not None:
                    self._stun.sweep(now)
                swept_s = now

    async def _close(self) -> None:
        """Tell all, wait until they have heard it or do not want to, and end the rest."""
        self._ending = True
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait({self._tending})
        if self._door is not None:
            await self._door.close()
        if self._metrics is not None:
            await self._metrics.close()
        if self._stun is not None:
            await self._stun.close()
        for conversation, line in tuple(self._lines.items()):
            if self._store is None:  # an error ends wormhole's clients: where rooms are kept they had better come again
                line.send(conversation.end(GOING, time.time()).data)
            line.close(CloseCode.GOING_AWAY, GOING if self._store is None else COMING_BACK)
        if self._house.accounts.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), CLOSING_S)
        for line in tuple(self._lines.values()):
            line.abort()
        if self._store is not None and self._unkept_s is not None:
            self._unkept_s = float("-inf")
            self._keep(self._store, [])
        await asyncio.sleep(0)
