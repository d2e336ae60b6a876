"""A TCP connection of this host and the SSH channel that carries it: each of the two writes what the other reads.

Theory of operation: asyncssh's forwarders do it, but for what is lost at the beginning and at the end. What a
connection says before it has a channel waits (uvloop reads before who connected hears that it has). A channel whose
connection has ended is closed once all of that is sent, and the end as well: asyncssh would leave the end out; and it
forgets an end that has come where the channel's close has come, too, before all was read. Whoever hears of the second
end closes both. And a connection is reset, and not ended, where the other side's end has not come.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, cast

import asyncssh
from asyncssh.constants import MSG_CHANNEL_EOF

from simopen.net import sockets


class Channel(asyncssh.SSHTCPChannel[bytes]):
    """asyncssh's, that knows whether the other side's end has come, however much is unread."""

    end_has_come = False

    def process_packet(self, pkttype: int, pktid: int, packet: Any) -> Any:
        """As asyncssh's."""
        self.end_has_come = self.end_has_come or pkttype == MSG_CHANNEL_EOF
        return super().process_packet(pkttype, pktid, packet)

    def process_connection_close(self, exc: Exception | None) -> None:
        """As asyncssh's: what is unread is lost, and the end with it."""
        self.end_has_come = False
        super().process_connection_close(exc)


def noting(create: Callable[..., Any]) -> Callable[..., Channel]:
    """`create_tcp_channel` of an SSH connection, which has no word for the class of what it makes."""

    def created(*sizes: Any, **options: Any) -> Channel:
        channel = create(*sizes, **options)
        channel.__class__ = Channel
        return cast(Channel, channel)

    return created


class ChannelEnd(asyncssh.SSHForwarder):
    """The channel's. `end`: the connection's."""

    def __init__(self, end: End) -> None:
        super().__init__(end)
        self._end = end
        self._channel: Channel | None = None
        self._has_ended = self._is_closing = False

    def connection_made(self, transport: Any) -> None:
        """As asyncio's; `transport` is the channel, and open."""
        super().connection_made(transport)
        self._channel = transport
        self._end.begin(self)

    def write_eof(self) -> None:
        """As asyncssh's."""
        self._has_ended = True
        super().write_eof()

    def close(self) -> None:
        """As asyncssh's, once what was written is sent, where that has its end."""
        channel: Any = self._transport
        if channel is None or not self._has_ended or not channel.get_write_buffer_size():
            super().close()
        elif not self._is_closing:
            self._is_closing, self._peer = True, None  # which is gone, and may have had the channel pause
            channel.resume_reading()
            channel.set_write_buffer_limits(0)  # so that `resume_writing` comes when it is

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """As asyncio's."""
        if not self._is_closing:
            super().data_received(data, datatype)

    def resume_writing(self) -> None:
        """As asyncio's."""
        super().resume_writing()
        if self._is_closing:
            asyncio.get_running_loop().call_soon(super().close)  # the channel's end is sent right after this

    def eof_received(self) -> bool:
        """As asyncio's."""
        goes_on = super().eof_received()
        if not goes_on:
            self._end.close()  # and this with it
        return goes_on

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio's: there is no channel any more."""
        if self._channel is not None and self._channel.end_has_come and not self.was_eof_received():
            self.eof_received()
        self._has_ended = False
        super().connection_lost(exc)


class End(asyncssh.SSHForwarder, asyncio.BufferedProtocol):
    """The connection's, read in pieces of a packet each. `room`: where all are read to, one at a time.

    Until the other side has ended its direction, whatever closes this resets it: half of a file shall not look whole.
    """

    def __init__(self, room: bytearray) -> None:
        super().__init__()
        self._room = room
        self._is_ended = self._begun = self._lost = False
        self._early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio's."""
        super().connection_made(transport)
        self._connection: Any = transport  # asyncssh forgets it as it is closed, and before all has left
        self._when_closed(sockets.drop)

    def begin(self, channel: ChannelEnd) -> None:
        """There is a channel, with this at its end here."""
        self._begun = True
        if self._early:
            channel.write(bytes(self._early))
            self._early.clear()
            if not self._lost:
                self.resume_reading()
        if self.was_eof_received():
            channel.write_eof()
        if self._lost:
            channel.close()

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """As asyncio's."""
        if self._begun:
            super().data_received(data, datatype)
        else:
            self._early += data
            if len(self._early) >= len(self._room):  # until then it is read, so that a reset is noticed
                self.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio's."""
        self._lost = True
        super().connection_lost(exc)

    def write_eof(self) -> None:
        """As asyncssh's. Where something is unsent, this program may end before that and the end are."""
        self._is_ended = True
        super().write_eof()
        if self._transport is None or not self._transport.get_write_buffer_size():
            self._when_closed(sockets.keep)
        else:
            self._transport.set_write_buffer_limits(0)  # so that `resume_writing` comes when it is

    def resume_writing(self) -> None:
        """As asyncio's."""
        if self._is_ended:
            self._when_closed(sockets.keep)
        super().resume_writing()

    def close(self) -> None:
        """As asyncssh's."""
        if self._transport is not None and not self._is_ended:
            self._transport.abort()
        super().close()

    def _when_closed(self, arrange: Callable[[socket.socket], None]) -> None:
        with contextlib.suppress(OSError):  # it is gone already
            arrange(self._connection.get_extra_info("socket"))

    def get_buffer(self, sizehint: int) -> bytearray:
        """As asyncio's."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """As asyncio's."""
        self.data_received(bytes(memoryview(self._room)[:nbytes]))
