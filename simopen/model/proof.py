"""How a link came up: which part this side had, and how long each step took; or why a stream became none.

Values; no key is in them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum


class Reason(Enum):
    """Why a stream is no link with the peer."""

    OTHER_KEY = "it has another key, or means another session"
    NO_CERTIFICATE = "it proves nothing: it has no key"
    NO_LINK = "it does not speak this protocol"
    SAME_ROLE = "it begins, as this side does: both hold one and the same side's ticket or word"
    OWN = "it says what this very program says: somebody sends that back, or joins two of its streams"
    TOO_MUCH = "it sent too much, and proved nothing"
    SILENT = "it proved nothing in time"
    GONE = "it closed the stream before it proved anything"
    NOT_CHOSEN = "it proved the key, and then closed the stream or chose no stream in time"
    NO_ROOM = "this host had no memory or no descriptor left to verify it"


@dataclass(frozen=True, slots=True)
class Proof:
    """Both ends have proven the key. Durations are in seconds.

    Attributes:
        role: this side's, `initiator` or `responder`.
        cipher: TLS's name for it.
        nonce_s: from the stream's coming up to the peer's nonce; None where the session was known before.
        proof_s: from then to the peer's proof.
        choice_s: from then until the choice was made here, or had come.
    """

    role: str
    cipher: str
    nonce_s: float | None
    proof_s: float
    choice_s: float

    @property
    def took_s(self) -> float:
        """All steps together."""
        return (self.nonce_s or 0.0) + self.proof_s + self.choice_s

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)
