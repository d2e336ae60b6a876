"""Many TCP connections over one stream, as `ssh -L` and `-R` carry them, both ways at once.

Theory of operation: the channels are SSH's (RFC 4254 §7), by asyncssh, which speaks over the socket of a bridge to the
stream. Who is at the other end the stream's link has proven already; so SSH's own keys are made for this one use, and
nobody is asked to know them. Before SSH begins, each side says in a line of JSON what it wants to listen for, and
answers the other's in another: which of those targets it does not allow. The one that begins the link is SSH's client,
opens its own ports, and asks the other to open those that the other wants. What SSH's client asks for beyond that, its
server refuses: for each connection anew it looks up what this side has allowed.

A port is open before SSH's client knows that it is, and until then it refuses what comes by it. So connections wait
until all ports are open and SSH's client has said so, by a request that is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import asyncssh

from simopen.errors import ForwardError, LocalEndpointError
from simopen.link.bridge import bridge
from simopen.model.endpoint import check_port, host_and_port
from simopen.model.report import Report
from simopen.model.wording import quoted
from simopen.net.os_errors import local_error, reason

Connection: TypeAlias = asyncssh.SSHClientConnection | asyncssh.SSHServerConnection
Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

MOST_FORWARDS = 64
T = TypeVar("T")
_VERSION = 1
_LONGEST_NAME = 253
_ANSWER_S, _CLOSE_S = 30.0, 2.0
_HERE = "127.0.0.1"
# AES-GCM first: where a processor has AES it is twice as fast as ChaCha20.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com")
_KEPT_ALIVE_S = 30
_ALL_OPEN = "simopen forward: all ports are open"
"""In the place of a UNIX socket's path that SSH's client asks for: SSH has no word for it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the peer may have connections made to from this host; without a port, to any port of that host."""

    host: str
    port: int | None = None

    @classmethod
    def read(cls, text: str) -> Target:
        """From HOST or HOST:PORT. Raises: ValueError."""
        host, port = host_and_port(text)
        return cls(host, port)

    def covers(self, host: str, port: int) -> bool:
        """Whether a connection to that is one to this."""
        return self.host.lower() == host.lower() and self.port in {None, port}

    def __str__(self) -> str:
        return self.host if self.port is None else _named(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Forward:
    """Connections to this port of this host are made from the peer's host to that host and port."""

    listen: tuple[str, int]
    to: tuple[str, int]

    @classmethod
    def read(cls, listen: str, to: str) -> Forward:
        """From PORT or HOST:PORT, of this host, and HOST:PORT as the peer sees it. Raises: ValueError."""
        host, port = (_HERE, int(listen)) if listen.isascii() and listen.isdecimal() else host_and_port(listen)
        there, its_port = host_and_port(to)
        if port is None or its_port is None:
            raise ValueError(f"{quoted(listen if port is None else to)} has no port: HOST:PORT is wanted")
        return cls(
            (host, check_port(port, "the port to listen on")), (there, check_port(its_port, "the target's port"))
        )

    def __str__(self) -> str:
        return f"{_named(*self.listen)} to {_named(*self.to)}"


def _named(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _lower(host: str, port: int) -> tuple[str, int]:
    return host.lower(), port


async def forward(
    stream: Streams,
    *,
    forwards: Sequence[Forward] = (),
    allow: Iterable[Target] = (),
    begins: bool | None = None,
    ready: Callable[[Sequence[Forward]], object] | None = None,
) -> None:
    """Carry connections until the stream ends, or this is cancelled. The stream is closed with it.

    Args:
        stream: a (reader, writer) of `connect`'s to a peer that calls this, too.
        forwards: what this side listens for, 64 at most.
        allow: where the peer's connections may go, from this host; nowhere where that is empty.
        begins: whether this side is SSH's client, and the other is not; left out, whoever began the stream's link.
        ready: called with `forwards` once all of them are listened for, and the peer knows.

    Raises:
        ForwardError: the peer does not allow a target, or speaks something else; the stream broke.
        LocalEndpointError: a port of this host cannot be listened on.
        ValueError: too many forwards, or nobody has begun the stream.
    """
    if len(forwards) > MOST_FORWARDS:
        raise ValueError(f"{len(forwards)} forwards: {MOST_FORWARDS} at most go over one stream")
    reader, writer = stream
    bridged = False
    try:
        begins = _begins(writer) if begins is None else begins
        side = (_Client if begins else _Server)(tuple(forwards), tuple(allow))
        with _breaking():
            theirs = await _agreed(reader, writer, side)
            sock = await bridge(stream)
            bridged = True  # whatever is on its way there still leaves, and then the bridge closes the stream
            connection = await _speaking(sock, side)
        await _carry(connection, side, theirs if begins else (), ready)
    finally:
        if not bridged:
            writer.close()
        await _closed(writer)


async def _closed(writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_CLOSE_S):
            await writer.wait_closed()
    except OSError:  # a time-out, too
        writer.transport.abort()


def _begins(writer: asyncio.StreamWriter) -> bool:
    report: Report | None = writer.get_extra_info("simopen")
    if report is None or report.proof is None:
        raise ValueError("nobody is proven at the other end of this stream: connect by tickets or with a key")
    return report.proof.role == "initiator"


class _Side:
    """What this side wants and allows, and what has become of it."""

    def __init__(self, forwards: tuple[Forward, ...], allowed: tuple[Target, ...]) -> None:
        self.forwards, self.allowed = forwards, allowed
        self.broke: Exception | None = None
        self.listening = asyncio.Event()
        self.failed: LocalEndpointError | None = None
        self._open: set[Forward] = set()
        self._connection: Any = None
        self._connecting: set[asyncio.Task[Any]] = set()

    def connection_made(self, conn: Any) -> None:
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        self.broke = exc
        self.listening.set()

    def allows(self, host: str, port: int) -> bool:
        return any(target.covers(host, port) for target in self.allowed)

    async def listen(self, wanted: Forward) -> Any:
        """Have connections to this port carried; False where it cannot be had, and then `failed` says why."""
        # SSH's server names its own port: its client knows where that leads.
        to = wanted.to if isinstance(self, asyncssh.SSHClient) else _lower(*wanted.listen)
        try:
            listener = await self._connection.forward_local_port(*wanted.listen, *to, self._may_go)
        except OSError as error:
            self.failed = self.failed or local_error(error, wanted.listen)
            self.listening.set()
            return False
        self._open.add(wanted)
        return listener

    async def _may_go(self, _host: str, _port: int) -> bool:
        """Whether a connection to one of these ports is carried; it waits until the peer can take it."""
        await self.listening.wait()
        return self.are_open

    @property
    def are_open(self) -> bool:
        """Whether all ports are."""
        return self._open == set(self.forwards)

    async def connect(self, host: str, port: int) -> Any:
        """For a channel of the peer's, whose task this is. Raises: asyncssh.ChannelOpenError."""
        task = asyncio.current_task()
        assert task is not None
        self._connecting.add(task)
        try:
            return await self._connection.forward_connection(host, port)
        finally:
            self._connecting.discard(task)

    async def stop_connecting(self) -> None:
        """To targets that do not answer: asyncssh leaves that to the kernel, which goes on for two minutes."""
        if waiting := set(self._connecting):
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)


class _Client(_Side, asyncssh.SSHClient):
    """The side that has begun the link."""


class _Server(_Side, asyncssh.SSHServer):
    """The other one."""

    def begin_auth(self, username: str) -> bool:
        """The link has seen to that."""
        return False

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        """Where to, if that is allowed."""
        return self.allows(dest_host, dest_port) and self.connect(dest_host, dest_port)

    async def server_requested(self, listen_host: str, listen_port: int) -> Any:
        """The peer, SSH's client, asks for a port on this host: for one that this side has asked it to ask for."""
        asked_for = (listen_host, listen_port)  # asyncssh has made that host lower case
        wanted = next((each for each in self.forwards if _lower(*each.listen) == asked_for), None)
        return False if wanted is None else await self.listen(wanted)

    def unix_server_requested(self, listen_path: str) -> bool:
        """The peer, SSH's client, has asked for all ports, and knows of those that are open."""
        if listen_path == _ALL_OPEN and self.are_open:
            self.listening.set()
        return False


async def _agreed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, side: _Side) -> tuple[Forward, ...]:
    """What the peer wants to listen for, where each side allows what the other asks for. Raises: ForwardError."""
    wants = [{"listen": each.listen, "to": each.to} for each in side.forwards]
    theirs = await _told(reader, writer, {"simopen forward": _VERSION, "forwards": wants}, _read_forwards)
    refused = [each.to for each in theirs if not side.allows(*each.to)]
    refuses = await _told(reader, writer, {"refused": refused}, _read_refusals)
    if refuses:
        raise ForwardError(f"the peer does not allow connections to {_listed(refuses)}: it has to be told to")
    if refused:
        raise ForwardError(f"the peer wants connections to {_listed(refused)}, which were not allowed here")
    return theirs


def _listed(targets: Iterable[tuple[str, int]]) -> str:
    return ", ".join(dict.fromkeys(quoted(_named(*each)) for each in targets))


async def _told(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, says: dict[str, Any], read: Callable[[Any], T]
) -> T:
    """Say that in a line, and read the peer's."""
    writer.write(json.dumps(says).encode() + b"\n")
    await writer.drain()
    try:
        async with asyncio.timeout(_ANSWER_S):
            line = await reader.readuntil(b"\n")
        return read(json.loads(line))
    except TimeoutError as error:
        if error.errno is not None:
            raise
        raise ForwardError(
            f"the peer has not said within {_ANSWER_S:g} s what it wants: does it forward, too?"
        ) from None
    except asyncio.IncompleteReadError:
        raise ForwardError("the peer has ended the stream: it forwards nothing, or ended on its side's error") from None
    except (ValueError, TypeError, LookupError, RecursionError, asyncio.LimitOverrunError):
        raise ForwardError("the peer speaks something else: does it forward, too, with this version?") from None


def _read_forwards(said: Any) -> tuple[Forward, ...]:
    if said["simopen forward"] != _VERSION or len(said["forwards"]) > MOST_FORWARDS:
        raise ValueError
    return tuple(Forward(_read_endpoint(each["listen"]), _read_endpoint(each["to"])) for each in said["forwards"])


def _read_refusals(said: Any) -> list[tuple[str, int]]:
    return [_read_endpoint(each) for each in said["refused"][:MOST_FORWARDS]]


def _read_endpoint(said: Any) -> tuple[str, int]:
    host, port = said
    if not isinstance(host, str) or not 0 < len(host) <= _LONGEST_NAME:
        raise ValueError
    return host, check_port(port, "the peer's port")


async def _speaking(sock: socket.socket, side: _Client | _Server) -> Connection:
    options: dict[str, Any] = {
        "config": None,
        "encryption_algs": _CIPHERS,
        "compression_algs": None,
        "keepalive_interval": _KEPT_ALIVE_S,
    }
    if isinstance(side, _Server):
        keys = [asyncssh.generate_private_key("ssh-ed25519")]
        return await asyncssh.run_server(sock, server_factory=lambda: side, server_host_keys=keys, **options)
    nobody: dict[str, Any] = {"known_hosts": None, "client_keys": None, "agent_path": None, "username": "simopen"}
    return await asyncssh.run_client(sock, client_factory=lambda: side, **nobody, **options)


async def _carry(
    connection: Connection,
    side: _Side,
    theirs: Sequence[Forward],
    ready: Callable[[Sequence[Forward]], object] | None,
) -> None:
    """`theirs`: what is opened on the peer's host by this side, SSH's client; its own it opens before."""
    try:
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
    finally:
        connection.close()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await connection.wait_closed()
        except TimeoutError:
            connection.abort()
        await side.stop_connecting()
    if side.broke is not None:
        why = f"the stream that carries the connections broke: {reason(side.broke)}"
        raise ForwardError(why, is_broken=True) from side.broke


async def _asked(connection: asyncssh.SSHClientConnection, side: _Side, theirs: Sequence[Forward]) -> None:
    """Have the peer open its ports, and tell it that this side knows that they are."""
    for each in theirs:
        with contextlib.suppress(asyncssh.ChannelListenError):  # the peer knows why, and ends this
            await connection.create_server(partial(_connecting, side, each), *each.listen)
    with contextlib.suppress(asyncssh.ChannelListenError):
        await connection.forward_remote_path(_ALL_OPEN, _ALL_OPEN)


def _connecting(side: _Side, wanted: Forward, _host: str, _port: int) -> Any:
    """To where connections of that port go, whoever they are from."""
    return side.connect(*wanted.to)


@contextlib.contextmanager
def _breaking() -> Iterator[None]:
    try:
        yield
    except ForwardError:
        raise
    except (OSError, asyncssh.Error) as error:
        why = f"the stream broke before anything could be carried: {reason(error)}"
        raise ForwardError(why, is_broken=True) from error
