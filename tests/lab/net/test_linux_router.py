"""Real routers in a network: where they stand, what they need, what they leave. What they do: test_real_routers.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simopen import lab
from simopen.lab import LinuxRouter
from simopen.lab.net.linux_router import ruleset
from tests.lab.process.test_cleanup import NOBODY, ROOTLESS, ends, interpreter_of_an_ordinary_user
from tests.lab.programs import TCP_CLIENT, TCP_SERVER, TRACE, UDP_CLIENT, UDP_SERVER
from tests.lab.test_network import output, serve
from tests.loops import ONE_LOOP

pytestmark = [pytest.mark.lab(router=True), pytest.mark.real_server]
REPOSITORY = Path(__file__).resolve().parents[3]

# A network with a program on a router; prints the lab's pid and the program's, and waits to be killed.
OWNER = f"""
import asyncio, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from simopen import lab
async def main():
    async with lab.Network() as net:
        host = await net.host("left", nat=lab.LinuxRouter())
        process = await host.router.start(["sleep", "1000"])
        print(net.lab_pid, process.pid, flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""


@ONE_LOOP
async def test_streams_and_datagrams_pass_both_ways(link: str) -> None:
    async with lab.Network(link=link) as net:
        left, right = await net.host("left", nat=LinuxRouter()), await net.host("right")
        for seen, target in (
            (left.public_address, right.public_address),
            (left.public_address6, right.public_address6),
        ):
            await serve(right, UDP_SERVER, target)
            assert await output(left, UDP_CLIENT, target, 20) == f"seen {seen} 5000"
            await serve(right, TCP_SERVER, target)
            assert await output(left, TCP_CLIENT, target, 1 << 20) == "same"
        record = await net.record()
    assert all(len(passage.sent_data) <= 1500 for passage in record)


@ONE_LOOP
async def test_it_is_one_hop_more() -> None:
    async with lab.Network() as net:
        left, right = await net.host("left", nat=LinuxRouter()), await net.host("right")
        assert await output(left, TRACE, right.public_address, 1) == "11 192.168.1.1"
        assert await output(left, TRACE, right.public_address, 2) == "11 192.0.2.1"


@ONE_LOOP
async def test_hosts_beside_each_other_share_it() -> None:
    """The second gets another port where the first has the same one."""
    async with lab.Network() as net:
        left, right = await net.host("left", nat=LinuxRouter()), await net.host("right")
        beside = await net.host("beside", beside=left)
        assert (beside.router, beside.public_address) == (left.router, left.public_address)
        await serve(left, UDP_SERVER, left.address)
        assert await output(beside, UDP_CLIENT, left.address, 20) == f"seen {beside.address} 5000"
        ports = set()
        for host in (left, beside):
            await serve(right, UDP_SERVER, right.public_address)
            _, address, port = (await output(host, UDP_CLIENT, right.public_address, 20)).split()
            assert address == left.public_address
            ports.add(port)
        await serve(right, UDP_SERVER, right.public_address6)
        assert await output(beside, UDP_CLIENT, right.public_address6, 20) == f"seen {beside.address6} 5000"
    assert len(ports) == 2
    assert "5000" in ports


@ONE_LOOP
async def test_a_carriers_nat_may_stand_behind_it() -> None:
    async with lab.Network() as net:
        carrier = lab.Nat(allocation=lab.Allocation.SEQUENTIAL)
        left, right = await net.host("left", nat=(LinuxRouter(), carrier)), await net.host("right")
        await serve(right, UDP_SERVER, right.public_address)
        seen = await output(left, UDP_CLIENT, right.public_address, 20)
        record = await net.record()
    assert seen.startswith(f"seen {left.public_address} ")
    assert record[0].sent.source == ("100.64.1.1", 5000)


async def test_only_the_first_may_be_real() -> None:
    async with lab.Network() as net:
        with pytest.raises(ValueError, match="only the first"):
            await net.host("left", nat=(lab.Nat(), LinuxRouter()))


async def test_a_model_beside_it_is_refused() -> None:
    async with lab.Network() as net:
        left = await net.host("left", nat=LinuxRouter())
        with pytest.raises(ValueError, match="no other option"):
            await net.host("beside", nat=LinuxRouter(), beside=left)


def test_when_the_owner_is_killed_what_runs_in_the_router_ends() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    with owner.stdout:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        handles = [os.pidfd_open(pid) for pid in pids]
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        try:
            assert [pid for pid, handle in zip(pids, handles, strict=True) if not ends(handle)] == []
        finally:
            for handle in handles:
                os.close(handle)
    assert len(pids) == 2


def test_where_nft_is_missing_the_error_says_what_to_install(tmp_path: Path) -> None:
    from simopen.lab.host.router_namespace import NoRouter, find_nft

    with pytest.raises(NoRouter, match="install nftables"):
        find_nft(str(tmp_path))


def test_every_router_has_rules_of_its_own() -> None:
    every = [LinuxRouter(each, random) for each in lab.Input for random in (False, True)]
    assert len({ruleset(router) for router in every}) == len(every)
    assert len({router.model for router in every}) == len(every)


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test here runs as an ordinary user already")
def test_an_ordinary_user_has_real_routers_too(for_everybody: Path) -> None:
    interpreter, environment = interpreter_of_an_ordinary_user(for_everybody)
    ended = subprocess.run(
        [interpreter, "-c", ROOTLESS.replace("lab.Nat()", "lab.LinuxRouter()")],
        env=environment,
        cwd="/",
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        check=False,
        timeout=60,
    )
    if b"no namespaces for a lab here" in ended.stderr:
        pytest.skip("this kernel lets no ordinary user make user namespaces")
    assert ended.stdout.decode().split() == [str(NOBODY), "seen", "198.51.100.1", "5000"], ended.stderr.decode()
