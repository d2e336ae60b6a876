"""What a punch does while it does it: one frozen event a step, for whoever passes `on_event`.

Theory of operation: pure values. `at_ns` is when the step happened, in CLOCK_MONOTONIC ns, as in a `Report`: what the
time is may be learnt only on the way. Each reads as a line of words, so `on_event=print` shows a punch step by step.
A meeting by a code begins with `InRoom`, `PeerBegun` and `PeerHere`, has a `Round` for each of its tries, and
`PeerClock` once. A session tells `SessionUp`, `SessionDown`, `SessionBack`, and `SessionWaits` between two tries.
In the order in which they come: `Resolved`, `ClockKnown`, `Armed`, `Fired`, `Answered`, `Up`, `Verified`. Each but
`Armed`, `Up` and `Verified` may come several times, and more kinds may be added: pass over what you do not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from simopen.model.endpoint import Endpoint
from simopen.model.estimate import Estimate
from simopen.model.report import Attempt, Via
from simopen.model.times import MonoNs, UtcNs
from simopen.model.wording import human, listed


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a punch. `step` names its kind; `at_ns` is when it happened (CLOCK_MONOTONIC, ns)."""

    step: ClassVar[str]
    at_ns: MonoNs


@dataclass(frozen=True, slots=True)
class Resolved(Event):
    """Whom it fires at is known: names are looked up, or a plan is made. Again where a name's address has changed.

    `peers`: the endpoints; of a plan for very many ports, the first few.
    """

    step = "resolved"
    peers: tuple[Endpoint, ...]

    def __str__(self) -> str:
        return f"to fire at {listed(self.peers, ', ')}"


@dataclass(frozen=True, slots=True)
class ClockKnown(Event):
    """What the time is, is known as well as it can be. Again where it is asked anew while waiting.

    `instant_utc_ns`: the instant by that, in UTC ns since 1970; where there is none to wait for, when it was called.
    `doubt`: why the time is not known well; None where it is.
    """

    step = "clock known"
    estimate: Estimate
    instant_utc_ns: UtcNs
    doubt: str | None = None

    def __str__(self) -> str:
        return f"the clock: {self.estimate}{f'; {self.doubt}' if self.doubt else ''}"


@dataclass(frozen=True, slots=True)
class Armed(Event):
    """The sockets are bound, and a thread waits for the instant: from now on nothing is asked or looked up any more.

    `instant_ns`: when it fires (CLOCK_MONOTONIC, ns), at most about two seconds ahead.
    """

    step = "armed"
    instant_ns: MonoNs

    def __str__(self) -> str:
        return f"armed, {max(0, self.instant_ns - self.at_ns) / 1e9:.3f} s before the instant"


@dataclass(frozen=True, slots=True)
class Fired(Event):
    """A SYN was sent, at the instant or after it. (`first_ttl`'s, which come before it, are not told.)"""

    step = "fired"
    peer: Endpoint

    def __str__(self) -> str:
        return f"SYN to {self.peer}"


@dataclass(frozen=True, slots=True)
class Answered(Event):
    """A SYN of ours was answered: by the peer's SYN or SYN-ACK, by a RST, or by ICMP. `attempt` tells which."""

    step = "answered"
    attempt: Attempt

    def __str__(self) -> str:
        took_ms = (self.attempt.ended_ns - self.attempt.started_ns) / 1e6
        return f"SYN to {self.attempt.peer}: {self.attempt.result}, {took_ms:.1f} ms later"


@dataclass(frozen=True, slots=True)
class Up(Event):
    """The stream is up, and no other is tried any more. `via`: by a SYN of ours, or accepted."""

    step = "up"
    remote: Endpoint
    via: Via

    def __str__(self) -> str:
        return f"up: {self.remote}, by {self.via}"


@dataclass(frozen=True, slots=True)
class Verified(Event):
    """Both ends have proven that they hold the key: what comes through the stream is the peer's."""

    step = "verified"
    remote: Endpoint

    def __str__(self) -> str:
        return f"verified: {self.remote} holds the key"


@dataclass(frozen=True, slots=True)
class InRoom(Event):
    """The rendezvous has let this side in, and the peer may come. `motd`: what it says to its users, if anything."""

    step = "in room"
    room: str
    motd: str | None = None

    def __str__(self) -> str:
        return f"in room {self.room}, waiting for the peer"


@dataclass(frozen=True, slots=True)
class PeerBegun(Event):
    """Somebody has come into the room, or was there. Whether it is the peer, `PeerHere` tells."""

    step = "peer begun"

    def __str__(self) -> str:
        return "somebody is in the room"


@dataclass(frozen=True, slots=True)
class PeerHere(Event):
    """The peer is in the room, and has the same code."""

    step = "peer here"

    def __str__(self) -> str:
        return "the peer is here, with the same code"


@dataclass(frozen=True, slots=True)
class PeerClock(Event):
    """Add `difference_s` to this host's clock to get the peer's; right to within `bound_s`. Seconds."""

    step = "peer clock"
    difference_s: float
    bound_s: float

    def __str__(self) -> str:
        return f"the peer's clock is {self.difference_s:+.3f} s from this host's, ± {human(self.bound_s)}"


@dataclass(frozen=True, slots=True)
class Round(Event):
    """A meeting's round begins, the first being 1: `what` it is, in words."""

    step = "round"
    number: int
    what: str

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True)
class SessionUp(Event):
    """A session's first stream is up, proven. `peer`: the name that it is known by here."""

    step = "session up"
    peer: str

    def __str__(self) -> str:
        return f"{self.peer} is here"


@dataclass(frozen=True, slots=True)
class SessionDown(Event):
    """A session's stream is over. `why`: what broke it; None where this side has closed it."""

    step = "session down"
    peer: str
    why: str | None = None

    def __str__(self) -> str:
        return f"the stream to {self.peer} is over" + ("" if self.why is None else f": {self.why}")


@dataclass(frozen=True, slots=True)
class SessionBack(Event):
    """A session has another stream, `away_s` seconds after the one before was over. `number`: the first is 1."""

    step = "session back"
    peer: str
    number: int
    away_s: float

    def __str__(self) -> str:
        return f"{self.peer} is back, after {human(self.away_s)}"


@dataclass(frozen=True, slots=True)
class SessionWaits(Event):
    """A session's try has brought no stream; the next one comes in `pause_s` seconds."""

    step = "session waits"
    peer: str
    pause_s: float
    why: str

    def __str__(self) -> str:
        return f"{self.peer} was not met: {self.why}; the next try comes in {human(self.pause_s)}"


OnEvent = Callable[[Event], object]
"""Called in the event loop at each step; what it returns is ignored."""
