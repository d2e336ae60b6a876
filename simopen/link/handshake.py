"""Streams that came up, verified side by side, until the peer has proven the key on one, and both have chosen it.

Theory of operation. Who answers at the peer's address need not be the peer, and more than one of its streams may come
up. So each gets a channel of its own, and nobody waits for another: a mute one keeps its socket until its time is over,
and costs nothing else. The initiator takes the first on which the peer has proven the key, says so on it, and closes
the others; the responder takes the one on which that is said. What is refused is closed, and counted with the reason.

Where the sides share only a key, each stranger that sends a nonce costs a context. They are made one in each turn of
the loop, so that nothing else waits for longer than for one; who is at the peer's very endpoint comes first.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from simopen.errors import LinkError
from simopen.link import own_nonces
from simopen.link.channel import Channel, Refused, State
from simopen.link.contexts import SHORT, Ready, passes, ready, require_ed25519
from simopen.link.nonces import Nonces, new_nonce
from simopen.link.own_nonces import Ends, OwnNonces
from simopen.link.session import Role, Session
from simopen.link.transport import ANSWER_S, LinkTransport
from simopen.model.endpoint import normalise
from simopen.model.proof import Proof, Reason
from simopen.model.times import MonoNs

HANDSHAKE_S = 1.8
"""From a stream's coming up to its being chosen. It takes 2.1 round trips, and the longest are 0.6 s."""
BEGUN_S = 6.0
"""The same where whoever is there has begun to shake hands. What a path loses is sent again, ever later; and where that
is the initiator's proof, it takes the link to be up: to refuse the stream now would break it."""
MOST_AT_ONCE = 128
"""Streams that are verified at a time: some 50 KiB each. Beyond, who has been mute longest is closed."""
_ENOUGH = 2
# Nobody but the peer is at its endpoint, and says that.
_FINAL = (Reason.OTHER_KEY, Reason.SAME_ROLE)


class Handshake:
    """Offer it what comes up. Made before the instant: it makes the contexts.

    Args:
        refused: called, with what was offered with it, where a stream was refused and closed.
        ends_early: whether it is over once the very endpoint named has twice shown another key, or this side's role.
        make: makes a session's context.
        own: which nonces are this program's.

    Attributes:
        won: the link, once there is one; a LinkError, where it is certain that there will be none.
        reasons: how many streams were refused, and why.

    Raises:
        LinkError: this host's TLS cannot do it.
    """

    def __init__(
        self,
        session: Session,
        *,
        refused: Callable[[socket.socket], object] = lambda _: None,
        limit_s: float = HANDSHAKE_S,
        answer_s: float = ANSWER_S,
        most: int = MOST_AT_ONCE,
        ends_early: bool = True,
        make: Callable[[Session], Ready] = ready,
        own: OwnNonces = own_nonces.shared,
    ) -> None:
        require_ed25519()
        self._loop = asyncio.get_running_loop()
        self.won: asyncio.Future[Link] = self._loop.create_future()
        self.reasons: Counter[Reason] = Counter()
        self.answer_s = answer_s
        self._session, self._nonce = session, new_nonce()
        self._make, self._own = make, own
        self._ready: Ready | None = None if session.role is None else make(session)
        self._waiting: dict[_Candidate, Session] = {}
        self._refused = refused
        self._limit_s, self._most, self._ends_early = limit_s, most, ends_early
        self._open: dict[_Candidate, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._final = 0
        self._over = self._taken = self._takes_no_more = False
        self._less = asyncio.Event()

    def offer(self, sock: socket.socket, *, named: bool = True, up_ns: MonoNs | None = None) -> None:
        """Verify this one, a connected socket, which is no longer the caller's to close.

        `named`: whether it is with the very endpoint that the peer was said to be at. `up_ns`: when it came up, on
        CLOCK_MONOTONIC; left out, now.
        """
        if self._over or self._takes_no_more or self.won.done():
            sock.close()
            return
        candidate = self._candidate(sock, named, MonoNs(time.monotonic_ns()) if up_ns is None else up_ns)
        self._open[candidate] = None
        if len(self._open) > self._most:
            self._least().refuse(Reason.SILENT)
        if candidate in self._open:
            candidate.timer = self._loop.call_later(self._limit_s, candidate.time_is_up)
            task = self._loop.create_task(candidate.attach(self._loop))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            sock.close()  # all the others are nearer to a link

    def _candidate(self, sock: socket.socket, named: bool, up_ns: MonoNs) -> _Candidate:
        if self._ready is not None:
            return _Candidate(self, sock, Channel(self._ready), named, up_ns)
        ends = _ends(sock)
        self._own.sends(self._nonce, ends)
        nonces = Nonces(self._session, self._nonce, partial(self._own.is_own, ends=ends))
        channel = Channel(None, nonces, lambda _, session: self._wants(candidate, session))
        candidate = _Candidate(self, sock, channel, named, up_ns)
        candidate.over = partial(self._own.has_closed, self._nonce, ends)
        return candidate

    def _wants(self, candidate: _Candidate, session: Session) -> None:
        if not self._waiting:
            self._loop.call_soon(self._make_next)
        self._waiting[candidate] = session

    def _make_next(self) -> None:
        """One in a turn of the loop."""
        self._waiting = {each: session for each, session in self._waiting.items() if each in self._open}
        if not self._waiting:
            return
        candidate = next((each for each in self._waiting if each.named), next(iter(self._waiting)))
        candidate.begin(self._make, self._waiting.pop(candidate))
        if self._waiting:
            self._loop.call_soon(self._make_next)

    def _least(self) -> _Candidate:
        """Of those that have proven nothing the first, and one at the peer's very endpoint only where all are."""
        return min(self._open, key=lambda each: (each.channel.state is State.PROVEN, each.named))

    async def link(self) -> Link:
        """The link, once there is one; its transport is the caller's to close. Raises: LinkError."""
        won = await self.won
        self._taken = True
        return won

    async def settled(self) -> None:
        """Wait until each stream that is being verified now is the link or refused. No further one is taken."""
        self._takes_no_more = True
        while self._open:
            self._less.clear()
            await self._less.wait()

    @property
    def pending(self) -> bool:
        """Whether a stream that is up may still become the link."""
        return bool(self._open)

    def moved(self, candidate: _Candidate) -> None:
        """A channel has got further."""
        chooses = candidate.channel.state is State.PROVEN and candidate.channel.role is Role.INITIATOR
        if not chooses and candidate.channel.state is not State.UP:
            return
        if candidate.is_lost():  # meanwhile: it would be no link, and another stream may become one
            candidate.refuse(Reason.NOT_CHOSEN)
            return
        if chooses:
            candidate.channel.choose()
        self._keep(candidate)

    def _keep(self, candidate: _Candidate) -> None:
        self._less.set()
        del self._open[candidate]
        link = candidate.link()
        for other in list(self._open):
            other.drop()
        self._open.clear()
        if self.won.done():  # nobody waits any more
            link.transport.abort()
        else:
            self.won.set_result(link)

    def out(self, candidate: _Candidate, reason: Reason) -> None:
        """A stream is refused, and its socket about to be closed."""
        if self._open.pop(candidate, self) is self or self._over:
            return
        self._less.set()
        self.reasons[reason] += 1
        self._final += self._ends_early and candidate.named and reason in _FINAL
        if self._final >= _ENOUGH and not self._open:
            self.fail(self.error())
        else:
            self._refused(candidate.sock)

    def give_up(self, candidate: _Candidate, error: LinkError) -> None:
        """This host cannot verify that one, nor any other."""
        self._open.pop(candidate, None)
        self._less.set()
        self.fail(error)

    def error(self) -> LinkError:
        """What there is to say where no link has come."""
        count = sum(self.reasons.values())
        if not count:
            none = "nobody proved the key: a stream came up, and then there was no time left"
            return LinkError(none, reasons=(Reason.SILENT,))
        streams = "one stream came up" if count == 1 else f"{count} streams came up"
        why = "; ".join(
            f"{reason.value}{'' if times == 1 else f' ({times} times)'}" for reason, times in self.reasons.most_common()
        )
        return LinkError(f"{streams}, and nobody proved the key; of who was there: {why}", reasons=tuple(self.reasons))

    def fail(self, error: BaseException) -> None:
        """Trying on is useless."""
        if not self.won.done():
            self.won.set_exception(error)

    def end(self) -> None:
        """Close all but a link that somebody took; once is enough."""
        if self._over:
            return
        self._over = True
        self._own.forget(self._nonce)
        for candidate in list(self._open):
            candidate.drop()
        self._open.clear()
        if self._loop.is_closed() or self.won.cancel() or self.won.cancelled():
            return
        if self.won.exception() is None and not self._taken:
            self.won.result().transport.abort()


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A link that is up: its transport, which wants a protocol (`start`), how it came, and the socket as offered."""

    transport: LinkTransport
    proof: Proof
    sock: socket.socket


def _ends(sock: socket.socket) -> Ends | None:
    try:
        return normalise(sock.getsockname()), normalise(sock.getpeername())
    except OSError:  # it was reset meanwhile
        return None


class _Candidate(asyncio.Protocol):
    """One socket that is being verified. `over`: called once that is over."""

    def __init__(self, handshake: Handshake, sock: socket.socket, channel: Channel, named: bool, up_ns: MonoNs) -> None:
        self.over: Callable[[], object] = lambda: None
        self.sock, self.channel, self.named = sock, channel, named
        self.timer: asyncio.TimerHandle | None = None
        self._handshake = handshake
        self._up_ns = up_ns
        self._nonce_ns = self._proven_ns = 0
        self._transport: asyncio.Transport | None = None
        self._done = self._lost = self._has_more_time = False

    async def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop read the socket."""
        if self._done:
            self.sock.close()
            return
        try:
            await loop.create_connection(lambda: self, sock=self.sock)
        except OSError as error:  # it was reset meanwhile, as a rule
            self.sock.close()
            self.refuse(Reason.NO_ROOM if error.errno in SHORT else Reason.GONE)
        except BaseException:
            if self._transport is None:
                self.sock.close()
            raise
        if self._lost:  # uvloop has closed it by its number, which may be another file's by now
            self.sock.detach()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio's."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has not that class
        if self._done:
            self._transport.abort()
        else:
            self._advanced()

    def data_received(self, data: bytes) -> None:
        """As asyncio's."""
        if not self._done:
            self._try(self.channel.receive, data)

    def eof_received(self) -> None:
        """As asyncio's: nothing comes of a stream that ends before it is a link."""
        if not self._done:
            self._try(self.channel.receive_eof)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio's."""
        self._lost = True
        self._stop_timer()
        self.refuse(Reason.NOT_CHOSEN if self.channel.state is State.PROVEN else Reason.GONE)

    def begin(self, make: Callable[[Session], Ready], session: Session) -> None:
        """Have the session's context made, and shake hands."""
        self._try(lambda: self.channel.begin(make(session)))

    def is_lost(self) -> bool:
        """Whether the stream was reset, or its host gone, before what came on it was read."""
        if self._transport is None or self._transport.is_closing():
            return True
        try:
            return bool(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        except OSError:
            return True

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def _try(self, call: Callable[..., None], *args: object) -> None:
        try:
            call(*args)
        except Refused as refused:
            self._flush()
            self.refuse(refused.reason)
        except LinkError as error:  # this host's TLS
            if passes(error):
                self.refuse(Reason.NO_ROOM)
                return
            self.drop()
            self._handshake.give_up(self, error)
        else:
            self._advanced()

    def _advanced(self) -> None:
        now_ns, state = time.monotonic_ns(), self.channel.state
        if state is not State.NONCE:
            self._nonce_ns = self._nonce_ns or now_ns
        if state in (State.PROVEN, State.UP):
            self._proven_ns = self._proven_ns or now_ns
        self._handshake.moved(self)
        if not self._done:
            self._flush()

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing() and (data := self.channel.outgoing()):
            self._transport.write(data)

    def time_is_up(self) -> None:
        """Nothing has come of it; or it does not take in why it was refused."""
        if self.channel.has_begun and not (self._done or self._has_more_time):
            self._has_more_time = True
            self.timer = asyncio.get_running_loop().call_later(BEGUN_S - HANDSHAKE_S, self.time_is_up)
            return
        if self._done and self._transport is not None:
            self._transport.abort()
        self.refuse(Reason.NOT_CHOSEN if self.channel.state is State.PROVEN else Reason.SILENT)

    def refuse(self, reason: Reason) -> None:
        """Close it, and say why."""
        if not self._done:
            self.drop(politely=reason is not Reason.SILENT)
            self._handshake.out(self, reason)

    def drop(self, *, politely: bool = False) -> None:
        """Close it. `politely`: once what TLS has to say has left."""
        self._done = True
        self.over()
        if not politely or self._transport is None:
            self._stop_timer()
        if self._transport is None:
            return  # `attach` or `connection_made` sees to it
        if politely:
            self._transport.close()
        else:
            self._transport.abort()

    def link(self) -> Link:
        """What has come of it."""
        assert self._transport is not None
        self._done = True
        self.over()
        self._stop_timer()
        self._flush()
        tls = self.channel.tls
        assert tls is not None
        cipher = tls.cipher()
        now_ns = time.monotonic_ns()
        bare = self.channel.is_bare
        proof = Proof(
            role=(self.channel.role or Role.INITIATOR).value,
            cipher=cipher[0] if cipher else "",
            nonce_s=(self._nonce_ns - self._up_ns) / 1e9 if bare else None,
            proof_s=(self._proven_ns - (self._nonce_ns if bare else self._up_ns)) / 1e9,
            choice_s=(now_ns - self._proven_ns) / 1e9,
        )
        return Link(LinkTransport(self.channel, self._transport, self._handshake.answer_s), proof, self.sock)
