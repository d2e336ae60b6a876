"""One connection to one STUN server: what it learns, from where, and what becomes of servers that do not behave."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from simopen.clock import ntp_client
from simopen.errors import LocalEndpointError, StunError
from simopen.model import wording
from simopen.model.endpoint import Endpoint
from simopen.model.server import Server
from simopen.nat.stun_answer import success
from simopen.nat.stun_tcp import DEFAULT_SERVERS, STUN_PORT, Binding, other_address, parse_servers
from simopen.net import own_flows
from tests.fake_stun import FakeStun, Wrong, error
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]
LONG_S = 30.0
CLOSED = 7  # linux/tcp_states.h


def test_a_server_named_twice_is_one() -> None:
    assert parse_servers(["a.example", ("A.example", 3478), "a.example:3478"]) == (
        Server("a.example", STUN_PORT, STUN_PORT),
    )


@pytest.mark.parametrize("parse", [parse_servers, ntp_client.parse_servers])
@pytest.mark.parametrize(
    "bad", [None, 5, object(), b"x", [None], [5], [()], [("x",)], [("x", 1, 2)], [("x", "1")], [("x", 1.5)], "y" * 9999]
)
def test_servers_of_no_sensible_type_are_told_in_a_sentence(parse: Callable[[Any], object], bad: object) -> None:
    with pytest.raises(TypeError, match=r"a sequence of names|not the name of a|must be an int") as raised:
        parse(bad)
    assert len(str(raised.value)) < wording.LONGEST


def test_the_default_servers_are_six_different_names() -> None:
    assert len(set(parse_servers(DEFAULT_SERVERS))) == len(DEFAULT_SERVERS) == 6


async def test_its_syn_leaves_at_once(ports: tuple[int, int]) -> None:
    """What is foreseen of a row of ports depends on the order of the SYNs, and on when each left."""
    async with FakeStun() as server, Binding((HERE, ports[0]), server.end) as binding:
        asking = asyncio.create_task(binding.ask())
        await asyncio.sleep(0)
        assert binding._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != CLOSED
        await asking


@pytest.mark.parametrize("host", [HERE, "::1"])
async def test_a_server_tells_what_this_port_is_mapped_to(host: str, ports: tuple[int, int]) -> None:
    local = Endpoint(host, ports[0])
    before_ns = time.monotonic_ns()
    async with FakeStun(host) as server, Binding(local, server.end) as binding:
        answer = await binding.ask()
        assert (answer.mapped, server.clients) == (local, [local])
    assert binding.local == local
    assert before_ns < binding.at_ns < time.monotonic_ns()
    assert 0 < binding.handshake_s * 1e9 < time.monotonic_ns() - before_ns


async def test_the_address_that_leads_to_the_server_is_told(ports: tuple[int, int]) -> None:
    async with FakeStun() as server, Binding(("0.0.0.0", ports[0]), server.end) as binding:
        await binding.ask()
        assert binding.local == (HERE, ports[0])


async def test_the_connection_stays_open_until_its_owner_closes_it(ports: tuple[int, int]) -> None:
    local = Endpoint(HERE, ports[0])
    async with asyncio.timeout(LONG_S), FakeStun() as server:
        async with Binding(local, server.end) as binding:
            for _ in range(3):
                await binding.ask()
            assert (server.clients, server.ended) == ([local], [])
        await server.until(lambda: server.ended == [local])


async def test_many_servers_are_asked_from_one_port(ports: tuple[int, int]) -> None:
    local = Endpoint(HERE, ports[0])
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(FakeStun(host)) for host in (HERE, HERE, THERE)]
        bindings = [await stack.enter_async_context(Binding(local, server.end)) for server in servers]
        answers = await asyncio.gather(*(binding.ask() for binding in bindings))
    assert {answer.mapped for answer in answers} == {local}


async def test_the_same_question_twice_at_once_from_one_port_is_told(ports: tuple[int, int]) -> None:
    async with FakeStun() as server, Binding((HERE, ports[0]), server.end) as first:
        await first.ask()
        with pytest.raises(StunError, match="this port has a connection to it already"):
            async with Binding((HERE, ports[0]), server.end) as second:
                await second.ask()


async def test_a_mapping_given_up_leaves_the_port_free_at_once(ports: tuple[int, int]) -> None:
    async with FakeStun() as server:
        for _ in range(5):
            async with Binding((HERE, ports[0]), server.end) as binding:
                await binding.ask()
                binding.give_up()
    assert len(server.clients) == 5


async def test_a_slow_server_is_waited_for(ports: tuple[int, int]) -> None:
    async with FakeStun(drip_s=0.001) as server, Binding((HERE, ports[0]), server.end) as binding:
        assert (await binding.ask()).mapped == (HERE, ports[0])


def portal(request: bytes, right: bytes) -> bytes:
    return b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\n\r\n"


def other_transaction(request: bytes, right: bytes) -> bytes:
    return right[:8] + bytes(12) + right[20:]


def other_family(request: bytes, right: bytes) -> bytes:
    return success(request, Endpoint("2001:db8::7", 7))


def garbage(request: bytes, right: bytes) -> bytes:
    return bytes(range(255, 0, -1))


def error_code(request: bytes, right: bytes) -> bytes:
    return error(request, 401, "Unauthorized")


MISBEHAVIOURS: dict[str, tuple[Wrong, str]] = {
    "captive portal": (portal, "captive portal"),
    "another transaction": (other_transaction, "another transaction"),
    "another family": (other_family, "another family"),
    "garbage": (garbage, "does not speak STUN"),
    "error": (error_code, "error 401 Unauthorized"),
}


@pytest.mark.parametrize(("wrong", "reason"), MISBEHAVIOURS.values(), ids=MISBEHAVIOURS)
async def test_a_server_that_misbehaves_is_refused(wrong: Wrong, reason: str, ports: tuple[int, int]) -> None:
    async with FakeStun(wrong=wrong) as server, Binding((HERE, ports[0]), server.end) as binding:
        with pytest.raises(StunError, match=reason):
            await binding.ask()


async def test_a_server_that_hangs_up_is_told(ports: tuple[int, int]) -> None:
    async with FakeStun(hangs_up=True) as server, Binding((HERE, ports[0]), server.end) as binding:
        with pytest.raises(StunError, match=r"hung up after 0 bytes|reset the connection|[Bb]roken pipe"):
            await binding.ask()


async def test_a_server_that_is_not_there_is_told(ports: tuple[int, int]) -> None:
    async with Binding((HERE, ports[0]), Endpoint(HERE, ports[1])) as binding:
        with pytest.raises(StunError, match="refused the connection"):
            await binding.ask()


async def test_a_question_given_up_spoils_the_connection(ports: tuple[int, int]) -> None:
    """Its answer may still come, and would be taken for that to the next question."""
    async with FakeStun(silent=True) as server, Binding((HERE, ports[0]), server.end) as binding:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await binding.ask()
        with pytest.raises(StunError, match="given up"):
            await binding.ask()


async def test_a_local_address_that_is_not_ours_is_told() -> None:
    with pytest.raises(LocalEndpointError):
        Binding(("192.0.2.77", 5), Endpoint(HERE, 5))


async def test_the_other_address_comes_over_udp_after_one_round_trip() -> None:
    async with FakeStun(other=Endpoint(THERE, 3479)) as server:
        assert await other_address(server.end) == (THERE, 3479)
        assert server.clients == []


async def test_over_udp_strays_are_passed_over() -> None:
    answers = [other_transaction, garbage]

    def wrong_at_first(request: bytes, right: bytes) -> bytes:
        return answers.pop()(request, right) if answers else right

    async with FakeStun(other=Endpoint(THERE, 3479), wrong=wrong_at_first) as server:
        asking = [asyncio.create_task(other_address(server.end)) for _ in range(3)]
        done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED, timeout=LONG_S)
        assert {task.result() for task in done} == {Endpoint(THERE, 3479)}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_where_udp_is_refused_there_is_no_other_address(ports: tuple[int, int]) -> None:
    assert await other_address(Endpoint(HERE, ports[1])) is None


class Flood:
    """A UDP server that has `count` datagrams for whoever asks, made from the question, and sends them all at once."""

    def __init__(self, count: int, make: Wrong) -> None:
        self._count, self._make = count, make
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._sock.bind((HERE, 0))
        self.end = Endpoint(*self._sock.getsockname())
        asyncio.get_running_loop().add_reader(self._sock, self._readable)

    def _readable(self) -> None:
        request, client = self._sock.recvfrom(2048)
        for _ in range(self._count):
            self._sock.sendto(self._make(request, success(request, Endpoint(*client))), client)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()


def heavy(request: bytes, right: bytes) -> bytes:
    """Right as far as its last attribute, which nobody knows."""
    body = 9 * struct.pack("!HH", 0x8022, 0) + struct.pack("!HH", 0x7FFF, 0)
    return right[:2] + struct.pack("!H", len(body)) + right[4:20] + body


@pytest.mark.parametrize("make", [garbage, other_transaction, heavy, error_code])
async def test_a_flood_over_udp_does_not_keep_the_loop_and_ends_the_question(make: Wrong) -> None:
    """So many wait in the socket at once that whoever reads them without a pause lets nothing else run."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    flood = Flood(200, make)
    counting = asyncio.create_task(count_turns())
    try:
        async with asyncio.timeout(LONG_S):
            assert await other_address(flood.end) is None
    finally:
        counting.cancel()
        flood.close()
    assert turns > 50


async def test_what_is_asked_is_noted_as_it_leaves(ports: tuple[int, int]) -> None:
    """Over TCP at the very time that the observation has, and over UDP."""
    async with FakeStun() as server:
        async with Binding((HERE, ports[0]), server.end) as binding:
            await binding.ask()
        await other_address(server.end)
        noted = [flow for flow in own_flows.shared.since(binding.at_ns) if flow.remote == server.end]
    assert [flow.is_tcp for flow in noted] == [True, False]
    assert noted[0][1:] == (ports[0], server.end, binding.at_ns)
