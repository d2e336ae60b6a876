"""Two hosts behind NATs in the lab find out what these do, exchange that, and get through where a plan says so."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from simopen import lab
from simopen.holepunch.budget import MOST_SYNS
from simopen.lab import Allocation, Filtering, LinuxRouter, Mapping, Nat, Unsolicited
from simopen.lab.trial import stun_server
from tests.loops import this_loop

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
Router: TypeAlias = Nat | LinuxRouter | None

PORT = 1314
LEAD_NS = 1_500_000_000  # what a plan takes to work out, on a busy machine

ADM, APDM = Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT
HOME, STRICT = Nat(), Nat(unsolicited=Unsolicited.RESET)
LENIENT = Nat(filtering=Filtering.ADDRESS_DEPENDENT)
RANDOM = Nat(APDM, allocation=Allocation.RANDOM)
BUSY = Nat(APDM, allocation=Allocation.SEQUENTIAL, step=2, others=0.3)
SEQUENTIAL = Nat(APDM, allocation=Allocation.SEQUENTIAL)
ONE_ROW = Nat(APDM, allocation=Allocation.SEQUENTIAL, one_row=True)
BY_ADDRESS = Nat(ADM, allocation=Allocation.SEQUENTIAL)


@dataclass(frozen=True)
class Ended:
    """What both sides said, and each one's SYNs to the other in the record."""

    said: dict[str, dict[str, Any]]
    syns: dict[str, int]
    record: lab.Record
    tickets: dict[str, bytes]

    @property
    def story(self) -> str:
        """All that it takes to find out why, in full: pytest shortens what is no text."""
        packets = (f"{each.sent_ns / 1e6:.3f} {each.source} {each.sent} {each.verdict.value}" for each in self.record)
        return "\n".join([json.dumps(self.said, indent=1), *map(str, self.tickets.items()), *packets])

    @property
    def met(self) -> bool:
        return all(each.get("heard") == "I love you." for each in self.said.values())


@asynccontextmanager
async def site() -> AsyncIterator[tuple[lab.Network, list[str]]]:
    """A network with an RFC 5780 server on two hosts."""
    async with lab.Network(seed=7) as net:
        servers = [await net.host(name, delay_s=0.01) for name in ("one", "other")]
        for mine, its in (servers, servers[::-1]):
            await stun_server.start(mine, mine.address, its.address)
        yield net, [each.address for each in servers]


async def meet(left: Router, right: Router, *, beside: bool = False, **options: Any) -> Ended:
    async with site() as (net, servers):
        return await met(net, servers, "", (left, right), beside=beside, **options)


async def met(
    net: lab.Network,
    servers: list[str],
    name: str,
    nats: tuple[Router, Router],
    *,
    beside: bool = False,
    **options: Any,
) -> Ended:
    """A pair of hosts of that network discover, exchange their tickets, and punch. `beside`: in one home."""
    left, right = nats
    hosts = {"left": await net.host(f"left{name}", delay_s=0.02, nat=left)}
    where: dict[str, Any] = {"beside": hosts["left"]} if beside else {"delay_s": 0.02, "nat": right}
    hosts["right"] = await net.host(f"right{name}", **where)
    programs = {side: await start(host, servers[0], **options) for side, host in hosts.items()}
    profiles = {side: await heard(program) for side, program in programs.items()}
    begun_ns = time.monotonic_ns()
    for side, peer in (("left", "right"), ("right", "left")):
        tell(programs[side], b"%s %d\n" % (profiles[peer], begun_ns + LEAD_NS))
    answers = await asyncio.gather(*map(heard, programs.values()))
    names = {host.name for host in hosts.values()}
    record = (await net.record()).where(lambda passage: passage.source in names and passage.sent_ns >= begun_ns)
    syns = {side: _syns(record, host.name, servers) for side, host in hosts.items()}
    said = {side: json.loads(line) for side, line in zip(programs, answers, strict=True)}
    return Ended(said, syns, record, profiles)


async def start(host: lab.Host, server: str, *, ipv6: bool = False, **options: Any) -> Process:
    """The program that meets. A profile of the IPv4 address alone keeps them from meeting where nothing translates."""
    address = "::" if ipv6 else host.address
    said = json.dumps({"local": [address, PORT], "servers": [server], **options})
    return await host.start([sys.executable, "-m", "tests.planner", this_loop(), said], cwd=ROOT, stderr=None)


async def heard(program: Process) -> bytes:
    assert program.stdout is not None
    return (await program.stdout.readline()).strip()


def tell(program: Process, line: bytes) -> None:
    assert program.stdin is not None
    program.stdin.write(line)


def _syns(record: lab.Record, name: str, servers: list[str]) -> int:
    """Those to the peer."""
    sent = (each.sent for each in record if each.source == name and each.sent.is_syn)
    return sum(each.destination.address not in servers for each in sent)


PAIRS: dict[str, tuple[Nat | None, Nat | None]] = {
    "both known": (HOME, HOME),
    "one open": (None, HOME),
    "walking and known": (BUSY, HOME),
    "walking and one that answers": (BUSY, STRICT),
    "both keep the port": (Nat(APDM), Nat(APDM)),
    "both walking": (SEQUENTIAL, SEQUENTIAL),
    "both walking, TCP and UDP in one row": (ONE_ROW, ONE_ROW),
    "one walking, TCP and UDP in one row": (ONE_ROW, HOME),
    "both walking, by address": (BY_ADDRESS, BY_ADDRESS),
    "lost and lenient": (RANDOM, LENIENT),
}


async def side_by_side(pairs: Sequence[tuple[Nat | None, Nat | None]], **options: Any) -> list[Ended]:
    """Each pair in hosts of its own, all in one network: most of it is waiting."""
    async with site() as (net, servers):
        ways = (met(net, servers, f" of {number}", nats, **options) for number, nats in enumerate(pairs))
        return await asyncio.gather(*ways)


@pytest.mark.parametrize("names", [list(PAIRS)[::2], list(PAIRS)[1::2]], ids="; ".join)
async def test_what_a_plan_gets_through(names: list[str]) -> None:
    for name, ended in zip(names, await side_by_side([PAIRS[name] for name in names]), strict=True):
        assert ended.met, f"{name}: {ended.story}"
        assert max(ended.syns.values()) <= MOST_SYNS, name


async def test_what_this_program_asks_meanwhile_takes_no_port_from_the_punch() -> None:
    """The NATs of other ports, at once and before the punch, and the time: more than a whole volley has ports."""
    ntp = [f"{address}:{port}" for address in ("203.0.113.200", "203.0.113.201") for port in (123, 124)]
    for ended in await side_by_side([(SEQUENTIAL, SEQUENTIAL), (ONE_ROW, ONE_ROW)], ntp=ntp, twice=2314):
        assert ended.met, ended.story


@pytest.mark.parametrize(
    ("left", "right"), [pytest.param(RANDOM, HOME, id="known"), pytest.param(RANDOM, BY_ADDRESS, id="by address")]
)
async def test_the_spray_meets_random_ports_and_leaves_one_stream(left: Nat, right: Nat) -> None:
    ended = await meet(left, right, spray=True)
    assert ended.met, ended.story


@pytest.mark.lab(router=True)
async def test_the_spray_meets_a_real_routers_random_ports_however_late() -> None:
    """It lets no SYN-ACK pass but that of the socket whose SYN it has seen, so that has to be there still."""
    ended = await meet(LinuxRouter(random=True), LinuxRouter(), spray=True)
    assert ended.met, ended.story


async def test_without_leave_there_is_no_spray() -> None:
    """The listener is tried, since the peer's NAT may be lenient; this one is not."""
    ended = await meet(RANDOM, HOME, window=2.0)
    assert {each["error"] for each in ended.said.values()} == {"WindowClosed"}
    assert max(ended.syns.values()) <= 3  # one, and what the kernel resends within 2 s


async def test_what_no_tcp_can_is_refused_before_the_instant() -> None:
    for ended in await side_by_side([(RANDOM, RANDOM), (RANDOM, SEQUENTIAL)], spray=True):
        assert {each["error"] for each in ended.said.values()} == {"ImpossiblePair"}, ended.story
        assert {each["diagnosis"]["cause"] for each in ended.said.values()} == {"impossible pair"}
        assert all(each["diagnosis"]["sentence"] == each["message"] for each in ended.said.values())
        assert ended.syns == {"left": 0, "right": 0}


async def test_two_behind_one_nat_meet_at_their_own_addresses() -> None:
    ended = await meet(HOME, None, beside=True)
    assert ended.met, ended.story
