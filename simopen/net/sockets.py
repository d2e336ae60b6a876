"""What every socket that takes part in a punch is, and what the kernel's refusals mean in words.

- Non-blocking, SO_REUSEADDR and SO_REUSEPORT: one local port, many sockets.
- TCP_NODELAY, set here since asyncio sets it only where it can see that a socket is TCP.
- SO_LINGER (1, 0) while trying, so that a loser leaves no TIME_WAIT behind; cleared on the winner (`keep`).
- Never another local port than the one asked for: the peer fires at this one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import TypeAlias

from simopen import _logs
from simopen.errors import LocalEndpointError, ResolutionError
from simopen.model.endpoint import Endpoint, scope_id
from simopen.model.times import MonoNs
from simopen.model.wording import quoted
from simopen.net import own_flows
from simopen.net.os_errors import local_error
from simopen.net.own_flows import Flows

logger = _logs.logger("net")

_LINGER = "hh" if sys.platform == "win32" else "ii"
_NO_LINGER = struct.pack(_LINGER, 0, 0)
_RESET_ON_CLOSE = struct.pack(_LINGER, 1, 0)
_UNDER_WAY = {errno.EINPROGRESS, errno.EWOULDBLOCK}
_SENT = _UNDER_WAY | {0}


MakeSocket: TypeAlias = Callable[[socket.AddressFamily, socket.SocketKind, int], socket.socket]


def open_socket(
    local: tuple[str, int], family: socket.AddressFamily, *, make: MakeSocket | None = None
) -> socket.socket:
    """A socket that may share `local` with others of ours, bound to it. `make`: what makes it; left out, the kernel.

    Raises:
        LocalEndpointError: the kernel refuses; the message says why and what to do, `errno` which way.
        ResolutionError: this host has no such interface.
    """
    address = sockaddr(Endpoint(*local))
    try:
        # The protocol is named since asyncio sets TCP_NODELAY only where it can see that this is TCP.
        sock = (make or socket.socket)(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise local_error(error, local) from error
    try:
        sock.setblocking(False)
        _share_port(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise local_error(error, local) from error
    return sock


async def connect(sock: socket.socket, endpoint: Endpoint, own: Flows = own_flows.shared) -> MonoNs:
    """Connect it, and wait until it is; returns when the SYN left (CLOCK_MONOTONIC, ns), as it is noted in `own`.

    The SYN leaves with this call, and so in the order of such calls.

    Not by the loop's `sock_connect`: uvloop's first has a thread look up the address, though it is in numbers.

    Raises: OSError.
    """
    at_ns = MonoNs(time.monotonic_ns())
    error = sock.connect_ex(sockaddr(endpoint))
    if error in _SENT:
        own.note_socket(sock, endpoint, at_ns)
    if error in _UNDER_WAY:
        await _writable(sock.fileno())
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))
    return at_ns


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(fd)


def sockaddr(endpoint: Endpoint) -> tuple[str, int] | tuple[str, int, int, int]:
    """What the socket calls want for an endpoint: a pair, or IPv6's four.

    Raises:
        ResolutionError: this host has no such interface.
    """
    if endpoint.family == socket.AF_INET:
        return (endpoint.address, endpoint.port)
    address, _, scope = endpoint.address.partition("%")
    if (number := scope_id(scope)) is None:
        raise ResolutionError(f"this host has no interface named {quoted(scope)}")
    return (address, endpoint.port, 0, number)


def _share_port(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):  # Windows has none: there SO_REUSEADDR shares
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def make_room(descriptors: int) -> None:
    """See to it that this process may open so many more files, as far as it may raise its own limit; that is logged.

    Raises:
        LocalEndpointError: the hard limit is below that.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = descriptors + _open_files()
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise LocalEndpointError(
            f"this takes {needed} open files at once, and this process may have {hard}: raise its limit (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    logger.info("this process may now have %d files open (RLIMIT_NOFILE), not %d: that many are needed", needed, soft)


def _open_files() -> int:
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return 256


def limit_resends(sock: socket.socket, resends: int) -> None:
    """Let the kernel send this socket's SYN again so often, 1 or more, as far as it can be told; then it is given up.

    TCP_SYNCNT would not do: Linux 6.5 adds tcp_syn_linear_timeouts to it. At least 1 s lies between two of them.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, resends * 1000 + 500)


def limit_hops(sock: socket.socket, hops: int) -> None:
    """Let what the socket sends go so many hops, 1 to 255, and no further."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)


def keep(sock: socket.socket) -> None:
    """Make a socket that was tried with into one that is used: closing it no longer throws data away."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def drop(sock: socket.socket) -> None:
    """Undo `keep`: closing it sends a RST and leaves no TIME_WAIT, so that its 5-tuple is free again at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def is_self_connected(sock: socket.socket) -> bool:
    """Whether both ends of this socket are itself."""
    return bool(sock.getsockname() == sock.getpeername())
