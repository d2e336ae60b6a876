"""Sockets whose end is a message: a forked child closes its duplicates, or nobody would ever hear of the end.

A lab ends when its owner's socket does, and the fork server too. A child that the owner has forked, of multiprocessing
say, knows nothing of either, and would keep both alive.
"""

from __future__ import annotations

import os
import socket
import weakref

_kept: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def keep_from_children(sock: socket.socket) -> socket.socket:
    """The socket, of which a forked child will close its duplicate."""
    _kept.add(sock)
    return sock


def _close_in_child() -> None:
    for sock in list(_kept):
        if sock.fileno() >= 0:
            os.close(sock.detach())


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_close_in_child)
