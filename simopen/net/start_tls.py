"""Taking a stream that is up to TLS, in either role.

Theory of operation: `asyncio.StreamWriter.start_tls` takes the role from how the stream was made, and one that was made
by a call is always the client. A punched stream has no such sides: which of the two is the server is the programs' to
agree on, and so it is an argument here.

The peer may start first: its ClientHello then waits in the StreamReader, where TLS would never see it, and both sides
would wait for the other. So what nobody has read by then is handed to the TLS protocol, by the calls that transports
make (`asyncio.BufferedProtocol`).
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from simopen.model.report import Report


class Writer(asyncio.StreamWriter):
    """asyncio's own writer, which also hands out the report, and can be either side of a TLS handshake."""

    simopen_report: Report | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio's; `simopen` is the report. (uvloop's transports take no extra info.)"""
        if name == "simopen":
            return self.simopen_report
        return super().get_extra_info(name, default)

    async def start_tls(
        self,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        **options: Any,
    ) -> None:
        """As asyncio's, and `server_side` says which side of the handshake this is: one side's is True.

        What the peer has sent and nobody has read by now is taken for TLS. `options`: what else the running Python's
        own method takes (`ssl_shutdown_timeout`, from 3.12 on).

        Raises:
            TypeError: the context is no `ssl.SSLContext`.
            ValueError: a server with a `server_hostname`, or a context that was made for the other role.
            ssl.SSLError, OSError: the handshake failed.
        """
        _check(sslcontext, server_side, server_hostname)
        await self.drain()  # from here to the call below nothing waits, so nothing arrives
        protocol, reader = self._protocol, self._reader  # type: ignore[attr-defined]
        protocol._client_connected_cb = _never_called if server_side else None  # where asyncio's own looks
        if early := bytes(reader._buffer):
            await reader.readexactly(len(early))
            asyncio.get_running_loop().call_soon(_feed, self.transport, early)
        await super().start_tls(
            sslcontext, server_hostname=server_hostname, ssl_handshake_timeout=ssl_handshake_timeout, **options
        )


def _check(context: object, server_side: bool, server_hostname: str | None) -> None:
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"sslcontext must be an ssl.SSLContext, not {type(context).__name__}")
    wrong = ssl.PROTOCOL_TLS_CLIENT if server_side else ssl.PROTOCOL_TLS_SERVER
    if context.protocol == wrong:
        role = "server" if server_side else "client"
        raise ValueError(f"this context is for the other role than the {role}'s: one side gives server_side=True")
    if server_side and server_hostname is not None:
        raise ValueError("server_hostname goes with the client's side: it is the name that a server must prove")


def _never_called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The stream is connected already."""


def _feed(transport: asyncio.BaseTransport, early: bytes) -> None:
    """Hand over what arrived before TLS began, before anything that arrives after it."""
    protocol: Any = transport.get_protocol()
    while early and hasattr(protocol, "buffer_updated"):  # else the stream was lost meanwhile
        room = memoryview(protocol.get_buffer(len(early)))
        taken = min(len(room), len(early))
        room[:taken] = early[:taken]
        protocol.buffer_updated(taken)
        early = early[taken:]
