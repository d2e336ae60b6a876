"""`connect(key=)`: both ends proven, whoever else answers; and where nobody is, that is said."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest

import simopen
from simopen.clock.source import plain
from simopen.errors import LinkError, LocalEndpointError, WindowClosed
from simopen.holepunch import pair as pairs
from simopen.holepunch.api import connected as connected_by
from simopen.holepunch.attempts import Stream
from simopen.holepunch.options import Options
from simopen.holepunch.verification import Verification
from simopen.link.channel import Channel, State
from simopen.link.handshake import Handshake
from simopen.link.nonces import Nonces
from simopen.link.session import Session
from simopen.model.endpoint import Endpoint, normalise
from simopen.model.event import Event
from simopen.model.outcome import Outcome
from simopen.model.report import Via
from simopen.model.shot import Shot
from simopen.model.times import MonoNs
from simopen.net import delayed_close
from simopen.net.delayed_close import Endings
from simopen.net.registries import Registries
from tests.link.peers import connected
from tests.loopback import HERE, THERE, ports
from tests.stalls import ALONE_S, shortest

__all__ = ["ports"]
KEY, OTHER_KEY = bytes(range(32)), bytes(32)
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def one_side(ports: tuple[int, int], side: int, key: bytes | None = KEY, **options: Any) -> Pair:
    ends = (HERE, ports[0]), (THERE, ports[1])
    options = {"clock": plain(), **options}
    return await simopen.connect(ends[1 - side], local=ends[side], key=key, **options)


async def both(ports: tuple[int, int], **options: Any) -> tuple[Pair, Pair]:
    one, other = await asyncio.gather(one_side(ports, 0, **options), one_side(ports, 1, **options))
    return one, other


async def talk(one: Pair, other: Pair) -> None:
    for (_, writer), (reader, _) in ((one, other), (other, one)):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
    for _, writer in (one, other):
        writer.close()
        await writer.wait_closed()


async def test_both_ends_are_proven_and_the_report_tells_how(ports: tuple[int, int]) -> None:
    events: list[Event] = []
    one, other = await both(ports, on_event=events.append)
    reports = [writer.get_extra_info("simopen") for _, writer in (one, other)]
    assert {report.proof.role for report in reports} == {"initiator", "responder"}
    for report in reports:
        assert report.proof.cipher.startswith("TLS_")
        assert report.as_dict()["proof"]["proof_s"] > 0
        assert "both ends proven in" in report.summary()
    assert [each.step for each in events if each.step in ("up", "verified")].count("verified") == 2
    for _, writer in (one, other):
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
    await talk(one, other)


async def test_what_a_process_s_punches_share_can_be_another_s(ports: tuple[int, int]) -> None:
    ours, peer = Registries(endings=Endings()), Endpoint(THERE, ports[1])
    options = replace(Options.told(key=KEY, clock=plain(), local=(HERE, ports[0])), ours=ours)
    one, other = await asyncio.gather(connected_by(peer, None, options), one_side(ports, 1))
    await talk(one, other)
    assert ours.endings.ended_ns(ports[0], peer) is not None
    assert delayed_close.shared.ended_ns(ports[0], peer) is None


async def test_streams_may_meet_again_at_once(ports: tuple[int, int]) -> None:
    for _ in range(3):
        await talk(*await both(ports))


async def chosen_and_reset(ports: tuple[int, int]) -> None:
    """The peer as initiator, which resets its stream as it sends the choice: both come before the other side reads."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.bind((THERE, ports[1]))
        await loop.sock_connect(sock, (HERE, ports[0]))
        channel = Channel(None, Nonces(Session.bare(KEY), b"\xff" * 16))
        await loop.sock_sendall(sock, channel.outgoing())
        while channel.state is not State.PROVEN:
            channel.receive(await loop.sock_recv(sock, 2**16))
            sock.send(channel.outgoing())
        channel.choose()
        sock.send(channel.outgoing())


async def test_a_link_that_is_reset_as_it_is_chosen_is_none_and_the_peer_may_come_again(ports: tuple[int, int]) -> None:
    ours = asyncio.ensure_future(one_side(ports, 0, window=60))
    while not ours.done():
        with contextlib.suppress(OSError):
            await chosen_and_reset(ports)
            break
        await asyncio.sleep(0.01)
    await talk(*await asyncio.gather(ours, one_side(ports, 1, window=60)))


@dataclass
class Punch:
    """What a verification is of, without a socket that fires."""

    peers: tuple[Endpoint, ...] = ()
    told: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    ends: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    def tell(self, event: Any) -> None:
        self.told.put_nowait(event)

    def keep(self, stream: Stream) -> None:
        self.ends.put_nowait(stream)

    def fail(self, error: Exception) -> None:
        self.ends.put_nowait(error)


def offered(verification: Verification, sock: socket.socket) -> None:
    remote = normalise(sock.getpeername())
    verification.offer(Stream(sock, remote, Via.ACCEPT, MonoNs(time.monotonic_ns()), 1))


DOOM = LocalEndpointError("nothing can be fired any more")


async def test_a_punch_that_cannot_fire_any_more_ends_as_its_last_stream_is_refused() -> None:
    """Not when its window does: nobody else can come."""
    punch, verification = Punch(), Verification(Session.bare(KEY))
    verification.begin(punch)
    pairs = [connected() for _ in range(2)]
    for mine, _ in pairs:
        offered(verification, mine)
    verification.doomed(DOOM)
    for _, stranger in pairs:
        assert punch.ends.empty()
        stranger.close()
    error = await asyncio.wait_for(punch.ends.get(), 30)
    assert error is DOOM
    assert "it closed the stream" in error.__notes__[0]
    verification.end()


async def test_a_punch_that_cannot_fire_any_more_takes_the_peer_that_is_there_already() -> None:
    punch, verification, peer = Punch(), Verification(Session.bare(KEY)), Handshake(Session.bare(KEY))
    verification.begin(punch)
    (mine, theirs), (other, stranger) = connected(), connected()
    offered(verification, mine)
    offered(verification, other)
    verification.doomed(DOOM)
    stranger.close()
    peer.offer(theirs)
    link = await peer.link()
    assert (await asyncio.wait_for(punch.ends.get(), 30)).sock is mine
    verification.end()
    peer.end()
    link.transport.abort()


async def test_where_nothing_can_be_fired_and_nobody_is_there_it_ends_at_once() -> None:
    punch, verification = Punch(), Verification(Session.bare(KEY))
    verification.begin(punch)
    verification.doomed(DOOM)
    assert punch.ends.get_nowait() is DOOM
    verification.end()


async def test_another_key_is_refused_on_both_sides_and_said(ports: tuple[int, int]) -> None:
    told = await asyncio.gather(one_side(ports, 0), one_side(ports, 1, OTHER_KEY, window=5), return_exceptions=True)
    for error in told:
        assert isinstance(error, LinkError)
        assert "another key" in str(error) or "closed the stream" in str(error)
        assert error.report is not None
        assert error.diagnosis is not None
        assert error.diagnosis.cause is simopen.Cause.UNPROVEN
        for key in (KEY, OTHER_KEY):
            assert key.hex() not in str(error)


async def test_a_side_without_a_key_is_no_link_and_its_words_are_not_taken(ports: tuple[int, int]) -> None:
    async def plain_side() -> None:
        with contextlib.suppress(OSError):
            while True:
                _, writer = await one_side(ports, 1, None, window=0.5)
                writer.write(b"in the clear, and long enough to be an answer of any kind\n" * 10)
                await writer.drain()
                writer.close()
                await writer.wait_closed()

    other = asyncio.create_task(plain_side())
    with pytest.raises(LinkError, match="nobody proved the key"):
        await one_side(ports, 0, window=ALONE_S)
    other.cancel()
    await asyncio.wait({other})


async def test_where_nobody_answers_that_is_what_is_said(ports: tuple[int, int]) -> None:
    with pytest.raises(WindowClosed):
        await one_side(ports, 0, window=0.2)


@contextlib.asynccontextmanager
async def strangers(port: int, words: bytes, count: int = 100) -> AsyncIterator[None]:
    """So many, of the peer's address, as soon as the punch port listens."""
    loop, socks = asyncio.get_running_loop(), []

    async def dial() -> None:
        sock = socket.socket()
        socks.append(sock)
        sock.setblocking(False)
        sock.bind((THERE, 0))
        with contextlib.suppress(OSError):
            await loop.sock_connect(sock, (HERE, port))
            await loop.sock_sendall(sock, words)

    async def keep_dialling() -> None:
        while len(socks) < count:
            await dial()
            if len(socks) > 400:
                await asyncio.sleep(0)

    task = asyncio.create_task(keep_dialling())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        for sock in socks:
            sock.close()


@pytest.mark.parametrize("words", [b"", b"GET / HTTP/1.1\r\n\r\n" * 9])
async def test_strangers_at_the_peers_address_cost_the_peer_nothing(ports: tuple[int, int], words: bytes) -> None:
    first = asyncio.create_task(one_side(ports, 0))
    async with strangers(ports[0], words):
        while first in (await asyncio.wait({first}, timeout=0.2))[1]:
            break
        await talk(*await asyncio.gather(first, one_side(ports, 1)))


async def test_one_who_takes_the_peers_very_endpoint_first_costs_it_nothing(ports: tuple[int, int]) -> None:
    """It talks of something else, and is gone; the peer comes later."""
    first = asyncio.create_task(one_side(ports, 0, listen=True))
    with socket.create_server((THERE, ports[1]), reuse_port=True) as server:
        server.setblocking(False)
        sock, _ = await asyncio.get_running_loop().sock_accept(server)
        sock.send(b"220 welcome to somebody else\r\n" * 3)
    with sock:
        await asyncio.get_running_loop().sock_recv(sock, 16)
    await talk(*await asyncio.gather(first, one_side(ports, 1)))


async def test_a_mute_one_is_left_as_the_window_ends_and_said(ports: tuple[int, int]) -> None:
    async def stalled_s() -> float:
        with pytest.raises(LinkError, match="proved nothing in time") as refused:
            await one_side(ports, 0, window=0.1)
        assert was_answered_by_streams(refused.value)
        assert refused.value.report is not None
        return refused.value.report.stalled_s

    with socket.create_server((THERE, ports[1])):
        assert await shortest(stalled_s, below=0.5) < 1.5, "its own patience is not taken for a stall"


async def test_who_refuses_a_stream_is_this_side_and_no_rst_is_told_of(ports: tuple[int, int]) -> None:
    with contextlib.closing(await asyncio.start_server(greet, THERE, ports[1])), pytest.raises(LinkError) as refused:
        await one_side(ports, 0, window=0.3)
    assert was_answered_by_streams(refused.value)


async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 welcome to somebody else\r\n" * 3)
    writer.close()


def was_answered_by_streams(error: LinkError) -> bool:
    assert error.report is not None
    assert "RST" not in str(error)
    return {attempt.outcome for attempt in error.report.attempts} == {Outcome.OPEN}


@pytest.mark.parametrize("key", ["a password", b"short", 5])
async def test_what_is_no_key_is_refused_before_anything_is_sent(ports: tuple[int, int], key: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="new_key"):
        await one_side(ports, 0, key)


@pytest.mark.parametrize("number", range(12))
async def test_whenever_it_is_cancelled_nothing_is_left(ports: tuple[int, int], number: int) -> None:
    chance = Random(number)
    tasks = [asyncio.create_task(one_side(ports, side)) for side in range(2)]
    await asyncio.sleep(chance.random() * 0.02)
    for task in tasks:
        task.cancel()
    for got in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(got, tuple):
            got[1].transport.abort()


async def test_a_bridge_over_it(ports: tuple[int, int]) -> None:
    one, other = await both(ports)
    sock = await simopen.bridge(one)
    other[1].write(b"through")
    assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"through"
    sock.close()
    assert await other[0].read() == b""
    other[1].close()
    await other[1].wait_closed()


class Short(socket.socket):
    """A socket of which the kernel tells nothing, as it has no buffer for it."""

    def getsockname(self) -> Any:
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


async def test_a_stream_of_which_the_kernel_does_not_tell_the_port_is_closed_and_its_way_fired_at_again() -> None:
    punch, verification = Punch(), Verification(Session.bare(KEY))
    verification.begin(punch)
    mine, theirs = connected()
    remote, pair = normalise(mine.getpeername()), pairs.Pair(Shot(1, Endpoint(THERE, 2)))
    with theirs, Short(fileno=mine.detach()) as short:
        verification.offer(Stream(short, remote, Via.CONNECT, MonoNs(time.monotonic_ns()), 1), pair)
        assert short.fileno() == -1
    again = await asyncio.wait_for(punch.told.get(), 30)
    assert again.pair is pair
    assert "no memory or no descriptor" in str(verification.error)
    verification.end()
