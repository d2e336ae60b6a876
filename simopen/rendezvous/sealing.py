"""Sealed messages: nobody but the two reads, alters, swaps or counts anything by what the rendezvous passes on.

Theory of operation: pure. Of the PAKE's key each direction gets one of its own (HKDF-SHA256, RFC 5869), and so does the
link. A message is ChaCha20-Poly1305 (RFC 8439): its number is the nonce, its phase, which says who sends, to whom, and
which number, is associated data. All are filled up to one length, so lengths tell nothing.

What comes may be repeated, reordered or somebody else's. `Channel.take` gives the peer's messages in the order in which
they were sealed, each once. What does not open is told, where it is the first one: then the keys differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from simopen.rendezvous.pake import MESSAGE_BYTES

BODY_BYTES = 640
"""The longest ticket has 408 characters, and comes with its round."""
SEALED_BYTES = 2 + BODY_BYTES + 16
MOST_AHEAD = 256
"""Messages that are kept until an earlier one comes: a meeting has some forty."""
_LABEL = b"simopen meet 1\0"
_PHASE = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})-([0-9]{1,6})", re.ASCII)
_PAKE = re.compile(r"([0-9a-f]{16})-pake", re.ASCII)


def pake_phase(mine: str) -> str:
    """Of the message that begins: 33 bytes in the clear. `mine`: 16 hex digits, new for each meeting of each side."""
    return f"{mine}-pake"


def pake_of(phase: str, body: bytes) -> str | None:
    """Who begins with this; None: that is no such message."""
    match = _PAKE.fullmatch(phase)
    return match[1] if match and len(body) == MESSAGE_BYTES else None


class Unopened(ValueError):  # noqa: N818 - says what it is
    """It was sealed with another key, altered, or is somebody else's."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Three keys of one PAKE, 32 bytes each: what this side seals, what it opens, and the link's."""

    mine: bytes = field(repr=False)
    theirs: bytes = field(repr=False)
    link: bytes = field(repr=False)

    @classmethod
    def derived(cls, key: bytes, mine: str, theirs: str) -> Keys:
        """`key`: the PAKE's; `mine` and `theirs`: who the two are."""
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        pair = "".join(sorted((mine, theirs)))

        def made(what: str) -> bytes:
            info = _LABEL + f"{what}\0{pair}".encode()
            return HKDF(SHA256(), 32, salt=None, info=info).derive(key)

        return cls(made(f"from {mine}"), made(f"from {theirs}"), made("link"))


class Channel:
    """One side of what is sealed between two."""

    def __init__(self, key: bytes, mine: str, theirs: str) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        keys = Keys.derived(key, mine, theirs)
        self.link_key = keys.link
        self.mine, self.theirs = mine, theirs
        self._sealing, self._opening = ChaCha20Poly1305(keys.mine), ChaCha20Poly1305(keys.theirs)
        self._sent = self._taken = 0
        self._ahead: dict[int, tuple[bytes, bytes]] = {}

    @property
    def is_confirmed(self) -> bool:
        """Whether a message of the peer's has opened: it has the same key."""
        return bool(self._taken or self._ahead)

    def seal(self, body: bytes) -> tuple[str, bytes]:
        """The next message: its phase, and its bytes. Raises: ValueError for more than 640 bytes."""
        if len(body) > BODY_BYTES:
            raise ValueError(f"a message has at most {BODY_BYTES} bytes, not {len(body)}")
        phase, number = f"{self.mine}-{self.theirs}-{self._sent}", self._sent
        self._sent += 1
        filled = len(body).to_bytes(2) + body.ljust(BODY_BYTES, b"\0")
        return phase, self._sealing.encrypt(number.to_bytes(12), filled, _LABEL + phase.encode())

    def is_for_us(self, phase: str) -> bool:
        """Whether it says that it is this peer's, to this side."""
        match = _PHASE.fullmatch(phase)
        return match is not None and (match[1], match[2]) == (self.theirs, self.mine)

    def take(self, phase: str, sealed: bytes) -> list[tuple[bytes, bytes]]:
        """What can be read now, in the order of sealing: (what was sealed, the message as it came) each.

        Nothing for a repetition, or where one that was sealed earlier is missing.

        Raises: Unopened.
        """
        match = _PHASE.fullmatch(phase)
        if match is None or not self.is_for_us(phase) or len(sealed) != SEALED_BYTES:
            raise Unopened("it is none of this peer's, to this side")
        number = int(match[3])
        if str(number) != match[3]:
            raise Unopened("its number has more than one spelling")
        if not self._taken <= number < self._taken + MOST_AHEAD or number in self._ahead:
            return []
        self._ahead[number] = self._opened(number, phase, sealed), sealed
        ready = []
        while self._taken in self._ahead:
            ready.append(self._ahead.pop(self._taken))
            self._taken += 1
        return ready

    def _opened(self, number: int, phase: str, sealed: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            filled = self._opening.decrypt(number.to_bytes(12), sealed, _LABEL + phase.encode())
        except InvalidTag as error:
            raise Unopened("it was sealed with another key, or altered") from error
        length = int.from_bytes(filled[:2])
        if length > BODY_BYTES:
            raise Unopened("its length is none")
        return filled[2 : 2 + length]
