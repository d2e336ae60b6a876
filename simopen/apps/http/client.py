"""What httpx sends its requests through: one punched stream, kept alive, and met for again where it has broken.

Theory of operation: `httpcore2.AsyncHTTP11Connection` speaks HTTP/1.1 over a stream. This adds whose turn it is, and
what becomes of the stream:

- There is one connection, which never expires. Requests take turns, in the order of their coming: httpx's limits and
  its time-outs for a pool and for connecting have no say, as there is no pool, and a meeting has a window of its own.
  Only a task that holds a response, and so waits for itself, does so for the pool's time-out.
- A response that is closed before its end is read on, up to a limit, so that the stream can be kept.
- Where the stream has broken, whoever comes next meets again. A request that had been sent by then is sent again only
  if doing it twice is as good as once (RFC 9110 §9.2.2), nothing of the answer has come, and its body is still there.

httpx2 and httpx are used alike: what a request's class is from, its response's and errors' classes are from, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, TypeAlias

import h11
import httpcore2
import httpx2

from simopen.apps.http.network_stream import DRAINED_S, FAILURES, UNASKED, NetworkStream, words
from simopen.apps.http.streams import IDEMPOTENT, Streams
from simopen.errors import SimopenError
from simopen.net.streams import close

Meet: TypeAlias = Callable[[], Awaitable[Streams]]

MOST_DRAINED = 2**20
"""Bytes of a body that nobody wants, which are read so that the stream can be kept."""
_TRIES = 3
_CLOSED = "this transport is closed"
_ORIGIN = httpcore2.URL(scheme=b"http", host=b"peer", port=80, target=b"/").origin


class Transport(httpx2.AsyncBaseTransport):
    """Requests over one connection: `httpx2.AsyncClient(transport=Transport(meet))`.

    Whatever host a URL names, the request goes to the peer, which sees the name in the header `Host`. The scheme is
    `http`: a stream with a key is encrypted already.

    Args:
        meet: opens a stream to the peer, as `functools.partial(simopen.connect, …)` does. Called with the first
            request, and again where the stream has broken.
        most_drained: how much of a body that nobody wants is read so that the stream can be kept, in bytes. Where more
            is left the stream is closed, and the next request meets again.
    """

    def __init__(self, meet: Meet, *, most_drained: int = MOST_DRAINED) -> None:
        self.connections = 0
        """How many streams there have been."""
        self._meet = meet
        self._most_drained = most_drained
        self._turn = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None
        self._connection: httpcore2.AsyncHTTP11Connection | None = None
        self._stream: NetworkStream | None = None
        self._ending: set[asyncio.Task[None]] = set()  # streams that are being seen off
        self._closed = False

    @classmethod
    def over(cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, **options: Any) -> Transport:
        """A transport over a stream that is up, and over no other: once it has broken, requests fail.

        `options`: those of `Transport`. The stream is closed with the transport.
        """
        return cls(_Once(reader, writer), **options)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Called by httpx."""
        library = _library_of(request)
        with _raising(library, request):
            if request.url.scheme != "http":
                raise httpcore2.UnsupportedProtocol(
                    f"{request.url.scheme}:// is not spoken over a punched stream: use http://, and a key or a ticket"
                )
            await self._take_turn(request)
            try:
                answer = await self._ask(request, library)
            except BaseException:
                self._end_turn()
                raise
        body = _body_class(library)(answer.stream, self, functools.partial(_raising, library, request))
        response: httpx2.Response = library.Response(
            status_code=answer.status, headers=answer.headers, stream=body, extensions=answer.extensions
        )
        return response

    async def _take_turn(self, request: httpx2.Request) -> None:
        """Raises: httpcore2.PoolTimeout where this very task has the turn, or one that has ended, and keeps it."""
        limit_s = request.extensions.get("timeout", {}).get("pool") if self._kept_by() else None
        try:
            async with asyncio.timeout(limit_s):
                await self._turn.acquire()
        except TimeoutError:
            if whose := self._kept_by():
                raise httpcore2.PoolTimeout(
                    f"{whose} holds a response that it has not closed, and the next request waits for that: "
                    "read it to its end, or close it, first"
                ) from None
            await self._turn.acquire()  # another task has begun to read it since
        self._hold()

    def _kept_by(self) -> str:
        """Who has the turn and will not end it while this task waits for it; empty where nobody has, or may."""
        if self._holder is None:
            return ""
        if self._holder is asyncio.current_task():
            return "this task"
        return "a task that has ended" if self._holder.done() else ""

    def _hold(self) -> None:
        """The turn is this task's: it has asked, or reads the answer."""
        self._holder = asyncio.current_task()

    def _end_turn(self) -> None:
        self._holder = None
        self._turn.release()

    async def _ask(self, request: httpx2.Request, library: Any) -> httpcore2.Response:
        url = httpcore2.URL(scheme=b"http", host=b"peer", port=80, target=request.url.raw_path)
        asked = httpcore2.Request(
            request.method,
            url,
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        _require_fit(asked)
        repeatable = request.method in IDEMPOTENT and isinstance(request.stream, library.ByteStream)
        for tried in range(1, _TRIES + 1):
            connection, stream = await self._connected()
            try:
                return await self._answered(connection, stream, asked)
            except (httpcore2.NetworkError, httpcore2.RemoteProtocolError) as error:
                stream.note(str(error))
                if not stream.broken or stream.answered or isinstance(self._meet, _Once):
                    raise
                if not repeatable:
                    raise type(error)(
                        f"{error} (the {request.method} was sent, and is not sent again: the peer "
                        "may have carried it out)"
                    ) from error
                if tried == _TRIES:
                    raise
            except Exception as error:
                if connection.is_closed():
                    stream.note(f"a request failed while it was sent: {words(error)}")
                raise
        raise AssertionError("unreachable")

    async def _answered(
        self, connection: httpcore2.AsyncHTTP11Connection, stream: NetworkStream, asked: httpcore2.Request
    ) -> httpcore2.Response:
        """The answer, of which something came after the request: what came with the last one is none."""
        answer = await connection.handle_async_request(asked)
        if not stream.answered:
            stream.broken = True
            await connection.aclose()
            raise httpcore2.RemoteProtocolError(UNASKED)
        return answer

    async def _connected(self) -> tuple[httpcore2.AsyncHTTP11Connection, NetworkStream]:
        """The connection, met for where there is none that is fit for a request."""
        if self._closed:
            raise httpcore2.ConnectError(_CLOSED)
        if self._connection is not None and not self._connection.is_closed() and self._connection.has_expired():
            if self._stream is not None:
                await self._stream.look()
            await self._connection.aclose()
        if self._connection is None or self._connection.is_closed() or self._stream is None:
            self._connection = None
            if isinstance(self._meet, _Once) and self._stream is not None:
                self._meet.ended_by = self._stream.why
            try:
                reader, writer = await self._meet()
            except (SimopenError, OSError) as error:
                raise httpcore2.ConnectError(words(error)) from error
            if self._closed:  # while they met
                await close(writer)
                raise httpcore2.ConnectError(_CLOSED)
            self.connections += 1
            self._stream = NetworkStream(reader, writer, self._ending)
            self._connection = _Connection(_ORIGIN, self._stream, keepalive_expiry=None)
        self._stream.answered = False
        return self._connection, self._stream

    async def _finish(self, body: Any, rest: AsyncIterator[bytes] | None) -> None:
        """A response is over: read what is left, if that is not too much, and let the next request have its turn."""
        try:
            if rest is not None and self._connection is not None and not self._connection.is_closed():
                await self._drain(rest)
            await body.aclose()
        except RuntimeError:  # another task is reading it, which only the stream's end can tell that it is over
            if self._connection is None or self._connection.is_closed():
                raise
            self._note("a response was closed while another task read it, and so the stream was closed with it")
            await self._connection.aclose()
        finally:
            self._end_turn()

    async def _drain(self, rest: AsyncIterator[bytes]) -> None:
        left = self._most_drained
        with contextlib.suppress(TimeoutError, *FAILURES):
            async with asyncio.timeout(DRAINED_S):
                async for piece in rest:
                    left -= len(piece)
                    if left < 0:
                        break
                else:
                    return
        self._note(
            f"a response was closed before its end, {self._most_drained:,} bytes and {DRAINED_S:g} s more did not "
            "reach that, and so the stream was closed with it: read responses to their end, or give `most_drained`"
        )

    def _note(self, why: str) -> None:
        """Why there is no stream any more, for whoever asks next where no other is met for."""
        if self._stream is not None:
            self._stream.why = why

    async def aclose(self) -> None:
        """Close the stream; requests that are under way fail."""
        self._closed = True
        if self._connection is not None:
            await self._connection.aclose()
        if isinstance(self._meet, _Once) and (unused := self._meet.streams) is not None:
            self._stream = NetworkStream(*unused, self._ending)
        if self._stream is not None:
            await self._stream.aclose()
        if self._ending:
            await asyncio.wait(self._ending)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()


class _Connection(httpcore2.AsyncHTTP11Connection):
    """With pieces of a body of up to 256 KiB for 64: fewer of them, each of which costs the same."""

    READ_NUM_BYTES = 2**18


class _Once:
    """The meeting of who has met already."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.streams: Streams | None = (reader, writer)
        self.ended_by = ""

    async def __call__(self) -> Streams:
        streams, self.streams = self.streams, None
        if streams is None:
            said = ("the stream has ended, and this transport has no other", self.ended_by)
            raise ConnectionResetError(": ".join(filter(None, said)))
        return streams


def _require_fit(asked: httpcore2.Request) -> None:
    """Raises: httpcore2.LocalProtocolError for what is no request: found out while it is sent, it costs the stream."""
    try:
        h11.Request(method=asked.method, target=asked.url.target, headers=asked.headers)
    except h11.LocalProtocolError as error:
        raise httpcore2.LocalProtocolError(str(error)) from error


# --- httpx2 and httpx alike


def _library_of(request: object) -> Any:
    """What this request's class is from, or what that is derived from: httpx2, or httpx."""
    of = (each.__module__.partition(".")[0] for each in type(request).__mro__)
    return sys.modules[next((name for name in of if name in ("httpx2", "httpx")), "httpx2")]


@contextlib.contextmanager
def _raising(library: Any, request: httpx2.Request) -> Iterator[None]:
    """Raise httpcore's errors as the library's own, which have the same names."""
    try:
        yield
    except FAILURES as error:
        names = (each.__name__ for each in type(error).__mro__)
        kind = next(getattr(library, name) for name in names if hasattr(library, name))
        raise kind(str(error), request=request) from error


@functools.cache
def _body_class(library: Any) -> Any:
    """The class of a response's body, for the library that asks whether it is of its own."""

    class Body(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, body: Any, transport: Transport, raising: Callable[[], Any]) -> None:
            self._body, self._transport, self._raising = body, transport, raising
            self._pieces: AsyncIterator[bytes] | None = None
            self._over = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            self._transport._hold()
            self._pieces = aiter(self._body)
            with self._raising():
                async for piece in self._pieces:
                    yield piece

        async def aclose(self) -> None:
            if self._over:
                return
            self._over = True
            await self._transport._finish(self._body, self._pieces or aiter(self._body))

    return Body
