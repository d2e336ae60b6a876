"""The way between two hosts: delay, jitter, loss, NATs, in simulated time.

Theory of operation: a heap of tuples (when, number, call, arguments) is the whole of time. A packet leaves through its
host's NATs at once, crosses both accesses, and is put before the receiver's NATs when it is due, as in the lab's core
(`simopen/lab/core.py`); the NATs are the lab's own `Chain` of `Translator`s. Jitter keeps the order, as in a queue.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any, NamedTuple, Protocol

from benchmarks.simulation.tcp import Segment, refusal
from simopen.lab.nat.chain import Chain, Outcome
from simopen.lab.nat.model import HOLD_NS, Unsolicited
from simopen.lab.packet import NO_FLAGS, Headers
from simopen.lab.packet import Protocol as Number
from simopen.model.endpoint import Endpoint

TCP, ICMP = int(Number.TCP), int(Number.ICMP)


class Receiver(Protocol):
    """Who is at the end of an access."""

    def receive(self, remote: Endpoint, segment: Segment) -> None:
        """Take a segment that came in."""

    def unreachable(self, remote: Endpoint, segment: Segment) -> None:
        """Take an ICMP Port Unreachable about a segment that was sent to `remote`."""


class Access:
    """One host's way to the core and back. Delays in seconds, one way; `loss` is a share."""

    __slots__ = ("chain", "delay_ns", "jitter_ns", "last_due_ns", "loss", "receiver")

    def __init__(self, receiver: Receiver, chain: Chain, *, delay_s: float, jitter_s: float, loss: float) -> None:
        self.receiver = receiver
        self.chain = chain
        self.delay_ns = round(delay_s * 1e9)
        self.jitter_ns = round(jitter_s * 1e9)
        self.loss = loss
        self.last_due_ns = 0


class Packet(NamedTuple):
    """A segment on its way; with `headers.quoted`, an ICMP error about that segment."""

    headers: Headers
    segment: Segment


class Network:
    """The accesses and the time. `seed` decides jitter and loss."""

    def __init__(self, seed: int) -> None:
        self.now_ns = 0
        self.flying = 0
        self._draws = Random(seed)
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()
        self._routes: dict[str, Access] = {}

    def attach(self, access: Access, address: str) -> None:
        """`address`: one that others see."""
        self._routes[address] = access

    def at(self, when_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        """Have the call made then; in the order of asking where several are due together."""
        heapq.heappush(self._heap, (when_ns, next(self._numbers), call, arguments))

    def run(self, over: Callable[[], bool]) -> None:
        """Let time pass until `over()`, or nothing is left to happen."""
        heap = self._heap
        while heap and not over():
            self.now_ns, _, call, arguments = heapq.heappop(heap)
            call(*arguments)

    def send(self, access: Access, source: Endpoint, destination: Endpoint, segment: Segment) -> None:
        """A host sends a segment."""
        headers = Headers(TCP, source, destination, segment.flags)
        if access.chain.translators:
            self._send(access, access.chain.outbound(headers, self.now_ns), segment)
        else:
            self._cross(access, Packet(headers, segment))

    def _send(self, access: Access, outcome: Outcome, segment: Segment) -> None:
        if outcome.nat is None:
            self._cross(access, Packet(outcome.headers, segment))
        else:
            self._refuse(access, outcome, segment)

    def _cross(self, access: Access, packet: Packet) -> None:
        other = self._routes.get(packet.headers.destination.address)
        if other is None or other is access or self._loses(access, other):
            return
        due_ns = self.now_ns + access.delay_ns + other.delay_ns
        if access.jitter_ns or other.jitter_ns:
            due_ns += round(self._draws.random() * access.jitter_ns + self._draws.random() * other.jitter_ns)
            due_ns = other.last_due_ns = max(due_ns, other.last_due_ns)
        self.flying += 1
        self.at(due_ns, self._arrive, other, packet)

    def _loses(self, access: Access, other: Access) -> bool:
        if not (access.loss or other.loss):
            return False
        return self._draws.random() < access.loss or self._draws.random() < other.loss

    def _arrive(self, access: Access, packet: Packet) -> None:
        self.flying -= 1
        headers, segment = packet
        if access.chain.translators:
            outcome = access.chain.inbound(headers, self.now_ns)
            if outcome.nat is not None:
                self._refuse(access, outcome, segment)
                return
            headers = outcome.headers
        if headers.quoted is None:
            access.receiver.receive(headers.source, segment)
        else:
            access.receiver.unreachable(headers.quoted.destination, segment)

    def _refuse(self, access: Access, outcome: Outcome, segment: Segment) -> None:
        """Do what a NAT does with a packet that it does not let pass."""
        headers, nat = outcome.headers, outcome.nat
        assert nat is not None
        if outcome.decision is Unsolicited.HOLD:
            self.at(self.now_ns + HOLD_NS, self._release, access, outcome, segment, self.now_ns)
        elif outcome.decision is Unsolicited.ICMP:
            self._answer_unreachable(access, nat, headers, segment)
        elif outcome.decision is Unsolicited.RESET and (answer := refusal(segment)) is not None:
            back = Headers(TCP, headers.destination, headers.source, answer.flags)
            self._send(access, access.chain.answer(back, self.now_ns, nat), answer)

    def _release(self, access: Access, outcome: Outcome, segment: Segment, since_ns: int) -> None:
        assert outcome.nat is not None
        if access.chain.translators[outcome.nat].release(outcome.headers, since_ns) is Unsolicited.ICMP:
            self._answer_unreachable(access, outcome.nat, outcome.headers, segment)

    def _answer_unreachable(self, access: Access, nat: int, headers: Headers, segment: Segment) -> None:
        source, destination = Endpoint(headers.destination.address, 0), Endpoint(headers.source.address, 0)
        error = Headers(ICMP, source, destination, NO_FLAGS, headers)
        self._send(access, access.chain.answer(error, self.now_ns, nat), segment)
