"""How many SYNs and file descriptors a plan's shots take, and the shots that are added to them or cut off.

Pure: shots in, shots and numbers out. Which ones to fire is `plan.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from simopen.model.shot import Shot

MOST_SYNS = 64
"""SYNs of a punch that does not spray, those after a RST included."""
MOST_RESENDS = 9
"""Of one unanswered SYN: as often as Linux sends it again within a window of 10 s, and some more."""
SPRAY_INTERVAL_NS = 2_250_000  # 444 a second
FIRST_NS, FIRST_LASTS_NS = 500_000_000, 300_000_000
"""More than clocks are apart that somebody keeps, and less than the 1 s after which a kernel sends its SYN again."""
_SPARE_DESCRIPTORS = 32  # streams that strangers bring, the clock's sockets


def opened_first(shots: tuple[Shot, ...], ttl: int) -> tuple[Shot, ...]:
    """The shots, and before the instant one for each that is due at it, which goes no further than `ttl` hops.

    That opens this side's own NAT and does not reach the peer's. A peer who then fires a little early is let in by our
    NAT, which might otherwise answer with a RST, close a mapping, or shut the peer out.
    """
    due = (shot for shot in shots if shot.after_ns <= 0 and not shot.once)
    first = (replace(shot, after_ns=-FIRST_NS, once=True, lasts_ns=FIRST_LASTS_NS, ttl=ttl) for shot in due)
    return (*first, *shots)


def rationed(shots: Iterable[Shot], most: int = MOST_SYNS) -> tuple[tuple[Shot, ...], int, int]:
    """What of the shots may be fired where at most so many SYNs leave, those that the kernel sends again among them.

    With it: how many are left to answer refusals with, and how often the kernel may send again each that lasts. The
    best shots come first, so what does not fit is cut off at the end.
    """
    kept = tuple(shots)[:most]
    while len(kept) + _lasting(kept) > most:
        kept = kept[:-1]
    spare, lasting = most - len(kept), _lasting(kept)
    resends = min(MOST_RESENDS, max(1, spare // (2 * lasting))) if lasting else 0
    return kept, spare - resends * lasting, resends


def _lasting(shots: tuple[Shot, ...]) -> int:
    return sum(shot.lasts_ns is None for shot in shots)


def most_at_once(shots: Iterable[Shot]) -> int:
    """How many file descriptors they take, each local port with a listener."""
    shots = tuple(shots)
    lasting = [shot for shot in shots if shot.lasts_ns is None]
    passing = max((shot.lasts_ns or 0 for shot in shots), default=0) // SPRAY_INTERVAL_NS
    return len(lasting) + min(passing, len(shots)) + len({shot.local_port for shot in shots}) + _SPARE_DESCRIPTORS
