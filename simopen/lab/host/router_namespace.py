"""A host behind a real router: two network namespaces, a veth pair between them.

Theory of operation. The router is made as a host is, with the public address, and its link's far end is the lab's.
From inside it, the host's own namespace is made and joined to it. Both ends of that veth have one MAC: without ARP,
Linux sends to the MAC of its own interface. Everything dies with the namespaces; connection tracking is per namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from pyroute2 import IPRoute

from simopen.lab.host.links import Link
from simopen.lab.host.namespaces import inside, join, make_host, make_joined_host
from simopen.lab.net.conditions import Addresses
from simopen.lab.net.linux_router import LinuxRouter, inside_of, outside_of, ruleset

_SBIN = ("/usr/sbin", "/sbin")  # where nft is, and an ordinary user's PATH often does not lead
_NFT_TIMEOUT_S = 10
_FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


class NoRouter(Exception):  # noqa: N818 - says what it is
    """This machine cannot be a router, and why."""


def make_host_behind(router: LinuxRouter, number: int, addresses: Addresses, *, tun: bool) -> tuple[int, int, Link]:
    """Make a host and its router. Returns the descriptors of both namespaces, and the far end of the router's link.

    Raises: NoRouter; OSError; pyroute2's NetlinkError.
    """
    nft = find_nft(os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN)))
    gateway, link = make_host(number, outside_of(addresses), tun=tun)
    try:
        with inside(gateway):
            _load(nft, ruleset(router))
            host = _make_inner_host(number, addresses)
            for switch in _FORWARDING:
                Path("/proc/sys/net", switch).write_text("1")
    except BaseException:
        os.close(gateway)
        link.close()
        raise
    return host, gateway, link


def make_host_beside(gateway: int, number: int, addresses: Addresses) -> int:
    """Make a further host behind the router of that namespace. Returns the host's. Raises: as above."""
    with inside(gateway):
        return _make_inner_host(number, addresses)


def _make_inner_host(number: int, addresses: Addresses) -> int:
    lan = f"lan{number}"
    host = make_joined_host(number, addresses, lan, inside_of(addresses))
    try:
        with IPRoute() as netlink:
            join(netlink, lan, addresses, inside_of(addresses))
    except BaseException:
        os.close(host)
        raise
    return host


def find_nft(path: str) -> str:
    """Where nft is, along a search path. Raises: NoRouter, with what to install."""
    found = shutil.which("nft", path=path)
    if found is None:
        raise NoRouter("a LinuxRouter needs the program nft: install nftables (Debian: apt-get install nftables)")
    return found


def _load(nft: str, script: str) -> None:
    command = [nft, "-f", "-"]
    loaded = subprocess.run(command, input=script.encode(), capture_output=True, timeout=_NFT_TIMEOUT_S, check=False)
    if loaded.returncode:
        raise NoRouter(f"nft refused the router's rules: {loaded.stderr.decode(errors='replace').strip()}")
