"""Hashcash stamps (version 1), which a rendezvous under attack may ask for: proof that this side has spent some time.

http://hashcash.org/docs/hashcash.html. Pure; the search is cut into slices, so that its caller can do other things.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

BITS_MOST = 24
"""Hashcash's own default is 20, about a second of Python; each bit more doubles it, and 24 take about 20 s."""
_SLICE = 2_000
"""Hashes in one go, about two milliseconds."""
_RESOURCE_MOST = 256


@dataclass(frozen=True, slots=True)
class Challenge:
    """What is asked for: a stamp for this resource whose SHA-1 begins with so many zero bits.

    Raises: ValueError for what no stamp can be made for, or none in reasonable time.
    """

    bits: int
    resource: str

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 0 <= self.bits <= BITS_MOST:
            raise ValueError(f"a stamp of more than {BITS_MOST} bits, or of a number of bits that is none")
        if not isinstance(self.resource, str) or ":" in self.resource or len(self.resource) > _RESOURCE_MOST:
            raise ValueError("a stamp for a resource that cannot be named in one")
        if not (self.resource.isascii() and self.resource.isprintable()):
            raise ValueError("a stamp for a resource that cannot be named in one")


def stamps(challenge: Challenge, date: str, salt: str) -> Iterator[str | None]:
    """The stamp, after as many None as it takes. `date`: YYMMDD, UTC; `salt`: random: no stamp is used twice."""
    head = f"1:{challenge.bits}:{date}:{challenge.resource}::{salt}:"
    begun = hashlib.sha1(head.encode(), usedforsecurity=False)
    for start in itertools.count(0, _SLICE):
        for number in range(start, start + _SLICE):
            tried = begun.copy()
            tried.update(b"%x" % number)
            if zero_bits(tried.digest()) >= challenge.bits:
                yield f"{head}{number:x}"
                return
        yield None


def zero_bits(digest: bytes) -> int:
    """How many zero bits it begins with."""
    return len(digest) * 8 - int.from_bytes(digest, "big").bit_length()
