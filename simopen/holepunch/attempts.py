"""The sockets of one pair: one at a time, a new one for each SYN.

Theory of operation: nothing is decided here. `engine.py` says when there is to be a SYN and what its answer means.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from simopen.holepunch.listener import Loop
from simopen.holepunch.nomination import Condition
from simopen.holepunch.pair import Pair
from simopen.model.endpoint import Endpoint
from simopen.model.report import Via
from simopen.model.times import MonoNs
from simopen.net import registries, sock_diag
from simopen.net.own_flows import Flow
from simopen.net.registries import Registries
from simopen.net.sockets import MakeSocket, limit_hops, limit_resends, open_socket, sockaddr
from simopen.net.tcp_info import has_been_up

_TCP_INFO_RTT = struct.Struct("=68xI")  # linux/tcp.h: tcpi_rtt, µs
_TCP_INFO_RESENT = struct.Struct("=100xI")  # tcpi_total_retrans
_TCP_INFO_SENT = struct.Struct("=44xI")  # tcpi_last_data_sent, ms ago
# The kernel counts in jiffies, of 10 ms at the longest: what is no older than that, the loop has timed better.
_JIFFY_NS = 10_000_000
_UNMEASURED_NS = 500_000_000


@dataclass(frozen=True, slots=True)
class Stream:
    """A connected socket, and how it came. `took_ns`: the handshake; a round trip at least."""

    sock: socket.socket
    remote: Endpoint
    via: Via
    established_ns: MonoNs
    took_ns: int


class Attempts:
    """The attempts at a pair, from the local end `local`. `resends`, `make`, `ours`: as in `Runner.opened`."""

    __slots__ = ("_make", "_ours", "_resends", "_sock", "_watching", "connect_ex", "local", "pair", "target")

    def __init__(
        self,
        local: tuple[str, int],
        pair: Pair,
        *,
        resends: int = 0,
        make: MakeSocket | None = None,
        ours: Registries = registries.shared,
    ) -> None:
        self.pair = pair
        self.local = local
        self.target = sockaddr(self.peer)
        self._resends = resends
        self._make = make
        self._ours = ours
        self._sock: socket.socket | None = None
        self._watching: Loop | None = None

    @property
    def peer(self) -> Endpoint:
        """Where the SYNs go."""
        return self.pair.shot.remote

    @property
    def loaded(self) -> bool:
        """Whether there is a socket."""
        return self._sock is not None

    def load(self) -> None:
        """Have a socket bound, and the very call at hand that sends its SYN.

        Raises: LocalEndpointError.
        """
        self._sock = open_socket(self.local, self.peer.family, make=self._make)
        self._ours.ports.keep_from_children(self._sock)
        if self.pair.shot.ttl is not None:
            limit_hops(self._sock, self.pair.shot.ttl)
        if self._resends and self.pair.shot.lasts_ns is None:
            limit_resends(self._sock, self._resends)
        self.connect_ex = self._sock.connect_ex

    def load_and_fire(self) -> tuple[MonoNs, int]:
        """Send a SYN from a new socket; returns when, and the errno. Raises: LocalEndpointError."""
        self.load()
        at_ns = MonoNs(time.monotonic_ns())
        error = self.connect_ex(self.target)
        self.note(at_ns)
        return at_ns, error

    def note(self, at_ns: MonoNs) -> None:
        """Take note of the flow that this SYN begins."""
        self._ours.flows.note(Flow(True, self.local[1], self.peer, at_ns))

    def watch(self, loop: Loop, ended: Callable[[Attempts, int], None]) -> None:
        """Call `ended` once the kernel tells the errno that the attempt ends with; 0 where it is connected."""
        assert self._sock is not None
        loop.add_writer(self._sock, self._ready, ended)
        self._watching = loop

    def _ready(self, ended: Callable[[Attempts, int], None]) -> None:
        self._unwatch()
        assert self._sock is not None
        ended(self, _answer(self._sock))

    def _unwatch(self) -> None:
        loop, self._watching = self._watching, None
        if loop is None or self._sock is None:
            return
        if not loop.is_closed() and self._sock.fileno() >= 0:  # its thread is over; a forked child has closed it
            loop.remove_writer(self._sock)

    @property
    def resent(self) -> int:
        """How often the kernel has sent this SYN again; where it does not tell, as often as it may."""
        told = self._told(_TCP_INFO_RESENT.size)
        return self._resends if told is None else int(_TCP_INFO_RESENT.unpack(told)[0])

    @property
    def state(self) -> str | None:
        """The state of the socket, in RFC 9293's words; None where the kernel does not tell."""
        told = self._told(1)
        return None if told is None else sock_diag.STATES.get(told[0])

    def _told(self, size: int) -> bytes | None:
        """The first bytes of what the kernel tells of the socket (TCP_INFO)."""
        if self._sock is None or not hasattr(socket, "TCP_INFO"):
            return None
        with contextlib.suppress(OSError):
            return self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
        return None

    def take(self) -> socket.socket:
        """Give the socket away; it is no longer this one's to close."""
        sock, self._sock = self._sock, None
        assert sock is not None
        return sock

    def ends(self) -> tuple[object, object]:
        """The socket's two ends. Raises: OSError where it is not connected any more."""
        assert self._sock is not None
        return self._sock.getsockname(), self._sock.getpeername()

    def close(self) -> None:
        """Close the socket, whatever it is doing; the next SYN takes a new one."""
        self._unwatch()
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _answer(sock: socket.socket) -> int:
    """What came of a connect that was under way: an errno, 0 where it is connected.

    A stream that the peer has reset meanwhile did come up, and its error stays there. SO_ERROR is 0, too, where nothing
    ever was under way, or the stream was reset between two calls. Where the kernel does not even tell that, the shot
    has failed by that error.
    """
    if has_been_up(sock):
        return 0
    try:
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not error:
            sock.getpeername()
    except OSError as gone:
        with contextlib.suppress(OSError):
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or gone.errno or errno.ENOTCONN
        return gone.errno or errno.ENOTCONN
    return error


def up_since_ns(sock: socket.socket, earliest_ns: MonoNs) -> MonoNs:
    """When this stream came up, in CLOCK_MONOTONIC ns, though the loop may come round to it only now.

    Until something is sent, the kernel counts the time since "data last sent" from then (tcp_finish_connect and
    tcp_create_openreq_child in Linux). That since "received" would not do: the peer may have spoken meanwhile.
    `earliest_ns`: it was not up before that.
    """
    ago_ns = 0
    if hasattr(socket, "TCP_INFO"):
        with contextlib.suppress(OSError):
            told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SENT.size)
            ago_ns = _TCP_INFO_SENT.unpack(told)[0] * 1_000_000
    now_ns = time.monotonic_ns()
    return MonoNs(now_ns if ago_ns <= _JIFFY_NS else max(earliest_ns, now_ns - ago_ns))


def accept_took_ns(sock: socket.socket) -> int:
    """From our SYN-ACK to the peer's answer, by the kernel. (It says too little where a SYN of ours was crossed.)"""
    if not hasattr(socket, "TCP_INFO"):
        return _UNMEASURED_NS
    try:
        (rtt_us,) = _TCP_INFO_RTT.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_RTT.size))
    except OSError:
        return _UNMEASURED_NS
    return int(rtt_us) * 1000 or _UNMEASURED_NS


def condition(sock: socket.socket) -> Condition:
    """What is to be read on a stream, which stays there; so does its error, where the system has poll(2)."""
    if hasattr(select, "poll"):  # not on Windows
        looks = select.poll()
        looks.register(sock, select.POLLIN)
        found = looks.poll(0)
        told = found[0][1] if found else 0
        if told & (select.POLLERR | select.POLLNVAL):
            return Condition.RESET
        return Condition.SPOKEN if told else Condition.SILENT
    try:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return Condition.RESET
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return Condition.SILENT
    except OSError:
        return Condition.RESET
    return Condition.SPOKEN
