"""Hosts as anonymous network namespaces.

Theory of operation. A namespace lives as long as a process is in it or a descriptor holds it; these are named nowhere,
so nothing is left when the last holder is gone, however it went. The lab's process makes each host's namespace by
entering a new one, configures it through netlink from inside, and goes back to its own, where the far ends of veth
pairs lie. Who may not make namespaces makes a user namespace first, and is root there.

Nothing is configured that would send packets by itself: no link-local addresses, so no router solicitations; no ARP,
no duplicate address detection.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from simopen.lab.host.links import INTERFACE, MTU, Link, TunLink, VethLink, turn_offloads_off
from simopen.lab.host.syscalls import CLONE_NEWNET, CLONE_NEWUSER, setns, unshare
from simopen.lab.net.conditions import Addresses

_OWN_NETWORK = "/proc/thread-self/ns/net"
_QUEUE_PACKETS = 10_000  # a burst of a host's waits in its own queue rather than be lost unseen
_IFA_F_NODAD = 0x02
_SCOPE_LINK = 253
_SETTLE_S = 10
_NO_LINK_LOCAL = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", 1]]}]]}


def enter_own_namespaces() -> int | None:
    """Move this process to a network namespace of its own, where needed to a user namespace before.

    Returns the user namespace's descriptor, None where none was needed. Raises: OSError where the kernel, or a rule
    of the system's, refuses.
    """
    try:
        unshare(CLONE_NEWNET)
    except PermissionError:
        _become_root_of_a_user_namespace()
        unshare(CLONE_NEWNET)
        return os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    return None


def make_host(number: int, addresses: Addresses, *, tun: bool) -> tuple[int, Link]:
    """Make a host's namespace with its link. Returns the namespace's descriptor and the link's far end.

    Raises: OSError; pyroute2's NetlinkError.
    """
    far_end, mac = f"host{number}", _mac(number)
    with IPRoute() as outside, _network_namespace() as (host, lab), IPRoute() as netlink:
        link = TunLink() if tun else None
        if link is None:
            _add_veth(netlink, mac, outside, lab, {"ifname": far_end})
        _configure(netlink, addresses)
        if link is None:
            _settle(outside, far_end)
    return host, link or VethLink(far_end, mac)


def make_joined_host(number: int, addresses: Addresses, far_end: str, router: str) -> int:
    """Make a host's namespace, joined to the namespace that the caller is in, where the link's far end gets that name.

    `router`: the IPv4 address there, the host's next hop.

    Returns the host's namespace. Raises: OSError; pyroute2's NetlinkError.
    """
    mac = _mac(number)
    with IPRoute() as outside, _network_namespace() as (host, home), IPRoute() as netlink:
        # One MAC for both: an interface without ARP sends to its own, and the other end must know that as its own.
        _add_veth(netlink, mac, outside, home, {"ifname": far_end, "address": mac.hex(":")})
        _configure(netlink, addresses, router)
        _settle(outside, far_end)
    return host


def join(netlink: Any, interface: str, addresses: Addresses, own: str) -> None:
    """Give the far end of a joined host's link an IPv4 address of its own, and the routes to that host."""
    index = _index(netlink, interface)
    turn_offloads_off(interface)
    netlink.addr("add", index=index, address=own, prefixlen=32)
    netlink.route("add", dst=f"{addresses.private}/32", oif=index, scope=_SCOPE_LINK)
    netlink.route("add", dst=f"{addresses.private6}/128", oif=index)


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Be in that network namespace."""
    home = os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(namespace)
        try:
            yield
        finally:
            setns(home)
    finally:
        os.close(home)


def end_processes_in(namespaces: set[int]) -> None:
    """Kill every process whose network namespace is one of these (inode numbers), until none is left.

    Also finds what a program has left behind in the background: told pids would not.
    """
    while pids := [pid for pid in _pids() if _network_of(pid) in namespaces]:
        for pid in pids:
            _kill_if_in(pid, namespaces)


def _become_root_of_a_user_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


@contextmanager
def _network_namespace() -> Iterator[tuple[int, int]]:
    """Be in a new network namespace. Gives its descriptor, which stays open unless this fails, and the lab's own."""
    home = os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        host = os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield host, home
        except BaseException:
            os.close(host)
            raise
        finally:
            setns(home)
    finally:
        os.close(home)


def _mac(number: int) -> bytes:
    return bytes((0x02, 0, 0, 0, number >> 8, number & 0xFF))  # locally administered


def _add_veth(netlink: Any, mac: bytes, outside: Any, home: int, far_end: dict[str, str]) -> None:
    """Make a host's interface, and its far end in the namespace `home`, which `outside` speaks to and which is up."""
    netlink.link("add", ifname=INTERFACE, kind="veth", address=mac.hex(":"), peer={**far_end, "net_ns_fd": home})
    netlink.link("set", index=_index(netlink, INTERFACE), arp=False)
    turn_offloads_off(INTERFACE)
    index = _index(outside, far_end["ifname"])
    outside.link("set", index=index, arp=False)
    _bring_up(outside, index)


def _settle(netlink: Any, far_end: str) -> None:
    """Wait until the far end of a veth sends, too.

    It was up before its peer, and drops what it is to send until the kernel has seen to it that this is up as well. A
    machine that is busy puts that off; since Linux 6.8 it is done before it answers.
    """
    until = time.monotonic() + _SETTLE_S
    while netlink.get_links(_index(netlink, far_end))[0].get_attr("IFLA_OPERSTATE") != "UP":
        if time.monotonic() > until:
            raise TimeoutError(f"the link {far_end} has not come up within {_SETTLE_S} s")
        time.sleep(0.001)


def _index(netlink: Any, interface: str) -> int:
    return int(netlink.link_lookup(ifname=interface)[0])


def _bring_up(netlink: Any, index: int) -> None:
    netlink.link("set", index=index, mtu=MTU, txqlen=_QUEUE_PACKETS, IFLA_AF_SPEC=_NO_LINK_LOCAL)
    netlink.link("set", index=index, state="up")


def _configure(netlink: Any, addresses: Addresses, router: str | None = None) -> None:
    index = _index(netlink, INTERFACE)
    netlink.link("set", index=1, state="up")
    _bring_up(netlink, index)
    netlink.addr("add", index=index, address=addresses.private, prefixlen=32)
    if addresses.second is not None:
        netlink.addr("add", index=index, address=addresses.second, prefixlen=32)
    netlink.addr("add", index=index, address=addresses.private6, prefixlen=128, flags=_IFA_F_NODAD)
    if router is not None:
        netlink.route("add", dst=f"{router}/32", oif=index, scope=_SCOPE_LINK)
        netlink.route("add", dst="0.0.0.0/0", oif=index, gateway=router)
    else:
        netlink.route("add", dst="0.0.0.0/0", oif=index, scope=_SCOPE_LINK)
    netlink.route("add", dst="::/0", oif=index)


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]


def _network_of(pid: int) -> int | None:
    """The inode number of a process's network namespace; None where it is gone, or not ours to see."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def _kill_if_in(pid: int, namespaces: set[int]) -> None:
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)  # from here on the number cannot come to mean another process
        try:
            if _network_of(pid) in namespaces:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
