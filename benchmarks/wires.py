"""Two hosts behind routers, and a server's host, joined by the kernel's own wires: as fast as it forwards.

    a host - its router - the middle - its router - a host
                             |
                         the server's

Theory of operation. The lab's one process sees and delays each packet, and so it is what a large file waits for. Here
nobody looks: six network namespaces, veth pairs with their offloads on, two real routers with the lab's rules, and no
delay. Each namespace is held by a process that ends when its standard input does, so nothing is left behind, however
this one ends. Takes root, and the programs ip, nft, unshare and nsenter.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from simopen.lab import LinuxRouter
from simopen.lab.net.linux_router import WAN, ruleset

SERVER = "198.51.100.2"
_OUTSIDE = {"left": "203.0.113.2", "right": "192.0.2.2"}  # the routers' own addresses
_LAN = {"left": "10.1.0", "right": "10.2.0"}


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace, with what is used here of `lab.Host`. `address`: its own; `public_address`: as others see it."""

    holder: int
    address: str
    public_address: str

    async def start(
        self,
        argv: Sequence[str],
        *,
        stdin: int | None = PIPE,
        stdout: int | None = PIPE,
        stderr: int | None = PIPE,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Process:
        """Start a program there."""
        inside = _inside(self.holder, argv)
        return await asyncio.create_subprocess_exec(*inside, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd)


@contextmanager
def joined() -> Iterator[tuple[Host, Host, Host]]:
    """The two hosts and the server's, until the end. Raises: OSError, CalledProcessError with what was not there."""
    with _held("middle", "server", *(f"{side} {what}" for side in _LAN for what in ("router", "host"))) as holders:
        middle = holders["middle"]
        _switch_forwarding_on(middle)
        _wire(middle, "server", holders["server"], SERVER)
        for side, lan in _LAN.items():
            router = holders[f"{side} router"]
            _wire(middle, side, router, _OUTSIDE[side])
            _wire(router, "lan", holders[f"{side} host"], f"{lan}.2")
            _switch_forwarding_on(router)
            _run(router, "nft", "-f", "-", script=ruleset(LinuxRouter()))
        left, right = (Host(holders[f"{side} host"], f"{lan}.2", _OUTSIDE[side]) for side, lan in _LAN.items())
        yield left, right, Host(holders["server"], SERVER, SERVER)


@contextmanager
def _held(*names: str) -> Iterator[dict[str, int]]:
    """A new namespace each, by the process that holds it."""
    holders = {
        name: subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; cat"], stdin=PIPE, stdout=PIPE) for name in names
    }
    try:
        for holder in holders.values():
            assert holder.stdout is not None
            if not holder.stdout.readline():
                raise OSError("no network namespace of its own was to be had: this takes root")
        yield {name: holder.pid for name, holder in holders.items()}
    finally:
        for holder in holders.values():
            holder.communicate()


def _wire(near: int, name: str, far: int, address: str) -> None:
    """Join a namespace to one nearer to the middle, whose end gets that name, and to which all its ways lead."""
    gateway = f"{address.rpartition('.')[0]}.1"
    peer = ["peer", "name", WAN, "netns", str(far)]
    _run(near, "ip", "link", "add", "name", name, "type", "veth", *peer)
    for holder, interface, own in ((near, name, gateway), (far, WAN, address)):
        _run(holder, "ip", "addr", "add", f"{own}/24", "dev", interface)
        _run(holder, "ip", "link", "set", interface, "up")
        _run(holder, "ip", "link", "set", "lo", "up")
    _run(far, "ip", "route", "add", "default", "via", gateway)


def _switch_forwarding_on(holder: int) -> None:
    _run(holder, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")


def _run(holder: int, *argv: str, script: str = "") -> None:
    subprocess.run(_inside(holder, argv), input=script.encode(), check=True)


def _inside(holder: int, argv: Sequence[str]) -> list[str]:
    return ["nsenter", f"--net=/proc/{holder}/ns/net", "--", *argv]
