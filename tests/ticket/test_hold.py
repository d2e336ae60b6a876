"""Tickets of a host that no peer can reach: their maker is told as they are made, and so is whoever gets one."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import simopen
from simopen import lab
from simopen.clock import source as clock
from simopen.errors import Flaw, TicketError
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Profile
from simopen.ticket.codec import Ticket, parse_ticket
from simopen.ticket.hold import holding, issued, unreachable
from tests.fake_stun import FakeStun
from tests.loopback import HERE, ports
from tests.loops import ONE_LOOP
from tests.ticket.test_codec import SIMPLE

__all__ = ["ports"]
ROOT = Path(__file__).parents[2]
LONG_S = 30.0
NO_USE = "no peer can use a ticket of this host's, as it is known at "


def known_at(*addresses: str, mapped: str | None = None) -> Profile:
    return Profile(
        mapped=None if mapped is None else Endpoint(mapped, 9), hosts=tuple(Endpoint(each, 9) for each in addresses)
    )


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (known_at("fe80::1%2", mapped="fe80::1"), r"\[fe80::1\]:9 only \(a link-local address, which "),
        (known_at("fe80::1%2", "fe80::9%3"), r"\[fe80::1\]:9, \[fe80::9\]:9 only \(a link-local"),
        (known_at("169.254.1.1", mapped="169.254.1.1"), r"169\.254\.1\.1:9 only \(a link-local"),
        (
            known_at("127.0.0.1", "fe80::1%2", mapped="127.0.0.1"),
            r"\(a loopback [^;]*; a link-local [^;]*\): connect it",
        ),
    ],
)
def test_where_nobody_else_knows_any_of_its_addresses_that_is_said(profile: Profile, words: str) -> None:
    (said,) = unreachable(profile)
    assert re.match(re.escape(NO_USE) + ".*" + words, said), said


@pytest.mark.parametrize(
    "profile",
    [
        known_at("fe80::1%2", mapped="203.0.113.9"),
        known_at("fe80::1%2", "192.168.1.2"),
        known_at("127.0.0.1", "fd00::1", mapped="127.0.0.1"),
        known_at("169.254.1.1", "2001:db8::1"),
    ],
)
def test_one_address_that_a_peer_may_use_is_enough(profile: Profile) -> None:
    assert not list(unreachable(profile))


async def test_the_library_notes_and_logs_it(ports: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    """Each time that it makes one, and not for a holder that makes none."""
    async with FakeStun() as server, holding((HERE, ports[0]), servers=[server.name], timeout=LONG_S) as found:
        assert found.notes[0].startswith(NO_USE)
        assert not caplog.records
        with caplog.at_level(logging.WARNING, "simopen"):
            for ticket in (found.ticket(), await found.make_ticket(time.time() + 60, clock=clock.plain())):
                assert ticket.profile.hosts == (Endpoint(HERE, ports[0]),)
    assert [each.getMessage()[: len(NO_USE)] for each in caplog.records if NO_USE in each.getMessage()] == [NO_USE] * 2


def of_link_local() -> Ticket:
    """As its peer gets it: the scope of an address is its maker's own, so no address is there."""
    profile = known_at("fe80::1%2", mapped="fe80::1")
    return parse_ticket(issued(profile, time.time() + 60, 9, ahead_ns=0).encode())


MINE = issued(SIMPLE.profile, time.time() + 60, 1314, ahead_ns=0)


async def connects(theirs: Ticket) -> None:
    await simopen.connect(theirs, mine=MINE)


async def punches(theirs: Ticket) -> None:
    await simopen.punch(theirs, mine=MINE, at=time.time() + 60)


@pytest.mark.parametrize("use", [connects, punches])
async def test_whoever_gets_one_is_told_before_anything_is_sent(use: Callable[[Ticket], Awaitable[None]]) -> None:
    with pytest.raises(
        TicketError, match=r"it names no endpoint of its maker's, .* link-local addresses only"
    ) as caught:
        await use(of_link_local())
    assert caught.value.flaw is Flaw.UNREACHABLE


# --- the commands, on a host that has nothing else

SERVER = """
import asyncio, sys
from pyroute2 import IPRoute
from tests.fake_stun import FakeStun

with IPRoute() as netlink:
    for link in netlink.get_links():
        netlink.flush_addr(index=link["index"])
    (lo,) = netlink.link_lookup(ifname="lo")
    # Without a search for duplicates (IFA_F_NODAD), until whose end nobody may bind to it, on lo, too.
    netlink.addr("add", index=lo, address="fe80::1", prefixlen=64, flags=2)

async def serve():
    async with FakeStun("fe80::1%lo", udp=False) as server:
        print(server.name, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(serve())
"""


@ONE_LOOP
@pytest.mark.lab
async def test_the_commands_warn_the_maker_as_they_show_the_ticket() -> None:
    async with lab.Network() as net:
        host = await net.host("link-local")
        server = await host.start([sys.executable, "-c", SERVER], cwd=ROOT, stderr=None)
        assert server.stdout is not None
        async with asyncio.timeout(LONG_S):
            stun = (await server.stdout.readline()).decode().strip()
        assert stun
        asked = ["--no-ntp", "--timeout", "20s", "--stun", stun]
        said = await asyncio.gather(
            said_before(host, "Send this line to your peer", "meet", "--stdio", "/nowhere/at/all", *asked),
            said_before(host, "1. Send this ticket to your peer", "nat", "--ticket", *asked),
        )
    for each in said:
        assert each.count(f"simopen: note: {NO_USE}[fe80::1]:") == 1, each


async def said_before(host: lab.Host, words: str, *command: str) -> str:
    """All that a command says until it says these words."""
    process = await host.start([sys.executable, "-m", "simopen", *command], cwd=ROOT)
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(LONG_S):
        while words.encode() not in said and (line := await process.stderr.readline()):
            said += line
    process.terminate()
    await process.communicate()
    return said.decode()
