"""One local port and one endpoint of the peer's (RFC 8445's candidate pair), and the states of the attempt at it.

Theory of operation: pure. An attempt is one socket, that sends one SYN; a pair has one at a time. `TRANSITIONS` is all
that can happen to it:

                    fire     sent      taken   up   turn     no turn  hopeless
    PLANNED         FIRING   SYN_SENT  TAKEN        WAITING  IDLE     DEAD
    WAITING         FIRING                                   IDLE
    FIRING                   SYN_SENT  TAKEN        WAITING  IDLE     DEAD
    SYN_SENT                                   UP   WAITING  IDLE     DEAD
    TAKEN                                           WAITING  IDLE     DEAD
    UP                                                       IDLE
    IDLE                                            WAITING  IDLE
    DEAD

From each of them, `end` leads to CLOSED, which nothing leaves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from simopen.errors import LocalEndpointError, PunchError, SelfConnection
from simopen.model.endpoint import Endpoint
from simopen.model.outcome import Outcome
from simopen.model.shot import Shot
from simopen.model.times import NEVER, MonoNs


class State(Enum):
    """What an attempt is doing."""

    PLANNED = "its first SYN is due at the instant, or later"
    WAITING = "its next SYN has its turn at a set time"
    FIRING = "a new socket is to send its SYN now"
    SYN_SENT = "its SYN is out and unanswered; the kernel sends it again"
    TAKEN = "another socket has the 5-tuple, and the kernel's table is to tell which"
    UP = "its stream is up, and on offer or being verified"
    IDLE = "nothing is in flight and no SYN has a turn; a stream may still come through the listener"
    DEAD = "trying on cannot help"
    CLOSED = "a stream is kept, or nobody waits for one any more"


class Step(Enum):
    """What can happen to an attempt."""

    FIRE = "its SYN is due"
    SENT = "the SYN has left"
    TAKEN = "no SYN left: the 5-tuple is taken"
    UP = "the stream is up"
    TURN = "it has come to nothing, and the next SYN has a turn"
    NO_TURN = "it has come to nothing, and there is no turn for another"
    HOPELESS = "it has met what cannot pass within a window"
    END = "all is over"


_FAILED = {Step.TURN: State.WAITING, Step.NO_TURN: State.IDLE}
_REFUSED = {**_FAILED, Step.HOPELESS: State.DEAD}
_LEFT = {Step.SENT: State.SYN_SENT, Step.TAKEN: State.TAKEN, **_REFUSED}
_OPEN: Mapping[State, Mapping[Step, State]] = {
    State.PLANNED: {Step.FIRE: State.FIRING, **_LEFT},
    State.WAITING: {Step.FIRE: State.FIRING, Step.NO_TURN: State.IDLE},
    State.FIRING: _LEFT,
    State.SYN_SENT: {Step.UP: State.UP, **_REFUSED},
    State.TAKEN: _REFUSED,
    State.UP: {Step.NO_TURN: State.IDLE},
    State.IDLE: _FAILED,
    State.DEAD: {},
}
TRANSITIONS: Mapping[State, Mapping[Step, State]] = {
    state: {**steps, Step.END: State.CLOSED} for state, steps in _OPEN.items()
}


# States of a 5-tuple that do not pass by themselves within a window, unlike an accept under way or TIME-WAIT.
_LASTING = {"ESTABLISHED", "SYN-SENT", "CLOSE-WAIT"}


@dataclass(eq=False, slots=True)
class Pair:
    """A shot, and those that repeat it.

    `rank`: which pair's stream is better where several come up, 0 the best. `planned_ns`: when the SYN was to leave,
    `started_ns`: when it did, 0 where none has. `due_ns`: when it is to be fired again, or given up. `holder`: the
    state of the socket that has the 5-tuple, if the last look saw one.
    """

    shot: Shot
    rank: int = 0
    state: State = State.PLANNED
    planned_ns: MonoNs = NEVER
    started_ns: MonoNs = NEVER
    due_ns: MonoNs | None = None
    holder: str | None = None

    def step(self, step: Step) -> None:
        """Go from one state to the next; a KeyError is a fault of the engine's."""
        self.state = TRANSITIONS[self.state][step]

    def has_had_its_time(self, now_ns: MonoNs) -> bool:
        """Whether it is a guess that has waited for long enough."""
        return self.shot.lasts_ns is not None and now_ns >= self.started_ns + self.shot.lasts_ns

    def taken_by(self, holder: str | None, *, passing: bool) -> Outcome:
        """Whether the 5-tuple is another's for good. Two looks in a row must say so; `holder`: what this one saw.

        One alone may see the very stream that the listener is about to hand us, and so may one after a look that saw
        this stream's accept under way. `passing`: it is a stream of this process's, which is about to end.
        """
        before, self.holder = self.holder, holder
        return Outcome.HELD if before in _LASTING and holder in _LASTING and not passing else Outcome.TAKEN


def ranks(pairs: Iterable[Pair]) -> dict[Endpoint | str, int]:
    """Of each endpoint and address that is fired at at the instant."""
    ranks: dict[Endpoint | str, int] = {}
    for pair in pairs:
        if not pair.shot.after_ns:
            for name in (pair.shot.remote, pair.shot.remote.address):
                ranks.setdefault(name, pair.rank)
    return ranks


def hopeless(pair: Pair, outcome: Outcome, error: int) -> PunchError:
    """The error for an attempt whose outcome cannot pass within a window."""
    peer, port = pair.shot.remote, pair.shot.local_port
    if outcome is Outcome.HELD:
        return LocalEndpointError(
            f"port {port} of this host already has a connection to {peer} ({pair.holder}): close it, or use another "
            f"local port"
        )
    if outcome is Outcome.DENIED:
        return PunchError(f"this host does not permit a connection to {peer}: {os.strerror(error)}")
    return PunchError(f"this host cannot connect to {peer}: {os.strerror(error)} (errno {error})")


def self_connection(peer: Endpoint) -> SelfConnection:
    """The error for a peer that is the very socket that would fire."""
    return SelfConnection(
        f"{peer} is this host's own endpoint: the socket would be connected to itself; name the other host's "
        f"endpoint, or another local port (or, between two programs on this host, a local address as well), or take "
        f"`simopen self`, in a program simopen.connect_self, if this is what you want"
    )
