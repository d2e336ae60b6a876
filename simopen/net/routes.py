"""Which way this host would take to another, and which addresses are its own: the kernel is asked, nothing is sent."""

from __future__ import annotations

import contextlib
import errno
import socket

from simopen.errors import LocalEndpointError
from simopen.model.endpoint import ANY, Endpoint, Reach, is_single, normalise, reach
from simopen.net.os_errors import local_error
from simopen.net.sockets import MakeSocket, sockaddr

_SHORT = {errno.EADDRINUSE, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}  # these say nothing of routes
NO_WAY = "this host has no route to it"


def source_address(peer: Endpoint, local: str | None, *, make: MakeSocket | None = None) -> str | None:
    """The address that this host would reach `peer` from; None where it has no route. Sends nothing.

    `make`: what makes the socket to ask with; left out, the kernel.

    Raises:
        LocalEndpointError: nothing can be had to ask with: a descriptor, memory, a port that the kernel gives out.
    """
    asked_from = (local or ANY[peer.family], 0)
    try:
        probe = (make or socket.socket)(peer.family, socket.SOCK_DGRAM, 0)
    except OSError as error:
        raise local_error(error, asked_from) from error
    with probe:
        try:
            if local is not None:
                probe.bind(sockaddr(Endpoint(local, 0)))
            probe.connect(sockaddr(peer))
            return normalise(probe.getsockname()).address
        except OSError as error:
            if error.errno in _SHORT:
                raise local_error(error, asked_from) from error
    return None


# Of reserved blocks (RFC 1112 §4, RFC 6666): where these can be bound, any can.
_NOBODYS = {socket.AF_INET: "240.0.0.1", socket.AF_INET6: "100::1"}


def is_own(address: str) -> bool:
    """Whether an address is this host's: any of 127.0.0.0/8, and an interface's second one, too.

    Binding tells, but for what is no single host's. It does not where ip_nonlocal_bind lets programs have any address,
    nor in a network namespace that has none at all, where Linux lets them, too: then only the route tells, and of an
    interface's addresses the first.
    """
    if not is_single(address):
        return False
    if not _binds(_NOBODYS[Endpoint(address, 1).family]):
        return _binds(address)
    with contextlib.suppress(LocalEndpointError):
        return reach(address) is Reach.HOST or source_address(Endpoint(address, 1), None) == address
    return False


def _binds(address: str) -> bool:
    endpoint = Endpoint(address, 0)
    with contextlib.suppress(OSError), socket.socket(endpoint.family, socket.SOCK_DGRAM) as probe:
        probe.bind(sockaddr(endpoint))
        probe.connect(probe.getsockname())  # refused for a network's broadcast address, which can be bound to, too
        return True
    return False
