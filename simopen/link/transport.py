"""A link as asyncio's streams, and any other protocol, take it: a transport that behaves as a TCP stream's does.

Theory of operation. It lies on the transport of the punched socket, and runs TLS and frames between the two
(`channel.py`). asyncio's own TLS transport would not do: it has no half-close, takes any FIN for the end, and ends in
other ways on uvloop. So one thing differs from a TCP stream: bytes that somebody on the way has altered, or an end
that the peer has not sent, are an error.

- `write_eof` sends the last frame, and no FIN: the peer's data goes on.
- What the application does not take stays in the kernel, and the peer waits; where the network takes no more, the
  application is told to pause, as the lower transport says.
- `connection_lost` comes once, and says the same on both loops.
- Until the responder's answer has come, the socket is read whatever the application does, and is not closed: a kernel
  that closes a socket with something unread resets it, and what this side sent last is lost.
"""

from __future__ import annotations

import asyncio
import os
import socket
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from simopen.errors import LinkBroken, LinkError
from simopen.link.channel import Channel, Refused
from simopen.link.frames import Bytes
from simopen.link.handed_over import HandedOver
from simopen.link.session import Role
from simopen.model.proof import Reason

_PIECE = 2**18  # of one write: a sealed copy of all of a large one would take its size again
_HIGH_WATER = 2**19  # asyncio's own for TLS; with a socket's 64 KiB, each write of that size would wait for the kernel
ANSWER_S = 10.0
"""For the responder's answer, one round trip after the choice, and more where the path loses what is said: a peer that
waits for no choice any more closes the stream, which is told at once."""
_LAST_WORDS_S = 2.0  # for the kernel to take an alert: a peer that reads nothing shall not keep the socket longer


class LinkTransport(asyncio.Transport):
    """A link that is up. `start` it with a protocol; until then nothing is read.

    Args:
        channel: in state UP.
        lower: the socket's transport, which now has this for a protocol.
        answer_s: for how long the responder's answer is waited for.

    Attributes:
        report: what `get_extra_info("simopen")` is.
        gone: called as the lower transport lets go of the socket.
        handed_over: the socket, once `detach` has given it away.
    """

    def __init__(
        self,
        channel: Channel,
        lower: asyncio.Transport,
        answer_s: float = ANSWER_S,
    ) -> None:
        super().__init__()
        self.report: object = None
        self._channel = channel
        self._lower = lower
        self.gone: Callable[[], object] = lambda: None
        self.handed_over: HandedOver | None = None
        self._loop = asyncio.get_running_loop()
        self._protocol: Any = asyncio.Protocol()  # by its methods, as to asyncio: its class is whichever
        self._started = False
        self._paused = self._closing = self._lost = False
        self._fin = self._told_end = self._own_end = False
        self._why: Exception | None = None
        self._reads_lower = False
        self._timer: asyncio.TimerHandle | None = None
        self._answer: asyncio.Future[None] = self._loop.create_future()
        self._when_answered: Callable[[], object] = lambda: None
        if channel.answered:
            self._answer.set_result(None)
        else:
            self._timer = self._loop.call_later(answer_s, self._not_answered)
        if not lower.is_closing():
            lower.pause_reading()  # uvloop takes a protocol of another kind only while it does not read
        lower.set_protocol(_Below(self, _room(self._loop)))
        lower.set_write_buffer_limits(high=_HIGH_WATER)
        self._read_lower()

    def start(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the stream to this protocol, and what has come meanwhile."""
        self._protocol, self._started = protocol, True
        protocol.connection_made(self)
        if self._lost:
            self._loop.call_soon(protocol.connection_lost, self._why)
        else:
            self._loop.call_soon(self._go_on)

    async def answered(self) -> None:
        """Wait until the peer has said that it took this link: from then on both have it.

        The responder knows that at once, the initiator one round trip after its first byte left. Nothing that is
        written has to wait for it. `writer.get_extra_info("simopen_link").answered()` is how a stream's user calls it.

        Raises:
            LinkError: the link ended before that, so the peer may never have had it.
        """
        await asyncio.shield(self._answer)

    @property
    def seed(self) -> bytes:
        """32 bytes that only the two ends of this link have: they may keep them, to meet again."""
        return self._channel.seed

    @property
    def role(self) -> Role | None:
        """This side's."""
        return self._channel.role

    @property
    def peer_has_left(self) -> bool:
        """Whether the peer's host sends no more: its FIN comes when its socket is closed, not with its stream's end."""
        return self._fin

    def detach(self) -> HandedOver:
        """End this transport, and have its socket: once both streams are ended, and all has left.

        Raises:
            LinkBroken: the socket is closed.
        """
        if self._lower.is_closing():
            raise self._why or LinkBroken("the link ended before its socket could be handed over")
        sock: socket.socket = self._lower.get_extra_info("socket")
        detached = HandedOver(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
        detached.setblocking(False)
        detached.closed = self._loop.create_future()
        self.handed_over = detached
        self._closing = True
        self._lower.close()
        return detached

    def when_answered(self, call: Callable[[], object]) -> None:
        """Have this called then, at once where that has been; never, where the link ends before."""
        if self._channel.answered:
            call()
        else:
            self._when_answered = call

    # What the network has for the application.

    def received(self, data: Bytes) -> None:
        """From below."""
        if not (self._closing and self._channel.answered):
            self._guarded(self._receive, data)

    def received_fin(self) -> bool:
        """From below: the peer's host sends no more. Whether the socket is to stay open for what this side sends."""
        self._fin = True
        if not (self._closing and self._channel.answered):
            self._guarded(self._deliver)
        return not self._lower.is_closing()

    def lost(self, error: Exception | None) -> None:
        """From below: the socket is closed."""
        self._stop_timer()
        self.gone()
        self._lost = self._closing = True
        self._why = self._why or self._said(error)
        self._settle_answer()
        if self._started:
            self._protocol.connection_lost(self._why)

    def _settle_answer(self) -> None:
        """The link is over: an answer that has not come never will."""
        if not self._answer.done() and not self._loop.is_closed():
            cause = self._why
            why = cause if isinstance(cause, LinkError) else LinkError("the link was closed before the peer took it")
            self._answer.set_exception(why)
            self._answer.exception()  # nobody has to ask

    def _said(self, error: Exception | None) -> Exception | None:
        """What the application is told of an error of the socket's."""
        if error is None or (self._channel.ended and self._own_end):
            return None
        if not self._channel.answered:
            refused = _not_taken("its stream was reset")
            refused.__cause__ = error
            return refused
        if not isinstance(error, ConnectionError):
            return error
        broken = LinkBroken("the link ended, and the peer did not end it: its stream was reset")
        broken.__cause__ = error
        return broken

    def _guarded(self, call: Callable[..., None], *args: object) -> None:
        try:
            call(*args)
        except Refused as refused:
            self._fail(_not_taken(str(refused)))
        except LinkBroken as broken:
            self._fail(broken)

    def _fail(self, error: Exception) -> None:
        self._stop_timer()
        self._why = error
        self._closing = True
        if self._lower.get_write_buffer_size():
            self._lower.abort()
            return
        self._flush()  # TLS tells the peer what is wrong
        self._lower.close()
        if self._lower.get_write_buffer_size():
            self._timer = self._loop.call_later(_LAST_WORDS_S, self._lower.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _not_answered(self) -> None:
        self._guarded(self._channel.give_up)

    def _receive(self, data: Bytes) -> None:
        self._channel.receive(data)
        if not self._channel.answered and self._channel.take_answer():
            self._answered()
        self._deliver()

    def _answered(self) -> None:
        self._stop_timer()
        if not self._answer.done():
            self._answer.set_result(None)
        self._loop.call_soon(self._when_answered)
        self._read_lower()
        if self._closing:  # since before the answer
            self._lower.close()

    @property
    def _holds(self) -> bool:
        """Whether the application gets nothing at the moment."""
        return self._paused or self._closing or not self._started

    def _read_lower(self) -> None:
        """Read the socket where the application, or this side's choice, waits for what comes."""
        reads = not (self._holds and self._channel.answered)
        if self._fin or self._lower.is_closing() or reads is self._reads_lower:
            return
        self._reads_lower = reads
        if reads:
            self._lower.resume_reading()
        else:
            self._lower.pause_reading()

    def _deliver(self) -> None:
        while not self._holds and (data := self._channel.read()) is not None:
            if data:
                self._hand_over(data)
        self._flush()  # TLS may have had to answer
        if self._fin and not self._channel.answered:
            self._channel.receive_eof()
        if self._holds:
            return
        if self._channel.ended:
            self._hand_over_end()
        elif self._fin:
            self._channel.receive_eof()

    def _hand_over(self, data: bytes) -> None:
        if isinstance(self._protocol, asyncio.BufferedProtocol):
            _fill(self._protocol, data)
        else:
            self._protocol.data_received(data)

    def _hand_over_end(self) -> None:
        if self._told_end:
            return
        self._told_end = True
        if not self._protocol.eof_received():
            self.close()

    def _go_on(self) -> None:
        """Read again, first what has come already."""
        if self._holds:
            return
        try:
            self._guarded(self._deliver)
        except Exception as error:  # the protocol's own: as the loop's transports see it
            self._loop.call_exception_handler({"message": "the protocol failed", "exception": error, "transport": self})
            self._why = error
            self.abort()
        self._read_lower()

    # What the application has for the network.

    def write(self, data: Bytes) -> None:
        """Send data. What the network does not take yet waits here, and the protocol is told to pause."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes, bytearray or memoryview, not {type(data).__name__}")
        if self._own_end and not self._closing:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing:
            return
        whole = data if isinstance(data, bytes) else memoryview(data).cast("B")
        for piece in (whole,) if len(whole) <= _PIECE else _pieces(memoryview(whole)):
            self._channel.write(piece)
            self._flush()

    def write_eof(self) -> None:
        """End this side's stream; the peer's goes on."""
        if not (self._own_end or self._closing):
            self._own_end = True
            self._channel.write_end()
            self._flush()

    def can_write_eof(self) -> bool:
        """Always."""
        return True

    def _flush(self) -> None:
        if (data := self._channel.outgoing()) and not self._lower.is_closing():
            self._lower.write(data)

    def close(self) -> None:
        """End this side's stream, and close the socket once all is sent; what comes meanwhile is not read."""
        if not self._closing:
            self.write_eof()
            self._closing = True
            if self._channel.answered:
                self._lower.close()
            else:
                self._read_lower()

    def give_up(self, why: str) -> None:
        """`abort`, which the application has not asked for: to it the stream is broken, and not at its end."""
        self._why = self._why or LinkBroken(f"the link ended, and the peer did not end it: {why}")
        self.abort()

    def abort(self) -> None:
        """Close the socket at once: the peer's stream is cut."""
        self._closing = True
        self._stop_timer()
        if not self._lost:  # asyncio's own transports fail where they are aborted after their end
            self._lower.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing or self._lower.is_closing()

    # What is passed on.

    def pause_reading(self) -> None:
        """Hand over nothing until `resume_reading`."""
        self._paused = True
        self._read_lower()

    def resume_reading(self) -> None:
        """Go on where `pause_reading` stopped it."""
        if self._paused:
            self._paused = False
            if self._channel.is_drained and not self._fin:
                self._read_lower()
            else:
                self._loop.call_soon(self._go_on)

    def is_reading(self) -> bool:
        """Whether what comes is handed over."""
        return not self._holds

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand all that is still to come to this one."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Which one has it now."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As asyncio's, in bytes as they leave, sealed."""
        if not self._lost:  # uvloop's transports fail after their end
            self._lower.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """As asyncio's: (low, high)."""
        return self._lower.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """As asyncio's: what the network has not taken yet."""
        return self._lower.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`simopen` is the report, `simopen_link` this (for `answered` and `seed`), `ssl_object` TLS's; `cipher`,
        `peercert`, and what the socket's transport knows.

        There is no `sslcontext`: where there is one, asyncio's streams take it that there is no half-close.
        """
        tls = self._channel.tls
        if name == "simopen":
            return default if self.report is None else self.report
        if name == "simopen_link":
            return self
        if tls is not None and name == "ssl_object":
            return tls
        if tls is not None and name in ("cipher", "peercert"):
            return tls.cipher() if name == "cipher" else tls.getpeercert()
        return default if name in ("sslcontext", "compression") else self._lower.get_extra_info(name, default)


def _pieces(data: memoryview) -> Iterator[memoryview]:
    return (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))


def _not_taken(why: str) -> LinkError:
    return LinkError(f"the peer has not taken this link: {why}", reasons=(Reason.NOT_CHOSEN,))


_rooms: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, bytearray] = weakref.WeakKeyDictionary()


def _room(loop: asyncio.AbstractEventLoop) -> bytearray:
    """Where a loop's links read to, one at a time: what comes is unsealed before the next one reads."""
    return _rooms.setdefault(loop, bytearray(_PIECE))


class _Below(asyncio.BufferedProtocol):
    """The lower transport's protocol."""

    def __init__(self, link: LinkTransport, room: bytearray) -> None:
        self._link, self._room = link, room

    def get_buffer(self, sizehint: int) -> bytearray:
        """As asyncio's."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """As asyncio's."""
        self._link.received(memoryview(self._room)[:nbytes])

    def eof_received(self) -> bool:
        """As asyncio's."""
        return self._link.received_fin()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio's."""
        self._link.lost(exc)

    def pause_writing(self) -> None:
        """As asyncio's."""
        self._link.get_protocol().pause_writing()

    def resume_writing(self) -> None:
        """As asyncio's."""
        self._link.get_protocol().resume_writing()


def _fill(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    left = memoryview(data)
    while left:
        room = memoryview(protocol.get_buffer(len(left)))
        taken = min(len(room), len(left))
        if not taken:
            raise RuntimeError("get_buffer() returned an empty buffer")
        room[:taken] = left[:taken]
        protocol.buffer_updated(taken)
        left = left[taken:]
