"""One listening socket per local endpoint, shared by all who punch from it.

Theory of operation: the listener takes the stream where the peer's SYN found us without a live SYN of our own, or
came from a port that the peer's NAT chose. Two listening sockets on one port will not do: the kernel deals incoming
SYNs out between them, so that one punch would be handed another's stream. Nobody is let in before the instant, and
then only the named peers' addresses; all others are closed by a RST at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref
from collections.abc import Iterable
from typing import ClassVar, Protocol

from simopen.address import Endpoint, normalise
from simopen.lookout import Lookout, look_out
from simopen.sockets import MakeSocket, open_socket

# What arrives while the loop is busy elsewhere: the peer's SYN must find a place among strangers'.
BACKLOG = 1024
# At most so many in a row, so that a flood cannot keep the loop here.
_BATCH = 128
# Accepting fails for want of descriptors, say, while the listener stays readable: look again, but do not spin.
_PAUSE_S = 0.05

Loop = asyncio.AbstractEventLoop


class Guest(Protocol):
    """Who waits at a listener: names the endpoints it expects, takes their streams, is told of strangers."""

    peers: tuple[Endpoint, ...]

    def accepted(self, sock: socket.socket, remote: Endpoint) -> None:
        """Take a connected, non-blocking socket; it is the guest's to close."""

    def turned_away(self, remote: Endpoint) -> None:
        """Take note of a connection that was closed at once."""


class Listener:
    """One listening socket per local endpoint and event loop, shared by every guest on that port.

    It listens from the first guest's instant on. What it accepts goes to the guest that named the remote
    endpoint, or else to the only one that named its address (the peer's NAT may have chosen another port).
    """

    _open: ClassVar[weakref.WeakKeyDictionary[Loop, dict[tuple[str, int], Listener]]] = weakref.WeakKeyDictionary()

    def __init__(
        self, loop: Loop, local: tuple[str, int], family: socket.AddressFamily, make: MakeSocket | None = None
    ) -> None:
        self._loop = loop
        self._local = local
        self.family = family
        self._sock = open_socket(local, family, make=make)
        self._users = 0
        self.listening = False
        self._reading = False
        self._pause: asyncio.TimerHandle | None = None
        self._waiting: list[Guest] = []
        self._lookout: Lookout | None = None
        self._looks = True

    @classmethod
    def borrow(
        cls, loop: Loop, local: tuple[str, int], family: socket.AddressFamily, *, make: MakeSocket | None = None
    ) -> Listener:
        """The listener on `local`, bound but not yet listening where this is its first user."""
        listeners = cls._open.setdefault(loop, {})
        if local not in listeners:
            listeners[local] = cls(loop, local, family, make)
        else:
            listeners[local].stop_looking()  # its door closes for all
        listeners[local]._users += 1
        return listeners[local]

    def look_out(self, addresses: Iterable[str]) -> bool:
        """Look for SYNs of these addresses, and let nobody in (`lookout.py`): once, until `stop_looking`.

        Returns whether this looks now.
        """
        if self._looks and self._lookout is None:
            self._lookout = look_out(self._local, self.family, addresses)
            self._looks = self._lookout is not None
        return self._looks

    def saw_early(self) -> bool:
        """Whether such a SYN has come since `look_out`."""
        return self._lookout is not None and self._lookout.saw()

    def stop_looking(self) -> None:
        """The port is free to be listened on."""
        self._looks = False
        if self._lookout is not None:
            self._lookout.close()
            self._lookout = None

    def listen(self) -> None:
        """Begin to listen; again does no harm. Called in the scheduler's thread, right after the shots."""
        if not self.listening:
            with contextlib.suppress(OSError):  # refused: the lanes still try, and the report says "not listening"
                self._sock.listen(BACKLOG)
                self.listening = True

    def join(self, guest: Guest) -> None:
        """Let the guest's peers in from now on."""
        self._waiting.append(guest)
        if not self._reading:
            self._loop.add_reader(self._sock, self.collect)
            self._reading = True
        self.collect()

    def give_back(self, guest: Guest) -> None:
        """Let nobody in for this guest any more; the last one closes the socket."""
        if guest in self._waiting:
            self._waiting.remove(guest)
        self._users -= 1
        if self._users:
            return
        del self._open[self._loop][self._local]
        self.stop_looking()
        self._stop_reading()
        if self._pause is not None:
            self._pause.cancel()
        self._sock.close()

    def _stop_reading(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._sock)
            self._reading = False

    def collect(self) -> None:
        """Accept what has come, now."""
        for _ in range(_BATCH):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # it was gone before we looked
            except OSError:
                self._rest()
                return
            self._dispatch(sock, normalise(address))

    def _rest(self) -> None:
        self._stop_reading()
        self._pause = self._loop.call_later(_PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self.listen()
        self._loop.add_reader(self._sock, self.collect)
        self._reading = True

    def _dispatch(self, sock: socket.socket, remote: Endpoint) -> None:
        sock.setblocking(False)
        guest = self._owner(remote)
        if guest is not None:
            guest.accepted(sock, remote)
            return
        sock.close()  # with the listener's SO_LINGER: a RST
        for waiting in self._waiting:
            waiting.turned_away(remote)

    def _owner(self, remote: Endpoint) -> Guest | None:
        exact = [c for c in self._waiting if remote in c.peers]
        by_address = [c for c in self._waiting if any(p.address == remote.address for p in c.peers)]
        if exact:
            return exact[0]
        return by_address[0] if len(by_address) == 1 else None  # two would be a guess
