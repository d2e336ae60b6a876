"""What nats-py speaks to a node over WebSocket, with `websockets`, which is here anyway.

Theory of operation. nats-py has a transport of its own for this, with aiohttp: it takes the time limit for connecting
for that of closing, and where a node names the others of its cluster, nats-py goes to them without WebSocket. Here each
connection is a WebSocket, of the first one's kind, and has its time limit.

Needs the extra `nats`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Literal
from urllib.parse import ParseResult

from nats.aio.transport import Transport
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from simopen import _logs
from simopen.signalling.websocket import OpenWebSocket

_MOST = 2**22
"""Bytes of one WebSocket message. A node puts as many of its own messages into one as have gathered."""
_CLOSE_S = 2.0
_QUIET = _logs.logger("signalling.websocket")


class WebSocket(Transport):
    """One connection after the other, as nats-py asks for it. `proxied`: through the environment's proxy, if any."""

    def __init__(self, *, proxied: bool) -> None:
        self._proxy: Literal[True] | None = True if proxied else None
        self._kind: tuple[str, ssl.SSLContext | None] | None = None
        self._connection: ClientConnection | None = None
        self._to_send: deque[bytes] = deque()
        self._came = b""
        self._closing: asyncio.Task[None] | None = None

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: float) -> None:
        """Open it. A node that another one has named is spoken to as that one is."""
        scheme, tls = self._kind or ("ws", None)
        await self._open(uri, scheme, tls, connect_timeout)

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: float
    ) -> None:
        """Open it with TLS. Nothing is to be done where it is, and a node says that TLS is needed."""
        if isinstance(uri, ParseResult):
            await self._open(uri, "wss", ssl_context, connect_timeout)

    async def _open(self, uri: ParseResult, scheme: str, tls: ssl.SSLContext | None, limit_s: float) -> None:
        self._kind = scheme, tls
        self._to_send.clear()
        self._came, self._connection = b"", None
        host = uri.netloc.rpartition("@")[2]  # the login is for NATS, and not for the proxy or web server before it
        try:
            async with asyncio.timeout(limit_s):
                self._connection = await OpenWebSocket(
                    f"{scheme}://{host}{uri.path}",
                    ssl=tls,
                    compression=None,
                    open_timeout=None,
                    close_timeout=_CLOSE_S,
                    ping_interval=None,  # NATS has its own
                    max_size=_MOST,
                    proxy=self._proxy,
                    logger=_QUIET,
                )
        except (
            WebSocketException,
            AssertionError,
        ) as error:  # the latter now and then, where the other one speaks first
            raise ConnectionError(f"no WebSocket of NATS is there ({str(error) or 'it spoke first'})") from error

    def write(self, payload: bytes) -> None:
        """Keep it for `drain`."""
        self._to_send.append(bytes(payload))

    def writelines(self, payload: list[bytes]) -> None:
        """Keep them for `drain`."""
        self._to_send.extend(map(bytes, payload))

    async def drain(self) -> None:
        """Send what was kept."""
        data = b"".join(self._to_send)
        self._to_send.clear()
        if data and self._connection is not None:
            try:
                await self._connection.send(data)
            except ConnectionClosed as error:
                raise ConnectionError(str(error)) from error

    async def read(self, buffer_size: int) -> bytes:
        """What came; nothing at the end."""
        if not self._came:
            await self._receive()
        came, self._came = self._came, b""
        return came

    async def readline(self) -> bytes:
        """Up to the end of a line, or all there is at the end."""
        while b"\n" not in self._came and await self._receive():
            pass
        line, end, self._came = self._came.partition(b"\n")
        return line + end

    async def _receive(self) -> bool:
        if self._connection is None:
            return False
        try:
            data = await self._connection.recv(decode=False)
        except ConnectionClosed:
            return False
        self._came += data
        if len(self._came) > _MOST:
            raise ConnectionError("more came than a line can have")
        return True

    def close(self) -> None:
        """Begin to close it."""
        if self._connection is not None:
            self._closing = asyncio.create_task(self._connection.close())
            self._connection = None

    async def wait_closed(self) -> None:
        """Until it is closed."""
        if self._closing is not None:
            await asyncio.wait({self._closing})

    def at_eof(self) -> bool:
        """Whether nothing will come any more."""
        return self._connection is None or (not self._came and self._connection.close_code is not None)

    def __bool__(self) -> bool:
        return True  # what nats-py would put in place of another
