"""Transfers: cut on the way at any byte, killed and interrupted at any moment; each goes on from there, and is right.

What the two sides say goes through a relay. At the frame, and the byte of it, that chance has chosen, the relay cuts
both streams, or has one side ended, and passes on what follows from that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeAlias

from simopen.apps.transfer.api import LIMIT, offered, receive, send, telling
from simopen.apps.transfer.incoming import Incoming
from simopen.apps.transfer.messages import PIECE
from simopen.apps.transfer.outgoing import Outgoing
from simopen.errors import SimopenError, TransferError
from simopen.link.handshake import Handshake
from simopen.link.session import Session
from simopen.link.streams import streams
from tests.cli.test_send import code_of, rendezvous, started
from tests.link.peers import connected, sessions
from tests.soak.calls import nothing_left, on_a_loop

SENDER, RECEIVER = 0, 1
SAID_BY = {
    **dict.fromkeys(("offer", "folder", "file", "data", "end", "complete"), SENDER),
    **dict.fromkeys(("has", "accepted", "received"), RECEIVER),
}
TOP = "top"
_HEAD = 5
_MANY = 60  # small files

Streams: TypeAlias = tuple[StreamReader, StreamWriter]
Ends: TypeAlias = Sequence[Any]


class Tree(NamedTuple):
    """What is sent, and how many frames of each kind that takes where nothing of it has come before."""

    top: Path
    frames: dict[str, int]


class Point(NamedTuple):
    """In what one side says: the frame of this kind after `number` others, and how far into it."""

    kind: str
    number: int
    byte: Callable[[int], int]


@contextlib.contextmanager
def places(chance: Random) -> Iterator[tuple[Tree, Path]]:
    """A tree with files that are empty, small, many, and of several frames; and an empty folder to receive it in."""
    with tempfile.TemporaryDirectory() as name:
        top, into = Path(name) / "from" / TOP, Path(name) / "into"
        sizes = [0, 1, PIECE, PIECE + 1, chance.randrange(3 * PIECE)]
        sizes += [chance.randrange(100) for _ in range(chance.choice((0, _MANY)))]
        chance.shuffle(sizes)
        for folder in (top / "empty", top / "sub" / "e\u0301t\u00e9", into):
            folder.mkdir(parents=True)
        for number, size in enumerate(sizes):
            file = chance.choice((top, top / "sub", top / "sub" / "e\u0301t\u00e9")) / str(number)
            file.write_bytes(chance.randbytes(size))
        data = sum(-(-size // PIECE) for size in sizes)
        yield Tree(top, {"folder": 4, "file": len(sizes), "end": len(sizes), "data": data, "has": len(sizes)}), into


def point(chance: Random, tree: Tree, kind: str) -> Point:
    """Before the frame, after its first byte, around the end of its head, anywhere, before its last byte, after it."""
    far = chance.random()
    byte = chance.choice(
        (
            lambda length: 0,
            lambda length: 1,
            lambda length: min(_HEAD - 1, length),
            lambda length: min(_HEAD, length),
            lambda length: min(_HEAD + 1, length),
            lambda length: round(far * length),
            lambda length: length - 1,
            lambda length: length,
        )
    )
    return Point(kind, chance.randrange(tree.frames.get(kind, 1)), byte)


class Relay:
    """Between the sender and the receiver: passes frames on, and does something at a point.

    Attributes:
        reached: whether it came to the point.
        passed: bytes of files that it has passed on, in whole frames.
    """

    def __init__(self, where: Point | None, act: Callable[[Relay], Awaitable[object]]) -> None:
        self.reached = False
        self.passed = 0
        self._where, self._act = where, act
        self._before = 0
        self._ways: list[asyncio.Task[None]] = []
        self._ends: tuple[Streams, Streams] | None = None

    async def run(self, near: Streams, far: Streams) -> None:
        """Until both have ended, or are cut. `near` is the sender's."""
        self._ends = (near, far)
        self._ways = [
            asyncio.create_task(self._way(near, far, SENDER)),
            asyncio.create_task(self._way(far, near, RECEIVER)),
        ]
        try:
            await asyncio.gather(*self._ways, return_exceptions=True)
        finally:
            self.cut()

    def cut(self, *, reset: bool = False) -> None:
        """End both streams; by a reset, what has not been read yet is lost."""
        for way in self._ways:
            if way is not asyncio.current_task():
                way.cancel()
        for _, writer in self._ends or ():
            if reset and (sock := writer.get_extra_info("socket")) is not None and not writer.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                writer.transport.abort()
            writer.close()

    async def _way(self, source: Streams, sink: Streams, speaker: int) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await source[0].readexactly(_HEAD)
                raw = await source[0].readexactly(int.from_bytes(head[1:]))
                await self._frame(sink[1], head + raw, speaker)
        with contextlib.suppress(OSError):
            sink[1].write_eof()

    async def _frame(self, writer: StreamWriter, frame: bytes, speaker: int) -> None:
        is_data = frame[:1] == b"d"
        kind = "data" if is_data else json.loads(frame[_HEAD:])["is"]
        if self._where is not None and (kind, speaker) == (self._where.kind, SAID_BY[self._where.kind]):
            self._before += 1
            if not self.reached and self._before > self._where.number:
                byte = self._where.byte(len(frame))
                writer.write(frame[:byte])
                await writer.drain()
                self.reached = True
                self.passed += (len(frame) - _HEAD) * (is_data and byte == len(frame))
                await self._act(self)
                frame = frame[byte:]
                is_data = False
        writer.write(frame)
        await writer.drain()
        self.passed += (len(frame) - _HEAD) * is_data


async def _take(streams_: Streams, into: Path) -> int:
    async with telling(*streams_):
        offer = await offered(streams_[0])
        incoming = Incoming(offer, into)
    with incoming:
        return await receive(*streams_, incoming)


@contextlib.asynccontextmanager
async def _relayed() -> AsyncIterator[tuple[tuple[socket.socket, socket.socket], tuple[Streams, Streams]]]:
    """The two sides' sockets, and the relay's streams to them."""
    (ours, near), (theirs, far) = connected(), connected()
    ends = [await asyncio.open_connection(sock=sock, limit=LIMIT) for sock in (near, far)]
    try:
        yield (ours, theirs), (ends[0], ends[1])
    finally:
        for _, writer in ends:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        for sock in (ours, theirs):
            if sock.fileno() >= 0:
                sock.close()


class Crossing(NamedTuple):
    """What came of each side, sender's first; the bytes of files that passed, and those that were there before."""

    ends: Ends
    reached: bool
    passed: int
    skipped: int


async def crossed(
    tree: Tree,
    into: Path,
    where: Point | None = None,
    act: Callable[[Relay, list[asyncio.Task[Any]]], Awaitable[object]] | None = None,
) -> Crossing:
    """One transfer, from the first word to the last, or to what `act` does at the point."""
    outgoing = Outgoing([str(tree.top)])
    async with _relayed() as (socks, ends):
        ours, theirs = [await asyncio.open_connection(sock=sock, limit=LIMIT) for sock in socks]
        sides: list[asyncio.Task[Any]] = [
            asyncio.create_task(send(*ours, outgoing)),
            asyncio.create_task(_take(theirs, into)),
        ]

        async def acting(relay: Relay) -> None:
            if act is not None:
                await act(relay, sides)

        relay = Relay(where, acting)
        came, _ = await asyncio.gather(asyncio.gather(*sides, return_exceptions=True), relay.run(*ends))
    found = Crossing(came, relay.reached, relay.passed, outgoing.skipped)
    _check(tree, into, found)
    return found


def _check(tree: Tree, into: Path, found: Crossing) -> None:
    """Each side's end is one that can be told, and what has the final name is whole."""
    for end in found.ends:
        if isinstance(end, BaseException) and not isinstance(end, (SimopenError, OSError, asyncio.CancelledError)):
            raise end
    if (into / TOP).exists():
        assert same(tree.top, into / TOP), "what has the final name is not what was sent"
    assert all(name == TOP or name.startswith(".") for name in os.listdir(into)), os.listdir(into)
    if found.ends[SENDER] is None:
        assert (into / TOP).exists(), "the sender says that all is there"


def same(one: Path, other: Path) -> bool:
    """Whether both hold the same."""
    held = [
        {str(each.relative_to(top)): each.is_file() and each.read_bytes() for each in top.rglob("*")}
        for top in (one, other)
    ]
    return held[0] == held[1]


async def _to_the_end(tree: Tree, into: Path, before: int | None) -> None:
    """What broke goes on, where it is not whole. `before`: so many bytes are there, where that is certain."""
    if not (into / TOP).exists():
        last = await crossed(tree, into)
        assert last.ends[SENDER] is None, last.ends
        assert before is None or last.skipped == before, f"{last.skipped:,} bytes were kept, and {before:,} had come"
    assert same(tree.top, into / TOP)
    assert os.listdir(into) == [TOP]


@on_a_loop
async def cut(chance: Random) -> str:
    """Returns where: in which frame, of what is said inside of a link or not."""
    with places(chance) as (tree, into):
        kind, reset = chance.choice([*SAID_BY, "a link"]), chance.random() < 0.3

        async def act(relay: Relay, _: list[asyncio.Task[Any]]) -> None:
            relay.cut(reset=reset)

        async with nothing_left():
            before = 0
            if kind == "has" or chance.random() < 0.5:
                before = (await crossed(tree, into, point(chance, tree, "data"), _cut)).passed
            if kind == "a link":
                await _cut_in_a_link(tree, into, chance)
                await _to_the_end(tree, into, None)
                return kind
            found = await crossed(tree, into, point(chance, tree, kind), act)
            await _to_the_end(tree, into, None if reset else before + found.passed)
            return kind if found.reached else "nowhere"


async def _cut(relay: Relay, _: list[asyncio.Task[Any]]) -> None:
    relay.cut()


async def _cut_in_a_link(tree: Tree, into: Path, chance: Random) -> None:
    """At any byte of what the network sees of two proven ends, both ways together."""
    outgoing = Outgoing([str(tree.top)])
    async with _relayed() as (socks, (near, far)):
        left = sys.maxsize

        async def passing(source: Streams, sink: Streams) -> None:
            nonlocal left
            with contextlib.suppress(OSError):
                while left > 0 and (piece := await source[0].read(LIMIT)):
                    sink[1].write(piece[: max(0, left)])
                    left -= len(piece)
                    await sink[1].drain()
            for _, writer in (near, far):
                writer.close()

        ways = asyncio.gather(passing(near, far), passing(far, near))
        ours, theirs = await asyncio.gather(
            *(_linked(*each) for each in zip(sessions(chance.randbytes(32)), socks, strict=True))
        )
        left = chance.randrange(chance.choice((2000, 10_000, 100_000, 2_000_000)))
        came = await asyncio.gather(send(*ours, outgoing), _take(theirs, into), return_exceptions=True)
        await ways
    _check(tree, into, Crossing(came, reached=True, passed=0, skipped=outgoing.skipped))


async def _linked(session: Session, sock: socket.socket) -> Streams:
    handshake = Handshake(session, limit_s=60)
    try:
        handshake.offer(sock)
        return streams(await handshake.link(), limit=LIMIT)
    finally:
        handshake.end()


@on_a_loop
async def cancellation(chance: Random) -> str:
    """One side is cancelled, and the other hears of it. Returns who, and when."""
    with places(chance) as (tree, into):
        who, kind = chance.choice((SENDER, RECEIVER)), chance.choice(list(SAID_BY))

        async def act(_: Relay, sides: list[asyncio.Task[Any]]) -> None:
            sides[who].cancel()

        async with nothing_left():
            if kind == "has":
                await crossed(tree, into, point(chance, tree, "data"), _cut)
            found = await crossed(tree, into, point(chance, tree, kind), act)
            if isinstance(found.ends[who], asyncio.CancelledError) and not (into / TOP).exists():
                other = found.ends[1 - who]
                assert isinstance(other, TransferError), repr(other)
                assert "interrupted" in str(other), str(other)
            await _to_the_end(tree, into, None)
    if not found.reached:
        return "nobody"
    return f"{('sender', 'receiver')[who]} at {kind}"


@on_a_loop
async def killed(chance: Random) -> str:
    """One side's process is killed, and both meet again. Returns which, and when."""
    with places(chance) as (tree, into):
        who, kind = chance.choice((SENDER, RECEIVER)), chance.choice(list(SAID_BY))
        async with _relayed() as (socks, ends):
            sides = [
                await _process("send", str(tree.top), socks[0]),
                await _process("receive", str(into), socks[1]),
            ]

            async def act(_: Relay) -> None:
                with contextlib.suppress(ProcessLookupError):
                    sides[who].kill()
                await sides[who].wait()

            relay = Relay(point(chance, tree, kind), act)
            came, _ = await asyncio.gather(asyncio.gather(*(each.communicate() for each in sides)), relay.run(*ends))
        statuses = [each.returncode for each in sides]
        assert statuses[1 - who] in {0, 1}, (statuses, came)
        assert b"Traceback" not in came[1 - who][1], came
        done = [None if status == 0 else OSError() for status in statuses]
        _check(tree, into, Crossing(done, relay.reached, relay.passed, 0))
        await _to_the_end(tree, into, None)
    if not relay.reached:
        return "nobody"
    return f"{('sender', 'receiver')[who]} at {kind}"


async def _process(what: str, path: str, sock: socket.socket) -> Process:
    command = [sys.executable, "-m", "tests.soak.transferring", what, path, str(sock.fileno())]
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, pass_fds=[sock.fileno()]
        )
    finally:
        sock.close()


@on_a_loop
async def interrupted(chance: Random) -> str:
    """Ctrl-C at one of the two commands, once the offer has come; the other hears of it. Returns what came of it."""
    with places(chance) as (tree, into):
        (tree.top / "large").write_bytes(chance.randbytes(2**25))
        home = into.parent
        async with rendezvous() as via:
            sender = await started(home, "send", "--json", "--via", via, str(tree.top))
            code = await code_of(sender)
            receiver = await started(home, "receive", "--yes", "--into", str(into), "--via", via, code)
            before = await _said_until(receiver, b"receiving folder")  # so the sender is past the meeting, too
            await asyncio.sleep(chance.uniform(0, 0.5))  # a moment of chance
            who = chance.choice((SENDER, RECEIVER))
            sides = (sender, receiver)
            with contextlib.suppress(ProcessLookupError):
                sides[who].send_signal(signal.SIGINT)
            said = [out[1].decode() for out in await asyncio.gather(*(each.communicate() for each in sides))]
        said[RECEIVER] = before + said[RECEIVER]
        statuses = [each.returncode for each in sides]
        about = f"{statuses}: {said}"
        assert "Traceback" not in "".join(said), about
        assert statuses[who] in {0, 130, -signal.SIGINT}, about  # the last: as the interpreter ended, after all
        assert statuses[who] != -signal.SIGINT or (into / TOP).exists(), about
        assert statuses[1 - who] in {0, 1}, about
        done = [None if status == 0 else OSError() for status in statuses]
        _check(tree, into, Crossing(done, reached=True, passed=0, skipped=0))
        if statuses[1 - who] == 1:
            assert "interrupted" in said[1 - who], about
        if [name for name in os.listdir(into) if name != TOP]:
            assert "is kept in" in said[RECEIVER], about
        await _to_the_end(tree, into, None)
        return f"{('sender', 'receiver')[who]}: {'whole' if statuses == [0, 0] else 'went on'}"


async def _said_until(command: Process, word: bytes) -> str:
    assert command.stderr is not None
    said = b""
    while word not in said and (line := await command.stderr.readline()):
        said += line
    return said.decode()
