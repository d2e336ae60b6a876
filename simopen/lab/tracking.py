"""What a NAT knows of a TCP connection that it follows, as Linux's connection tracking does.

Theory of operation. The NAT stands between the two ends, sees each segment once, and keeps a phase per connection. A
table says which segment may pass in which phase, and which phase comes then; what the table does not list is refused.
The rows follow from RFC 9293's states as seen from between, and from what netfilter was seen to do (Linux 6.18, see
tests/lab/test_real_routers.py). Sequence numbers are not looked at, where netfilter refuses what is outside a window.

For hole punching three rows count: a SYN from outside passes only while the connection is being opened; a RST that is
the first answer ends it at once, so that the next SYN opens a new one; one that comes later leaves a remainder of 10 s,
through which no SYN from outside passes. Pure: values in, values out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from simopen.lab.packet import Flags


class Side(Enum):
    """Whose segment it is."""

    INSIDE = "inside"
    OUTSIDE = "outside"


class Phase(Enum):
    """How far a connection is. `CROSSED`: each side has sent a SYN."""

    NEW = "new"
    OPENING = "opening"
    CROSSED = "crossed"
    OPEN = "open"
    CLOSING = "closing"  # one FIN
    LAST_ACK = "last ACK"  # two
    CLOSED = "closed"
    RESET = "reset"


class _Kind(Enum):
    SYN = "SYN"
    SYN_ACK = "SYN-ACK"
    FIN = "FIN"
    RST = "RST"
    ACK = "ACK"


IDLE_S = {
    Phase.OPENING: 120.0,
    Phase.CROSSED: 120.0,
    Phase.OPEN: 432_000.0,
    Phase.CLOSING: 60.0,
    Phase.LAST_ACK: 30.0,
    Phase.CLOSED: 120.0,
    Phase.RESET: 10.0,
}
"""After how long without a segment a connection is forgotten: Linux's net.netfilter.nf_conntrack_tcp_timeout_*."""

_Row = dict[_Kind, Phase]


def _all_stay(phase: Phase) -> _Row:
    return dict.fromkeys((_Kind.SYN_ACK, _Kind.FIN, _Kind.ACK), phase)


_CLOSING: dict[Phase, _Row] = {
    Phase.OPEN: {**_all_stay(Phase.OPEN), _Kind.FIN: Phase.CLOSING},
    Phase.CLOSING: {**_all_stay(Phase.CLOSING), _Kind.FIN: Phase.LAST_ACK},
    Phase.LAST_ACK: {**_all_stay(Phase.LAST_ACK), _Kind.ACK: Phase.CLOSED},
    Phase.CLOSED: _all_stay(Phase.CLOSED),
    Phase.RESET: _all_stay(Phase.RESET),
}
_FROM_INSIDE: dict[Phase, _Row] = {
    Phase.NEW: {_Kind.SYN: Phase.OPENING, _Kind.ACK: Phase.OPEN},  # the second: picked up in its midst
    Phase.OPENING: {_Kind.SYN: Phase.OPENING},
    Phase.CROSSED: {_Kind.SYN: Phase.CROSSED, _Kind.SYN_ACK: Phase.OPEN},
    **{phase: {**row, _Kind.SYN: phase} for phase, row in _CLOSING.items()},
}
_FROM_OUTSIDE: dict[Phase, _Row] = {
    Phase.NEW: {},
    Phase.OPENING: {_Kind.SYN: Phase.CROSSED, _Kind.SYN_ACK: Phase.OPEN, _Kind.ACK: Phase.OPENING},
    Phase.CROSSED: {_Kind.SYN: Phase.CROSSED, _Kind.SYN_ACK: Phase.OPEN, _Kind.ACK: Phase.CROSSED},
    **_CLOSING,
}
_TABLES = {Side.INSIDE: _FROM_INSIDE, Side.OUTSIDE: _FROM_OUTSIDE}


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection. `answered`: something has come from outside. `reset_by`: whose RST was the last segment.

    `asked`: since that RST, the last segment was a SYN from inside.
    """

    phase: Phase = Phase.NEW
    answered: bool = False
    reset_by: Side | None = None
    asked: bool = False

    @property
    def is_over(self) -> bool:
        """Nothing of it is to be kept."""
        return self.phase is Phase.RESET and not self.answered


def begins_anew(connection: Connection, flags: Flags) -> bool:
    """Whether a segment from inside opens a new connection in the place of this one, which has ended."""
    ended = connection.phase is Phase.CLOSED or connection.reset_by is Side.INSIDE
    return ended and _kind(flags) is _Kind.SYN


def follow(connection: Connection, side: Side, flags: Flags) -> Connection | None:
    """The connection after a segment from that side; None where the segment is refused, which changes nothing."""
    kind = _kind(flags)
    if kind is _Kind.RST:
        return _reset(connection, side)
    phase = _TABLES[side][connection.phase].get(kind)
    if phase is None:
        return None
    if connection.asked and kind is _Kind.SYN_ACK and side is Side.OUTSIDE:
        phase = Phase.OPEN  # the peer has answered the SYN: what was reset has a successor
    asked = phase is Phase.RESET and kind is _Kind.SYN
    return replace(
        connection, phase=phase, answered=connection.answered or side is Side.OUTSIDE, reset_by=None, asked=asked
    )


def _reset(connection: Connection, side: Side) -> Connection | None:
    if connection.phase is Phase.NEW:
        return None
    return Connection(Phase.RESET, connection.answered, side)


def _kind(flags: Flags) -> _Kind:
    if Flags.RST in flags:
        return _Kind.RST
    if Flags.SYN in flags:
        return _Kind.SYN_ACK if Flags.ACK in flags else _Kind.SYN
    return _Kind.FIN if Flags.FIN in flags else _Kind.ACK
