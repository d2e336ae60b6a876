"""The way between two hosts: delay, jitter, loss, NATs, in simulated time.

Theory of operation: a heap of tuples (when, number, call, arguments) is the whole of time. A segment leaves through its
host's NATs at once, crosses both accesses, and is put before the receiver's NATs when it is due, as in the lab's core
(`simopen/lab/core.py`); the NATs are the lab's own `Translator`s. Jitter keeps the order, as in a queue.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import count
from random import Random
from typing import Any, Protocol

from benchmarks.simulation.tcp import Segment, refusal
from simopen.lab.nat import Translator, Unsolicited
from simopen.lab.packet import Endpoint, Headers
from simopen.lab.packet import Protocol as Number

TCP = int(Number.TCP)


class Receiver(Protocol):
    """Who is at the end of an access."""

    def receive(self, remote: Endpoint, segment: Segment) -> None:
        """Take a segment that came in."""

    def unreachable(self, remote: Endpoint) -> None:
        """Take an ICMP error about the last segment sent to `remote`."""


class Access:
    """One host's way to the core and back. Delays in ns, one way; `loss` is a share. NATs from the host outwards."""

    __slots__ = ("delay_ns", "jitter_ns", "last_due_ns", "loss", "number", "receiver", "translators")

    def __init__(
        self, number: int, delay_s: float, jitter_s: float, loss: float, translators: Sequence[Translator]
    ) -> None:
        self.number = number
        self.delay_ns = round(delay_s * 1e9)
        self.jitter_ns = round(jitter_s * 1e9)
        self.loss = loss
        self.translators = translators
        self.last_due_ns = 0
        self.receiver: Receiver | None = None

    def outbound(self, headers: Headers, now_ns: int) -> Headers | Unsolicited:
        """The headers as they leave the outermost NAT."""
        for translator in self.translators:
            decision = translator.outbound(headers, now_ns)
            if not isinstance(decision, Headers):
                return decision
            headers = decision
        return headers

    def inbound(self, headers: Headers, now_ns: int) -> Headers | Unsolicited:
        """The headers as the host gets them, or what a NAT does with the packet instead."""
        for translator in reversed(self.translators):
            decision = translator.inbound(headers, now_ns)
            if not isinstance(decision, Headers):
                return decision
            headers = decision
        return headers


class Network:
    """Two accesses and the time. `seed` decides jitter and loss."""

    def __init__(self, seed: int) -> None:
        self.now_ns = 0
        self.flying = 0
        self._draws = Random(seed)
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()
        self._routes: dict[str, Access] = {}

    def attach(self, access: Access, address: str) -> None:
        """`address`: the one that others see."""
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
        decision = access.outbound(headers, self.now_ns) if access.translators else headers
        if isinstance(decision, Headers):
            self._cross(access, decision, segment)

    def _cross(self, access: Access, headers: Headers, segment: Segment | None) -> None:
        other = self._routes.get(headers.destination.address)
        if other is None or other is access or self._loses(access, other):
            return
        due_ns = self.now_ns + access.delay_ns + other.delay_ns
        if access.jitter_ns or other.jitter_ns:
            due_ns += round(self._draws.random() * access.jitter_ns + self._draws.random() * other.jitter_ns)
            due_ns = other.last_due_ns = max(due_ns, other.last_due_ns)
        self.flying += 1
        self.at(due_ns, self._arrive, other, headers, segment)

    def _loses(self, access: Access, other: Access) -> bool:
        if not (access.loss or other.loss):
            return False
        return self._draws.random() < access.loss or self._draws.random() < other.loss

    def _arrive(self, access: Access, headers: Headers, segment: Segment | None) -> None:
        self.flying -= 1
        decision = access.inbound(headers, self.now_ns) if access.translators else headers
        if not isinstance(decision, Headers):
            self._turn_away(access, headers, segment, decision)
        elif access.receiver is not None and segment is not None:
            access.receiver.receive(decision.source, segment)

    def _turn_away(self, access: Access, headers: Headers, segment: Segment | None, decision: Unsolicited) -> None:
        if decision is not Unsolicited.RESET or segment is None:
            return
        answer = refusal(segment)
        if answer is not None:
            self._cross(access, Headers(TCP, headers.destination, headers.source, answer.flags), answer)
