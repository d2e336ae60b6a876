"""Names to endpoints, by the system's resolver, in a thread that nobody has to wait for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from simopen.errors import ResolutionError
from simopen.model.endpoint import ANY, Endpoint, checked_name, literal, normalise
from simopen.model.wording import FEW, listed, quoted
from simopen.net.aside import in_thread
from simopen.net.os_errors import reason

MOST_ADDRESSES = 8
"""Of a name, in each address family. A host has one or two; who has more is no peer, but a service's name."""


class Resolved(NamedTuple):
    """Endpoints to try, and a sentence on each name that has more of them than are tried."""

    endpoints: tuple[Endpoint, ...]
    notes: tuple[str, ...] = ()


async def resolve(pairs: Sequence[tuple[str, int]]) -> tuple[Endpoint, ...]:
    """The endpoints of `resolved`."""
    return (await resolved(pairs)).endpoints


Ask: TypeAlias = "Callable[..., list[Any]]"
"""What looks a name up, as `socket.getaddrinfo` does."""


async def resolved(pairs: Sequence[tuple[str, int]], *, ask: Ask = socket.getaddrinfo) -> Resolved:
    """Every distinct endpoint of `pairs` in the order given; a name brings its IPv6 and IPv4 addresses, eight of each.

    Raises:
        ResolutionError: a name has no address.
    """
    found = await asyncio.gather(*(_resolve_one(host, port, ask) for host, port in pairs))
    endpoints = tuple(dict.fromkeys(endpoint for each in found for endpoint in each.endpoints))
    return Resolved(endpoints, tuple(dict.fromkeys(note for each in found for note in each.notes)))


async def _resolve_one(host: str, port: int, ask: Ask) -> Resolved:
    if (address := literal(host)) is not None:
        return Resolved((Endpoint(address, port),))
    try:
        found = await look_up(checked_name(host), port, socket.SOCK_STREAM, ask=ask)
    except (OSError, UnicodeError, RuntimeError) as error:  # RuntimeError: no thread can be had
        raise ResolutionError(f"the name {quoted(host)} {_unresolved(error)}, or give an IP address") from error
    endpoints = dict.fromkeys(normalise(address) for family, *_, address in found if family in ANY)
    # The two sides may each choose between streams (see nomination.py): the same order on both avoids a quarrel.
    families = ([each for each in endpoints if each.family == family] for family in (socket.AF_INET6, socket.AF_INET))
    kept = tuple(endpoint for those in families for endpoint in those[:MOST_ADDRESSES])
    if len(kept) == len(endpoints):
        return Resolved(kept)
    told = listed(kept, ", ", FEW)
    note = f"the name {quoted(host)} has {len(endpoints)} addresses, of which {len(kept)} are tried: {told}"
    return Resolved(kept, (note,))


def _unresolved(error: Exception) -> str:
    """What is known of a name, by what its look-up met, and what to do."""
    if isinstance(error, UnicodeError):
        return f"has no address, as no host can be named so ({error}); check its spelling"
    if isinstance(error, socket.gaierror) and error.errno in _NO_ADDRESS:
        return f"has no address ({error.strerror}); check its spelling"
    return f"could not be looked up ({reason(error)}); is the network up? Try again"


_NO_ADDRESS = {getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)}
"""The name servers' own word, rather than theirs that they cannot tell now, or nobody's."""


async def look_up(host: str, port: int, kind: socket.SocketKind, *, ask: Ask = socket.getaddrinfo) -> list[Any]:
    """What `socket.getaddrinfo` answers; and when cancelled, this lets go at once.

    The loop's own does not: where name servers are silent, its thread stays for 10 s and more (resolv.conf(5): 5 s,
    twice, for each server), and neither the loop nor the program ends before it does.

    Raises: what `socket.getaddrinfo` does.
    """
    return await in_thread("simopen-resolver", ask, host, port, type=kind)
