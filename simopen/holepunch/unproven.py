"""What to do where nobody was proven to be the peer: by what came, and by what the two share: a key, tickets or a code.

Theory of operation: pure, words only. Several streams may have come up, strangers' among them; the first reason of
`_CASES` that one of them was refused for is the most telling.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from simopen.errors import LinkError
from simopen.holepunch.advice import AGAIN
from simopen.holepunch.diagnosis import stopped
from simopen.model.proof import Reason
from simopen.model.report import Cause, Diagnosis, Report

_SHORT = "Look what this host is short of: memory, or descriptors (ulimit -n)"
_TICKETS = "swap the tickets once more, each side the other's latest"


@dataclass(frozen=True, slots=True)
class _Case:
    """Where one of these reasons was met: what to do, with a shared key, with two tickets, and by a code."""

    reasons: tuple[Reason, ...]
    by_key: str
    by_ticket: str
    by_code: str
    cause: Cause = Cause.UNPROVEN


_CASES = (
    _Case(
        (Reason.OTHER_KEY,),
        "Compare the keys: both sides need the very same bytes, and one key to a pair of calls. If they are the same, "
        "somebody else answers at that endpoint",
        f"One side has used an older ticket, or somebody else's: {_TICKETS}. If they are right, somebody else answers",
        f"Somebody else answers at that endpoint: {AGAIN}",
    ),
    _Case(
        (Reason.SAME_ROLE,),
        "One side begins, and so does the other, as with one and the same word on both: run both sides again",
        f"Both sides have used the same two tickets in the same order: {_TICKETS}",
        f"Somebody else answers at that endpoint: {AGAIN}",
    ),
    _Case(
        (Reason.NOT_CHOSEN,),
        "Run both sides again: the peer's program ended, or its stream was cut, as the two had just proven the key",
        "Run both sides again, with the same tickets: the peer's program ended, or its stream was cut, as the two had "
        "just proven who they are",
        f"The peer's program ended, or its stream was cut, as the two had just proven who they are: {AGAIN}",
    ),
    _Case(
        (Reason.NO_ROOM,),
        _SHORT,
        _SHORT,
        _SHORT,
        Cause.THIS_HOST,
    ),
    _Case(
        (Reason.OWN,),
        "Somebody on the way sends back what this side sends, or two calls of this program use one key at once: give "
        "each pair of calls a key of its own",
        f"Somebody on the way sends back what this side sends, or this is its own ticket: {_TICKETS}",
        f"Somebody on the way sends back what this side sends: {AGAIN}, from another network on this side",
    ),
    _Case(
        (Reason.NO_CERTIFICATE, Reason.NO_LINK, Reason.TOO_MUCH),
        "Does the peer use a key, too (key=, --key-file), and no tickets? What answers speaks no link: it is the peer "
        "without one, or another program at that endpoint",
        f"Did the peer use tickets, too, and no key? What answers speaks no link: {_TICKETS}, or another program "
        f"answers at that endpoint",
        f"Another program answers at that endpoint, or something on the way does: {AGAIN}, from another network on one "
        "side",
    ),
    _Case(
        (Reason.SILENT, Reason.GONE),
        "The peer was silent, or closed the stream: does it use a key, too (key=, --key-file), and is its program "
        "still running? If so, somebody else answers at that endpoint",
        f"The peer was silent, or closed the stream: is its program still running, with this side's latest ticket? If "
        f"not, {_TICKETS}; if so, somebody else answers at that endpoint",
        f"The stream came up and was then silent, or closed: a path that loses much, or something on it that answers "
        f"for the peer: {AGAIN}",
    ),
)


def unproven(report: Report, error: LinkError) -> Diagnosis:
    """For a call that ended without a link."""
    told = stopped(report, str(error))
    if not error.reasons:  # this host can make none
        return told
    case = _case(error.reasons)
    advice = case.by_code if report.by_code else case.by_ticket if report.by_ticket else case.by_key
    return replace(told, cause=case.cause, advice=advice)


def _case(reasons: Collection[Reason]) -> _Case:
    return next(case for case in _CASES if not set(case.reasons).isdisjoint(reasons))
