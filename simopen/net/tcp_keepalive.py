"""How long a kept stream lives where its peer, or a NAT on the way, says nothing any more.

Theory of operation: the kernel does it, so it holds for a bare socket in anybody's hands. Probes on an idle stream
(SO_KEEPALIVE) keep the NATs on the way from forgetting it, and find a peer that is gone though nothing is sent to it.
TCP_USER_TIMEOUT ends a stream whose data nobody acknowledges.

On Linux the two are one where both are set: the number of probes then counts for nothing, and an idle stream ends with
the first probe that finds the peer silent for the user time-out (tcp_keepalive_timer). That time-out also ends a stream
whose peer lives but takes nothing for so long, its window closed, while data waits here (tcp_probe_timer; measured).
So it is minutes, as a reader may pause; and who can look after a stream takes the time-out over (`Patience`).
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from dataclasses import dataclass
from typing import Self

from simopen.net.tcp_info import unanswered

KEEPALIVE_S = 45.0
"""RFC 5382 REQ-5 asks of NATs to remember an idle stream for 2 h 4 min. Of 34 home gateways the quickest forgot after
4 min (Hätönen et al., 2010), clouds' NATs do after 4 and 6 min, some carriers' sooner: at 45 s, two probes in a row may
be lost within 2 min."""
USER_TIMEOUT_S = 300.0
"""What TCP's own standard calls the default (RFC 9293 §3.9.1, OPEN); Linux's, left alone, is some 15 min."""
MOST_KEEPALIVE_S = 32_767  # include/net/tcp.h: MAX_TCP_KEEPIDLE
MOST_USER_TIMEOUT_S = 2_147_483  # an int of ms
_PROBES = 9  # where there is no user time-out: tcp(7)'s own number
_MOST_PROBES = 127  # include/net/tcp.h: MAX_TCP_KEEPCNT
_PROBES_LOST = 3
"""Of a closed window: the pauses between these grow to two minutes, and hosts do not answer each
(tcp_invalid_ratelimit)."""
_LONGEST_TAKEN_OVER_MS = 600_000  # without one, Linux resends data for 15 min and more (tcp_retries2)
_CLOSED = OSError, ValueError  # what a socket that is closed raises: asyncio's, uvloop's
_FRACTION = 3
"""Once a probe was not answered, the next ones come in so many parts of the idle time."""


@dataclass(frozen=True, slots=True)
class Liveness:
    """`keepalive`: seconds of idleness before each probe; `user_timeout`: seconds. None: as without it.

    Raises: TypeError, ValueError for what is no such number.
    """

    keepalive: float | None = KEEPALIVE_S
    user_timeout: float | None = USER_TIMEOUT_S

    def __post_init__(self) -> None:
        _check(self.keepalive, "keepalive", 1, MOST_KEEPALIVE_S)
        _check(self.user_timeout, "user_timeout", 0.001, MOST_USER_TIMEOUT_S)

    @property
    def idle_s(self) -> int:
        """The kernel counts whole seconds, and a NAT must not forget before."""
        return math.floor(self.keepalive or 0)

    @property
    def interval_s(self) -> int:
        """Between two probes that nobody answers."""
        return max(1, self.idle_s // _FRACTION)

    def arrange(self, sock: socket.socket) -> None:
        """Set it on a socket, as far as this platform has words for it. (macOS has none for one that was reset.)"""
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, self.keepalive is not None)
            if self.keepalive is not None:
                _set(sock, ("TCP_KEEPIDLE", "TCP_KEEPALIVE"), self.idle_s)  # Linux's and Windows's word, macOS's
                _set(sock, ("TCP_KEEPINTVL",), self.interval_s)
                _set(sock, ("TCP_KEEPCNT",), _PROBES)
            _set(sock, ("TCP_USER_TIMEOUT",), math.ceil((self.user_timeout or 0) * 1000))  # Linux alone has it


class Patience:
    """A stream's user time-out, taken over from the kernel, so that a reader that pauses is not taken for one gone.

    Within the context; `is_over` is to be asked each second or two. Where the kernel has none, or a longer one than it
    would give up after by itself, it stays with the kernel. `sock` may become another of the same stream's, once that
    is handed over.
    """

    def __init__(self, sock: socket.socket | None) -> None:
        self.sock = sock
        self._kernels_ms = 0
        self.timeout_s = 0.0
        self._since_s: float | None = None

    def __enter__(self) -> Self:
        if self.sock is None:
            return self
        with contextlib.suppress(*_CLOSED):
            self._kernels_ms = _user_timeout_ms(self.sock)
            if 0 < self._kernels_ms <= _LONGEST_TAKEN_OVER_MS:
                _set(self.sock, ("TCP_USER_TIMEOUT",), 0)
                _set(self.sock, ("TCP_KEEPCNT",), _MOST_PROBES)
                self.timeout_s = self._kernels_ms / 1000
        return self

    def __exit__(self, *_: object) -> None:
        if self.sock is not None and self.timeout_s:
            with contextlib.suppress(*_CLOSED):
                _set(self.sock, ("TCP_USER_TIMEOUT",), self._kernels_ms)

    def is_over(self) -> bool:
        """Whether the peer's host has been silent for longer than that."""
        if self.sock is None or not self.timeout_s:
            return False
        waiting, now_s = unanswered(self.sock), time.monotonic()
        if waiting is None:
            self._since_s = None
            return False
        if self._since_s is None:
            self._since_s = now_s  # the last acknowledgement may be of long before there was anything to answer
        is_silent = waiting.data or waiting.probes >= _PROBES_LOST
        return is_silent and min(waiting.since_s, now_s - self._since_s) >= self.timeout_s


def _user_timeout_ms(sock: socket.socket) -> int:
    """0: none; Linux alone has it."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    return 0 if option is None else sock.getsockopt(socket.IPPROTO_TCP, option)


def _set(sock: socket.socket, names: tuple[str, ...], value: int) -> None:
    for name in names:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            return


def _check(value: object, name: str, least: float, most: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} must lie between {least:g} and {most} seconds, or be None, not {value!r:.40}")
