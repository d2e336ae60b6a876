"""What is found out of the NATs in the lab: a host behind them, a STUN server on two others, and the packets."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from simopen import lab
from simopen.lab import Allocation, LinuxRouter, Mapping, Nat, Unsolicited
from simopen.lab.nat.model import FILTERINGS
from simopen.lab.packet import Flags, Protocol
from simopen.lab.trial import stun_server
from simopen.nat.probe import PROBES
from tests.loops import this_loop
from tests.stalls import shortest

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
Routed: TypeAlias = Nat | LinuxRouter | Sequence[Nat | LinuxRouter] | None
PORT = 1314
LISTENER = """
import selectors, socket, sys
servers = [socket.create_server((sys.argv[1], port)) for port in (3478, 3479)]
print("ready", flush=True)
selector = selectors.DefaultSelector()
for server in servers:
    selector.register(server, selectors.EVENT_READ)
selector.select()
print("somebody came", flush=True)
"""
ROUND_TRIP_NS = 400_000_000  # of two hosts with 0.1 s each
MOST_SYNS = 64


@asynccontextmanager
async def served(delay_s: float = 0.01) -> AsyncIterator[tuple[lab.Network, list[lab.Host]]]:
    """A network with an RFC 5780 server on two hosts."""
    async with lab.Network() as net:
        servers = [await net.host(name, delay_s=delay_s) for name in ("one", "other")]
        for mine, its in (servers, servers[::-1]):
            await stun_server.start(mine, mine.address, its.address)
        yield net, servers


@asynccontextmanager
async def behind(nat: Routed, *, delay_s: float = 0.01) -> AsyncIterator[tuple[lab.Network, lab.Host, list[lab.Host]]]:
    """The same with a host behind these NATs."""
    async with served(delay_s) as (net, servers):
        yield net, await net.host("left", delay_s=delay_s, nat=nat), servers


async def discover(host: lab.Host, servers: Sequence[str], **options: Any) -> dict[str, Any]:
    said = json.dumps({"local": PORT, "servers": list(servers), **options})
    done = await host.run([sys.executable, "-m", "tests.discoverer", this_loop(), said], cwd=ROOT, timeout_s=60)
    assert done.returncode == 0, done.stderr.decode()
    return dict(json.loads(done.stdout))


EIM, ADM, APDM = Mapping.ENDPOINT_INDEPENDENT, Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT
NATS: dict[str, tuple[Nat | Sequence[Nat] | None, str, str]] = {
    "no NAT": (None, "none", "port-preserving"),
    "firewall": (Nat(translates=False), "none", "port-preserving"),
    "home": (Nat(), "endpoint-independent", "port-preserving"),
    "rejecting": (Nat(unsolicited=Unsolicited.RESET), "endpoint-independent", "port-preserving"),
    "closing on RST": (Nat(reset_kills=True, allocation=Allocation.RANDOM), "endpoint-independent", "random"),
    "sequential": (Nat(allocation=Allocation.SEQUENTIAL, step=2), "endpoint-independent", "sequential"),
    "address": (Nat(mapping=ADM, allocation=Allocation.RANDOM), "address-dependent", "random"),
    "address and port": (Nat(mapping=APDM, allocation=Allocation.RANDOM), "address-and-port-dependent", "random"),
    "CGN behind a home": ((Nat(), Nat(allocation=Allocation.RANDOM)), "endpoint-independent", "random"),
}


async def test_each_nat_is_named() -> None:
    async with served() as (net, (one, _)):
        for name, (nat, mapping, allocation) in NATS.items():
            host = await net.host(name, delay_s=0.01, nat=nat)
            said = await discover(host, [one.address])
            assert said["mapping"] == mapping, (name, said)
            assert said["allocation"] in {allocation, "unknown"}, (name, said)
            assert said["mapped"][0] == host.public_address, name
            assert said["hosts"][0] == [host.address, PORT], name
        record = await net.record()
    for name in NATS:
        assert sum(each.source == name and each.sent.is_syn for each in record) <= MOST_SYNS, name


async def test_hairpinning_is_found_under_every_filtering() -> None:
    # A stream through the NAT takes as long as two round trips to it: that must be less than one to the server.
    async with served(0.06) as (net, (one, _)):
        for case in product(FILTERINGS, (Unsolicited.DROP, Unsolicited.RESET), (True, False)):
            filtering, unsolicited, hairpinning = case
            nat = Nat(filtering=filtering, unsolicited=unsolicited, hairpinning=hairpinning)
            host = await net.host(str(case), delay_s=0.02, nat=nat)
            assert (await discover(host, [one.address]))["hairpinning"] is hairpinning, case


async def test_no_hairpin_takes_ports_of_a_row_that_is_to_be_foreseen() -> None:
    """Two servers are asked side by side, and only the second one's word shows that each gets a mapping of its own."""
    async with behind(Nat(APDM, allocation=Allocation.SEQUENTIAL)) as (net, host, servers):
        said = await discover(host, [server.address for server in servers])
        record = await net.record()
    assert (said["mapping"], said["hairpinning"]) == (APDM.value, None)
    syns = [each.sent for each in record if each.source == "left" and each.sent.is_syn]
    assert {each.destination.address for each in syns} == {server.address for server in servers}


async def test_a_server_elsewhere_that_names_this_host_as_its_other_half_is_not_followed_there() -> None:
    """Its address is no secret where nothing is translated; a service of this host would get the question."""
    async with lab.Network() as net:
        server, host = await net.host("one", delay_s=0.01), await net.host("left", delay_s=0.01)
        await stun_server.start(server, server.address, host.address)
        service = await host.start([sys.executable, "-c", LISTENER, host.address], stderr=None)
        assert service.stdout is not None
        await service.stdout.readline()
        said = await discover(host, [server.address])
        service.terminate()
        assert (await service.stdout.read()).decode() == ""
    assert said["mapping"] == "none", said


async def test_where_nothing_is_translated_there_is_no_hairpin_to_speak_of() -> None:
    async with behind(None) as (_, host, (one, _)):
        assert (await discover(host, [one.address]))["hairpinning"] is None


async def test_the_second_round_costs_one_round_trip_and_not_two() -> None:
    """The bound lies between the three round trips that it takes, and the four of two rounds one after the other."""

    async def round_trips() -> float:
        async with behind(Nat(), delay_s=0.1) as (net, host, servers):
            said = await discover(host, [servers[0].address])
            record = await net.record()
        assert (said["mapping"], said["observations"]) == ("endpoint-independent", 4 + PROBES)
        sent = [each for each in record if each.source == "left" and each.sent.headers.protocol == Protocol.TCP]
        over = next(each for each in sent if Flags.RST in each.sent.headers.flags)  # the other ports are let go
        return (over.sent_ns - sent[0].sent_ns) / ROUND_TRIP_NS

    assert 3 <= await shortest(round_trips, 3.8) < 3.8


async def test_servers_that_nobody_reaches_do_not_take_the_whole_timeout() -> None:
    """Which is longer than anybody waits for a test: that it comes back at all shows it."""
    async with behind(Nat()) as (_, host, servers):
        asked = [*(server.address for server in servers), "203.0.113.200", "198.51.100.200"]
        said = await discover(host, asked, timeout=1e6)
    assert said["mapping"] == "endpoint-independent"


async def test_what_the_syns_of_the_inquiry_are() -> None:
    """One to each end of the server from the punch port; the rest from others, to the one that was named."""
    async with behind(Nat()) as (net, host, servers):
        await discover(host, [servers[0].address])
        record = await net.record()
    syns = [each.sent for each in record if each.source == "left" and each.sent.is_syn]
    ours = sorted((each.destination.address, each.destination.port) for each in syns if each.source.port == PORT)
    assert ours == sorted((server.address, port) for server in servers for port in (3478, 3479))


async def test_ipv6_through_a_firewall() -> None:
    async with behind(Nat()) as (_, host, servers):
        await stun_server.start(servers[0], servers[0].address6, servers[1].address6)
        said = await discover(host, [servers[0].address6])
    assert (said["mapping"], said["mapped"]) == ("none", [host.address6, PORT])


async def test_nobody_there_is_told_by_name() -> None:
    async with behind(Nat()) as (_, host, _):
        said = await discover(host, ["203.0.113.200"], timeout=1.0)
    assert said["error"] == "StunError"
    assert re.search(r"203\.0\.113\.200:3478: no answer within [\d.]+ s", said["message"])
