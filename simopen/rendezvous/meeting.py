"""One side of a meeting, from an entered room to a proven stream: thin I/O around `exchange`, which decides.

Theory of operation. One task hears the peer; the rest waits for what that brings. The NATs are asked while nobody is
here yet. Then, at most three times, each side says its ticket, the one that came later sets the instant, and both fire;
each round changes something: the first fires, the second asks the NATs anew, the third takes another local port.
What is said in the room goes on while they fire, so that a peer who ends it, or comes anew, is heard at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from simopen import _logs
from simopen.clock.source import MACHINE, LocalClock
from simopen.errors import ImpossiblePair, PeerLeft, PunchError, SimopenError
from simopen.holepunch import api
from simopen.holepunch.options import Options
from simopen.link.session import Kind, Session
from simopen.model.endpoint import Local
from simopen.model.estimate import Estimate, Source
from simopen.model.event import PeerBegun, PeerClock, PeerHere, Round
from simopen.model.times import MonoNs
from simopen.model.wording import LONGEST, human, shown
from simopen.nat.discovery import discovering
from simopen.net.aside import aside
from simopen.rendezvous import agreed, exchange, peer_clock, unseen
from simopen.rendezvous.exchange import ROUNDS, Derive, Exchange, Peer, Send
from simopen.rendezvous.outbox import Outbox
from simopen.rendezvous.pake import BadMessage, Pake
from simopen.signalling.base import Mood, Signaller
from simopen.ticket.codec import Ticket
from simopen.ticket.hold import Held

logger = _logs.logger("meeting")
T = TypeVar("T")

PEER_S = 30.0
"""A peer that is here says something within this: it may have to ask STUN servers that do not answer, for 4 s."""
WINDOWS_S = (5.0, 7.5, 10.0)
"""Of each round. The instant is known to some ms on both sides, so what is left is SYNs lost once, twice."""
_APART_S = 0.001
_ENOUGH_S = 0.25
_LEAVING_S = 1.0
_ANEW, _ELSEWHERE = "; the NATs are asked anew", "; from another local port"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to meet. `options`: as for `connect`; the instant, the clock and the session come with each round."""

    options: Options
    limit: int
    peer_s: float = PEER_S
    local_clock: LocalClock = MACHINE


class Nats:
    """Ask what the NATs do, and hold the mapping: begun as early as the STUN servers are known."""

    def __init__(self, local: Local, servers: Sequence[str | tuple[str, int]], timeout_s: float) -> None:
        self._servers, self._timeout_s = servers, timeout_s
        self._stack = contextlib.AsyncExitStack()
        self.finding = asyncio.ensure_future(self._found(local))

    async def _found(self, local: Local) -> Held:
        held = discovering(local, servers=self._servers, timeout=self._timeout_s, kind=Held, even_unseen=True)
        return await self._stack.enter_async_context(held)

    async def from_another_port(self) -> None:
        """Let go, and ask from a free one."""
        await self.again(None)

    async def again(self, local: Local) -> None:
        """Let go, and ask anew."""
        await self.close()
        self.finding = asyncio.ensure_future(self._found(local))

    @property
    def has_found(self) -> bool:
        """Whether the answer of a server is there."""
        ended = self.finding.done() and not self.finding.cancelled() and self.finding.exception() is None
        return ended and self.finding.result().unseen is None

    async def close(self) -> None:
        """Let go. Does nothing where it has."""
        self.finding.cancel()
        try:
            await asyncio.wait({self.finding})
            if not self.finding.cancelled():
                self.finding.exception()  # whoever waited has met it
        finally:
            await self._stack.aclose()


class _Anew(Exception):  # noqa: N818 - no error: the peer's program has been started anew
    pass


class _Lost(PunchError):  # noqa: N818 - says what happened
    """A round that the peer ended."""


class Meeting:
    """One side, in a room of its signaller's, where it has said its first message."""

    def __init__(self, signaller: Signaller, pake: Pake, said: Exchange, nats: Nats, settings: Settings) -> None:
        self._signaller, self._pake, self._said, self._settings = signaller, pake, said, settings
        self._nats = nats
        self._tell = settings.options.tell
        self._own = settings.local_clock.read()
        self._changed = asyncio.Event()
        self._failed: Exception | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._outbox = Outbox(signaller)
        self._say = self._outbox.say
        self._asking: set[str] = set()
        nats.finding.add_done_callback(lambda _: self._changed.set())
        self._start(self._listen())

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        return task

    async def streams(self) -> tuple[StreamReader, StreamWriter]:
        """The stream, proven. Raises: SignallingError, PunchError; StunError where this host has no address to try."""
        while True:
            peer = await self._until(lambda: self._said.peer, None)
            self._tell(PeerHere(MonoNs(time.monotonic_ns())))
            try:
                met = await self._rounds(peer)
            except _Anew:
                logger.info("the peer has come anew")
                continue
            self._outbox.post(exchange.done(peer))
            return met

    async def leave(self, mood: Mood, why: str | None) -> None:
        """End it. `why`: what the peer is told; None: nothing, as there is a stream."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self._nats.close()
        try:
            with contextlib.suppress(SimopenError, TimeoutError):
                async with asyncio.timeout(_LEAVING_S):
                    await self._last_words(why)
            with contextlib.suppress(SimopenError, TimeoutError):
                async with asyncio.timeout(_LEAVING_S):
                    await self._signaller.close(mood)
        finally:
            self._outbox.close()

    async def _last_words(self, why: str | None) -> None:
        for peer in filter(None, (self._said.peer, *self._said.begun.values())):
            if why is not None and peer.is_told:
                await self._say(exchange.bye(peer, why))
        await self._outbox.emptied()

    # What is heard.

    async def _listen(self) -> None:
        try:
            while True:
                message = await self._signaller.receive()
                now_ns = time.monotonic_ns()
                await self._act(self._said.hear(message.phase, message.body, now_ns, self._utc_ns(now_ns)))
                if self._said.burnt is not None:
                    raise self._said.burnt
                self._changed.set()
        except (SimopenError, OSError) as error:
            self._failed = error
            self._changed.set()

    async def _act(self, actions: list[Send | Derive]) -> None:
        for each in actions:
            if isinstance(each, Send):
                await self._say(each)
            else:
                await self._derive(each)
        for peer in (*self._said.begun.values(), self._said.peer):
            if peer is not None and peer.asks and peer.channel.theirs not in self._asking:
                self._asking.add(peer.channel.theirs)
                self._start(self._ask(peer))

    async def _derive(self, step: Derive) -> None:
        try:
            key = await aside(self._pake.finish, step.message)
        except BadMessage as error:
            raise PeerLeft(f"what came as the peer's first message is none ({error}): make a new code") from error
        now_ns = time.monotonic_ns()
        self._tell(PeerBegun(MonoNs(now_ns)))
        await self._act(self._said.keyed(step.theirs, key, now_ns, self._utc_ns(now_ns)))

    async def _ask(self, peer: Peer) -> None:
        with contextlib.suppress(SimopenError):  # `_listen` meets it, too
            for _ in range(peer_clock.EXCHANGES):
                await self._say(exchange.ask(peer, time.monotonic_ns()))
                await asyncio.sleep(_APART_S)

    def _utc_ns(self, now_ns: int) -> int:
        return self._own.realtime_ns + now_ns - self._own.monotonic_ns

    async def _until(self, ready: Callable[[], T | None], peer: Peer | None, wait_s: float | None = None) -> T:
        """As `_once`. Raises: PeerLeft where the peer is silent meanwhile; TimeoutError where `wait_s` is over."""
        patience_s = wait_s if wait_s is not None or peer is None else self._settings.peer_s
        try:
            async with asyncio.timeout(patience_s):
                return await self._once(ready, peer)
        except TimeoutError:
            if wait_s is not None:
                raise
            raise PeerLeft(
                f"the peer was here, and nothing has come from it for {human(patience_s)}: has its program ended, or "
                f"its network, or is the rendezvous gone? Make a new code"
            ) from None

    async def _once(self, ready: Callable[[], T | None], peer: Peer | None) -> T:
        """What `ready` gives, once it does. Raises: what ends the meeting; _Anew."""
        while True:
            self._changed.clear()
            if peer is not None and self._said.peer is not peer:
                raise _Anew
            if (found := ready()) is not None:
                return found
            if peer is not None and peer.bye is not None:
                raise PeerLeft(f"the peer has ended the meeting: {shown(peer.bye, LONGEST)}")
            if self._failed is not None:
                raise self._failed
            if self._nats.finding.done():
                self._nats.finding.result()
            await self._changed.wait()

    # What the NATs do.

    async def _changed_for(self, number: int) -> Held:
        """What is held in that round."""
        change, found = self._change(number), await asyncio.shield(self._nats.finding)
        if change == _ANEW:
            await found.refresh()
        elif change == _ELSEWHERE:
            await self._nats.from_another_port()
            return await asyncio.shield(self._nats.finding)
        return found

    def _change(self, number: int) -> str:
        """What that round changes, in words: the port where it is this side's to choose, once asking has not helped."""
        if number == 1:
            return ""
        return _ELSEWHERE if number == 3 and self._settings.options.local is None else _ANEW

    # The rounds.

    async def _rounds(self, peer: Peer) -> tuple[StreamReader, StreamWriter]:
        for number in range(1, ROUNDS + 1):
            try:
                return await self._round(peer, number)
            except PunchError as error:
                last = error
            if not isinstance(last, _Lost):
                if self._failed is not None or peer.is_done:
                    raise last
                final = isinstance(last, ImpossiblePair)
                await self._say(exchange.over(peer, number, str(last), is_final=final))
                if final:
                    raise last
            logger.info("round %d has brought nothing: %s", number, last)
        raise last

    async def _round(self, peer: Peer, number: int) -> tuple[StreamReader, StreamWriter]:
        self._tell(Round(MonoNs(time.monotonic_ns()), number, f"round {number} of {ROUNDS}{self._change(number)}"))
        found = await self._found(peer, number)
        clock = agreed.possible(await self._clock(peer))
        mine = found.ticket(clock.utc_at(MonoNs(time.monotonic_ns())) / 1e9, clock, spray=self._settings.options.spray)
        await self._say(exchange.hello(peer, number, mine.encode()))
        theirs = await self._until(lambda: peer.hellos.get(number), peer)
        ticket = agreed.parsed(theirs.ticket)
        if peer.asks:
            when = agreed.soon(clock, (mine, ticket), self._own)
            await self._say(exchange.go(peer, number, when))
        when = await self._until(lambda: peer.goes.get(number), peer)
        agreed.require_near(when.at_ns - clock.utc_at(MonoNs(time.monotonic_ns())))
        difference_ns = when.difference_ns if peer.asks else -when.difference_ns
        if number == 1:
            self._tell(PeerClock(MonoNs(time.monotonic_ns()), difference_ns / 1e9, when.bound_ns / 1e9))
        if not peer.asks:
            clock = replace(clock, bound_ns=when.bound_ns, source=Source.PEER)
        texts = peer.own_hellos[number].sealed, theirs.sealed
        # Who begins has its first byte at the other half a round trip sooner, and the one that came first waits anyway.
        session = Session.between(Kind.HELLOS, peer.channel.link_key, *texts, begins=peer.asks)
        options = self._options(number, when.at_ns / 1e9, clock, session)
        spray = mine.spray and ticket.spray
        fire = _connected(mine, ticket, replace(options, spray=spray), self._settings.limit)
        notes = tuple(unseen.notes(found, ticket))
        try:
            reader, writer = await self._watched(fire, peer, number)
        except PunchError as error:
            unseen.advise(error, notes)
            raise
        _note(writer, difference_ns / 1e9, when.bound_ns / 1e9, notes)
        return reader, writer

    def _options(self, number: int, at: float, clock: Estimate, session: Session) -> Options:
        told, window_s = self._settings.options, WINDOWS_S[number - 1]
        made = Options.told(at=at, window=window_s, clock=clock)
        return replace(
            made, session=session, tell=told.tell, liveness=told.liveness, listen=told.listen, first_ttl=told.first_ttl
        )

    async def _found(self, peer: Peer, number: int) -> Held:
        finding = self._start(self._changed_for(number))
        finding.add_done_callback(lambda _: self._changed.set())
        try:
            return (await self._until(lambda: finding if finding.done() else None, peer)).result()
        finally:
            finding.cancel()

    async def _clock(self, peer: Peer) -> Estimate:
        """The two's common time: the asked side's."""
        if not peer.asks:
            return peer_clock.own_time(self._own, None)
        await self._until(lambda: peer.samples or None, peer)
        with contextlib.suppress(TimeoutError):
            await self._until(lambda: len(peer.samples) >= peer_clock.EXCHANGES or None, peer, _ENOUGH_S)
        sample = peer_clock.best(tuple(peer.samples))
        if sample is None:
            raise PeerLeft("the peer's time stamps cannot be: an answer came before it was asked for")
        return peer_clock.peers_time(sample, self._settings.local_clock.read())

    async def _watched(
        self, fire: Coroutine[Any, Any, tuple[StreamReader, StreamWriter]], peer: Peer, number: int
    ) -> tuple[StreamReader, StreamWriter]:
        """The stream, unless the peer ends the round. A rendezvous that is lost meanwhile is only a pity."""
        firing = asyncio.ensure_future(fire)
        watching = asyncio.ensure_future(self._once(lambda: peer.overs.get(number), peer))
        is_kept = False
        try:
            await asyncio.wait({firing, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not firing.done() and (self._failed is None or watching.exception() is not self._failed):
                message = f"the peer's try has ended: {shown(watching.result().why, LONGEST)}"
                raise PeerLeft(message) if watching.result().is_final else _Lost(message)
            watching.cancel()
            await asyncio.wait({firing, watching})
            is_kept = True
            return firing.result()
        finally:
            if not is_kept:
                watching.cancel()
                firing.cancel()
                firing.add_done_callback(_put_down)
                await asyncio.wait({firing, watching})


def _put_down(firing: asyncio.Task[tuple[StreamReader, StreamWriter]]) -> None:
    """A stream that came up and that nobody takes any more."""
    if not firing.cancelled() and firing.exception() is None:
        firing.result()[1].transport.abort()


async def _connected(mine: Ticket, theirs: Ticket, options: Options, limit: int) -> tuple[StreamReader, StreamWriter]:
    try:
        options = replace(options, plan=unseen.plan(mine.profile, theirs.profile))
        return await api.connected(theirs.profile, mine.profile, options, limit)
    except ValueError as error:
        raise PeerLeft(f"what the peer says of its NATs cannot be: {error}") from error


def _note(writer: StreamWriter, difference_s: float, bound_s: float, notes: tuple[str, ...]) -> None:
    transport: Any = writer.transport
    said = f"the peer's clock is {difference_s:+.3f} s from this host's, ± {human(bound_s)}, by the peer's time stamps"
    transport.report = replace(transport.report, notes=(*transport.report.notes, said, *notes))
