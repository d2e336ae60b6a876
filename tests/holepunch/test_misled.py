"""A ticket that names somebody else: what it makes this host send there, by the packets on the wire."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest

from simopen import lab
from simopen.holepunch.budget import MOST_SYNS
from simopen.model.wording import LONGEST

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
KINDS = ("one endpoint", "several ports", "volleys", "own addresses")
WINDOW_S = 6.0


def test_a_third_address_gets_64_syns_at_most() -> None:
    """From a victim that answers each by a RST, and from one that says nothing: then the kernel sends them again."""
    asyncio.run(misled())


async def misled() -> None:
    async with lab.Network(seed=3) as net:
        resets = await net.host("resets", delay_s=0.005)
        silent = await net.host("silent", delay_s=0.005, nat=lab.Nat())
        punches = {
            f"{kind} that {victim.name}": (kind, victim.public_address, await net.host(f"host{number}", delay_s=0.005))
            for number, (kind, victim) in enumerate((kind, victim) for kind in KINDS for victim in (resets, silent))
        }
        programs = (
            host.run([sys.executable, "-m", "tests.misled", kind, host.address, address, str(WINDOW_S)], cwd=ROOT)
            for kind, address, host in punches.values()
        )
        ended = await asyncio.gather(*programs)
        record = await net.record()
    sent: Counter[tuple[str, str]] = Counter(
        (each.source, each.sent.destination.address) for each in record if each.sent.is_syn
    )
    syns = {name: sent[host.name, address] for name, (_, address, host) in punches.items()}
    assert {said.stdout.split()[0] for said in ended} == {b"WindowClosed"}, [said.stderr for said in ended]
    assert all(int(said.stdout.split()[1]) <= LONGEST for said in ended)
    wrong = {name: count for name, count in syns.items() if not 0 < count <= MOST_SYNS}
    assert not wrong, syns
