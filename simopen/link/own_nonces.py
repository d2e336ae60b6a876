"""Which nonces this program has sent, on which streams: it is not to prove a key to itself. One registry a process.

Theory of operation. Two calls at once with one bare key, each for a peer of its own: an attacker who knows nothing
connects a socket of the one with a socket of the other, and both would prove the key. Each of them would take this
program for its peer. So a nonce that comes is refused where a call of this program has sent it.

But two calls may name each other, as a program does that tries this out on one host. Then nobody is in between: the two
sockets are the two ends of one stream, and each has for its own end what the other has for the peer's. Only the kernel
can make that so.

Calls are made in several threads. A forked child begins with nothing: its parent's calls are not its own.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import defaultdict
from typing import TypeAlias

from simopen.model.endpoint import Endpoint

Ends: TypeAlias = tuple[Endpoint, Endpoint]
"""A stream's on this side: its own, and the peer's."""


class OwnNonces:
    """Safe to share between threads and event loops. `shared` is the process's own."""

    def __init__(self) -> None:
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._streams: defaultdict[bytes, set[Ends]] = defaultdict(set)

    def sends(self, nonce: bytes, ends: Ends | None) -> None:
        """This is about to be sent on that stream; None where it is gone already."""
        with self._lock:
            self._streams[nonce].update(() if ends is None else (ends,))

    def has_closed(self, nonce: bytes, ends: Ends | None) -> None:
        """On that stream no nonce can come any more."""
        with self._lock:
            if ends is not None and nonce in self._streams:
                self._streams[nonce].discard(ends)

    def forget(self, nonce: bytes) -> None:
        """Its call is over."""
        with self._lock:
            self._streams.pop(nonce, None)

    def is_own(self, nonce: bytes, ends: Ends | None) -> bool:
        """Whether what has come on this stream is a call's of this program, and not through the stream's other end."""
        with self._lock:
            streams = self._streams.get(nonce)
            return streams is not None and (ends is None or ends[::-1] not in streams)


_all: weakref.WeakSet[OwnNonces] = weakref.WeakSet()
shared = OwnNonces()


def _begin_in_child() -> None:
    for each in list(_all):
        each._begin()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_begin_in_child)
