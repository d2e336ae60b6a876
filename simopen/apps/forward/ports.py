"""Ports of this host that are listened on."""

from __future__ import annotations

import errno
import socket

from simopen.apps.forward.targets import named
from simopen.errors import LocalEndpointError, ResolutionError
from simopen.net.os_errors import local_error
from simopen.net.resolve import resolve

# An address of a name that this host speaks not, or not now: `localhost` has ::1 where IPv6 is switched off, too.
_NOT_HERE = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


async def listening(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on that port, one for each address of a name that is this host's.

    Raises: LocalEndpointError where there is none, or one cannot be had.
    """
    try:
        endpoints = await resolve([(host, port)])
    except (ResolutionError, ValueError) as error:
        raise LocalEndpointError(f"cannot use {named(host, port)} on this host: {error}") from error
    kept, refused = list[socket.socket](), None
    for endpoint in endpoints:
        try:
            kept.append(socket.create_server(endpoint, family=endpoint.family))
        except OSError as error:
            refused = error
            if error.errno not in _NOT_HERE:
                break
    if refused is not None and (refused.errno not in _NOT_HERE or not kept):
        for sock in kept:
            sock.close()
        raise local_error(refused, (host, port)) from refused
    return kept
