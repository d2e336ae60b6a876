"""A meeting's second and third round in the lab: what each changes by the packets, and what three in vain say."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from simopen import lab
from simopen.holepunch.budget import MOST_SYNS
from simopen.lab import Nat
from simopen.rendezvous.codes import new_code
from simopen.rendezvous.exchange import ROUNDS
from tests.rendezvous.cuts import Side, mend
from tests.rendezvous.test_meeting_in_lab import ROOT, Site, site, without_ipv6

pytestmark = pytest.mark.lab(router=True)
_DEAF = """table inet cut {{
    chain in {{ type filter hook prerouting priority -300; ip saddr {} drop; }}
}}"""


def test_a_second_round_meets_and_after_a_third_it_is_told_what_was_tried() -> None:
    asyncio.run(rounds())


async def rounds() -> None:
    async with site() as place:
        await asyncio.gather(met_in_the_second(place, 1), in_vain(place, 2), in_vain_without_stun(place, 3))


async def hosts(place: Site, room: int) -> tuple[lab.Host, lab.Host]:
    net = place[0]
    pair = [await net.host(f"{name}{room}", delay_s=0.02, nat=Nat()) for name in ("left", "right")]
    for host in pair:
        await without_ipv6(host)
    return pair[0], pair[1]


async def begun(place: Site, pair: tuple[lab.Host, lab.Host], room: int) -> list[Side]:
    _, via, servers = place
    order = json.dumps({"code": str(new_code(str(room))), "via": via, "servers": servers, "tells": True})
    words = [sys.executable, "-m", "tests.meeter"]
    loops = zip(pair, ("asyncio", "uvloop"), strict=True)
    return [Side(await host.start([*words, loop, order], cwd=ROOT, stderr=None)) for host, loop in loops]


async def deafen(host: lab.Host, peer: str) -> None:
    """Nothing of the peer's gets in."""
    done = await host.run(["nft", "-f", "-"], stdin=_DEAF.format(peer).encode())
    assert done.returncode == 0, done.stderr.decode()


async def met_in_the_second(place: Site, room: int) -> None:
    """What was in the way is gone by then, and what the NATs do is asked anew."""
    left, right = await hosts(place, room)
    await deafen(left, right.public_address)
    sides = await begun(place, (left, right), room)
    first = await sides[0].until("round")
    second = await sides[0].until("round", first["at_ns"])
    await mend(left)
    for side in sides:
        end = await side.until("end")
        assert (end.get("heard"), end["rounds"]) == ("x", 2), end
    record = await place[0].record()
    asked = [each for server in place[2] for each in sent(record, left, server)]
    assert any(each.sent_ns > second["at_ns"] for each in asked)
    fired = [each.sent_ns > second["at_ns"] for each in sent(record, left, right.public_address) if each.sent.is_syn]
    assert (fired[0], fired[-1]) == (False, True)


async def in_vain(place: Site, room: int) -> None:
    left, right = await hosts(place, room)
    await deafen(left, right.public_address)
    sides = await begun(place, (left, right), room)
    ends = [await side.until("end") for side in sides]
    assert [(end["error"], end["rounds"]) for end in ends] == [("WindowClosed", 3)] * 2
    changed = [each["said"] for each in sides[0].told if each["step"] == "round"]
    assert changed == ["round 1 of 3", "round 2 of 3; the NATs are asked anew", "round 3 of 3; from another local port"]
    record = await place[0].record()
    for host, peer in ((left, right), (right, left)):
        assert "nothing at all came back" in ends[host is right]["message"]
        tried = [each for each in sent(record, host, peer.public_address) if each.sent.is_syn]
        assert len({each.sent.source.port for each in tried}) == 2
        assert len(tried) <= ROUNDS * MOST_SYNS


async def in_vain_without_stun(place: Site, room: int) -> None:
    """Behind two NATs, own addresses lead nowhere; the command says what was tried, and what is wanting."""
    _, via, servers = place
    code = str(new_code(str(room)))
    words = [sys.executable, "-m", "simopen", "meet", "--allow-plain", "--via", via, "--stun", f"{servers[0]}:9", code]
    for end in await asyncio.gather(*(host.run(words, cwd=ROOT) for host in await hosts(place, room))):
        said = end.stderr.decode()
        assert (end.returncode, end.stdout) == (1, b""), said
        assert "no stream: nothing at all came back" in said
        assert "no STUN server saw both sides, so they are tried at their own addresses" in said
        assert f"{servers[0]}:9: it refused the connection" in said
        assert "no STUN server answered it" in said  # the peer
        assert "name STUN servers that can be reached, by --stun or servers=" in said


def sent(record: lab.Record, host: lab.Host, address: str) -> list[lab.Passage]:
    """What a host has sent to an address."""
    own = (each for each in record if each.origin is lab.Origin.HOST and each.source == host.name)
    return [each for each in own if each.sent.destination.address == address]
