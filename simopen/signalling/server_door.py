"""The listening sockets of a rendezvous server: who comes in, and when TLS begins.

Theory of operation. A connection that says nothing is nothing but a socket: only its first byte makes a transport, and
TLS, whose buffers are a hundred times as large. So ten thousand that come and stay mute cost the kernel's share and a
record here. Where an address has too many, its oldest mute one makes room for who comes, and anybody's where the server
is full: so they keep nobody out. TLS handshakes (1 to 2 ms of CPU each) go on so many at a time, and of one address
fewer; the rest wait their turn, an address after the other, and no longer than mute ones do. An address that has none
under way need not wait: those of others may all be dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Generic, TypeVar

from simopen import _logs
from simopen.errors import LocalEndpointError
from simopen.model.endpoint import ANY, Endpoint, normalise
from simopen.net.os_errors import local_error, reason
from simopen.net.sockets import sockaddr
from simopen.signalling.server_limits import owner

logger = _logs.logger("signalling.server")
T = TypeVar("T")
V = TypeVar("V")

BACKLOG = 4096
"""Connections that the kernel keeps for us; it cuts this down to net.core.somaxconn."""
AT_ONCE = 64
"""Connections taken from one listener before the others have their turn."""
HANDSHAKES = 128
"""TLS handshakes under way at a time."""
HANDSHAKES_AN_ADDRESS = 16
PAUSE_S = 0.5
"""Where this process or host has no descriptor left, until the next try."""
_TRIES = 20
_NO_MORE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


def listeners(hosts: Iterable[str], port: int) -> list[socket.socket]:
    """Listening sockets at one port: at these IP addresses, or, where there are none, at any of either family.

    `port`: 0 takes one that is free, the same for all.

    Raises:
        LocalEndpointError: one cannot be had; the message names it.
    """
    return at_a_free_port(port, partial(_listeners, tuple(hosts)))


def at_a_free_port(port: int, listen: Callable[[int], T]) -> T:
    """What is made at that port; where that is 0, at one that is free for all that is made: one may be for a part.

    Raises: as `listen`.
    """
    for _ in range(_TRIES if port == 0 else 0):
        try:
            return listen(port)
        except LocalEndpointError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return listen(port)


def _listeners(named: tuple[str, ...], port: int) -> list[socket.socket]:
    made: list[socket.socket] = []
    try:
        for host in named or tuple(ANY.values()):
            try:
                made.append(_listener(host, port))
            except LocalEndpointError as error:
                if named or not made or error.errno not in _NO_SUCH_FAMILY:
                    raise
                logger.info("%s: listening on IPv4 alone", error)
            port = port or made[0].getsockname()[1]
    except BaseException:
        for sock in made:
            sock.close()
        raise
    return made


def _listener(host: str, port: int) -> socket.socket:
    family = Endpoint(host, port).family
    try:
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise local_error(error, (host, port)) from error
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not SO_REUSEPORT: a second server is a mistake
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(sockaddr(Endpoint(host, port)))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise local_error(error, (host, port)) from error
    return sock


P = TypeVar("P", bound=asyncio.Protocol)


class Door(Generic[P]):
    """Takes connections at these sockets, which are its own from now on.

    `admit`: makes the protocol of a connection from this endpoint, or says None to those that are not let in.
    `is_full`: whether nobody is, from wherever. `mute`: called with what `admit` made for each that ends before it is a
    connection, or as it becomes one.
    """

    def __init__(
        self,
        socks: Iterable[socket.socket],
        admit: Callable[[Endpoint], P | None],
        mute: Callable[[P], None],
        is_full: Callable[[], bool],
        *,
        tls: ssl.SSLContext | None,
        handshake_s: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listeners = list(socks)
        self._admit = admit
        self._mute = mute
        self._is_full = is_full
        self._tls = tls
        self._handshake_s = handshake_s
        self._waiting: dict[socket.socket, tuple[P, asyncio.TimerHandle, str]] = {}  # in the order of their coming
        self._mute_of: dict[str, dict[socket.socket, None]] = {}
        self._spoken: dict[str, dict[socket.socket, tuple[P, asyncio.TimerHandle]]] = {}  # by owner, whose turn it is
        self._starting: dict[asyncio.Task[None], tuple[socket.socket, P, str]] = {}
        self._starting_of: Counter[str] = Counter()
        self._given: set[socket.socket] = set()  # of these, the loop has the socket
        for sock in self._listeners:
            self._loop.add_reader(sock, self._come, sock)

    @property
    def waiting(self) -> int:
        """Connections that have not begun: mute ones, and those whose TLS has to wait."""
        return len(self._waiting) + sum(map(len, self._spoken.values()))

    async def close(self) -> None:
        """Take no more, and let those go that have not begun."""
        for sock in self._listeners:
            self._loop.remove_reader(sock)
            sock.close()
        for sock in tuple(self._waiting):
            self._give_up(sock)
        for whose, sock in [(whose, sock) for whose, socks in self._spoken.items() for sock in socks]:
            self._too_late(whose, sock)
        if starting := tuple(self._starting):
            for task in starting:
                task.cancel()
            await asyncio.wait(starting)

    def _come(self, listener: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._cannot(listener, error)
                return
            self._take(sock, normalise(address))

    def _cannot(self, listener: socket.socket, error: OSError) -> None:
        """The kernel would say so again at once, as long as somebody waits."""
        if error.errno not in _NO_MORE:
            logger.warning("a connection could not be accepted: %s", reason(error))
            return
        logger.warning("no connection can be accepted for now: %s", reason(error))
        self._loop.remove_reader(listener)
        self._loop.call_later(PAUSE_S, self._again, listener)

    def _again(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            self._loop.add_reader(listener, self._come, listener)

    def _take(self, sock: socket.socket, peer: Endpoint) -> None:
        whose = owner(peer.address)
        protocol = self._admit(peer)
        if protocol is None and self._make_room(whose):
            protocol = self._admit(peer)
        if protocol is None:
            sock.close()
            return
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # it has been reset already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        timer = self._loop.call_later(self._handshake_s, self._give_up, sock)
        self._waiting[sock] = (protocol, timer, whose)
        self._mute_of.setdefault(whose, {})[sock] = None
        self._loop.add_reader(sock, self._speaks, sock)

    def _make_room(self, whose: str) -> bool:
        """Let the oldest mute connection go: of this address, or, where the server is full, of any."""
        among = self._mute_of.get(whose) or (self._waiting if self._is_full() else {})
        oldest = next(iter(among), None)
        if oldest is None:
            return False
        self._give_up(oldest)
        return True

    def _no_longer_mute(self, sock: socket.socket) -> tuple[P, str]:
        self._loop.remove_reader(sock)
        protocol, timer, whose = self._waiting.pop(sock)
        timer.cancel()
        _drop(self._mute_of, whose, sock)
        return protocol, whose

    def _give_up(self, sock: socket.socket) -> None:
        protocol, _ = self._no_longer_mute(sock)
        sock.close()
        self._mute(protocol)

    def _speaks(self, sock: socket.socket) -> None:
        protocol, whose = self._no_longer_mute(sock)
        timer = self._loop.call_later(self._handshake_s, self._too_late, whose, sock)
        self._spoken.setdefault(whose, {})[sock] = (protocol, timer)
        self._start_next()

    def _too_late(self, whose: str, sock: socket.socket) -> None:
        """Its turn has not come."""
        protocol, timer = _drop(self._spoken, whose, sock)
        timer.cancel()
        sock.close()
        self._mute(protocol)

    def _may_start(self, whose: str) -> bool:
        if self._tls is None or not self._starting_of[whose]:
            return True
        return len(self._starting) < HANDSHAKES and self._starting_of[whose] < HANDSHAKES_AN_ADDRESS

    def _start_next(self) -> None:
        while (whose := next(filter(self._may_start, self._spoken), None)) is not None:
            sock = next(iter(self._spoken[whose]))
            protocol, timer = _drop(self._spoken, whose, sock)
            timer.cancel()
            if whose in self._spoken:
                self._spoken[whose] = self._spoken.pop(whose)  # the others have their turn
            task = self._loop.create_task(self._start(sock, protocol))
            self._starting[task] = (sock, protocol, whose)
            self._starting_of[whose] += 1
            task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        sock, protocol, whose = self._starting.pop(task)
        self._starting_of[whose] -= 1
        if not self._starting_of[whose]:
            del self._starting_of[whose]
        if task.cancelled() or task.exception() is not None:
            if sock not in self._given:  # a task that is cancelled before its first step does nothing
                sock.close()
            self._mute(protocol)
        self._given.discard(sock)
        self._start_next()

    async def _start(self, sock: socket.socket, protocol: P) -> None:
        """Raises: OSError for a client that speaks no TLS, has gone, or is too slow. The loop has closed the socket."""
        self._given.add(sock)
        limit_s = None if self._tls is None else self._handshake_s
        shut_s = None if self._tls is None else 1.0
        await self._loop.connect_accepted_socket(
            lambda: protocol,
            sock,
            ssl=self._tls,
            ssl_handshake_timeout=limit_s,
            ssl_shutdown_timeout=shut_s,
        )


def _drop(among: dict[str, dict[socket.socket, V]], whose: str, sock: socket.socket) -> V:
    """Take one of an owner's out, and the owner with its last."""
    found = among[whose].pop(sock)
    if not among[whose]:
        del among[whose]
    return found
