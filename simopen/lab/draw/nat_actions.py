"""What the NATs between two hosts did with the packets of a connection, in words. Pure: a record in, values out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from simopen.lab.net.record import Origin, Passage, Record, Step, Verdict
from simopen.lab.packet import Headers, Packet, Protocol
from simopen.model.endpoint import Endpoint

OPENS, LETS_IN, LETS_OUT, STOPS = "opens", "lets in", "lets out", "stops"
_STOPPED = {"filtered": "drops", "reset": "answers RST", "icmp": "answers ICMP", "held": "holds"}


class Act(NamedTuple):
    """What one NAT did with one packet.

    `what` is "opens" (a new way out, at the public endpoint `public`), "lets out", "lets in", or what became of a
    packet that it did not let through: "drops", "answers RST", "answers ICMP", "holds".
    """

    passage: Passage
    step: Step
    what: str
    public: Endpoint | None = None

    @property
    def outward(self) -> bool:
        """Whether the packet was on its way out through this NAT."""
        return self.step.host == self.passage.source

    @property
    def seen(self) -> Headers:
        """The packet's headers as this NAT got them."""
        steps = self.passage.steps
        before = steps[: steps.index(self.step)]
        return next((s.headers for s in reversed(before) if s.headers is not None), self.passage.sent.headers)

    @property
    def words(self) -> str:
        """`opens 198.51.100.1:1314`, `drops`, ..."""
        return f"{self.what} {self.public[0]}:{self.public[1]}" if self.public else self.what


def acts(record: Record, left: str, right: str) -> list[Act]:
    """What each NAT did with each TCP packet between two hosts, in the order of the packets, and of their way."""
    opened: set[tuple[str, int, Endpoint, Endpoint]] = set()
    return [act for passage in tcp_between(record, left, right) for act in _acts_on(passage, opened)]


def tcp_between(record: Record, left: str, right: str) -> Record:
    """The TCP packets of two hosts, both ways, with what their NATs sent of their own accord."""
    return record.where(
        lambda passage: {passage.source, passage.destination} == {left, right} and _about_tcp(passage.sent)
    )


def flows(record: Record, source: str, destination: str) -> list[tuple[Endpoint, Endpoint]]:
    """Of `source`'s SYNs to `destination`, each public endpoint that it left from, and the endpoint fired at."""
    return list(dict.fromkeys(way for passage in record.syns(source, destination) if (way := _outside(passage))))


def _outside(passage: Passage) -> tuple[Endpoint, Endpoint] | None:
    """Without NAT, as the host sent it; None where it came to an end at a NAT of its own."""
    own = [step.headers for step in passage.steps if step.host == passage.source]
    if None in own:
        return None
    last = [passage.sent.headers, *filter(None, own)][-1]
    return last.source, last.destination


def _about_tcp(packet: Packet) -> bool:
    quoted = packet.headers.quoted
    return packet.protocol == Protocol.TCP or (quoted is not None and quoted.protocol == Protocol.TCP)


def _acts_on(passage: Passage, opened: set[tuple[str, int, Endpoint, Endpoint]]) -> Iterator[Act]:
    for step in passage.steps:
        yield _outward(passage, step, opened) if step.host == passage.source else _inward(passage, step)


def _outward(passage: Passage, step: Step, opened: set[tuple[str, int, Endpoint, Endpoint]]) -> Act:
    if step.headers is None:
        return Act(passage, step, _stopped(passage))
    key = (step.host, step.nat, *_way(step.headers))
    if key in opened or passage.origin is not Origin.HOST:
        return Act(passage, step, LETS_OUT)
    opened.add(key)
    return Act(passage, step, OPENS, step.headers.source)


def _way(headers: Headers) -> tuple[Endpoint, Endpoint]:
    return headers.source, headers.destination


def _inward(passage: Passage, step: Step) -> Act:
    return Act(passage, step, LETS_IN if step.headers is not None else _stopped(passage))


def _stopped(passage: Passage) -> str:
    return "holds" if passage.verdict is Verdict.IN_FLIGHT else _STOPPED.get(passage.verdict.value, STOPS)
