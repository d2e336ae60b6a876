"""Streams that came up, each of them verified, and the one that both sides have proven and chosen.

Theory of operation: where the sides share a session, who answers first decides nothing. What comes up is verified
(`link/handshake.py`) while the punch goes on: other streams may come up, and the way on which one was refused is fired
at again, after a pause, since a stranger at the peer's address answers as fast as he is asked.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Protocol

from simopen.errors import LinkError, PunchError, lost_at_once
from simopen.holepunch import engine_events as told
from simopen.holepunch.attempts import Stream
from simopen.holepunch.pair import Pair
from simopen.link.handshake import Handshake, Link
from simopen.link.session import Session
from simopen.model.endpoint import Endpoint, normalise
from simopen.model.proof import Reason

_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.6


class Side(Protocol):
    """The punch whose streams these are (`runner.Runner`)."""

    @property
    def peers(self) -> tuple[Endpoint, ...]:
        """The endpoints that are fired at."""

    def tell(self, event: told.Event) -> None:
        """Have the engine decide on this."""

    def keep(self, stream: Stream) -> None:
        """Have this one, if there is none yet."""

    def fail(self, error: PunchError) -> None:
        """Trying on is useless."""


@dataclass(frozen=True, slots=True)
class _Offered:
    stream: Stream
    local_port: int
    pair: Pair | None


class Verification:
    """Made before the instant, as it makes TLS's contexts. Then `begin` it.

    `ends_early`: whether another key at the named endpoint ends it, as only one was named, and by somebody who knows.

    Raises:
        LinkError: this host's TLS cannot do it.
    """

    def __init__(self, session: Session, *, ends_early: bool = True) -> None:
        self.handshake = Handshake(session, refused=self._refused, ends_early=ends_early)
        self.handshake.won.add_done_callback(self._decided)
        self._loop = asyncio.get_running_loop()
        self._side: Side
        self._offered: dict[socket.socket, _Offered] = {}
        self._again: set[asyncio.TimerHandle] = set()
        self._refusals = 0
        self._doom: PunchError | None = None  # why nothing can be fired any more
        self._ended = False

    def begin(self, side: Side) -> None:
        """Say whose streams will come."""
        self._side = side

    def offer(self, stream: Stream, pair: Pair | None = None) -> None:
        """Verify this stream. `pair`: whose SYN it came by; if it is refused, that is fired again."""
        if self._ended:
            stream.sock.close()
            return
        self._offered = {sock: each for sock, each in self._offered.items() if sock.fileno() >= 0}
        try:
            self._offered[stream.sock] = _Offered(stream, _local_port(stream), pair)
        except OSError:  # this host is short of buffers
            stream.sock.close()
            self.handshake.reasons[Reason.NO_ROOM] += 1
            self._fire_again(pair)
            return
        self.handshake.offer(stream.sock, named=stream.remote in self._side.peers, up_ns=stream.established_ns)

    def holds(self, local_port: int, remote: Endpoint) -> bool:
        """Whether a stream from this local port to that endpoint is being verified, or not yet closed since."""
        ends = ((each.local_port, each.stream.remote) for sock, each in self._offered.items() if sock.fileno() >= 0)
        return (local_port, remote) in ends

    def doomed(self, error: PunchError) -> None:
        """Nothing can be fired any more, which is an end as soon as no stream is being verified."""
        self._doom = error
        self._give_up_if_none_is_left()

    def _give_up_if_none_is_left(self) -> None:
        if self._doom is None or self.handshake.pending or self.handshake.won.done():
            return
        if self.error is not None:
            self._doom.add_note(str(self.error))
        self._side.fail(self._doom)

    def _refused(self, sock: socket.socket) -> None:
        offered = self._offered.get(sock)
        if offered is not None:
            self._fire_again(offered.pair)
        self._give_up_if_none_is_left()

    def _fire_again(self, pair: Pair | None) -> None:
        """After a pause, where it came by a SYN of this side's."""
        if pair is None:
            return
        pause_s = min(_PAUSE_S * 2**self._refusals, _LONGEST_PAUSE_S)
        self._refusals += 1
        self._again = {each for each in self._again if not each.cancelled() and each.when() > self._loop.time()}
        self._again.add(self._loop.call_later(pause_s, self._side.tell, told.Unproven(pair)))

    def _decided(self, won: asyncio.Future[Link]) -> None:
        """One stream is verified, or it is certain that none will be."""
        if won.cancelled() or self._ended:
            return
        try:
            offered = self._offered[won.result().sock]
        except PunchError as error:
            self._side.fail(error)
            return
        stream = offered.stream
        if stream.sock.fileno() < 0:  # reset just now: no other is open any more, and the peer takes it that it is met
            self._side.fail(lost_at_once())
            return
        self._side.tell(told.Verified(stream))
        self._side.keep(stream)  # where nothing was left to fire, the engine is over

    async def last(self) -> Stream | None:
        """The stream that became the link of those that are being verified now; what comes up from here on is closed.

        Raises: LinkError where it is certain that there is none.
        """
        await self.handshake.settled()
        won = self.handshake.won
        return self._offered[won.result().sock].stream if won.done() and not won.cancelled() else None

    async def link(self) -> Link:
        """The link; from here on it is the caller's to close."""
        return await self.handshake.link()

    @property
    def error(self) -> LinkError | None:
        """What to say where no link has come; None where no stream came up either."""
        return self.handshake.error() if self.handshake.reasons else None

    def end(self) -> None:
        """Close all but a link that was taken."""
        self._ended = True
        for timer in self._again:
            timer.cancel()
        self.handshake.end()


def _local_port(stream: Stream) -> int:
    return normalise(stream.sock.getsockname()).port
