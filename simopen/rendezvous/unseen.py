"""Meetings of hosts that no STUN server saw: whom they try, and what is said of it.

Theory of operation: of such a host only its own addresses are known. They are tried as ICE tries host candidates
(RFC 8445), private ones too, since the peer has shown that it knows the code; a ticket's reader has shown nothing.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from simopen.errors import PunchError
from simopen.holepunch.targets import possible
from simopen.model.nat import Profile
from simopen.model.shot import Plan
from simopen.model.times import UtcNs
from simopen.ticket.codec import Ticket
from simopen.ticket.hold import Held


def plan(mine: Profile, theirs: Profile) -> Plan | None:
    """What is fired where a side was not seen; None where both were.

    Raises: ImpossiblePair where there is no way; ValueError for a profile of no sense.
    """
    if None not in (mine.mapped, theirs.mapped):
        return None
    return possible(mine, theirs, now_ns=UtcNs(0), spray=False, by_hosts=True)  # by no row of ports: no time counts


def notes(found: Held, theirs: Ticket) -> Iterator[str]:
    """What is not known, as no STUN server answered."""
    if found.unseen is not None:
        yield f"nothing is known of the NATs in front of this host: {found.unseen}"
    if theirs.profile.mapped is None:
        yield "nothing is known of the NATs in front of the peer: no STUN server answered it"


def advise(error: PunchError, unseen: tuple[str, ...]) -> None:
    """Say in an error what was not known, and how it can be."""
    if unseen:
        advice = "where none answered, name STUN servers that can be reached, by --stun or servers="
        error.args = (f"{error}; {'; '.join(unseen)}: {advice}",)
        if (told := error.diagnosis) is not None:
            error.diagnosis = replace(told, evidence=(*told.evidence, *unseen), advice=f"{told.advice}; {advice}")
    if unseen and error.report is not None:
        error.report = replace(error.report, notes=(*error.report.notes, *unseen))
