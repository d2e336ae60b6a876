"""STUN on a rendezvous server, and connecting back."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from simopen.errors import LocalEndpointError
from simopen.model.endpoint import Endpoint, normalise
from simopen.nat import stun
from simopen.nat.stun_answer import Back, ConnectBack
from simopen.nat.stun_tcp import Binding, other_address
from simopen.net.os_errors import local_error
from simopen.signalling.server_door import at_a_free_port
from simopen.signalling.server_limits import Limits
from simopen.signalling.server_stun import Site, StunService, sites
from tests.loopback import kept_ports
from tests.signalling.clients import ended

ONE, OTHER = "127.0.0.1", "127.0.0.2"
BOTH = ConnectBack(Back.CAN, Back.CAN)


@asynccontextmanager
async def served(*addresses: str, **limits: Any) -> AsyncIterator[tuple[StunService, Endpoint]]:
    """At these addresses of loopback; and the first end."""
    service = StunService(Limits(**limits), sites(addresses or (ONE, OTHER)), (0, 0))
    await service.open()
    try:
        yield service, Endpoint(ONE, service.ports[0])
    finally:
        await service.close()


async def test_one_that_is_reset_at_once_is_no_fault() -> None:
    """The loop's exception handler, which a guard of all tests looks at, hears of nothing."""
    async with served() as (_, end):
        for _ in range(20):
            with socket.create_connection(end) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reader, writer = await asyncio.open_connection(*end)
        writer.write(b"what is no question, but comes after the others")
        await ended(reader)
        writer.close()


def test_a_port_that_is_free_is_looked_for_until_all_have_it_and_one_that_was_named_is_not() -> None:
    asked_for: list[int] = []

    def listen(port: int) -> int:
        asked_for.append(port)
        if len(asked_for) < 3:
            raise local_error(OSError(errno.EADDRINUSE, "in use"), (ONE, 7))
        return 7

    assert at_a_free_port(0, listen) == 7
    assert asked_for == [0, 0, 0]
    asked_for.clear()
    with pytest.raises(LocalEndpointError, match="another program has it"):
        at_a_free_port(4000, listen)
    assert asked_for == [4000]


async def test_where_half_of_a_port_is_taken_nothing_of_the_other_half_is_kept() -> None:
    """The port of UDP at the second address is another program's."""
    with kept_ports() as (port, spare), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((OTHER, port))
        service = StunService(Limits(), sites((ONE, OTHER)), (port, spare))
        with pytest.raises(LocalEndpointError, match=f"{OTHER}:{port}"):
            await service.open()


async def asked(server: Endpoint, back: ConnectBack | None = None) -> stun.Answer:
    async with Binding((server.address, 0), server) as binding:
        return await binding.ask(connect_back=back)


async def test_each_end_names_the_one_that_differs_in_both() -> None:
    async with served() as (service, _):
        first, second = service.ports
        for address, port, other in ((ONE, first, Endpoint(OTHER, second)), (OTHER, second, Endpoint(ONE, first))):
            answer = await asked(Endpoint(address, port))
            assert (answer.other, answer.back) == (other, BOTH)
            assert await other_address(Endpoint(address, port)) == other


async def test_one_address_names_its_other_port() -> None:
    async with served(ONE) as (service, server):
        answer = await asked(server)
        assert answer.other == Endpoint(ONE, service.ports[1])
        assert answer.back == ConnectBack(Back.CAN, Back.CANNOT)


async def test_it_connects_back_to_who_asks_from_elsewhere() -> None:
    async with served() as (_, server):
        with socket.create_server((ONE, 0), reuse_port=True) as listening:
            listening.setblocking(False)
            async with Binding(listening.getsockname(), server) as binding:
                answer = await binding.ask(connect_back=BOTH)
            assert answer.back == ConnectBack(Back.CONNECTED, Back.CONNECTED)
            came = set()
            for _ in range(2):
                sock, address = await asyncio.get_running_loop().sock_accept(listening)
                sock.close()
                came.add(normalise(address))
    assert {each.address for each in came} == {ONE, OTHER}
    assert server not in came


async def test_nobody_listening_is_a_refusal() -> None:
    async with served() as (_, server):
        assert (await asked(server, BOTH)).back == ConnectBack(Back.REFUSED, Back.REFUSED)


async def test_one_address_asks_for_it_so_often_and_no_more() -> None:
    async with served(connect_backs_at_once=2, connect_backs_a_minute=1) as (_, server):
        said = [(await asked(server, BOTH)).back for _ in range(3)]
    refused, busy = ConnectBack(Back.REFUSED, Back.REFUSED), ConnectBack(Back.BUSY, Back.BUSY)
    assert said == [refused, refused, busy]


GARBAGE = {
    "no STUN": b"GET / HTTP/1.1\r\n\r\n",
    "another's cookie": b"\0\1\0\0" + bytes(16),
    "too long": b"\0\1\x10\0\x21\x12\xa4\x42" + bytes(12),
    "random": os.urandom(600),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_who_says_what_is_no_request_is_let_go(name: str) -> None:
    async with served() as (_, server):
        reader, writer = await asyncio.open_connection(*server)
        writer.write(GARBAGE[name])
        assert await ended(reader) == b""
        writer.close()
        assert (await asked(server)).mapped.address == ONE, "others are answered"


async def test_who_asks_and_does_not_read_is_let_go() -> None:
    class Unread(asyncio.Transport):
        aborted = waiting = 0

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return (ONE, 1)

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.waiting += len(data)

        def get_write_buffer_size(self) -> int:
            return self.waiting

        def abort(self) -> None:
            self.aborted += 1

    async with served() as (service, _):
        asker, transport = service._admit(Endpoint(ONE, 1)), Unread()
        assert asker is not None
        asker.connection_made(transport)
        while not transport.aborted:
            asker.data_received(stun.request(bytes(12)))
            assert transport.waiting < 10_000
        asker.connection_lost(None)


async def test_too_many_of_one_address_are_turned_away() -> None:
    async with served(stun_connections_an_address=1) as (_, server), Binding((ONE, 0), server) as binding:
        await binding.ask()
        reader, writer = await asyncio.open_connection(*server)
        assert await ended(reader) == b""
        writer.close()


def test_the_addresses_that_are_meant() -> None:
    assert sites(["203.0.113.7/10.0.0.5", "203.0.113.8"]) == (
        Site("203.0.113.7", "10.0.0.5"),
        Site("203.0.113.8", "203.0.113.8"),
    )


@pytest.mark.parametrize(
    "given", [["name.example"], ["1.2.3.4", "1.2.3.4"], ["1.2.3.4", "2001:db8::1"], ["1.2.3.4", "1.2.3.5", "1.2.3.6"]]
)
def test_addresses_that_cannot_be_meant(given: list[str]) -> None:
    with pytest.raises(ValueError, match="address"):
        sites(given)
