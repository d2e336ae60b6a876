"""Two ports of this host that meet by way of what they are mapped to; the lab has NATs that let them, and don't."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from simopen.model.endpoint import Endpoint
from simopen.nat import hairpin
from simopen.nat.hairpin import Mapped, hairpins
from tests.loopback import HERE, ports

__all__ = ["ports"]
LONG_S = 30.0
SHORT_S = 0.05


def untranslated(port: int) -> Mapped:
    return Mapped(Endpoint(HERE, port), Endpoint(HERE, port))


async def test_two_ports_that_reach_each_other_do(ports: tuple[int, int]) -> None:
    assert await hairpins(untranslated(ports[0]), untranslated(ports[1]), LONG_S)


async def test_mappings_where_nobody_is_are_not_reached(ports: tuple[int, int]) -> None:
    one, other = (Mapped(Endpoint(HERE, port), Endpoint("127.0.0.9", port)) for port in ports)
    assert not await hairpins(one, other, SHORT_S)


async def test_a_stranger_that_answers_is_no_proof(ports: tuple[int, int]) -> None:
    with socket.create_server((HERE, 0)) as stranger:
        mapped = Endpoint(HERE, stranger.getsockname()[1])
        one, other = (Mapped(Endpoint(HERE, port), mapped) for port in ports)
        assert not await hairpins(one, other, SHORT_S)


async def test_it_can_be_cancelled(ports: tuple[int, int]) -> None:
    with socket.create_server((HERE, 0)) as stranger:
        mapped = Endpoint(HERE, stranger.getsockname()[1])
        one, other = (Mapped(Endpoint(HERE, port), mapped) for port in ports)
        task = asyncio.create_task(hairpins(one, other, LONG_S))
        taken, _ = await asyncio.to_thread(stranger.accept)
        with taken:
            task.cancel()
            await asyncio.wait({task})
    assert task.cancelled()


async def test_strangers_who_connect_and_say_nothing_keep_nobody_waiting(ports: tuple[int, int]) -> None:
    """They are in the listener's queue before our own other port is, and more may come than are accepted."""
    token = b"one of 16 bytes."
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server((HERE, ports[0]), backlog=128))
        listening.setblocking(False)
        for said in (b"", b"", token[:5], bytes(16)):
            stranger = stack.enter_context(socket.create_connection((HERE, ports[0])))
            stranger.sendall(said)
        other = stack.enter_context(socket.create_connection((HERE, ports[0])))
        other.sendall(token)
        async with asyncio.timeout(LONG_S):
            assert await hairpin._heard_accepted(listening, token)


async def test_of_a_flood_of_strangers_only_the_first_are_accepted(ports: tuple[int, int]) -> None:
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server((HERE, ports[0]), backlog=128))
        listening.setblocking(False)
        for _ in range(60):
            stack.enter_context(socket.create_connection((HERE, ports[0]))).sendall(bytes(16))
        async with asyncio.timeout(LONG_S):
            assert not await hairpin._heard_accepted(listening, b"one of 16 bytes.")
        listening.accept()[0].close()  # there is one left
