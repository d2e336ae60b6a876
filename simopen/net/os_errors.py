"""What an OSError means, for people: the kernel's own words, or better ones where more is known than it says."""

from __future__ import annotations

import errno
import os
import socket

from simopen.errors import LocalEndpointError
from simopen.model.endpoint import Endpoint

_OF_A_LOCAL_ENDPOINT = {
    errno.EADDRINUSE: "another program has it and does not share it; end that program or choose another port",
    errno.EADDRNOTAVAIL: "that address is not this host's; leave it out to use any",
    errno.EACCES: "not permitted: ports below 1024 usually need privileges; choose a higher one",
    errno.EPERM: "not permitted on this host",
    errno.EAFNOSUPPORT: "this host does not speak that address family",
    errno.EMFILE: "this process has no file descriptors left; raise its limit (ulimit -n)",
    errno.ENFILE: "this host has no file descriptors left",
}
# Where the kernel chooses the port: `bind`'s word, and those of a connect that binds by itself.
_EXHAUSTED = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EAGAIN}
_NO_PORT_LEFT = (
    "every port that the kernel gives out is taken (sysctl net.ipv4.ip_local_port_range); end what takes them"
)
_OF_A_CONNECTION = {
    errno.ECONNREFUSED: "it refused the connection",
    errno.ECONNRESET: "it reset the connection",
    errno.ENETUNREACH: "there is no route to it",
    errno.ETIMEDOUT: "it has not answered",
    errno.EADDRNOTAVAIL: "this port has a connection to it already, or had one in the last minute (TIME_WAIT)",
}


def reason(error: BaseException) -> str:
    """The system's own words without the number, or all that the error says where there are none."""
    return getattr(error, "strerror", None) or str(error)


def of_a_stream(error: OSError) -> OSError:
    """The error; in the place of ENOTCONN, which shutting down a stream meets that was reset meanwhile, ECONNRESET."""
    if error.errno == errno.ENOTCONN:
        return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    return error


def local_error(error: OSError, local: tuple[str, int]) -> LocalEndpointError:
    """What the kernel means by refusing a socket for `local`, and what to do. It has the same `errno`."""
    number = error.errno or 0
    said = _OF_A_LOCAL_ENDPOINT.get(number) or (os.strerror(number) if number > 0 else reason(error))
    if number in _EXHAUSTED and not local[1] and not (number == errno.EADDRNOTAVAIL and _is_elsewhere(local[0])):
        said = _NO_PORT_LEFT
    refused = LocalEndpointError(f"cannot use {Endpoint(*local)} on this host: {said}")
    refused.errno = error.errno
    return refused


def _is_elsewhere(address: str) -> bool:
    """Whether it is not this host's: what the kernel says of a socket that needs no port of TCP's."""
    try:
        with socket.socket(Endpoint(address, 0).family, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except (OSError, ValueError) as error:
        return isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL
    return False


def connection_reason(error: OSError) -> str:
    """Why a connection to a server is of no use, said of the server."""
    number = 0 if isinstance(error, socket.gaierror) else error.errno or 0  # whose numbers are others, some positive
    return _OF_A_CONNECTION.get(number) or (os.strerror(number) if number > 0 else reason(error))
