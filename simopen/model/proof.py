"""How a link came up: which part this side had, and how long each step took. A value; no key is in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass


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
