"""One WebSocket connection of a mailbox server: frames to messages and back, and how long it may live.

Theory of operation. `websockets` has the protocol without I/O; a transport is all that is added, and so a client that
waits costs no task and no queue. Nothing is compressed (permessage-deflate costs 64 KiB and more a connection). What a
client sends too fast waits in its own socket, but for what was read at once; what it does not read ends the connection,
as all is kept in its room. Each frame counts for more than its bytes, as a ping of 6 costs as much as a message.

A line that has not been heard since it was pinged is dead: half of all vanished peers never say so (a lost network, a
closed lid), and until they are noticed they hold a place in a room.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Protocol, cast

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from simopen.signalling.server_conversation import Conversation, Sending
from simopen.signalling.server_limits import Bucket, Limits

PATH = "/v1"
CLOSING_S = 2.0
"""How long a client has to answer the closing of the connection."""
_AT_ONCE = 4096
"""Bytes that are looked through before it is counted what they held; few enough that as many pings are no matter."""
FRAME_BYTES = 1024
"""What a frame counts for, beside its bytes."""
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
_QUIET = logging.getLogger("simopen.signalling.websocket")
_QUIET.setLevel(logging.CRITICAL)  # two lines a connection, of clients' faults: the server counts them
_HELLO = "This is a rendezvous server of simopen. It speaks magic-wormhole's mailbox protocol, at /v1.\n"


class Owner(Protocol):
    """The server that a line belongs to."""

    limits: Limits

    def spend(self, whose: str, count: int, now: float) -> float:
        """So many bytes are spent by all of that address; returns the seconds until it may spend more."""

    def opened(self, line: Line, host: str | None) -> None:
        """The handshake is done. `host`: whom the client meant to reach, as its request says."""

    def heard(self, line: Line, data: bytes, now: float) -> None:
        """A whole message came."""

    def closing(self, line: Line) -> None:
        """The client has been told that it ends: look at the line once more in `CLOSING_S`."""

    def settle(self) -> None:
        """All that came at once has been heard: write what is to be written."""

    def lost(self, line: Line) -> None:
        """The connection has ended."""


class Line(asyncio.Protocol):
    """One connection, from its first byte on. `whose`: the address whose budgets it uses.

    `conversation` is set once the handshake is done. `counted`: whether the address's budget is still to be given back.
    """

    __slots__ = (
        "_closing",
        "_owner",
        "_pace",
        "_part",
        "_protocol",
        "_rest",
        "_resuming",
        "_transport",
        "conversation",
        "counted",
        "heard_s",
        "made_s",
        "opened_s",
        "pinged_s",
        "whose",
    )

    def __init__(self, owner: Owner, whose: str, now: float) -> None:
        self._owner = owner
        self._protocol = ServerProtocol(max_size=owner.limits.message_bytes, logger=_QUIET)
        self._transport: asyncio.Transport | None = None
        self._pace = Bucket(owner.limits.bytes_at_once, now)
        self._part: bytearray | None = None
        self._rest = b""
        self._resuming: asyncio.TimerHandle | None = None
        self._closing = False
        self.made_s: float | None = None
        self.whose = whose
        self.counted = True
        self.heard_s = now
        self.opened_s: float | None = None
        self.pinged_s: float | None = None
        self.conversation: Conversation | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there; over TLS, its handshake is done."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self.made_s = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Take what came, and answer it, as far as its budget goes."""
        self._rest = self._rest + data if self._rest else data
        self._go_on()

    def _go_on(self) -> None:
        now = self.heard_s = time.monotonic()
        while self._rest and self._resuming is None:
            some, self._rest = self._rest[:_AT_ONCE], self._rest[_AT_ONCE:]
            self._slow_down(len(some) + FRAME_BYTES * self._read(some, now), now)
        self._owner.settle()
        self.flush()

    def _read(self, data: bytes, now: float) -> int:
        """Returns how many frames ended with it."""
        self._protocol.receive_data(data)
        events = self._protocol.events_received()
        for event in events:
            if isinstance(event, Request):
                self._shake_hands(event, now)
            elif isinstance(event, Frame) and event.opcode in _DATA:
                self._take(event, now)
        return len(events)

    def eof_received(self) -> bool:
        """A client that sends no more is gone."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended, whoever ended it."""
        self._transport = None
        self._rest = b""
        if self._resuming is not None:
            self._resuming.cancel()
        self._owner.lost(self)

    def send(self, data: bytes) -> None:
        """One message, to be written with the next `flush`."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_text(data)

    def close(self, code: CloseCode, why: str) -> None:
        """End it, and say why. It is aborted where the client does not answer in time."""
        if self._closing:
            return
        self._closing = True
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, why)
        self.flush()
        self._owner.closing(self)

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def flush(self) -> None:
        """Write what there is. Who does not read what was written before loses the connection."""
        chunks = self._protocol.data_to_send()
        if self._transport is None or not chunks:
            return
        if data := b"".join(chunks):
            self._transport.write(data)
        if not chunks[-1]:  # the protocol's sign for the end
            self._transport.close()
        elif self._transport.get_write_buffer_size() > self._owner.limits.unread_bytes:
            self._transport.abort()

    def look(self, now: float) -> float | None:
        """See whether it lives and has a purpose, and ping it; returns when to look again, None where it is over."""
        limits = self._owner.limits
        if self._transport is None or self.made_s is None:
            return now + limits.handshake_s if self.counted else None
        if self.opened_s is None and not self._closing and now < self.made_s + limits.handshake_s:
            return self.made_s + limits.handshake_s
        if self.opened_s is None or self._closing:
            self.abort()
            return None
        if self.pinged_s is not None and self.heard_s < self.pinged_s:
            self.abort()
            return None
        if (why := self._useless(now)) is not None:
            self.close(CloseCode.POLICY_VIOLATION, why)
            return None
        self._protocol.send_ping(b"")
        self.pinged_s = now
        self.flush()
        return now + limits.ping_s

    def _useless(self, now: float) -> str | None:
        assert self.opened_s is not None
        assert self.conversation is not None
        if self.conversation.app is None and now - self.opened_s >= self._owner.limits.bind_s:
            return "no bind came"
        if self.conversation.room is None and now - self.opened_s >= self._owner.limits.roomless_s:
            return "in no room for too long"
        return None

    def _slow_down(self, count: int, now: float) -> None:
        limits, transport = self._owner.limits, self._transport
        own_s = self._pace.spend(count, now, a_second=limits.bytes_a_second, most=limits.bytes_at_once)
        wait_s = max(own_s, self._owner.spend(self.whose, count, now))
        if wait_s and transport is not None:
            if transport.is_reading():
                transport.pause_reading()
            self._resuming = asyncio.get_running_loop().call_later(wait_s, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        if self._transport is None or self._transport.is_closing():
            return
        self._go_on()
        if self._resuming is None and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _shake_hands(self, request: Request, now: float) -> None:
        protocol = self._protocol
        path = request.path.partition("?")[0]
        if path == PATH:
            protocol.send_response(protocol.accept(request))
        elif path == "/":
            protocol.send_response(protocol.reject(200, _HELLO))
        else:
            protocol.send_response(protocol.reject(404, f"Nothing is here but {PATH}.\n"))
        if protocol.state is State.OPEN:
            self.opened_s = now
            self._owner.opened(self, request.headers.get_all("Host")[0] if "Host" in request.headers else None)

    def _take(self, frame: Frame, now: float) -> None:
        if self._closing or self.conversation is None:
            return
        if frame.fin and self._part is None:
            self._owner.heard(self, bytes(frame.data), now)
            return
        self._part = self._part or bytearray()
        self._part += frame.data
        if frame.fin:
            data, self._part = bytes(self._part), None
            self._owner.heard(self, data, now)


def lines_of(sendings: Iterable[Sending], by_conversation: dict[Conversation, Line]) -> set[Line]:
    """Hand each message to its line, and return those that have something to write. The last words end theirs."""
    found = set()
    for sending in sendings:
        if (line := by_conversation.get(sending.to)) is None:
            continue
        if sending.data:
            line.send(sending.data)
        found.add(line)
        if sending.last is not None:
            code = CloseCode.GOING_AWAY if sending.may_return else CloseCode.POLICY_VIOLATION
            line.close(code, sending.last)
    return found
