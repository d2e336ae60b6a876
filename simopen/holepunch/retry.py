"""The retry window: what to do after each outcome of a SYN, until when.

Theory of operation: pure. An outcome and the time go in, the next action comes out; nothing here knows a socket, a
clock or an event loop. All times are CLOCK_MONOTONIC ns.

A RST is no verdict: the peer has merely not fired yet, or a NAT on the way answers for it. So the answer to a RST is
another SYN at once, and the round trip is what paces it. A LAN or loopback answers in microseconds, so there is a
budget as well, one for all that is fired again: in the first second BURST shots are free, and further ones come at
SYNS_PER_S (the generic cell rate algorithm, ITU-T I.371); from then on they come at POLITE_SYNS_PER_S. A turn is
reserved when it is promised, so that a hundred who ask at one moment get a hundred turns. A SYN that nobody answers is
left alone: the kernel resends it, while a new socket would have a new ISN and turn the peer's answer to the old one
into a RST.

What this host refuses is no verdict either, unless it cannot pass within a window (`model/outcome.py` lists those few).
All else is tried again after a pause, as the peer's SYN may come meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from simopen.model.outcome import Outcome
from simopen.model.times import NEVER, MonoNs

# Two processes on one machine without a listener meet after 100 to 540 tries, so the burst lets them. Over a path of
# 20 ms there is neither need for it nor for politeness: the round trip is slower.
BURST = 512
SYNS_PER_S = 200
# Whoever has refused for a second is no peer that is a little late: it may be somebody else's host.
POLITE_SYNS_PER_S = 50
FIRST_NS = 1_000_000_000
SPARED = 8
"""Where shots are counted: the last ones, spread over what is left of the window."""
# No SYN leaves while a 5-tuple is taken, a route is missing or this host is short of something, so these are looks.
TAKEN_PAUSE_NS = 50_000_000
NO_ROUTE_PAUSE_NS = 100_000_000
FAILED_PAUSE_NS = 100_000_000
_INTERVAL_NS = 1_000_000_000 // SYNS_PER_S
_POLITE_NS = 1_000_000_000 // POLITE_SYNS_PER_S


@dataclass(frozen=True, slots=True)
class Fire:
    """Send the next SYN at this time, from a new socket."""

    at_ns: MonoNs


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

    `due_ns` is the algorithm's theoretical arrival time of the next shot, `polite_ns` the earliest time of the next one
    after the first second. `left`: how many more SYNs there may be at all; None where nobody counts them. Then
    `resends` is how often the kernel may send each again: so many are set aside for a shot, and given back where it
    ends before.
    """

    opens_ns: MonoNs
    closes_ns: MonoNs
    due_ns: MonoNs = NEVER
    polite_ns: MonoNs = NEVER
    left: int | None = None
    resends: int = 0

    def fired(self, at_ns: MonoNs) -> Window:
        """The window after a shot that was due at the instant, and so took no turn."""
        due_ns = max(self.due_ns, at_ns) + _INTERVAL_NS
        return replace(self, due_ns=MonoNs(due_ns), polite_ns=MonoNs(max(self.polite_ns, at_ns + _POLITE_NS)))

    def after(self, outcome: Outcome, now_ns: MonoNs, *, sent: bool = True, resent: int = 0) -> tuple[Action, Window]:
        """What to do now that a shot has come to `outcome`, and the window in which that has its turn.

        `sent`: whether a SYN left at all; `resent`: how often the kernel sent it again.
        """
        match outcome:
            case Outcome.IN_FLIGHT:
                return Wait(), self
            case Outcome.DENIED | Outcome.UNSUPPORTED | Outcome.HELD:
                return GiveUp(), self
        back = max(0, self.resends - resent) + (not sent)
        spent = self if self.left is None else replace(self, left=self.left + back)
        if outcome is Outcome.OPEN:
            return Keep(), spent
        return spent.turn(MonoNs(now_ns + _PAUSES_NS.get(outcome, 0)))

    def turn(self, at_ns: MonoNs) -> tuple[Action, Window]:
        """The next turn from then on, for one that has nothing in flight, and the window in which it has that."""
        at_ns = self._affordable(at_ns)
        if self.left is not None:
            turns = self.left - self.resends  # each but sets aside what the one before gave back
            if turns <= 0:
                return Wait(), self
            if turns <= SPARED:
                at_ns = self._affordable(MonoNs(at_ns + max(0, self.closes_ns - at_ns) // (turns + 1)))
        if at_ns >= self.closes_ns:
            return Wait(), self
        left = None if self.left is None else self.left - 1 - self.resends
        return Fire(at_ns), replace(self.fired(at_ns), left=left)

    def _affordable(self, at_ns: MonoNs) -> MonoNs:
        first_ns = MonoNs(max(at_ns, self.due_ns - BURST * _INTERVAL_NS))
        polite_from_ns = MonoNs(self.opens_ns + FIRST_NS)
        return first_ns if first_ns < polite_from_ns else max(at_ns, self.polite_ns, polite_from_ns)


_PAUSES_NS = {
    Outcome.TAKEN: TAKEN_PAUSE_NS,
    Outcome.NO_ROUTE: NO_ROUTE_PAUSE_NS,
    Outcome.FAILED: FAILED_PAUSE_NS,
}


def grace_ns(elapsed_ns: int) -> int:
    """How long a stream waits for a better one, where several endpoints were fired at.

    Both sides may see two streams come up within moments, in another order each; a quarter of the time that the
    first one took, and at least 5 ms, lets both see both, and choose the same.
    """
    return max(5_000_000, elapsed_ns // 4)
