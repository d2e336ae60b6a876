"""How long a kept stream lives where its peer, or a NAT on the way, says nothing any more.

Theory of operation: the kernel does it, so it holds for a bare socket in anybody's hands. Probes on an idle stream
(SO_KEEPALIVE) keep the NATs on the way from forgetting it, and find a peer that is gone though nothing is sent to it.
TCP_USER_TIMEOUT ends a stream whose data nobody acknowledges.

On Linux the two are one where both are set: the number of probes then counts for nothing, and an idle stream ends with
the first probe that finds the peer silent for the user time-out (tcp_keepalive_timer). That time-out also ends a stream
whose peer lives but takes nothing for so long, its window closed, while data waits here (tcp_probe_timer; measured).
So it is minutes, as a reader may pause.
"""

from __future__ import annotations

import contextlib
import math
import socket
from dataclasses import dataclass

KEEPALIVE_S = 45.0
"""RFC 5382 REQ-5 asks of NATs to remember an idle stream for 2 h 4 min. Of 34 home gateways the quickest forgot after
4 min (Hätönen et al., 2010), clouds' NATs do after 4 and 6 min, some carriers' sooner: at 45 s, two probes in a row may
be lost within 2 min."""
USER_TIMEOUT_S = 300.0
"""What TCP's own standard calls the default (RFC 9293 §3.9.1, OPEN); Linux's, left alone, is some 15 min."""
MOST_KEEPALIVE_S = 32_767  # include/net/tcp.h: MAX_TCP_KEEPIDLE
MOST_USER_TIMEOUT_S = 2_147_483  # an int of ms
_PROBES = 9  # where there is no user time-out: tcp(7)'s own number
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
