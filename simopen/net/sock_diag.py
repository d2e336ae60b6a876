"""The kernel's own connection table: which sockets there are, in which state.

Linux only: elsewhere nothing is known. `state` asks for one 5-tuple (sock_diag(7)), while an event loop waits; it
serves to say what holds a 5-tuple that `connect` could not have. `listens` reads all of /proc/net/tcp and
/proc/net/tcp6 (proc(5)), which takes some ms where there are many sockets.
"""

from __future__ import annotations

import socket
import struct
import sys

from simopen.model.endpoint import ANY, Endpoint
from simopen.net.routes import source_address
from simopen.net.sockets import sockaddr

# include/net/tcp_states.h
STATES = {
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
# A row has a hex digit for every four bits of the remote address: none yet where something listens.
_LISTENERS = (("/proc/net/tcp", 8), ("/proc/net/tcp6", 32))

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h: nlmsghdr, inet_diag_req_v2 up to the ports, and the rest of it.
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST = 4, 20, 1
_HEADER, _REQUEST, _PORTS, _INTERFACE = (struct.Struct(each) for each in ("=IHHII", "=BBxxI", "!HH", "=I"))
_ALL_STATES, _NO_COOKIE = 0xFFFFFFFF, b"\xff" * 8
_ANSWER_BYTES = 4096


def state(local: tuple[str, int], remote: Endpoint) -> str | None:
    """The state of the socket that has this 5-tuple; None where none has, or the kernel does not tell.

    `local` may be the wildcard address: then it is the one that the kernel would take to get to `remote`.
    """
    if sys.platform != "linux":
        return None
    try:
        source = source_address(remote, None) if local[0] == ANY[remote.family] else local[0]
        if source is None:
            return None
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as kernel:
            kernel.send(_question(Endpoint(source, local[1]), remote))
            answer = kernel.recv(_ANSWER_BYTES, socket.MSG_DONTWAIT)  # it answered before `send` returned
    except OSError:  # a sandbox forbids it; no descriptor is left
        return None
    return _state_told(answer)


def _question(local: Endpoint, remote: Endpoint) -> bytes:
    family, (_, _, *scope) = remote.family, sockaddr(remote)
    asked = _REQUEST.pack(family, socket.IPPROTO_TCP, _ALL_STATES) + _PORTS.pack(local.port, remote.port)
    for end in (local, remote):
        asked += socket.inet_pton(family, end.address.partition("%")[0]).ljust(16, b"\0")
    asked += _INTERFACE.pack(scope[1] if scope else 0) + _NO_COOKIE
    return _HEADER.pack(_HEADER.size + len(asked), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0) + asked


def _state_told(answer: bytes) -> str | None:
    """From an inet_diag_msg, whose second byte it is; anything else is an error: there is no such socket."""
    if _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    number = answer[_HEADER.size + 1]
    # Where nothing has the 5-tuple, the kernel names what listens on its local port.
    return None if STATES.get(number) == "LISTEN" else STATES.get(number, f"{number:02X}")


def listens(port: int) -> bool:
    """Whether a TCP socket of this network namespace listens on that port, on whichever address."""
    return any(f":{port:04X} {'0' * digits}:0000 0A" in _text(table) for table, digits in _LISTENERS)


def _text(table: str) -> str:
    try:
        with open(table, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
