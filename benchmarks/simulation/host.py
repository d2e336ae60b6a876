"""One simulated host: its kernel's sockets, and the library's own engine above them.

Theory of operation: `Host` holds what a kernel does (`tcp.Opener` for each 5-tuple, resends, a listener), and is to the
`Engine` what `simopen/holepunch/runner.py` is on a real host: it tells what happens, and carries out what that answers.
So nothing is decided here. Who carries the segments, and keeps the time, is its `Carrier`.

Not modelled: other programs, the GIL; the time that a host takes is `REACTION_NS`.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from benchmarks.simulation.tcp import RST, Opener, Segment, State, after, refusal
from simopen.holepunch import engine_events as told
from simopen.holepunch.engine import Engine
from simopen.holepunch.nomination import Condition
from simopen.holepunch.pair import Pair
from simopen.holepunch.retry import Window
from simopen.model.endpoint import Endpoint
from simopen.model.shot import Shot
from simopen.model.times import MonoNs

# From a RST's arrival until the next SYN leaves. Measured in the lab with both cores busy: 0.5 to 1 ms.
REACTION_NS = 300_000
_SERIAL_BITS = 32


class Carrier(Protocol):
    """The network, as one host sees it."""

    @property
    def now_ns(self) -> int:
        """The time, for all hosts the same."""

    def at(self, when_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        """Have the call made then."""

    def carry(self, local: Endpoint, remote: Endpoint, segment: Segment) -> None:
        """Take a segment that the host sends."""


class Host:
    """Tell it `receive` and `unreachable` as packets arrive. `isn`: its first initial sequence number.

    `stream`: what was kept. `shots`: how many SYNs it has fired.
    """

    def __init__(self, carrier: Carrier, local: Endpoint, *, isn: int, listens: bool = True) -> None:
        self.stream: Opener | None = None
        self.fired_ns = 0
        self.established_ns: int | None = None
        self.shots = 0
        self._carrier = carrier
        self._local = local
        self._isn = isn
        self._listens, self._listening = listens, False
        self._sockets: dict[Endpoint, Opener] = {}
        self._pairs: dict[Endpoint, Pair] = {}
        self._engine = Engine(())
        self._events: deque[told.Event] = deque()

    @property
    def over(self) -> bool:
        """Whether it has a stream, or has given up."""
        return self._engine.over

    def aim(self, remote: Endpoint, fires_ns: int, window_ns: int, *, retries: bool = True) -> None:
        """Fire at this endpoint then. `retries`: whether it fires again."""
        pair = self._pairs[remote] = Pair(Shot(self._local.port, remote))
        self._engine = Engine((pair,))
        self.fired_ns, closes_ns = fires_ns, fires_ns + window_ns
        self._carrier.at(
            fires_ns, self._begin, pair, Window(MonoNs(fires_ns), MonoNs(closes_ns), left=None if retries else 0)
        )
        self._carrier.at(closes_ns, self._close)

    def receive(self, remote: Endpoint, segment: Segment) -> None:
        """A segment has arrived."""
        opener = self._sockets.get(remote)
        if opener is None:
            self._unexpected(remote, segment)
            return
        before = opener.state
        self._reply(remote, opener.receive(segment, self._carrier.now_ns))
        if opener.state is State.ESTABLISHED and before is not State.ESTABLISHED:
            self._established(remote, opener)
        elif opener.state is State.CLOSED:
            self._lost(remote, opener, errno.ECONNREFUSED)

    def unreachable(self, remote: Endpoint, segment: Segment) -> None:
        """An ICMP error has arrived: Linux gives a socket that is still opening up at once, with ECONNREFUSED."""
        opener = self._sockets.get(remote)
        if opener is not None and opener.unacked and not opener.passive and segment.seq == opener.iss:
            self._lost(remote, opener, errno.ECONNREFUSED)

    # What a kernel does.

    def _connect(self, remote: Endpoint) -> int:
        if remote in self._sockets:
            return errno.EADDRNOTAVAIL
        self.shots += 1
        self._open(remote, Opener.connecting(self._next_isn()))
        return errno.EINPROGRESS

    def _open(self, remote: Endpoint, opener: Opener) -> None:
        self._sockets[remote] = opener
        self._reply(remote, opener.latest)
        self._carrier.at(self._carrier.now_ns + opener.rto_ns, self._resend, remote, opener)

    def _next_isn(self) -> int:
        return (self._isn + (self._carrier.now_ns >> 6)) % (1 << _SERIAL_BITS)  # RFC 6528, as Linux counts

    def _resend(self, remote: Endpoint, opener: Opener) -> None:
        if self._sockets.get(remote) is not opener or not opener.unacked:
            return
        segment = opener.resend()
        if segment is None:
            self._lost(remote, opener, errno.ETIMEDOUT)
            return
        self._reply(remote, segment)
        self._carrier.at(self._carrier.now_ns + opener.rto_ns, self._resend, remote, opener)

    def _reply(self, remote: Endpoint, segment: Segment | None) -> None:
        if segment is not None:
            self._carrier.carry(self._local, remote, segment)

    def _unexpected(self, remote: Endpoint, segment: Segment) -> None:
        child = Opener.accepting(segment, self._next_isn()) if self._listening else None
        if child is None:
            self._reply(remote, refusal(segment))
        else:
            self._open(remote, child)

    def _established(self, remote: Endpoint, opener: Opener) -> None:
        now_ns = self._carrier.now_ns
        if opener.passive:
            self._tell(told.Accepted((remote, opener), remote, MonoNs(now_ns), 0))
        else:
            self._tell(told.CameUp(self._pairs[remote], (remote, opener), MonoNs(now_ns)))

    def _lost(self, remote: Endpoint, opener: Opener, error: int) -> None:
        opener.state = State.CLOSED
        del self._sockets[remote]
        if not opener.passive and remote in self._pairs:
            self._tell(told.Answered(self._pairs[remote], error))

    def _drop(self, remote: Endpoint, opener: Opener) -> None:
        """With SO_LINGER (1, 0): a RST, but nothing for a SYN, nor for what a listener has not accepted yet."""
        if self._sockets.get(remote) is not opener:
            return
        del self._sockets[remote]
        if opener.state is State.ESTABLISHED or (opener.state is State.SYN_RECEIVED and not opener.passive):
            self._reply(remote, Segment(RST, after(opener.iss)))

    # What the runner does.

    def _begin(self, pair: Pair, window: Window) -> None:
        self._tell(told.Begun(window, MonoNs(self.fired_ns), MonoNs(self.fired_ns)))
        self._fire(pair)
        self._listening = self._listens and not self.over

    def _fire(self, pair: Pair) -> None:
        at_ns, error = self._carrier.now_ns, self._connect(pair.shot.remote)
        self._tell(told.Fired(pair, MonoNs(at_ns), error))

    def _close(self) -> None:
        if not self.over:
            self._tell(told.TimeUp())
            self._tell(told.Ended())

    def _tell(self, event: told.Event) -> None:
        self._events.append(event)
        if len(self._events) > 1:
            return
        while self._events:
            for action in self._engine.handle(self._events[0], MonoNs(self._carrier.now_ns)):
                self._carry_out(action)
            self._events.popleft()
        if self.over:
            self._end()

    def _carry_out(self, action: told.Action) -> None:
        match action:
            case told.Fire(pair):
                self._fire(pair)
            case told.Close(pair):
                remote = pair.shot.remote
                opener = self._sockets.get(remote)
                if opener is not None and not opener.passive:
                    self._drop(remote, opener)
            case told.WaitUntil(at_ns):
                self._carrier.at(max(at_ns, self._carrier.now_ns + REACTION_NS), self._tell, told.Time())
            case told.Look(pair):
                opener = self._sockets.get(pair.shot.remote)
                self._tell(told.Seen(pair, None if opener is None else opener.state.value))
            case told.Check(streams):
                self._tell(told.Checked({stream: _condition(stream[1]) for stream in streams}))
            case told.Reset(stream):
                self._drop(*stream)
            case told.Keep(stream):
                self.stream, self.established_ns = stream[1], self._carrier.now_ns

    def _end(self) -> None:
        """The runner closes its listener, and with it what that has not accepted yet."""
        self._listening = False
        for remote, opener in list(self._sockets.items()):
            if opener is not self.stream:
                self._drop(remote, opener)


def _condition(opener: Opener) -> Condition:
    return Condition.RESET if opener.state is State.CLOSED else Condition.SILENT
