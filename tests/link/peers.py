"""Two sides of a link for tests: sessions that fit, TCP on loopback, and both ends brought up."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from simopen.link.channel import Channel, Refused
from simopen.link.contexts import ready
from simopen.link.handshake import Handshake, Link
from simopen.link.nonces import Nonces, new_nonce
from simopen.link.session import Kind, Role, Session
from simopen.link.streams import streams
from simopen.link.transport import ANSWER_S
from simopen.net.sockets import keep
from simopen.net.streams import abort

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Ends = tuple[socket.socket, socket.socket]


def sessions(key: bytes = KEY, of: tuple[bytes, bytes] = (b"one's ticket", b"another's")) -> tuple[Session, Session]:
    """The initiator's and the responder's."""
    both = Session.between(Kind.TICKETS, key, *of), Session.between(Kind.TICKETS, key, *reversed(of))
    return both if both[0].role is Role.INITIATOR else both[::-1]


def bare(key: bytes = KEY) -> tuple[Session, Session]:
    """Of two sides that share a key alone."""
    return Session.bare(key), Session.bare(key)


def connected() -> Ends:
    """The two ends of a TCP stream on loopback, non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    for sock in (one, other):
        sock.setblocking(False)
        keep(sock)
    return one, other


_ready = functools.lru_cache(1000)(ready)  # a context may serve many


def channel(session: Session, nonce: bytes | None = None) -> Channel:
    if session.role is not None:
        return Channel(_ready(session))
    return Channel(None, Nonces(session, nonce or new_nonce()), _begin)


def _begin(channel: Channel, session: Session) -> None:
    channel.begin(_ready(session))


@contextlib.asynccontextmanager
async def handshakes(
    *both: Session, limit_s: float = 60.0, answer_s: float = ANSWER_S
) -> AsyncIterator[list[Handshake]]:
    """One a session; the limit is one that no test meets."""
    made = [Handshake(session, limit_s=limit_s, answer_s=answer_s) for session in both]
    try:
        yield made
    finally:
        for each in made:
            each.end()


async def linked(both: tuple[Session, Session] | None = None, ends: Ends | None = None) -> tuple[Link, Link]:
    """Two links on one socket's two ends; the first is the initiator's where the sessions say so."""
    async with handshakes(*(both or sessions())) as made:
        for handshake, sock in zip(made, ends or connected(), strict=True):
            handshake.offer(sock)
        one, other = await asyncio.gather(*(handshake.link() for handshake in made))
        return one, other


async def stream_pair(both: tuple[Session, Session] | None = None, ends: Ends | None = None) -> tuple[Pair, Pair]:
    one, other = await linked(both, ends)
    return streams(one), streams(other)


@contextlib.asynccontextmanager
async def pair(make: Callable[[], Awaitable[tuple[Pair, Pair]]] = stream_pair) -> AsyncIterator[tuple[Pair, Pair]]:
    """Both ends of a stream, the link's initiator first, until the test's end."""
    both = await make()
    try:
        yield both
    finally:
        for _, writer in both:
            abort(writer)


def carry(one: Channel, other: Channel) -> None:
    """Take what each has to say to the other until both are silent. Raises: what the channels raise."""
    while said := [(to, each.outgoing()) for each, to in ((one, other), (other, one))]:
        if not any(data for _, data in said):
            return
        for to, data in said:
            if data:
                to.receive(data)


def refusal(one: Channel, other: Channel) -> Iterator[Refused]:
    """What each raises, in order, as they talk; what a channel has to say as it refuses is carried, too."""
    while said := [(to, each.outgoing()) for each, to in ((one, other), (other, one))]:
        if not any(data for _, data in said):
            return
        for to, data in said:
            try:
                if data:
                    to.receive(data)
            except Refused as refused:
                yield refused
