"""What a port's NATs do, told by servers on loopback that lie as a NAT would; the lab has the NATs themselves."""

from __future__ import annotations

import asyncio
import math
import platform
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

import simopen
from simopen.errors import LocalEndpointError, StunError
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Mapping
from simopen.model.times import MonoNs
from simopen.nat.discovery import LOOK_S, Discovery, discovering
from simopen.nat.patience import PATIENCE_S
from simopen.nat.probe import PROBES, Inquiry
from simopen.nat.punch_port import PunchPort
from simopen.nat.stun_tcp import parse_servers
from simopen.net import own_flows
from simopen.net.sockets import sockaddr
from simopen.ticket.hold import holding, unreachable
from tests.fake_stun import FakeStun, Translation, full_server
from tests.loopback import HERE, THERE, ports
from tests.nat.test_stun_tcp import MISBEHAVIOURS
from tests.stalls import shortest
from tests.watched import Watched

__all__ = ["ports"]
LONG_S = 30.0
HOSTS, CLIENT = (HERE, THERE), "127.0.0.3"
PUBLIC = "198.51.100.9"


def endpoint_independent(seen: Endpoint, server: Endpoint) -> Endpoint:
    return Endpoint(PUBLIC, 1024 + (seen.port * 7919) % 60_000)


def address_dependent(seen: Endpoint, server: Endpoint) -> Endpoint:
    return Endpoint(PUBLIC, 1024 + (seen.port * 7919 + 17 * HOSTS.index(server.address)) % 60_000)


def address_and_port_dependent(seen: Endpoint, server: Endpoint) -> Endpoint:
    return Endpoint(PUBLIC, 1024 + (seen.port * 7919 + 17 * HOSTS.index(server.address) + 31 * server.port) % 60_000)


def untranslated(seen: Endpoint, server: Endpoint) -> Endpoint:
    return seen


NATS: dict[Mapping, Translation] = {
    Mapping.NONE: untranslated,
    Mapping.ENDPOINT_INDEPENDENT: endpoint_independent,
    Mapping.ADDRESS_DEPENDENT: address_dependent,
    Mapping.ADDRESS_AND_PORT_DEPENDENT: address_and_port_dependent,
}


@pytest.fixture
def local(ports: tuple[int, int]) -> Endpoint:
    """Where to ask from: an address that no server here has."""
    return Endpoint(CLIENT, ports[0])


@pytest.mark.parametrize("udp", [True, False], ids=["udp", "no-udp"])
@pytest.mark.parametrize(("mapping", "told"), NATS.items(), ids=[mapping.value for mapping in NATS])
async def test_one_full_server_shows_the_mapping(
    mapping: Mapping, told: Translation, *, udp: bool, ports: tuple[int, int], local: Endpoint
) -> None:
    async with full_server(HOSTS, ports, told=told, udp=udp) as servers:
        profile = await simopen.discover(local, servers=[str(next(iter(servers)))], timeout=LONG_S)
        clients = {end: server.clients for end, server in servers.items()}
    assert profile.mapping is mapping
    assert all(asked.count(local) == 1 for asked in clients.values())
    assert sum(map(len, clients.values())) == len(servers) + PROBES
    assert profile.mapped in {told(local, end) for end in servers}
    assert profile.hosts == (local,)


@pytest.mark.parametrize("udp", [True, False], ids=["udp", "no-udp"])
async def test_a_second_round_that_is_late_is_waited_for(*, udp: bool, ports: tuple[int, int], local: Endpoint) -> None:
    """Without it nothing is known of the mapping: some tenths of a second, where the first answer took some ms."""
    async with full_server(HOSTS, ports, told=address_and_port_dependent, udp=udp, others_late_s=0.4) as servers:
        profile = await simopen.discover(local, servers=[str(next(iter(servers)))], timeout=LONG_S)
    assert profile.mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT


@pytest.mark.parametrize("told", [endpoint_independent, address_and_port_dependent], ids=["unknown", "told"])
async def test_an_other_address_where_nobody_is_holds_up_no_longer_than_an_answer_shows_that_one_takes(
    told: Translation, ports: tuple[int, int], local: Endpoint
) -> None:
    """Its own other port answers: where that tells the mapping nothing more is needed, else the rest gets its time."""
    first = FakeStun(HERE, ports[0], told=told, other=Endpoint(THERE, ports[1]))
    others = [FakeStun(HERE, ports[1], told=told), *(FakeStun(THERE, port, silent=True) for port in ports)]

    async def waited_s() -> float:
        async with discovering(local, servers=[first.name], timeout=LONG_S, kind=Discovery) as found:
            found.give_up()
        known = told is address_and_port_dependent
        assert found.profile.mapping is (Mapping.ADDRESS_AND_PORT_DEPENDENT if known else Mapping.UNKNOWN)
        assert found.servers == (first.end, others[0].end)
        [note] = [note for note in found.notes if "no answer within" in note]
        return float(note.split("within ")[1].split()[0])

    async with AsyncExitStack() as stack:
        for server in (first, *others):
            await stack.enter_async_context(server)
        assert await shortest(waited_s, PATIENCE_S) < PATIENCE_S


async def test_two_plain_servers_show_whether_the_mapping_depends_on_the_address(local: Endpoint) -> None:
    async with FakeStun(HERE, told=endpoint_independent) as one, FakeStun(THERE, told=endpoint_independent) as other:
        profile = await simopen.discover(local, servers=[one.name, other.name], timeout=LONG_S)
    assert profile.mapping is Mapping.ENDPOINT_INDEPENDENT
    assert profile.mapped == endpoint_independent(local, one.end)


async def test_one_plain_server_tells_the_mapped_endpoint_and_no_more(local: Endpoint) -> None:
    async with FakeStun(told=endpoint_independent) as server:
        profile = await simopen.discover(local, servers=[server.name], timeout=LONG_S)
    assert (profile.mapping, profile.mapped) == (Mapping.UNKNOWN, endpoint_independent(local, server.end))


async def test_a_server_named_twice_is_asked_once(local: Endpoint) -> None:
    async with FakeStun() as server:
        twice: list[str | tuple[str, int]] = [server.name, (HERE, server.end.port), f"LOCALHOST:{server.end.port}"]
        await simopen.discover(local, servers=twice, timeout=LONG_S)
        assert server.clients.count(local) == 1


async def test_left_out_the_port_is_one_that_was_free() -> None:
    async with FakeStun() as server, holding(servers=[server.name]) as found:
        assert Endpoint(HERE, found.port) in server.clients
        assert {host.port for host in found.profile.hosts} == {found.port}
        assert found.profile.hosts[0] == (HERE, found.port)


async def test_over_ipv6(ports: tuple[int, int]) -> None:
    async with FakeStun("::1") as server, holding(ports[1], servers=[server.name]) as found:
        assert found.profile == found.profile6
        assert found.profile.mapped == ("::1", ports[1])


async def test_both_families_are_asked_and_judged_apart(ports: tuple[int, int]) -> None:
    async with FakeStun("::1") as six, FakeStun() as four, holding(ports[1], servers=[six.name, four.name]) as found:
        assert found.profile6 is not None
        assert found.profile6.mapped == ("::1", ports[1])
        assert found.profile.mapped == (HERE, ports[1])


async def test_where_each_server_gets_a_mapping_of_its_own_none_is_made_only_to_be_held(
    ports: tuple[int, int], local: Endpoint
) -> None:
    """The servers hang up, and would be asked anew every second: each time a port in the row that the peer foresees."""
    async with (
        full_server(HOSTS, ports, told=address_and_port_dependent, answers=1) as servers,
        holding(local, servers=[str(next(iter(servers)))], timeout=LONG_S) as found,
    ):
        assert found.profile.mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT
        await asyncio.sleep(2.5 * LOOK_S)
        assert [server.clients.count(local) for server in servers.values()] == [1, 1, 1, 1]


class Row:
    """A NAT that gives each flow the next port; it cannot represent traffic of others."""

    def __init__(self) -> None:
        self._flows: dict[tuple[Endpoint, Endpoint], int] = {}

    def told(self, seen: Endpoint, server: Endpoint) -> Endpoint:
        return Endpoint(PUBLIC, self._flows.setdefault((seen, server), 20_000 + len(self._flows)))


async def test_of_a_row_of_ports_it_can_be_asked_how_far_it_has_moved(ports: tuple[int, int], local: Endpoint) -> None:
    """And the hairpin took no port of it: the mappings seen are all that there are."""
    async with (
        full_server(HOSTS, ports, told=Row().told, udp=False) as servers,
        FakeStun(CLIENT, told=lambda seen, _: seen) as plain,
        holding(local, servers=[str(next(iter(servers)))], timeout=LONG_S) as found,
        holding(local.port, servers=[plain.name], timeout=LONG_S) as still,
    ):
        before = found.profile
        after = await found.look_again()
        assert found.walks
        assert not still.walks
    (added,) = set(after.observations) - set(before.observations)
    assert added.local.port != local.port
    assert added.mapped == (PUBLIC, 20_000 + len(before.observations))
    assert after.mapped == before.mapped


FAULTS: dict[str, tuple[Callable[[], FakeStun], str]] = {
    "silent": (lambda: FakeStun(silent=True), "no answer within"),
    "one byte a second": (lambda: FakeStun(drip_s=1.0, udp=False), "no answer within"),
    "closes at once": (lambda: FakeStun(hangs_up=True), "hung up|reset|pipe"),
} | {name: (partial(FakeStun, wrong=wrong), reason) for name, (wrong, reason) in MISBEHAVIOURS.items()}


@pytest.mark.parametrize(("bad", "reason"), FAULTS.values(), ids=FAULTS)
async def test_a_bad_server_is_named_and_the_good_ones_count(
    bad: Callable[[], FakeStun], reason: str, local: Endpoint
) -> None:
    """And it holds nobody up: the whole time-out would be longer than the test may take."""
    async with AsyncExitStack() as stack:
        good = [await stack.enter_async_context(FakeStun(host, told=endpoint_independent)) for host in HOSTS]
        wrong = await stack.enter_async_context(bad())
        asked = [server.name for server in (wrong, *good)]
        async with asyncio.timeout(LONG_S), holding(local, servers=asked, timeout=10 * LONG_S) as found:
            assert found.profile.mapping is Mapping.ENDPOINT_INDEPENDENT
            assert set(found.servers) == {server.end for server in good}
            assert any(wrong.name in note and re.search(reason, note) for note in found.notes)


@pytest.mark.parametrize(("bad", "reason"), FAULTS.values(), ids=FAULTS)
async def test_where_nobody_answers_the_error_says_what_each_did(
    bad: Callable[[], FakeStun], reason: str, local: Endpoint, ports: tuple[int, int]
) -> None:
    """The time-out is for those who say nothing; the others end it by what they do, whenever that comes."""
    says_nothing = reason == "no answer within"
    async with bad() as server:
        absent = f"{HERE}:{ports[1]}"
        with pytest.raises(StunError, match=reason) as caught:
            await simopen.discover(local, servers=[server.name, absent], timeout=0.5 if says_nothing else LONG_S)
    assert says_nothing or f"{absent}: it refused the connection" in str(caught.value)


@pytest.mark.parametrize("timeout_s", [1e-9, 1e-6, 1e-4])
async def test_a_time_that_is_over_before_anybody_is_asked_is_told_so(local: Endpoint, timeout_s: float) -> None:
    async with FakeStun(silent=True) as server:
        with pytest.raises(StunError, match="which is too short for an answer from afar"):
            await simopen.discover(local, servers=[server.name], timeout=timeout_s)


async def test_one_reason_is_told_once_with_all_of_whom_it_is_true(local: Endpoint, ports: tuple[int, int]) -> None:
    absent = [f"127.0.0.{number}:{ports[1]}" for number in range(10, 18)]
    async with FakeStun(wrong=MISBEHAVIOURS["garbage"][0]) as other:
        with pytest.raises(StunError) as caught:
            await simopen.discover(local, servers=[*absent, other.name], timeout=LONG_S)
    told = str(caught.value)
    assert f"{', '.join(absent[:4])}, and 4 more: it refused the connection" in told
    assert told.count("refused") == 1
    assert f"{other.name}: what answered does not speak STUN" in told


async def test_what_goes_on_for_days_is_told_in_a_few_notes(local: Endpoint) -> None:
    async with FakeStun() as server, holding(local, servers=[server.name]) as found:
        for number in range(10_000):
            found._inquiry.note(f"{server.name}: saw {number} before")
            found._inquiry.note("the same again")
        assert len(found._inquiry.notes) < 100
        assert len(set(found.notes) - set(unreachable(found.profile))) < 10
        assert "9999 before" in found._inquiry.notes[-1]


async def test_a_name_without_an_address_is_told_and_the_rest_counts(local: Endpoint) -> None:
    async with FakeStun() as server, holding(local, servers=["x." + "y" * 63, server.name]) as found:
        assert found.profile.mapped == local
        assert any("has no address" in note for note in found.notes)


async def test_servers_that_contradict_each_other_make_the_mapping_unknown(
    ports: tuple[int, int], local: Endpoint
) -> None:
    def told(seen: Endpoint, server: Endpoint) -> Endpoint:
        """Three of the four ends see one mapping, the fourth another: no NAT of RFC 4787 does that."""
        return Endpoint(PUBLIC, 2001 if server == (THERE, ports[1]) else 2000)

    async with full_server(HOSTS, ports, told=told) as servers:
        profile = await simopen.discover(local, servers=[next(iter(servers))], timeout=LONG_S)
    assert profile.mapping is Mapping.UNKNOWN
    assert len({each.mapped for each in profile.observations}) == 2


async def test_a_mapping_that_changes_under_way_shows(local: Endpoint) -> None:
    shift = [0]

    def told(seen: Endpoint, server: Endpoint) -> Endpoint:
        return Endpoint(PUBLIC, 2000 + shift[0])

    async with (
        FakeStun(HERE, told=told) as one,
        FakeStun(THERE, told=told) as other,
        holding(local, servers=[one.name, other.name], timeout=LONG_S) as found,
    ):
        assert found.profile.mapping is Mapping.ENDPOINT_INDEPENDENT
        assert (await found.refresh()).mapped == (PUBLIC, 2000)
        shift[0] = 1
        changed = await found.refresh()
    assert (changed.mapping, changed.mapped) == (Mapping.ENDPOINT_INDEPENDENT, Endpoint(PUBLIC, 2001))
    assert any("changed under way" in note for note in changed.notes)


async def test_where_a_new_connection_is_mapped_otherwise_all_are_asked_anew(local: Endpoint) -> None:
    """As after a NAT's restart: a TCP connection that was mapped otherwise would not have lived."""
    shift = [0]

    def told(seen: Endpoint, server: Endpoint) -> Endpoint:
        return Endpoint(PUBLIC, 2000 + shift[0])

    async with (
        asyncio.timeout(LONG_S),
        FakeStun(HERE, told=told, answers=1) as one,
        FakeStun(THERE, told=told, answers=1) as other,
        holding(local, servers=[one.name, other.name], timeout=LONG_S) as found,
    ):
        shift[0] = 1
        for server in (one, other):
            await server.until(lambda server=server: server.clients.count(local) > 1)  # type: ignore[misc]
        changed = await found.refresh()
        assert any(f"{PUBLIC}:2000 before, sees {PUBLIC}:2001 now" in note for note in found.notes)
    assert (changed.mapping, changed.mapped) == (Mapping.ENDPOINT_INDEPENDENT, Endpoint(PUBLIC, 2001))


async def test_giving_up_after_a_server_was_lost_lets_go_of_the_rest(local: Endpoint) -> None:
    async with asyncio.timeout(LONG_S), FakeStun(THERE) as lasting, AsyncExitStack() as stack:
        lost = await stack.enter_async_context(FakeStun())
        async with holding(local, servers=[lasting.name, lost.name]) as found:
            await stack.aclose()
            await found.refresh()
            found.give_up()
            await found.refresh()
            found.give_up()
        assert any(lost.name in note for note in found.notes)


class Faulty(Inquiry):
    """One whose looks fail, as by a fault of ours or of the host's; it tells when one was had."""

    def __init__(self, punch_port: PunchPort) -> None:
        super().__init__(punch_port)
        self.looks = 0
        self.looked_twice = asyncio.Event()

    def living(self) -> tuple[Endpoint, ...]:
        self.looks += 1
        if self.looks == 2:
            self.looked_twice.set()
        raise OSError(12, "Cannot allocate memory")


async def test_a_question_over_udp_leaves_between_two_over_tcp(local: Endpoint) -> None:
    """Where the servers' other ports need no new mapping, these alone show whether TCP and UDP share a row."""
    began_ns = time.monotonic_ns()
    async with asyncio.timeout(LONG_S), FakeStun() as server:
        await simopen.discover(local, servers=[server.name])
    sent = [flow.is_tcp for flow in own_flows.shared.since(MonoNs(began_ns)) if flow.remote == server.end]
    assert sent[:2] == [True, False]
    assert all(sent[2:])
    assert len(sent) == 2 + PROBES


async def test_a_look_that_fails_is_told_to_the_holder_and_the_mapping_is_held_on(
    local: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(LONG_S), FakeStun() as server:
        with PunchPort(*local) as punch_port:
            inquiry = Faulty(punch_port)
            await inquiry.run(parse_servers([server.name]), LONG_S)
            found = Discovery(punch_port, inquiry, look_s=0.0)
            async with found._kept():
                await inquiry.looked_twice.wait()
                assert local not in server.ended
            inquiry.close()
    [note] = [note for note in found.notes if "could not be seen" in note]
    assert note.endswith("Cannot allocate memory")
    levels = [record.levelname for record in caplog.records if "look at the mapping" in record.message]
    assert levels == ["WARNING"]  # and not one a second


async def test_what_the_answers_show_is_worked_out_beside_the_loop(local: Endpoint) -> None:
    hosts = Watched(local)

    class OneHost(PunchPort):
        def hosts(self, sources: Iterable[str]) -> tuple[Endpoint, ...]:
            return hosts

    async with FakeStun() as server:
        with OneHost(*local) as punch_port:
            inquiry = Inquiry(punch_port)
            await inquiry.run(parse_servers([server.name]), LONG_S)
            found = Discovery(punch_port, inquiry)
            await found._judge()
            inquiry.close()
    assert found.profile.mapped == local
    assert hosts.threads
    assert threading.current_thread().name not in hosts.threads


def one_name(*addresses: str) -> Callable[..., list[Any]]:
    """A resolver that knows one name, of these addresses."""

    def ask(host: str, port: int, **_: object) -> list[Any]:
        assert host == "stun.example"
        return [(each.family, 1, 6, "", sockaddr(each)) for each in (Endpoint(address, port) for address in addresses)]

    return ask


@pytest.mark.parametrize("silent", [False, True])
async def test_the_next_address_of_a_name_is_asked_where_the_first_is_dead(
    local: Endpoint, ports: tuple[int, int], *, silent: bool
) -> None:
    """One that refuses, or that says nothing; and the port that asks is seen from others as well."""
    async with asyncio.timeout(LONG_S), FakeStun(THERE, ports[1]) as living, AsyncExitStack() as stack:
        if silent:
            await stack.enter_async_context(FakeStun(HERE, ports[1], silent=True))
        with PunchPort(*local) as punch_port:
            inquiry = Inquiry(punch_port, one_name(HERE, THERE))
            await inquiry.run(parse_servers([f"stun.example:{ports[1]}"]), LONG_S)
            inquiry.close()
    assert list(inquiry.held) == [living.end]
    assert any(each.local.port != local.port for each in inquiry.observations)
    assert any(note.startswith(f"{HERE}:{ports[1]}: ") for note in inquiry.notes)


NO_UTF_8 = UnicodeDecodeError("utf-8", b"w\xe9l", 1, 2, "invalid continuation byte")  # an interface's name


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (PermissionError(1, "Operation not permitted"), r"\(Operation not permitted\)"),
        (NO_UTF_8, "can't decode byte 0xe9"),
    ],
)
async def test_where_the_kernel_does_not_tell_its_addresses_the_one_used_must_do(
    error: Exception, why: str, ports: tuple[int, int]
) -> None:
    def refused() -> list[Any]:
        raise error

    async with asyncio.timeout(LONG_S), FakeStun() as server:
        with PunchPort(None, ports[0], refused) as punch_port:
            inquiry = Inquiry(punch_port)
            await inquiry.run(parse_servers([server.name]), LONG_S)
            found = Discovery(punch_port, inquiry)
            await found._judge()
            inquiry.close()
    assert found.profile.hosts == (Endpoint(HERE, ports[0]),)
    assert [note for note in found.notes if re.search(f"does not tell them .*{why}", note)]


@pytest.mark.parametrize("any_of_it", ["0.0.0.0", "::ffff:0.0.0.0"])
async def test_who_asks_from_any_address_is_a_host_at_those_that_it_has(any_of_it: str, ports: tuple[int, int]) -> None:
    async with asyncio.timeout(LONG_S), FakeStun() as server:
        hosts = (await simopen.discover((any_of_it, ports[0]), servers=[server.name])).hosts
    assert hosts[0] == Endpoint(HERE, ports[0])
    assert {host.family for host in hosts} == {socket.AF_INET}
    assert "0.0.0.0" not in [host.address for host in hosts]


# What a container without netlink does, by the kernel itself (seccomp(2)): socket(AF_NETLINK, ...) is EPERM.
WITHOUT = """
import asyncio, ctypes, struct, sys, simopen
load, jump, give = 0x20, 0x15, 0x06
code = [(load, 0, 0, 0), (jump, 0, 3, {call}), (load, 0, 0, 16), (jump, 0, 1, {family})]
code += [(give, 0, 0, 0x50000 | {errno}), (give, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(code), ctypes.addressof(program))), 0, 0) == 0, ctypes.get_errno()
"""
SOCKET_CALL = {"x86_64": 41, "aarch64": 198}.get(platform.machine())


def sandboxed(family: int, error: int, program: str) -> list[str]:
    refused = WITHOUT.format(call=SOCKET_CALL, family=family, errno=error)
    return [sys.executable, "-c", refused + program]


@pytest.mark.skipif(SOCKET_CALL is None, reason="the number of the socket call is not known for this machine")
async def test_a_sandbox_without_netlink_is_discovered_from() -> None:
    async with FakeStun() as server:
        ask = f"print(asyncio.run(simopen.discover(servers=['{server.name}'])).hosts)"
        command = sandboxed(socket.AF_NETLINK, 1, ask)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
    assert out.startswith(b"(Endpoint(address='127.0.0.1'")


@pytest.mark.skipif(SOCKET_CALL is None, reason="the number of the socket call is not known for this machine")
async def test_a_kernel_without_ipv6_takes_nothing_else_along(ports: tuple[int, int]) -> None:
    """A name of both families, and a port to ask from: what IPv6 would have done is told in a note."""
    pairs = f"[('::1', {ports[1]}), ('2001:db8::1', {ports[1]}), ('127.0.0.1', {ports[1]})]"
    async with FakeStun() as server:
        ask = f"""
async def main():
    sock, report = await simopen.punch({pairs}, local={ports[0]}, window=5)
    print(report.remote, report.notes)
    print((await simopen.discover(servers=['{server.name}'])).mapped)
    try:
        await simopen.punch(('::1', 9), local=8, window=1)
    except simopen.SimopenError as error:
        print(error)
asyncio.run(main())
"""
        with socket.create_server((HERE, ports[1])):
            command = sandboxed(socket.AF_INET6, 97, ask)
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
    fired, seen, refused = out.decode().splitlines()
    assert fired.startswith(f"127.0.0.1:{ports[1]} (")
    assert "does not speak that address family" in fired
    assert seen.startswith("127.0.0.1:")
    assert "does not speak that address family" in refused


async def test_the_mapping_is_held_until_the_end(ports: tuple[int, int], local: Endpoint) -> None:
    async with asyncio.timeout(LONG_S), full_server(HOSTS, ports) as servers:
        async with holding(local, servers=[next(iter(servers))]):
            assert not any(local in server.ended for server in servers.values())
        for server in servers.values():
            await server.until(lambda server=server: local in server.ended)  # type: ignore[misc]


async def test_where_the_server_hangs_up_the_mapping_is_taken_anew(local: Endpoint) -> None:
    async with asyncio.timeout(LONG_S), FakeStun(answers=1) as server, holding(local, servers=[server.name]) as found:
        await server.until(lambda: server.clients.count(local) == 2)
        assert (await found.refresh()).mapped == local


async def test_while_one_connection_lives_nobody_else_is_bothered(local: Endpoint) -> None:
    async with (
        asyncio.timeout(LONG_S),
        FakeStun(THERE) as lasting,
        FakeStun(answers=1) as short,
        holding(local, servers=[lasting.name, short.name]) as found,
    ):
        await short.until(lambda: local in short.ended)
        assert found._due(1) == ()
        assert found._due(25) == (lasting.end,)
        assert short.clients.count(local) == 1


async def test_the_same_port_can_ask_again_at_once(local: Endpoint) -> None:
    async with FakeStun() as server:
        for _ in range(3):
            assert (await simopen.discover(local, servers=[server.name])).mapped == local


async def test_cancelling_leaves_nothing_behind(local: Endpoint) -> None:
    async with FakeStun(silent=True) as server:
        task = asyncio.create_task(simopen.discover(local, servers=[server.name], timeout=LONG_S))
        await server.until(lambda: len(server.clients) == 1 + PROBES)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        await server.until(lambda: len(server.ended) == 1 + PROBES)


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf])
async def test_a_timeout_that_is_no_time_is_a_value_error(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        await simopen.discover(servers=["127.0.0.1"], timeout=timeout)


@pytest.mark.parametrize("timeout", [True, "1", None])
async def test_a_timeout_that_is_no_number_is_a_type_error(timeout: float) -> None:
    with pytest.raises(TypeError, match="timeout"):
        await simopen.discover(servers=["127.0.0.1"], timeout=timeout)


@pytest.mark.parametrize("local", [0, 65_536, ("localhost", 5)])
async def test_a_local_end_that_is_none_is_a_value_error(local: int) -> None:
    with pytest.raises(ValueError, match=r"local"):
        await simopen.discover(local, servers=["127.0.0.1"])


async def test_a_port_that_another_program_has_is_told(local: Endpoint) -> None:
    with socket.create_server(local), pytest.raises(LocalEndpointError, match="another program"):
        await simopen.discover(local, servers=["127.0.0.1"])


async def test_a_server_of_the_other_family_than_the_local_address_is_told(local: Endpoint) -> None:
    with pytest.raises(StunError, match="no address of the family"):
        await simopen.discover(local, servers=["::1"])


async def test_what_a_server_did_is_told_once(local: Endpoint) -> None:
    """It hangs up, is asked again, and the time is over while nobody knows what comes of that."""
    async with FakeStun(hangs_up=True) as server:
        with pytest.raises(StunError) as caught:
            await simopen.discover(local, servers=[server.name], timeout=0.6)
    assert str(caught.value).count(server.name) == 1
