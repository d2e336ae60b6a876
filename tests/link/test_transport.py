"""A link's stream behaves as a TCP stream does, on both loops; and a cut is an error, never an end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest

from simopen.errors import LinkBroken, LinkError
from simopen.link.streams import streams
from simopen.link.transport import LinkTransport
from tests.link.peers import Pair, bare, carry, channel, connected, handshakes, linked, pair, sessions, stream_pair


@pytest.mark.parametrize("how", [sessions, bare])
async def test_data_goes_both_ways(how: Callable[[], tuple]) -> None:  # type: ignore[type-arg]
    one, other = await stream_pair(how())
    for (_, writer), (reader, _) in ((one, other), (other, one)):
        writer.write(b"a line\n")
        writer.writelines([b"a ", bytearray(b"second"), memoryview(b"\n")])
        assert await reader.readline() == b"a line\n"
        assert await reader.readline() == b"a second\n"
    for _, writer in (one, other):
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("size", [1, 2**14 - 4, 2**14 - 3, 2**16, 5_000_000])
async def test_any_size_comes_through_whole_and_in_order(size: int) -> None:
    async with pair() as ((_, writer), (reader, _)):
        data = bytes(range(251)) * (size // 251 + 1)
        writer.write(data[:size])
        assert await reader.readexactly(size) == data[:size]


async def test_half_close_travels_and_the_other_direction_goes_on() -> None:
    async with pair() as ((one_reads, one), (other_reads, other)):
        assert one.can_write_eof()
        one.write(b"question")
        one.write_eof()
        one.write_eof()
        assert await other_reads.read() == b"question"
        with pytest.raises(RuntimeError, match="write_eof"):
            one.write(b"more")
        other.write(b"answer" * 100_000)
        await other.drain()
        other.close()
        assert await one_reads.read() == b"answer" * 100_000
        for writer in (one, other):
            writer.close()
            await writer.wait_closed()


async def test_who_has_closed_may_abort() -> None:
    async with pair() as ((_, one), (other_reads, other)):
        one.write(b"all of it" * 1_000_000)
        one.close()
        assert len(await other_reads.read()) == 9_000_000
        await one.wait_closed()
        one.transport.abort()
        other.close()
        await other.wait_closed()


async def test_who_closes_ends_its_stream_in_order() -> None:
    async with pair() as ((_, one), (other_reads, other)):
        one.write(b"all of it" * 300_000)
        one.close()
        assert one.is_closing()
        assert len(await other_reads.read()) == 9 * 300_000
        await one.wait_closed()
        other.close()
        await other.wait_closed()


async def test_a_protocol_that_keeps_nothing_open_closes_at_the_end() -> None:
    """As asyncio's transports do where `eof_received` returns nothing."""
    one, other = await linked()
    heard = Heard()
    one.transport.start(heard)
    other.transport.start(asyncio.Protocol())
    other.transport.write_eof()
    await heard.lost
    assert (heard.eof, heard.lost.result()) == (True, None)
    assert one.transport.is_closing()
    other.transport.close()


class Heard(asyncio.Protocol):
    """Keeps what comes, and how it ended."""

    def __init__(self) -> None:
        self.data, self.eof = b"", False
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.paused = asyncio.Event()
        self.resumed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.eof = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    def pause_writing(self) -> None:
        self.paused.set()

    def resume_writing(self) -> None:
        self.resumed.set()


class Buffered(asyncio.BufferedProtocol):
    """Takes data in its own buffer, seven bytes of it."""

    def __init__(self) -> None:
        self.data, self.buffer = b"", bytearray(7)
        self.all = asyncio.Event()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        if self.data.endswith(b"."):
            self.all.set()


async def test_a_protocol_may_be_changed_and_may_have_a_buffer_of_its_own() -> None:
    one, other = await linked()
    first, second = Heard(), Buffered()
    one.transport.start(first)
    _, writer = streams(other)
    assert one.transport.get_protocol() is first
    one.transport.set_protocol(second)
    writer.write(b"longer than seven bytes.")
    await second.all.wait()
    assert (first.data, second.data) == (b"", b"longer than seven bytes.")
    one.transport.abort()
    writer.transport.abort()


async def test_a_protocol_is_known_by_its_methods_whatever_its_class_is() -> None:
    """As to asyncio's own transports: of one of another class nothing came, and the stream seemed to end in order."""
    one, other = await linked()
    heard = Duck()
    one.transport.start(cast("asyncio.BaseProtocol", heard))
    _, writer = streams(other)
    writer.write(b"whoever you are")
    writer.write_eof()
    await heard.lost.wait()
    assert heard.heard == ["made", b"whoever you are", "end", None]
    writer.close()


class Duck:
    """A protocol that is no subclass of asyncio's."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.heard.append("made")

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)

    def eof_received(self) -> None:
        self.heard.append("end")

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append(exc)
        self.lost.set()


async def test_what_a_link_was_lost_with_is_no_error_of_whoever_does_not_ask() -> None:
    """The garbage collector may come to the future before it comes to the protocol, and then tells."""
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    (_, mine), (reader, theirs) = await stream_pair()
    mine.write(b"x")
    await reader.readexactly(1)
    mine.transport.abort()
    with pytest.raises(LinkBroken):
        await reader.read()
    closed = theirs._protocol._get_close_waiter(theirs)  # type: ignore[attr-defined]
    await asyncio.wait({closed})
    closed.__del__()
    assert not unseen


async def test_what_the_application_does_not_read_makes_the_peer_wait() -> None:
    one, other = await linked()
    heard, sender = Heard(), Heard()
    one.transport.start(heard)
    one.transport.pause_reading()
    assert not one.transport.is_reading()
    other.transport.start(sender)
    sent = 0
    while not sender.paused.is_set():
        other.transport.write(bytes(2**16))
        sent += 2**16
        await asyncio.sleep(0)
    assert heard.data == b""
    one.transport.resume_reading()
    await sender.resumed.wait()
    other.transport.close()
    await heard.lost
    assert len(heard.data) == sent


async def test_who_pauses_in_the_middle_gets_the_rest_later_and_then_the_end() -> None:
    class Slow(Heard):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            one.transport.pause_reading()

    one, other = await linked()
    slow = Slow()
    one.transport.start(slow)
    other.transport.start(Heard())
    for number in range(50):
        other.transport.write(bytes([number]) * 20_000)
    other.transport.write_eof()
    before = -1
    while len(slow.data) < 50 * 20_000:
        if len(slow.data) != before:
            before = len(slow.data)
            assert not slow.eof
            one.transport.resume_reading()
        await asyncio.sleep(0)
    assert slow.data == b"".join(bytes([number]) * 20_000 for number in range(50))
    one.transport.resume_reading()
    await slow.lost
    assert slow.eof
    other.transport.close()


async def test_write_limits_are_those_of_tls_and_can_be_set() -> None:
    async with pair() as ((_, writer), _):
        assert writer.transport.get_write_buffer_limits() == (2**17, 2**19)  # as asyncio's TLS has them
        writer.transport.set_write_buffer_limits(high=12345, low=123)
        assert writer.transport.get_write_buffer_limits() == (123, 12345)
        assert writer.transport.get_write_buffer_size() == 0


async def test_what_is_no_bytes_is_refused() -> None:
    async with pair() as ((_, writer), _):
        with pytest.raises(TypeError, match="str"):
            writer.transport.write("text")  # type: ignore[arg-type]


async def test_what_it_tells_of_itself() -> None:
    one, other = await linked()
    _, writer = streams(one, report="the report")
    tls = writer.get_extra_info("ssl_object")
    assert isinstance(tls, ssl.SSLObject)
    assert tls.version() == "TLSv1.3"
    assert writer.get_extra_info("cipher") == tls.cipher()
    assert writer.get_extra_info("simopen") == "the report"
    assert writer.get_extra_info("peername")[0] == "127.0.0.1"
    assert writer.get_extra_info("sockname") == other.transport.get_extra_info("peername")
    assert writer.get_extra_info("sslcontext") is None
    assert writer.get_extra_info("nothing", "of that") == "of that"
    assert writer.get_extra_info("peercert")["serialNumber"] == "01"
    for link in (one, other):
        link.transport.abort()


CUTS: dict[str, Callable[[socket.socket], None]] = {
    "FIN": lambda sock: sock.shutdown(socket.SHUT_WR),
    "RST": lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
}


async def relayed() -> tuple[Pair, Pair, Relay]:
    """Two links' streams with somebody on the way."""
    relay = Relay()
    (one, near), (far, other) = connected(), connected()
    relay.start(near, far)
    async with handshakes(*sessions()) as made:
        for handshake, sock in zip(made, (one, other), strict=True):
            handshake.offer(sock)
        both = [streams(link) for link in await asyncio.gather(*(each.link() for each in made))]
    return both[0], both[1], relay


class Relay:
    """Somebody on the way: passes on what comes, and does to it what he likes."""

    def __init__(self) -> None:
        self.change: Callable[[bytes], bytes] = bytes
        self._tasks: list[asyncio.Task[None]] = []
        self._socks: tuple[socket.socket, ...] = ()

    def start(self, near: socket.socket, far: socket.socket) -> None:
        self._socks = near, far
        self._tasks = [asyncio.create_task(self._pass(*each)) for each in ((near, far), (far, near))]

    async def _pass(self, source: socket.socket, to: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(source, 2**16):
                await loop.sock_sendall(to, self.change(data))

    async def cut(self, how: str) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for sock in self._socks:
            CUTS[how](sock)
            sock.close()


@pytest.mark.parametrize("how", CUTS)
async def test_a_cut_on_the_way_is_an_error_for_both_and_never_an_end(how: str) -> None:
    one, other, relay = await relayed()
    for (_, writer), (reader, _) in ((one, other), (other, one)):
        writer.write(b"half of it")
        assert await reader.readexactly(10) == b"half of it"
    await relay.cut(how)
    for reader, writer in (one, other):
        with pytest.raises(LinkBroken, match="did not end it"):
            await reader.read()
        with pytest.raises(LinkBroken):
            await writer.wait_closed()
        with pytest.raises(ConnectionResetError):
            await writer.drain()
        writer.write(b"to nobody")


async def test_a_cut_after_the_peers_end_is_told_to_who_still_writes() -> None:
    one, other, relay = await relayed()
    one[1].write_eof()
    assert await other[0].read() == b""
    await relay.cut("RST")
    with pytest.raises(ConnectionResetError):  # noqa: PT012 - however soon
        while True:
            other[1].write(bytes(2**16))
            await other[1].drain()
    with pytest.raises(LinkBroken):
        await other[1].wait_closed()
    with pytest.raises(LinkBroken):
        await one[0].read()
    for _, writer in (one, other):
        writer.transport.abort()


async def test_a_byte_changed_on_the_way_is_told_to_both() -> None:
    one, other, relay = await relayed()
    relay.change = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    one[1].write(b"pay 10")
    with pytest.raises(LinkBroken, match="not what the peer sent"):
        await other[0].read()
    relay.change = bytes
    with pytest.raises(LinkBroken):
        await one[0].read()
    await relay.cut("FIN")


async def test_the_peers_abort_is_an_error() -> None:
    async with pair() as ((reader, _), (_, writer)):
        writer.write(b"half")
        await asyncio.sleep(0)
        writer.transport.abort()
        with pytest.raises(LinkBroken):
            await reader.readexactly(5)


async def test_a_link_lost_before_it_was_taken_into_use_says_so() -> None:
    one, other = await linked()
    other.transport.abort()
    heard = Heard()
    one.transport.start(heard)
    assert isinstance(await heard.lost, (LinkBroken, LinkError))


async def unanswered(answer_s: float) -> tuple[LinkTransport, socket.socket]:
    """An initiator's transport, its choice under way; and the socket at the other end of the way."""
    mine, theirs = connected()
    one, other = (channel(session) for session in sessions())
    carry(one, other)
    one.choose()
    lower, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=mine)
    return LinkTransport(one, lower, answer_s=answer_s), theirs


@pytest.mark.parametrize("how", ["FIN", "RST", "silence"])
async def test_whether_the_peer_has_taken_the_link_can_be_awaited(how: str) -> None:
    """And what it is not to be done before waits for it: a key's private half is for one meeting."""
    one, other = await linked()
    told: list[str] = []
    for link in (one, other):
        link.transport.start(Heard())
        link.transport.when_answered(partial(told.append, link.proof.role))
    assert "responder" in told
    for link in (one, other):
        await link.transport.get_extra_info("simopen_link").answered()
    await asyncio.sleep(0)
    assert sorted(told) == ["initiator", "responder"]
    for link in (one, other):
        link.transport.abort()
        await link.transport.answered()
    transport, theirs = await unanswered(0.01 if how == "silence" else 60)
    transport.start(Heard())
    transport.when_answered(partial(told.append, "nobody"))
    if how != "silence":
        CUTS[how](theirs)
        theirs.close()
    with pytest.raises(LinkError):
        await transport.answered()
    theirs.close()
    assert "nobody" not in told


@pytest.mark.parametrize("how", ["FIN", "RST", "silence"])
@pytest.mark.parametrize("closes", [False, True])
async def test_who_is_not_answered_has_no_link(how: str, *, closes: bool) -> None:
    """The initiator's choice is under way, maybe with all that it has to say; the responder is gone, or never was."""
    transport, theirs = await unanswered(0.01 if how == "silence" else 60)
    heard = Heard()
    transport.start(heard)
    transport.write(b"first words")
    if closes:
        transport.close()
    if how != "silence":
        CUTS[how](theirs)
        theirs.close()
    assert isinstance(await heard.lost, LinkError)
    theirs.close()


async def test_an_application_that_does_not_read_is_answered_all_the_same() -> None:
    one, other = await linked()
    heard = Heard()
    one.transport.start(heard)
    one.transport.pause_reading()
    _, writer = streams(other)
    writer.write(b"x")
    while not one.transport._channel.answered:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0)
    assert heard.data == b""
    for link in (one, other):
        link.transport.abort()


async def test_a_protocol_that_fails_is_told_to_the_loop_and_ends_the_link() -> None:
    class Failing(Heard):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    one, other = await linked()
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    failing = Failing()
    other.transport.start(Heard())
    other.transport.write(b"x")
    one.transport.start(failing)
    assert isinstance(await failing.lost, ZeroDivisionError)
    assert told
    other.transport.abort()


async def test_closing_twice_and_what_comes_after_does_no_harm() -> None:
    async with pair() as ((_, one), (_, other)):
        transport = one.transport
        assert isinstance(transport, LinkTransport)
        transport.close()
        transport.close()
        transport.write(b"ignored")
        transport.write_eof()
        transport.pause_reading()
        transport.resume_reading()
        transport.abort()
        await one.wait_closed()
        transport.set_write_buffer_limits(0)  # as an application may, on asyncio's loop
        other.close()
