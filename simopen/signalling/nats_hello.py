"""The hello that two sides of a room at NATS say and answer: who says it, how much it has heard, and what it is for.

Theory of operation. One short line of text, as whoever looks at a subject of NATS's expects. It is not sealed: nodes
see as much by themselves. Whoever may use NATS may say anything, so what is no hello is none.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_SIDE_MOST = 40


class Word(StrEnum):
    """What a hello is for, and what is answered.

    `TRIES`: is the number free? `MAKES`: as `COMES`, of who has made the number; `LOOKS`: only whether somebody is
    there; `LEAVES`: has the other side heard all?
    """

    TRIES = "tries"
    COMES = "comes"
    MAKES = "makes"
    LOOKS = "looks"
    LEAVES = "leaves"
    WELCOME = "welcome"
    CROWDED = "crowded"


@dataclass(frozen=True, slots=True)
class Hello:
    """`side`: whose; `heard`: how many of the other side's messages it has."""

    side: str
    heard: int
    word: Word

    def encoded(self) -> bytes:
        """As it is sent."""
        return f"{self.side} {self.heard} {self.word}".encode()


def read_hello(data: bytes) -> Hello | None:
    """None: it is none."""
    try:
        side, heard, word = data.decode("ascii").split(" ")
        hello = Hello(side, int(heard), Word(word))
    except ValueError:
        return None
    return hello if side.isalnum() and len(side) <= _SIDE_MOST and hello.heard >= 0 else None
