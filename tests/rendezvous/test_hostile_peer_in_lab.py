"""A peer that has the code and names victims as its endpoints: whom this side fires at, and how often."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import pytest

from simopen import lab
from simopen.holepunch.budget import MOST_SYNS
from simopen.lab import Nat
from simopen.rendezvous.codes import new_code
from simopen.rendezvous.exchange import ROUNDS
from tests.rendezvous.test_meeting_in_lab import ROOT, Site, site, without_ipv6

pytestmark = pytest.mark.lab
NEVER = ("127.0.0.1", "127.9.9.9", "169.254.9.9", "224.0.0.1", "255.255.255.255", "0.0.0.0", "240.0.0.1")
PRIVATE = tuple(f"10.9.8.{last}" for last in range(1, 9))
UNSEEN_PRIVATE = 4
"""So many private addresses may be named by a peer that shows the code and was seen by no STUN server."""


def test_one_that_names_victims_gets_few_syns_sent_and_none_where_none_may_go() -> None:
    asyncio.run(on_both_loops())


async def on_both_loops() -> None:
    async with site() as place:
        await asyncio.gather(named(place, "asyncio", 1), named(place, "uvloop", 2))


async def named(place: Site, loop: str, room: int) -> None:
    net, via, servers = place
    honest, hostile = [await net.host(f"{name}{room}", delay_s=0.02, nat=Nat()) for name in ("honest", "hostile")]
    victim = await net.host(f"victim{room}", delay_s=0.02)  # answers by RST, which calls for another SYN
    for host in (honest, hostile, victim):
        await without_ipv6(host)
    order = {"code": str(new_code(str(room))), "via": via, "servers": servers}
    lies = {**order, "victims": [victim.address, *NEVER, *PRIVATE]}
    programs = [
        await host.start([sys.executable, "-m", module, loop, json.dumps(told)], cwd=ROOT, stderr=None)
        for host, module, told in ((honest, "tests.meeter", order), (hostile, "tests.hostile_meeter", lies))
    ]
    assert programs[0].stdout is not None
    said = json.loads(await programs[0].stdout.readline())
    assert (said.get("error"), said["rounds"]) == ("WindowClosed", ROUNDS), said
    syns = Counter(
        each.sent.destination.address
        for each in await net.record()
        if each.origin is lab.Origin.HOST and each.source == honest.name and each.sent.is_syn
    )
    for asked in (*servers, honest.public_address):  # itself: whether its NAT leads back to it
        del syns[asked]
    assert 0 < syns[victim.address] <= ROUNDS * MOST_SYNS
    assert sum(syns.values()) <= ROUNDS * MOST_SYNS
    assert len(syns.keys() & set(PRIVATE)) <= UNSEEN_PRIVATE
    assert syns.keys() <= {victim.address, *PRIVATE}
