"""What a pair of NATs lets two programs do that know each other's profile, why, and by which bar that is measured.

Theory of operation. Pure, and independent of both the NAT models at work and `simopen.plan`: only the models'
description goes in. A NAT that maps by destination gives the flow to the peer another public port than those that the
servers saw: it *moves*. Its SYN can still be let in, where the other side's NAT asks for no more than the address; its
port can be foretold, where ports follow each other; it can be met by chance, where it stays the same whoever is fired
at. Where none of that is so, a guess costs a mapping, and then it cannot be had.

Not covered: pools that give a mapping any of several addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from simopen.lab import Allocation, Filtering, Mapping, Nat, Unsolicited


class Outlook(Enum):
    """How a pair comes together, if it does."""

    CONNECTS = "connects"
    PREDICTS = "by prediction"
    SPRAYS = "by spraying"
    NEVER = "refused"


@dataclass(frozen=True, slots=True)
class Bar:
    """What is asked of a group of pairs.

    `share` of the punches, 0 to 1, succeed `within_s` seconds of the later instant (None: at any time). Where no TCP
    can, to succeed is to be refused by both sides, within so many seconds of their knowing both profiles.
    `median_rtt`: round trips from the later instant until both sides have the stream. A side sends at most `syns`
    SYNs, the kernel's repetitions among them (None: no limit), and `syns_per_s` in any one second.
    """

    share: float = 1.0
    median_rtt: float | None = None
    within_s: float | None = None
    syns: int | None = 64
    syns_per_s: int | None = None

    def __str__(self) -> str:
        said = [
            f"{self.share:.0%}",
            self.within_s and f"in {self.within_s:g} s",
            self.median_rtt and f"median {self.median_rtt:g} RTT",
            self.syns is not None and f"{self.syns} SYNs",
            self.syns_per_s and f"{self.syns_per_s} SYNs/s",
        ]
        return ", ".join(each for each in said if each)


class Line(Enum):
    """Groups of pairs that share a bar."""

    STEADY = "endpoint-independent × endpoint-independent"
    CAUGHT = "random × endpoint-independent, filtering by address or not at all"
    FORETOLD = "sequential × endpoint-independent"
    BOTH_QUIET = "sequential × sequential, nobody else there"
    BOTH_BUSY = "sequential × sequential, others there"
    SPRAYED = "random × endpoint-independent, filtering by address and port"
    SPRAYED_AT_ONE = "random × address-dependent sequential"
    REFUSED = "random × random, random × address-and-port-dependent sequential"
    AWKWARD = "a NAT that lets no SYN in, closes on a RST, or sits on the SYN"


# A spray's number of SYNs follows from its rate and its time.
BARS: dict[Line, Bar] = {
    Line.STEADY: Bar(median_rtt=1.6),
    Line.CAUGHT: Bar(median_rtt=1.6),
    Line.FORETOLD: Bar(0.99, median_rtt=2.0),
    Line.BOTH_QUIET: Bar(0.99, within_s=1.0),
    Line.BOTH_BUSY: Bar(0.90, within_s=5.0),
    Line.SPRAYED: Bar(0.99, within_s=5.0, syns=None, syns_per_s=500),
    Line.SPRAYED_AT_ONE: Bar(0.95, within_s=10.0, syns=None, syns_per_s=500),
    Line.REFUSED: Bar(within_s=1.0, syns=0),
    Line.AWKWARD: Bar(),
}


class Expected(NamedTuple):
    """What is expected of a pair, the bar that it falls under, and why, in a sentence."""

    outlook: Outlook
    line: Line
    why: str


@dataclass(frozen=True, slots=True)
class Face:
    """How one side's NATs look from outside.

    `translates`: it has another address outside. `moves`: the peer sees another port than the servers. `guessable`:
    which one can be told from those before. `busy`: the share of ports that others take. `steady_for_an_address`:
    whatever the peer's port, the answer leaves from the port that the peer hit. `admits_by_address`: who was called
    may answer from any port. `refuses_syns`: but never with a SYN. `awkward`: a stray SYN or RST does harm.
    """

    translates: bool
    moves: bool
    guessable: bool
    busy: float
    steady_for_an_address: bool
    admits_by_address: bool
    refuses_syns: bool
    awkward: bool

    @classmethod
    def of(cls, nats: Sequence[Nat]) -> Face:
        """`nats` from the host outwards. What an inner one moves is a new flow to each outer one."""
        moving = [index for index, nat in enumerate(nats) if _moves(nat)]
        onward = [nat for nat in nats[moving[0] :] if nat.translates] if moving else []
        return cls(
            translates=any(nat.translates for nat in nats),
            moves=bool(moving),
            guessable=all(nat.allocation is not Allocation.RANDOM for nat in onward),
            busy=max((nat.others for nat in onward), default=0.0),
            steady_for_an_address=all(nats[index].mapping is Mapping.ADDRESS_DEPENDENT for index in moving),
            admits_by_address=all(nat.filtering is not Filtering.ADDRESS_AND_PORT_DEPENDENT for nat in nats),
            refuses_syns=any(nat.refuses_syns for nat in nats),
            awkward=any(nat.refuses_syns or nat.reset_kills or nat.unsolicited is Unsolicited.HOLD for nat in nats),
        )

    @property
    def mapping(self) -> str:
        """What a profile should say, in `simopen.nat.Mapping`'s words."""
        if not self.translates:
            return "none"
        by_address = Mapping.ADDRESS_DEPENDENT if self.steady_for_an_address else Mapping.ADDRESS_AND_PORT_DEPENDENT
        return str((by_address if self.moves else Mapping.ENDPOINT_INDEPENDENT).value)


def _moves(nat: Nat) -> bool:
    # Overloading gives two mappings one public port, which is then the host's own (RFC 4787 §4.2.1).
    keeps = nat.overloading and nat.allocation is Allocation.PRESERVING
    return nat.translates and nat.mapping is not Mapping.ENDPOINT_INDEPENDENT and not keeps


def expected(left: Sequence[Nat], right: Sequence[Nat]) -> Expected:
    """What two sides behind these NATs, each from its host outwards, can expect."""
    faces = Face.of(left), Face.of(right)
    if all(face.refuses_syns for face in faces):
        return Expected(Outlook.NEVER, Line.REFUSED, "neither side's NAT lets any SYN in")
    moving = [face for face in faces if face.moves]
    if not moving:
        line = Line.AWKWARD if any(face.awkward for face in faces) else Line.STEADY
        return Expected(Outlook.CONNECTS, line, "both endpoints are as they were seen, and the SYNs cross")
    if len(moving) == 2:
        return _both_move(*faces)
    return _one_moves(moving[0], next(face for face in faces if not face.moves))


def together(*, isolated: bool) -> Expected:
    """What two hosts behind one NAT can expect, on one LAN or, where that keeps them apart, by way of the NAT."""
    way = "the NAT leads each to the other's public endpoint" if isolated else "both are on one LAN"
    return Expected(Outlook.CONNECTS, Line.STEADY, way)


def _one_moves(moving: Face, other: Face) -> Expected:
    if other.admits_by_address and not other.refuses_syns:
        line = Line.FORETOLD if moving.guessable else Line.CAUGHT
        why = "one side's port is not known, but the other side's NAT lets its SYN in to the listener"
        return Expected(Outlook.CONNECTS, line, why)
    if moving.guessable:
        why = "one side's port is not known, but the next ones can be told from the last"
        return Expected(Outlook.PREDICTS, Line.FORETOLD, why)
    why = "one side's port is random: many shots must meet one of many mappings"
    return Expected(Outlook.SPRAYS, Line.SPRAYED, why)


def _both_move(left: Face, right: Face) -> Expected:
    if left.guessable and right.guessable:
        line = Line.BOTH_BUSY if max(left.busy, right.busy) else Line.BOTH_QUIET
        why = "neither port is known, but both sides' next ones can be told from the last"
        return Expected(Outlook.PREDICTS, line, why)
    if any(face.guessable and face.steady_for_an_address for face in (left, right)):
        why = "one side's port is random, and the other's can be told and stays the same whichever is hit"
        return Expected(Outlook.SPRAYS, Line.SPRAYED_AT_ONE, why)
    return Expected(Outlook.NEVER, Line.REFUSED, "a random port would have to be met by shots that move at each guess")
