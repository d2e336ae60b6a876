"""The kernel's own connection table: which sockets there are, in which state.

Linux only, read from /proc/net/tcp and /proc/net/tcp6 (proc(5)); empty elsewhere. It serves to say what holds a
5-tuple that `connect` could not have.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import NamedTuple

from simopen.address import ANY, Endpoint

# include/net/tcp_states.h
_STATES = {
    0x01: "ESTABLISHED",
    0x02: "SYN-SENT",
    0x03: "SYN-RECEIVED",
    0x04: "FIN-WAIT-1",
    0x05: "FIN-WAIT-2",
    0x06: "TIME-WAIT",
    0x07: "CLOSED",
    0x08: "CLOSE-WAIT",
    0x09: "LAST-ACK",
    0x0A: "LISTEN",
    0x0B: "CLOSING",
    0x0C: "SYN-RECEIVED",
}
_TABLES = {socket.AF_INET: "/proc/net/tcp", socket.AF_INET6: "/proc/net/tcp6"}
# A row has a hex digit for every four bits of the remote address: none yet where something listens.
_LISTENERS = (("/proc/net/tcp", 8), ("/proc/net/tcp6", 32))


class Connection(NamedTuple):
    """One row: the two (address, port) pairs and the state in RFC 9293's words. A listener's remote port is 0."""

    local: Endpoint
    remote: Endpoint
    state: str


def connections(family: socket.AddressFamily) -> Iterator[Connection]:
    """Every TCP socket of this network namespace in one address family."""
    try:
        with open(_TABLES[family], encoding="ascii") as table:
            next(table)
            rows = table.readlines()
    except (OSError, KeyError, StopIteration):
        return
    for row in rows:
        local, remote, state = row.split()[1:4]
        yield Connection(_endpoint(local, family), _endpoint(remote, family), _STATES.get(int(state, 16), state))


def _endpoint(text: str, family: socket.AddressFamily) -> Endpoint:
    """`0100007F:138A`: the address as 32-bit words of the host's byte order, the port as a number."""
    words, port = text.split(":")
    raw = b"".join(int(words[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(words), 8))
    return Endpoint(socket.inet_ntop(family, raw), int(port, 16))


def state(local: tuple[str, int], remote: Endpoint) -> str | None:
    """The state of the socket that has this 5-tuple (`local` may be the wildcard address); None where none has."""
    bare = Endpoint(remote.address.partition("%")[0], remote.port)
    for row in connections(remote.family):
        if row.remote == bare and row.local.port == local[1] and local[0] in (row.local.address, ANY[remote.family]):
            return row.state
    return None


def listens(port: int) -> bool:
    """Whether a TCP socket of this network namespace listens on that port, on whichever address."""
    return any(f":{port:04X} {'0' * digits}:0000 0A" in _text(table) for table, digits in _LISTENERS)


def _text(table: str) -> str:
    try:
        with open(table, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
