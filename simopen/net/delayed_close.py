"""When a stream's FIN or RST leaves this host: not before the NATs on the way know the connection to be established.

Theory of operation. Linux's connection tracking, which most home routers are made of, overlooks the SYN-ACK that comes
back where two SYNs have crossed. Until the peer's first ACK passes it, half a round trip after the stream is up here,
it knows neither side's window, and forwards a FIN or a RST that follows data without taking it into account. Its entry
then outlives the stream, by a minute or more, and drops the peer's SYNs: the same two endpoints cannot meet again.

So a duplicate of the descriptor is kept open for about a round trip. Whoever closes the stream meanwhile is done with
it, but the FIN or RST leaves when the duplicate is closed. A thread does that, since a stream may outlive its event
loop, and an interpreter that ends waits for it. What gets around it: a process that is killed, and a transport that
shuts a descriptor down without Python's knowledge, as uvloop's does (`streams.py` sees to that).

A RST of ours is followed by a SYN that gets to the first router only. Where both sides reset at once, the last segment
that each router sees would be the peer's RST, and for 10 s it would take our next SYN for a stray. A SYN right behind
our own RST begins a new connection there, and so the old entry is forgotten; and as the SYN is not sent on, nothing
is remembered of the new one either. (Were it sent on, an early SYN of the peer's would spoil the entry.) It must get
there before a RST of the peer's that left at the same time, so it goes at once.

Not all who leave a stream close it: it is collected with what referred to it, or the interpreter ends, by an error or
`sys.exit` with the stream in some frame. Either ends it as a close does.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import heapq
import itertools
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

from simopen.errors import LocalEndpointError
from simopen.model.endpoint import Endpoint, normalise
from simopen.model.times import MonoNs
from simopen.net import sock_diag
from simopen.net.os_errors import of_a_stream
from simopen.net.sockets import limit_hops, open_socket, sockaddr
from simopen.net.tcp_info import peer_is_up, sends_rst

REMEMBERED_NS = 120_000_000_000
"""How long a router may keep what it knows of a stream that has ended: Linux's longest, for TIME-WAIT."""
_MOST_REMEMBERED = 1024
# A handshake takes a round trip or more, and the peer's ACK is there within one. The rest is for its loop and jitter.
_ROUNDS, _SLACK_NS = 1.25, 10_000_000
_LONGEST_NS = 1_000_000_000
# What is lost is sent again after 0.2 s at least (tcp(7)); a peer that is gone shall not keep anybody longer.
_RESENT_NS = 300_000_000
_FIRST_LOOK_NS, _FURTHER = 2_000_000, 1.5
# To the first router, which looks at it and sends it nowhere.
_HOPS = 1
_PAUSES_NS = tuple(100_000 * 2**each for each in range(10))  # for whoever closes to come round to it
_ENDING_STATES = {"TIME-WAIT", "LAST-ACK", "CLOSING"}

FiveTuple: TypeAlias = tuple[Endpoint, Endpoint]


class PunchedSocket(socket.socket):
    """A socket whose `close` and `shutdown` take effect when NATs know the connection to be established."""

    _held: Held | None = None
    _between: FiveTuple | None = None
    _inode = 0
    _ended = False

    def close(self) -> None:
        """Close it. The FIN or RST leaves at once, or about one round trip after the stream came up."""
        end = self._end()
        super().close()
        if self.fileno() < 0:  # nobody else has a file of it
            self._tell(end)

    def detach(self) -> int:
        """Give the descriptor away, to whoever closes it now."""
        end = self._end()
        descriptor = super().detach()
        self._tell(end)
        return descriptor

    def __del__(self) -> None:
        """As a plain socket's, which closes it and warns of that."""
        end = self._end()
        super().__del__()  # type: ignore[misc]
        self._tell(end)

    def close_at_once(self) -> None:
        """Close it by its number, whoever still has a file of it, as uvloop's transports do."""
        end, gone = self._end(), self._is_gone()
        descriptor = super().detach()
        if not gone:  # else the number may be somebody else's by now: a file's that is not yet written
            with contextlib.suppress(OSError):  # another thread was first
                os.close(descriptor)
        self._tell(end)

    def about_to_close(self) -> None:
        """For who has only the descriptor, and closes that right after."""
        self._tell(self._end())

    def _end(self) -> tuple[FiveTuple, bool] | None:
        """Between whom the stream is that ends, and whether a RST ends it; None where nothing does."""
        if self._ended or self.fileno() < 0:
            return None
        if self._between is not None and self._is_gone():
            return self._between, True  # maybe: a FIN leaves the 5-tuple taken, and then nothing follows it
        ends = _ends(self)
        return None if ends is None else (ends, sends_rst(self))

    def _is_gone(self) -> bool:
        """Whether the descriptor has been closed by its number, as uvloop does with what a loop has at its end."""
        try:
            return os.fstat(self.fileno()).st_ino != self._inode
        except OSError:
            return True

    def _tell(self, end: tuple[FiveTuple, bool] | None) -> None:
        if end is None:
            return
        self._ended, (ends, resets) = True, end
        shared.note(ends)
        still_held = self._held is not None and self._held.closed()
        if resets and not still_held:
            _SynAfterReset(*ends).follow()

    def shutdown(self, how: int) -> None:
        """Shut it down, where that is for writing about one round trip after the stream came up, or at once.

        Raises: ConnectionResetError where it was reset meanwhile: the kernel says that it is not connected.
        """
        is_put_off = how != socket.SHUT_RD and self._held is not None and self._held.shut()
        if is_put_off and how != socket.SHUT_RDWR:
            return
        try:
            super().shutdown(socket.SHUT_RD if is_put_off else how)
        except OSError as error:
            raise of_a_stream(error) from None

    def wait_to_end(self, call: Callable[[], object]) -> bool:
        """Have this called, in a thread of its own, once the stream may be ended; False where it may be now."""
        return self._held is not None and self._held.then(call)

    def __reduce_ex__(self, _: object) -> tuple[object, ...]:
        """As `multiprocessing` hands a plain socket to another process."""
        from multiprocessing.reduction import DupFd

        return _rebuilt, (DupFd(self.fileno()), self.family, self.type, self.proto)


def _rebuilt(descriptor: Any, family: int, kind: int, proto: int) -> socket.socket:
    return socket.socket(family, kind, proto, fileno=descriptor.detach())


class Held:
    """A duplicate of a stream's descriptor, and what is due when it is closed."""

    def __init__(self, sock: socket.socket, took_ns: int) -> None:
        self._sock = socket.socket(fileno=os.dup(sock.fileno()))
        self.ends = _ends(sock)
        took_ns = min(took_ns, _LONGEST_NS)
        self._due_ns = time.monotonic_ns() + min(round(_ROUNDS * took_ns) + _SLACK_NS, _LONGEST_NS)
        self._last_ns = self._due_ns + took_ns + _RESENT_NS
        self._pause_ns = _FIRST_LOOK_NS
        self._lock = threading.Lock()
        self._over = self.is_closed = self._shut = False
        self._then: list[Callable[[], object]] = []

    def shut(self) -> bool:
        """Have the stream shut down for writing in time; False where that can be done at once."""
        with self._lock:
            self._shut = self._shut or not self._over
            return not self._over

    def then(self, call: Callable[[], object]) -> bool:
        """As `PunchedSocket.wait_to_end`."""
        with self._lock:
            if not self._over:
                self._then.append(call)
            return not self._over

    def closed(self) -> bool:
        """Take note that the stream's owner has closed it; False where nothing is held any more."""
        with self._lock:
            self.is_closed = True
            return not self._over

    def look(self) -> MonoNs | None:
        """When to look again, on CLOCK_MONOTONIC; None once all is done."""
        now_ns = time.monotonic_ns()
        if now_ns < self._last_ns and not peer_is_up(self._sock, patient=now_ns < self._due_ns):
            self._pause_ns = round(self._pause_ns * _FURTHER)
            return MonoNs(min(now_ns + self._pause_ns, self._due_ns if now_ns < self._due_ns else self._last_ns))
        self._release()
        return None

    def _release(self) -> None:
        with self._lock:  # who closes it from now on sends the SYN that follows a RST, and nobody twice
            self._over, is_closed = True, self.is_closed
        if self._shut:
            with contextlib.suppress(OSError):  # reset meanwhile
                self._sock.shutdown(socket.SHUT_WR)
        resets = is_closed and sends_rst(self._sock)
        self._sock.close()
        for call in self._then:
            call()
        if resets and self.ends is not None:
            _SynAfterReset(*self.ends).follow()

    def abandon(self) -> None:
        """In a forked child: the stream is its parent's to end."""
        self._lock = threading.Lock()
        self._over = True
        self._sock.close()


class _SynAfterReset:
    """Sends a SYN after a RST, once the 5-tuple is free; and where somebody else has it by then, none."""

    def __init__(self, local: Endpoint, remote: Endpoint) -> None:
        self._local, self._remote = local, remote
        self._pauses_ns = iter(_PAUSES_NS)

    def follow(self) -> None:
        """Send it now, in this thread: another may wait for its turn for longer than the peer's RST is on its way."""
        if (when_ns := self.look()) is not None:
            shared.add(self, max(0, when_ns - time.monotonic_ns()))

    def look(self) -> MonoNs | None:
        """As `Held.look`."""
        try:
            sock = open_socket(self._local, self._local.family)
        except LocalEndpointError:
            return None
        with sock, contextlib.suppress(OSError):
            limit_hops(sock, _HOPS)
            if sock.connect_ex(sockaddr(self._remote)) == errno.EADDRNOTAVAIL and (
                pause_ns := next(self._pauses_ns, 0)
            ):
                return MonoNs(time.monotonic_ns() + pause_ns)
        return None

    def abandon(self) -> None:
        """As `Held.abandon`; nothing is open between two looks."""


Job: TypeAlias = Held | _SynAfterReset


class Endings:
    """The thread that ends streams in time, and which ones have ended. Safe between threads and across forks."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._jobs: list[tuple[MonoNs, int, Job]] = []
        self._looked_at: Job | None = None
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended_ns: dict[FiveTuple, MonoNs] = {}
        self._open: weakref.WeakSet[PunchedSocket] = weakref.WeakSet()

    def hold(self, sock: socket.socket, took_ns: int) -> PunchedSocket:
        """Take over a stream that has just come up, after a handshake of `took_ns`; the socket given is no more."""
        punched = PunchedSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        punched.setblocking(False)
        punched._between, punched._inode = _ends(punched), os.fstat(punched.fileno()).st_ino
        with self._changed:
            self._open.add(punched)
        with contextlib.suppress(OSError):  # no descriptor is left: then it ends as any other does
            held = Held(punched, took_ns)
            if self.add(held, _FIRST_LOOK_NS):
                punched._held = held
            else:
                held.abandon()
        return punched

    def note(self, ends: FiveTuple) -> None:
        """A stream between these two has ended now."""
        with self._changed:
            self._ended_ns.pop(ends, None)
            self._ended_ns[ends] = MonoNs(time.monotonic_ns())
            if len(self._ended_ns) > _MOST_REMEMBERED:
                del self._ended_ns[next(iter(self._ended_ns))]

    def ended_ns(self, port: int, remote: Endpoint) -> MonoNs | None:
        """When the last stream from this local port to that endpoint ended; None where none did within two minutes."""
        with self._changed:
            found = [at_ns for (ours, theirs), at_ns in self._ended_ns.items() if (ours.port, theirs) == (port, remote)]
        recent = [at_ns for at_ns in found if time.monotonic_ns() - at_ns < REMEMBERED_NS]
        return max(recent, default=None)

    def earlier(self, local: tuple[str, int], remote: Endpoint, instant_ns: MonoNs) -> str | None:
        """When the last stream between these two ended, in words: by this process's memory, or by the kernel's."""
        if (ended_ns := self.ended_ns(local[1], remote)) is not None:
            ago_s = max(0, instant_ns - ended_ns) / 1e9
            return f"this program ended a stream between the same two endpoints {ago_s:.1f} s before the instant"
        if (state := sock_diag.state(local, remote)) in _ENDING_STATES:
            return f"this host still has an earlier stream between the same two endpoints, which has ended ({state})"
        return None

    def holds(self, port: int, remote: Endpoint) -> bool:
        """Whether a stream from this local port to that endpoint is held for a moment, and closed by its owner."""
        with self._changed:
            ends = [job.ends for _, _, job in self._jobs if isinstance(job, Held) and job.is_closed]
        return any(each is not None and (each[0].port, each[1]) == (port, remote) for each in ends)

    def add(self, job: Job, after_ns: int = 0) -> bool:
        """Have it looked at, from then on; False where no thread can be had: the next one, or `finish`, sees to it."""
        with self._changed:
            self._push(MonoNs(time.monotonic_ns() + after_ns), job)
            self._changed.notify()
            return self._thread is not None or self._start()

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="simopen-ending", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # a limit; or the interpreter ends (Python 3.12)
            return False
        self._thread = thread
        return True

    def _push(self, when_ns: MonoNs, job: Job) -> None:
        heapq.heappush(self._jobs, (when_ns, next(self._order), job))

    def _run(self) -> None:
        while (job := self._due()) is not None:
            when_ns = job.look()
            if when_ns is not None:
                with self._changed:
                    self._push(when_ns, job)

    def _due(self) -> Job | None:
        """Wait for the next one; None, once, where there is none."""
        with self._changed:
            while self._jobs:
                left_ns = self._jobs[0][0] - time.monotonic_ns()
                if left_ns <= 0:
                    self._looked_at = self._jobs[0][2]  # known at any moment, for a fork
                    heapq.heappop(self._jobs)
                    return self._looked_at
                self._changed.wait(left_ns / 1e9)
            self._looked_at = self._thread = None
            return None

    def finish(self) -> None:
        """Wait until all streams may end: about a round trip, and a little more than a second at the very longest."""
        with contextlib.suppress(KeyboardInterrupt):
            while (thread := self._thread) is not None:
                thread.join()
            self._run()  # what no thread could be had for

    def end_all(self) -> None:
        """As the interpreter ends, close what nobody has closed, as the kernel would in a moment; and `finish`."""
        with self._changed:
            left = list(self._open)
        for sock in left:
            sock.close_at_once()
        self.finish()

    def forked(self) -> None:
        """Leave to the parent what is the parent's."""
        jobs, looked_at = [job for _, _, job in self._jobs], self._looked_at
        self._begin()
        for job in jobs if looked_at is None else (*jobs, looked_at):
            job.abandon()


def _ends(sock: socket.socket) -> FiveTuple | None:
    try:
        return normalise(sock.getsockname()), normalise(sock.getpeername())
    except OSError:  # closed, or reset by the peer
        return None


shared = Endings()
"""The process's: a stream may be closed in another thread, and after its event loop."""
atexit.register(shared.end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=shared.forked)
