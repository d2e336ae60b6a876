"""A target of several addresses, on loopback: which of them is taken, and when it is given up."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator

import pytest

from simopen.apps.forward.dialling import connected
from tests.apps.forward.test_api import until
from tests.loopback import HERE, THERE

LONG_S = 20


@contextlib.contextmanager
def silent(address: str, port: int = 0) -> Iterator[int]:
    """A port at which SYNs are dropped: its queue is full, and nobody takes from it."""
    with contextlib.ExitStack() as kept:
        server = kept.enter_context(socket.create_server((address, port), backlog=0))
        for _ in range(3):
            sock = kept.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        yield server.getsockname()[1]


class Noted(asyncio.Protocol):
    """One of a try. `is_up`: whether it is connected, None before it is."""

    is_up: bool | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.is_up = transport, True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_up = False


async def test_the_next_address_is_tried_where_one_is_silent() -> None:
    async with asyncio.timeout(LONG_S):
        with silent(THERE) as port, socket.create_server((HERE, port)) as server:
            found = await connected([THERE, HERE], port, Noted, after_s=0.01, within_s=2 * LONG_S)
            assert found.transport.get_extra_info("peername") == server.getsockname()
            found.transport.close()


async def test_the_next_address_is_tried_at_once_where_one_refuses() -> None:
    async with asyncio.timeout(LONG_S):
        with socket.create_server((HERE, 0)) as server:
            port = server.getsockname()[1]
            found = await connected([THERE, HERE], port, Noted, after_s=2 * LONG_S)
            found.transport.close()


async def test_addresses_that_are_all_silent_are_given_up() -> None:
    with silent(HERE) as port:
        async with asyncio.timeout(LONG_S):
            with pytest.raises(TimeoutError) as raised:
                await connected([HERE, HERE], port, Noted, after_s=0.01, within_s=0.05)
    assert raised.value.errno == errno.ETIMEDOUT


async def test_a_name_without_an_address_is_told() -> None:
    with pytest.raises(OSError, match="no address"):
        await connected([], 1, Noted)


async def test_of_several_that_are_up_one_is_taken_and_the_others_are_closed() -> None:
    """All are tried at once here, and are up within one turn of the loop."""
    made = list[Noted]()

    def make() -> Noted:
        made.append(Noted())
        return made[-1]

    with socket.create_server((HERE, 0)) as server:
        found = await connected([HERE] * 20, server.getsockname()[1], make, after_s=0)
        async with asyncio.timeout(LONG_S):
            await until(lambda: not any(each.is_up for each in made if each is not found))
        assert found.is_up
        found.transport.close()


async def test_cancelled_it_leaves_no_try() -> None:
    before = asyncio.all_tasks()
    with silent(HERE) as port:
        dialling = asyncio.create_task(connected([HERE] * 3, port, Noted, after_s=0))
        await until(lambda: len(asyncio.all_tasks() - before) == 4)
        dialling.cancel()
        async with asyncio.timeout(LONG_S):
            while left := asyncio.all_tasks() - before:
                await asyncio.wait(left)
