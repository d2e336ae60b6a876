"""Sockets for the engine: open what it fires from, fire, watch, and carry out what it decides.

Theory of operation: a `Runner` holds the `Attempts` at each pair, and a listener on each local port. What is due at the
instant is opened and bound before it: then the scheduler's thread calls `connect` on each socket and after that
`listen`. From there on the event loop tells the engine (`engine.py`) what happens, and does what that answers.

The one seam towards the network is `make`, which stands for `socket.socket`: all sockets of a punch come from it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self

from simopen.clock.scheduler import Fired as Called
from simopen.errors import LocalEndpointError, PunchError
from simopen.holepunch import engine_events as told
from simopen.holepunch.attempts import Attempts, Stream, accept_took_ns, condition, up_since_ns
from simopen.holepunch.callback import NOBODY, Teller
from simopen.holepunch.engine import Engine
from simopen.holepunch.lookout import Lookout
from simopen.holepunch.pair import Pair
from simopen.holepunch.preparation import Preparation
from simopen.holepunch.retry import Window
from simopen.model.endpoint import Endpoint
from simopen.model.event import Answered
from simopen.model.event import Fired as SynFired
from simopen.model.outcome import SENT, UNDER_WAY, outcome_of
from simopen.model.report import MOST_ARRIVALS, Arrival, Attempt, Via
from simopen.model.shot import Shot
from simopen.model.times import NEVER, MonoNs
from simopen.net import registries, sock_diag
from simopen.net.registries import Registries
from simopen.net.sockets import MakeSocket, keep

if TYPE_CHECKING:
    from simopen.holepunch.verification import Verification

_SHORTEST_S = 0.001  # uvloop's timers come up to a ms early, and are then set again


class Runner:
    """Everything that one punch has open: sockets, listeners, a timer. Use `opened`.

    A program may have thousands that wait: so what follows the shots is made with them (`watch`), and not before.
    """

    def __init__(
        self,
        prepared: Preparation,
        *,
        chooses: bool | None,
        tell: Teller,
        verification: Verification | None,
    ) -> None:
        self.strangers = self._resends = 0
        self.arrivals: list[Arrival] = []
        self.earlier: str | None = None
        self.lookout = Lookout()
        self.prepared = prepared
        self._loop = asyncio.get_running_loop()
        self._chooses = chooses
        self.fired_ns = self._planned_ns = NEVER
        self._left: int | None = None
        self._called: Sequence[tuple[Attempts, Called]] = ()
        self._armed: Sequence[Attempts] = ()
        self._unarmed: Mapping[Pair, LocalEndpointError] = {}
        self._engine: Engine | None = None
        self._tell_user, self._told = tell, 0
        self._events: list[told.Event] = []
        self._timer: asyncio.Handle | None = None
        self._won: asyncio.Future[Stream] | None = None
        self._kept: Stream | None = None
        self._taken = self._ended = False
        self._verification = verification
        if verification is not None:
            verification.begin(self)

    @classmethod
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
        ours: Registries = registries.shared,
        tell: Teller = NOBODY,
        verification: Verification | None = None,
    ) -> Runner:
        """A runner with every socket bound, to be entered: all that did not win is closed at the end, come what may.

        `address`: of this host, to fire from; None for any. A local port that cannot be had is left out, as long as
        there is another; one that cannot be had for a moment is tried again. `chooses`: as in `plan.Plan`. `left` and
        `resends`: as in `retry.Window`. `make`: what makes the sockets; left out, the kernel. `ours`: what this
        process's punches share. `tell`: who is told of each SYN and of each answer. `verification`: what decides
        which stream is kept, where the peer is to prove itself; it ends with this.

        Raises:
            LocalEndpointError: no local endpoint can be had, or a 5-tuple is in use by another punch.
        """
        prepared = Preparation(address, shots, listen=listen, resends=resends, make=make, ours=ours)
        runner = cls(prepared, chooses=chooses, tell=tell, verification=verification)
        try:
            runner._open(left, resends)
        except BaseException:
            runner.end()
            raise
        return runner

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def _open(self, left: int | None, resends: int) -> None:
        self._left, self._resends = left, resends
        self.prepared.open()

    @property
    def peers(self) -> tuple[Endpoint, ...]:
        """The endpoints that are fired at."""
        return self.prepared.peers

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every attempt that has ended, in the order of firing."""
        ended = self._engine.attempts if self._engine is not None else ()
        return tuple(sorted(ended, key=lambda attempt: attempt.started_ns))

    @property
    def holder(self) -> str | None:
        """The state of what had a 5-tuple when it was to be fired from, as last seen."""
        return None if self._engine is None else self._engine.holder

    @property
    def hindrance(self) -> LocalEndpointError | None:
        """What last kept this host from having a socket."""
        return (self._engine and self._engine.hindrance) or self.prepared.hindrance

    @property
    def notes(self) -> tuple[str, ...]:
        """What hindered some of the shots."""
        return () if self.hindrance is None else (f"for a while nothing could be fired: {self.hindrance}",)

    @property
    def listening(self) -> bool:
        """Whether a stream could arrive by accept."""
        return any(listener.listening for listener in self.prepared.listeners.values())

    async def stream(self) -> Stream:
        """After `watch`: the stream, once it is up. From here on its socket is the caller's to close.

        Raises:
            PunchError: trying on is useless.
        """
        assert self._won is not None
        stream = await self._won
        self._taken = True
        return stream

    def last(self) -> Stream | None:
        """As `stream`, once its waiter has run out of time: what came up late, and was waiting for a better one."""
        self.tell(told.TimeUp())
        self._taken = self._kept is not None
        return self._kept

    async def last_verified(self) -> Stream | None:
        """As `last`, for the streams that are being verified as the time runs out: each has its own time."""
        if self._verification is None:
            return None
        stream = await self._verification.last()
        self._taken = stream is not None
        return stream

    def look_out(self) -> bool:
        """Look for a SYN of the peers' before the instant; nobody is let in. Returns whether to look again."""
        return self.lookout.look(self.prepared.listeners.values(), self.prepared.peers)

    def stop_looking(self) -> None:
        """After a last look, leave the port to those who listen from the instant on."""
        self.lookout.stop(self.prepared.listeners.values())

    def fire_at(self, shots: Sequence[Shot], left: int | None = None, resends: int = 0) -> None:
        """Before the instant: have these shots, and let go of the others. `left`, `resends`: as in `opened`.

        Raises: LocalEndpointError as `opened` does.
        """
        self.prepared.let_go(self._loop, self)
        self.prepared = self.prepared.anew(shots, resends)
        self._open(left, resends)

    def look_back(self, instant_ns: MonoNs) -> None:
        """Note when a stream between the same two endpoints as one of the first few shots' ended here, if any did."""
        self.earlier = self.prepared.earlier(instant_ns)

    def aim(self, planned_ns: MonoNs) -> list[Callable[[], object]]:
        """The calls that fire what is due at the instant, and then those that listen; for the scheduler's thread."""
        self._planned_ns = planned_ns
        self._armed, self._unarmed = self.prepared.arm(self._loop, self)
        connects = [partial(attempts.connect_ex, attempts.target) for attempts in self._armed]
        return [*connects, *(listener.listen for listener in self.prepared.listeners.values())]

    def fired(self, calls: list[Called]) -> None:
        """Note when the calls of `aim` were made, and what came of them."""
        self._called = list(zip(self._armed, calls, strict=False))
        for attempts, call in self._called:
            attempts.note(call.at_ns)
        self.fired_ns = calls[0].at_ns if calls else MonoNs(time.monotonic_ns())

    def watch(self, window: Window) -> None:
        """After `fired`: follow every shot up, and fire the later ones, until there is a stream."""
        window = replace(window, left=self._left, resends=self._resends)
        self._engine, self._told = Engine(self.prepared.attempts, chooses=self._chooses), 0
        self._won = self._loop.create_future()
        self.tell(told.Begun(window, self._planned_ns, self.fired_ns))
        for listener in self.prepared.listeners.values():  # first, or our own stream is taken for a stranger's
            listener.join(self._loop, self)
        for attempts, (at_ns, error) in self._called:
            assert isinstance(error, int)
            self._left_at(attempts, at_ns, error)
        for pair, refused in self._unarmed.items():
            if not self.prepared.attempts[pair].loaded:
                self.tell(told.NoSocket(pair, refused))

    def _left_at(self, attempts: Attempts, at_ns: MonoNs, error: int) -> None:
        """`connect` was called."""
        outcome = outcome_of(error, immediate=True)
        if self._tell_user and outcome in SENT:
            self._tell_user(SynFired(at_ns, attempts.peer))
        if outcome in UNDER_WAY:
            attempts.watch(self._loop, self._answered)
        self.tell(told.Fired(attempts.pair, at_ns, error))

    def tell(self, event: told.Event) -> None:
        """Have the engine decide, and carry that out; what comes of it is told in its turn."""
        if self._engine is None:  # nothing has been fired, so nothing can have come of it
            return
        self._events.append(event)
        if len(self._events) > 1:  # who tells already goes on with it
            return
        try:
            while self._events:
                for action in self._engine.handle(self._events[0], MonoNs(time.monotonic_ns())):
                    self._carry_out(action)
                self._tell_answers(self._engine.attempts)
                del self._events[0]
        finally:
            self._events.clear()

    def _tell_answers(self, ended: Sequence[Attempt]) -> None:
        for attempt in ended[self._told :] if self._tell_user else ():
            if attempt.answered:
                self._tell_user(Answered(attempt.ended_ns, attempt))
        self._told = len(ended)

    def _carry_out(self, action: told.Action) -> None:
        match action:
            case told.Fire(pair):
                self._fire(self.prepared.attempts[pair])
            case told.Close(pair):
                self.prepared.attempts[pair].close()
            case told.WaitUntil(at_ns):
                self._wait_until(at_ns)
            case told.Look(pair):
                self._look(self.prepared.attempts[pair])
            case told.Check(streams):
                self.tell(told.Checked({stream: condition(stream.sock) for stream in streams}))
            case told.Reset(stream):
                stream.sock.close()  # with its SO_LINGER
            case told.Keep(stream):
                self.keep(stream)
            case told.Fail(error):
                give_up = self.fail if self._verification is None else self._verification.doomed
                give_up(error)

    def _fire(self, attempts: Attempts) -> None:
        try:
            if (listener := self.prepared.have_listener(attempts)) is not None:
                listener.listen()
                listener.join(self._loop, self)
            at_ns, error = attempts.load_and_fire()
        except LocalEndpointError as refused:
            self.tell(told.NoSocket(attempts.pair, refused))
        else:
            self._left_at(attempts, at_ns, error)

    def _wait_until(self, at_ns: MonoNs) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait_s = (at_ns - time.monotonic_ns()) / 1e9
        # At once still means one turn of the loop: that is the floor between two shots.
        if wait_s <= 0:
            self._timer = self._loop.call_soon(self.tell, told.Time())
        else:
            self._timer = self._loop.call_later(max(wait_s, _SHORTEST_S), self.tell, told.Time())

    def _look(self, attempts: Attempts) -> None:
        pair, local, peer = attempts.pair, attempts.local, attempts.peer
        if attempts.loaded:
            self.tell(told.Seen(pair, attempts.state))
            return
        state = sock_diag.state(local, peer)
        # It may be in a queue, where the loop has not come round to it yet.
        for listener in self.prepared.listeners.values():
            listener.collect(self._loop)
        self.tell(told.Seen(pair, state, passing=self._holds(local[1], peer)))

    def _holds(self, port: int, peer: Endpoint) -> bool:
        """Whether the 5-tuple is taken by what will pass: a stream that is being closed, or verified."""
        verifies = self._verification is not None and self._verification.holds(port, peer)
        return verifies or self.prepared.ours.endings.holds(port, peer)

    def _answered(self, attempts: Attempts, error: int) -> None:
        """The kernel has told what came of a SYN."""
        pair, resent, selfish = attempts.pair, attempts.resent, False
        try:
            selfish = not error and len({*attempts.ends()}) == 1
        except OSError:  # reset meanwhile: there is nothing to be verified any more
            error = error if self._verification is None else errno.ECONNRESET
        if error:
            self.tell(told.Answered(pair, error, resent))
        elif selfish:
            self.tell(told.SelfConnected(pair))
        else:
            sock, took_ns = attempts.take(), time.monotonic_ns() - pair.started_ns
            up_ns = up_since_ns(sock, pair.started_ns)
            stream = Stream(sock, attempts.peer, Via.CONNECT, up_ns, took_ns)
            if self._verification is None:
                self.tell(told.CameUp(pair, stream, up_ns, resent))
            else:
                self.tell(told.BeingVerified(pair, up_ns, resent))
                self._verification.offer(stream, pair)

    def accepted(self, sock: socket.socket, remote: Endpoint) -> None:
        """Take what the listener let in for one of this runner's peers."""
        stream = Stream(sock, remote, Via.ACCEPT, up_since_ns(sock, self.fired_ns), accept_took_ns(sock))
        if self._verification is None:
            self.tell(told.Accepted(stream, remote, stream.established_ns, stream.took_ns))
        else:
            self._verification.offer(stream)

    def turned_away(self, remote: Endpoint) -> None:
        """Count a stranger, and keep the first few: of those from a peer's address, and of the others."""
        self.strangers += 1
        addresses = {peer.address for peer in self.peers}
        ours = remote.address in addresses
        if sum((each.remote.address in addresses) is ours for each in self.arrivals) < MOST_ARRIVALS:
            self.arrivals.append(Arrival(remote, MonoNs(time.monotonic_ns())))

    def keep(self, stream: Stream) -> None:
        """Have this stream, unless there is one."""
        if self._kept is not None:
            return
        self.prepared.ours.ports.give_to_children(stream.sock)
        keep(stream.sock)
        self._kept = stream
        if (
            self._won is not None and not self._won.done()
        ):  # its waiter may be cancelled at that moment: then `last` or `end` sees to it
            self._won.set_result(stream)

    def fail(self, error: PunchError) -> None:
        """Trying on is useless: have the waiter told."""
        if self._won is not None and not self._won.done():
            self._won.set_exception(error)

    def end(self) -> None:
        """Close everything but a stream that was handed over, and record what was still in flight; once is enough."""
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self.tell(told.Ended())
        self.prepared.let_go(self._loop, self)
        if self._verification is not None:
            self._verification.end()
        elif self._kept is not None and not self._taken:
            self._kept.sock.close()
        self._settle()

    def _settle(self) -> None:
        """Nobody waits any more; where the loop is closed, its waiter is gone with it, and cannot be told."""
        if self._won is not None and self._won.done():
            if not self._won.cancelled():
                self._won.exception()
        elif self._won is not None and not self._loop.is_closed():
            self._won.cancel()
