"""Which of the STUN servers that a rendezvous recommends are asked."""

from __future__ import annotations

from urllib.parse import urlsplit

from simopen import _logs
from simopen.model.endpoint import Reach, literal, reach
from simopen.model.server import Server

logger = _logs.logger("meeting")

MOST_SERVERS = 4
"""STUN servers that are taken from a rendezvous's word."""


def recommended(servers: tuple[Server, ...], via: object) -> tuple[str, ...]:
    """Of the servers that a rendezvous recommends, those that are not nearer to this host than it is itself.

    A name could lead anywhere: only the rendezvous's own is taken, as this host has gone there already.
    """
    host = urlsplit(via).hostname or "" if isinstance(via, str) else ""
    nearest = _reach(host)
    kept = [each for each in servers if each.host.lower() == host or _reach(each.host, Reach.NOBODY) >= nearest]
    if len(kept) < len(servers):
        logger.warning("the rendezvous recommends STUN servers by name, or of this host's own network: left out")
    return tuple(f"[{each.host}]:{each.port}" if ":" in each.host else f"{each.host}:{each.port}" for each in kept)[
        :MOST_SERVERS
    ]


def _reach(host: str, of_a_name: Reach = Reach.GLOBAL) -> Reach:
    try:
        address = literal(host)
    except ValueError:
        return Reach.NOBODY
    if host in {"localhost", "ip6-localhost"}:
        return Reach.HOST
    return of_a_name if address is None else reach(address)
