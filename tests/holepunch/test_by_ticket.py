"""The whole way with nothing but copy and paste: two hosts behind NATs, STUN servers, two commands on each host."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from simopen import lab
from simopen.lab import Allocation, Mapping, Nat
from simopen.lab.packet import Flags, Headers
from simopen.lab.trial import stun_server
from simopen.ticket.codec import parse_ticket

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
SIMOPEN = [sys.executable, "-m", "simopen"]
DELAY_S = 0.01
# Until two interpreters a side have started one after the other, and found out what their NATs do, on a busy machine.
LEAD_S = 12
LONG_S = 60.0
WORDS = b"I love you."


@dataclass
class Side:
    """A lab host with a runtime directory of its own: all hosts of a lab share one file system.

    `time`: whom its commands ask what the time is.
    """

    host: lab.Host
    directory: Path
    time: tuple[str, ...]

    async def start(self, *words: str) -> Process:
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.directory)}
        return await self.host.start([*SIMOPEN, *words, *self.time], env=environment, cwd=ROOT)

    async def invite(self, servers: list[str], at: str, *words: str) -> tuple[Process, str]:
        """`simopen nat --ticket`, and what it printed."""
        asked = [word for server in servers for word in ("--stun", server)]
        holder = await self.start("nat", "--ticket", "--at", at, *asked, *words)
        assert holder.stdout is not None
        assert holder.stderr is not None
        async with asyncio.timeout(LONG_S):
            text = (await holder.stdout.readline()).decode().strip()
        assert text, (await holder.stderr.read()).decode()
        return holder, text

    async def connect(self, *words: str) -> tuple[bytes, str]:
        """`simopen connect TICKET ...`: what came over the stream, and what it said."""
        process = await self.start("connect", *words)
        async with asyncio.timeout(LONG_S):
            heard, said = await process.communicate(WORDS)
        assert process.returncode == 0, said.decode()
        return heard, said.decode()


async def tells_the_time(host: lab.Host, off_s: float) -> None:
    """A time server on this host, which is off by so much from this machine's clock."""
    process = await host.start([sys.executable, "-m", "tests.fake_ntp", host.address, str(off_s)], cwd=ROOT)
    assert process.stdout is not None
    await process.stdout.readline()


@asynccontextmanager
async def stun_servers() -> AsyncIterator[tuple[lab.Network, list[lab.Host]]]:
    """A lab with three of them."""
    async with lab.Network(seed=1) as net:
        servers = [await net.host(name, delay_s=DELAY_S) for name in ("one", "two", "three")]
        for mine, its in zip(servers, [servers[1], servers[0], servers[0]], strict=True):
            await stun_server.start(mine, mine.address, its.address)
        yield net, servers


async def two_sides(
    net: lab.Network, left: Nat | None, right: Nat | None, tmp_path: Path, time: tuple[str, ...] = ("--no-ntp",)
) -> list[Side]:
    sides = []
    for name, nat in ((f"left of {tmp_path.name}", left), (f"right of {tmp_path.name}", right)):
        (tmp_path / name).mkdir(parents=True)
        host = await net.host(name, delay_s=DELAY_S, nat=nat)
        done = await host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
        assert done.returncode == 0, done.stderr.decode()  # or they would meet over IPv6, whatever the NATs do
        sides.append(Side(host, tmp_path / name, time))
    return sides


APDM = Mapping.ADDRESS_AND_PORT_DEPENDENT
SEQUENTIAL, RANDOM = (Nat(mapping=APDM, allocation=each) for each in (Allocation.SEQUENTIAL, Allocation.RANDOM))
# What each side's `simopen nat --ticket` is told, too.
PAIRS = {
    "home and home": (Nat(), Nat(), ()),
    "moved ports": (Nat(allocation=Allocation.RANDOM), Nat(allocation=Allocation.RANDOM), ()),
    "sequential, a new one for each destination, and home": (SEQUENTIAL, Nat(), ()),
    "random, a new one for each destination, and home": (RANDOM, Nat(), ("--spray",)),
}


# Two meetings side by side take no longer than one, and no more than a busy machine can do before the instant.
@pytest.mark.parametrize("names", [list(PAIRS)[::2], list(PAIRS)[1::2]], ids="; ".join)
def test_two_tickets_pasted_crosswise_connect(names: list[str], tmp_path: Path) -> None:
    asyncio.run(all_connected(names, tmp_path))


async def all_connected(names: list[str], tmp_path: Path) -> None:
    async with stun_servers() as (net, servers):
        await asyncio.gather(
            *(
                connected(net, [each.address for each in servers], name, tmp_path / str(number))
                for number, name in enumerate(names)
            )
        )


def ended_from(headers: Headers, port: int) -> str | None:
    """Whom this packet tells that a connection from this port has ended."""
    ends = headers.source.port == port and headers.flags & (Flags.FIN | Flags.RST)
    return headers.destination.address if ends else None


async def connected(net: lab.Network, servers: list[str], name: str, tmp_path: Path) -> None:
    left, right, words = PAIRS[name]
    one, other = await two_sides(net, left, right, tmp_path)
    at_s = time.time() + LEAD_S
    # Not the same instant: the later one counts, and the earlier side's mapping is held for as long.
    invited = await asyncio.gather(one.invite(servers, str(at_s), *words), other.invite(servers, str(at_s + 1), *words))
    (holder, ticket), (its_holder, its_ticket) = invited
    ended = await asyncio.gather(one.connect(its_ticket), other.connect(ticket))
    still_held = [each.returncode for each in (holder, its_holder)]
    record = await net.record()
    assert [heard for heard, _ in ended] == [WORDS, WORDS]
    assert all(said.startswith("simopen: plan: ") for _, said in ended)
    assert all("\nsimopen: proven: the one who made that ticket\n" in said for _, said in ended)
    assert [list(side.directory.rglob("*.ticket")) for side in (one, other)] == [[], []]  # each key was for one meeting
    assert f"connected to {other.host.public_address}:" in ended[0][1]
    assert f"connected to {one.host.public_address}:" in ended[1][1]
    assert still_held == [None, None]
    for side, text in ((one, ticket), (other, its_ticket)):
        port = parse_ticket(text).local_port
        sent = [each for each in record if each.source == side.host.name]
        assert sent
        assert [each for each in sent if ended_from(each.sent.headers, port) in servers] == []


def test_tickets_made_and_used_where_the_clock_is_wrong_connect(tmp_path: Path) -> None:
    """The time servers are right, and this machine, which cannot be set, is not."""
    asyncio.run(all_connected_by_true_time(tmp_path))


async def all_connected_by_true_time(tmp_path: Path) -> None:
    async with stun_servers() as (net, servers):
        await asyncio.gather(
            connected_by_true_time(net, servers, 3600, "1 h behind", tmp_path / "1"),
            connected_by_true_time(net, servers, -14 * 86_400, "14 days ahead", tmp_path / "2"),
        )


async def connected_by_true_time(
    net: lab.Network, servers: list[lab.Host], off_s: int, wrong: str, tmp_path: Path
) -> None:
    clocks = [await net.host(f"clock {number} of {tmp_path.name}", delay_s=DELAY_S) for number in range(3)]
    await asyncio.gather(*(tells_the_time(each, off_s) for each in clocks))
    asked = tuple(word for each in clocks for word in ("--ntp", each.address))
    one, other = await two_sides(net, Nat(), Nat(), tmp_path, asked)
    addresses = [each.address for each in servers]
    later = datetime.fromtimestamp(time.time() + off_s + LEAD_S + 1, UTC)
    invited = await asyncio.gather(one.invite(addresses, f"+{LEAD_S}s"), other.invite(addresses, f"{later:%H:%M:%S}Z"))
    tickets = [text for _, text in invited]
    ended = await asyncio.gather(one.connect(tickets[1]), other.connect(tickets[0]))
    invited[0][0].terminate()
    _, said = await invited[0][0].communicate()
    assert [heard for heard, _ in ended] == [WORDS, WORDS]
    for text in tickets:
        assert parse_ticket(text).instant - off_s == pytest.approx(time.time(), abs=2 * LEAD_S)
    words = f"this machine's clock is {wrong} (3 of 3 time servers)"
    assert [each.count(words) for each in (*(said for _, said in ended), said.decode())] == [1, 1, 1]
