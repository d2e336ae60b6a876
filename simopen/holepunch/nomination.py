"""Which stream is kept where several come up, so that both sides keep the same one.

Theory of operation. Without words between the sides, only resets tell: a stream that was not chosen is closed by a RST.

- The side that chooses takes the best rank that can still come, within `retry.grace_ns` of the first, and half of
  what the handshake took.
- The side that follows takes the one that is left: a stream which a round trip has not brought a RST for, when all
  others have got theirs; or the one on which the peer speaks.
- Where neither has that part, both choose alike: the better rank, and the grace lets both see both.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from simopen.holepunch.attempts import Stream
from simopen.holepunch.listener import Loop
from simopen.holepunch.retry import grace_ns
from simopen.net import local_ports
from simopen.net.local_ports import LocalPorts
from simopen.net.sockets import keep

_ROUNDS, _SLACK_S = 1.5, 0.02  # for the peer's loop to come round to closing, and a slower way of the RST
_LONGEST_S = 1.0
_LOOK_S = 0.01
_EARLY_TIMER_S = 0.002  # uvloop's
MOST_OFFERED = 64
"""Streams at a time that wait for the choice. Two sides bring up a few; behind the peer's NAT there may be others."""


class Choice:
    """The streams on offer, until one is kept. `won` is its future.

    Args:
        chooses: whether this side chooses; None where neither side has been told.
        coming: whether a better rank than this may still come up.
        lost: called where the stream about to be kept turns out to be gone.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        chooses: bool | None,
        coming: Callable[[int], bool],
        lost: Callable[[], None],
        ports: LocalPorts = local_ports.shared,
    ) -> None:
        self.won: asyncio.Future[Stream] = loop.create_future()
        self._loop = loop
        self._ports = ports
        self._chooses, self._follows = chooses is True, chooses is False
        self._coming = coming
        self._lost = lost
        self._offered: dict[Stream, tuple[int, bool]] = {}
        self._due_s: dict[Stream, float] = {}  # when this side, which follows, believes in each
        self._timer: asyncio.TimerHandle | None = None
        self._taken = False
        self._patient_until_s = 0.0

    async def stream(self) -> Stream:
        """The stream that is kept; its socket is the caller's to close."""
        stream = await self.won
        self._taken = True
        return stream

    def last(self) -> Stream | None:
        """The best there is, now that the waiter's time is up; its socket is the caller's to close."""
        if not (self.won.cancelled() or self.won.exception()):
            self._taken = True
            return self.won.result()
        while self._offered:
            if self._alive(stream := self._best()):
                return stream
        return None

    def offer(self, stream: Stream, rank: int, waited_ns: int, *, named: bool = True) -> None:
        """Here is one, so long after the first shot. `named`: whether it is with the very endpoint of that rank."""
        if self.won.done():
            stream.sock.close()
            return
        self._offered[stream] = (rank, not named)
        if len(self._offered) > MOST_OFFERED and self._too_many() is stream:
            return
        if self._follows:
            wait_s = min(_ROUNDS * stream.took_ns / 1e9, _LONGEST_S) + _SLACK_S
            self._due_s[stream] = self._loop.time() + wait_s
            self._patient_until_s = self._patient_until_s or self._due_s[stream] + _LONGEST_S
            self._look_at(self._due_s[stream])
        elif not self._coming(min(self._offered.values())[0]):
            self._keep_best()
        elif self._timer is None:
            # One who chooses must be done before the other, who waits longer than the handshake took, believes.
            wait_ns = min(grace_ns(waited_ns), stream.took_ns // 2) if self._chooses else grace_ns(waited_ns)
            self._timer = self._loop.call_later(wait_ns / 1e9, self._keep_best)

    def _too_many(self) -> Stream:
        """Close the worst, the latest of those: whoever fills this up is at the peer's address, and is not the peer."""
        worst = max(reversed(self._offered), key=self._offered.__getitem__)
        self._withdraw(worst)
        worst.sock.close()
        return worst

    def _withdraw(self, stream: Stream) -> None:
        del self._offered[stream]
        self._due_s.pop(stream, None)

    def _look_at(self, when_s: float) -> None:
        """One timer for all: the earliest look that is due."""
        if self._timer is not None:
            if self._timer.when() <= when_s:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when_s, self._look)

    def _keep_best(self) -> None:
        self._timer = None
        while self._offered and not self.won.done():
            self._keep(self._best())

    def _look(self) -> None:
        """Keep it where the peer has, however long the peer's loop takes to come round to closing the others."""
        self._timer = None
        if self.won.done() or not self._offered:
            return
        spoken = {each: _has_spoken(each.sock) for each in self._offered}
        for gone in (each for each in spoken if spoken[each] is None):
            self._withdraw(gone)
            gone.sock.close()
        now_s = self._loop.time()
        due = [each for each in self._offered if self._due_s[each] <= now_s + _EARLY_TIMER_S]
        if not self._offered:
            self._lost()
        elif chosen := next((each for each in spoken if spoken[each]), None):
            self._keep(chosen)
        elif not due:
            self._look_at(min(self._due_s.values()))
        elif len(self._offered) > 1 and now_s < self._patient_until_s:
            self._look_at(now_s + _LOOK_S)
        else:
            self._keep(self._best())

    def _best(self) -> Stream:
        return min(self._offered, key=self._offered.__getitem__)

    def _keep(self, stream: Stream) -> None:
        if self.won.done() or stream not in self._offered:  # nobody waits any more, or another has been kept
            return
        if self._alive(stream):
            self._close_offered()
            self.won.set_result(stream)
        elif not self._offered:
            self._lost()

    def _alive(self, stream: Stream) -> bool:
        """Take it off the offer, to be used, or closed where the peer has chosen another meanwhile."""
        self._withdraw(stream)
        if _is_gone(stream.sock):
            stream.sock.close()
            return False
        self._ports.give_to_children(stream.sock)
        keep(stream.sock)
        return True

    def fail(self, error: BaseException) -> None:
        """Trying on is useless."""
        if not self.won.done():
            self.won.set_exception(error)

    def end(self) -> None:
        """Close what was not kept, and what was kept for nobody: its waiter may be cancelled at that moment."""
        if self._timer is not None:
            self._timer.cancel()
        self._close_offered()
        # Where the loop is closed, its waiter is gone with it, and cannot be told.
        if (not self.won.done() and self._loop.is_closed()) or self.won.cancel() or self.won.cancelled() or self._taken:
            return
        if self.won.exception() is None:
            self.won.result().sock.close()

    def _close_offered(self) -> None:
        for stream in self._offered:
            stream.sock.close()
        self._offered.clear()
        self._due_s.clear()


def _is_gone(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except OSError:
        return True


def _has_spoken(sock: socket.socket) -> bool | None:
    """Whether the peer has sent something on it, or ended it in order; None where it has reset it."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
