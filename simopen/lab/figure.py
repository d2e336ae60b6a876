"""One punch as RFC 9293 draws it (figures 7 and 8), with the times measured. Pure: a record in, text out.

Each packet gets a line where it leaves (`-->` on its sender's side) and one where it arrives; `...` is the wire, as in
the RFC, and `X` is where a packet ends that never arrives. Sequence numbers are counted from 100 on the left and from
300 on the right, as there. Left out are FINs, and the acknowledgements that come after a side is ESTABLISHED.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from simopen.lab.packet import Flags, Packet
from simopen.lab.record import Origin, Passage, Record, Verdict

_ISN = (100, 300)
_STATE, _SEGMENT = 12, 38
_FIELDS = ((Flags.SYN, "SYN"), (Flags.FIN, "FIN"), (Flags.RST, "RST"), (Flags.ACK, "ACK"))


class _Event(NamedTuple):
    at_ns: int
    number: int
    side: int  # 0 left, 1 right: where it happens
    departs: bool
    passage: Passage


@dataclass(slots=True)
class _Side:
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
    sides = (_Side(left), _Side(right))
    events = sorted(_events(record, left, right))
    if not events:
        return f"no packet went between {left} and {right}"
    lines = [_row("ms", left, "", right), _row("", "CLOSED", "", "CLOSED")]
    drawn = (_line(event, sides, (event.at_ns - events[0].at_ns) / 1e6) for event in events)
    return "\n".join([*lines, *filter(None, drawn)])


def _events(record: Record, left: str, right: str) -> Iterator[_Event]:
    for number, passage in enumerate(record):
        if {passage.source, passage.destination} != {left, right}:
            continue
        sender = 0 if passage.source == left else 1
        yield _Event(passage.sent_ns, number, sender, True, passage)
        if passage.received_ns is not None:
            yield _Event(passage.received_ns, number, 1 - sender, False, passage)


def _line(event: _Event, sides: tuple[_Side, _Side], ms: float) -> str | None:
    """The event's line, None for one that is left out; keeps the sides' states."""
    packet, side = event.passage.sent, sides[event.side]
    dull = packet.flags == Flags.ACK and not packet.payload_length and side.state in ("ESTABLISHED", "CLOSED")
    if not event.departs:
        side.receives(packet)
    elif event.passage.origin is Origin.HOST:
        side.sends(packet)
    if dull or Flags.FIN in packet.flags:
        return None
    state = side.state if event.passage.origin is Origin.HOST or not event.departs else f"{side.name}'s NAT"
    return _draw(event, state, _segment(event.passage, sides), f"{ms:.1f}")


def _draw(event: _Event, state: str, segment: str, ms: str) -> str:
    wire = "..."
    if event.departs and event.passage.verdict not in (Verdict.DELIVERED, Verdict.IN_FLIGHT):
        wire = f"X {event.passage.verdict.value}"
    near = "-->" if (event.side == 0) == event.departs else "<--"
    if event.side == 0:
        return _row(ms, f"{state:<{_STATE}} {near}", segment, wire)
    return _row(ms, f"{wire:>{_STATE + 4}}", segment, f"{near} {state}")


def _row(ms: str, left: str, segment: str, right: str) -> str:
    return f"{ms:>7}  {left:<{_STATE + 4}} {segment:<{_SEGMENT}} {right}".rstrip()


def _segment(passage: Passage, sides: tuple[_Side, _Side]) -> str:
    packet, sender = passage.sent, 0 if passage.source == sides[0].name else 1
    fields = [f"<SEQ={_relative(packet.seq, sides[sender].isn, _ISN[sender])}>"]
    if Flags.ACK in packet.flags:
        fields.append(f"<ACK={_relative(packet.ack, sides[1 - sender].isn, _ISN[1 - sender])}>")
    fields.append(f"<CTL={','.join(name for flag, name in _FIELDS if flag in packet.flags)}>")
    if packet.payload_length:
        fields.append(f"<{packet.payload_length} bytes>")
    return "".join(fields)


def _relative(number: int, isn: int | None, base: int) -> int:
    return number if isn is None else (number - isn + base) % 2**32
