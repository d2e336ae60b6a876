"""The retry window: what to do after each outcome of a SYN, until when.

Theory of operation: pure. An outcome and the time go in, the next action comes out; nothing here knows a socket, a
clock or an event loop. All times are CLOCK_MONOTONIC ns.

A RST is no verdict: the peer has merely not fired yet, or a NAT on the way answers for it. So the answer to a RST is
another SYN at once, and the round trip is what paces it. A LAN or loopback answers in microseconds, so there is a
budget as well: the first BURST shots are free, further ones come at SYNS_PER_S (the generic cell rate algorithm,
ITU-T I.371). A SYN that nobody answers is left alone: the kernel resends it, while a new socket would have a new
ISN and turn the peer's answer to the old one into a RST.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

# Two processes on one machine without a listener meet after 100 to 540 tries, so the burst lets them. Over a path of
# 20 ms a whole window of 10 s stays below it.
BURST = 512
SYNS_PER_S = 200
SPARED = 8
"""Where shots are counted: the last ones, spread over what is left of the window."""
# No SYN leaves while a 5-tuple is taken or a route is missing, so these are looks, not shots.
TAKEN_PAUSE_NS = 50_000_000
NO_ROUTE_PAUSE_NS = 100_000_000
_INTERVAL_NS = 1_000_000_000 // SYNS_PER_S


class Outcome(Enum):
    """What became of a SYN, or of the attempt to send one."""

    OPEN = "established"
    IN_FLIGHT = "no answer"
    RESET = "answered by RST"
    ICMP = "answered by ICMP"
    EXHAUSTED = "no answer until the kernel gave up"
    TAKEN = "the 5-tuple was taken"
    NO_ROUTE = "no route"
    HELD = "another socket of this host has the 5-tuple"
    DENIED = "not permitted on this host"
    FAILED = "failed"


_BY_ERRNO = {
    0: Outcome.OPEN,
    errno.EINPROGRESS: Outcome.IN_FLIGHT,
    errno.EWOULDBLOCK: Outcome.IN_FLIGHT,  # Windows's word for it
    errno.ECONNREFUSED: Outcome.RESET,
    errno.ECONNRESET: Outcome.RESET,
    errno.ECONNABORTED: Outcome.RESET,
    errno.EHOSTUNREACH: Outcome.ICMP,
    errno.ENETUNREACH: Outcome.ICMP,
    errno.EHOSTDOWN: Outcome.ICMP,
    errno.ENOPROTOOPT: Outcome.ICMP,  # Linux's translation of ICMP protocol unreachable
    errno.EPROTO: Outcome.ICMP,
    errno.ETIMEDOUT: Outcome.EXHAUSTED,
    errno.EADDRNOTAVAIL: Outcome.TAKEN,
    errno.EADDRINUSE: Outcome.TAKEN,  # macOS's word for it
    errno.EACCES: Outcome.DENIED,
    errno.EPERM: Outcome.DENIED,
}


def outcome_of(error: int, *, immediate: bool) -> Outcome:
    """The outcome that an errno means; FAILED for one that no SYN should bring.

    `immediate`: the errno came from the `connect` call itself. "Unreachable" is then this host's own routing table
    speaking, and not a router on the way.
    """
    outcome = _BY_ERRNO.get(error, Outcome.FAILED)
    return Outcome.NO_ROUTE if immediate and outcome is Outcome.ICMP else outcome


@dataclass(frozen=True, slots=True)
class Fire:
    """Send the next SYN at this time, from a new socket."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Send nothing more; something may still arrive until the window closes."""


@dataclass(frozen=True, slots=True)
class Keep:
    """The stream is up."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Trying on cannot help."""


Action: TypeAlias = Fire | Wait | Keep | GiveUp


@dataclass(frozen=True, slots=True)
class Window:
    """From the instant until the time after which no SYN is sent and no stream accepted, and the budget in between.

    `due_ns` is the algorithm's theoretical arrival time of the next shot. `left`: how many more shots there may be at
    all; None where nobody counts them.
    """

    opens_ns: int
    closes_ns: int
    due_ns: int = 0
    left: int | None = None

    def fired(self, at_ns: int) -> Window:
        """The window after one more shot was fired at `at_ns`."""
        left = None if self.left is None else self.left - 1
        return replace(self, due_ns=max(self.due_ns, at_ns) + _INTERVAL_NS, left=left)

    def after(self, outcome: Outcome, now_ns: int) -> Action:
        """What to do now that a shot has come to `outcome`."""
        match outcome:
            case Outcome.OPEN:
                return Keep()
            case Outcome.IN_FLIGHT:
                return Wait()
            case Outcome.DENIED | Outcome.HELD | Outcome.FAILED:
                return GiveUp()
            case Outcome.TAKEN:
                return self._fire(now_ns + TAKEN_PAUSE_NS)
            case Outcome.NO_ROUTE:
                return self._fire(now_ns + NO_ROUTE_PAUSE_NS)
            case _:
                return self._fire(now_ns)

    def _fire(self, at_ns: int) -> Action:
        at_ns = max(at_ns, self.due_ns - BURST * _INTERVAL_NS)
        if self.left is not None and self.left <= SPARED:
            if self.left <= 0:
                return Wait()
            at_ns += (self.closes_ns - at_ns) // (self.left + 1)
        return Fire(at_ns) if at_ns < self.closes_ns else Wait()


def grace_ns(elapsed_ns: int) -> int:
    """How long a stream waits for a better one, where several endpoints were fired at.

    Both sides may see two streams come up within moments, in another order each; a quarter of the time that the
    first one took, and at least 5 ms, lets both see both, and choose the same.
    """
    return max(5_000_000, elapsed_ns // 4)
