"""One listening socket per local endpoint, shared by all who punch from it, in whichever event loop.

Theory of operation: the listener takes the stream where the peer's SYN found us without a live SYN of our own, or
came from a port that the peer's NAT chose. Two listening sockets on one port will not do: the kernel deals incoming
SYNs out between them, so that one punch would be handed another's stream. Nobody is let in before the instant, and
then only the named peers' addresses; all others are closed by a RST.

Each loop that has a waiter reads the one socket, so whichever comes round first accepts, and none depends on another
that is busy. What it accepts for a waiter of another loop's it hands over. A stream that is on its way there, as the
waiter leaves, or whose loop is closed, goes to whoever else waits for it, or is closed.

While it listens for one, the peer of another may come a moment before that one is due, or has even been begun, in
another thread. To accept and reset it would break the stream that this peer has from then on. So what comes for a
waiter that is about to fire waits for it; and of the strangers a few wait for a moment, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from simopen.model.endpoint import ANY, Endpoint, normalise
from simopen.net import local_ports
from simopen.net.early_syn import EarlySynWatch, watch
from simopen.net.local_ports import LocalPorts
from simopen.net.sockets import MakeSocket, open_socket

# What arrives while the loop is busy elsewhere: the peer's SYN must find a place among strangers'.
BACKLOG = 1024
# At most so many in a row, and for so long, so that a flood cannot keep the loop here.
_BATCH, _BATCH_S = 128, 0.005
# Accepting fails for want of descriptors, say, while the listener stays readable: look again, but do not spin.
_PAUSE_S = 0.05
# How long a stranger may turn out to be somebody's peer, and how many, and how many wait for one waiter that is due.
_DOUBT_S, _MOST_DOUBTED, _MOST_EARLY = 0.5, 16, 16

Loop = asyncio.AbstractEventLoop
Key = TypeVar("Key")


class Waiter(Protocol):
    """One punch that waits at a listener: names its peers' endpoints, takes their streams, is told of strangers."""

    @property
    def peers(self) -> tuple[Endpoint, ...]:
        """The endpoints that it expects."""

    def accepted(self, sock: socket.socket, remote: Endpoint) -> None:
        """Take a connected, non-blocking socket; it is the waiter's to close. Called in the waiter's loop."""

    def turned_away(self, remote: Endpoint) -> None:
        """Take note of a connection that was closed at once. Called in any thread, in one at a time."""


@dataclass(eq=False, slots=True)
class _Entry:
    """A waiter, the loop it lives in, and what waits for it or is on its way there from another loop."""

    at: Listener
    loop: Loop
    waiter: Waiter
    here: bool = False
    left: bool = False
    coming: dict[socket.socket, Endpoint] = field(default_factory=dict)


class _Doubted:
    """A stranger who may yet turn out to be somebody's peer. Only the timer that ends the doubt refers to it, so that
    it ends with the loop, too."""

    def __init__(self, ports: LocalPorts, sock: socket.socket, remote: Endpoint) -> None:
        self.sock, self.remote = sock, remote
        self.local = normalise(sock.getsockname())
        self._ports = ports
        self._settled = False
        ports.doubted.add(self)

    def settle(self) -> None:
        """There is no doubt any more; called with the lock held."""
        self._settled = True
        self._ports.doubted.discard(self)

    def close(self) -> None:
        """It was a stranger: with the listener's SO_LINGER, a RST."""
        with self._ports.lock:
            if not self._settled:
                self.settle()
                self.sock.close()

    __del__ = close


@dataclass(eq=False, slots=True)
class _Reading:
    """Whether one loop reads the listening socket, or pauses for want of descriptors."""

    on: bool = False
    pause: asyncio.TimerHandle | None = None


class Listener:
    """The listening socket on one local endpoint. `borrow` one, `join` as a waiter, `give_back`.

    It listens from the first waiter's instant on. What it accepts goes to the waiter that named the remote
    endpoint, or else to the only one that named its address (the peer's NAT may have chosen another port).
    """

    def __init__(
        self, ports: LocalPorts, local: tuple[str, int], family: socket.AddressFamily, make: MakeSocket | None = None
    ) -> None:
        self._ports = ports
        self._local = local
        self.family = family
        self._sock = open_socket(local, family, make=make)
        ports.keep_from_children(self._sock)
        self._users = 0
        self.listening = False
        self._readings: dict[Loop, _Reading] = {}
        self._entries: list[_Entry] = []
        self._exact: defaultdict[Endpoint, list[_Entry]] = defaultdict(list)
        self._by_address: defaultdict[str, list[_Entry]] = defaultdict(list)
        self._early: EarlySynWatch | None = None
        self._looks = True

    @classmethod
    def borrow(
        cls,
        local: tuple[str, int],
        family: socket.AddressFamily,
        *,
        ports: LocalPorts = local_ports.shared,
        make: MakeSocket | None = None,
    ) -> Listener:
        """The listener on `local`, bound but not yet listening where this is its first user.

        Raises: LocalEndpointError.
        """
        with ports.lock:
            listener: Listener | None = ports.listeners.get(local)
            if listener is None:
                listener = ports.listeners[local] = cls(ports, local, family, make)
            else:
                listener.stop_looking()  # of all that share the port: this one is about to listen
            listener._users += 1
            return listener

    def look_out(self, addresses: Iterable[str]) -> bool:
        """Look for SYNs of these addresses, and let nobody in (`early_syn.py`): once, until `stop_looking`.

        Returns whether this looks now.
        """
        with self._ports.lock:
            if self._looks and self._early is None:
                self._early = watch(self._local, self.family, addresses, self._ports)
                self._looks = self._early is not None
            return self._looks

    def saw_early(self) -> bool:
        """Whether such a SYN has come since `look_out`."""
        with self._ports.lock:
            return self._early is not None and self._early.saw()

    def stop_looking(self) -> None:
        """The port is free to be listened on."""
        with self._ports.lock:
            self._looks = False
            if self._early is not None:
                self._early.close()
                self._early = None

    def listen(self) -> None:
        """Begin to listen; again does no harm. Called in the scheduler's thread, right after the shots."""
        if not self.listening:
            with contextlib.suppress(OSError):  # refused: the lanes still try, and the report says "not listening"
                self._sock.listen(BACKLOG)
                self.listening = True

    def expect(self, loop: Loop, waiter: Waiter) -> None:
        """The waiter is about to fire, and will `join`: what comes for it meanwhile, where this listens, waits."""
        with self._ports.lock:
            if any(entry.waiter is waiter for entry in self._entries):
                return
            entry = _Entry(self, loop, waiter)
            self._entries.append(entry)
            for peer in dict.fromkeys(waiter.peers):
                self._exact[peer].append(entry)
            for address in dict.fromkeys(peer.address for peer in waiter.peers):
                self._by_address[address].append(entry)
            for doubted in list(self._ports.doubted):
                if self._is_at(doubted.local) and self._owner(doubted.sock, doubted.remote) is entry:
                    entry.coming[doubted.sock] = doubted.remote
                    doubted.settle()

    def join(self, loop: Loop, waiter: Waiter) -> None:
        """Let the waiter's peers in from now on; called in its loop."""
        with self._ports.lock:
            self.expect(loop, waiter)
            [entry] = [entry for entry in self._entries if entry.waiter is waiter]
            entry.here = True
            coming, entry.coming = entry.coming, {}
            reading = self._readings.setdefault(loop, _Reading())
        self._read(loop, reading)
        for sock, remote in coming.items():
            waiter.accepted(sock, remote)
        self.collect(loop)

    def _read(self, loop: Loop, reading: _Reading) -> None:
        if not reading.on and reading.pause is None:
            # By number: uvloop counts a socket object's readers, and not in a way that two threads may.
            loop.add_reader(self._sock.fileno(), self.collect, loop)
            reading.on = True

    def give_back(self, loop: Loop, waiter: Waiter) -> None:
        """Let nobody in for this waiter any more; the last one closes the socket."""
        with self._ports.lock:
            self._users -= 1
            last = not self._users
            gone = [entry for entry in self._entries if entry.waiter is waiter]
            for entry in gone:
                self._forget(entry)
            alone = all(entry.loop is not loop for entry in self._entries)
            reading = self._readings.pop(loop, None) if alone else None
            if reading is not None:
                self._shut(loop, reading)
            if last:
                self._end(loop)
        for entry in gone:
            self._redirect(None if loop.is_closed() else loop, entry)

    def _end(self, loop: Loop) -> None:
        """Nobody must open another one meanwhile: with the lock held."""
        self.stop_looking()
        if self.listening and not loop.is_closed():
            self.collect(loop)  # else closing resets what is in the queue, and may be for who begins in a moment
        if self._ports.listeners.get(self._local) is self:  # not in a forked child
            del self._ports.listeners[self._local]
        self._sock.close()

    def _forget(self, entry: _Entry) -> None:
        entry.left = True
        self._entries.remove(entry)
        for peer in dict.fromkeys(entry.waiter.peers):
            _leave(self._exact, peer, entry)
        for address in dict.fromkeys(peer.address for peer in entry.waiter.peers):
            _leave(self._by_address, address, entry)

    def _shut(self, loop: Loop, reading: _Reading) -> None:
        if reading.pause is not None:
            reading.pause.cancel()
        if reading.on and not loop.is_closed() and self._sock.fileno() >= 0:  # a forked child has closed it
            loop.remove_reader(self._sock.fileno())
        reading.on = False

    def _redirect(self, loop: Loop | None, entry: _Entry) -> None:
        """What was on its way to a waiter that has left."""
        with self._ports.lock:
            coming, entry.coming = entry.coming, {}
        for sock, remote in coming.items():
            self._dispatch(loop, sock, remote)

    def collect(self, loop: Loop) -> None:
        """Accept what has come, now; called in that loop."""
        until_s = time.monotonic() + _BATCH_S
        for _ in range(_BATCH):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # it was gone before we looked
            except OSError:
                self._rest(loop)
                return
            sock.setblocking(False)
            self._ports.keep_from_children(sock)
            self._dispatch(loop, sock, normalise(address))
            if time.monotonic() > until_s:
                return

    def _rest(self, loop: Loop) -> None:
        """One pause at a time, whoever collects meanwhile."""
        reading = self._readings.get(loop)
        if reading is None or reading.pause is not None:
            return
        if reading.on:
            loop.remove_reader(self._sock.fileno())
            reading.on = False
        reading.pause = loop.call_later(_PAUSE_S, self._resume, loop, reading)

    def _resume(self, loop: Loop, reading: _Reading) -> None:
        reading.pause = None
        self.listen()
        self._read(loop, reading)

    def _dispatch(self, loop: Loop | None, sock: socket.socket, remote: Endpoint) -> None:
        while (entry := self._owner(sock, remote)) is not None or not self._doubts(loop, sock, remote):
            if entry is None:  # it has come just now
                continue
            if entry.here and entry.loop is loop:
                entry.waiter.accepted(sock, remote)
                return
            if self._handed_over(entry, sock, remote):
                return

    def _doubts(self, loop: Loop | None, sock: socket.socket, remote: Endpoint) -> bool:
        """Turn a stranger away, soon. False: somebody waits for it."""
        with self._ports.lock:
            if self._owner(sock, remote) is not None:
                return False
            for each in self._beside(sock):
                for waiting in each._entries:
                    waiting.waiter.turned_away(remote)
            if loop is None or len(self._ports.doubted) >= _MOST_DOUBTED:
                sock.close()  # with the listener's SO_LINGER: a RST
            else:
                loop.call_later(_DOUBT_S, _Doubted(self._ports, sock, remote).close)
            return True

    def _handed_over(self, entry: _Entry, sock: socket.socket, remote: Endpoint) -> bool:
        """Whether it waits for the waiter, or is on its way to its loop; one that is closed has no waiters any more."""
        with self._ports.lock:
            if entry.left:
                return False  # just now, and the next look finds somebody else
            entry.coming[sock] = remote
            if not entry.here:
                if len(entry.coming) > _MOST_EARLY:
                    del entry.coming[sock]
                    sock.close()
                return True
            try:
                entry.loop.call_soon_threadsafe(_arrive, self._ports, entry, sock)
            except RuntimeError:
                del entry.coming[sock]
                entry.at._forget(entry)
                return False
        return True

    def _owner(self, sock: socket.socket, remote: Endpoint) -> _Entry | None:
        with self._ports.lock:
            beside = list(self._beside(sock))
            exact = [entry for each in beside for entry in each._exact.get(remote, ())]
            if exact:
                return exact[0]
            by_address = [entry for each in beside for entry in each._by_address.get(remote.address, ())]
            return by_address[0] if len(by_address) == 1 else None  # two would be a guess

    def _beside(self, sock: socket.socket) -> Iterator[Listener]:
        """This listener, and those on its port whose waiters may take what it accepts: of `sock`'s address, or of any.

        The kernel gives a SYN to the one that is bound to an address before the one that is bound to any.
        """
        yield self
        others = self._neighbours()
        if others:
            with contextlib.suppress(OSError):  # it was reset meanwhile
                end = normalise(sock.getsockname()).address
                others = [each for each in others if each._local[0] in (end, ANY[self.family])]
        yield from others

    def _is_at(self, local: Endpoint) -> bool:
        return self._local in (local, (ANY[self.family], local.port)) and self.family == local.family

    def _neighbours(self) -> list[Listener]:
        every: Iterable[Listener] = self._ports.listeners.values()
        mine = (self._local[1], self.family)
        return [each for each in every if each is not self and (each._local[1], each.family) == mine]


def _leave(index: dict[Key, list[_Entry]], key: Key, entry: _Entry) -> None:
    index[key].remove(entry)
    if not index[key]:
        del index[key]


def _arrive(ports: LocalPorts, entry: _Entry, sock: socket.socket) -> None:
    """In the waiter's loop. Where it has left meanwhile, the stream has been given to somebody else, or closed."""
    with ports.lock:
        remote = entry.coming.pop(sock, None)
    if remote is not None:
        entry.waiter.accepted(sock, remote)
