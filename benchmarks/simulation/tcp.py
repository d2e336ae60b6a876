"""TCP as far as a connection's opening goes: RFC 9293 §3.5 and §3.10.7, with what Linux adds.

Theory of operation: pure. A segment and a state go in, the state changes and the answering segment comes out. Nothing
here knows an address, a timer's clock or a network: an `Opener` is one socket, told apart from others by its owner.
No data, no options, no closing; sequence numbers are compared for equality only, since each is one SYN's.

What is Linux's, and matters to who punches:

- A SYN is sent again after 1 s, five times, and then after 2, 4, ... s (`tcp_syn_linear_timeouts`, since Linux 6.5). A
  SYN-ACK is sent again after 1 s, doubling from the first time on; the timer of a socket that took the simultaneous
  open still runs from its SYN.
- A SYN-ACK in SYN-RECEIVED establishes (since mid-2024, commit 23e89e8ee7be) and is answered by an ACK.
- A SYN in SYN-RECEIVED or later is answered by a challenge ACK (RFC 5961 §4), at most one in 500 ms.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from simopen.lab.packet import NO_FLAGS, Flags

RTO_NS = 1_000_000_000
# linux/ip-sysctl: tcp_syn_retries 6 and, in SYN-SENT, tcp_syn_linear_timeouts 4 more; tcp_synack_retries 5.
SYN_RESENDS, SYN_LINEAR, SYN_RECEIVED_RESENDS, SYN_ACK_RESENDS = 10, 4, 6, 5
CHALLENGE_INTERVAL_NS = 500_000_000  # net.ipv4.tcp_invalid_ratelimit

SYN, ACK, RST = Flags.SYN, Flags.ACK, Flags.RST
SYN_ACK, RST_ACK = SYN | ACK, RST | ACK
_MODULUS = 1 << 32
_HAS_SYN = {flags: SYN in flags for flags in (NO_FLAGS, SYN, ACK, RST, SYN_ACK, RST_ACK)}
_HAS_ACK = {flags: ACK in flags for flags in _HAS_SYN}
_HAS_RST = {flags: RST in flags for flags in _HAS_SYN}


class State(Enum):
    """RFC 9293 §3.3.2, as far as the opening goes."""

    CLOSED = "CLOSED"
    LISTEN = "LISTEN"
    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"


class Segment(NamedTuple):
    """A segment without data. `ack` means something only where `flags` have ACK."""

    flags: Flags
    seq: int
    ack: int = 0


def after(number: int) -> int:
    """The next sequence number."""
    return (number + 1) % _MODULUS


def refusal(segment: Segment) -> Segment | None:
    """What CLOSED answers, and every state to an ACK of what was never sent (RFC 9293 §3.10.7.1)."""
    flags, seq, ack = segment
    if _HAS_RST[flags]:
        return None
    if _HAS_ACK[flags]:
        return Segment(RST, ack)
    return Segment(RST_ACK, 0, after(seq) if _HAS_SYN[flags] else seq)


class Opener:
    """One socket on its way from CLOSED, or from a listener's LISTEN, to ESTABLISHED.

    `passive`: made by a listener. `resends`: how often the last segment was sent again. `rto_ns`: until the next time.
    """

    __slots__ = ("_challenged_ns", "iss", "passive", "rcv_nxt", "resends", "rto_ns", "state")

    def __init__(self, state: State, iss: int, rcv_nxt: int = 0) -> None:
        self.state = state
        self.iss = iss
        self.rcv_nxt = rcv_nxt
        self.passive = state is State.SYN_RECEIVED
        self.resends = 0
        self.rto_ns = RTO_NS
        self._challenged_ns = -CHALLENGE_INTERVAL_NS

    @classmethod
    def connecting(cls, iss: int) -> Opener:
        """OPEN, active: in SYN-SENT; `latest` is the SYN to send."""
        return cls(State.SYN_SENT, iss)

    @classmethod
    def accepting(cls, segment: Segment, iss: int) -> Opener | None:
        """What LISTEN makes of a segment: for a SYN, a socket whose `latest` is the SYN-ACK to send; else None."""
        return cls(State.SYN_RECEIVED, iss, after(segment.seq)) if segment.flags is SYN else None

    @property
    def latest(self) -> Segment:
        """The segment that the state calls for, and that is sent again until it is answered."""
        if self.state is State.SYN_SENT:
            return Segment(SYN, self.iss)
        return Segment(SYN_ACK, self.iss, self.rcv_nxt)

    @property
    def unacked(self) -> bool:
        """Whether something waits for an answer."""
        return self.state is State.SYN_SENT or self.state is State.SYN_RECEIVED

    def receive(self, segment: Segment, now_ns: int) -> Segment | None:
        """Take a segment; returns the answer. In CLOSED afterwards: the connection was refused, or reset."""
        if self.state is State.SYN_SENT:
            return self._in_syn_sent(segment)
        return self._synchronised(segment, now_ns)

    def resend(self) -> Segment | None:
        """The segment to send again now that `rto_ns` have passed; None, and CLOSED, where it was sent enough."""
        waits = self.state is State.SYN_SENT
        most = SYN_RESENDS if waits else SYN_ACK_RESENDS if self.passive else SYN_RECEIVED_RESENDS
        if self.resends >= most:
            self.state = State.CLOSED
            return None
        self.resends += 1
        if not waits or self.resends > SYN_LINEAR:
            self.rto_ns *= 2
        return self.latest

    def _in_syn_sent(self, segment: Segment) -> Segment | None:
        flags, seq, ack = segment
        if _HAS_ACK[flags] and ack != after(self.iss):
            return refusal(segment)
        if _HAS_RST[flags]:
            if _HAS_ACK[flags]:  # a RST without an ACK could be anybody's
                self.state = State.CLOSED
            return None
        if not _HAS_SYN[flags]:
            return None
        self.rcv_nxt = after(seq)
        if flags is SYN:
            self.state = State.SYN_RECEIVED
            return self.latest
        self.state = State.ESTABLISHED
        return self._ack()

    def _synchronised(self, segment: Segment, now_ns: int) -> Segment | None:
        flags, seq, ack = segment
        if _HAS_RST[flags]:
            if seq == self.rcv_nxt:  # RFC 5961 §3: exactly
                self.state = State.CLOSED
            return None
        if self.state is State.ESTABLISHED:
            return self._challenge(now_ns) if _HAS_SYN[flags] else None
        if not _HAS_ACK[flags]:
            return self._repeated_syn(seq, now_ns)
        if ack != after(self.iss):
            return refusal(segment)
        return self._acknowledged(flags, seq, now_ns)

    def _acknowledged(self, flags: Flags, seq: int, now_ns: int) -> Segment | None:
        if _HAS_SYN[flags]:
            if after(seq) != self.rcv_nxt:
                return self._challenge(now_ns)
            self.state = State.ESTABLISHED
            return self._ack()
        if seq == self.rcv_nxt:
            self.state = State.ESTABLISHED
        return None

    def _repeated_syn(self, seq: int, now_ns: int) -> Segment | None:
        if self.passive and after(seq) == self.rcv_nxt:
            return self.latest
        return self._challenge(now_ns)

    def _challenge(self, now_ns: int) -> Segment | None:
        if now_ns - self._challenged_ns < CHALLENGE_INTERVAL_NS:
            return None
        self._challenged_ns = now_ns
        return self._ack()

    def _ack(self) -> Segment:
        return Segment(ACK, after(self.iss), self.rcv_nxt)
