"""The public calls on loopback: arguments, errors, cancellation, strangers. What crosses a network is in lab/."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import socket
import struct
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import simopen
from simopen.clock import source as clock
from simopen.clock.instant import Ahead
from simopen.clock.source import FixedClock, LocalClock
from simopen.errors import Flaw
from simopen.holepunch.budget import MOST_SYNS
from simopen.holepunch.targets import Aim, budgeted, looked_up, reachable
from simopen.lab import Allocation, Mapping, Nat
from simopen.model.endpoint import Endpoint, Reach, reach
from simopen.model.estimate import Reading
from simopen.model.event import Fired
from simopen.model.nat import Filtering, Profile
from simopen.model.nat import Mapping as Mapped
from simopen.model.report import Report
from simopen.model.shot import Shot
from simopen.model.times import UtcNs
from simopen.net import sock_diag
from simopen.net.routes import source_address
from simopen.ticket.hold import issued
from tests.connection_table import connections
from tests.loopback import HERE, THERE, ports
from tests.meeting import profiles
from tests.modelled import Model
from tests.stalls import ALONE_S
from tests.watched import Watched

__all__ = ["ports"]  # the fixture is used by name

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LOWEST_PORT = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def plain() -> simopen.Estimate:
    """This machine's clock as it is: no test may ask a server outside."""
    return clock.plain()


async def both(ports: tuple[int, int], **options: Any) -> tuple[Pair, Pair]:
    left, right = (HERE, ports[0]), (THERE, ports[1])
    options = {"clock": plain(), "window": 5, **options}
    streams = await asyncio.gather(
        simopen.connect(right, local=left, **options), simopen.connect(left, local=right, **options)
    )
    return streams[0], streams[1]


async def close(*pairs: Pair) -> None:
    for _, writer in pairs:
        writer.close()
    for _, writer in pairs:
        await writer.wait_closed()


def report_of(pair: Pair) -> Report:
    report = pair[1].get_extra_info("simopen")
    assert isinstance(report, Report)
    return report


def resetting(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return sock


# --- what works


@pytest.mark.parametrize("ahead_s", [None, 0.05, -0.5])
async def test_both_sides_get_the_same_stream(ports: tuple[int, int], ahead_s: float | None) -> None:
    at = None if ahead_s is None else time.time() + ahead_s
    left, right = await both(ports, at=at)
    left[1].write(b"I love you.")
    left[1].write_eof()
    assert await right[0].read() == b"I love you."
    right[1].write(b"I know.")
    right[1].write_eof()
    assert await left[0].read() == b"I know."
    await close(left, right)


async def test_the_report_tells_what_was_done(ports: tuple[int, int]) -> None:
    at = datetime.fromtimestamp(time.time() + 0.05, UTC)
    left, right = await both(ports, at=at)
    for pair, peer in ((left, Endpoint(THERE, ports[1])), (right, Endpoint(HERE, ports[0]))):
        report = report_of(pair)
        assert report.peers == (peer,)
        assert report.remote == peer
        assert report.listening
        assert report.late_s >= 0
        assert report.via is not None
        assert report.attempts[0].planned_ns == report.instant_ns
        assert report.attempts[0].started_ns >= report.instant_ns
        as_dict = report.as_dict()
        assert as_dict["instant"] == pytest.approx(at.timestamp(), abs=1e-3)
        assert as_dict["via"] in ("connect", "accept")
    await close(left, right)


async def test_the_socket_is_fit_for_use(ports: tuple[int, int]) -> None:
    left, right = (HERE, ports[0]), (THERE, ports[1])
    (one, _), (other, _) = await asyncio.gather(
        simopen.punch(right, local=left, clock=plain()), simopen.punch(left, local=right, clock=plain())
    )
    with one, other:
        for sock in (one, other):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 0, 0)
            assert not sock.getblocking()
            assert sock.proto == socket.IPPROTO_TCP
        assert one.getpeername() == other.getsockname()


async def test_ipv6(ports: tuple[int, int]) -> None:
    left, right = ("::1", ports[0]), ("::1", ports[1])
    pairs = await asyncio.gather(
        simopen.connect(right, local=left, clock=plain()), simopen.connect(left, local=right, clock=plain())
    )
    assert report_of(pairs[0]).remote == Endpoint("::1", ports[1])
    await close(*pairs)


async def test_a_name_in_both_families_is_fired_at_in_both(ports: tuple[int, int]) -> None:
    """The peer listens in IPv4 only; the shots at ::1 are answered by RSTs."""
    with socket.create_server(("127.0.0.1", ports[1])) as server:
        sock, report = await simopen.punch(("localhost", ports[1]), local=ports[0], clock=plain())
        with sock, server.accept()[0]:
            assert report.remote == Endpoint("127.0.0.1", ports[1])
            assert {peer.family for peer in report.peers} >= {socket.AF_INET}


async def test_of_several_endpoints_the_first_named_wins_on_both_sides(ports: tuple[int, int]) -> None:
    """Both families are reachable both ways, so two streams come up; each side must choose the same."""
    at = time.time() + 0.1
    (one, first), (other, second) = await asyncio.gather(
        simopen.punch([("::1", ports[1]), (HERE, ports[1])], local=ports[0], at=at, clock=plain()),
        simopen.punch([("::1", ports[0]), (HERE, ports[0])], local=ports[1], at=at, clock=plain()),
    )
    with one, other:
        assert first.remote == Endpoint("::1", ports[1])
        assert second.remote == Endpoint("::1", ports[0])
        one.send(b"x")
        assert await asyncio.get_running_loop().sock_recv(other, 10) == b"x"


async def test_one_local_port_to_many_destinations_at_once(ports: tuple[int, int]) -> None:
    """All share one listener: each stream must reach the connect that named its peer."""
    peers = [(f"127.0.1.{n}", ports[1]) for n in range(1, 21)]
    mine = (HERE, ports[0])
    streams = await asyncio.gather(
        *(simopen.connect(peer, local=mine, clock=plain()) for peer in peers),
        *(simopen.connect(mine, local=peer, clock=plain()) for peer in peers),
    )
    ours, theirs = streams[: len(peers)], streams[len(peers) :]
    for peer, (_, writer) in zip(peers, ours, strict=True):
        writer.write(peer[0].encode())
        writer.write_eof()
    assert [(await reader.read()).decode() for reader, _ in theirs] == [peer[0] for peer in peers]
    states = {peer: sock_diag.state(mine, Endpoint(*peer)) for peer in peers}
    remotes = [writer.get_extra_info("peername") for _, writer in ours]
    await close(*streams)
    assert remotes == peers
    assert None not in states.values()


@pytest.mark.parametrize(("limit", "kind"), [(None, TypeError), ("1", TypeError), (0, ValueError), (-1, ValueError)])
async def test_a_buffer_limit_that_is_none_is_refused_before_anybody_is_met(limit: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="limit"):
        await simopen.connect((HERE, 9), at=time.time() + 3600, limit=limit)
    with pytest.raises(kind, match="limit"):
        await simopen.connect_self((HERE, 9), limit=limit)


async def test_connect_self_reads_what_it_writes(ports: tuple[int, int]) -> None:
    reader, writer = await simopen.connect_self(ports[0])
    writer.write(b"echo")
    assert await reader.readexactly(4) == b"echo"
    assert writer.get_extra_info("peername") == writer.get_extra_info("sockname") == (HERE, ports[0])
    await close((reader, writer))


# --- bad arguments: nothing is opened


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"peer": (HERE, 0)}, ValueError, "between 1 and 65535"),
        ({"peer": (HERE, 65536)}, ValueError, "between 1 and 65535"),
        ({"local": 0}, ValueError, "local port"),
        ({"local": 65536}, ValueError, "local port"),
        ({"local": ("localhost", 99)}, ValueError, "IP address of this host"),
        ({"window": 0}, ValueError, "positive"),
        ({"first_ttl": 0, "at": 2e9}, ValueError, "1 and 255"),
        ({"first_ttl": 256, "at": 2e9}, ValueError, "1 and 255"),
        ({"first_ttl": "2", "at": 2e9}, TypeError, "an int"),
        ({"first_ttl": 2, "at": None}, ValueError, "needs an instant"),
        ({"mine": Profile()}, TypeError, "goes along with one of the peer's"),
        ({"peer": Profile()}, TypeError, "goes along as `mine`"),
        ({"peer": "AI" * 40}, TypeError, "peer is a ticket's text: simopen.parse_ticket makes"),
        ({"mine": "AI" * 40}, TypeError, "mine is a text, which has no private half"),
        ({"window": -1}, ValueError, "positive"),
        ({"window": float("nan")}, ValueError, "positive"),
        ({"window": "10"}, TypeError, "window"),
        ({"at": datetime(2026, 1, 1)}, ValueError, "time zone"),
        ({"at": "22:14"}, TypeError, "instant"),
        ({"peer": ("0.0.0.0", 99)}, ValueError, "no single host"),
        ({"peer": ("224.0.0.1", 99)}, ValueError, "no single host"),
        ({"peer": ("255.255.255.255", 99)}, ValueError, "no single host"),
        ({"peer": ("no..name", 99)}, simopen.ResolutionError, "no address"),
        ({"peer": (HERE, 2), "local": ("::1", 3)}, simopen.ResolutionError, "other address family"),
        ({"peer": (HERE, 99), "local": ("::", 99)}, simopen.ResolutionError, "other address family"),
        ({"peer": ("::1", 99), "local": ("0.0.0.0", 99)}, simopen.ResolutionError, "other address family"),
        ({"peer": (HERE, 99)}, simopen.SelfConnection, "connected to itself"),
        ({"peer": ("::1", 99), "local": 99}, simopen.SelfConnection, "connect_self"),
        ({"peer": (HERE, 99), "local": (HERE, 99)}, simopen.SelfConnection, "connect_self"),
        ({"peer": ("127.0.1.1", 99)}, simopen.SelfConnection, "connected to itself"),
        ({"peer": ("::ffff:127.0.0.1", 99)}, simopen.SelfConnection, "127.0.0.1:99 is this host's own"),
        ({"peer": ("::ffff:7f00:101", 99), "local": ("0.0.0.0", 99)}, simopen.SelfConnection, "127.0.1.1:99"),
        ({"peer": ("127.1", 99)}, ValueError, "no IPv4 address"),
        ({"peer": ("010.0.0.1", 99)}, ValueError, "no IPv4 address"),
        ({"peer": ("fe80::1", 99)}, ValueError, "name the interface"),
        ({"peer": ("fe80::1%nosuch0", 99)}, simopen.ResolutionError, "no interface of that name"),
        ({"peer": ("127.0.0.2:99", 99)}, ValueError, "name host and port apart"),
        ({"local": ("127.1", 99)}, ValueError, "no IPv4 address"),
        ({"local": ("fe80::1", 99)}, ValueError, "name the interface"),
        ({"peer": ("::1", 9), "local": ("fe80::1%nosuch0", 99)}, simopen.ResolutionError, "no interface named"),
    ],
)
async def test_bad_arguments(options: dict[str, Any], error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        await simopen.punch(**{"peer": (HERE, 2), "clock": plain(), "window": 0.2, **options})


def seen_at(mapped: str, port: int, *hosts: str) -> Profile:
    """As a ticket tells it, of a NAT that has one mapping for all."""
    return Profile(
        Mapped.ENDPOINT_INDEPENDENT,
        mapped=Endpoint(mapped, port),
        hosts=tuple(Endpoint(host, port) for host in hosts or ("192.168.1.2",)),
    )


@pytest.mark.parametrize("named", ["127.0.0.1", "127.0.1.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "own"])
async def test_a_ticket_that_names_this_host_yields_no_stream(ports: tuple[int, int], named: str) -> None:
    if named == "own":
        named = source_address(Endpoint("203.0.113.9", 9), None) or HERE
    with socket.create_server(("::", ports[1]), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        server.setblocking(False)
        for theirs in (seen_at(named, ports[1]), seen_at("203.0.113.7", ports[1], named)):
            mine = seen_at("203.0.113.5", ports[0])
            with pytest.raises(simopen.PunchError) as caught:
                await simopen.punch(theirs, mine=mine, clock=plain(), window=0.1)
            told = caught.value.report
            assert told is None or named not in {peer.address for peer in told.peers}
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_where_the_peers_public_address_is_this_hosts_nothing_is_fired(ports: tuple[int, int]) -> None:
    """Of another address of it than the one that it is seen at: a service of this host would answer."""
    own = source_address(Endpoint("203.0.113.9", 9), None)
    if own is None:
        pytest.skip("this host has no address but loopback's")
    at = "10.255.1.1" if reach(own) is Reach.SITE else "203.0.113.5"
    ours, theirs = seen_at(at, ports[0]), seen_at(own, ports[1])
    with pytest.raises(simopen.ImpossiblePair, match="it is this host's own address"):
        await simopen.punch(theirs, mine=ours, clock=plain(), window=0.1)


async def test_a_name_that_also_means_nobody_is_tried_at_its_other_address(ports: tuple[int, int]) -> None:
    pairs = (("0.0.0.0", ports[1]), ("fe80::9", ports[1]), (HERE, ports[1]))
    shots, notes = reachable([Shot(ports[0], Endpoint(*pair)) for pair in pairs], None)
    assert [shot.remote for shot in shots] == [Endpoint(HERE, ports[1])]
    assert ["no single host" in notes[0], "as in fe80::1%eth0" in notes[1], len(notes)] == [True, True, 2]


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "255.255.255.255", "127.255.255.255"])
def test_what_is_nobodys_is_not_called_this_hosts_own(address: str, ports: tuple[int, int]) -> None:
    """A socket could be bound to each. At the very port that is fired from."""
    with pytest.raises(simopen.ResolutionError, match=r"no single host|no route to it"):
        reachable([Shot(ports[0], Endpoint(address, ports[0]))], None)


async def test_what_a_thousand_endpoints_lack_is_told_in_one_note(ports: tuple[int, int]) -> None:
    peers = [(f"2001:db8::{n:x}", ports[1]) for n in range(1, 1000)]
    with pytest.raises(simopen.ResolutionError) as caught:
        await simopen.punch(peers, local=(HERE, ports[0]), clock=plain())
    assert ", and 995 more: the local address 127.0.0.1 is of the other" in str(caught.value)
    assert "left out" not in str(caught.value)
    assert len(str(caught.value)) < 400


async def test_of_several_endpoints_the_one_that_is_this_hosts_own_is_left_out(ports: tuple[int, int]) -> None:
    with socket.create_server((THERE, ports[1])) as server:
        peers = [(HERE, ports[0]), ("127.9.9.9", ports[0]), (THERE, ports[1])]
        sock, report = await simopen.punch(peers, local=ports[0], clock=plain())
        with sock, server.accept()[0]:
            assert report.remote == Endpoint(THERE, ports[1])
    assert [note for note in report.notes if "127.9.9.9" in note and "left out: it is this host's own endpoint" in note]


def test_what_a_name_server_says_costs_no_more_syns_than_a_ticket(ports: tuple[int, int]) -> None:
    """Sixteen addresses, and each may refuse; those that the kernel sends again count as well."""
    shots = tuple(Shot(ports[0], Endpoint(f"203.0.113.{n}", ports[1])) for n in range(1, 17))
    aim = Aim((None, ports[0]), shots, names=(("many.example", ports[1]),))
    fired, left, resends = budgeted(aim, None)
    assert left is not None
    assert len(fired) * (1 + resends) + left <= MOST_SYNS
    assert budgeted(replace(aim, names=()), None) == (shots, None, 0)


async def test_a_silent_resolver_is_waited_for_no_longer_than_the_window() -> None:
    silent = threading.Event()

    def look_up(*_: object, **__: object) -> list[Any]:
        silent.wait()
        return []

    try:
        with pytest.raises(
            simopen.ResolutionError, match=r"address of 'home.example' within 0\.1 s; is the network up"
        ):
            await looked_up((("home.example", 9),), 0.1, look_up)
    finally:
        silent.set()


async def test_addresses_are_there_however_little_time_is_left() -> None:
    """Nobody is asked for them: a loop that was busy for that long has lost none."""
    found = await looked_up(((HERE, 9), (THERE, 9)), 0, pytest.fail)
    assert found.endpoints == (Endpoint(HERE, 9), Endpoint(THERE, 9))


class Resolver:
    """Name servers that cannot tell `fails` times, and then can. They cannot be slow."""

    def __init__(self, fails: int) -> None:
        self.fails, self.asked = fails, 0

    def __call__(self, *_: object, **__: object) -> list[Any]:
        self.asked += 1
        if self.asked <= self.fails:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (THERE, 9))]


async def test_a_name_that_nobody_can_tell_at_the_moment_is_asked_for_again() -> None:
    resolver = Resolver(1)
    found = await looked_up((("home.example", 9),), 10, resolver)
    assert found.endpoints == (Endpoint(THERE, 9),)
    assert resolver.asked == 2


async def test_a_name_that_nobody_can_tell_for_as_long_as_that_helps_says_so() -> None:
    resolver = Resolver(9)
    with pytest.raises(simopen.ResolutionError, match=r"could not be looked up \(Temporary failure in name resolution"):
        await looked_up((("home.example", 9),), 0.1, resolver)
    assert resolver.asked == 1


class AskedError(Exception):
    """That the time was asked for."""


class Asking:
    """A clock that nobody has checked, and that says whether somebody wants to."""

    local, limit_s = clock.MACHINE, clock.LIMIT_S

    def now_estimate(self) -> simopen.Estimate:
        return plain()

    async def refresh(self, timeout_s: float = 1.0) -> simopen.Estimate:
        raise AskedError


@pytest.mark.parametrize(
    ("allocation", "at", "error"),
    [
        (Allocation.SEQUENTIAL, None, AskedError),
        (Allocation.RANDOM, None, simopen.ImpossiblePair),
        (Allocation.RANDOM, Ahead(60), AskedError),
    ],
)
async def test_what_depends_on_the_time_is_planned_by_a_clock_that_was_checked(
    allocation: Allocation, at: Ahead | None, error: type[Exception]
) -> None:
    """A row of ports has moved on since it was seen, though nobody waits for an instant."""
    random = Nat(Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)
    ours, theirs = profiles(Model([replace(random, allocation=allocation)], seed=1), Model([random], seed=2, site=1))
    for mine, yours in ((ours, theirs), (theirs, ours)):
        with pytest.raises(error):
            await simopen.punch(yours, mine=mine, at=at, clock=Asking())


async def test_a_pair_that_cannot_connect_says_why_at_once() -> None:
    """Both profiles as `discover` would find them behind NATs that choose a random port for each destination."""
    random = Nat(Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)
    ours, theirs = profiles(Model([random], seed=1), Model([random], seed=2, site=1))
    with pytest.raises(simopen.ImpossiblePair) as caught:
        await simopen.punch(theirs, mine=ours, at=time.time() + 60, clock=plain())
    assert caught.value.diagnosis is not None
    assert caught.value.diagnosis.cause is simopen.Cause.IMPOSSIBLE_PAIR
    assert caught.value.diagnosis.sentence == str(caught.value)
    assert caught.value.report is None


async def test_a_plan_is_worked_out_beside_the_loop_and_may_be_cancelled() -> None:
    random = Nat(Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)
    ours, theirs = profiles(Model([random], seed=1), Model([random], seed=2, site=1))
    hosts = Watched(*theirs.hosts)
    theirs = replace(theirs, hosts=hosts)
    with pytest.raises(simopen.ImpossiblePair):
        await simopen.punch(theirs, mine=ours, at=time.time() + 60, clock=plain())
    assert hosts.threads
    assert threading.current_thread().name not in hosts.threads
    soon = asyncio.create_task(simopen.punch(theirs, mine=ours, at=time.time() + 90, clock=plain()))
    await asyncio.sleep(0)
    soon.cancel()
    await asyncio.wait({soon})
    assert soon.cancelled()


@pytest.mark.parametrize("both", [False, True])
async def test_two_tickets_that_allow_it_need_no_further_word_to_spray(both: bool) -> None:
    """Where nothing but the spray is left, a pair is impossible unless both owners allow it."""
    random = Nat(Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)
    ours, theirs = profiles(Model([random], seed=1), Model([Nat()], seed=2, site=1))
    theirs = replace(theirs, filtering=Filtering.ADDRESS_AND_PORT_DEPENDENT)
    at = round(time.time()) - 60
    mine = issued(ours, at, ours.hosts[0].port, ahead_ns=0, spray=True)
    its = issued(theirs, at, theirs.hosts[0].port, ahead_ns=0, spray=both)
    with pytest.raises(simopen.PunchError) as caught:
        await simopen.punch(its, mine=mine, at=at, window=1, clock=plain())
    # With the spray, it gets as far as the instant, which has passed; or as this host's routes.
    assert isinstance(caught.value, simopen.ImpossiblePair) is not both
    told = caught.value.report
    assert told is None or (told.by_ticket and not told.by_code)


async def test_by_tickets_nothing_is_sent_without_a_key_that_can_be_proven() -> None:
    ours, theirs = profiles(Model([Nat()], seed=1), Model([Nat()], seed=2, site=1))
    at = round(time.time()) + 60
    mine, its = (issued(each, at, each.hosts[0].port, ahead_ns=0) for each in (ours, theirs))
    spent = issued(ours, at, ours.hosts[0].port, ahead_ns=0)
    assert spent.private is not None
    spent.private.spend()
    read = simopen.parse_ticket(mine.encode())
    for own, peers, flaw in ((read, its, Flaw.KEYLESS), (spent, its, Flaw.USED), (mine, read, Flaw.OWN)):
        with pytest.raises(simopen.TicketError) as caught:
            await simopen.connect(peers, mine=own, at=at, clock=plain())
        assert caught.value.flaw is flaw


async def test_an_instant_long_past_is_missed(ports: tuple[int, int]) -> None:
    with pytest.raises(simopen.MissedInstant, match="nothing was sent"):
        await simopen.punch((HERE, ports[1]), local=ports[0], at=time.time() - 60, window=1, clock=plain())


# --- the local endpoint


async def test_a_port_that_another_program_does_not_share() -> None:
    with socket.socket() as holder:
        holder.bind((HERE, 0))
        port = holder.getsockname()[1]
        with pytest.raises(simopen.LocalEndpointError, match="another program"):
            await simopen.punch((THERE, port), local=port, clock=plain())


async def test_an_address_that_is_not_this_hosts(ports: tuple[int, int]) -> None:
    with pytest.raises(simopen.LocalEndpointError, match="not this host's"):
        await simopen.punch((HERE, ports[1]), local=("203.0.113.9", ports[0]), clock=plain())


async def test_the_same_destination_twice_at_once(ports: tuple[int, int]) -> None:
    first = asyncio.create_task(simopen.punch((HERE, ports[1]), local=ports[0], at=time.time() + 60, clock=plain()))
    await asyncio.sleep(0)
    await until(lambda: simopen_ports(ports[0]))
    with pytest.raises(simopen.LocalEndpointError, match="already connecting"):
        await simopen.punch((HERE, ports[1]), local=ports[0], clock=plain())
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Look again and again: what is waited for is the kernel's state, which tells nobody."""
    while not condition():  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0.001)


def simopen_ports(port: int) -> bool:
    """Whether somebody holds the port without sharing it with a plain socket."""
    with socket.socket() as probe:
        try:
            probe.bind((HERE, port))
        except OSError:
            return True
    return False


async def test_a_destination_that_is_connected_already(ports: tuple[int, int]) -> None:
    left, right = await both(ports)
    with pytest.raises(simopen.LocalEndpointError, match="already has a connection") as caught:
        await simopen.punch((THERE, ports[1]), local=(HERE, ports[0]), clock=plain())
    assert caught.value.diagnosis is not None
    assert caught.value.diagnosis.cause is simopen.Cause.THIS_HOST
    await close(left, right)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_port_that_needs_privileges() -> None:
    code = (
        "import asyncio, os, simopen\n"
        "from simopen.clock import source as clock\n"
        "from simopen.holepunch import api\n"  # loaded while its files may still be read
        "os.setresuid(65534, 65534, 65534)\n"
        "try: asyncio.run(simopen.punch(('127.0.0.2', 1), local=1, clock=clock.plain()))\n"
        "except simopen.LocalEndpointError as error: print(error)\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    stdout, _ = await process.communicate()
    assert (b"not permitted" in stdout) or LOWEST_PORT <= 1


async def test_no_descriptors_left(ports: tuple[int, int]) -> None:
    punch = simopen.punch  # its module is loaded at first use
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(simopen.LocalEndpointError, match="file descriptors"):
            await punch((THERE, ports[1]), local=ports[0], clock=plain(), window=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- peers that fail


async def test_rsts_until_the_window_closes(ports: tuple[int, int]) -> None:
    with pytest.raises(simopen.WindowClosed) as caught:
        await simopen.punch((THERE, ports[1]), local=(HERE, ports[0]), window=ALONE_S, clock=plain())
    assert "answered by RST" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    report = caught.value.report
    assert caught.value.diagnosis is not None
    assert caught.value.diagnosis.cause is simopen.Cause.REFUSED
    assert any("come from near" in fact for fact in caught.value.diagnosis.evidence)
    assert report is not None
    assert len(report.attempts) > 1
    assert report.via is None
    assert report.ended_ns - report.instant_ns >= ALONE_S * 1e9


async def test_a_peer_that_comes_late_is_met(ports: tuple[int, int]) -> None:
    early = asyncio.create_task(simopen.connect((THERE, ports[1]), local=(HERE, ports[0]), clock=plain()))
    await until(lambda: simopen_listens(ports[0]))
    late = await simopen.connect((HERE, ports[0]), local=(THERE, ports[1]), clock=plain())
    await close(await early, late)


def simopen_listens(port: int) -> bool:
    return any(row.local.port == port and row.state == "LISTEN" for row in connections(socket.AF_INET))


async def test_a_peer_that_connects_and_closes_gives_a_stream_that_ends(ports: tuple[int, int]) -> None:
    opening = asyncio.create_task(simopen.connect((THERE, ports[1]), local=(HERE, ports[0]), clock=plain()))
    await until(lambda: simopen_listens(ports[0]))
    await dial_and_close(THERE, ports)
    reader, writer = await opening
    assert await reader.read() == b""
    await close((reader, writer))


async def dial_and_close(source: str, ports: tuple[int, int], *, reset: bool = False) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.bind((source, 0))
        await loop.sock_connect(sock, (HERE, ports[0]))
        if reset:
            resetting(sock)


async def test_a_peer_that_connects_and_resets_leaves_no_hang(ports: tuple[int, int]) -> None:
    """Either the stream came up and is broken, or it never counted and the window closed."""
    opening = asyncio.create_task(
        simopen.connect((THERE, ports[1]), local=(HERE, ports[0]), clock=plain(), window=ALONE_S)
    )
    await until(lambda: simopen_listens(ports[0]))
    await dial_and_close(THERE, ports, reset=True)
    try:
        reader, writer = await opening
    except simopen.PunchError:
        return
    with pytest.raises(ConnectionError):
        await reader.read()
    writer.close()


@pytest.mark.parametrize("how", ["connect", "punch"])
async def test_a_stream_that_the_peer_resets_before_this_loop_comes_round_is_given_with_its_end(
    ports: tuple[int, int], how: str
) -> None:
    """As it would be had the loop been faster: who has it is told by the first read, not by silence."""
    with socket.create_server((THERE, ports[1])) as server:

        def reset_it(event: simopen.Event) -> None:
            if isinstance(event, Fired):
                resetting(server.accept()[0]).close()

        options: dict[str, Any] = {"local": (HERE, ports[0]), "clock": plain(), "on_event": reset_it}
        opened, report = await getattr(simopen, how)((THERE, ports[1]), **options)
    if how == "connect":
        with pytest.raises(ConnectionResetError):
            await opened.read()
        report.close()
        with pytest.raises(ConnectionResetError):
            await report.wait_closed()
        report = report.get_extra_info("simopen")
    else:
        with opened, pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(opened, 1)
    assert report.via is simopen.Via.CONNECT
    assert [attempt.errno for attempt in report.attempts] == [0]


def once_it_fires(port: int, busy: Callable[[], object]) -> None:
    """Keep the loop busy from the first turn on in which there is a listener."""
    loop = asyncio.get_running_loop()
    if sock_diag.listens(port):
        busy()
    else:
        loop.call_soon(once_it_fires, port, busy)


async def test_a_loop_that_is_busy_within_the_window_is_told(ports: tuple[int, int]) -> None:
    """Whatever the peer did meanwhile, nobody saw."""
    once_it_fires(ports[0], lambda: time.sleep(1.2))
    with pytest.raises(simopen.WindowClosed) as caught:
        await simopen.connect((THERE, ports[1]), local=(HERE, ports[0]), window=2, clock=plain())
    report, found = caught.value.report, caught.value.diagnosis
    assert report is not None
    assert report.stalled_s > 0.5
    assert "this process was stopped, or too busy, for" in str(found)


async def test_strangers_are_turned_away_and_the_peer_is_let_in(ports: tuple[int, int]) -> None:
    opening = asyncio.create_task(simopen.connect((THERE, ports[1]), local=(HERE, ports[0]), clock=plain()))
    await until(lambda: simopen_listens(ports[0]))
    fates = await asyncio.gather(*(knock(f"127.0.2.{n}", ports[0]) for n in range(1, 201)))
    assert fates == ["turned away"] * 200
    peer = await simopen.connect((HERE, ports[0]), local=(THERE, ports[1]), clock=plain())
    mine = await opening
    assert report_of(mine).strangers == 200
    assert len(report_of(mine).arrivals) == 8
    assert report_of(mine).remote == Endpoint(THERE, ports[1])
    await close(mine, peer)


async def knock(source: str, port: int) -> str:
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.bind((source, 0))
        try:
            await loop.sock_connect(sock, (HERE, port))
            return "turned away" if await loop.sock_recv(sock, 1) == b"" else "let in"
        except ConnectionResetError:
            return "turned away"


@pytest.mark.parametrize("ahead_s", [30, 300])
async def test_nobody_is_let_in_before_the_instant(ports: tuple[int, int], ahead_s: float) -> None:
    """Nor in the last minute, where a SYN is looked for: it is sent again after 1 s, and refused then."""
    opening = asyncio.create_task(
        simopen.connect((THERE, ports[1]), local=(HERE, ports[0]), at=time.time() + ahead_s, clock=plain())
    )
    await until(lambda: simopen_ports(ports[0]))
    with pytest.raises(ConnectionRefusedError):
        await dial_and_close(THERE, ports)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)


# --- the clock


class Stepped(LocalClock):
    """This machine's clocks, with the wall clock set by `step_s` once `armed`. It cannot step the real one."""

    def __init__(self, step_s: float) -> None:
        self.step_s, self.reads = step_s, 0

    def read(self) -> Reading:
        self.reads += 1
        now = super().read()
        step_ns = 0 if self.reads == 1 else round(self.step_s * 1e9)
        return Reading(now.monotonic_ns, now.realtime_ns + step_ns, now.boottime_ns)


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
async def test_a_wall_clock_that_is_set_while_waiting_moves_nothing(ports: tuple[int, int], step_s: float) -> None:
    local = Stepped(step_s)
    steady = FixedClock(clock.plain(local), local)
    at = time.time() + 0.3
    left, right = await both(ports, at=at, clock=steady)
    for pair in (left, right):
        instant_ns = steady.estimate.monotonic_at(UtcNs(round(at * 1e9)))
        assert abs(report_of(pair).instant_ns - instant_ns) <= 1000
        assert report_of(pair).fired_ns >= instant_ns - 1000
        assert local.reads > 1
    await close(left, right)


class Dozing(LocalClock):
    """This machine's clocks, if it slept for `sleeps_s` once armed, right before the shot. The wall clock goes on."""

    def __init__(self, sleeps_s: float) -> None:
        self.sleeps_s, self.asleep_s = sleeps_s, 0.0

    def doze(self) -> None:
        self.asleep_s = self.sleeps_s

    def asleep_ns(self) -> int:
        self.doze()
        return super().asleep_ns() + round(self.asleep_s * 1e9)

    def read(self) -> Reading:
        now, slept_ns = super().read(), round(self.asleep_s * 1e9)
        return Reading(now.monotonic_ns, now.realtime_ns + slept_ns, now.boottime_ns + slept_ns)


@pytest.mark.parametrize(("sleeps_s", "fires"), [(60, False), (5, True)])
async def test_a_suspend_right_before_the_instant_is_noticed(
    ports: tuple[int, int], sleeps_s: float, fires: bool
) -> None:
    """The window may be over by then, or not; the shot knows which."""
    local = Dozing(sleeps_s)
    source = FixedClock(clock.plain(local), local)
    with pytest.raises(simopen.WindowClosed if fires else simopen.MissedInstant) as caught:
        await simopen.connect((THERE, ports[1]), local=(HERE, ports[0]), at=time.time() + 0.3, window=6, clock=source)
    report = caught.value.report
    assert report is not None
    assert bool(report.fired_ns) is fires
    assert report.late_s > sleeps_s - 1
    assert f"this machine slept for {sleeps_s:.1f} s" in "; ".join(report.notes)


async def test_a_suspend_within_the_window_is_noticed(ports: tuple[int, int]) -> None:
    local = Dozing(60)
    once_it_fires(ports[0], local.doze)
    with pytest.raises(simopen.WindowClosed, match="this process was stopped, or too busy, for 1 min") as caught:
        await simopen.connect(
            (THERE, ports[1]), local=(HERE, ports[0]), window=0.3, clock=FixedClock(clock.plain(local), local)
        )
    report, found = caught.value.report, caught.value.diagnosis
    assert report is not None
    assert found is not None
    assert found.cause is simopen.Cause.THIS_HOST
    assert "this machine slept for 60.0 s within the window" in report.notes


async def test_servers_that_do_not_answer_never_delay_a_shot(
    ports: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((HERE, 0))
        asked = clock.Clock([silent.getsockname()], ask_kernel=lambda: None)
        at = time.time() + 0.4
        with caplog.at_level(logging.WARNING, "simopen"):
            left, right = await both(ports, at=at, clock=asked)
    for pair in (left, right):
        report = report_of(pair)
        assert report.fired_ns >= report.instant_ns
        assert report.as_dict()["instant"] == pytest.approx(at, abs=1e-3)
        assert any("not known well" in note for note in report.notes)
    assert "the local clock, unchecked" in caplog.text
    await close(left, right)


# --- cancellation


@pytest.mark.parametrize("ahead_s", [None, 0.0, 0.01, 0.5, 3600])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 10, 50])
async def test_cancelled_in_every_phase_nothing_is_left(
    ports: tuple[int, int], ahead_s: float | None, turns: int
) -> None:
    """The guard in conftest.py looks for sockets, tasks and threads; the port must be free again at once."""
    at = None if ahead_s is None else time.time() + ahead_s
    task = asyncio.create_task(
        simopen.connect([(THERE, ports[1]), ("::1", ports[1])], local=ports[0], at=at, clock=plain())
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled():
        task.result()[1].close()
    rows = [row for row in connections(socket.AF_INET) if row.local.port == ports[0]]
    assert all(row.state == "TIME-WAIT" for row in rows)  # an earlier test's: its port may come round again


async def test_cancelled_while_the_stream_comes_up_it_is_closed(ports: tuple[int, int]) -> None:
    """Whatever the moment, the peer sees either a stream that ends or none."""
    for turns in range(40):
        task = asyncio.create_task(simopen.connect((THERE, ports[1]), local=(HERE, ports[0]), clock=plain()))
        peer = asyncio.create_task(
            simopen.connect((HERE, ports[0]), local=(THERE, ports[1]), clock=plain(), window=0.05)
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        outcomes = await asyncio.gather(task, peer, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, tuple):
                if not outcome[1].is_closing():  # as it does by itself where the other side's end has come
                    resetting(_socket_of(outcome))
                outcome[1].close()


def _socket_of(pair: Pair) -> socket.socket:
    found: socket.socket = pair[1].get_extra_info("socket")
    return found


def test_the_errors_are_what_callers_of_open_connection_catch() -> None:
    assert issubclass(simopen.PunchError, ConnectionError)
    assert issubclass(simopen.WindowClosed, TimeoutError)
    assert simopen.PunchError("x").report is None


# --- many at once


async def test_who_waits_takes_little_memory(ports: tuple[int, int]) -> None:
    """A program may have thousands that wait: what follows the shots is not made before them."""
    count = 50
    told: list[simopen.Event] = []

    def waiting() -> int:
        return sum(isinstance(each, simopen.ClockKnown) for each in told)

    def punch(number: int) -> asyncio.Task[Any]:
        peer, at = (f"127.9.0.{number + 1}", ports[1]), time.time() + 3600
        return asyncio.create_task(
            simopen.punch(peer, local=(HERE, ports[0]), at=at, clock=plain(), on_event=told.append)
        )

    tasks = [punch(count)]  # what is loaded or made once is not counted
    await until(lambda: waiting() == 1)
    tracemalloc.start()
    try:
        tasks += [punch(number) for number in range(count)]
        await until(lambda: waiting() == 1 + count)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert taken / count < 10_240
