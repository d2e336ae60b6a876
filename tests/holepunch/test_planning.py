"""Two hosts behind NATs in the lab find out what these do, exchange that, and get through where a plan says so."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simopen import lab
from simopen.holepunch.budget import MOST_SYNS
from simopen.lab import Allocation, Filtering, Mapping, Nat, Unsolicited
from simopen.lab.trial import stun_server
from tests.holepunch.test_punching import this_loop

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
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
async def site(left: Nat | None, right: Nat | None, *, beside: bool = False) -> AsyncIterator[dict[str, Any]]:
    """Two hosts, and an RFC 5780 server on two more."""
    async with lab.Network(seed=7) as net:
        servers = [await net.host(name, delay_s=0.01) for name in ("one", "other")]
        for mine, its in (servers, servers[::-1]):
            await stun_server.start(mine, mine.address, its.address)
        hosts = {"left": await net.host("left", delay_s=0.02, nat=left)}
        where: dict[str, Any] = {"beside": hosts["left"]} if beside else {"delay_s": 0.02, "nat": right}
        hosts["right"] = await net.host("right", **where)
        yield {"net": net, "hosts": hosts, "server": servers[0].address}


async def meet(left: Nat | None, right: Nat | None, *, beside: bool = False, **options: Any) -> Ended:
    async with site(left, right, beside=beside) as here:
        programs = {name: await start(host, here["server"], **options) for name, host in here["hosts"].items()}
        profiles = {name: await heard(program) for name, program in programs.items()}
        await here["net"].clear_record()
        at = time.monotonic_ns() + LEAD_NS
        for name, peer in (("left", "right"), ("right", "left")):
            tell(programs[name], b"%s %d\n" % (profiles[peer], at))
        answers = await asyncio.gather(*map(heard, programs.values()))
        record = await here["net"].record()
    syns = {name: _syns(record, name, here["server"]) for name in programs}
    said = {name: json.loads(line) for name, line in zip(programs, answers, strict=True)}
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


def _syns(record: lab.Record, name: str, server: str) -> int:
    sent = (each.sent for each in record if each.source == name and each.sent.is_syn)
    return sum(each.destination.address != server for each in sent)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(HOME, HOME, id="both known"),
        pytest.param(None, HOME, id="one open"),
        pytest.param(BUSY, HOME, id="walking and known"),
        pytest.param(BUSY, STRICT, id="walking and one that answers"),
        pytest.param(Nat(APDM), Nat(APDM), id="both keep the port"),
        pytest.param(SEQUENTIAL, SEQUENTIAL, id="both walking"),
        pytest.param(ONE_ROW, ONE_ROW, id="both walking, TCP and UDP in one row"),
        pytest.param(ONE_ROW, HOME, id="one walking, TCP and UDP in one row"),
        pytest.param(BY_ADDRESS, BY_ADDRESS, id="both walking, by address"),
        pytest.param(RANDOM, LENIENT, id="lost and lenient"),
    ],
)
async def test_what_a_plan_gets_through(left: Nat | None, right: Nat | None) -> None:
    ended = await meet(left, right)
    assert ended.met, ended.story
    assert max(ended.syns.values()) <= MOST_SYNS


@pytest.mark.parametrize("nat", [SEQUENTIAL, ONE_ROW], ids=["a row a protocol", "one row"])
async def test_what_this_program_asks_meanwhile_takes_no_port_from_the_punch(nat: Nat) -> None:
    """The NATs of other ports, at once and before the punch, and the time: more than a whole volley has ports."""
    ntp = [f"{address}:{port}" for address in ("203.0.113.200", "203.0.113.201") for port in (123, 124)]
    ended = await meet(nat, nat, ntp=ntp, twice=2314)
    assert ended.met, ended.story


@pytest.mark.parametrize(
    ("left", "right"), [pytest.param(RANDOM, HOME, id="known"), pytest.param(RANDOM, BY_ADDRESS, id="by address")]
)
async def test_the_spray_meets_random_ports_and_leaves_one_stream(left: Nat, right: Nat) -> None:
    ended = await meet(left, right, spray=True)
    assert ended.met, ended.story


async def test_without_leave_there_is_no_spray() -> None:
    """The listener is tried, since the peer's NAT may be lenient; this one is not."""
    ended = await meet(RANDOM, HOME, window=2.0)
    assert {each["error"] for each in ended.said.values()} == {"WindowClosed"}
    assert max(ended.syns.values()) <= 3  # one, and what the kernel resends within 2 s


@pytest.mark.parametrize(("left", "right"), [(RANDOM, RANDOM), (RANDOM, SEQUENTIAL)])
async def test_what_no_tcp_can_is_refused_before_the_instant(left: Nat, right: Nat) -> None:
    ended = await meet(left, right, spray=True)
    assert {each["error"] for each in ended.said.values()} == {"ImpossiblePair"}
    assert {each["diagnosis"]["cause"] for each in ended.said.values()} == {"impossible pair"}
    assert all(each["diagnosis"]["sentence"] == each["message"] for each in ended.said.values())
    assert ended.syns == {"left": 0, "right": 0}


async def test_two_behind_one_nat_meet_at_their_own_addresses() -> None:
    ended = await meet(HOME, None, beside=True)
    assert ended.met, ended.story
