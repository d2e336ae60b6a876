"""What crosses a network: two hosts in the lab, and the packets as evidence."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from simopen import lab
from tests.loops import this_loop
from tests.stalls import ALONE_S

pytestmark = pytest.mark.lab

PUNCHER = str(Path(__file__).parents[1].joinpath("puncher.py"))
PORT = 1314
# Until two interpreters have started and loaded everything, on a machine that does other things as well.
LEAD_NS = 1_500_000_000
AHEAD_NS = 1_000_000_000
"""From when all programs are ready to the instant: what a busy machine may keep them from their sockets for."""
Order = dict[str, Any]
WORDS = "I love you."
SIDES = ("left", "right")

DROP = lab.Nat(unsolicited=lab.Unsolicited.DROP)
RESET = lab.Nat(unsolicited=lab.Unsolicited.RESET)
PAIRS = {
    "none": (None, None),
    "drop": (DROP, DROP),
    "reset": (RESET, RESET),
    "drop-reset": (DROP, RESET),
    "none-drop": (None, DROP),
    "reset-none": (RESET, None),
}


async def fire_together(
    *sides: tuple[lab.Host, list[Order]], instants: list[int] | None = None
) -> list[list[dict[str, Any]]]:
    """On each host a program with its punches, as `tests/puncher.py` takes them, and one instant for all of them.

    `instants` gets that, in CLOCK_MONOTONIC ns.
    """
    programs = [await host.start([sys.executable, PUNCHER, this_loop(), json.dumps(orders)]) for host, orders in sides]
    for program in programs:
        assert program.stdout is not None
        assert await program.stdout.readline() == b"ready\n"
    at_ns = time.monotonic_ns() + AHEAD_NS
    if instants is not None:
        instants.append(at_ns)
    ended = await asyncio.gather(*(program.communicate(b"%d\n" % at_ns) for program in programs))
    for program, (_, complaint) in zip(programs, ended, strict=True):
        assert program.returncode == 0, complaint.decode()
    return [json.loads(out) for out, _ in ended]


def order(peer: lab.Host, port: int = PORT, *, after_s: float = 0.0, local: int = PORT, **options: Any) -> Order:
    """Fire at that port of a host's public address, so long after the instant."""
    return {"peer": [(peer.public_address, port)], "at": round(after_s * 1e9), "local": local, **options}


async def fire(host: lab.Host, *orders: Order) -> list[dict[str, Any]]:
    """Punches by one program, at a peer that does nothing."""
    (found,) = await fire_together((host, list(orders)))
    return found


async def meet(
    left: lab.Host, right: lab.Host, *, apart_s: float = 0.0, family: int = 4, **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both fire at the other's public address, the right one `apart_s` later."""
    one, other = order(right, **options), order(left, after_s=apart_s, **options)
    if family == 6:
        one["peer"], other["peer"] = [(right.public_address6, PORT)], [(left.public_address6, PORT)]
    (said,), (its,) = await fire_together((left, [one]), (right, [other]))
    return said, its


async def meet_apart(left: lab.Host, right: lab.Host, aparts_s: list[float]) -> list[dict[str, Any]]:
    """One pair of programs, and for each difference a meeting of its own from a port of its own, the right one later.

    Gives what both said, meeting by meeting.
    """
    cells = [(PORT + number, apart_s) for number, apart_s in enumerate(aparts_s)]
    one = [order(right, port, local=port) for port, _ in cells]
    other = [order(left, port, local=port, after_s=apart_s) for port, apart_s in cells]
    both = await fire_together((left, one), (right, other))
    return [said for pair in zip(*both, strict=True) for said in pair]


def of_port(record: lab.Record, port: int) -> lab.Record:
    return record.where(lambda each: port in {each.sent.source.port, each.sent.destination.port})


@pytest.mark.parametrize("pair", ["drop", "reset", "none"])
async def test_syns_fired_at_one_instant_cross_and_open_the_stream(pair: str) -> None:
    """Both hosts send a SYN before the other's arrives, and answer it from SYN-SENT: no listener had a part.

    From the one port with a listener, from the other without.
    """
    listening = {PORT: True, PORT + 1: False}
    async with lab.Network() as net:
        # The delay is what the two may fire apart and still cross: a busy machine is late by more than a quiet one.
        hosts = [await net.host(name, delay_s=0.06, nat=nat) for name, nat in zip(SIDES, PAIRS[pair], strict=True)]
        orders = [
            [order(peer, port, local=port, listen=listen) for port, listen in listening.items()]
            for peer in reversed(hosts)
        ]
        ended = await fire_together(*zip(hosts, orders, strict=True))
        record = await net.record()
    for said in chain.from_iterable(ended):
        assert said["heard"] == WORDS
        assert said["report"]["via"] == "connect"
        assert said["report"]["late_s"] >= 0
    for port in listening:
        ours = of_port(record, port)
        assert ours.syns_crossed(*SIDES), port
        assert ours.opened_simultaneously(*SIDES), port


@pytest.mark.parametrize("pair", PAIRS)
async def test_instants_that_differ_still_meet(pair: str) -> None:
    async with lab.Network() as net:
        left = await net.host("left", delay_s=0.01, nat=PAIRS[pair][0])
        right = await net.host("right", delay_s=0.01, nat=PAIRS[pair][1])
        for said in await meet_apart(left, right, [0.021, 0.045, 0.3]):
            assert said.get("heard") == WORDS, said


@pytest.mark.parametrize(("first_ttl", "apart_s", "provoked"), [(None, 1.5, True), (2, 0.1, False)])
async def test_first_shots_with_a_low_ttl_do_not_provoke_the_peer_s_nat(
    first_ttl: int | None, apart_s: float, provoked: bool
) -> None:
    """The right side is late by more than the way: without its first shot, its NAT answers the left side's SYN."""
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=0.01, nat=RESET) for name in ("left", "right")]
        for said in await meet(left, right, apart_s=apart_s, first_ttl=first_ttl):
            assert said.get("heard") == WORDS, said
        record = await net.record()
    expired = [each for each in record if each.verdict is lab.Verdict.EXPIRED]
    assert {each.sent.ttl for each in expired} == ({first_ttl} if first_ttl else set())
    assert any(each.verdict is lab.Verdict.RESET for each in record) is provoked


async def test_the_same_two_endpoints_meet_again_at_once() -> None:
    """Both sides have just closed, so both have the 5-tuple in TIME-WAIT; time stamps make it safe to use again."""
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=0.01, nat=DROP) for name in ("left", "right")]
        for _ in range(2):
            for said in await meet(left, right):
                assert said.get("heard") == WORDS, said


async def test_ipv6_through_two_firewalls() -> None:
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=0.02, nat=DROP) for name in ("left", "right")]
        for said in await meet(left, right, family=6):
            assert said["heard"] == WORDS
        record = await net.record()
    assert record.opened_simultaneously("left", "right")


async def test_lost_syns_are_sent_again() -> None:
    """A third of the packets is lost each way: the kernel resends, and nothing here gets in its way."""
    async with lab.Network(seed=5) as net:
        left, right = [await net.host(name, delay_s=0.005, loss=0.18, nat=DROP) for name in ("left", "right")]
        for said in await meet(left, right, window=25):
            assert said.get("heard") == WORDS, said


async def test_of_two_endpoints_the_one_that_answers_is_taken() -> None:
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=0.01, nat=DROP) for name in ("left", "right")]
        both = [("198.51.100.200", PORT), (right.public_address, PORT)]
        (one,), (other,) = await fire_together((left, [order(right) | {"peer": both}]), (right, [order(left)]))
    assert one["heard"] == other["heard"] == WORDS
    assert one["report"]["remote"] == f"{right.public_address}:{PORT}"
    assert {attempt["result"] for attempt in one["report"]["attempts"]} == {"established", "no answer"}


NEVER_FIRES = {
    "drop": (DROP, "no answer", "the peer fired at another instant"),
    "reset": (RESET, "answered by RST", "the peer never fired"),
}


async def test_a_peer_that_never_fires_is_told_from_the_answers() -> None:
    """Each attempt is a SYN, which the kernel sends again where nobody answers: with the same number."""
    async with lab.Network() as net:
        pairs = [
            (await net.host(f"left-{name}", delay_s=0.01), await net.host(f"right-{name}", delay_s=0.01, nat=nat))
            for name, (nat, _, _) in NEVER_FIRES.items()
        ]
        found = await fire_together(*((left, [order(right, window=ALONE_S)]) for left, right in pairs))
        record = await net.record()
    for name, (said,) in zip(NEVER_FIRES, found, strict=True):
        _, result, advice = NEVER_FIRES[name]
        assert said["error"] == "WindowClosed"
        assert result in said["message"]
        assert advice in said["message"]
        sent = {each.sent.seq for each in record if each.source == f"left-{name}" and each.sent.is_syn}
        assert len(sent) == len(said["report"]["attempts"]) + said["report"]["attempts_omitted"]


async def test_nothing_is_sent_before_the_instant() -> None:
    async with lab.Network() as net:
        left, right = await net.host("left"), await net.host("right", nat=DROP)
        instants: list[int] = []
        await fire_together((left, [order(right, window=1.0)]), instants=instants)
        record = await net.record()
    assert min(passage.sent_ns for passage in record) >= instants[0]


async def test_a_peer_whose_nat_chose_another_port_comes_through_the_listener() -> None:
    """A second host behind nobody fires from a port that was not named: only its address was."""
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=0.01) for name in ("left", "right")]
        (one,), (other,) = await fire_together((left, [order(right, PORT + 1)]), (right, [order(left, after_s=0.1)]))
    assert one["heard"] == other["heard"] == WORDS
    assert one["report"]["via"] == "accept"
    assert one["report"]["remote"] == f"{right.public_address}:{PORT}"


def test_a_peer_without_a_route_is_told_before_anything_is_sent() -> None:
    """In a network namespace with nothing in it."""
    code = (
        "import asyncio, ctypes, os\n"
        "import simopen\n"
        "flags = 0x40000000 | (0 if os.geteuid() == 0 else 0x10000000)\n"
        "assert ctypes.CDLL(None).unshare(flags) == 0\n"
        "try: asyncio.run(simopen.punch([('203.0.113.1', 9), ('2001:db8::1', 9)]))\n"
        "except simopen.ResolutionError as error: print(error)\n"
        "try: asyncio.run(simopen.punch(('203.0.113.2', 9)))\n"
        "except simopen.ResolutionError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot fire at 203.0.113.1:9: this host has no route to it" in done.stdout
    assert "cannot fire at [2001:db8::1]:9: this host has no route to it" in done.stdout
    assert "left out" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("cannot fire at 203.0.113.2:9: this host has no route to it")
