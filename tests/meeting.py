"""Two plans played against two NAT models: who gets in where, and when. No socket, no TCP: SYNs, RSTs and resends."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from simopen.holepunch.plan import plan
from simopen.lab.nat.chain import Outcome
from simopen.lab.nat.model import Unsolicited
from simopen.lab.packet import Flags, Headers, Protocol
from simopen.model.endpoint import Endpoint
from simopen.model.endpoint import Endpoint as Labelled
from simopen.model.nat import Profile
from simopen.model.shot import Plan, Shot
from simopen.nat.classify import classify
from tests.modelled import HOST, PUNCH_PORT, Model

RESEND_NS = 1_000_000_000  # Linux sends an unanswered SYN again after 1, 2, 3, 4 s
END_NS = 10_000_000_000


@dataclass
class Meeting:
    """`met_ns`: after the instant, when a SYN first got in; None where none did. `syns`: how many each side sent."""

    met_ns: int | None
    plans: tuple[Plan, Plan]
    syns: tuple[int, int]
    most_in_a_second: int


@dataclass
class _Play:
    sides: tuple[Model, Model]
    ports: tuple[frozenset[int], frozenset[int]]
    begin_ns: int
    one_way_ns: int
    events: list[tuple[int, int, str, int, object]] = field(default_factory=list)
    order: Iterator[int] = field(default_factory=count)
    dead: set[tuple[int, Shot]] = field(default_factory=set)
    sent: list[tuple[int, int]] = field(default_factory=list)

    def at(self, when_ns: int, what: str, side: int, about: object) -> None:
        heapq.heappush(self.events, (when_ns, next(self.order), what, side, about))

    def run(self) -> int | None:
        while self.events:
            now_ns, _, what, side, about = heapq.heappop(self.events)
            if now_ns > self.begin_ns + END_NS:
                return None
            if getattr(self, f"_{what}")(now_ns, side, about):
                return now_ns - self.begin_ns
        return None

    def _fire(self, now_ns: int, side: int, shot: Shot) -> bool:
        if (side, shot) in self.dead:
            return False
        self.sent.append((side, now_ns))
        headers = Headers(Protocol.TCP, Labelled(HOST, shot.local_port), Labelled(*shot.remote), Flags.SYN)
        outcome = self.sides[side].chain.outbound(headers, now_ns)
        if outcome.nat is None:
            self.at(now_ns + self.one_way_ns, "arrive", 1 - side, (outcome.headers, shot))
        return False

    def _arrive(self, now_ns: int, side: int, about: tuple[Headers, Shot]) -> bool:
        headers, shot = about
        outcome: Outcome = self.sides[side].chain.inbound(headers, now_ns)
        if outcome.inside:
            return outcome.headers.destination.port in self.ports[side]
        if outcome.decision is Unsolicited.RESET:
            self.at(now_ns + self.one_way_ns, "reset", 1 - side, (headers, shot))
        return False

    def _reset(self, now_ns: int, side: int, about: tuple[Headers, Shot]) -> bool:
        headers, shot = about
        back = Headers(Protocol.TCP, headers.destination, headers.source, Flags.RST | Flags.ACK)
        if not self.sides[side].chain.inbound(back, now_ns).inside:
            return False
        if shot.once:
            self.dead.add((side, shot))
        else:
            self.at(now_ns, "fire", side, shot)
        return False


def profiles(*sides: Model) -> list[Profile]:
    """What `discover` finds on each side."""
    return [classify(side.discover(), hosts=(Endpoint(HOST, PUNCH_PORT),)) for side in sides]


def meet(left: Model, right: Model, *, spray: bool = False, wait_ns: int = 0, one_way_ns: int = 40_000_000) -> Meeting:
    """Discover on both sides, wait while others go on, plan, fire."""
    ours, theirs = profiles(left, right)
    begin_ns = max(left.now_ns, right.now_ns) + wait_ns
    for side in (left, right):
        side.pass_time(begin_ns - side.now_ns)
    plans = (
        plan(ours, theirs, now_ns=begin_ns, spray=spray),
        plan(theirs, ours, now_ns=begin_ns, spray=spray),
    )
    return play(left, right, plans, begin_ns, one_way_ns)


def play(left: Model, right: Model, plans: tuple[Plan, Plan], begin_ns: int, one_way_ns: int) -> Meeting:
    """Fire what is planned, and see who gets in."""
    ports = tuple(frozenset(shot.local_port for shot in each.shots) for each in plans)
    game = _Play((left, right), (ports[0], ports[1]), begin_ns, one_way_ns)
    for side, each in enumerate(plans):
        for number, shot in enumerate(each.shots):
            first_ns = begin_ns + shot.after_ns + number * 20_000
            resends = range(1 if shot.lasts_ns is not None else 5)
            for again in resends:
                game.at(first_ns + again * RESEND_NS, "fire", side, shot)
    met_ns = game.run()
    counts = Counter(side for side, _ in game.sent)
    seconds = Counter((side, at_ns // 10**9) for side, at_ns in game.sent)
    return Meeting(met_ns, plans, (counts[0], counts[1]), max(seconds.values(), default=0))
