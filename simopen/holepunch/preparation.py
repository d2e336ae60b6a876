"""What a punch has open before its instant: bound sockets, listeners, and the 5-tuples that it has claimed.

Theory of operation: what is due at the instant is opened and bound before it, so that nothing is left to do then but
`connect`. A local port that cannot be had is left out, as long as there is another. First shots, that go no further
than this side's own NAT, may open that shortly before.

`make` stands for `socket.socket`: all sockets of a punch come from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Sequence
from functools import partial

from simopen.clock.scheduler import spin
from simopen.errors import LocalEndpointError
from simopen.holepunch.attempts import Attempts
from simopen.holepunch.listener import Listener, Loop, Waiter
from simopen.holepunch.pair import Pair
from simopen.model.endpoint import ANY, Endpoint
from simopen.model.outcome import passes
from simopen.model.shot import Shot
from simopen.model.times import NEVER, MonoNs
from simopen.net.local_ports import Claim, LocalEnd
from simopen.net.registries import Registries
from simopen.net.routes import source_address
from simopen.net.sockets import MakeSocket

_ARMING_NS = 50_000_000  # what the scheduler gets at least
_LOOKED_BACK = 4  # those of a spray have met nobody yet


class Preparation:
    """All that is open for these shots: `attempts` at each pair and `listeners`. Close it by `let_go`."""

    __slots__ = (
        "_address",
        "_claims",
        "_listen",
        "_make",
        "_resends",
        "_shots",
        "attempts",
        "first",
        "hindrance",
        "listeners",
        "ours",
        "peers",
    )

    def __init__(
        self,
        address: str | None,
        shots: Sequence[Shot],
        *,
        listen: bool,
        resends: int,
        make: MakeSocket | None,
        ours: Registries,
    ) -> None:
        self.peers = tuple(dict.fromkeys(shot.remote for shot in shots))
        self.attempts: dict[Pair, Attempts] = {}
        self.listeners: dict[LocalEnd, Listener] = {}
        self.first: list[Attempts] = []
        self.hindrance: LocalEndpointError | None = None
        self._address = address
        self._shots = shots
        self._listen, self._resends, self._make = listen, resends, make
        self.ours = ours
        self._claims: list[Claim] = []

    def anew(self, shots: Sequence[Shot], resends: int) -> Preparation:
        """The same for other shots."""
        return Preparation(self._address, shots, listen=self._listen, resends=resends, make=self._make, ours=self.ours)

    def open(self) -> None:
        """Raises: LocalEndpointError, as `Runner.opened` does."""
        refused: dict[LocalEnd, LocalEndpointError] = {}
        sources: dict[str, str | None] = {}
        for rank, shot in enumerate(self._shots):
            local = self._bound_to(shot)
            attempts = self._attempts_at(Pair(shot, 0 if shot.once else rank))
            if local in refused:
                continue
            if shot.after_ns < 0:
                self.first.append(attempts)
                continue
            self._claim(local, shot.remote, sources)
            try:
                self._open_one(attempts)
            except LocalEndpointError as error:
                refused[local] = error
        if not self.attempts:
            raise next(iter(refused.values()))

    def _attempts_at(self, pair: Pair) -> Attempts:
        local = self._bound_to(pair.shot)
        return Attempts(local, pair, resends=self._resends, make=self._make, ours=self.ours)

    def _open_one(self, attempts: Attempts) -> None:
        """Have its listener, and what it fires at the instant; later, what is not to be had for a moment."""
        try:
            if not attempts.pair.shot.after_ns:
                attempts.load()
            self.have_listener(attempts)
        except LocalEndpointError as error:
            if not passes(error.errno or 0, had=False):
                attempts.close()
                raise
            self.hindrance = error
        self.attempts[attempts.pair] = attempts

    def have_listener(self, attempts: Attempts) -> Listener | None:
        """Its listener, where that is new. Raises: LocalEndpointError."""
        if not self._listen or attempts.local in self.listeners:
            return None
        listener = self.listeners[attempts.local] = Listener.borrow(
            attempts.local, attempts.peer.family, ports=self.ours.ports, make=self._make
        )
        return listener

    def _bound_to(self, shot: Shot) -> LocalEnd:
        return (self._address or ANY[shot.remote.family], shot.local_port)

    def _claim(self, local: LocalEnd, peer: Endpoint, sources: dict[str, str | None]) -> None:
        """`sources`: this host's address towards each peer's, as far as it has been asked for."""
        if peer.address not in sources:
            with contextlib.suppress(LocalEndpointError):  # nobody can be asked at the moment
                sources[peer.address] = source_address(peer, None, make=self._make)
        self._claims.append(self.ours.ports.claim(local, peer, sources.get(peer.address)))

    @property
    def at_the_instant(self) -> list[Attempts]:
        """What is due at the instant."""
        return [attempts for attempts in self.attempts.values() if not attempts.pair.shot.after_ns]

    def arm(self, loop: Loop, waiter: Waiter) -> tuple[list[Attempts], dict[Pair, LocalEndpointError]]:
        """Have all that is due at the instant ready, and its listeners expect it; with it, what still is not to be had.

        `waiter`: who will `join` the listeners, in `loop`.
        """
        refused = {}
        for attempts in self.at_the_instant:
            try:
                self.have_listener(attempts)
                if not attempts.loaded:
                    attempts.load()
            except LocalEndpointError as error:
                refused[attempts.pair] = error
        for listener in self.listeners.values():
            listener.expect(loop, waiter)
        return [attempts for attempts in self.at_the_instant if attempts.loaded], refused

    def leave_out(self, guesses: int) -> None:
        """Do without the first so many guesses: flows of this program's have taken the ports that they were to have.

        The rest then get the ports at which the peer aims.
        """
        row = [pair for pair in self.attempts if pair.shot.once]
        row.sort(key=lambda pair: pair.shot.after_ns > 0)
        for pair in row[: min(guesses, len(row) - 1)]:  # one is left to fire, come what may
            self.attempts.pop(pair).close()

    def let_go(self, loop: Loop, waiter: Waiter) -> None:
        """Close all, and let others have the ports. `waiter`: who has been waiting at the listeners."""
        for attempts in (*self.first, *self.attempts.values()):
            attempts.close()
        for listener in self.listeners.values():
            listener.give_back(loop, waiter)
        for claim in self._claims:
            self.ours.ports.release(claim)
        self._claims.clear()

    def earlier(self, instant_ns: MonoNs) -> str | None:
        """When a stream between the same two endpoints as one of the first few shots' ended here, in words."""
        recent = self.at_the_instant[:_LOOKED_BACK]
        told = (self.ours.endings.earlier(each.local, each.peer, instant_ns) for each in recent)
        return next(filter(None, told), None)

    @property
    def opens_the_way(self) -> bool:
        """Whether there is anything to fire before the instant."""
        return bool(self.first)

    async def open_the_way(self, instant_ns: MonoNs) -> None:
        """Fire the shots that come before the instant, and close them again, so that their 5-tuples are free at it."""
        for attempts in self.first:
            planned_ns = instant_ns + attempts.pair.shot.after_ns
            await asyncio.sleep(max(0, planned_ns - time.monotonic_ns()) / 1e9)
            if time.monotonic_ns() > instant_ns - _ARMING_NS:  # it was too late from the beginning, or slept too long
                break
            with contextlib.suppress(LocalEndpointError):  # then this port is left out
                attempts.pair.started_ns, _ = attempts.load_and_fire()
        if self.first:
            for listener in self.listeners.values():  # else this host's kernel answers a peer's early SYN with a RST
                listener.listen()
            lasts_ns = self.first[0].pair.shot.lasts_ns or 0
            await asyncio.sleep(max(0, min(lasts_ns, instant_ns - time.monotonic_ns() - _ARMING_NS)) / 1e9)
        for attempts in self.first:
            attempts.close()

    def rehearse(self) -> None:
        """Take the steps of the first SYN up to and into the kernel: a UDP socket's connect sends nothing.

        Called within the last ms it brings code, data and the kernel's routes into the caches.
        """
        attempts = (self.at_the_instant or list(self.attempts.values()))[0]
        with (
            contextlib.suppress(OSError),
            (self._make or socket.socket)(attempts.peer.family, socket.SOCK_DGRAM, 0) as probe,
        ):
            spin(NEVER, [partial(probe.connect_ex, attempts.target)])
