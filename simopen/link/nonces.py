"""What two sides that share only a key say first, so that it is of this session: 16 random bytes each way.

Theory of operation. Pure. Both enter the session's context, and the larger one's owner is the initiator. One nonce is
for a whole call, the same on all of its sockets: an attacker who connects two sockets of one side to each other then
has that side meet its own nonce, and it refuses. (With one a socket, it would prove the key to itself.) The same goes
for two calls of one program, with one key: which nonces are its own, it knows (`own_nonces.py`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from simopen.link.session import Kind, Session

NONCE_BYTES = 16


def new_nonce() -> bytes:
    """One for a call."""
    return secrets.token_bytes(NONCE_BYTES)


class Nonces:
    """One socket's exchange. What is to be sent is `mine`; feed what comes.

    `is_own`: whether a nonce that comes is another call's of this program.
    """

    def __init__(self, bare: Session, mine: bytes, is_own: Callable[[bytes], bool] = lambda _: False) -> None:
        self.mine = mine
        self._bare = bare
        self._is_own = is_own
        self._theirs = b""

    def feed(self, data: bytes) -> tuple[Session | None, bytes]:
        """The session, once the peer's nonce is complete, and what came after it.

        Raises:
            ValueError: it is this side's own, or this program's.
        """
        self._theirs += data
        if len(self._theirs) < NONCE_BYTES:
            return None, b""
        theirs, rest = self._theirs[:NONCE_BYTES], self._theirs[NONCE_BYTES:]
        if self._is_own(theirs):
            raise ValueError("another call of this program has sent that")
        return Session.between(Kind.NONCES, self._bare.key, self.mine, theirs), rest
