"""Meetings by a code, of which one side is cancelled at any moment."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from random import Random

import simopen
from simopen.errors import LinkBroken, PeerLeft
from simopen.model.event import Event
from simopen.rendezvous.sealing import SEALED_BYTES
from simopen.signalling.base import Message, Mood
from tests.fake_stun import FakeStun
from tests.rendezvous.rooms import Rooms, Side
from tests.soak.calls import nothing_left, on_a_loop

CODE = "7-croissant-zucchini"
MOMENTS = 72
"""Steps of both sides and messages between them: a meeting has some sixty, so some are not cancelled at all."""
_MOST_TURNS = 4


class Slow:
    """A side of a room that lets others run before and after each thing it does: there it can be cancelled."""

    def __init__(self, side: Side, meeting: Meeting) -> None:
        self._side, self._meeting = side, meeting
        self.welcome = side.welcome

    async def allocate(self) -> str:
        await asyncio.sleep(0)
        return await self._side.allocate()

    async def enter(self, room: str) -> None:
        await asyncio.sleep(0)
        await self._side.enter(room)
        await asyncio.sleep(0)

    async def send(self, phase: str, body: bytes) -> None:
        await asyncio.sleep(0)
        await self._side.send(phase, body)
        self._meeting.passes()
        await asyncio.sleep(0)

    async def receive(self) -> Message:
        return await self._side.receive()

    async def close(self, mood: Mood) -> None:
        await asyncio.sleep(0)
        await self._side.close(mood)


class Meeting:
    """Two sides, `goes` and `stays`, and when the first of them is cancelled: after so many steps and messages."""

    def __init__(self, servers: list[str], moment: int, turns: int | None) -> None:
        self._rooms, self._servers = Rooms(), servers
        self._left, self._turns = moment, turns
        self._has_come = asyncio.Event()
        self.goes: asyncio.Task[tuple[StreamReader, StreamWriter]] | None = None
        self._sides: list[Side] = []

    def passes(self, _: Event | None = None) -> None:
        """A step, or a message. Without `turns` it cancels from inside of what happens."""
        self._left -= 1
        if self._left == 0:
            self._has_come.set()
            if self._turns is None and self.goes is not None:
                self.goes.cancel()

    @contextlib.asynccontextmanager
    async def _side(self) -> AsyncIterator[Slow]:
        async with self._rooms.side() as side:
            self._sides.append(side)
            yield Slow(side, self)

    def said_by(self, number: int) -> list[Message]:
        """What that side has said, if it came so far."""
        return self._sides[number].sent if number < len(self._sides) else []

    def start(self) -> asyncio.Task[tuple[StreamReader, StreamWriter]]:
        """One more side."""
        met = simopen.meet(CODE, via=self._side, servers=self._servers, on_event=self.passes)
        return asyncio.ensure_future(met)

    async def cancelled(self, goes: asyncio.Task[tuple[StreamReader, StreamWriter]]) -> None:
        """Once its moment has come; or it has ended before."""
        self.goes = goes
        coming = asyncio.ensure_future(self._has_come.wait())
        await asyncio.wait({coming, goes}, return_when=asyncio.FIRST_COMPLETED)
        coming.cancel()
        if self._has_come.is_set() and self._turns is not None:
            for _ in range(self._turns):
                await asyncio.sleep(0)
            goes.cancel()
        await asyncio.wait({coming, goes})


@on_a_loop
async def cancellation(chance: Random) -> None:
    """Who is cancelled ends at once, the peer hears of it or is met by the next one, and nothing is left."""
    turns = None if chance.random() < 0.3 else chance.randrange(_MOST_TURNS)
    async with FakeStun() as one, FakeStun() as other, nothing_left():
        meeting = Meeting([one.name, other.name], chance.randrange(1, MOMENTS), turns)
        goes_first = chance.random() < 0.5
        sides = [meeting.start(), meeting.start()]
        goes, stays = sides if goes_first else sides[::-1]
        await meeting.cancelled(goes)
        if not goes.cancelled():
            await _closed(await goes, await stays)
            return
        said = meeting.said_by(0 if goes_first else 1)
        if any(len(each.body) == SEALED_BYTES for each in said):
            await _heard_of_it(stays)
        elif said:  # it is gone before it could say that it knows the code: its peer waits on
            stays.cancel()
            await asyncio.wait({stays})
        else:
            await _closed(*await asyncio.gather(stays, meeting.start()))


async def _heard_of_it(stays: asyncio.Task[tuple[StreamReader, StreamWriter]]) -> None:
    """By its error; or by the stream's end, where it had the stream already."""
    [ended] = await asyncio.gather(stays, return_exceptions=True)
    if isinstance(ended, PeerLeft):
        assert "interrupted" in str(ended), ended
        return
    reader, writer = stays.result()
    with contextlib.suppress(LinkBroken, OSError):
        assert await reader.read() == b""
    writer.transport.abort()


async def _closed(*streams: tuple[StreamReader, StreamWriter]) -> None:
    for _, writer in streams:
        writer.transport.abort()
    for _, writer in streams:
        with contextlib.suppress(OSError):
            await writer.wait_closed()
