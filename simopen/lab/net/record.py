"""The packet record: what every packet of a network did, as evidence.

Theory of operation. The core notes one `Passage` per packet; its bytes are read only when somebody asks, so that
fetching a long record stays cheap. Questions about connections are answered from packets alone, never from what a
program says of itself. A NAT may give one connection other endpoints on each side, so a connection is a `_Link`: the
flow as either host sees it, learnt from a packet that got through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, overload

from simopen.lab.packet import Headers, Packet
from simopen.model.endpoint import Endpoint

_NEVER_NS = 2**63


class Verdict(Enum):
    """What became of a packet."""

    DELIVERED = "delivered"
    IN_FLIGHT = "in flight"  # when the record was fetched
    LOST = "lost"  # by chance, or at the end of a full queue
    FILTERED = "filtered"  # by a NAT, silently
    RESET = "reset"  # by a NAT, which answered with a RST
    REFUSED_ICMP = "icmp"  # by a NAT, which answered with an ICMP error
    HELD = "held"  # by a NAT, silently: it answers with ICMP after 6 s if no SYN goes out on that connection
    ACCEPTED = "accepted"  # by a NAT, for itself: it answers an echo, and nothing else
    EXPIRED = "expired"  # TTL or hop limit
    UNROUTABLE = "unroutable"  # nobody has that address, or the packet would come back to its sender


class Origin(Enum):
    """Who made a packet."""

    HOST = "host"
    NAT = "nat"
    CORE = "core"  # a router's ICMP error, or the copy of a packet that was delivered twice


class Step(NamedTuple):
    """What one NAT on the way did: it passed the packet on as `headers`, or stopped it (None).

    `host` and `nat` name it as `Passage.decided_by` does: a host, and the NAT's place from 0 outwards.
    """

    host: str
    nat: int
    at_ns: int
    headers: Headers | None


@lru_cache(maxsize=65536)
def _parsed(data: bytes) -> Packet:
    from simopen.lab.net.wire import parse

    return parse(data)


@dataclass(frozen=True, slots=True)
class Passage:
    """One packet's way. Times are CLOCK_MONOTONIC in ns, the clock of `time.monotonic_ns()` in every process here.

    `sent_ns` is when the lab took the packet from its sender, `received_ns` when it handed it over (None: never).
    `source` and `destination` are host names; `destination` is "" where no host has the address, `source` is "core"
    for the ICMP errors of the core's routers. `sent_data` is the packet as its sender made it, `received_data` as its
    receiver got it: hop count and, behind a NAT, addresses differ. Where several hosts are behind the same NATs,
    `source` of what a NAT sends, and `destination` of what it filters, is the first of them.

    `decided_by` is the NAT that decided: a host's name and the NAT's place in the row counted from 0 next to the
    host, as in "left/0"; "" where none did. `steps` are the NATs on its way, as far as it came.
    """

    source: str
    destination: str
    origin: Origin
    verdict: Verdict
    sent_ns: int
    received_ns: int | None
    sent_data: bytes
    received_data: bytes | None
    decided_by: str = ""
    steps: tuple[Step, ...] = ()

    @property
    def sent(self) -> Packet:
        """The packet as the sender's side saw it."""
        return _parsed(self.sent_data)

    @property
    def received(self) -> Packet | None:
        """The packet as the receiver's host saw it; None where it never did."""
        return None if self.received_data is None else _parsed(self.received_data)


class _Flow(NamedTuple):
    local: Endpoint
    remote: Endpoint


class _Link(NamedTuple):
    left: _Flow
    right: _Flow


class Record(Sequence[Passage]):
    """A network's passages, in the order in which they were sent."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = tuple(passages)

    def __len__(self) -> int:
        return len(self._passages)

    @overload
    def __getitem__(self, index: int) -> Passage: ...
    @overload
    def __getitem__(self, index: slice) -> Record: ...
    def __getitem__(self, index: int | slice) -> Passage | Record:
        if isinstance(index, slice):
            return Record(self._passages[index])
        return self._passages[index]

    def __repr__(self) -> str:
        return f"<Record of {len(self)} passages>"

    def where(self, condition: Callable[[Passage], bool]) -> Record:
        """The passages for which the condition holds."""
        return Record([passage for passage in self._passages if condition(passage)])

    def between(self, source: str, destination: str) -> Record:
        """What `source`'s host sent that was meant for `destination`, this direction only."""
        return self.where(
            lambda passage: (
                passage.origin is Origin.HOST and (passage.source, passage.destination) == (source, destination)
            )
        )

    def syns(self, source: str, destination: str) -> Record:
        """The SYNs without ACK among these."""
        return self.between(source, destination).where(lambda passage: passage.sent.is_syn)

    def syns_crossed(self, left: str, right: str) -> bool:
        """Whether both hosts sent a SYN of one connection before the other's reached them.

        One of the two may have been lost, or dropped by a NAT (then it opened that NAT); not both.
        """
        return any(self._crossed(link, left, right) for link in self._links(left, right))

    def opened_simultaneously(self, left: str, right: str) -> bool:
        """Whether a connection came up by simultaneous open (RFC 9293 §3.5).

        The SYNs crossed, a SYN-ACK got through, and no listener had a part in it: each host's first SYN-ACK, if it
        sent any, repeats the sequence number of a SYN that it had itself sent on this connection. A listener's has
        its own.
        """
        return any(
            self._crossed(link, left, right)
            and self._answered(link, left, right)
            and self._no_listener(left, right, link.left)
            and self._no_listener(right, left, link.right)
            for link in self._links(left, right)
        )

    def to_pcap(self, path: str | Path, host: str | None = None) -> None:
        """Write the packets as a capture file of raw IP with ns times, for tcpdump and Wireshark.

        With `host`, what that host sent and received, as a capture on it would show; without, each packet once, as it
        was sent.
        """
        import dpkt

        seen = sorted(self._seen_by(host), key=lambda capture: capture[0])
        with Path(path).open("wb") as file:
            writer = dpkt.pcap.Writer(file, snaplen=65535, linktype=dpkt.pcap.DLT_RAW, nano=True)
            for time_ns, data in seen:
                writer.writepkt_time(data, Fraction(time_ns, 10**9))

    def _seen_by(self, host: str | None) -> Iterator[tuple[int, bytes]]:
        for passage in self._passages:
            if host is None or (passage.source == host and passage.origin is Origin.HOST):
                yield passage.sent_ns, passage.sent_data
            if host == passage.destination and passage.received_ns and passage.received_data:
                yield passage.received_ns, passage.received_data

    def _links(self, left: str, right: str) -> set[_Link]:
        outward = {_Link(*views) for views in map(_views, self.syns(left, right)) if views}
        inward = {_Link(*reversed(views)) for views in map(_views, self.syns(right, left)) if views}
        return outward | inward

    def _crossed(self, link: _Link, left: str, right: str) -> bool:
        outward = [syn for syn in self.syns(left, right) if _on(syn, link.left)]
        inward = [syn for syn in self.syns(right, left) if _on(syn, link.right)]
        return any(_pair_crossed(one, other) for one in outward for other in inward)

    def _answered(self, link: _Link, left: str, right: str) -> bool:
        answers = [
            *self._syn_acks(left, right, link.left),
            *self._syn_acks(right, left, link.right),
        ]
        return any(answer.verdict is Verdict.DELIVERED for answer in answers)

    def _no_listener(self, source: str, destination: str, flow: _Flow) -> bool:
        answer = next(iter(self._syn_acks(source, destination, flow)), None)
        if answer is None:
            return True
        syns = (syn for syn in self.syns(source, destination) if _on(syn, flow) and syn.sent_ns < answer.sent_ns)
        return answer.sent.seq in {syn.sent.seq for syn in syns}

    def _syn_acks(self, source: str, destination: str, flow: _Flow) -> Record:
        return self.between(source, destination).where(lambda passage: passage.sent.is_syn_ack and _on(passage, flow))


def _on(passage: Passage, flow: _Flow) -> bool:
    return (passage.sent.source, passage.sent.destination) == flow


def _views(syn: Passage) -> tuple[_Flow, _Flow] | None:
    """The flow as the sender sees it, and as the receiver does; None where the packet did not get through."""
    if syn.received is None:
        return None
    sent, received = syn.sent, syn.received
    return _Flow(sent.source, sent.destination), _Flow(received.destination, received.source)


def _pair_crossed(one: Passage, other: Passage) -> bool:
    # A refused SYN is over when its sender learns of it, so a later one from the peer meets nobody.
    refused = {Verdict.RESET, Verdict.REFUSED_ICMP} & {one.verdict, other.verdict}
    if refused or one.received_ns is other.received_ns is None:
        return False
    return one.sent_ns < (other.received_ns or _NEVER_NS) and other.sent_ns < (one.received_ns or _NEVER_NS)
