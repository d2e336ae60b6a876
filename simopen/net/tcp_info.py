"""What Linux tells of a TCP socket (tcp(7): TCP_INFO, SIOCINQ, SIOCOUTQ). Elsewhere nothing is known."""

from __future__ import annotations

import socket
import struct
import sys
from typing import NamedTuple

if sys.platform == "linux":  # not when it is called for: an interpreter that ends imports nothing any more
    import fcntl

# linux/tcp.h, struct tcp_info: the state, and from 120 on bytes_acked, and at 152 data_segs_in.
_TCP_INFO = struct.Struct("=B119xQ24xI")
# From 2 on retransmits and probes, one byte each, at 24 unacked, at 56 last_ack_recv in ms.
_UNANSWERED = struct.Struct("=2xBB20xI28xI")
_CLOSED = 7  # include/net/tcp_states.h
_FIONREAD, _TIOCOUTQ = 0x541B, 0x5411


def sends_rst(sock: socket.socket) -> bool:
    """Whether closing the socket sends a RST: it was told to (SO_LINGER of 0 s), or something is left unread."""
    if sys.platform != "linux":
        return False
    try:
        on, seconds = struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
        return bool(on and not seconds) or _count(sock, _FIONREAD) > 0
    except OSError:
        return False


def peer_is_up(sock: socket.socket, *, patient: bool) -> bool:
    """Whether the peer has acknowledged or sent more than its SYN, and all of ours is acknowledged; or it is over.

    Where not `patient`, that all of ours is acknowledged is enough.
    """
    if sys.platform != "linux":
        return not patient
    try:
        state, acked, received = _TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
        if state == _CLOSED:
            return True
        return not _count(sock, _TIOCOUTQ) and (not patient or acked > 1 or received > 0)
    except OSError:
        return True
    except struct.error:  # a kernel that tells less than Linux 5.15 does
        return not patient


def has_been_up(sock: socket.socket) -> bool:
    """Whether the peer has acknowledged this socket's SYN, other than by a RST; False where that is not known.

    Unlike SO_ERROR, that leaves what the peer has ended the stream with for who reads it.
    """
    if sys.platform != "linux":
        return False
    try:
        _, acked, _ = _TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    except (OSError, struct.error):
        return False
    return bool(acked)


class Unanswered(NamedTuple):
    """What the peer's host has not acknowledged: whether that is data, how many probes; and its last word, s ago."""

    data: bool
    probes: int
    since_s: float


def unanswered(sock: socket.socket) -> Unanswered | None:
    """None where nothing is waited for; also where that is not known, or the socket is closed."""
    if sys.platform != "linux":
        return None
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNANSWERED.size)
        resent, probes, unacked, last_ack_ms = _UNANSWERED.unpack(told)
    except (OSError, ValueError, struct.error):  # closed: asyncio's and uvloop's errors; an old kernel
        return None
    data = bool(resent or unacked)
    return Unanswered(data, probes, last_ack_ms / 1000) if data or probes else None


def _count(sock: socket.socket, request: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock, request, b"\0" * 4))[0])
