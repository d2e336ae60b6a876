"""Links: spoilt anywhere on the way, beside a GB of garbage, and cancelled at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from random import Random

from benchmarks.many import resident_bytes
from simopen.errors import LinkBroken, LinkError
from simopen.link.handshake import Handshake, Link
from simopen.link.nonces import NONCE_BYTES
from simopen.link.session import Session
from simopen.link.streams import streams
from tests.link.peers import bare, connected, sessions
from tests.link.spoils import SPOILS, WAYS, never_taken_for_the_peers, positions
from tests.soak.calls import nothing_left, on_a_loop

STRANGERS, OF_EACH = 16, 2**26
"""As many at once, and what each of them would send: a GB together."""
_PIECE = 2**16
_MOST_GROWTH = 2**26
_RECORD = b"\x16\x03%c\x40\x00"


def spoilt(chance: Random) -> None:
    """A byte flipped, left out, doubled, or all cut from there on, at any position of all that a side says."""
    how, way, speaker = chance.choice(list(SPOILS)), chance.choice(list(WAYS)), chance.randrange(2)
    never_taken_for_the_peers(how, way, speaker, chance.choice(positions(how, way, speaker)))


def _noise(chance: Random) -> bytes:
    return chance.randbytes(_PIECE)


def _zeros(_: Random) -> bytes:
    return bytes(_PIECE)


def _records(chance: Random) -> bytes:
    """TLS's, of a handshake, each with a message that goes on for 16 MB."""
    head = _RECORD % chance.choice((b"\1", b"\3"))
    return head + b"\1\xff\xff\xff" + bytes(2**14 - 4) + (head + bytes(2**14)) * 2


def _after_a_nonce(chance: Random) -> bytes:
    return chance.randbytes(NONCE_BYTES) + _records(chance)


_GARBAGE: tuple[Callable[[Random], bytes], ...] = (_noise, _zeros, _records, _after_a_nonce)


@on_a_loop
async def garbage(chance: Random) -> None:
    """Each stranger is cut off, memory does not grow, and the peer that comes last is met."""
    side = chance.randrange(2)
    both = chance.choice((sessions, bare))()
    async with nothing_left():
        mine, peer = Handshake(both[side], limit_s=60), Handshake(both[1 - side], limit_s=60)
        try:
            before = resident_bytes()
            await asyncio.gather(*(_stranger(mine, chance) for _ in range(STRANGERS)))
            grown = resident_bytes() - before
            assert grown < _MOST_GROWTH, f"{grown} bytes more"
            for each, sock in zip((mine, peer), connected(), strict=True):
                each.offer(sock)
            await _talk(*await asyncio.gather(mine.link(), peer.link()))
        finally:
            mine.end()
            peer.end()


async def _stranger(mine: Handshake, chance: Random) -> None:
    loop, (sock, stranger) = asyncio.get_running_loop(), connected()
    mine.offer(sock, named=False)
    piece, sent = chance.choice(_GARBAGE)(chance), 0
    with stranger:
        try:
            while sent < OF_EACH:
                await loop.sock_sendall(stranger, piece)
                sent += len(piece)
        except ConnectionError:
            return
    raise AssertionError("a stranger may send on and on")


async def _talk(*links: Link) -> None:
    pairs = [streams(link) for link in links]
    for (_, writer), (reader, _) in (pairs, pairs[::-1]):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
    for _, writer in pairs:
        writer.transport.abort()


@on_a_loop
async def cancellation(chance: Random) -> None:
    """Two sides bring several sockets up, and talk, and each is cancelled at any moment."""
    both = chance.choice((sessions, bare))()
    pairs = [chance.sample(connected(), 2) for _ in range(chance.randint(1, 4))]
    async with nothing_left():
        sides = zip(both, zip(*pairs, strict=True), strict=True)
        tasks = [asyncio.ensure_future(_side(*each)) for each in sides]
        for task in tasks:
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() / 100)
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()
        for sock in (sock for pair in pairs for sock in pair):
            if sock.fileno() >= 0:
                sock.close()


async def _side(session: Session, socks: tuple[socket.socket, ...]) -> None:
    """Raises: nothing but what ends a link of which the other side is gone."""
    handshake = Handshake(session)
    try:
        for sock in socks:
            handshake.offer(sock)
        reader, writer = streams(await handshake.link())
        try:
            with contextlib.suppress(LinkBroken, LinkError, asyncio.IncompleteReadError):
                writer.write(b"hello")
                await reader.readexactly(5)
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()
    finally:
        handshake.end()
