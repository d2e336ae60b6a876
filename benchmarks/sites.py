"""Where the cells of `benchmarks.matrix` are tried: hosts behind NATs in the lab, a user on each, and STUN servers.

Theory of operation. A host has one punch at a time: else its NAT would give ports to another one meanwhile, and what is
quiet would not be. Different hosts punch side by side; of sprays, two are fired at any time. Nothing but two profiles
and an instant passes between the users; or what `simopen.meet` has pass through a rendezvous. How many SYNs left is
counted in the lab's record of packets, never told by a user.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from benchmarks.cells import ALL_KINDS, TOGETHER, Cell, is_isolated
from benchmarks.common import progress
from benchmarks.orders import Agent, Order
from simopen import lab
from simopen.lab.trial import stun_server
from simopen.rendezvous.codes import new_code

SIDES = ("left", "right")
# From the order to the instant. Plans are made in it, on a machine that does other things as well: those for busy
# sequences take half a second of processor time, those for sprays hardly any.
_LEAD_S, _LEAD_TO_SPRAY_S = 2.0, 0.75
# Ports for punches lie below those that a kernel picks for itself. A punch uses some beside its own, a spray hundreds.
_FIRST_PORT, _LAST_PORT = 2000, 32_000
_PORTS, _PORTS_TO_SPRAY = 120, 520
_BESIDE = 119  # of these ports, the one from which a user learns another profile: even the seventh volley ends below
# Where nobody is (RFC 5737): as many time servers as are asked by default.
_SILENT = ("203.0.113.201", "203.0.113.202", "203.0.113.203", "203.0.113.204")
# A spray takes most of its time waiting, and one after the other they would take most of the whole benchmark's.
_SPRAYS_AT_ONCE, _SPRAYS_UNDER_WAY = 2, 3  # the third is made ready meanwhile


@dataclass(slots=True)
class Site:
    """A host behind NATs of one kind, and its user."""

    host: lab.Host
    agent: Agent
    latest_port: int = _FIRST_PORT

    def next_port(self, *, sprays: bool) -> int:
        """One for which, and for the next ones, this host's NATs have no mapping left: all come round in turn."""
        width = _PORTS_TO_SPRAY if sprays else _PORTS
        port = self.latest_port if self.latest_port + width <= _LAST_PORT else _FIRST_PORT
        self.latest_port = port + width
        return port


class Punch(NamedTuple):
    """What the users of two hosts said of one punch, and when it began and ended (CLOCK_MONOTONIC).

    `both_ms`: from the later instant until both have the stream. `refused_ms`: from knowing the profiles until both
    were told that it is impossible. None where that did not happen. `told`: each kind, and the mapping as its user's
    profile has it.
    """

    hosts: tuple[str, str]
    told: tuple[tuple[str, str], ...]
    begun_ns: int
    ended_ns: int
    both_ms: float | None
    refused_ms: float | None
    plan: str | None
    error: str | None


class Meanwhile(NamedTuple):
    """What else each user's program does: learn another port's profile at once with this one's, and ask for the time.

    `by_ticket`: they swap tickets, and so bring up a link. `by_code`: they meet by a code, and do all else by that.
    The time servers are silent: that they were asked takes ports of a NAT, what they say does not.
    """

    discovers: bool = False
    asks_the_time: bool = False
    by_ticket: bool = False
    by_code: bool = False


NOTHING_ELSE = Meanwhile()


@dataclass(frozen=True, slots=True)
class Sites:
    """A left and a right site for every kind, the STUN servers that users know, and all addresses of servers.

    `via`: the rendezvous, where they meet by a code.
    """

    servers: tuple[str, ...]
    server_addresses: frozenset[str]
    sites: Mapping[tuple[str, str], Site]
    meanwhile: Meanwhile
    via: str | None = None
    rooms: Iterator[int] = field(default_factory=lambda: count(1))
    room_to_spray: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_SPRAYS_AT_ONCE))

    def of(self, cell: Cell) -> tuple[Site, Site]:
        """Where a cell is tried."""
        return self.sites["left", cell.left], self.sites["right", cell.right]

    async def punch(self, cell: Cell) -> Punch:
        """Both learn their profiles, are given each other's, and punch; or they meet by a code."""
        if self.via is not None:
            return await self._meet(cell)
        pair = self.of(cell)
        ports = [site.next_port(sprays=cell.sprays) for site in pair]
        profiles = await asyncio.gather(*(self._discover(*each) for each in zip(pair, ports, strict=True)))
        if unseen := [each for each in profiles if "error" in each]:
            return _unseen(pair, unseen[0]["error"])
        async with self.room_to_spray if cell.sprays else contextlib.nullcontext():
            begun_ns = time.monotonic_ns()
            due_ns = begun_ns + round((_LEAD_TO_SPRAY_S if cell.sprays else _LEAD_S) * 1e9)
            instants = (due_ns, due_ns + round(cell.apart_ms * 1e6))
            orders = zip(pair, ports, reversed(profiles), instants, strict=True)
            ntp = _SILENT if self.meanwhile.asks_the_time else None
            allowed = {"spray": cell.sprays, "first_ttl": cell.first_ttl, "ntp": ntp}
            answers = await asyncio.gather(*(_punch(*order, allowed) for order in orders))
        hosts = (pair[0].host.name, pair[1].host.name)
        told = tuple(zip((cell.left, cell.right), (each["mapping"] for each in profiles), strict=True))
        return Punch(hosts, told, begun_ns, time.monotonic_ns(), *_outcome(answers, begun_ns, instants[1]))

    async def _meet(self, cell: Cell) -> Punch:
        pair = self.of(cell)
        ports = [site.next_port(sprays=cell.sprays) for site in pair]
        shared: Order = {"method": "meet", "code": str(new_code(str(next(self.rooms)))), "via": self.via}
        shared |= {"servers": self.servers, "spray": cell.sprays}
        async with self.room_to_spray if cell.sprays else contextlib.nullcontext():
            begun_ns = time.monotonic_ns()
            orders = [shared | {"local": (site.host.address, port)} for site, port in zip(pair, ports, strict=True)]
            answers = await asyncio.gather(*(_told(*each) for each in zip(pair, orders, strict=True)))
        later_ns = max(each.get("fired_ns", begun_ns) for each in answers)
        paired_ns = max(each.get("paired_ns") or begun_ns for each in answers)
        hosts = (pair[0].host.name, pair[1].host.name)
        return Punch(hosts, (), begun_ns, time.monotonic_ns(), *_outcome(answers, paired_ns, later_ns))

    async def _discover(self, site: Site, port: int) -> Order:
        # From this address alone: with IPv6 there would be no NAT to get through.
        order: Order = {"method": "discover", "local": (site.host.address, port), "servers": self.servers}
        order |= {"beside": port + _BESIDE if self.meanwhile.discovers else None, "by_ticket": self.meanwhile.by_ticket}
        return await site.agent.ask(order)


def _unseen(pair: Sequence[Site], error: str) -> Punch:
    now_ns, hosts = time.monotonic_ns(), (pair[0].host.name, pair[1].host.name)
    return Punch(hosts, (), now_ns, now_ns, None, None, None, error)


async def _punch(site: Site, port: int, theirs: Order, at_ns: int, allowed: Order) -> Order:
    order = {"method": "punch", "port": port, "theirs": theirs["profile"], "at_ns": at_ns}
    order["ticket"] = theirs.get("ticket")
    return await _told(site, order | allowed)


async def _told(site: Site, order: Order) -> Order:
    """The answer, and when it came."""
    return {**await site.agent.ask(order), "answered_ns": time.monotonic_ns()}


def _outcome(
    answers: Sequence[Order], begun_ns: int, later_ns: int
) -> tuple[float | None, float | None, str | None, str | None]:
    """`both_ms`, `refused_ms`, `plan`, `error`."""
    plans = dict.fromkeys(answer["plan"] for answer in answers if answer.get("plan"))
    errors = [f"{side}: {answer['error']}" for side, answer in zip(SIDES, answers, strict=True) if "error" in answer]
    both_ms = refused_ms = None
    if not errors:
        both_ms = (max(answer["established_ns"] for answer in answers) - later_ns) / 1e6
    if all(answer.get("refused") for answer in answers):
        refused_ms = (max(answer["answered_ns"] for answer in answers) - begun_ns) / 1e6
    return both_ms, refused_ms, " / ".join(plans) or None, "; ".join(errors) or None


@asynccontextmanager
async def opened(
    net: lab.Network, cells: Collection[Cell], rtt_ms: float, meanwhile: Meanwhile = NOTHING_ELSE
) -> AsyncIterator[Sites]:
    """The sites that these cells need, in both orders. Each host's access has half of the way to another."""
    delay_s = rtt_ms / 4e3
    servers = await _servers(net, delay_s)
    via, at_via = await _rendezvous(net, delay_s) if meanwhile.by_code else (None, ())
    hosts = await _hosts(net, cells, delay_s)
    progress(f"starting {len(hosts)} users")
    command = [sys.executable, "-m", "benchmarks.user", "asyncio"]
    agents = await asyncio.gather(*(Agent.start(host, command) for host in hosts.values()))
    try:
        sites = {each: Site(host, agent) for (each, host), agent in zip(hosts.items(), agents, strict=True)}
        yield Sites((servers[0], servers[2]), frozenset((*servers, *at_via)), sites, meanwhile, via)
    finally:
        await asyncio.gather(*(agent.close() for agent in agents))


async def _hosts(net: lab.Network, cells: Collection[Cell], delay_s: float) -> dict[tuple[str, str], lab.Host]:
    """By side and kind."""
    both_orders = [order for cell in cells for order in (cell, cell.turned)]
    hosts: dict[tuple[str, str], lab.Host] = {}
    for side, kind in dict.fromkeys(each for cell in both_orders for each in zip(SIDES, cell[:2], strict=True)):
        name = f"{side}-{len(hosts)}"
        if side == "right" and kind in TOGETHER:
            hosts[side, kind] = await net.host(name, beside=hosts["left", kind])
        else:
            nat, isolated = ALL_KINDS[kind] or None, is_isolated(kind)
            hosts[side, kind] = await net.host(name, delay_s=delay_s, nat=nat, isolated=isolated)
    return hosts


async def _servers(net: lab.Network, delay_s: float) -> tuple[str, ...]:
    """The addresses of an RFC 5780 server, of which users know the first, and of a plain one."""
    one, other, plain = [await net.host(f"stun-{number}", delay_s=delay_s) for number in (1, 2, 3)]
    await asyncio.gather(
        stun_server.start(one, one.address, other.address),
        stun_server.start(other, other.address, one.address),
        stun_server.start(plain, plain.address),
    )
    return one.address, other.address, plain.address


async def _rendezvous(net: lab.Network, delay_s: float) -> tuple[str, tuple[str, ...]]:
    """The URL of `simopen serve`, and where it is."""
    host = await net.host("rendezvous", delay_s=delay_s)
    command = [sys.executable, "-m", "simopen", "serve", "--no-stun", "--host", host.address]
    server = await host.start(command, stderr=None)
    assert server.stdout is not None
    await server.stdout.readline()
    return f"ws://{host.address}:4000/v1", (host.address,)


async def side_by_side(here: Sites, cells: Sequence[Cell], at_once: int) -> list[Punch]:
    """Try each cell once, `at_once` of them at any time; the answers are in the same order."""
    waiting = dict(enumerate(cells))
    running: dict[asyncio.Task[Punch], int] = {}
    found: dict[int, Punch] = {}
    try:
        while waiting or running:
            while len(running) < at_once:
                number = _startable(here, waiting, [cells[each] for each in running.values()])
                if number is None:
                    break
                running[asyncio.create_task(here.punch(waiting.pop(number)))] = number
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                found[running.pop(task)] = task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return [found[number] for number in range(len(cells))]


def _startable(here: Sites, waiting: Mapping[int, Cell], running: Sequence[Cell]) -> int | None:
    """The first, sprays before all others since they take longest, whose hosts are free."""
    busy = {site.host.name for cell in running for site in here.of(cell)}
    spray = sum(cell.sprays for cell in running) < _SPRAYS_UNDER_WAY
    for number, cell in sorted(waiting.items(), key=lambda item: not item[1].sprays):
        if (spray or not cell.sprays) and busy.isdisjoint(site.host.name for site in here.of(cell)):
            return number
    return None


class Syns(NamedTuple):
    """How many SYNs a host sent, the kernel's repetitions among them, and how many in the busiest second."""

    sent: int
    in_a_second: int


def syns_by_host(record: lab.Record, servers: Collection[str]) -> dict[str, list[int]]:
    """When each host sent a SYN to anybody but the servers, in order (CLOCK_MONOTONIC, ns)."""
    found: dict[str, list[int]] = defaultdict(list)
    for passage in record:
        ours = passage.origin is lab.Origin.HOST and passage.sent.is_syn
        if ours and passage.sent.destination.address not in servers:
            found[passage.source].append(passage.sent_ns)
    return found


def syns_between(times_ns: Sequence[int], begun_ns: int, ended_ns: int) -> Syns:
    """What of these falls into that time."""
    ours = times_ns[bisect_left(times_ns, begun_ns) : bisect_right(times_ns, ended_ns)]
    return Syns(len(ours), max((bisect_left(ours, each + 10**9) - i for i, each in enumerate(ours)), default=0))
