"""The local port that everything leaves from, held on both address families, and this host's addresses with it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeAlias

from simopen.errors import LocalEndpointError
from simopen.model.endpoint import ANY, Endpoint, Reach, canonical, reach
from simopen.net.os_errors import reason
from simopen.net.sockets import open_socket

Adapters: TypeAlias = Callable[[], Iterable[Any]]


class PunchPort:
    """One port number, held on both address families while questions leave from it, so that it is given to nobody.

    `address` None: any of this host's; `port` 0: one that is free, known once entered. `adapters`: who knows this
    host's addresses; left out, the kernel. `untold`: why it does not tell them; None where it does. `refused`: why it
    was not to be had on an address family.

    Raises (on entering): LocalEndpointError where neither family can have it.
    """

    def __init__(self, address: str | None, port: int, adapters: Adapters | None = None) -> None:
        self.address, self.port = address, port
        self._adapters = adapters
        self.untold: str | None = None
        self.refused: dict[socket.AddressFamily, LocalEndpointError] = {}
        self._held: dict[socket.AddressFamily, socket.socket] = {}

    def __enter__(self) -> Self:
        for family in ANY if self.address is None else (Endpoint(self.address, 1).family,):
            try:
                self._hold(family)
            except LocalEndpointError as error:
                self.refused[family] = error
        if not self._held:
            raise next(iter(self.refused.values()))
        return self

    def _hold(self, family: socket.AddressFamily) -> None:
        held = self._held[family] = open_socket(self.local(family), family)
        self.port = self.port or held.getsockname()[1]

    def __exit__(self, *_: object) -> None:
        for sock in self._held.values():
            sock.close()

    def speaks(self, family: socket.AddressFamily) -> bool:
        """Whether it was to be had on this address family."""
        return family in self._held

    def local(self, family: socket.AddressFamily) -> tuple[str, int]:
        """What to bind a socket to that is to leave from it."""
        return (self.address or ANY[family], self.port)

    def elsewhere(self, family: socket.AddressFamily) -> tuple[str, int]:
        """The same address and any other port."""
        return (self.address or ANY[family], 0)

    def hosts(self, sources: Iterable[str]) -> tuple[Endpoint, ...]:
        """The port on each of this host's own addresses, `sources` first: those that were used to get out."""
        addresses: Iterable[str]
        if self.address is None or self.address in ANY.values():
            addresses = (*sources, *self._interface_addresses())
        else:
            addresses = (self.address,)
        ends = (Endpoint(canonical(each), self.port) for each in addresses)
        return tuple(dict.fromkeys(end for end in ends if self.speaks(end.family)))

    def _interface_addresses(self) -> list[str]:
        """Without loopback's and the links' own: no peer elsewhere could use those."""
        import ifaddr

        try:
            known = [ip.ip for each in (self._adapters or ifaddr.get_adapters)() for ip in each.ips]
        except (OSError, ValueError) as error:  # a container, or Android, refuses netlink; a name that is no UTF-8
            self.untold = f"this host's further addresses are left out: the kernel does not tell them ({reason(error)})"
            return []
        found = (ip if isinstance(ip, str) else ip[0] for ip in known)
        return [text for text in found if reach(text) >= Reach.SITE]
