"""A server of this host, or near it, behind one punched stream: its connections may end, and the stream goes on.

Theory of operation: servers end connections that are idle, some after each answer; a punched one is too precious for
that. So h11 reads both sides, and knows where a request and its answer end. One connection to the server at a time is
kept for as long as the server keeps it, and another is made for the next request. An answer that has no length, and
ends with its connection, goes on in chunks. After an answer of 101 (a WebSocket's, say) bytes pass as they are.

A server that cannot be reached, or does not answer, is an answer to the peer, 502, and a line in this side's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import h11

from simopen.apps.http.pieces import Pieces
from simopen.apps.http.streams import CHUNK, IDEMPOTENT, Streams, copy, end, linger
from simopen.net.os_errors import reason
from simopen.net.streams import abort, close, cut, require_open

Connect: TypeAlias = Callable[[], Awaitable[Streams]]
Fields: TypeAlias = list[tuple[bytes, bytes]]

_MOST_HEAD = 100 * 1024  # as httpcore's: servers refuse much less
_OF_ONE_CONNECTION = frozenset({b"connection", b"keep-alive", b"proxy-connection"})
_OF_THE_MESSAGE = frozenset({b"content-length", b"transfer-encoding", b"host"})
_NOBODY_THERE = b"the server behind this peer is not there\n"
_NO_ANSWER = b"the server behind this peer has not answered\n"
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
logger = logging.getLogger(__name__)


class _Failed(Exception):  # noqa: N818 - says what happened
    """The server cannot be reached, has not answered, or its answer makes no sense. `told` is what the peer learns."""

    def __init__(self, why: str, told: bytes = _NO_ANSWER) -> None:
        super().__init__(why)
        self.told = told


async def carry(connect: Connect, reader: StreamReader, writer: StreamWriter) -> None:
    """Have the peer's requests answered until it has ended the stream. Raises: OSError where that breaks."""
    gateway = _Gateway(connect, _Side(h11.SERVER, reader, writer))
    try:
        while await gateway.answer():
            pass
    except h11.RemoteProtocolError as error:
        logger.debug("the peer asks what makes no sense: %s", error)
        if not gateway.begun:
            require_open(writer)
            writer.write(_BAD_REQUEST)
    finally:
        if gateway.begun:
            cut(writer)  # half an answer shall not look like one that has ended
        await gateway.leave()
    await linger(reader, writer)


class _Side:
    """One side's connection: events instead of bytes."""

    def __init__(self, role: Any, reader: StreamReader | Pieces, writer: StreamWriter) -> None:
        self.state = h11.Connection(role, max_incomplete_event_size=_MOST_HEAD)
        self.reader, self.writer = reader, writer

    async def event(self) -> Any:
        """The next one. Raises: OSError, h11.RemoteProtocolError."""
        while (event := self.state.next_event()) is h11.NEED_DATA:
            data = await self.reader.read(CHUNK)
            if not data and self.state.their_state is h11.SEND_RESPONSE and not self.state.trailing_data[0]:
                raise ConnectionResetError("the server has closed the connection without an answer")
            self.state.receive_data(data)
        return event

    async def send(self, event: Any) -> None:
        """Raises: OSError."""
        require_open(self.writer)
        if data := self.state.send(event):
            self.writer.write(data)
            await self.writer.drain()

    def goes_on(self) -> bool:
        """Make ready for the next request, where there can be one."""
        if not (self.state.our_state is self.state.their_state is h11.DONE):
            return False
        self.state.start_next_cycle()
        return True

    def has_said_more(self) -> bool:
        """Whether something came from the server that nobody has asked for, or the end."""
        assert isinstance(self.reader, Pieces)
        return bool(self.state.trailing_data[0]) or self.reader.has_come

    @property
    def is_switched(self) -> bool:
        return self.state.their_state is h11.SWITCHED_PROTOCOL


class _Gateway:
    """The peer, and the connection to the server that there is at the time."""

    def __init__(self, connect: Connect, peer: _Side) -> None:
        self._connect, self._peer = connect, peer
        self._server: _Side | None = None
        self.begun = False
        """Whether the peer has a part of an answer, and not all of it."""
        self._had_body = False
        self._is_held_back = False
        """Whether the peer has a whole answer, and had not been told to go on with its request's body."""

    async def answer(self) -> bool:
        """One request. Whether there may be another. Raises: OSError, h11.RemoteProtocolError: the peer's stream."""
        request = await self._peer.event()
        self._is_held_back = False
        if not isinstance(request, h11.Request):
            return False
        try:
            await self._ask_again_or_not(request)
        except _Failed as failed:
            await self.leave()
            if self.begun:
                raise ConnectionResetError(f"the server's answer broke off: {failed}") from failed
            logger.warning("a request was not answered: %s", failed)
            await self._apologize(request, failed.told)
        self.begun = False
        if self._server is not None and self._server.is_switched:
            await self._pass_on(self._server)
            return False
        if self._is_held_back:  # whether the body comes nobody knows now
            return False
        while self._peer.state.their_state is h11.SEND_BODY:  # answered before it was whole
            await self._peer.event()
        if self._server is not None and not self._server.goes_on():
            await self.leave()
        return self._peer.goes_on()

    async def _ask_again_or_not(self, request: h11.Request) -> None:
        """Once more where a connection that was kept has ended meanwhile, and the request may be repeated."""
        if self._server is not None and self._server.has_said_more():
            await self.leave()
        kept = self._server is not None
        try:
            await self._ask(request)
        except _Failed:
            whole = self._peer.state.their_state is not h11.SEND_BODY
            if self.begun or not (kept and whole and request.method.decode() in IDEMPOTENT and not self._had_body):
                raise
            await self.leave()
            await self._ask(request)

    async def _ask(self, request: h11.Request) -> None:
        """Raises: _Failed."""
        if self._server is None:
            try:
                reader, writer = await self._connect()
                # What came before the connection broke counts: an answer to a request that was not read to its end.
                self._server = _Side(h11.CLIENT, Pieces(reader, writer), writer)
            except OSError as error:
                raise _Failed(reason(error), _NOBODY_THERE) from error
        sending = asyncio.ensure_future(self._send(self._server, request))
        try:
            await self._receive(self._server)
        except _Failed:
            if sending.done() and not sending.cancelled() and (fault := sending.exception()):
                raise fault from None  # the peer's: it is what has ended the server's connection
            raise
        finally:
            sending.cancel()
            await asyncio.wait({sending})
            if not sending.cancelled():
                sending.exception()

    async def _send(self, server: _Side, request: h11.Request) -> None:
        """The request; and then watch for the end of who asks. Raises: as the peer's stream."""
        self._had_body = False
        try:
            try:
                with _of_server():
                    await server.send(_for_the_server(request))
                while self._peer.state.their_state is h11.SEND_BODY:
                    event = await self._peer.event()
                    self._had_body = self._had_body or isinstance(event, h11.Data)
                    with _of_server():
                        await server.send(event)
                if server.state.our_state is h11.SEND_BODY:  # asked for the second time
                    with _of_server():
                        await server.send(h11.EndOfMessage())
            except _Failed as failed:  # who receives from it is told
                if isinstance(failed.__cause__, h11.LocalProtocolError):  # it was not said, and nothing is to come
                    abort(server.writer)
            await self._watch(server)
        except (OSError, h11.ProtocolError):
            abort(server.writer)
            raise

    async def _watch(self, server: _Side) -> None:
        """Tell the server where the peer ends; what comes before that waits for its turn."""
        while len(self._peer.state.trailing_data[0]) < CHUNK:
            data = await self._peer.reader.read(CHUNK)
            self._peer.state.receive_data(data)
            if not data:
                # What was said for the protocol that the two may be about to change to goes before the end.
                may_change = self._peer.state.their_state not in (h11.DONE, h11.MUST_CLOSE)
                if not (may_change and self._peer.state.trailing_data[0]):
                    with contextlib.suppress(OSError):  # who receives from it is told
                        end(server.writer)
                return

    async def _receive(self, server: _Side) -> None:
        """Raises: _Failed."""
        while not server.is_switched:
            with _of_server():
                event = await server.event()
            if isinstance(event, h11.InformationalResponse):
                await self._inform(event)
            elif isinstance(event, h11.Response):
                self.begun = True
                await self._respond(event.status_code, event.reason, _kept(event))
            elif isinstance(event, h11.EndOfMessage) and self._peer.state.their_http_version == b"1.0":
                await self._peer.send(h11.EndOfMessage())  # it has no word for trailers
            else:
                await self._peer.send(event)
            if isinstance(event, h11.EndOfMessage):
                return

    async def _inform(self, event: h11.InformationalResponse) -> None:
        if self._peer.state.their_http_version != b"1.0":  # RFC 9110 §15.2: it would not know what that is
            same = h11.InformationalResponse(
                status_code=event.status_code, reason=event.reason, headers=event.headers.raw_items()
            )
            await self._peer.send(same)

    async def _respond(self, status: int, reason: bytes, headers: Fields) -> None:
        self._is_held_back = self._peer.state.they_are_waiting_for_100_continue
        if self._is_held_back:
            headers = [*headers, (b"connection", b"close")]
        await self._peer.send(h11.Response(status_code=status, reason=reason, headers=headers))

    async def _apologize(self, request: h11.Request, words: bytes) -> None:
        state = self._peer.state
        while state.their_state is h11.SEND_BODY and not state.they_are_waiting_for_100_continue:
            await self._peer.event()
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(words))]
        await self._respond(502, b"Bad Gateway", headers)
        if request.method != b"HEAD":
            await self._peer.send(h11.Data(data=words))
        await self._peer.send(h11.EndOfMessage())

    async def _pass_on(self, server: _Side) -> None:
        """Both ways, as it comes. Where one side breaks, so does the other: there, that shall not look like an end."""
        ways = (self._peer, server), (server, self._peer)
        try:
            async with asyncio.TaskGroup() as group:
                for one, other in ways:
                    group.create_task(_pass_on(one, other.writer))
        except* OSError as broken:
            logger.debug("what the two had changed to broke: %s", broken.exceptions[0])
            for one, _ in ways:
                cut(one.writer)

    async def leave(self) -> None:
        """Close the server's connection."""
        server, self._server = self._server, None
        if server is not None:
            await close(server.writer)


async def _pass_on(one: _Side, writer: StreamWriter) -> None:
    """What this side has said after its head, and says. Raises: OSError."""
    if early := one.state.trailing_data[0]:
        require_open(writer)
        writer.write(early)
    await copy(one.reader, writer)


@contextlib.contextmanager
def _of_server() -> Iterator[None]:
    try:
        yield
    except (OSError, h11.ProtocolError) as error:
        raise _Failed(reason(error)) from error


def _for_the_server(request: h11.Request) -> h11.Request:
    """As HTTP/1.1, whatever the peer speaks, without what holds for the peer's stream alone, but for an upgrade."""
    is_upgrade = b"upgrade" in _options(request)
    headers = list(request.headers.raw_items()) if is_upgrade else _kept(request)
    names = {name.lower() for name, _ in headers}
    if b"host" not in names:  # HTTP/1.0 may leave it out; RFC 9112 §3.2
        headers.append((b"host", b""))
    if b"transfer-encoding" in names:  # RFC 9112 §6.3: it counts, and the other would mislead
        headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    return h11.Request(method=request.method, target=request.target, headers=headers)


def _kept(message: h11.Request | h11.Response) -> Fields:
    """The headers that are passed on: not what one connection says of itself (RFC 9110 §7.6.1)."""
    dropped = _OF_ONE_CONNECTION | _options(message)
    return [(name, value) for name, value in message.headers.raw_items() if name.lower() not in dropped]


def _options(message: h11.Request | h11.Response) -> set[bytes]:
    """What `Connection` names, but for what is the message's own, whatever is said of it."""
    named = [value for name, value in message.headers if name == b"connection"]
    return {each.strip().lower() for value in named for each in value.split(b",")} - _OF_THE_MESSAGE
