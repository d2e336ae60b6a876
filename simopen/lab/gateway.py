"""A host behind a real router: two network namespaces, a veth pair between them.

Theory of operation. The router is made as a host is, with the public address, and its link's far end is the lab's.
From inside it, the host's own namespace is made and joined to it. Both ends of that veth have one MAC: without ARP,
Linux sends to the MAC of its own interface. Everything dies with the namespaces; connection tracking is per namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from pyroute2 import IPRoute

from simopen.lab.conditions import Addresses
from simopen.lab.links import Link
from simopen.lab.namespaces import inside, join, make_host, make_joined_host
from simopen.lab.router import LAN, LinuxRouter, ruleset

_SBIN = "/usr/sbin:/sbin"  # where nft is, and an ordinary user's PATH often does not lead
_NFT_TIMEOUT_S = 10
_FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


class NoRouter(Exception):  # noqa: N818 - says what it is
    """This machine cannot be a router, and why."""


def make_host_behind(router: LinuxRouter, number: int, addresses: Addresses, *, tun: bool) -> tuple[int, int, Link]:
    """Make a host and its router. Returns the descriptors of both namespaces, and the far end of the router's link.

    Raises: NoRouter; OSError; pyroute2's NetlinkError.
    """
    nft = _find_nft()
    gateway, link = make_host(number, outer_addresses(addresses), tun=tun)
    try:
        with inside(gateway):
            _load(nft, ruleset(router))
            host = _make_inner_host(number, addresses)
    except BaseException:
        os.close(gateway)
        link.close()
        raise
    return host, gateway, link


def outer_addresses(addresses: Addresses) -> Addresses:
    """The router's own addresses towards the core, for those of the host behind it."""
    own6 = addresses.private6.removesuffix("2") + "1"
    return replace(addresses, private=addresses.public, private6=own6)


def _make_inner_host(number: int, addresses: Addresses) -> int:
    host = make_joined_host(number, addresses, LAN)
    try:
        with IPRoute() as netlink:
            join(netlink, LAN, addresses)
        for switch in _FORWARDING:  # last, since it turns the sending of redirects and solicitations as well
            Path("/proc/sys/net", switch).write_text("1")
    except BaseException:
        os.close(host)
        raise
    return host


def _find_nft() -> str:
    found = shutil.which("nft", path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")
    if found is None:
        raise NoRouter(
            "a LinuxRouter needs the program nft: install nftables (Debian, Ubuntu: apt-get install nftables)"
        )
    return found


def _load(nft: str, script: str) -> None:
    command = [nft, "-f", "-"]
    loaded = subprocess.run(command, input=script.encode(), capture_output=True, timeout=_NFT_TIMEOUT_S, check=False)
    if loaded.returncode:
        raise NoRouter(f"nft refused the router's rules: {loaded.stderr.decode(errors='replace').strip()}")
