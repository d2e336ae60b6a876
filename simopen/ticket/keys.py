"""The private half of a ticket's key (X25519, RFC 7748): where it is, where it is not, and how long.

A private half is in this process's memory, or in the `store`'s file, which only this user can read. It is good for one
meeting: once a stream is up and proven it is dropped, and its file with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from simopen.errors import Flaw, SimopenError, TicketError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

NEW = "make a new one: simopen nat --ticket"


@contextlib.contextmanager
def _supported() -> Iterator[None]:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        yield
    except UnsupportedAlgorithm as error:
        raise SimopenError(
            f"no ticket can be made: the package cryptography has no X25519 on this host ({error})"
        ) from error


class PrivateKey:
    """The private half of one ticket's key.

    No repr and no JSON has it, and a pickle of it is None. A copy is the same object, so that it is spent once for all.
    """

    __slots__ = ("_key", "_when_spent")

    def __init__(self, key: X25519PrivateKey, when_spent: Callable[[], None] | None = None) -> None:
        self._key: X25519PrivateKey | None = key
        self._when_spent = when_spent

    @classmethod
    def new(cls) -> PrivateKey:
        """Of this system's random numbers. Raises: SimopenError where `cryptography` has no X25519."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        with _supported():
            return cls(X25519PrivateKey.generate())

    @classmethod
    def stored(cls, raw: bytes, when_spent: Callable[[], None] | None = None) -> PrivateKey:
        """As `raw` gave it. `when_spent`: called once it is. Raises: ValueError for other than 32 bytes."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        with _supported():
            return cls(X25519PrivateKey.from_private_bytes(raw), when_spent)

    def raw(self) -> bytes:
        """32 bytes, to be stored where only this user can read them. Raises: TicketError where it is spent."""
        return self._unspent().private_bytes_raw()

    def public(self) -> bytes:
        """What the ticket tells: 32 bytes. Raises: TicketError where it is spent."""
        return self._unspent().public_key().public_bytes_raw()

    def shared(self, theirs: bytes) -> bytes:
        """The X25519 result with the peer's public key, 32 bytes.

        Raises: TicketError where it is spent, or the peer's is one of the few that give everybody the same result.
        """
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        mine = self._unspent()
        try:
            return mine.exchange(X25519PublicKey.from_public_bytes(theirs))
        except ValueError as error:
            raise TicketError(Flaw.ALTERED, "its key is none; ask your peer for a new one") from error

    def spend(self) -> None:
        """Drop it: the meeting that it was for has taken place."""
        self._key = None
        when_spent, self._when_spent = self._when_spent, None
        if when_spent is not None:
            when_spent()

    def _unspent(self) -> X25519PrivateKey:
        if self._key is None:
            raise TicketError(Flaw.USED, f"a ticket is good for one meeting; {NEW}, on both sides")
        return self._key

    def __repr__(self) -> str:
        return f"<{'spent ' * (self._key is None)}private key>"

    def __reduce__(self) -> tuple[object, ...]:
        return type(None), ()

    def __copy__(self) -> PrivateKey:
        return self

    def __deepcopy__(self, _: object) -> PrivateKey:
        return self
