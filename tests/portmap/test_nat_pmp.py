"""What the nearest router says of itself: its words as bytes, the kernel's routes, and real routers in the lab."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen import lab
from simopen.lab import LinuxRouter, Nat
from simopen.portmap.nat_pmp import NOWHERE, _routes, next_hop, parse
from tests.nat.test_discovery_in_lab import behind, discover

MINIUPNPD = shutil.which("miniupnpd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
LONG_S = 30.0
EPOCH = "0000002a"
ANSWERS = {
    "an address": (f"00800000{EPOCH}cb007107", "203.0.113.7"),
    "an address and more": (f"00800000{EPOCH}cb0071070000", "203.0.113.7"),
    "none, as miniupnpd 2.3.1 says it": ("008000030000000100000000", NOWHERE),
    "not authorized": (f"00800002{EPOCH}00000000", None),
    "unsupported version": ("00800001" + EPOCH, None),
    "PCP": (f"02800000{EPOCH}cb007107", None),
    "another operation": (f"00810000{EPOCH}cb007107", None),
    "our own question": ("0000", None),
    "cut short": (f"00800000{EPOCH}cb0071", None),
}


@pytest.mark.parametrize(("answer", "address"), ANSWERS.values(), ids=ANSWERS)
def test_what_an_answer_says(answer: str, address: str | None) -> None:
    assert parse(bytes.fromhex(answer)) == address


@given(st.binary(max_size=32))
def test_any_bytes_are_an_address_or_nothing(answer: bytes) -> None:
    found = parse(answer)
    assert found is None or IPv4Address(found)


def row(destination: str, gateway: str, flags: int, metric: int, mask: str) -> str:
    """As /proc/net/route has it on this machine."""
    network, router, width = (
        f"{int.from_bytes(IPv4Address(each).packed, sys.byteorder):08X}" for each in (destination, gateway, mask)
    )
    return f"eth0\t{network}\t{router}\t{flags:04X}\t0\t0\t{metric}\t{width}\t0\t0\t0\n"


UP, GATEWAY = 1, 2
DEFAULT = row("0.0.0.0", "192.168.1.1", UP | GATEWAY, 100, "0.0.0.0")
ROUTES = {
    "none at all": ([], None),
    "the default": ([DEFAULT], "192.168.1.1"),
    "the better metric": ([DEFAULT, row("0.0.0.0", "10.0.0.1", UP | GATEWAY, 50, "0.0.0.0")], "10.0.0.1"),
    "no router on the way": ([row("0.0.0.0", "0.0.0.0", UP, 0, "0.0.0.0")], None),
    "a tunnel for a half of all": ([DEFAULT, row("128.0.0.0", "0.0.0.0", UP, 0, "128.0.0.0")], None),
    "the narrowest": (
        [DEFAULT, row("203.0.113.0", "192.168.1.2", UP | GATEWAY, 500, "255.255.255.0")],
        "192.168.1.2",
    ),
    "another network": ([row("198.51.100.0", "192.168.1.2", UP | GATEWAY, 0, "255.255.255.0")], None),
}


@pytest.mark.parametrize(("routes", "router"), ROUTES.values(), ids=ROUTES)
def test_the_next_hop(routes: list[str], router: str | None) -> None:
    assert next_hop(routes, "203.0.113.5") == router


@pytest.mark.parametrize("name", ["wl\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), b"w\xe9l", b"\xff"])
def test_an_interface_may_have_any_name(name: bytes, tmp_path: Path) -> None:
    (tmp_path / "route").write_bytes(b"Iface\tDestination\n" + DEFAULT.encode().replace(b"eth0", name))
    assert next_hop(_routes(str(tmp_path / "route")), "203.0.113.5") == "192.168.1.1"


# A router that answers NAT-PMP at the first address, and says that the second one is its outer one.
RESPONDER = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[1], 5351))
    print("ready", flush=True)
    while True:
        question, asker = sock.recvfrom(64)
        assert question == bytes(2), question
        sock.sendto(bytes((0, 128, 0, 0, 0, 0, 0, 42)) + socket.inet_aton(sys.argv[2]), asker)
"""
MINIUPNPD_CONF = """
ext_ifname=net0
listening_ip={inner}/24
enable_natpmp=yes
enable_upnp=no
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 0.0.0.0/0 1024-65535
"""


@asynccontextmanager
async def natpmp(router: lab.Host | None, *command: str, ready: bytes) -> AsyncIterator[None]:
    """That program on the router, from when it has said that it is ready."""
    assert router is not None
    process = await router.start([*command], stderr=asyncio.subprocess.STDOUT)
    assert process.stdout is not None
    while ready not in (line := await process.stdout.readline()):
        assert line, "it ended before it was ready"
    try:
        yield
    finally:
        process.kill()
        await process.wait()


def inner_address(host: lab.Host) -> str:
    """Its router's, on the host's side."""
    return f"{host.address.rpartition('.')[0]}.1"


@pytest.mark.lab(router=True)
@pytest.mark.real_server
async def test_a_routers_outer_address_tells_how_many_nats_there_are() -> None:
    async with behind(LinuxRouter()) as (_, host, (one, _)):

        async def layers(outer: str) -> int | None:
            said = (inner_address(host), outer)
            async with natpmp(host.router, sys.executable, "-c", RESPONDER, *said, ready=b"ready"):
                found: int | None = (await discover(host, [one.address]))["layers"]
                return found

        assert (await discover(host, [one.address]))["layers"] is None, "nothing listens there"
        assert await layers(host.public_address) == 1
        assert await layers("100.64.1.1") == 2
        assert await layers("8.8.8.8") is None, "a public one that nobody saw: the router may have two ways out"


@pytest.mark.lab(router=True)
@pytest.mark.real_server
@pytest.mark.skipif(MINIUPNPD is None, reason="no miniupnpd here: apt install miniupnpd-nftables")
async def test_a_real_miniupnpd_behind_a_carriers_nat(tmp_path: Path) -> None:
    assert MINIUPNPD is not None
    config = tmp_path / "miniupnpd.conf"
    command = (MINIUPNPD, "-d", "-f", str(config), "-P", str(tmp_path / "pid"))
    async with asyncio.timeout(LONG_S), behind((LinuxRouter(), Nat())) as (_, host, (one, _)):
        config.write_text(MINIUPNPD_CONF.format(inner=inner_address(host)))
        async with natpmp(host.router, *command, ready=b"Listening for NAT-PMP"):
            assert (await discover(host, [one.address]))["layers"] == 2
