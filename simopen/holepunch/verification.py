"""Streams that came up, each of them verified, and the one that both sides have proven and chosen.

Theory of operation: where the sides share a session, who answers first decides nothing. What comes up is verified
(`link/handshake.py`) while the punch goes on: other streams may come up, and the way on which one was refused is fired
at again, after a pause, since a stranger at the peer's address answers as fast as he is asked.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from simopen.errors import LinkError
from simopen.holepunch.attempts import Stream
from simopen.link.handshake import Handshake, Link
from simopen.link.session import Session
from simopen.model.endpoint import Endpoint

_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.6


@dataclass(frozen=True, slots=True)
class _Offered:
    stream: Stream
    local_port: int
    again: Callable[[], object] | None


class Verification:
    """Made before the instant, as it makes TLS's contexts. `decided`: called once there is a link, or can be none.

    `ends_early`: whether another key at the named endpoint ends it, as only one was named, and by somebody who knows.

    Raises:
        LinkError: this host's TLS cannot do it.
    """

    def __init__(
        self, session: Session, *, ends_early: bool = True, decided: Callable[[], object] = lambda: None
    ) -> None:
        self.decided = decided
        self.handshake = Handshake(session, refused=self._refused, ends_early=ends_early)
        self.handshake.won.add_done_callback(self._is_decided)
        self._loop = asyncio.get_running_loop()
        self._offered: dict[socket.socket, _Offered] = {}
        self._again: set[asyncio.TimerHandle] = set()
        self._refusals = 0

    def offer(self, stream: Stream, local_port: int, *, named: bool, again: Callable[[], object] | None = None) -> None:
        """Verify this stream. `again`: what is called some time after it was refused."""
        self._offered = {sock: each for sock, each in self._offered.items() if sock.fileno() >= 0}
        self._offered[stream.sock] = _Offered(stream, local_port, again)
        self.handshake.offer(stream.sock, named=named, up_ns=stream.established_ns)

    def holds(self, local_port: int, remote: Endpoint) -> bool:
        """Whether a stream from this local port to that endpoint is being verified, or not yet closed since."""
        ends = ((each.local_port, each.stream.remote) for sock, each in self._offered.items() if sock.fileno() >= 0)
        return (local_port, remote) in ends

    def _refused(self, sock: socket.socket) -> None:
        offered = self._offered.get(sock)
        if offered is None or offered.again is None:
            return
        pause_s = min(_PAUSE_S * 2**self._refusals, _LONGEST_PAUSE_S)
        self._refusals += 1
        self._again = {each for each in self._again if not each.cancelled() and each.when() > self._loop.time()}
        self._again.add(self._loop.call_later(pause_s, offered.again))

    def _is_decided(self, won: asyncio.Future[Link]) -> None:
        if not won.cancelled():
            self.decided()

    def stream(self) -> Stream | None:
        """The stream that became the link; None where there is none yet. Raises: LinkError where none will be."""
        won = self.handshake.won
        return self._offered[won.result().sock].stream if won.done() and not won.cancelled() else None

    async def settled(self) -> None:
        """Wait for those that are being verified now; what comes up from here on is closed."""
        await self.handshake.settled()

    async def link(self) -> Link:
        """The link; from here on it is the caller's to close."""
        return await self.handshake.link()

    @property
    def error(self) -> LinkError | None:
        """What to say where no link has come; None where no stream came up either."""
        return self.handshake.error() if self.handshake.reasons else None

    def end(self) -> None:
        """Close all but a link that was taken."""
        for timer in self._again:
            timer.cancel()
        self.handshake.end()
