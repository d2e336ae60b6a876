"""The filtering of NATs in the lab, told by a server of ours that connects back."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path

import pytest

from simopen import lab
from simopen.lab import Allocation, LinuxRouter, Mapping, Nat, Unsolicited
from simopen.lab.nat.model import FILTERINGS
from simopen.model.nat import Filtering
from tests.nat.test_discovery_in_lab import discover

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
NATS = {
    f"{filtering.value}, {unsolicited.value}, {mapping.value}": Nat(
        mapping, filtering=filtering, unsolicited=unsolicited, allocation=Allocation.RANDOM
    )
    for filtering, (unsolicited, mapping) in product(
        FILTERINGS,
        (
            (Unsolicited.DROP, Mapping.ENDPOINT_INDEPENDENT),
            (Unsolicited.RESET, Mapping.ENDPOINT_INDEPENDENT),
            (Unsolicited.DROP, Mapping.ADDRESS_AND_PORT_DEPENDENT),
        ),
    )
}


@asynccontextmanager
async def served(*, addresses: int = 2) -> AsyncIterator[tuple[lab.Network, lab.Host]]:
    """A network with `simopen serve` on a host of two public addresses, of which STUN has so many."""
    async with lab.Network() as net:
        server = await net.host("server", delay_s=0.01, two_addresses=True)
        at = [each for each in (server.address, server.second_address)[:addresses] if each]
        stun = [word for each in at for word in ("--stun-address", each)]
        process = await server.start([sys.executable, "-m", "simopen", "serve", "--json", *stun], stderr=None)
        assert process.stdout is not None
        assert json.loads(await process.stdout.readline())["stun_ports"] == [3478, 3479]
        yield net, server


async def test_each_filtering_is_named() -> None:
    async with served() as (net, server):

        async def named(name: str, nat: Nat | LinuxRouter | None) -> str:
            host = await net.host(name, delay_s=0.01, nat=nat)
            return str((await discover(host, [server.address]))["filtering"])

        names = list(NATS)
        for few in (names[start : start + 3] for start in range(0, len(names), 3)):
            found = await asyncio.gather(*(named(name, NATS[name]) for name in few))
            assert dict(zip(few, found, strict=True)) == {name: NATS[name].filtering.value for name in few}
        assert await named("no NAT", None) == Filtering.ENDPOINT_INDEPENDENT.value
        record = await net.record()
    fired = [each.sent for each in record if each.source == "server" and each.sent.is_syn and not each.sent.is_syn_ack]
    assert {each.source.address for each in fired} == {server.address, server.second_address}
    askers = {each.received.source for each in record if each.destination == "server" and each.received}
    assert {each.destination for each in fired} <= askers, "it fires at nobody who did not ask"


async def test_one_address_tells_the_strictest_and_leaves_the_rest_open() -> None:
    async with served(addresses=1) as (net, server):
        hosts = [await net.host(each.value, delay_s=0.01, nat=Nat(filtering=each)) for each in FILTERINGS]
        found = await asyncio.gather(*(discover(host, [server.address]) for host in hosts))
    strict = Filtering.ADDRESS_AND_PORT_DEPENDENT
    told = {each: said["filtering"] for each, said in zip(FILTERINGS, found, strict=True)}
    assert told == {each: (each if each is strict else Filtering.UNKNOWN).value for each in FILTERINGS}


@pytest.mark.lab(router=True)
async def test_a_real_router_is_named_and_doctor_says_so() -> None:
    async with served() as (net, server):
        host = await net.host("host", delay_s=0.01, nat=LinuxRouter())
        command = [sys.executable, "-m", "simopen", "doctor", "--json", "--no-ntp", "--stun", server.address]
        done = await host.run(command, cwd=ROOT)
    assert any("address-and-port-dependent filtering" in each["found"] for each in json.loads(done.stdout)["findings"])
