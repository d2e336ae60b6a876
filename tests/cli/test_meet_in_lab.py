"""`simopen meet` in the lab: whatever the clocks say, where it takes a spray, and where it is killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from simopen import lab
from simopen.lab import Nat
from tests.cli.test_meet import ON_ASYNCIO, ON_UVLOOP, Side, behind, pasted, sides, talk
from tests.holepunch.test_by_ticket import RANDOM, stun_servers

pytestmark = pytest.mark.lab


def at(utc_s: int) -> tuple[str, ...]:
    """The command, on a machine whose wall clock says that as it starts. What OpenSSL takes for the time stays."""
    return (sys.executable, "-c", WRONG_CLOCK.format(utc_s))


WRONG_CLOCK = """
import sys, time

true_ns, true_clock_ns = time.time_ns, time.clock_gettime_ns
off_ns = {} * 10**9 - true_ns()
time.time_ns = lambda: true_ns() + off_ns
time.time = lambda: time.time_ns() / 1e9
time.clock_gettime_ns = lambda clock: true_clock_ns(clock) + off_ns * (clock == time.CLOCK_REALTIME)
time.clock_gettime = lambda clock: time.clock_gettime_ns(clock) / 1e9

from simopen.__main__ import main

sys.exit(main())
"""
IN_1970, IN_2038 = at(40), at(2**31 - 20)  # a C int of 32 bits overflows meanwhile
STRICT = (sys.executable, "-OO", "-W", "error", "-m", "simopen")


def test_they_meet_whatever_their_clocks_say_and_however_python_runs() -> None:
    """Side by side: each waits for a full ten seconds of its own, and nobody tells it the time."""
    asyncio.run(all_met())


async def all_met() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))  # each terminal is read by one
    async with stun_servers() as (net, hosts):
        servers = [each.address for each in hosts]
        clocks = {"1970": IN_1970, "2038": IN_2038}
        await asyncio.gather(
            *(
                met(net, servers, f"{one} and {other}", (clocks[one], clocks[other]))
                for one in clocks
                for other in clocks
            ),
            strictly(net, servers),
        )


async def met(
    net: lab.Network, servers: list[str], name: str, commands: tuple[Sequence[str], Sequence[str]], *words: str
) -> tuple[str, str]:
    """What each has shown."""
    left, right = [
        Side(servers, await behind(net, f"{side} of {name}", Nat()), command)
        for side, command in zip(("left", "right"), commands, strict=True)
    ]
    async with sides(left, right):
        await left.start(*words)
        await right.start(*words, await left.ticket())
        left.type(f"{await right.line()}\n")
        await talk(left, right)
    return left.terminal.seen, right.terminal.seen


async def strictly(net: lab.Network, servers: list[str]) -> None:
    """Without docstrings and asserts, where a warning is an error; and each says all along what it is at."""
    left, right = await met(net, servers, "the strict", (STRICT, STRICT), "-v")
    peer = r"[0-9.]+:\d+"
    rounds = rf"meeting {peer} in \d+ s \(round 1, .*^SYN out to {peer} \(.*^{peer} answered \(.*^{peer} is proven \("
    for seen, waiting in ((left, "^Waiting for the peer's ticket: .*"), (right, "")):
        steps = rf"^asking what the NATs do \.\.\..*{waiting}{rounds}"
        assert re.search(steps, " ".join(seen.split(" ")), re.DOTALL | re.MULTILINE), seen
        assert "Warning" not in seen


def test_where_it_takes_a_spray_and_where_one_is_killed(tmp_path: Path) -> None:
    asyncio.run(sprayed_and_killed(tmp_path))
    assert list(tmp_path.iterdir()) == []


async def sprayed_and_killed(where: Path) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    async with stun_servers() as (net, hosts):
        servers = [each.address for each in hosts]
        await asyncio.gather(
            pasted(net, servers, "the sprayed", (RANDOM, Nat()), ("--spray", "--at", "+25s")),
            out_of_reach(net, servers),
            killed_before_they_met(net, servers, where),
        )


async def out_of_reach(net: lab.Network, servers: list[str]) -> None:
    """Both NATs choose ports at random for each destination: no spray helps, and both sides say so at once."""
    left, right = [Side(servers, await behind(net, f"{side} of the lost", RANDOM)) for side in ("left", "right")]
    async with sides(left, right):
        await left.start("--spray")
        line = await left.line()
        await right.start(*line.split()[2:])
        left.type(f"{await right.line()}\n")
        for side, seen in zip((left, right), await asyncio.gather(left.end(), right.end()), strict=True):
            assert "simopen: no stream: these two NATs leave no way: both sides' public ports differ" in " ".join(
                seen.split()
            ), seen
            assert await side.status() == 1


async def killed_before_they_met(net: lab.Network, servers: list[str], where: Path) -> None:
    """One that waits for a ticket, and one whose SYNs are out: nothing of either is left, and the peer gives up."""
    left_host, right_host = [await behind(net, f"{side} of the lonely", Nat()) for side in ("left", "right")]
    home = {name: str(where) for name in ("HOME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    waiting, firing = Side(servers, right_host, env=home), Side(servers, right_host, ON_ASYNCIO, env=home)
    left = Side(servers, left_host, ON_UVLOOP, env=home)
    async with sides(left, waiting, firing):
        await asyncio.gather(left.start("--for", "1s"), waiting.start())
        await waiting.sees("and press Enter:")
        await kill(waiting)
        await firing.start(await left.ticket())
        line = await firing.line()
        await firing.sees("SYN out to ")
        await kill(firing)
        assert await open_sockets(right_host) == []
        left.type(f"{line}\n")
        seen = await left.end()
        assert "simopen: not met in 1 round, 1 s: nobody who has made that ticket answered" in " ".join(seen.split())
        assert await left.status() == 1
        assert await open_sockets(left_host) == []


async def kill(side: Side) -> None:
    """And all of its session is gone."""
    assert side.pid is not None
    os.kill(side.pid, signal.SIGKILL)
    assert await side.status() == -signal.SIGKILL
    assert side.pid not in sessions()


def sessions() -> set[int | None]:
    """Those that any process of this machine is in."""
    return {session_of(process) for process in Path("/proc").glob("[0-9]*")}


def session_of(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[3])  # proc(5)
    except OSError:
        return None


async def open_sockets(host: lab.Host) -> list[str]:
    """A host's TCP and UDP sockets that a program has: one that only the kernel ends has no inode any more."""
    listed = await host.run(["sh", "-c", "tail -q -n +2 /proc/self/net/tcp* /proc/self/net/udp*"])
    assert listed.returncode == 0, listed.stderr.decode()
    return [line for line in listed.stdout.decode().splitlines() if line.split()[9] != "0"]
