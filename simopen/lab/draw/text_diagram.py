"""One punch as RFC 9293 draws it (figures 7 and 8), with the times measured. Pure: a record in, text out.

Each packet gets a line where it leaves (`-->` on its sender's side) and one where it arrives; `...` is the wire, as in
the RFC, and `X` is where a packet ends that never arrives. Sequence numbers are counted from 100 on the left and from
300 on the right, as there. Left out are FINs, and the acknowledgements that come after a side is ESTABLISHED.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from simopen.lab.net.record import Origin, Passage, Record, Verdict
from simopen.lab.packet import Flags, Packet

_ISN = (100, 300)
_STATE, _SEGMENT = 12, 38
_FIELDS = ((Flags.SYN, "SYN"), (Flags.FIN, "FIN"), (Flags.RST, "RST"), (Flags.ACK, "ACK"))


class Moment(NamedTuple):
    """A packet leaving or reaching its host, or the core, as seen there.

    `state` is the host's after it (RFC 9293 §3.3.2), `segment` the packet in the RFC's notation. `routine`: it belongs
    to no opening: a FIN, or an acknowledgement after the host is ESTABLISHED.
    """

    at_ns: int
    passage: Passage
    side: int  # 0 left, 1 right: where it happens
    departs: bool
    state: str
    segment: str
    routine: bool


class _Event(NamedTuple):
    at_ns: int
    number: int
    side: int
    departs: bool
    passage: Passage


@dataclass(slots=True)
class _Host:
    """One host as its packets show it: the state it must be in (RFC 9293 §3.3.2), and its initial sequence number."""

    name: str
    state: str = "CLOSED"
    isn: int | None = None

    def sends(self, packet: Packet) -> None:
        if Flags.SYN in packet.flags:
            self.isn = packet.seq
        if packet.is_syn and self.state == "CLOSED":
            self.state = "SYN-SENT"
        elif packet.is_syn_ack and self.state != "ESTABLISHED":
            self.state = "SYN-RECEIVED"

    def receives(self, packet: Packet) -> None:
        if self.state == "ESTABLISHED":
            return
        if packet.is_rst:
            self.state = "CLOSED"
        elif packet.is_syn and self.state == "SYN-SENT":
            self.state = "SYN-RECEIVED"
        elif (packet.is_syn_ack and self.state != "CLOSED") or (
            self.state == "SYN-RECEIVED" and Flags.ACK in packet.flags
        ):
            self.state = "ESTABLISHED"


def sequence(record: Record, left: str, right: str) -> str:
    """The punch between two hosts, line by line, times in milliseconds after the first packet."""
    found = moments(record, left, right)
    if not found:
        return f"no packet went between {left} and {right}"
    lines = [_row("ms", left, "", right), _row("", "CLOSED", "", "CLOSED")]
    drawn = (
        _draw(moment, (left, right), (moment.at_ns - found[0].at_ns) / 1e6) for moment in found if not moment.routine
    )
    return "\n".join([*lines, *drawn])


def moments(record: Record, left: str, right: str) -> list[Moment]:
    """Every packet between two hosts twice, where it leaves and where it arrives, in the order of time."""
    sides = (_Host(left), _Host(right))
    return [_moment(event, sides) for event in sorted(_events(record, left, right))]


def _events(record: Record, left: str, right: str) -> Iterator[_Event]:
    for number, passage in enumerate(record):
        if {passage.source, passage.destination} != {left, right}:
            continue
        sender = 0 if passage.source == left else 1
        yield _Event(passage.sent_ns, number, sender, True, passage)
        if passage.received_ns is not None:
            yield _Event(passage.received_ns, number, 1 - sender, False, passage)


def _moment(event: _Event, sides: tuple[_Host, _Host]) -> Moment:
    """What the event means; keeps the sides' states."""
    packet, side = event.passage.sent, sides[event.side]
    routine = packet.flags == Flags.ACK and not packet.payload_length and side.state in ("ESTABLISHED", "CLOSED")
    if not event.departs:
        side.receives(packet)
    elif event.passage.origin is Origin.HOST:
        side.sends(packet)
    routine = routine or Flags.FIN in packet.flags
    where = (event.at_ns, event.passage, event.side, event.departs)
    return Moment(*where, side.state, _segment(event.passage, sides), routine)


def _draw(moment: Moment, names: tuple[str, str], after_ms: float) -> str:
    passage, ms = moment.passage, f"{after_ms:.1f}"
    by_host = passage.origin is Origin.HOST or not moment.departs
    state = moment.state if by_host else f"{names[moment.side]}'s NAT"
    wire = "..."
    if moment.departs and passage.verdict not in (Verdict.DELIVERED, Verdict.IN_FLIGHT):
        wire = f"X {passage.verdict.value}"
    near = "-->" if (moment.side == 0) == moment.departs else "<--"
    if moment.side == 0:
        return _row(ms, f"{state:<{_STATE}} {near}", moment.segment, wire)
    return _row(ms, f"{wire:>{_STATE + 4}}", moment.segment, f"{near} {state}")


def _row(ms: str, left: str, segment: str, right: str) -> str:
    return f"{ms:>6}  {left:<{_STATE + 4}} {segment:<{_SEGMENT}} {right}".rstrip()


def _segment(passage: Passage, sides: tuple[_Host, _Host]) -> str:
    packet, sender = passage.sent, 0 if passage.source == sides[0].name else 1
    if packet.headers.quoted is not None:
        return "<ICMP error>"
    fields = [f"<SEQ={_relative(packet.seq, sides[sender].isn, _ISN[sender])}>"]
    if Flags.ACK in packet.flags:
        fields.append(f"<ACK={_relative(packet.ack, sides[1 - sender].isn, _ISN[1 - sender])}>")
    fields.append(f"<CTL={','.join(name for flag, name in _FIELDS if flag in packet.flags)}>")
    if packet.payload_length:
        fields.append(f"<{packet.payload_length} bytes>")
    return "".join(fields)


def _relative(number: int, isn: int | None, base: int) -> int:
    return number if isn is None else (number - isn + base) % 2**32
