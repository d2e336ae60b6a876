"""Sessions in the lab: the network of one of two hosts behind NATs is gone for a while, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from simopen import lab
from simopen.lab import Nat
from simopen.rendezvous import peers
from tests.rendezvous.test_meeting_in_lab import ROOT, site

pytestmark = pytest.mark.lab
_CUT = b"""table inet cut {
    chain in { type filter hook prerouting priority -300; policy drop; }
    chain out { type filter hook postrouting priority 300; policy drop; }
}"""


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
        return [each["step"] for each in self.told if each["step"] != "heard"]


@contextlib.asynccontextmanager
async def two_sessions(folder: Path, **liveness: float) -> AsyncIterator[tuple[lab.Host, tuple[Side, Side]]]:
    """One of two hosts behind NATs, and both sides' programs."""
    async with site() as (net, via, servers):
        hosts, sides = [], []
        for name, loop in (("laptop", "asyncio"), ("desk", "uvloop")):
            peers.keep(peers.derived(name, bytes(32)), folder)
            host = await net.host(name, delay_s=0.02, nat=Nat())
            done = await host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
            assert done.returncode == 0
            order = json.dumps({"name": name, "folder": str(folder), "via": via, "servers": servers, **liveness})
            started = await host.start([sys.executable, "-m", "tests.rejoiner", loop, order], cwd=ROOT, stderr=None)
            hosts.append(host)
            sides.append(Side(started))
        yield hosts[0], (sides[0], sides[1])


async def cut(host: lab.Host) -> None:
    """No packet gets in or out any more, and nobody is told."""
    done = await host.run(["nft", "-f", "-"], stdin=_CUT)
    assert done.returncode == 0, done.stderr.decode()


async def mend(host: lab.Host) -> int:
    """Returns when (CLOCK_MONOTONIC, ns), at the earliest."""
    before_ns = time.monotonic_ns()
    done = await host.run(["nft", "delete", "table", "inet", "cut"])
    assert done.returncode == 0, done.stderr.decode()
    return before_ns


@pytest.mark.lab(router=True)
def test_a_session_is_back_after_its_network_is(tmp_path: Path) -> None:
    asyncio.run(back(tmp_path))


async def back(folder: Path) -> None:
    async with two_sessions(folder, keepalive=1.0, user_timeout=1.0) as (host, sides):
        await asyncio.gather(*(side.until("heard") for side in sides))
        await cut(host)
        await asyncio.gather(*(side.until("session down") for side in sides))
        mended_ns = await mend(host)
        await asyncio.gather(*(side.until("session back", mended_ns) for side in sides))
        await asyncio.gather(*(side.until("heard", mended_ns) for side in sides))
        for side in sides:
            steps = side.steps()
            assert steps[:2] == ["session up", "session down"]
            assert steps[-1] == "session back"
            assert set(steps[2:-1]) <= {"session waits"}
