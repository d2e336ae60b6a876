"""What two peers need of a rendezvous: a room for two, and messages that pass between them.

Theory of operation. `Signaller` is all that a meeting knows of a rendezvous. Whoever runs the rendezvous is not
trusted: he may drop, repeat, reorder or alter what is sent, or let a stranger in. A Signaller keeps the connection;
that the peer is the peer is proven by those who use it, who seal and number what they send.

Pure.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from simopen.model.server import Server

APP_ID = "simopen.org/meet/1"
"""Rooms of other programs on the same server are apart from ours."""
BODY_MOST = 16_384
"""Bytes of one message's body. A meeting's have some hundred. Our server takes 64 KiB, in which a body is in hex."""


class Mood(StrEnum):
    """How it went, in the mailbox protocol's words: an operator's statistics, and nothing else."""

    HAPPY = "happy"
    LONELY = "lonely"
    SCARED = "scary"
    ERRORED = "errory"


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a rendezvous says of itself. `motd`: a line for the user; `stun`: STUN servers that it recommends.

    Both are somebody else's words: escaped before a terminal shows them, and one policy holds for the servers.
    """

    motd: str | None = None
    stun: tuple[Server, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One of the peer's: own echoes and repeats are left out. Nothing is said of the order."""

    phase: str
    body: bytes


class Signaller(Protocol):
    """A connection to a rendezvous, for one side of one meeting.

    Every method but `close` raises `SignallingError`: `RendezvousUnreachable` where it is gone for good.
    """

    @property
    def welcome(self) -> Welcome:
        """What the rendezvous has said of itself."""

    async def allocate(self) -> str:
        """The number of a free room, which is taken by this. Enter it afterwards."""

    async def enter(self, room: str) -> None:
        """Go into a room, and stay.

        Raises:
            RoomCrowded: two are in it already.
            ValueError: it is no number.
        """

    async def send(self, phase: str, body: bytes) -> None:
        """Give a message to the rendezvous; before the room is entered, keep it for that. A phase has one message.

        It is sent again after a lost connection, until the rendezvous has it. Returning does not say that the peer
        has read it.

        Raises:
            ValueError: the body is longer than `BODY_MOST`, or the phase was used before.
        """

    async def receive(self) -> Message:
        """The peer's next message, in the order of arrival, whenever it comes. Cancelling loses none."""

    async def close(self, mood: Mood) -> None:
        """Leave the room, which is free once both have left. Doing it again does nothing."""


class Visitor(Signaller, Protocol):
    """A Signaller that is yet to be connected."""

    async def begin(self) -> None:
        """Connect. Raises: SignallingError."""

    async def end(self) -> None:
        """Let go of the connection and of all tasks, whatever has happened."""


V = TypeVar("V", bound=Visitor)


@contextlib.asynccontextmanager
async def visiting(signaller: V) -> AsyncIterator[V]:
    """Connected while inside. Leaving leaves the room too."""
    try:
        await signaller.begin()
        try:
            yield signaller
        except BaseException:
            await signaller.close(Mood.ERRORED)
            raise
        await signaller.close(Mood.LONELY)
    finally:
        await signaller.end()


def check_room(room: str) -> str:
    """A room's number, as the protocol has it: at most 40 digits.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(room, str) or not 0 < len(room) <= 40 or not (room.isascii() and room.isdecimal()):
        raise ValueError(f"a room is named by a number of at most 40 digits, not {room!r:.60}")
    return room


def check_body(body: bytes) -> bytes:
    """A body that every rendezvous takes.

    Raises:
        ValueError: it is too long.
    """
    if len(body) > BODY_MOST:
        raise ValueError(f"a message has at most {BODY_MOST} bytes, not {len(body)}")
    return body
