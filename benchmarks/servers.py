"""A host in the lab that introduces others to each other: `simopen serve`, and STUN servers at two addresses."""

from __future__ import annotations

import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from typing import NamedTuple

from benchmarks import wires
from simopen import lab
from simopen.lab.trial import stun_server


class Servers(NamedTuple):
    """`host`: that of the rendezvous, whose URL is `via`; `other`: of the second STUN server. No delay to either."""

    host: lab.Host
    other: lab.Host
    via: str

    @property
    def stun(self) -> list[str]:
        """The STUN servers' addresses."""
        return [self.host.address, self.other.address]


async def opened(net: lab.Network) -> Servers:
    """The servers, running."""
    host, other = await net.host("one"), await net.host("other")
    for mine, its in ((host, other), (other, host)):
        await stun_server.start(mine, mine.address, its.address)
    serving = [sys.executable, "-m", "simopen", "serve", "--no-stun", "--host", host.address]
    await started(host, serving, "ws:")
    return Servers(host, other, f"ws://{host.address}:4000/v1")


async def started(host: lab.Host | wires.Host, command: list[str], ready: str) -> Process:
    """Start a server, and wait until it has said that it is one. Raises: RuntimeError where it ends instead."""
    server = await host.start(command, stdout=PIPE, stderr=DEVNULL)
    assert server.stdout is not None
    while ready not in (line := (await server.stdout.readline()).decode()):
        if not line:
            raise RuntimeError(f"{command[0]} ended, and did not say {ready!r}")
    return server


async def without_ipv6(host: lab.Host) -> None:
    """So that there is no way around a NAT."""
    await host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
