"""The whole way by a code in the lab: two hosts behind NATs, a rendezvous, and clocks that are an hour apart."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from simopen import lab
from simopen.lab import Allocation, Mapping, Nat
from simopen.lab.trial import stun_server
from simopen.rendezvous.codes import new_code

pytestmark = pytest.mark.lab
ROOT = Path(__file__).parents[2]
LONG_S = 90
APDM = Mapping.ADDRESS_AND_PORT_DEPENDENT


Site = tuple[lab.Network, str, list[str]]


@asynccontextmanager
async def site(limit_s: float = LONG_S) -> AsyncIterator[Site]:
    """A network with a rendezvous, its URL, and two STUN servers."""
    async with asyncio.timeout(limit_s), lab.Network(seed=5) as net:
        servers = [await net.host(name, delay_s=0.01) for name in ("one", "other")]
        for mine, its in (servers, servers[::-1]):
            await stun_server.start(mine, mine.address, its.address)
        where = servers[0].address
        words = ["-m", "simopen", "serve", "--port", "4000", "--no-stun", "--host", where]
        server = await servers[0].start([sys.executable, *words], cwd=ROOT, stderr=None)
        assert server.stdout is not None
        assert await server.stdout.readline()
        yield net, f"ws://{where}:4000/v1", [each.address for each in servers]


async def meet(place: Site, nats: tuple[Nat, Nat], off_s: tuple[float, float], room: int) -> list[dict[str, Any]]:
    """What each side says."""
    net, via, servers = place
    code, programs = str(new_code(str(room))), []
    for number, nat in enumerate(nats):
        host = await net.host(f"{'left' if number == 0 else 'right'}{room}", delay_s=0.02, nat=nat)
        await without_ipv6(host)
        order = json.dumps({"code": code, "via": via, "servers": servers, "off_s": off_s[number]})
        loop = ("asyncio", "uvloop")[number]
        programs.append(await host.start([sys.executable, "-m", "tests.meeter", loop, order], cwd=ROOT, stderr=None))
    said = []
    for program in programs:
        assert program.stdout is not None
        said.append(json.loads(await program.stdout.readline()))
    return said


def test_behind_nats_with_clocks_an_hour_apart_they_meet_by_a_code() -> None:
    asyncio.run(all_met())


async def all_met() -> None:
    sequential = Nat(APDM, allocation=Allocation.SEQUENTIAL)
    async with site() as place:
        pairs = [((Nat(), Nat()), (0.0, 3600.0)), ((Nat(), sequential), (3600.0, 0.0))]
        ended = await asyncio.gather(*(meet(place, nats, off_s, room) for room, (nats, off_s) in enumerate(pairs, 1)))
    for said, (_, off_s) in zip(ended, pairs, strict=True):
        assert [each.get("heard") for each in said] == ["x", "x"], said
        for each, mine, theirs in zip(said, off_s, off_s[::-1], strict=True):
            assert round(each["clock"][0]) == theirs - mine


def test_where_no_stun_server_answers_they_meet_at_their_own_addresses() -> None:
    asyncio.run(unseen_met())


async def unseen_met() -> None:
    """On one LAN with no server, or with one side's alone; an unseen host without a NAT; and twice on one host."""
    async with site() as place:
        net, via, servers = place
        mute = [f"{servers[0]}:9"]
        lan = await net.host("lan", delay_s=0.02, nat=Nat())
        beside = await net.host("beside", beside=lan)
        open_host = await net.host("open", delay_s=0.02)
        sides = [
            ((lan, mute), (beside, mute)),
            ((lan, servers), (beside, mute)),
            ((lan, servers), (open_host, mute)),
            ((lan, mute), (lan, mute)),
        ]
        for host in (lan, beside, open_host):
            await without_ipv6(host)
        ended = await asyncio.gather(*(pair_met(via, pair, room) for room, pair in enumerate(sides, 1)))
    for said in ended:
        assert [each.get("heard") for each in said] == ["x", "x"], said
        assert all(any("nothing is known of the NATs" in note for note in each["notes"]) for each in said), said


async def without_ipv6(host: lab.Host) -> None:
    done = await host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
    assert done.returncode == 0


async def pair_met(via: str, pair: tuple[tuple[lab.Host, list[str]], ...], room: int) -> list[dict[str, Any]]:
    """What each side says, whose STUN servers are its own."""
    code, said = str(new_code(str(room))), []
    orders = [json.dumps({"code": code, "via": via, "servers": servers}) for _, servers in pair]
    words = [sys.executable, "-m", "tests.meeter"]
    programs = [
        await host.start([*words, loop, order], cwd=ROOT, stderr=None)
        for (host, _), loop, order in zip(pair, ("asyncio", "uvloop"), orders, strict=True)
    ]
    for program in programs:
        assert program.stdout is not None
        said.append(json.loads(await program.stdout.readline()))
    return said


def test_two_random_nats_are_told_to_be_out_of_reach_on_both_sides() -> None:
    asyncio.run(out_of_reach())


async def out_of_reach() -> None:
    random = Nat(APDM, allocation=Allocation.RANDOM)
    async with site() as place:
        said = await meet(place, (random, random), (0.0, 0.0), 1)
    assert {each.get("error") for each in said} <= {"ImpossiblePair", "PeerLeft"}, said
    assert "ImpossiblePair" in {each.get("error") for each in said}, said
