"""`simopen send` and `receive` on two hosts, each behind a NAT, that a rendezvous introduces to each other."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

import pytest

from simopen.lab import Allocation, Mapping, Nat
from tests.rendezvous.test_meeting_in_lab import ROOT, site

pytestmark = pytest.mark.lab
DATA = random.Random(6).randbytes(300_000)


def test_a_file_goes_straight_from_behind_one_nat_to_behind_another(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    (tmp_path / "x.bin").write_bytes(DATA)
    asyncio.run(crossed(tmp_path))
    assert (tmp_path / "into" / "x.bin").read_bytes() == DATA


async def crossed(home: Path) -> None:
    sequential = Nat(Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.SEQUENTIAL)
    async with site() as (net, via, servers):
        words = ["--json", "--via", via, "--allow-plain"]
        for each in servers:
            words += ["--stun", each]
        left = await net.host("left", delay_s=0.02, nat=Nat())
        right = await net.host("right", delay_s=0.02, nat=sequential)
        for host in (left, right):  # over IPv6 there would be no NATs in between
            await host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
        command = [sys.executable, "-m", "simopen"]
        sending = await left.start([*command, "send", *words, str(home / "x.bin")], cwd=ROOT)
        assert sending.stderr is not None
        code = json.loads(await sending.stderr.readline())["code"]
        receive = [*command, "receive", "--yes", "--into", str(home / "into"), *words, code]
        received = await right.run(receive, cwd=ROOT)
        _, told = await sending.communicate()
        assert (sending.returncode, received.returncode) == (0, 0), (told, received.stderr)
        straight = json.loads(told.decode().splitlines()[-1])["report"]["remote"]
        assert straight.startswith(f"{right.public_address}:"), "the file's way is from the one host to the other"
