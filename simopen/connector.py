"""Fire, watch, collect what comes up, close the rest.

Theory of operation: a `Connector` holds one `Lane` per peer endpoint, all on one local port, and that port's
listener. Everything is opened and bound before the instant. At the instant the scheduler's thread calls `connect` on
every lane and then `listen`; from there on the event loop watches, and `window.py` says what each outcome calls for.

- A socket that got an answer is closed and a new one taken: BSD's are dead after a RST.
- A socket that got no answer is left alone: a new one has a new ISN, and the peer's answer to the old a RST.
- Where several endpoints were fired at and more than one answers, the first named wins: named in the same order on
  both sides, both choose the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TypeAlias

from simopen import conntable
from simopen.address import ANY, Endpoint, sockaddr
from simopen.errors import LocalEndpointError, PunchError, SelfConnection
from simopen.listener import Listener, Loop
from simopen.report import MOST_ARRIVALS, Arrival, Attempt, Via
from simopen.scheduler import Fired, spin
from simopen.sockets import is_self_connected, keep, open_socket
from simopen.window import Fire, GiveUp, Keep, Outcome, Window, grace_ns, outcome_of

Claim: TypeAlias = tuple[tuple[str, int], Endpoint]

# States of a 5-tuple that do not pass by themselves within a window, unlike an accept under way or TIME-WAIT.
_LASTING = {"ESTABLISHED", "SYN-SENT", "CLOSE-WAIT"}


@dataclass(frozen=True, slots=True)
class Stream:
    """A connected socket, and how it came."""

    sock: socket.socket
    remote: Endpoint
    via: Via
    established_ns: int


class Lane:
    """The way to one peer endpoint: one socket at a time, a new one for each SYN."""

    def __init__(self, local: tuple[str, int], peer: Endpoint, rank: int) -> None:
        self.peer = peer
        self.rank = rank
        self.dead = False
        self.holder: str | None = None  # the state of what has the 5-tuple, if the last look saw anything
        self.attempts: list[Attempt] = []
        self.planned_ns = self.started_ns = self.error = 0
        self.target = sockaddr(peer)
        self._local = local
        self._watched = False
        self._sock: socket.socket | None = None
        self.load()

    def load(self) -> None:
        """Have a socket bound, and the very call at hand that sends its SYN."""
        self._sock = open_socket(self._local, self.peer.family)
        self.connect_ex = self._sock.connect_ex

    def reload_and_fire(self, planned_ns: int) -> None:
        """Send one more SYN, from a new socket."""
        self.load()
        self.planned_ns, self.started_ns = planned_ns, time.monotonic_ns()
        self.error = self.connect_ex(self.target)

    def watch(self, loop: Loop, done: Callable[[Lane, int], None]) -> None:
        """Report the shot's errno to `done(lane, errno)`: now where it is known, else when the kernel tells."""
        assert self._sock is not None
        if outcome_of(self.error, immediate=True) is Outcome.IN_FLIGHT:
            loop.add_writer(self._sock, self._ready, loop, done)
            self._watched = True
        else:
            self._record(self.error, immediate=True)
            done(self, self.error)

    def _ready(self, loop: Loop, done: Callable[[Lane, int], None]) -> None:
        assert self._sock is not None
        loop.remove_writer(self._sock)
        self._watched = False
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._record(error, immediate=False)
        done(self, error)

    def _record(self, error: int | None, *, immediate: bool) -> None:
        now_ns = time.monotonic_ns()
        shot = Attempt(self.peer, self.planned_ns, self.started_ns, now_ns, error, immediate)
        self.attempts.append(shot)

    def held(self, holder: str | None) -> bool:
        """Whether the taken 5-tuple is another's for good, now that a look has found it in state `holder`.

        Two looks in a row must say so. One alone may see the very stream that the listener is about to hand us, and
        so may one after a look that saw this stream's accept under way.
        """
        before, self.holder = self.holder, holder
        return before in _LASTING and holder in _LASTING

    @property
    def idle(self) -> bool:
        """Whether nothing of this lane is in flight, though it could be."""
        return self._sock is None and not self.dead

    def take(self) -> socket.socket:
        """Give the socket away; it is no longer the lane's to close."""
        sock, self._sock = self._sock, None
        assert sock is not None
        return sock

    def discard(self) -> None:
        """Close the socket; the next shot takes a new one."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def close(self, loop: Loop) -> None:
        """Close the socket, whatever it is doing."""
        if self._sock is not None and self._watched:
            loop.remove_writer(self._sock)
            self._record(None, immediate=False)
        self.discard()


class Connector:
    """Everything that one punch has open: lanes, listeners, timers. Use `opened`."""

    _claimed: ClassVar[weakref.WeakKeyDictionary[Loop, set[Claim]]] = weakref.WeakKeyDictionary()

    def __init__(self, local: tuple[str | None, int], peers: tuple[Endpoint, ...], *, listen: bool) -> None:
        self.peers = peers
        self.strangers = 0
        self.arrivals: list[Arrival] = []
        self.early_ns: int | None = None
        self.fired_ns = 0
        self.holder: str | None = None
        self._local = local
        self._listen = listen
        self._loop = asyncio.get_running_loop()
        self._lanes: list[Lane] = []
        self._listeners: list[Listener] = []
        self._timers: dict[Lane, asyncio.Handle] = {}
        self._claims: set[Claim] = set()
        self._window = Window(0, 0)
        self._best: tuple[int, Stream] | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._won: asyncio.Future[Stream] = self._loop.create_future()
        self._taken = self._ended = False

    @classmethod
    @contextlib.contextmanager
    def opened(cls, local: tuple[str | None, int], peers: tuple[Endpoint, ...], *, listen: bool) -> Iterator[Connector]:
        """A connector with every socket bound; all that did not win is closed at the end, come what may.

        Raises:
            LocalEndpointError: the local endpoint cannot be had, or a 5-tuple is in use by another punch.
        """
        connector = cls(local, peers, listen=listen)
        try:
            connector._open()
            yield connector
        finally:
            connector.end()

    def _open(self) -> None:
        for rank, peer in enumerate(self.peers):
            local = self._bound_to(peer.family)
            self._claim(local, peer)
            self._lanes.append(Lane(local, peer, rank))
        if not self._listen:
            return
        for family in dict.fromkeys(peer.family for peer in self.peers):
            self._listeners.append(Listener.borrow(self._loop, self._bound_to(family), family))

    def _bound_to(self, family: socket.AddressFamily) -> tuple[str, int]:
        return (self._local[0] or ANY[family], self._local[1])

    def _claim(self, local: tuple[str, int], peer: Endpoint) -> None:
        claimed = self._claimed.setdefault(self._loop, set())
        if (local, peer) in claimed:
            raise LocalEndpointError(
                f"this program is already connecting from port {local[1]} to {peer}: one local port can have one "
                f"stream to each endpoint; await the first, or use another local port"
            )
        claimed.add((local, peer))
        self._claims.add((local, peer))

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every attempt that has ended, in the order of firing."""
        return tuple(sorted((a for lane in self._lanes for a in lane.attempts), key=lambda a: a.started_ns))

    @property
    def listening(self) -> bool:
        """Whether a stream could arrive by accept."""
        return any(listener.listening for listener in self._listeners)

    async def stream(self) -> Stream:
        """The stream, once it is up. From here on its socket is the caller's to close.

        Raises:
            PunchError: trying on is useless.
        """
        stream = await self._won
        self._taken = True
        return stream

    def look(self) -> None:
        """Note it where a SYN of the peers' has come by now, before the instant. Nobody is let in."""
        for listener in self._listeners:
            addresses = dict.fromkeys(peer.address for peer in self.peers if peer.family == listener.family)
            if listener.early(addresses):
                self.early_ns = self.early_ns or time.monotonic_ns()
                listener.stop_looking()

    def stop_looking(self) -> None:
        """Leave the port to those who listen from the instant on."""
        for listener in self._listeners:
            listener.stop_looking()

    def aim(self, planned_ns: int) -> list[Callable[[], object]]:
        """The calls that fire the first SYN on every lane, and then those that listen; for the scheduler's thread."""
        for lane in self._lanes:
            lane.planned_ns = planned_ns
        connects = [partial(lane.connect_ex, lane.target) for lane in self._lanes]
        return [*connects, *(listener.listen for listener in self._listeners)]

    def rehearse(self) -> None:
        """Take the steps of the first SYN up to and into the kernel: a UDP socket's connect sends nothing.

        Called within the last ms it brings code, data and the kernel's routes into the caches.
        """
        with contextlib.suppress(OSError), socket.socket(self.peers[0].family, socket.SOCK_DGRAM) as probe:
            spin(0, [partial(probe.connect_ex, self._lanes[0].target)])

    def fired(self, calls: list[Fired]) -> None:
        """Note when the calls of `aim` were made, and what came of them."""
        for lane, (at_ns, error) in zip(self._lanes, calls, strict=False):
            assert isinstance(error, int)
            lane.started_ns, lane.error = at_ns, error
        self.fired_ns = self._lanes[0].started_ns

    def watch(self, window: Window) -> None:
        """After `fired`: follow every shot up until `won` is done."""
        self._window = window
        for lane in self._lanes:
            self._window = self._window.fired(lane.started_ns)
        for listener in self._listeners:  # before any lane looks closer, or our own stream is taken for a stranger's
            listener.join(self)
        for lane in self._lanes:
            lane.watch(self._loop, self._shot_ended)

    def _shot_ended(self, lane: Lane, error: int) -> None:
        outcome = self._look_closer(lane)
        action = self._window.after(outcome, lane.attempts[-1].ended_ns)
        if isinstance(action, Keep):
            self._connected(lane)
            return
        lane.discard()
        if isinstance(action, Fire):
            self._fire_at(lane, action.at_ns)
        elif isinstance(action, GiveUp):
            self._lane_dead(lane, outcome, error)

    def _look_closer(self, lane: Lane) -> Outcome:
        """The last shot's outcome. A taken 5-tuple: by what? An accept under way may be the very stream we want."""
        outcome = lane.attempts[-1].outcome
        if outcome is not Outcome.TAKEN:
            lane.holder = None
            return outcome
        self.holder = conntable.state(self._bound_to(lane.peer.family), lane.peer)
        for listener in self._listeners:  # it may be in a queue, where the loop has not come round to it yet
            listener.collect()
        return Outcome.HELD if lane.held(self.holder) else outcome

    def _fire_at(self, lane: Lane, at_ns: int) -> None:
        wait_s = (at_ns - time.monotonic_ns()) / 1e9
        # At once still means one turn of the loop: that is the floor between two shots.
        if wait_s <= 0:
            self._timers[lane] = self._loop.call_soon(self._refire, lane, at_ns)
        else:
            self._timers[lane] = self._loop.call_later(wait_s, self._refire, lane, at_ns)

    def _refire(self, lane: Lane, planned_ns: int) -> None:
        del self._timers[lane]
        try:
            lane.reload_and_fire(planned_ns)
        except LocalEndpointError as error:
            self._fail(error)
            return
        self._window = self._window.fired(lane.started_ns)
        lane.watch(self._loop, self._shot_ended)

    def _fire_idle(self) -> None:
        for lane in self._lanes:
            if lane.idle and lane not in self._timers:
                self._fire_at(lane, time.monotonic_ns())

    def _lane_dead(self, lane: Lane, outcome: Outcome, error: int) -> None:
        lane.dead = True
        if all(lane.dead for lane in self._lanes):
            self._fail(self._hopeless(lane.peer, outcome, error))

    def _hopeless(self, peer: Endpoint, outcome: Outcome, error: int) -> PunchError:
        if outcome is Outcome.HELD:
            return LocalEndpointError(
                f"port {self._local[1]} of this host already has a connection to {peer} ({self.holder}): close it, "
                f"or use another local port"
            )
        if outcome is Outcome.DENIED:
            return PunchError(f"this host does not permit a connection to {peer}: {os.strerror(error)}")
        return PunchError(f"the SYN to {peer} failed: {os.strerror(error)} (errno {error})")

    def _fail(self, error: PunchError) -> None:
        if not self._won.done():
            self._won.set_exception(error)

    def _connected(self, lane: Lane) -> None:
        sock = lane.take()
        try:
            selfish = is_self_connected(sock)
        except OSError:  # reset between SO_ERROR and here
            sock.close()
            self._fire_at(lane, time.monotonic_ns())
            return
        if selfish:
            sock.close()
            self._fail(self_connection(lane.peer))
            return
        self._offer(Stream(sock, lane.peer, Via.CONNECT, time.monotonic_ns()), lane.rank)

    def accepted(self, sock: socket.socket, remote: Endpoint) -> None:
        """Take what the listener let in for one of this connector's peers."""
        exact = [lane.rank for lane in self._lanes if lane.peer == remote]
        # Another port than the one named: the peer's NAT chose it, and then nothing comes from the one named.
        by_address = [lane.rank for lane in self._lanes if lane.peer.address == remote.address]
        self._offer(Stream(sock, remote, Via.ACCEPT, time.monotonic_ns()), (exact or by_address)[0])

    def turned_away(self, remote: Endpoint) -> None:
        """Count a stranger, and keep the first few: of those from a peer's address, and of the others."""
        self.strangers += 1
        addresses = {peer.address for peer in self.peers}
        ours = remote.address in addresses
        if sum((each.remote.address in addresses) is ours for each in self.arrivals) < MOST_ARRIVALS:
            self.arrivals.append(Arrival(remote, time.monotonic_ns()))

    def _offer(self, stream: Stream, rank: int) -> None:
        """Keep the better of two streams. The best rank that can still come wins; `grace_ns` says until when."""
        if self._won.done() or (self._best is not None and self._best[0] <= rank):
            stream.sock.close()
            return
        if self._best is not None:
            self._best[1].sock.close()
        self._best = (rank, stream)
        if not any(lane.rank < rank and not lane.dead for lane in self._lanes):
            self._settle()
        elif self._settling is None:
            wait_ns = grace_ns(stream.established_ns - self.fired_ns)
            self._settling = self._loop.call_later(wait_ns / 1e9, self._settle)

    def _settle(self) -> None:
        if self._won.done() or self._best is None:
            return
        stream = self._best[1]
        if stream.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):  # the peer has chosen another meanwhile
            stream.sock.close()
            self._best = self._settling = None
            self._fire_idle()
            return
        keep(stream.sock)
        self._best = None
        self._won.set_result(stream)

    def end(self) -> None:
        """Close everything but a stream that was handed over, and record what was still in flight; once is enough."""
        if self._ended:
            return
        self._ended = True
        for timer in self._timers.values():
            timer.cancel()
        if self._settling is not None:
            self._settling.cancel()
        for lane in self._lanes:
            lane.close(self._loop)
        for listener in self._listeners:
            listener.give_back(self)
        if self._best is not None:
            self._best[1].sock.close()
        self._claimed.get(self._loop, set()).difference_update(self._claims)
        self._drop_unclaimed()

    def _drop_unclaimed(self) -> None:
        """A stream that came up in the very moment in which its waiter was cancelled is nobody's: close it."""
        if self._won.cancel() or self._won.cancelled() or self._taken:
            return
        if self._won.exception() is None:
            self._won.result().sock.close()


def self_connection(peer: Endpoint) -> SelfConnection:
    """The error for a peer that is the very socket that would fire."""
    return SelfConnection(
        f"{peer} is this host's own endpoint: the socket would be connected to itself; name the other host's "
        f"endpoint, or another local port, or call simopen.connect_self if this is what you want"
    )
