"""Endpoints: value types, parsing, and which of them can meet.

Theory of operation: an endpoint is an IP literal and a port, nothing else; names are resolved at the edge
(`resolve`) and never reach the modules that fire. Everything here but `resolve` is pure.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeGuard

from simopen.errors import ResolutionError

Peer: TypeAlias = "tuple[str, int] | Sequence[tuple[str, int]]"
Local: TypeAlias = "int | tuple[str, int] | None"

ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


class Endpoint(NamedTuple):
    """A transport address: an IP literal (an IPv6 one may carry a scope, `fe80::1%eth0`) and a port 1..65535."""

    address: str
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def check_port(port: object, what: str) -> int:
    """Return `port` where it is an int in 1..65535.

    Raises:
        TypeError: not an int.
        ValueError: out of range. Port 0 would let the kernel pick one, which the other side could not know.
    """
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"{what} must be an int, not {type(port).__name__}")
    if not 1 <= port <= 65535:
        raise ValueError(f"{what} must lie between 1 and 65535, not {port}")
    return port


def is_literal(host: str) -> bool:
    """Whether `host` is an IP address written out, with or without an IPv6 scope."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def peer_endpoints(peer: Peer) -> tuple[tuple[str, int], ...]:
    """One (host, port) pair or a sequence of them, as a tuple of pairs; hosts may still be names.

    Raises:
        TypeError: neither a pair nor a sequence of pairs.
        ValueError: no endpoint at all, an empty host, a port out of range.
    """
    given: object = [peer] if _is_pair(peer) else peer
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(map(_is_pair, given)):
        raise TypeError(f"peer must be (host, port), or a sequence of such pairs, not {peer!r}")
    if not given:
        raise ValueError("peer names no endpoint")
    pairs = tuple((str(host), check_port(port, "the peer's port")) for host, port in given)
    if not all(host for host, _ in pairs):
        raise ValueError("the peer's host is empty")
    return pairs


def _is_pair(value: object) -> TypeGuard[tuple[str, int]]:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)


def local_endpoint(local: Local, default_port: int) -> tuple[str | None, int]:
    """The local (address or None for any, port). Left out, the port is the peer's port number.

    Raises:
        TypeError, ValueError: not a port or an (IP literal, port) pair.
    """
    address, port = local if isinstance(local, tuple) else (None, default_port if local is None else local)
    if address is not None and not is_literal(address):
        raise ValueError(f"the local address must be an IP address of this host, not {address!r}")
    return address, check_port(port, "the local port")


def server_name(server: str | tuple[str, int], default_port: int, what: str) -> tuple[str, int]:
    """(host, port) of a server named as "host", "host:port", "v6", "[v6]:port" or (host, port). `what` it is: "a ...".

    Raises:
        TypeError: a host that is no string.
        ValueError: no resolver could look it up, or a port out of range.
    """
    host, port = _split(server, default_port, what) if isinstance(server, str) else server
    if not isinstance(host, str):
        raise TypeError(f"not the name of {what}: {host!r}")
    host = host.strip().removesuffix(".").lower()
    if not host or not host.isprintable() or re.search(r"[\s/@\[\]]", host):
        raise ValueError(f"not {what}: {server!r}")
    if ":" not in host:
        host.encode("idna")  # raises UnicodeError, a ValueError, where no resolver could look it up
    if not 0 < int(port) < 65_536:
        raise ValueError(f"not a port: {port} (in {server!r})")
    return host, int(port)


def _split(server: str, default_port: int, what: str) -> tuple[str, int]:
    if match := re.fullmatch(r"\[(.+)\](?::(\d+))?|([^:]*)(?::(\d+))?", server):
        return match[1] or match[3], int(match[2] or match[4] or default_port)
    try:
        return str(ipaddress.IPv6Address(server)), default_port
    except ValueError:
        raise ValueError(f"not {what}: {server!r}") from None


def normalise(sockaddr: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    """An endpoint from what `accept` or `getpeername` gave, IPv6 flow label dropped and scope kept as number."""
    bare = sockaddr[0].partition("%")[0]
    scope = sockaddr[3] if len(sockaddr) == 4 else 0
    return Endpoint(f"{bare}%{scope}" if scope else bare, sockaddr[1])


def sockaddr(endpoint: Endpoint) -> tuple[str, int] | tuple[str, int, int, int]:
    """What the socket calls want for an endpoint: a pair, or IPv6's four."""
    if endpoint.family == socket.AF_INET:
        return (endpoint.address, endpoint.port)
    address, _, scope = endpoint.address.partition("%")
    return (address, endpoint.port, 0, _scope_id(scope))


def _scope_id(scope: str) -> int:
    if not scope or scope.isdigit():
        return int(scope or 0)
    try:
        return socket.if_nametoindex(scope)
    except OSError as error:
        raise ResolutionError(f"this host has no interface named {scope!r}") from error


def canonical(address: str) -> str:
    """One spelling for each IP address (`2001:DB8::0:1` is `2001:db8::1`), with a named scope as its number."""
    bare, _, scope = address.partition("%")
    text = str(ipaddress.ip_address(bare))
    return f"{text}%{_scope_id(scope)}" if scope else text


async def resolve(pairs: Sequence[tuple[str, int]]) -> tuple[Endpoint, ...]:
    """Every distinct endpoint of `pairs` in the order given; a name brings all its IPv6 and IPv4 addresses.

    Raises:
        ResolutionError: a name has no address.
    """
    found = await asyncio.gather(*(_resolve_one(host, port) for host, port in pairs))
    return tuple(dict.fromkeys(endpoint for endpoints in found for endpoint in endpoints))


async def _resolve_one(host: str, port: int) -> list[Endpoint]:
    if is_literal(host):
        return [Endpoint(canonical(host), port)]
    try:
        found = await look_up(host, port, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else error
        raise ResolutionError(
            f"the name {host!r} has no address ({reason}); check its spelling, or give an IP address"
        ) from error
    endpoints = [normalise(address) for family, *_, address in found if family in ANY]
    # The two sides may each choose between streams (see connector.py): the same order on both avoids a quarrel.
    return sorted(endpoints, key=lambda endpoint: endpoint.family != socket.AF_INET6)


async def look_up(
    host: str, port: int, kind: socket.SocketKind, *, ask: Callable[..., list[Any]] = socket.getaddrinfo
) -> list[Any]:
    """What `socket.getaddrinfo` answers; and when cancelled, this lets go at once.

    The loop's own does not: where name servers are silent, its thread stays for 10 s and more (resolv.conf(5): 5 s,
    twice, for each server), and neither the loop nor the program ends before it does.

    Raises: what `socket.getaddrinfo` does.
    """
    answer: concurrent.futures.Future[list[Any]] = concurrent.futures.Future()

    def wait_for_it() -> None:
        try:
            answer.set_result(ask(host, port, type=kind))
        except Exception as error:
            answer.set_exception(error)

    answer.set_running_or_notify_cancel()
    threading.Thread(target=wait_for_it, name="simopen-resolver", daemon=True).start()
    return await asyncio.wrap_future(answer)
