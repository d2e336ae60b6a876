"""What two tickets come to, on either side the same: when both fire, whether they may spray, and what a link proves.

Theory of operation: each ticket holds an X25519 public key (RFC 7748). Either side works out the same 32 bytes from its
own private half and the other's ticket, and nobody else can: who reads the chat sees two public keys, who alters a
ticket on the way has another key or another context, and the link fails. So who passes it is the ticket's maker.

The key is HKDF-SHA256 (RFC 5869, no salt) over the X25519 result, 32 bytes; `info` is the label and both public keys,
the lower first. Context and role follow from both whole tickets as bytes (`link.session`): the owner of the higher one
is the initiator. tests/vectors/tickets.json has examples.
"""

from __future__ import annotations

from datetime import UTC, datetime

from simopen.errors import Flaw, TicketError
from simopen.link.session import KEY_BYTES, Kind, Session
from simopen.model.wording import span
from simopen.ticket.codec import Ticket, check_instant
from simopen.ticket.keys import NEW

LATE_S = 10
"""A ticket is good for so long after its instant: the window in which `connect` tries unless told otherwise."""
FARTHEST_S = 366 * 86_400
"""A ticket for an instant further away than this is a mistake: nobody holds a mapping for a year."""
_LABEL = b"simopen ticket 2\0"


def later_instant(mine: Ticket, theirs: Ticket) -> int:
    """When both sides fire: the later of the two instants, UTC seconds, so that each comes to the same.

    Raises: TicketError where the two are one and the same ticket; ValueError for an instant that no ticket can hold.
    """
    check_instant(mine)
    check_instant(theirs)
    if mine == theirs or mine.key == theirs.key:
        raise TicketError(Flaw.OWN, "give the one that your peer's `simopen nat --ticket` printed")
    return max(mine.instant, theirs.instant)


def agreed_instant(mine: Ticket, theirs: Ticket, now: float, window_s: float = LATE_S) -> int:
    """When both sides fire, as `later_instant` says, where that can still be. All in UTC seconds.

    `now`: true time, as far as it is known. `window_s`: for how long after the instant this side fires.

    Raises: TicketError where that is over, or years away, or the two are one and the same ticket.
    """
    instant = later_instant(mine, theirs)
    if now > instant + window_s:
        raise TicketError(Flaw.EXPIRED, f"its instant was {span(now - instant)} ago; {_NEW_ONES}")
    if instant - now > FARTHEST_S:
        year = datetime.fromtimestamp(instant, UTC).year
        raise TicketError(Flaw.FAR_AHEAD, f"its instant is in the year {year}; is a clock wrong? {_NEW_ONES}")
    return instant


_NEW_ONES = "make new ones on both sides, with more time: simopen nat --ticket --at +5m"


def both_spray(mine: Ticket, theirs: Ticket) -> bool:
    """Whether both owners let a plan spray: the same on both sides, whatever either is told afterwards."""
    return mine.spray and theirs.spray


def session(mine: Ticket, theirs: Ticket) -> Session:
    """What two tickets come to.

    Raises: TicketError where both are of one holder, this side's private half is not here or spent, or the peer's key
    is none; ValueError for a ticket of a program's own that no text can hold.
    """
    if mine.key == theirs.key:
        raise TicketError(Flaw.OWN, "give the one that your peer's `simopen nat --ticket` printed")
    if mine.private is None:
        raise TicketError(
            Flaw.KEYLESS,
            f"its private half is with whoever made it, and only there: run this on that host, as that user, while "
            f"`simopen nat --ticket` runs; or {NEW}",
        )
    if mine.private.public() != mine.key:
        raise ValueError("the private half given is not that of the ticket's key")
    key = derived(mine.private.shared(theirs.key), mine.key, theirs.key)
    return Session.between(Kind.TICKETS, key, mine.sealed(), theirs.sealed())


def derived(shared: bytes, *public: bytes) -> bytes:
    """The link's key, of the X25519 result and both public keys in any order."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), KEY_BYTES, salt=None, info=_LABEL + b"".join(sorted(public))).derive(shared)
