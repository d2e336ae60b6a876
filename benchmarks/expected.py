"""What a pair of NATs lets two programs do that know each other's endpoint as a third host saw it, and why.

Theory of operation. Pure, and independent of the NAT models at work: only their description goes in. A NAT that maps
by destination gives the flow to the peer another public port than the one that the observer saw: it *moves*. What
moves cannot be aimed at; but its SYN can be let in, where the other side's NAT asks for no more than the address. The
stream then comes through the other side's listener. Everything else needs port prediction, or cannot be had.

Not covered: NATs that a RST kills, and pools that give a mapping any of several addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from simopen.lab import Allocation, Filtering, Mapping, Nat


class Outlook(Enum):
    """What comes of a pair."""

    CONNECTS = "connects"
    WAITS = "waits for port prediction"
    NEVER = "no TCP can"


class Expected(NamedTuple):
    """What is expected of a pair, and why, in a sentence."""

    outlook: Outlook
    why: str


@dataclass(frozen=True, slots=True)
class Face:
    """How one side's NATs look from outside.

    `moves`: the peer sees another port than the observer. `guessable`: which one can be told from those before.
    `steady_for_an_address`: whatever the peer's port, the answer leaves from the port that the peer hit.
    `admits_by_address`: who was called may answer from any port. `refuses_syns`: but never with a SYN.
    """

    moves: bool
    guessable: bool
    steady_for_an_address: bool
    admits_by_address: bool
    refuses_syns: bool

    @classmethod
    def of(cls, nats: Sequence[Nat]) -> Face:
        """`nats` from the host outwards. What an inner one moves is a new flow to each outer one."""
        moving = [index for index, nat in enumerate(nats) if _moves(nat)]
        onward = [nat for nat in nats[moving[0] :] if nat.translates] if moving else []
        return cls(
            moves=bool(moving),
            guessable=all(nat.allocation is not Allocation.RANDOM for nat in onward),
            steady_for_an_address=all(nats[index].mapping is Mapping.ADDRESS_DEPENDENT for index in moving),
            admits_by_address=all(nat.filtering is not Filtering.ADDRESS_AND_PORT_DEPENDENT for nat in nats),
            refuses_syns=any(nat.refuses_syns for nat in nats),
        )


def _moves(nat: Nat) -> bool:
    # Overloading gives two mappings one public port, which is then the host's own (RFC 4787 §4.2.1).
    keeps = nat.overloading and nat.allocation is Allocation.PRESERVING
    return nat.translates and nat.mapping is not Mapping.ENDPOINT_INDEPENDENT and not keeps


def expected(left: Sequence[Nat], right: Sequence[Nat]) -> Expected:
    """What two sides behind these NATs, each from its host outwards, can expect of today's connector."""
    faces = Face.of(left), Face.of(right)
    if all(face.refuses_syns for face in faces):
        return Expected(Outlook.NEVER, "neither side's NAT lets any SYN in")
    moving = [face for face in faces if face.moves]
    if not moving:
        return Expected(Outlook.CONNECTS, "both endpoints are as they were seen, and the SYNs cross")
    if len(moving) == 2:
        return _both_move(*faces)
    return _one_moves(moving[0], next(face for face in faces if not face.moves))


def _one_moves(moving: Face, other: Face) -> Expected:
    if other.admits_by_address and not other.refuses_syns:
        return Expected(
            Outlook.CONNECTS, "one side's port is not known, but the other side's NAT lets its SYN in to the listener"
        )
    if moving.guessable:
        return Expected(Outlook.WAITS, "one side's port is not known, but the next ones can be told from the last")
    return Expected(Outlook.WAITS, "one side's port is random: many shots must meet one of many mappings")


def _both_move(left: Face, right: Face) -> Expected:
    if left.guessable and right.guessable:
        return Expected(Outlook.WAITS, "neither port is known, but both sides' next ones can be told from the last")
    if any(face.steady_for_an_address and face.admits_by_address for face in (left, right)):
        return Expected(Outlook.WAITS, "neither port is known, but one side admits whoever hits one of many mappings")
    return Expected(Outlook.NEVER, "a random port would have to be met by shots that move: one pair in 64,512 at best")
