"""What two sides share before they have a socket: a key, what this session is, and who begins.

Theory of operation. Pure. A key alone would prove only that the other end knows it: a recording of an earlier session,
or this side's own other socket, would do as well. So everything that is derived from the key depends on the context,
too: a hash of what both sides have said for this one session, each of them something that was never said before.
The same two texts, compared, say which side is the initiator, where nothing else does. Both sides so know it without a
word.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn

LABEL = b"simopen link 1\0"
"""Opens all that is hashed or derived, so that nothing made for another purpose, or version, can be taken for it."""
KEY_BYTES = 32
LEAST_KEY_BYTES = 16
"""128 bits: whoever dials a responder sees what the key makes, and can try keys on that at leisure."""


class Role(StrEnum):
    """Which side begins: the initiator is TLS's client, and chooses the socket; the responder is its server."""

    INITIATOR = "initiator"
    RESPONDER = "responder"

    @property
    def other(self) -> Role:
        """The peer's."""
        return Role.RESPONDER if self is Role.INITIATOR else Role.INITIATOR


class Kind(StrEnum):
    """What the two sides have said for this session, and so what the context is a hash of."""

    TICKETS = "tickets"
    HELLOS = "hellos"
    NONCES = "nonces"


@dataclass(frozen=True, slots=True)
class Session:
    """What a link is made from. The key is in no repr, and no session can be pickled.

    Attributes:
        key: 32 bytes that both sides have; of a bare key's user, 16 or more.
        context: 32 bytes, the same on both sides, of this session alone; empty where `role` is None.
        role: this side's; None where two sides share only a key: each socket's nonces then tell (`nonces.py`).
    """

    key: bytes = field(repr=False)
    context: bytes = b""
    role: Role | None = None

    def __post_init__(self) -> None:
        if (self.role is None) is not (self.context == b""):
            raise ValueError("a role goes along with a context: both, or for a bare key neither")

    def __reduce_ex__(self, _: object) -> NoReturn:
        """Refuse: what was pickled is where nobody looks for a key."""
        raise TypeError("a session holds a secret key, and cannot be pickled or copied")

    @classmethod
    def bare(cls, key: bytes | bytearray | memoryview) -> Session:
        """Of two sides that share a key, and nothing of this session.

        Raises:
            TypeError: not bytes.
            ValueError: less than 16 of them.
        """
        return cls(checked(key))

    @classmethod
    def between(cls, kind: Kind, key: bytes, mine: bytes, theirs: bytes, *, begins: bool | None = None) -> Session:
        """Of what each side has said. `mine` and `theirs`: the bytes that the peer has as `theirs` and `mine`.

        `begins`: whether this side is the initiator, as both know; None: whoever has said the greater text is.

        Raises:
            ValueError: the two are equal: they are this side's own, sent back.
        """
        if mine == theirs:
            raise ValueError(f"both {kind.value} are the same: this side's own")
        if begins is None:
            begins = mine > theirs
        texts = (mine, theirs) if begins else (theirs, mine)
        return cls(key, context(kind, *texts), Role.INITIATOR if begins else Role.RESPONDER)


def new_key() -> bytes:
    """A new key for `connect(..., key=)`: 32 random bytes. The peer needs the same; whoever else has it can be taken
    for either of you."""
    return secrets.token_bytes(KEY_BYTES)


def checked(key: object) -> bytes:
    """The key as bytes. Raises: TypeError, ValueError. Neither says the key."""
    if not isinstance(key, (bytes, bytearray, memoryview)):
        raise TypeError(f"key must be bytes, as simopen.new_key() makes them, not {type(key).__name__}")
    told = bytes(key)
    if len(told) < LEAST_KEY_BYTES:
        raise ValueError(
            f"key must be at least {LEAST_KEY_BYTES} random bytes, not {len(told)}: whoever connects to this port can "
            f"try shorter ones, or words, until one fits, without asking again; simopen.new_key() makes one"
        )
    return told


def context(kind: Kind, initiators: bytes, responders: bytes) -> bytes:
    """SHA-256 of what kind of texts they are, and of the initiator's and the responder's, each after its length."""
    digest = hashlib.sha256(LABEL + kind.value.encode() + b"\0")
    for text in (initiators, responders):
        digest.update(len(text).to_bytes(4, "big") + text)
    return digest.digest()
