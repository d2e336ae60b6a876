"""SPAKE2 (RFC 9382) behind a seam: two sides that know one secret come to one key; who guesses has one guess.

Theory of operation: the two send each other one message of exactly 33 bytes. What the library raises for bad input
(AssertionError, ValueError and errors of its own) is one error here, and a byte too many, which it takes, is bad input.
Pure Python, and so 3 to 10 ms of the interpreter's lock for each half: it runs long before the shot, in a thread.
"""

from __future__ import annotations

from copy import copy
from typing import Any

MESSAGE_BYTES = 33
_LABEL = b"simopen meet 1\0"


class BadMessage(ValueError):  # noqa: N818 - says what it is
    """What came is no message of SPAKE2, or this side's own."""


class Pake:
    """One side of one exchange. `message` goes to the peer; the secret is in no repr."""

    __slots__ = ("_begun", "message")

    def __init__(self, secret: bytes, room: str) -> None:
        from spake2 import SPAKE2_Symmetric

        self._begun: Any = SPAKE2_Symmetric(secret, idSymmetric=_LABEL + room.encode())
        self.message: bytes = self._begun.start()

    def finish(self, theirs: bytes) -> bytes:
        """The key, 32 bytes: the same on both sides if the secrets are. Each call is one guess of the peer's.

        Raises: BadMessage.
        """
        if len(theirs) != MESSAGE_BYTES:
            raise BadMessage(f"a message of the key exchange has {MESSAGE_BYTES} bytes, not {len(theirs)}")
        if theirs == self.message:
            raise BadMessage("this side's own message was sent back")
        try:
            key: bytes = copy(self._begun).finish(theirs)  # which can be asked once; what it has is never changed
        except Exception as error:  # AssertionError and ValueError among them; there is no list of them
            raise BadMessage(f"no message of the key exchange ({type(error).__name__})") from error
        return key
