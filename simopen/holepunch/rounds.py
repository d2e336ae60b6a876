"""When two sides try that have swapped tickets and agreed on no instant: in rounds, at every full ten seconds.

Theory of operation: each side begins at the first full ten seconds after it has the other's ticket. So from the later
one's first round on, both fire at the same instants, by true time. Where a clock is wrong and nobody tells better, the
windows of the rounds overlap all the same: each lasts nearly until the next.

A row of ports that moves is foreseen for one instant, and very many SYNs are fired once: such pairs wait for the later
instant of their two tickets. If that is over, or has brought nothing, a row is foreseen as well as it can be, in rounds
like the others; a spray has no second try.

Pure: tickets and `now` in, values out.
"""

from __future__ import annotations

from typing import NamedTuple

from simopen.clock.instant import next_slot
from simopen.errors import Flaw, TicketError
from simopen.holepunch.plan import plan
from simopen.model.nat import NEW_FOR_OTHERS, Allocation, Profile
from simopen.model.times import UtcNs
from simopen.model.wording import span
from simopen.ticket.agreement import both_spray, later_instant
from simopen.ticket.codec import Ticket

ROUND_S = 10
WINDOW_S = 7.5
"""A stream of its last moment is still verified, for at most `link.handshake.HANDSHAKE_S`, before the next round."""
_LEAD_S = 0.5
"""Until a round's instant, at least: a plan takes up to 0.3 s (measured)."""
FARTHEST_S = 600.0
"""Nobody waits any longer for a ticket's instant: one that is further away was made by a wrong clock."""


class Foreseen(NamedTuple):
    """What such a pair waits for: the instant, UTC seconds. `is_only_try`: there is no other, as it sprays then."""

    instant: int
    is_only_try: bool


def foreseen(mine: Ticket, theirs: Ticket) -> Foreseen | None:
    """The instant for which such a pair must wait, the same on both sides; None: it need not.

    Takes up to 0.3 s. Raises: as `plan` and `later_instant`.
    """
    instant, sprays = later_instant(mine, theirs), False
    if both_spray(mine, theirs):
        sprays = plan(mine.profile, theirs.profile, now_ns=UtcNs(instant * 10**9), spray=True).sprays
    if sprays or _walks(mine.profile) or _walks(theirs.profile):
        return Foreseen(instant, sprays)
    return None


def next_round(pair: Foreseen | None, now_s: float) -> float:
    """The next round's instant, UTC seconds, by the time `now_s` (UTC seconds).

    Raises: TicketError where the only try's instant is over, or too far away.
    """
    if pair is None:
        return next_slot(ROUND_S, lead_s=_LEAD_S, now=now_s)
    left_s = pair.instant - now_s
    if 0 < left_s <= FARTHEST_S:
        return pair.instant
    if not pair.is_only_try:
        return next_slot(ROUND_S, lead_s=_LEAD_S, now=now_s)
    if left_s > 0:
        raise TicketError(Flaw.FAR_AHEAD, f"its instant is in {span(left_s)}; is a clock wrong? {_ANEW}")
    raise TicketError(Flaw.EXPIRED, f"its instant is over, and these two NATs leave but one try, by a spray; {_ANEW}")


_ANEW = "run `simopen meet --spray` anew on both sides, and paste the line within two minutes"


def _walks(profile: Profile) -> bool:
    return profile.mapping in NEW_FOR_OTHERS and profile.allocation is Allocation.SEQUENTIAL
