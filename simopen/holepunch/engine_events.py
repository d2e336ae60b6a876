"""What the engine is told, and what it answers: the events in and the actions out of `engine.py`, as values.

Theory of operation: pure. Times are CLOCK_MONOTONIC ns. A stream is whatever its owner names it by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from simopen.errors import LocalEndpointError, PunchError
from simopen.holepunch.nomination import Condition
from simopen.holepunch.pair import Pair
from simopen.holepunch.retry import Window
from simopen.model.endpoint import Endpoint
from simopen.model.times import MonoNs

Stream: TypeAlias = Any
"""Whatever the runner names a stream by, that can be in a set; the engine hands it back."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The window is open. `instant_ns`: when the first shots were due, `fired_ns`: when the first one was made."""

    window: Window
    instant_ns: MonoNs
    fired_ns: MonoNs


@dataclass(frozen=True, slots=True)
class Fired:
    """`connect` was called at `at_ns`, and returned `error`; EINPROGRESS as a rule."""

    pair: Pair
    at_ns: MonoNs
    error: int


@dataclass(frozen=True, slots=True)
class NoSocket:
    """No socket, or no listener, could be had for this shot."""

    pair: Pair
    error: LocalEndpointError


@dataclass(frozen=True, slots=True)
class Answered:
    """The SYN has come to nothing, by `error`. `resent`: how often the kernel had sent it again."""

    pair: Pair
    error: int
    resent: int = 0


@dataclass(frozen=True, slots=True)
class CameUp:
    """The pair's socket has been connected since `at_ns`. From here on it is the stream. `resent`: as in `Answered`."""

    pair: Pair
    stream: Stream
    at_ns: MonoNs
    resent: int = 0


@dataclass(frozen=True, slots=True)
class BeingVerified:
    """As `CameUp`, where the peer is to prove itself: nothing is nominated, and `Unproven` or `Verified` follows."""

    pair: Pair
    at_ns: MonoNs
    resent: int = 0


@dataclass(frozen=True, slots=True)
class Unproven:
    """The pair's stream was none with the peer, and is closed."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class Verified:
    """Both sides have proven a key on this stream, and chosen it, whether it came of a SYN or was let in."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class SelfConnected:
    """The pair's socket is connected to itself."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class Accepted:
    """The listener has let a stream in, which is up since `at_ns`. `took_ns`: the handshake; a round trip at least."""

    stream: Stream
    remote: Endpoint
    at_ns: MonoNs
    took_ns: int


@dataclass(frozen=True, slots=True)
class Seen:
    """The state that the pair's 5-tuple is in, in RFC 9293's words; None where nothing has it, or the kernel is mute.

    `passing`: it is a stream of this process's, which is about to end.
    """

    pair: Pair
    state: str | None
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """What there is to be read on the streams on offer."""

    found: Mapping[Stream, Condition]


@dataclass(frozen=True, slots=True)
class Time:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class TimeUp:
    """The window is over: the best stream on offer is kept, if there is one."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Nobody waits for a stream any more."""


Event: TypeAlias = (
    Begun
    | Fired
    | NoSocket
    | Answered
    | CameUp
    | BeingVerified
    | Unproven
    | Verified
    | SelfConnected
    | Accepted
    | Seen
    | Checked
    | Time
    | TimeUp
    | Ended
)


@dataclass(frozen=True, slots=True)
class Fire:
    """Take a new socket and send a SYN from it. Answer by `Fired` or `NoSocket`."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class Close:
    """Close the pair's socket. It is no stream: nothing is sent."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class Look:
    """Look in the kernel's table who has the pair's 5-tuple: its own socket or another. Answer by `Seen`."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class Check:
    """Look what there is to be read on these streams. Answer by `Checked`."""

    streams: tuple[Stream, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """This is the stream; no other is."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class Reset:
    """Close a stream that is not kept, by a RST, so that the peer does not keep it either."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Tell the `Time` then. It replaces the one before."""

    at_ns: MonoNs


@dataclass(frozen=True, slots=True)
class Fail:
    """Trying on is useless."""

    error: PunchError


Action: TypeAlias = Fire | Close | Look | Check | Keep | Reset | WaitUntil | Fail
