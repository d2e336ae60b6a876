"""All of the kernel's connection table, as /proc/net/tcp and /proc/net/tcp6 have it (proc(5)), for tests to look at.

The kernel writes it piece by piece, and begins a bucket of its hash table again where the reader's buffer was full or
the bucket has changed meanwhile: one socket may have several rows. Here it has one, the last.
"""

from __future__ import annotations

import functools
import socket
import sys
from collections.abc import Iterable
from typing import NamedTuple

from simopen.model.endpoint import Endpoint, canonical
from simopen.net import sock_diag

TABLES = {socket.AF_INET: "/proc/net/tcp", socket.AF_INET6: "/proc/net/tcp6"}


class Connection(NamedTuple):
    """One row: the two (address, port) pairs and the state in RFC 9293's words. A listener's remote port is 0."""

    local: Endpoint
    remote: Endpoint
    state: str


def connections(family: socket.AddressFamily) -> list[Connection]:
    """Every TCP socket of this network namespace in one address family, once each."""
    try:
        with open(TABLES[family], encoding="ascii") as table:
            rows = table.readlines()[1:]
    except (OSError, KeyError):
        return []
    return sockets(rows, family)


def sockets(rows: Iterable[str], family: socket.AddressFamily) -> list[Connection]:
    """What these rows are of: a socket is known by its two ends and its inode, as listeners may share their ends."""
    found: dict[tuple[str, str, str], Connection] = {}
    for row in rows:
        _, local, remote, state, _, _, _, _, _, inode, *_ = row.split()
        ends = _endpoint(local, family), _endpoint(remote, family)
        found[local, remote, inode] = Connection(*ends, sock_diag.STATES.get(int(state, 16), state))
    return list(found.values())


def _endpoint(text: str, family: socket.AddressFamily) -> Endpoint:
    """`0100007F:138A`: the address as 32-bit words of the host's byte order, the port as a number."""
    words, port = text.split(":")
    return Endpoint(_address(words, family), int(port, 16))


@functools.cache  # while tests run the table has thousands of rows, of some few addresses
def _address(words: str, family: socket.AddressFamily) -> str:
    raw = b"".join(int(words[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(words), 8))
    return canonical(socket.inet_ntop(family, raw))
