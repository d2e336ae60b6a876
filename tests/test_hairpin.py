"""Two ports of this host that meet by way of what they are mapped to; the lab has NATs that let them, and don't."""

from __future__ import annotations

import asyncio
import socket

from simopen.address import Endpoint
from simopen.hairpin import Mapped, hairpins
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
