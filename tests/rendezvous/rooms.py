"""Rooms in memory: what a rendezvous does for two, without a network; and one that does what it should not.

What it cannot represent: connections that are lost, and a server that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from simopen.errors import RoomCrowded
from simopen.signalling.base import Message, Mood, Welcome

Meddle = Callable[[Message], Iterator[Message]]
"""A message of one side's -> what the other side gets for it."""


def faithful(message: Message) -> Iterator[Message]:
    yield message


@dataclass
class _Place:
    """One side of a room's: what waits for it, how it left."""

    waiting: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    sent: list[Message] = field(default_factory=list)
    mood: Mood | None = None


class Rooms:
    """`rooms.side` opens a `Signaller`. `meddle`: what becomes of each message; `moods`: how each side has left.

    `strict`: a phase that is used twice is a fault.
    """

    def __init__(self, meddle: Meddle = faithful, welcome: Welcome | None = None) -> None:
        self.meddle, self.welcome = meddle, welcome or Welcome()
        self.rooms: dict[str, list[_Place]] = {}
        self.passed: list[Message] = []
        self.moods: list[Mood] = []
        self.strict = True
        self.changed = asyncio.Event()
        self._numbers = count(1)

    def number(self) -> str:
        return str(next(self._numbers))

    @contextlib.asynccontextmanager
    async def side(self) -> AsyncIterator[Side]:
        side = Side(self)
        try:
            yield side
        finally:
            await side.close(Mood.ERRORED)


class Side:
    """A `Signaller`."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms, self._place = rooms, _Place()
        self._room: list[_Place] = []

    @property
    def sent(self) -> list[Message]:
        """What it has said so far."""
        return self._place.sent

    @property
    def welcome(self) -> Welcome:
        return self._rooms.welcome

    async def allocate(self) -> str:
        return self._rooms.number()

    async def enter(self, room: str) -> None:
        self._room = self._rooms.rooms.setdefault(room, [])
        if sum(place.mood is None for place in self._room) == 2:
            raise RoomCrowded("two are in it")
        for other in self._room:
            for message in other.sent:
                self._place.waiting.put_nowait(message)
            for message in self._place.sent:
                other.waiting.put_nowait(message)
        self._room.append(self._place)
        self._rooms.changed.set()

    async def send(self, phase: str, body: bytes) -> None:
        assert not self._rooms.strict or all(each.phase != phase for each in self._place.sent)
        for message in self._rooms.meddle(Message(phase, body)):
            self._place.sent.append(message)
            self._rooms.passed.append(message)
            for other in self._room:
                if other is not self._place:
                    other.waiting.put_nowait(message)

    async def receive(self) -> Message:
        return await self._place.waiting.get()

    async def close(self, mood: Mood) -> None:
        if self._place.mood is None and self._place in self._room:
            self._place.mood = mood
            self._rooms.moods.append(mood)
            self._rooms.changed.set()
