"""What a NAT knows of a TCP connection that it follows, as Linux's connection tracking does.

Theory of operation. The NAT stands between the two ends, sees each segment once, and keeps a phase per connection. A
table says which segment may pass in which phase, and which phase comes then; what the table does not list is refused.
The rows follow from RFC 9293's states as seen from between, and from what netfilter was seen to do (Linux 6.18, see
tests/lab/host/test_real_routers.py).

Where it is told a segment's numbers, a RST must be believed before it ends an open connection. Each side says with its
ACKs which number it expects next, and how far its window goes. A RST of just that number ends the connection, and so
does one that follows at once upon its own sender's last segment. One further on, within the window, passes. It ends
a connection in which nothing has passed since the first answer, and nothing otherwise, so that its receiver can ask by
a challenge ACK (RFC 5961 §3.2). One beyond the window, by less than another one, passes and changes nothing. Any other
is refused.

Any other segment that begins beyond what its receiver has told to take passes, too, and changes nothing: a FIN that is
none. A SYN-ACK from outside tells something only where it is the first one from either side; where SYNs have crossed,
ours went before it. So until the peer's first ACK, all that follows our first data is beyond, and an end that is not
believed leaves a remainder, through which no SYN from outside passes. Of numbers too low nothing is known here.

For hole punching three rows count: a SYN from outside passes only while the connection is being opened; a RST that is
the first answer ends it at once, so that the next SYN opens a new one; one that comes later leaves a remainder of 10 s,
through which no SYN from outside passes. Pure: values in, values out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from simopen.lab.packet import Flags, Numbers


class Sender(Enum):
    """Whose segment it is."""

    INSIDE = "inside"
    OUTSIDE = "outside"

    @property
    def other(self) -> Sender:
        return Sender.INSIDE if self is Sender.OUTSIDE else Sender.OUTSIDE


class Phase(Enum):
    """How far a connection is. `CROSSED`: each side has sent a SYN."""

    NEW = "new"
    OPENING = "opening"
    CROSSED = "crossed"
    OPEN = "open"
    DOUBTED = "doubted"  # open; the last segment was a RST that was not believed
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
    Phase.DOUBTED: 10.0,
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
    Phase.DOUBTED: {**_all_stay(Phase.OPEN), _Kind.FIN: Phase.CLOSING},
    Phase.CLOSING: {**_all_stay(Phase.CLOSING), _Kind.FIN: Phase.LAST_ACK},
    Phase.LAST_ACK: {**_all_stay(Phase.LAST_ACK), _Kind.ACK: Phase.CLOSED},
    Phase.CLOSED: _all_stay(Phase.CLOSED),
    Phase.RESET: _all_stay(Phase.RESET),
}


def _without_syn_ack(phase: Phase, row: _Row) -> _Row:
    """From inside, one that comes late passes only while the stream is open, where it may be sent again."""
    return {kind: after for kind, after in row.items() if kind is not _Kind.SYN_ACK or phase is Phase.OPEN}


_FROM_INSIDE: dict[Phase, _Row] = {
    Phase.NEW: {_Kind.SYN: Phase.OPENING, _Kind.ACK: Phase.OPEN},  # the second: picked up in its midst
    Phase.OPENING: {_Kind.SYN: Phase.OPENING},
    Phase.CROSSED: {_Kind.SYN: Phase.CROSSED, _Kind.SYN_ACK: Phase.OPEN},
    **{phase: {**_without_syn_ack(phase, row), _Kind.SYN: phase} for phase, row in _CLOSING.items()},
}
_FROM_OUTSIDE: dict[Phase, _Row] = {
    Phase.NEW: {},
    Phase.OPENING: {_Kind.SYN: Phase.CROSSED, _Kind.SYN_ACK: Phase.OPEN, _Kind.ACK: Phase.OPENING},
    Phase.CROSSED: {_Kind.SYN: Phase.CROSSED, _Kind.SYN_ACK: Phase.OPEN, _Kind.ACK: Phase.CROSSED},
    **_CLOSING,
}
_TABLES = {Sender.INSIDE: _FROM_INSIDE, Sender.OUTSIDE: _FROM_OUTSIDE}
_NUMBERS = 2**32  # they wrap
_LARGEST_SCALE = 14  # RFC 7323 §2.3


@dataclass(frozen=True, slots=True)
class _Told:
    """Which number a side expects next (None: it has not said), and how many it takes from there.

    `scale` is what its SYN offered, None where that was nothing. Where no SYN was seen, the largest is assumed. `limit`
    is the number at which its own segments may begin at most, by what the other side has told so far; None: any.
    """

    expects: int | None = None
    window: int = 0
    scale: int | None = _LARGEST_SCALE
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection. `reset_by`: whose RST was the last segment. `answered`: something has come from outside.

    `assured`: something has passed since that. `asked`: the last segment was a SYN from inside. `told`: what each side
    has said of the other's numbers. `just_sent`: the last segment's sender, and the number after it; None after a SYN,
    a FIN or a RST.
    """

    phase: Phase = Phase.NEW
    answered: bool = False
    reset_by: Sender | None = None
    asked: bool = False
    assured: bool = False
    told: Mapping[Sender, _Told] = field(default_factory=dict)
    just_sent: tuple[Sender, int] | None = None

    @property
    def is_over(self) -> bool:
        """Nothing of it is to be kept."""
        return self.phase is Phase.RESET and not self.answered


def begins_anew(connection: Connection, flags: Flags) -> bool:
    """Whether a segment from inside opens a new connection in the place of this one, which has ended."""
    ended = connection.phase is Phase.CLOSED or connection.reset_by is Sender.INSIDE
    return ended and _kind(flags) is _Kind.SYN


def follow(connection: Connection, side: Sender, flags: Flags, numbers: Numbers | None = None) -> Connection | None:
    """The connection after a segment from that side; None where the segment is refused, which changes nothing.

    Without `numbers` every RST is believed. They are given with all of a connection's segments, or with none.
    """
    kind = _kind(flags)
    beyond = 0 if numbers is None else _beyond(connection, side, kind, numbers.seq)
    if beyond:
        return connection if beyond < connection.told[side.other].window else None
    if kind is _Kind.RST:
        return _reset(connection, side, numbers)
    phase = _TABLES[side][connection.phase].get(kind)
    if phase is None:
        return None
    if connection.asked and kind is _Kind.SYN_ACK and side is Sender.INSIDE and connection.phase is Phase.OPEN:
        return None  # of a connection that is not this one
    if connection.asked and kind is _Kind.SYN_ACK and side is Sender.OUTSIDE:
        phase = Phase.OPEN  # the peer has answered the SYN: what was reset has a successor
    return Connection(
        phase,
        connection.answered or side is Sender.OUTSIDE,
        asked=kind is _Kind.SYN and side is Sender.INSIDE,
        assured=connection.answered,
        told=connection.told if numbers is None else _told(connection, side, flags, numbers),
        just_sent=(side, numbers.end) if numbers is not None and kind is _Kind.ACK else None,
    )


def _reset(connection: Connection, side: Sender, numbers: Numbers | None) -> Connection | None:
    if connection.phase is Phase.NEW:
        return None
    ahead = 0 if numbers is None else _ahead(connection, side, numbers.seq)
    window = connection.told[side.other].window if ahead else 1
    if ahead >= 2 * window:
        return None
    if ahead > window:
        return connection
    if ahead == 0 or not connection.assured:
        return Connection(Phase.RESET, connection.answered, side)
    return replace(connection, phase=Phase.DOUBTED, asked=False, just_sent=None)


def _ahead(connection: Connection, side: Sender, seq: int) -> int:
    """By how much a RST's number lies ahead of the one that is expected; 0 where any, or this one, is believed."""
    expects = connection.told.get(side.other, _Told()).expects
    if expects is None or connection.phase not in {Phase.OPEN, Phase.DOUBTED}:
        return 0
    if connection.just_sent == (side, seq) or (connection.asked and side is Sender.OUTSIDE):
        return 0
    return (seq - expects) % _NUMBERS


def _beyond(connection: Connection, side: Sender, kind: _Kind, seq: int) -> int:
    """By how much a segment begins beyond what its sender may send; 0 where it does not, or nobody knows."""
    limit = connection.told.get(side, _Told()).limit
    if limit is None or side.other not in connection.told or _is_looked_past(connection, side, kind):
        return 0
    ahead = (seq - limit) % _NUMBERS
    return ahead if ahead < _NUMBERS // 2 else 0


def _is_looked_past(connection: Connection, side: Sender, kind: _Kind) -> bool:
    """Whether the numbers of such a segment do not matter now: it begins something, or all ends anyway."""
    match kind:
        case _Kind.SYN:
            return connection.phase is not Phase.CROSSED
        case _Kind.SYN_ACK:
            return side is Sender.OUTSIDE
        case _Kind.RST:
            return connection.phase in _CLOSING and connection.phase not in {Phase.OPEN, Phase.DOUBTED}
    return False


def _told(connection: Connection, side: Sender, flags: Flags, numbers: Numbers) -> Mapping[Sender, _Told]:
    """What both sides have said after this segment. With a SYN its sender begins anew."""
    told, other = connection.told.get(side, _Told()), connection.told.get(side.other, _Told())
    if _is_overlooked(connection, side, flags):
        return connection.told
    if Flags.SYN in flags:
        limit = _begun(connection, told, flags, numbers)
        told = _Told(window=max(numbers.window, 1), scale=numbers.scale, limit=limit)
    if Flags.ACK not in flags:
        return {**connection.told, side: told}
    if told.expects is not None and (numbers.ack - told.expects) % _NUMBERS >= _NUMBERS // 2:
        return {**connection.told, side: told}  # overtaken by a later one
    shift = 0 if Flags.SYN in flags else _shift(told.scale, other.scale)
    window = max(numbers.window << shift, 1)
    if other.limit is not None:
        ahead = (numbers.ack + window - other.limit) % _NUMBERS
        other = replace(other, limit=(other.limit + (ahead if ahead < _NUMBERS // 2 else 0)) % _NUMBERS)
    return {side.other: other, side: _Told(numbers.ack, window, told.scale, told.limit)}


def _is_overlooked(connection: Connection, side: Sender, flags: Flags) -> bool:
    """A SYN-ACK from outside, after one from inside or after the stream was open, that answers no new SYN."""
    opens = connection.phase in {Phase.NEW, Phase.OPENING, Phase.CROSSED} or connection.asked
    return side is Sender.OUTSIDE and _kind(flags) is _Kind.SYN_ACK and not opens


def _begun(connection: Connection, told: _Told, flags: Flags, numbers: Numbers) -> int | None:
    """The limit after a SYN. One that comes too late for this connection may be another's: then nobody knows."""
    if _kind(flags) is _Kind.SYN and connection.phase in {Phase.NEW, Phase.OPENING}:
        return numbers.end
    if connection.phase in {Phase.OPENING, Phase.CROSSED}:
        return numbers.end if told.limit is None else told.limit
    return None


def _shift(scale: int | None, other: int | None) -> int:
    """RFC 7323 §2.2, §2.3: a scale holds where both have offered one, and 14 for any above."""
    return 0 if scale is None or other is None else min(scale, _LARGEST_SCALE)


def _kind(flags: Flags) -> _Kind:
    if Flags.RST in flags:
        return _Kind.RST
    if Flags.SYN in flags:
        return _Kind.SYN_ACK if Flags.ACK in flags else _Kind.SYN
    return _Kind.FIN if Flags.FIN in flags else _Kind.ACK
