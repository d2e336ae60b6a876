"""The way to one peer endpoint: one socket at a time, a new one for each SYN.

Theory of operation: a socket that got an answer is closed and a new one taken, since BSD's are dead after a RST. What
an outcome means, and when the next SYN is due, is `retry.py`'s to say and the connector's to do.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from simopen.holepunch.listener import Loop
from simopen.model.endpoint import Endpoint
from simopen.model.outcome import SENT, Outcome, outcome_of
from simopen.model.report import Attempt, Via
from simopen.model.shot import Shot
from simopen.net import local_ports, own_flows
from simopen.net.local_ports import LocalPorts
from simopen.net.own_flows import Flow
from simopen.net.sockets import MakeSocket, limit_hops, limit_resends, open_socket, sockaddr

# States of a 5-tuple that do not pass by themselves within a window, unlike an accept under way or TIME-WAIT.
_LASTING = {"ESTABLISHED", "SYN-SENT", "CLOSE-WAIT"}
_SYN_SENT = 2  # linux/include/net/tcp_states.h
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
    established_ns: int
    took_ns: int


class Lane:
    """A shot and those that repeat it. `rank`: which lane's stream is better where several come up, 0 the best."""

    def __init__(
        self,
        local: tuple[str, int],
        shot: Shot,
        rank: int,
        *,
        resends: int = 0,
        make: MakeSocket | None = None,
        ports: LocalPorts = local_ports.shared,
    ) -> None:
        self.shot = shot
        self.peer = shot.remote
        self.rank = rank
        self.dead = False
        self.holder: str | None = None  # the state of what has the 5-tuple, if the last look saw anything
        self.attempts: list[Attempt] = []
        self.planned_ns = self.started_ns = self.error = 0
        self.target = sockaddr(self.peer)
        self.local = local
        self._resends = resends
        self._make = make
        self._ports = ports
        self._watched = False
        self._sock: socket.socket | None = None

    def load(self) -> None:
        """Have a socket bound, and the very call at hand that sends its SYN.

        Raises: LocalEndpointError.
        """
        self._sock = open_socket(self.local, self.peer.family, make=self._make)
        self._ports.keep_from_children(self._sock)
        if self.shot.ttl is not None:
            limit_hops(self._sock, self.shot.ttl)
        if self._resends and self.shot.lasts_ns is None:
            limit_resends(self._sock, self._resends)
        self.connect_ex = self._sock.connect_ex

    def reload_and_fire(self, planned_ns: int) -> None:
        """Send one more SYN, from a new socket."""
        self.load()
        self.planned_ns, started_ns = planned_ns, time.monotonic_ns()
        self.fired(started_ns, self.connect_ex(self.target))

    def fired(self, started_ns: int, error: int) -> None:
        """Note when the call was made that sends the SYN, and what came of it."""
        self.started_ns, self.error = started_ns, error
        own_flows.process.note(Flow(True, self.local[1], self.peer, started_ns))

    def watch(self, loop: Loop, done: Callable[[Lane, int], None]) -> None:
        """Report the shot's errno to `done(lane, errno)`: now where it is known, else when the kernel tells."""
        assert self._sock is not None
        if outcome_of(self.error, immediate=True) is Outcome.IN_FLIGHT:
            loop.add_writer(self._sock, self._ready, loop, done)
            self._watched = True
        else:
            self._record(self.error, immediate=True)
            done(self, self.error)

    def _ready(self, loop: Loop, done: Callable[[Lane, int], None]) -> None:
        assert self._sock is not None
        loop.remove_writer(self._sock)
        self._watched = False
        error = _answer(self._sock)
        self._record(error, immediate=False, ended_ns=None if error else up_since_ns(self._sock, self.started_ns))
        done(self, error)

    def _record(self, error: int | None, *, immediate: bool, ended_ns: int | None = None) -> None:
        ended_ns = ended_ns or time.monotonic_ns()
        shot = Attempt(self.peer, self.planned_ns, self.started_ns, ended_ns, error, immediate)
        self.attempts.append(shot)

    def held(self, holder: str | None) -> bool:
        """Whether the taken 5-tuple is another's for good, now that a look has found it in state `holder`.

        Two looks in a row must say so. One alone may see the very stream that the listener is about to hand us, and
        so may one after a look that saw this stream's accept under way.
        """
        before, self.holder = self.holder, holder
        return before in _LASTING and holder in _LASTING

    @property
    def loaded(self) -> bool:
        """Whether there is a socket."""
        return self._sock is not None

    @property
    def sent(self) -> bool:
        """Whether the last call of `connect` sent a SYN."""
        return outcome_of(self.error, immediate=True) in SENT

    @property
    def resent(self) -> int:
        """How often the kernel has sent this SYN again; where it does not tell, as often as it may."""
        if self._sock is None or not hasattr(socket, "TCP_INFO"):
            return self._resends
        try:
            told = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_RESENT.size)
        except OSError:
            return self._resends
        return int(_TCP_INFO_RESENT.unpack(told)[0])

    @property
    def idle(self) -> bool:
        """Whether nothing of this lane is in flight, though it could be."""
        return self._sock is None and not self.dead and not self.shot.once

    @property
    def answered(self) -> bool:
        """Whether the peer's SYN has come, though the stream is not up yet; False where the kernel does not tell."""
        if self._sock is None or not hasattr(socket, "TCP_INFO"):
            return False
        with contextlib.suppress(OSError):
            return self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _SYN_SENT
        return False

    def take(self) -> socket.socket:
        """Give the socket away; it is no longer the lane's to close."""
        sock, self._sock = self._sock, None
        assert sock is not None
        return sock

    def discard(self) -> None:
        """Close the socket; the next shot takes a new one."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def close(self, loop: Loop) -> None:
        """Close the socket, whatever it is doing."""
        if self._sock is not None and self._watched:
            if not loop.is_closed() and self._sock.fileno() >= 0:  # its thread is over; a forked child has closed it
                loop.remove_writer(self._sock)
            self._record(None, immediate=False)
        self.discard()


def _answer(sock: socket.socket) -> int:
    """What came of a connect that was under way: an errno, 0 where it is connected.

    SO_ERROR is 0, too, where nothing ever was under way, or the stream was reset between two calls. Where the kernel
    does not even tell that, the shot has failed by that error.
    """
    try:
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not error:
            sock.getpeername()
    except OSError as gone:
        with contextlib.suppress(OSError):
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or gone.errno or errno.ENOTCONN
        return gone.errno or errno.ENOTCONN
    return error


def up_since_ns(sock: socket.socket, earliest_ns: int) -> int:
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
    return now_ns if ago_ns <= _JIFFY_NS else max(earliest_ns, now_ns - ago_ns)


def accept_took_ns(sock: socket.socket) -> int:
    """From our SYN-ACK to the peer's answer, by the kernel. (It says too little where a SYN of ours was crossed.)"""
    if not hasattr(socket, "TCP_INFO"):
        return _UNMEASURED_NS
    try:
        (rtt_us,) = _TCP_INFO_RTT.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_RTT.size))
    except OSError:
        return _UNMEASURED_NS
    return int(rtt_us) * 1000 or _UNMEASURED_NS
