"""Real programs on real hosts: what the lab promises them, with packets as evidence. Order and bounds, never times."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from contextlib import AbstractAsyncContextManager

import pytest

from simopen import lab
from simopen.errors import LabError
from simopen.lab.packet import Protocol
from tests.lab.packets import checksums_hold
from tests.lab.programs import (
    CONNECT,
    TCP_CLIENT,
    TCP_SERVER,
    TRACE,
    UDP_BURST,
    UDP_CLIENT,
    UDP_OPENER,
    UDP_SERVER,
    UDP_SINK,
    python,
)
from tests.loops import ONE_LOOP

pytestmark = pytest.mark.lab
NAT = lab.Nat()
RESETTING = lab.Nat(unsolicited=lab.Unsolicited.RESET)


async def serve(host: lab.Host, program: str, *arguments: object) -> Process:
    """Start a server and wait until it says that it is ready."""
    process = await host.start(python(program, *arguments))
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def output(host: lab.Host, program: str, *arguments: object) -> str:
    """What a program prints. It must end well."""
    ended = await host.run(python(program, *arguments))
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode().strip()


@ONE_LOOP
@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("nat", [None, NAT])
async def test_a_datagram_goes_there_and_back(link: str, v6: bool, nat: lab.Nat | None) -> None:
    async with lab.Network(link=link) as net:
        left = await net.host("left", delay_s=0.010, nat=nat)
        right = await net.host("right", delay_s=0.005)
        seen, target = (
            (left.public_address6, right.public_address6) if v6 else (left.public_address, right.public_address)
        )
        await serve(right, UDP_SERVER, target)
        assert await output(left, UDP_CLIENT, target, 20) == f"seen {seen} 5000"
        record = await net.record()
    assert [(passage.source, passage.verdict) for passage in record] == [
        ("left", lab.Verdict.DELIVERED),
        ("right", lab.Verdict.DELIVERED),
    ]
    assert all(passage.received_ns - passage.sent_ns >= 15_000_000 for passage in record if passage.received_ns)


@ONE_LOOP
@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("nat", [None, NAT])
async def test_a_megabyte_arrives_whole_with_right_checksums(link: str, v6: bool, nat: lab.Nat | None) -> None:
    async with lab.Network(link=link) as net:
        left, right = await net.host("left", delay_s=0.002, nat=nat), await net.host("right", delay_s=0.002)
        target = right.public_address6 if v6 else right.public_address
        await serve(right, TCP_SERVER, target)
        assert await output(left, TCP_CLIENT, target, 1 << 20) == "same"
        record = await net.record()
    assert {passage.sent.protocol for passage in record} == {Protocol.TCP}
    assert all(len(passage.sent_data) <= 1500 for passage in record)
    assert all(checksums_hold(passage.sent_data) for passage in record)
    assert all(checksums_hold(passage.received_data) for passage in record if passage.received_data)


@ONE_LOOP
async def test_nothing_but_programs_sends(link: str) -> None:
    """No router solicitation, no duplicate address detection, no multicast report."""
    async with lab.Network(link=link) as net:
        left, right = await net.host("left"), await net.host("right")
        await serve(right, UDP_SERVER, right.public_address6)
        await output(left, UDP_CLIENT, right.public_address6, 20)
        assert len(await net.record()) == 2


@ONE_LOOP
async def test_datagrams_keep_their_order_under_jitter(link: str) -> None:
    async with lab.Network(link=link, seed=3) as net:
        left, right = await net.host("left", jitter_s=0.010), await net.host("right", jitter_s=0.010)
        server = await serve(right, UDP_SINK, right.public_address, 100)
        await output(left, UDP_BURST, right.public_address, 100)
        numbers, _ = await server.communicate()
    assert [int(number) for number in numbers.split()] == list(range(100))


@ONE_LOOP
async def test_all_is_lost_where_the_loss_is_one(link: str) -> None:
    async with lab.Network(link=link) as net:
        left, right = await net.host("left", loss=1.0), await net.host("right")
        assert await output(left, UDP_CLIENT, right.public_address, 0.1) == "silence"
        record = await net.record()
    assert {passage.verdict for passage in record} == {lab.Verdict.LOST}


@ONE_LOOP
@pytest.mark.parametrize("v6", [False, True])
async def test_a_router_tells_of_a_packet_that_ran_out_of_hops(link: str, v6: bool) -> None:
    async with lab.Network(link=link) as net:
        left, right = await net.host("left", nat=NAT), await net.host("right")
        target = right.public_address6 if v6 else right.public_address
        said = await output(left, TRACE, target, 4)
        record = await net.record()
    assert said == ("3 2001:db8:ffff::4" if v6 else "11 192.0.2.4")
    assert [(passage.source, passage.verdict) for passage in record] == [
        ("left", lab.Verdict.EXPIRED),
        ("core", lab.Verdict.DELIVERED),
    ]


@ONE_LOOP
@pytest.mark.parametrize(
    ("nat", "said", "verdict"),
    [(NAT, "TimeoutError", lab.Verdict.FILTERED), (RESETTING, "ConnectionRefusedError", lab.Verdict.RESET)],
)
async def test_a_nat_answers_an_unsolicited_syn_as_told(
    link: str, nat: lab.Nat, said: str, verdict: lab.Verdict
) -> None:
    program = CONNECT.replace("settimeout(20)", "settimeout(0.2)" if nat is NAT else "settimeout(20)")
    async with lab.Network(link=link) as net:
        left, right = await net.host("left"), await net.host("right", nat=nat)
        assert (await output(left, program, right.public_address)).split() == ["ready", said]
        record = await net.record()
    assert record[0].verdict is verdict
    assert [passage.origin for passage in record[1:]] == [lab.Origin.NAT] * (nat is RESETTING)


@ONE_LOOP
@pytest.mark.parametrize("nat", [None, NAT, RESETTING])
async def test_two_syns_that_cross_open_a_connection(link: str, nat: lab.Nat | None) -> None:
    async with lab.Network(link=link) as net:
        left = await net.host("left", delay_s=0.150, nat=nat)
        right = await net.host("right", delay_s=0.150, nat=nat)
        shots = [
            await serve(left, CONNECT, right.public_address),
            await serve(right, CONNECT, left.public_address),
        ]
        said = await asyncio.gather(*(shot.communicate(b"") for shot in shots))
        record = await net.record()
    assert [stdout for stdout, _ in said] == [b"connected\n"] * 2
    assert record.syns_crossed("left", "right")
    assert record.opened_simultaneously("left", "right")


@ONE_LOOP
async def test_an_ordinary_connection_is_not_a_simultaneous_one(link: str) -> None:
    async with lab.Network(link=link) as net:
        left, right = await net.host("left", delay_s=0.002, nat=NAT), await net.host("right")
        await serve(right, TCP_SERVER, right.public_address)
        assert await output(left, TCP_CLIENT, right.public_address, 10) == "same"
        record = await net.record()
    assert not record.syns_crossed("left", "right")
    assert not record.opened_simultaneously("left", "right")


CARRIER = lab.Nat(
    lab.Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=lab.Allocation.RANDOM, unsolicited=lab.Unsolicited.ICMP
)


@ONE_LOOP
async def test_a_home_behind_a_carriers_nat(link: str) -> None:
    async with lab.Network(link=link, seed=1) as net:
        left = await net.host("left", nat=[NAT, CARRIER])
        right = await net.host("right")
        server = await serve(right, UDP_SERVER, right.public_address)
        seen = (await output(left, UDP_CLIENT, right.public_address, 20)).split()
        await server.wait()
        assert (await output(right, CONNECT, left.public_address)).split() == ["ready", "ConnectionRefusedError"]
        record = await net.record()
    assert seen[:2] == ["seen", left.public_address]
    assert seen[2] != "5000"
    (syn,) = record.syns("right", "left")
    assert (syn.verdict, syn.decided_by) == (lab.Verdict.REFUSED_ICMP, "left/1")
    assert all(checksums_hold(passage.sent_data) for passage in record)
    assert all(checksums_hold(passage.received_data) for passage in record if passage.received_data)


@ONE_LOOP
async def test_two_hosts_on_one_lan_meet_directly(link: str) -> None:
    async with lab.Network(link=link) as net:
        left = await net.host("left", delay_s=0.010, nat=NAT)
        right = await net.host("right", beside=left)
        await serve(right, UDP_SERVER, right.address)
        assert await output(left, UDP_CLIENT, right.address, 20) == f"seen {left.address} 5000"
    assert left.public_address == right.public_address


@ONE_LOOP
@pytest.mark.parametrize("hairpinning", [False, True])
async def test_two_hosts_behind_one_nat_meet_by_its_address_where_it_hairpins(link: str, hairpinning: bool) -> None:
    nat = lab.Nat(filtering=lab.Filtering.ENDPOINT_INDEPENDENT, hairpinning=hairpinning)
    async with lab.Network(link=link) as net:
        left = await net.host("left", nat=nat)
        right = await net.host("right", beside=left)
        await output(right, UDP_OPENER, "203.0.113.99")
        await net.clear_record()
        await serve(right, UDP_SERVER, right.address)
        said = await output(left, UDP_CLIENT, right.public_address, 20 if hairpinning else 0.1)
        record = await net.record()
    assert said == (f"seen {left.public_address} 5000" if hairpinning else "silence")
    assert {passage.decided_by for passage in record} == {"" if hairpinning else "left/0"}


@ONE_LOOP
async def test_a_host_beside_another_has_its_access(link: str) -> None:
    async with lab.Network(link=link) as net, lab.Network(link=link) as other:
        left = await net.host("left", delay_s=0.010, nat=NAT)
        with pytest.raises(ValueError, match="give no other option"):
            await net.host("right", delay_s=0.010, beside=left)
        with pytest.raises(LabError, match="no such host"):
            await other.host("right", beside=left)
        assert (await net.host("right", beside=left)).conditions == left.conditions


@ONE_LOOP
async def test_packets_are_copied_and_wait_for_the_link(link: str) -> None:
    """A burst through a link that takes a hundred of them a second; a tenth of a second's worth may wait."""
    async with lab.Network(link=link) as net:
        left = await net.host("left", bandwidth_bps=31 * 8 * 100, duplicate=1.0)
        right = await net.host("right")
        await serve(right, UDP_SINK, right.public_address, 1000)
        await output(left, UDP_BURST, right.public_address, 1000)
        await output(left, UDP_CLIENT, "203.0.113.99", 0.2)  # until the queue has run empty
        record = await net.record()
    sent = record.between("left", "right")
    delivered = [passage for passage in sent if passage.verdict is lab.Verdict.DELIVERED]
    assert 10 <= len(delivered) < 1000
    assert {passage.verdict for passage in sent} == {lab.Verdict.DELIVERED, lab.Verdict.LOST}
    copies = record.where(lambda passage: passage.origin is lab.Origin.CORE)
    assert [copy.sent_data for copy in copies] == [passage.sent_data for passage in delivered]
    times_ns = [passage.received_ns for passage in delivered if passage.received_ns is not None]
    assert times_ns == sorted(times_ns)
    assert times_ns[-1] - delivered[0].sent_ns >= (len(delivered) - 1) * 9_000_000


@ONE_LOOP
async def test_the_record_can_be_begun_anew(link: str) -> None:
    async with lab.Network(link=link) as net:
        left = await net.host("left")
        await output(left, UDP_BURST, "203.0.113.99", 1)
        assert [passage.verdict for passage in await net.record()] == [lab.Verdict.UNROUTABLE]
        await net.clear_record()
        assert len(await net.record()) == 0


@ONE_LOOP
async def test_thirty_hosts_started_together_reach_each_other(link: str) -> None:
    async with lab.Network(link=link) as net:
        hosts = await asyncio.gather(*(net.host(f"host {number}", nat=NAT) for number in range(29)))
        server = await net.host("server")
        assert len({host.public_address for host in hosts}) == 29
        await serve(server, UDP_SERVER, server.public_address)
        assert await output(hosts[-1], UDP_CLIENT, server.public_address, 20) == f"seen {hosts[-1].public_address} 5000"


async def test_a_program_gets_its_input_environment_and_directory() -> None:
    program = "import os, sys; print(sys.stdin.read(), os.environ['X'], os.getcwd(), flush=True); sys.exit(7)"
    async with lab.Network() as net:
        left = await net.host("left")
        ended = await left.run(python(program), stdin=b"in", env={"X": "y"}, cwd="/")
    assert ended == lab.Completed(7, b"in y /\n", b"")


async def test_a_program_that_is_not_there_says_so() -> None:
    async with lab.Network() as net:
        ended = await (await net.host("left")).run(["/no/such/program"])
    assert ended.returncode == 127
    assert b"/no/such/program" in ended.stderr


@pytest.mark.parametrize("name", ["left", "", "core"])
async def test_a_hosts_name_is_new_and_a_name(name: str) -> None:
    async with lab.Network() as net:
        await net.host("left")
        with pytest.raises(LabError, match="cannot be called"):
            await net.host(name)


async def test_a_network_is_used_while_it_is_open() -> None:
    net = lab.Network()
    with pytest.raises(LabError, match="not open"):
        await net.host("left")
    async with net:
        left = await net.host("left")
    with pytest.raises(LabError, match="not open"):
        await left.run(["true"])


def test_an_unknown_link_is_refused() -> None:
    with pytest.raises(ValueError, match="carrier pigeon"):
        lab.Network(link="carrier pigeon")


def test_networks_are_async_context_managers() -> None:
    assert isinstance(lab.Network(), AbstractAsyncContextManager)
