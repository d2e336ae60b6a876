"""Fire, watch, collect what comes up, close the rest.

Theory of operation: a `Connector` holds one `Lane` per shot, and a listener on each local port. What is due at the
instant is opened and bound before it: then the scheduler's thread calls `connect` on every lane and after that
`listen`. From there on the event loop watches, fires the later shots, and asks `retry.py` what each outcome calls for.

- A socket that got an answer is closed and a new one taken (`attempts.py`).
- A socket that got no answer is left alone: a new one has a new ISN, and the peer's answer to the old a RST. Only a
  guess among thousands is given up before the kernel sends it again.
- Where more than one answers, `nomination.py` keeps one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from simopen.clock.scheduler import Fired, spin
from simopen.errors import LocalEndpointError, PunchError, SelfConnection
from simopen.holepunch.attempts import Lane, Stream, accept_took_ns, up_since_ns
from simopen.holepunch.listener import Listener
from simopen.holepunch.nomination import Choice
from simopen.holepunch.retry import Fire, GiveUp, Window
from simopen.holepunch.telling import NOBODY, Teller
from simopen.model.endpoint import ANY, Endpoint
from simopen.model.event import Answered
from simopen.model.event import Fired as SynFired
from simopen.model.outcome import Outcome, passes
from simopen.model.report import MOST_ARRIVALS, Arrival, Attempt, Via
from simopen.model.shot import Shot
from simopen.net import delayed_close, local_ports, sock_diag
from simopen.net.local_ports import Claim, LocalEnd, LocalPorts
from simopen.net.routes import source_address
from simopen.net.sockets import MakeSocket, is_self_connected

_ARMING_NS = 50_000_000  # what the scheduler gets at least
_LOOKED_BACK = 4  # those of a spray have met nobody yet
_MADE_UP_NS = 20_000_000  # a delay that later shots make up for: as few as are due meanwhile


class Connector:
    """Everything that one punch has open: lanes, listeners, timers. Use `opened`."""

    def __init__(
        self,
        address: str | None,
        shots: Sequence[Shot],
        *,
        listen: bool,
        chooses: bool | None,
        left: int | None,
        resends: int,
        make: MakeSocket | None,
        ports: LocalPorts,
        tell: Teller = NOBODY,
    ) -> None:
        self.peers = tuple(dict.fromkeys(shot.remote for shot in shots))
        self.strangers = 0
        self.arrivals: list[Arrival] = []
        self.early_ns: int | None = None
        self.early_doubt_ns = 0
        self.earlier: str | None = None
        self._looked_ns = time.monotonic_ns()
        self.fired_ns = 0
        self.holder: str | None = None
        self.hindrance: LocalEndpointError | None = None  # what last kept this host from having a socket
        self._address = address
        self._shots = shots
        self._listen = listen
        self._loop = asyncio.get_running_loop()
        self._left, self._resends, self._make = left, resends, make
        self._lanes: list[Lane] = []
        self._armed: list[Lane] = []
        self._first: list[Lane] = []
        self._later: list[Lane] = []
        self._ranks: dict[Endpoint | str, int] = {}
        self._listeners: dict[LocalEnd, Listener] = {}
        self._timers: dict[Lane, asyncio.Handle] = {}
        self._ports = ports
        self._claims: list[Claim] = []
        self._sources: dict[str, str | None] = {}
        self._addresses = {peer.address for peer in self.peers}
        self._window = Window(0, 0)
        self._choice = Choice(
            self._loop, chooses=chooses, coming=self._better_is_coming, lost=self._fire_idle, ports=ports
        )
        self._tell = tell
        self._ended = False

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls,
        address: str | None,
        shots: Sequence[Shot],
        *,
        listen: bool = True,
        chooses: bool | None = None,
        left: int | None = None,
        resends: int = 0,
        make: MakeSocket | None = None,
        ports: LocalPorts = local_ports.shared,
        tell: Teller = NOBODY,
    ) -> Iterator[Connector]:
        """A connector with every socket bound; all that did not win is closed at the end, come what may.

        `address`: of this host, to fire from; None for any. A local port that cannot be had is left out, as long as
        there is another; one that cannot be had for a moment is tried again. `chooses`: as in `plan.Plan`. `left` and
        `resends`: as in `retry.Window`. `make`: what makes the sockets; left out, the kernel. `ports`: what this
        process holds of local ports. `tell`: who is told of each SYN and of each answer.

        Raises:
            LocalEndpointError: no local endpoint can be had, or a 5-tuple is in use by another punch.
        """
        connector = cls(
            address,
            shots,
            listen=listen,
            chooses=chooses,
            left=left,
            resends=resends,
            make=make,
            ports=ports,
            tell=tell,
        )
        try:
            connector._open()
            yield connector
        finally:
            connector.end()

    def _open(self) -> None:
        refused: dict[LocalEnd, LocalEndpointError] = {}
        for rank, shot in enumerate(self._shots):
            local = self._bound_to(shot)
            if local in refused:
                continue
            if shot.after_ns < 0:
                self._first.append(self._lane(shot, rank))
                continue
            self._claim(local, shot.remote)
            try:
                self._open_lane(self._lane(shot, 0 if shot.once else rank))
            except LocalEndpointError as error:
                refused[local] = error
        if not (self._lanes or self._later):
            raise next(iter(refused.values()))

    def _lane(self, shot: Shot, rank: int) -> Lane:
        return Lane(self._bound_to(shot), shot, rank, resends=self._resends, make=self._make, ports=self._ports)

    def _open_lane(self, lane: Lane) -> None:
        """Have the lane's listener, and what it fires at the instant; later, what is not to be had for a moment."""
        try:
            if not lane.shot.after_ns:
                lane.load()
            self._have_listener(lane)
        except LocalEndpointError as error:
            if not self._passes(error, lane):
                lane.discard()
                raise
        (self._later if lane.shot.after_ns else self._lanes).append(lane)
        if not lane.shot.after_ns:
            for name in (lane.peer, lane.peer.address):
                self._ranks.setdefault(name, lane.rank)

    def _have_listener(self, lane: Lane) -> Listener | None:
        """The lane's listener, where it is new. Raises: LocalEndpointError."""
        if not self._listen or lane.local in self._listeners:
            return None
        listener = self._listeners[lane.local] = Listener.borrow(
            lane.local, lane.peer.family, ports=self._ports, make=self._make
        )
        return listener

    def _passes(self, error: LocalEndpointError, lane: Lane) -> bool:
        """Whether what the lane has met may be over within the window; then it is noted."""
        if not passes(error.errno or 0, had=lane.started_ns > 0):
            return False
        self.hindrance = error
        return True

    def _bound_to(self, shot: Shot) -> LocalEnd:
        return (self._address or ANY[shot.remote.family], shot.local_port)

    def _claim(self, local: LocalEnd, peer: Endpoint) -> None:
        if peer.address not in self._sources:
            with contextlib.suppress(LocalEndpointError):  # nobody can be asked at the moment
                self._sources[peer.address] = source_address(peer, None)
        self._claims.append(self._ports.claim(local, peer, self._sources.get(peer.address)))

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every attempt that has ended, in the order of firing."""
        ended = (attempt for lane in (*self._lanes, *self._later) for attempt in lane.attempts)
        return tuple(sorted(ended, key=lambda attempt: attempt.started_ns))

    @property
    def notes(self) -> tuple[str, ...]:
        """What hindered some of the shots."""
        return () if self.hindrance is None else (f"for a while nothing could be fired: {self.hindrance}",)

    @property
    def listening(self) -> bool:
        """Whether a stream could arrive by accept."""
        return any(listener.listening for listener in self._listeners.values())

    async def stream(self) -> Stream:
        """The stream, once it is up. From here on its socket is the caller's to close.

        Raises:
            PunchError: trying on is useless.
        """
        return await self._choice.stream()

    def last(self) -> Stream | None:
        """As `stream`, once its waiter has run out of time: what came up late, and was waiting for a better one."""
        return self._choice.last()

    def look_out(self) -> bool:
        """Look whether a SYN of the peers' has come by now, before the instant. Nobody is let in.

        Returns whether there is any sense in looking again.
        """
        looking = False
        for listener in self._listeners.values():
            addresses = dict.fromkeys(peer.address for peer in self.peers if peer.family == listener.family)
            if listener.look_out(addresses):
                self._look(listener)
                looking = True
        self._looked_ns = time.monotonic_ns()
        return looking

    def _look(self, listener: Listener) -> None:
        if not listener.saw_early():
            return
        if self.early_ns is None:  # it came between two looks
            now_ns = time.monotonic_ns()
            self.early_ns, self.early_doubt_ns = (self._looked_ns + now_ns) // 2, (now_ns - self._looked_ns) // 2
        listener.stop_looking()

    def stop_looking(self) -> None:
        """After a last look, leave the port to those who listen from the instant on."""
        for listener in self._listeners.values():
            self._look(listener)
            listener.stop_looking()

    def leave_out(self, guesses: int) -> None:
        """Do without the first so many guesses: flows of this program's have taken the ports that they were to have.

        The rest then get the ports at which the peer aims.
        """
        row = [lane for lane in (*self._lanes, *self._later) if lane.shot.once]
        gone = row[: min(guesses, len(row) - 1)]  # one is left to fire, come what may
        for lane in gone:
            lane.discard()
        self._lanes = [lane for lane in self._lanes if lane not in gone]
        self._later = [lane for lane in self._later if lane not in gone]

    def fire_at(self, shots: Sequence[Shot], left: int | None = None, resends: int = 0) -> None:
        """Before the instant: have these shots, and let go of the others. `left`, `resends`: as in `opened`.

        Raises: LocalEndpointError as `opened` does.
        """
        self._let_go()
        for gone in (self._first, self._lanes, self._later, self._listeners):
            gone.clear()
        self._shots, self._left, self._resends = shots, left, resends
        self.peers = tuple(dict.fromkeys(shot.remote for shot in shots))
        self._open()

    def _let_go(self) -> None:
        for lane in (*self._first, *self._lanes, *self._later):
            lane.close(self._loop)
        for listener in self._listeners.values():
            listener.give_back(self._loop, self)
        for claim in self._claims:
            self._ports.release(claim)
        self._claims.clear()

    def look_back(self, instant_ns: int) -> None:
        """Note when a stream between the same two endpoints as one of the first few shots' ended here, if any did."""
        for lane in self._lanes[:_LOOKED_BACK]:
            self.earlier = self.earlier or delayed_close.shared.earlier(lane.local, lane.peer, instant_ns)

    def aim(self, planned_ns: int) -> list[Callable[[], object]]:
        """The calls that fire what is due at the instant, and then those that listen; for the scheduler's thread."""
        for lane in (*self._lanes, *self._later):
            lane.planned_ns = planned_ns + lane.shot.after_ns
        for lane in self._lanes:
            with contextlib.suppress(LocalEndpointError):  # still not to be had: `watch` sees to it
                self._have_listener(lane)
                if not lane.loaded:
                    lane.load()
        for listener in self._listeners.values():
            listener.expect(self._loop, self)
        self._armed = [lane for lane in self._lanes if lane.loaded]
        connects = [partial(lane.connect_ex, lane.target) for lane in self._armed]
        return [*connects, *(listener.listen for listener in self._listeners.values())]

    @property
    def opens_the_way(self) -> bool:
        """Whether there is anything to fire before the instant."""
        return bool(self._first)

    async def open_the_way(self, instant_ns: int) -> None:
        """Fire the shots that come before the instant, and close them again, so that their 5-tuples are free at it."""
        for lane in self._first:
            planned_ns = instant_ns + lane.shot.after_ns
            await asyncio.sleep(max(0, planned_ns - time.monotonic_ns()) / 1e9)
            if time.monotonic_ns() > instant_ns - _ARMING_NS:  # it was too late from the beginning, or slept too long
                break
            with contextlib.suppress(LocalEndpointError):  # then this port is left out
                lane.reload_and_fire(planned_ns)
        if self._first:
            for listener in self._listeners.values():  # else this host's kernel answers a peer's early SYN with a RST
                listener.listen()
            lasts_ns = self._first[0].shot.lasts_ns or 0
            await asyncio.sleep(max(0, min(lasts_ns, instant_ns - time.monotonic_ns() - _ARMING_NS)) / 1e9)
        for lane in self._first:
            lane.discard()

    def rehearse(self) -> None:
        """Take the steps of the first SYN up to and into the kernel: a UDP socket's connect sends nothing.

        Called within the last ms it brings code, data and the kernel's routes into the caches.
        """
        lane = (self._lanes or self._later)[0]
        with contextlib.suppress(OSError), socket.socket(lane.peer.family, socket.SOCK_DGRAM) as probe:
            spin(0, [partial(probe.connect_ex, lane.target)])

    def fired(self, calls: list[Fired]) -> None:
        """Note when the calls of `aim` were made, and what came of them."""
        for lane, (at_ns, error) in zip(self._armed, calls, strict=False):
            assert isinstance(error, int)
            lane.fired(at_ns, error)
        self.fired_ns = calls[0].at_ns if calls else time.monotonic_ns()

    def watch(self, window: Window) -> None:
        """After `fired`: follow every shot up, and fire the later ones, until there is a stream."""
        self._window = replace(window, left=self._left, resends=self._resends)
        for listener in self._listeners.values():  # first, or our own stream is taken for a stranger's
            listener.join(self._loop, self)
        self._await(iter(sorted(self._later, key=lambda lane: lane.planned_ns)))
        for lane in self._armed:
            self._watch_first(lane)
        for lane in self._lanes:
            if lane not in self._armed:
                self._again(lane, Outcome.FAILED, sent=False)

    def _await(self, row: Iterator[Lane], behind_ns: int = 0) -> None:
        """Fire them one after the other. Where the loop comes round late, the rest is put off: never many at once."""
        lane = next(row, None)
        if lane is not None:
            wait_s = max(0, lane.planned_ns + behind_ns - time.monotonic_ns()) / 1e9
            self._timers[lane] = self._loop.call_later(wait_s, self._fire_later, lane, row, behind_ns)

    def _fire_later(self, lane: Lane, row: Iterator[Lane], behind_ns: int) -> None:
        late_ns = time.monotonic_ns() - lane.planned_ns - behind_ns
        if late_ns > _MADE_UP_NS:
            behind_ns += late_ns
        if not lane.shot.once:
            self._window = self._window.fired(time.monotonic_ns())
        self._refire(lane, lane.planned_ns + behind_ns)
        self._await(row, behind_ns)

    def _watch_first(self, lane: Lane) -> None:
        if not lane.shot.once:
            self._window = self._window.fired(lane.started_ns)
        self._watch(lane)

    def _watch(self, lane: Lane) -> None:
        self._tell_fired(lane)
        if lane.shot.lasts_ns is not None:
            self._timers[lane] = self._loop.call_later(lane.shot.lasts_ns / 1e9, self._give_up, lane)
        lane.watch(self._loop, self._shot_ended)

    def _tell_fired(self, lane: Lane) -> None:
        if self._tell and lane.sent:
            self._tell(SynFired(lane.started_ns, lane.peer))

    def _tell_answered(self, attempt: Attempt) -> None:
        if self._tell and attempt.answered:
            self._tell(Answered(attempt.ended_ns, attempt))

    def _give_up(self, lane: Lane) -> None:
        del self._timers[lane]
        if not lane.answered:  # else the stream is coming up, and the peer may have it already
            lane.close(self._loop)

    def _shot_ended(self, lane: Lane, error: int) -> None:
        if lane in self._timers:
            self._timers.pop(lane).cancel()
        self._tell_answered(lane.attempts[-1])
        outcome, resent = self._look_closer(lane), lane.resent
        if outcome is Outcome.OPEN:
            self._connected(lane)
            return
        lane.discard()
        self._again(lane, outcome, error, sent=lane.attempts[-1].sent, resent=resent)

    def _again(self, lane: Lane, outcome: Outcome, error: int = 0, *, sent: bool = True, resent: int = 0) -> None:
        """What is fired again has its turn here, whatever became of it. A guess has had its only one."""
        action, window = self._window.after(outcome, time.monotonic_ns(), sent=sent, resent=resent)
        if isinstance(action, GiveUp):
            self._lane_dead(lane, self._hopeless(lane, outcome, error))
        elif not lane.shot.once:
            self._window = window
            if isinstance(action, Fire):
                self._fire_at(lane, action.at_ns)

    def _look_closer(self, lane: Lane) -> Outcome:
        """The last shot's outcome. A taken 5-tuple: by what? An accept under way may be the very stream we want."""
        outcome = lane.attempts[-1].outcome
        if outcome is not Outcome.TAKEN:
            lane.holder = None
            return outcome
        self.holder = sock_diag.state(lane.local, lane.peer)
        for listener in self._listeners.values():  # it may be in a queue, where the loop has not come round to it yet
            listener.collect(self._loop)
        ours = delayed_close.shared.holds(lane.local[1], lane.peer)  # that will pass, whatever its state is
        return Outcome.HELD if lane.held(self.holder) and not ours else outcome

    def _fire_at(self, lane: Lane, at_ns: int) -> None:
        wait_s = (at_ns - time.monotonic_ns()) / 1e9
        # At once still means one turn of the loop: that is the floor between two shots.
        if wait_s <= 0:
            self._timers[lane] = self._loop.call_soon(self._refire, lane, at_ns)
        else:
            self._timers[lane] = self._loop.call_later(wait_s, self._refire, lane, at_ns)

    def _refire(self, lane: Lane, planned_ns: int) -> None:
        del self._timers[lane]
        if time.monotonic_ns() >= self._window.closes_ns:  # the loop was busy elsewhere
            return
        try:
            if (listener := self._have_listener(lane)) is not None:
                listener.listen()
                listener.join(self._loop, self)
            lane.reload_and_fire(planned_ns)
        except LocalEndpointError as error:
            if lane.shot.once or not self._passes(error, lane):
                self._lane_dead(lane, error)
            else:
                self._again(lane, Outcome.FAILED, sent=False)
            return
        self._watch(lane)

    def _fire_idle(self) -> None:
        for lane in self._lanes:
            if lane.idle and lane not in self._timers:
                self._again(lane, Outcome.RESET)

    def _lane_dead(self, lane: Lane, error: PunchError) -> None:
        lane.dead = True
        if all(lane.dead for lane in (*self._lanes, *self._later)):
            self._fail(error)

    def _hopeless(self, lane: Lane, outcome: Outcome, error: int) -> PunchError:
        if outcome is Outcome.HELD:
            return LocalEndpointError(
                f"port {lane.local[1]} of this host already has a connection to {lane.peer} ({self.holder}): close it, "
                f"or use another local port"
            )
        if outcome is Outcome.DENIED:
            return PunchError(f"this host does not permit a connection to {lane.peer}: {os.strerror(error)}")
        return PunchError(f"this host cannot connect to {lane.peer}: {os.strerror(error)} (errno {error})")

    def _fail(self, error: PunchError) -> None:
        self._choice.fail(error)

    def _connected(self, lane: Lane) -> None:
        resent, sock = lane.resent, lane.take()
        try:
            selfish = is_self_connected(sock)
        except OSError:  # reset between SO_ERROR and here
            sock.close()
            self._again(lane, Outcome.RESET, resent=resent)
            return
        if selfish:
            sock.close()
            self._fail(self_connection(lane.peer))
            return
        took_ns = time.monotonic_ns() - lane.started_ns  # by the loop: rather too long than too short
        self._offer(Stream(sock, lane.peer, Via.CONNECT, lane.attempts[-1].ended_ns, took_ns), lane.rank)

    def accepted(self, sock: socket.socket, remote: Endpoint) -> None:
        """Take what the listener let in for one of this connector's peers."""
        if self._ended:
            sock.close()
            return
        # Another port than the one named: the peer's NAT chose it, and then nothing comes from the one named.
        rank = self._ranks.get(remote, self._ranks.get(remote.address, 0))
        stream = Stream(sock, remote, Via.ACCEPT, up_since_ns(sock, self.fired_ns), accept_took_ns(sock))
        self._offer(stream, rank, named=remote in self._ranks)

    def turned_away(self, remote: Endpoint) -> None:
        """Count a stranger, and keep the first few: of those from a peer's address, and of the others."""
        self.strangers += 1
        ours = remote.address in self._addresses
        if sum((each.remote.address in self._addresses) is ours for each in self.arrivals) < MOST_ARRIVALS:
            self.arrivals.append(Arrival(remote, time.monotonic_ns()))

    def _offer(self, stream: Stream, rank: int, *, named: bool = True) -> None:
        self._choice.offer(stream, rank, stream.established_ns - self.fired_ns, named=named)

    def _better_is_coming(self, rank: int) -> bool:
        return any(lane.rank < rank and not lane.dead for lane in self._lanes)

    def end(self) -> None:
        """Close everything but a stream that was handed over, and record what was still in flight; once is enough."""
        if self._ended:
            return
        self._ended = True
        for timer in self._timers.values():
            timer.cancel()
        self._let_go()
        self._choice.end()


def self_connection(peer: Endpoint) -> SelfConnection:
    """The error for a peer that is the very socket that would fire."""
    return SelfConnection(
        f"{peer} is this host's own endpoint: the socket would be connected to itself; name the other host's "
        f"endpoint, or another local port (or, between two programs on this host, a local address as well), or call "
        f"simopen.connect_self if this is what you want"
    )
