"""Two programs with a session each, on hosts of the lab behind NATs; and the network of one, cut and mended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from simopen import lab
from simopen.lab import Nat
from simopen.rendezvous import peers
from tests.rendezvous.test_meeting_in_lab import LONG_S, ROOT, site

_CUT = b"""table inet cut {
    chain in { type filter hook prerouting priority -300; policy drop; }
    chain out { type filter hook postrouting priority 300; policy drop; }
}"""


_MOVE = """import sys, time
from pyroute2 import IPRoute
with IPRoute() as netlink:
    (old,) = netlink.get_addr(address=sys.argv[1])
    print(time.monotonic_ns())
    netlink.addr("del", index=old["index"], address=sys.argv[1], prefixlen=old["prefixlen"])"""


class Side:
    """A program with a session on a host. `told`: what it has said so far."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.told: list[dict[str, Any]] = []

    async def until(self, step: str, after_ns: int = 0) -> dict[str, Any]:
        """The first of what it says that is that step, and later."""
        for each in self.told:
            if each["step"] == step and each["at_ns"] > after_ns:
                return each
        assert self._process.stdout is not None
        while True:
            line = await self._process.stdout.readline()
            assert line, "the program has ended"
            said: dict[str, Any] = json.loads(line)
            self.told.append(said)
            if said["step"] == step and said["at_ns"] > after_ns:
                return said

    def steps(self) -> list[str]:
        """What became of its streams, in order."""
        return [each["step"] for each in self.told if each["step"].startswith("session")]

    def stop(self) -> None:
        """Have it do nothing, until it goes on."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """After `stop`."""
        os.killpg(self._process.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def two_sessions(
    folder: Path, program: str = "tests.rejoiner", *, limit_s: float = LONG_S, moves: bool = False, **liveness: float
) -> AsyncIterator[tuple[lab.Host, tuple[Side, Side]]]:
    """One of the two hosts, and both sides' programs, its own first. `moves`: that one can `move`."""
    async with site(limit_s) as (net, via, servers):
        hosts: list[lab.Host] = []
        sides = []
        for name, loop in (("laptop", "asyncio"), ("desk", "uvloop")):
            peers.keep(peers.derived(name, bytes(32)), folder)
            two = moves and not hosts
            host = await net.host(name, delay_s=0.02, nat=None if two else Nat(), two_addresses=two)
            done = await host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
            assert done.returncode == 0
            order = json.dumps({"name": name, "folder": str(folder), "via": via, "servers": servers, **liveness})
            started = await host.start([sys.executable, "-m", program, loop, order], cwd=ROOT, stderr=None)
            hosts.append(host)
            sides.append(Side(started))
        yield hosts[0], (sides[0], sides[1])


async def cut(host: lab.Host) -> None:
    """No packet gets in or out any more, and nobody is told."""
    done = await host.run(["nft", "-f", "-"], stdin=_CUT)
    assert done.returncode == 0, done.stderr.decode()


async def mend(host: lab.Host) -> int:
    """Returns when at the earliest (CLOCK_MONOTONIC, ns)."""
    before_ns = time.monotonic_ns()
    done = await host.run(["nft", "delete", "table", "inet", "cut"])
    assert done.returncode == 0, done.stderr.decode()
    return before_ns


async def move(host: lab.Host) -> int:
    """Take its first address away: it has the second one from here on. Returns when at the earliest."""
    done = await host.run([sys.executable, "-c", _MOVE, host.address])
    assert done.returncode == 0, done.stderr.decode()
    return int(done.stdout)
