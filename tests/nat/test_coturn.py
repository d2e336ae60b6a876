"""A real STUN server: coturn on two addresses with two ports each, as RFC 5780 wants them."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import simopen
from simopen.errors import StunError
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Mapping
from simopen.nat.probe import PROBES
from simopen.nat.stun_tcp import Binding, other_address
from simopen.ticket.hold import holding, unreachable
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]
LONG_S = 30.0
CLIENT = "127.0.0.3"
TURNSERVER = shutil.which("turnserver", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = [
    pytest.mark.real_server,
    pytest.mark.skipif(TURNSERVER is None, reason="no turnserver here: apt install coturn"),
]


@asynccontextmanager
async def coturn(directory: Path, ports: tuple[int, int]) -> AsyncIterator[list[Endpoint]]:
    """Its four ends, once all of them answer. The one to ask comes first."""
    assert TURNSERVER is not None
    options = {"--listening-port": ports[0], "--alt-listening-port": ports[1], "--relay-threads": 1}
    files = {"--pidfile": directory / "turn.pid", "--userdb": directory / "turn.db", "--log-file": "stdout"}
    switches = ("-n", "--stun-only", "--no-tls", "--no-dtls", "--no-cli", "--no-dynamic-ip-list", "--simple-log")
    values = [str(word) for pair in (options | files).items() for word in pair]
    process = await asyncio.create_subprocess_exec(
        TURNSERVER, *switches, *values, "-L", HERE, "-L", THERE, stdout=asyncio.subprocess.DEVNULL
    )
    ends = [Endpoint(host, port) for host in (HERE, THERE) for port in ports]
    try:
        for end in ends:
            await until_it_answers(end)
        yield ends
    finally:
        process.terminate()
        await process.wait()


async def until_it_answers(end: Endpoint) -> None:
    while True:
        try:
            async with Binding((CLIENT, 0), end) as binding:
                await binding.ask()
                return
        except StunError:  # not listening yet
            await asyncio.sleep(0.01)


async def test_a_real_coturn_shows_all_of_the_mapping(tmp_path: Path, ports: tuple[int, int]) -> None:
    local = Endpoint(CLIENT, ports[0])
    async with (
        asyncio.timeout(LONG_S),
        coturn(tmp_path, ports) as ends,
        holding(local, servers=[str(ends[0])]) as held,
    ):
        assert set(held.servers) == set(ends)
        assert (held.profile.mapping, held.profile.mapped) == (Mapping.NONE, local)
        assert len(held.profile.observations) == len(ends) + PROBES
        assert held.notes == tuple(unreachable(held.profile)), "of the servers, nothing"


async def test_it_is_asked_again_and_again(tmp_path: Path, ports: tuple[int, int]) -> None:
    local = Endpoint(CLIENT, ports[0])
    async with (
        asyncio.timeout(LONG_S),
        coturn(tmp_path, ports) as ends,
        holding(local, servers=[str(ends[0])]) as held,
    ):
        assert (await held.refresh()).mapped == local
        other = simopen.discover((CLIENT, ports[1]), servers=[str(ends[2])])
        assert (await other).mapped == (CLIENT, ports[1])


async def test_its_second_address_names_itself_as_the_other(tmp_path: Path, ports: tuple[int, int]) -> None:
    """Against RFC 5780 §7.4 (coturn 4.6): where it is mended, this test tells."""
    async with asyncio.timeout(LONG_S), coturn(tmp_path, ports) as (first, _, second, _):
        assert await other_address(first) == (THERE, ports[1])
        assert await other_address(second) in {(THERE, ports[1]), (HERE, ports[1])}
