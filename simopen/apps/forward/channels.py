"""SSH's channels on a socket whose two ends share a secret: which are opened, by whom, and what of it is let in.

Theory of operation: RFC 4254 §7, by asyncssh. SSH's client listens on its own ports, and asks its server to listen on
those that the server's side wants. What the client asks for beyond that, its server refuses: for each connection anew
it looks up what this side has allowed.

A port is open before SSH's client knows that it is. So connections wait until all ports are open and SSH's client has
said so, by a request that is refused.

Each side proves itself by what `proofs` derives from the secret: the server by its host key, and to that key alone the
client by a password.

asyncssh sends what a channel's window lets it, whether the socket takes it or not. So the windows say what a side has
in memory at most: a connection's, each way, in what its host has not taken yet, and in what the network has not.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import socket
import weakref
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

import asyncssh

from simopen import _logs
from simopen.apps.forward import dialling
from simopen.apps.forward.agreement import Ready, allows, before
from simopen.apps.forward.ends import ChannelEnd, End, noting
from simopen.apps.forward.ports import listening
from simopen.apps.forward.proofs import proofs
from simopen.apps.forward.targets import MOST_FORWARDS, Forward, Target, named
from simopen.errors import ForwardError, LocalEndpointError
from simopen.model.endpoint import literal
from simopen.model.wording import shown
from simopen.net.os_errors import connection_reason, reason
from simopen.net.resolve import look_up

logger = _logs.logger("forward")

Connection: TypeAlias = asyncssh.SSHClientConnection | asyncssh.SSHServerConnection

_CLOSE_S = 2.0
_LOGIN_S = 30.0
# AES-GCM first: where a processor has AES it is twice as fast as ChaCha20.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com")
_USER = "simopen"
_PACKET = 2**17  # bytes: a larger one costs asyncssh as much as one of its own 32 KiB does
_WINDOW, _NARROW, _MANY = 2**20, 2**19, 64
"""A channel's window in bytes, which is 100 Mbit/s over a path of 80 ms; half of it, where so many are open."""
_ALL_OPEN = "simopen forward: all ports are open"
"""In the place of a UNIX socket's path that SSH's client asks for: SSH has no word for it."""


class _Side:
    """What this side wants and allows, and what has become of it. `connection`: None before SSH has begun."""

    def __init__(self, forwards: tuple[Forward, ...], allowed: tuple[Target, ...]) -> None:
        self.forwards, self.allowed = forwards, allowed
        self.broke: Exception | None = None
        self.listening = asyncio.Event()
        self.failed: LocalEndpointError | None = None
        self._open: dict[Forward, list[asyncio.Server]] = {}
        self.connection: Any = None
        self._underway: set[asyncio.Task[Any]] = set()
        self._asked: dict[str, asyncio.Future[list[Any]]] = {}
        self._failing: dict[str, str] = {}
        self._is_over = False
        self._ends: weakref.WeakSet[End] = weakref.WeakSet()
        self.room = bytearray(_PACKET)

    def connection_made(self, conn: Any) -> None:
        self.connection = conn
        conn.create_tcp_channel = noting(conn.create_tcp_channel)

    def connection_lost(self, exc: Exception | None) -> None:
        self.broke = exc
        self.listening.set()

    @property
    def sizes(self) -> dict[str, int]:
        """A new channel's."""
        return {"window": _WINDOW if len(self._ends) < _MANY else _NARROW, "max_pktsize": _PACKET}

    async def listen(self, wanted: Forward) -> bool:
        """Have connections to this port carried; False where it cannot be had, and then `failed` says why."""
        try:
            sockets = await listening(*wanted.listen)
        except LocalEndpointError as error:
            self.failed = self.failed or error
            self.listening.set()
            return False
        if self._is_over:
            for sock in sockets:
                sock.close()
            return False
        begun = partial(asyncio.get_running_loop().create_server, partial(_Accepted, self, wanted), start_serving=False)
        self._open[wanted] = [await begun(sock=sock) for sock in sockets]
        for server in self._open[wanted]:
            if not self._is_over:
                await server.start_serving()
        return not self._is_over

    @property
    def are_open(self) -> bool:
        """Whether all ports are."""
        return set(self._open) == set(self.forwards)

    def carry(self, accepted: _Accepted, wanted: Forward, by: tuple[str, int]) -> None:
        """Have a channel for a connection to one of these ports, which waits until the peer can take it."""
        self._ends.add(accepted)
        task = asyncio.get_running_loop().create_task(self._carry(accepted, wanted, by))
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)

    async def _carry(self, accepted: _Accepted, wanted: Forward, by: tuple[str, int]) -> None:
        # SSH's server names its own port: its client knows where that leads.
        to = wanted.to if isinstance(self, asyncssh.SSHClient) else _lower(*wanted.listen)
        what = f"{named(*wanted.listen)} leads nowhere: the peer cannot connect to {named(*wanted.to)}"
        try:
            await self.listening.wait()
            if self.are_open:
                await self.connection.create_connection(partial(ChannelEnd, accepted), *to, *by, **self.sizes)
                self._failing.pop(what, None)
                return
        except asyncssh.Error as error:
            if not self.connection.is_closed():  # else it is told that the stream broke
                self._tell(what, error.reason)
        except BaseException:
            accepted.close()
            raise
        accepted.close()

    def _tell(self, what: str, why: str) -> None:
        """Warn of what fails; of the same again once it has gone well, or fails otherwise.

        Of so many things at most: a peer may ask for any port of a host that it is allowed.
        """
        is_new = self._failing.get(what) != why
        if is_new and (what in self._failing or len(self._failing) < MOST_FORWARDS):
            self._failing[what] = why
            logger.warning("%s: %s", what, shown(why))

    async def connect(self, host: str, port: int) -> Any:
        """For a channel of the peer's, whose task this is. Raises: asyncssh.ChannelOpenError."""
        task = asyncio.current_task()
        assert task is not None
        self._underway.add(task)
        what = f"cannot connect to {named(shown(host), port)} for the peer"
        try:
            end = await dialling.connected(await self._addresses(host), port, lambda: End(self.room))
        except (OSError, ValueError, RuntimeError) as error:  # no such name can be; no thread can be had
            why = connection_reason(error) if isinstance(error, OSError) else reason(error)
            self._tell(what, why)
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, why) from None
        finally:
            self._underway.discard(task)
        self._failing.pop(what, None)
        self._ends.add(end)
        return ChannelEnd(end)

    async def _addresses(self, host: str) -> list[str]:
        """Of a name there is one look-up at a time, in a thread of its own: a silent name server holds up no others."""
        if (address := literal(host)) is not None:
            return [address]
        if (asked := self._asked.get(host)) is None:
            asked = self._asked[host] = asyncio.ensure_future(look_up(host, 0, socket.SOCK_STREAM))
            asked.add_done_callback(lambda _: self._asked.pop(host))
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())  # who waited may have gone
        found = await asyncio.shield(asked)
        return list(dict.fromkeys(address[0] for *_, address in found))

    async def stop(self) -> None:
        """Listen no more, and stop connecting: asyncssh leaves targets that do not answer to the kernel, which goes on
        for two minutes."""
        self._is_over = True
        for server in (each for servers in self._open.values() for each in servers):
            server.close()
        for asked in self._asked.values():
            asked.cancel()
        if underway := set(self._underway):
            for task in underway:
                task.cancel()
            await asyncio.wait(underway)


class _Client(_Side, asyncssh.SSHClient):
    """The side that has begun the link."""


class _Server(_Side, asyncssh.SSHServer):
    """The other one."""

    password = ""

    def password_auth_supported(self) -> bool:
        """It is the one way that there is."""
        return True

    def validate_password(self, username: str, password: str) -> bool:
        """Whether it is the peer."""
        return hmac.compare_digest(password.encode(), self.password.encode())

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        """Where to, if that is allowed."""
        if not allows(self.allowed, dest_host, dest_port):
            return False
        return self.connection.create_tcp_channel(**self.sizes), self.connect(dest_host, dest_port)

    async def server_requested(self, listen_host: str, listen_port: int) -> Any:
        """The peer, SSH's client, asks for a port on this host: for one that this side has asked it to ask for."""
        asked_for = (listen_host, listen_port)  # asyncssh has made that host lower case
        wanted = next((each for each in self.forwards if _lower(*each.listen) == asked_for), None)
        return wanted is not None and await self.listen(wanted) and asyncssh.SSHListener()

    def unix_server_requested(self, listen_path: str) -> bool:
        """The peer, SSH's client, has asked for all ports, and knows of those that are open."""
        if listen_path == _ALL_OPEN and self.are_open:
            self.listening.set()
        return False


class _Accepted(End):
    """A connection to one of this side's ports."""

    def __init__(self, side: _Side, wanted: Forward) -> None:
        super().__init__(side.room)
        self._side, self._wanted = side, wanted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio's."""
        super().connection_made(transport)
        host, port, *_ = transport.get_extra_info("peername") or ("", 0)  # it may be gone already
        self._side.carry(self, self._wanted, (host, port))


def _lower(host: str, port: int) -> tuple[str, int]:
    return host.lower(), port


async def carry(
    sock: socket.socket,
    secret: bytes,
    *,
    forwards: Iterable[Forward],
    allowed: Iterable[Target],
    theirs: Sequence[Forward] | None,
    ready: Ready | None,
) -> None:
    """Carry connections over this socket until the peer ends it, or this is cancelled. It is closed with it.

    Args:
        secret: what the two ends have, and nobody else.
        forwards: what this side listens for.
        allowed: where the peer's connections may go.
        theirs: what the peer listens for, where this side is SSH's client; None where it is its server.
        ready: called with `forwards` once all of them are listened for, and the peer knows.

    Raises:
        ForwardError: the stream broke, or somebody else is at its other end.
        LocalEndpointError: a port of this host cannot be listened on.
    """
    side = (_Server if theirs is None else _Client)(tuple(forwards), tuple(allowed))
    with sock:
        try:
            async with asyncio.timeout(_LOGIN_S):
                connection = await _speaking(sock, secret, side)
        except (OSError, asyncssh.Error) as error:
            raise before(error) from error
        try:
            await _carry(connection, side, theirs or (), ready)
        finally:
            connection.close()
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await connection.wait_closed()
            except TimeoutError:
                connection.abort()
            await side.stop()
            await _linger(sock)
    if side.broke is not None:
        why = f"the stream that carries the connections broke: {reason(side.broke)}"
        raise ForwardError(why, is_broken=True) from side.broke


async def _linger(sock: socket.socket) -> None:
    """Let the peer read the last words: what it sends meanwhile would be answered by a RST, and that may overtake them.

    asyncssh closes its own descriptor at once.
    """
    with contextlib.suppress(OSError):  # a time-out, too
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_CLOSE_S):
            while await asyncio.get_running_loop().sock_recv(sock, _PACKET):
                pass


async def _speaking(sock: socket.socket, secret: bytes, side: _Side) -> Connection:
    options: dict[str, Any] = {
        "config": None,
        "encryption_algs": _CIPHERS,
        "compression_algs": None,
        # What is sent waits behind all that its channels have, and its answer would come too late on a slow path: it is
        # the kernel's to find a peer that is gone.
        "keepalive_interval": 0,
    }
    key, password = proofs(secret)
    its_own = socket.socket(fileno=os.dup(sock.fileno()))
    its_own.setblocking(False)
    try:
        return await _run(its_own, key, password, side, options)
    finally:
        if side.connection is None:
            its_own.close()


async def _run(
    sock: socket.socket, key: asyncssh.SSHKey, password: str, side: _Side, options: dict[str, Any]
) -> Connection:
    if isinstance(side, _Server):
        side.password = password
        alone = {"public_key_auth": False, "kbdint_auth": False, "host_based_auth": False, "gss_host": None}
        return await asyncssh.run_server(sock, server_factory=lambda: side, server_host_keys=[key], **alone, **options)
    known: Any = ([key.convert_to_public()], [], [])
    nobody: dict[str, Any] = {"client_keys": None, "agent_path": None, "username": _USER, "gss_host": None}
    return await asyncssh.run_client(
        sock, client_factory=lambda: side, known_hosts=known, password=password, **nobody, **options
    )


async def _carry(connection: Connection, side: _Side, theirs: Sequence[Forward], ready: Ready | None) -> None:
    """`theirs`: what is opened on the peer's host by this side, SSH's client; its own it opens before."""
    if isinstance(connection, asyncssh.SSHClientConnection):
        for each in side.forwards:
            await side.listen(each)
        side.listening.set()
        if theirs and side.failed is None:
            await _asked(connection, side, theirs)
    if side.forwards:
        await side.listening.wait()
    if side.failed is not None:
        raise side.failed
    if ready is not None and side.are_open:
        ready(side.forwards)
    await connection.wait_closed()


async def _asked(connection: asyncssh.SSHClientConnection, side: _Side, theirs: Sequence[Forward]) -> None:
    """Have the peer open its ports, and tell it that this side knows that they are."""
    for each in theirs:
        with contextlib.suppress(asyncssh.ChannelListenError):  # the peer knows why, and ends this
            await connection.create_server(partial(_connecting, side, each), *each.listen, **side.sizes)
    with contextlib.suppress(asyncssh.ChannelListenError):
        await connection.forward_remote_path(_ALL_OPEN, _ALL_OPEN)


def _connecting(side: _Side, wanted: Forward, _host: str, _port: int) -> Any:
    """To where connections of that port go, whoever they are from."""
    return side.connect(*wanted.to)
