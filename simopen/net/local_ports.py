"""What this process holds of local ports: 5-tuples that it fires at, and sockets that listen. One registry a process.

Theory of operation: two event loops, in two threads, may punch from one local port. A claim keeps one 5-tuple for one
punch, whichever way its local end was named. `listener.py` shares its sockets here, since two that listen on one port
are dealt each other's streams by the kernel; all who change what is here, or look at several parts of it, hold `lock`.

A forked child has a duplicate of every descriptor, and would keep ports busy that the parent has let go: it closes
them, and begins with nothing. Closing a duplicate sends nothing.
"""

from __future__ import annotations

import os
import socket
import threading
import weakref
from collections import defaultdict
from typing import Any, NamedTuple, TypeAlias

from simopen.errors import LocalEndpointError
from simopen.model.endpoint import ANY, Endpoint

LocalEnd: TypeAlias = tuple[str, int]


class Claim(NamedTuple):
    """A 5-tuple. `source`: this host's address in it; None where the kernel has not told which it would take."""

    source: str | None
    port: int
    peer: Endpoint


class LocalPorts:
    """Safe to share between threads and event loops. `shared` is the process's own."""

    def __init__(self) -> None:
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self.lock = threading.RLock()
        self.listeners: dict[LocalEnd, Any] = {}  # `listener.Listener`s
        self.doubted: weakref.WeakSet[Any] = weakref.WeakSet()  # strangers, for a moment
        self.looking: weakref.WeakSet[Any] = weakref.WeakSet()  # `early_syn.EarlySynWatch`es
        self._sources: defaultdict[tuple[int, Endpoint], list[str | None]] = defaultdict(list)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def claim(self, local: LocalEnd, peer: Endpoint, source: str | None) -> Claim:
        """Keep the 5-tuple for the caller, until `release`.

        `source`: the address that the kernel takes towards the peer, where `local` is any; None where nobody knows.

        Raises:
            LocalEndpointError: somebody in this process has it.
        """
        own = _bare(source if local[0] == ANY[peer.family] else local[0])
        with self.lock:
            others = self._sources.get((local[1], peer), ())
            if any(None in (own, other) or own == other for other in others):
                raise LocalEndpointError(
                    f"this program is already connecting from port {local[1]} to {peer}: one local port can have one "
                    f"stream to each endpoint; await the first, or use another local port"
                )
            self._sources[local[1], peer].append(own)
        return Claim(own, local[1], peer)

    def release(self, claim: Claim) -> None:
        """Let others have it."""
        with self.lock:
            sources = self._sources.get((claim.port, claim.peer), [])
            if claim.source in sources:  # not in a forked child
                sources.remove(claim.source)
            if not sources:
                self._sources.pop((claim.port, claim.peer), None)

    def keep_from_children(self, sock: socket.socket) -> None:
        """See to it that a forked child closes its duplicate."""
        with self.lock:
            self._sockets.add(sock)

    def give_to_children(self, sock: socket.socket) -> None:
        """It is somebody else's now."""
        with self.lock:
            self._sockets.discard(sock)

    def _begin_in_child(self) -> None:
        for sock in list(self._sockets):
            if sock.fileno() >= 0:
                os.close(sock.detach())  # `close` would wait for uvloop, which counts whom it watches
        self._begin()


def _bare(address: str | None) -> str | None:
    """Without the scope, which has several spellings, and a link-local address only one."""
    return None if address is None else address.partition("%")[0]


_all: weakref.WeakSet[LocalPorts] = weakref.WeakSet()


def _begin_all_in_child() -> None:
    for each in list(_all):
        each._begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all_in_child)

shared = LocalPorts()
"""The process's registry."""
