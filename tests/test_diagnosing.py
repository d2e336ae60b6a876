"""Every way to fail, provoked with packets in the lab: the diagnosis names it, and what it says was so."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any

import pytest

from simopen import lab
from tests.test_punching import DROP, LEAD_NS, PORT, PUNCHER, RESET, WORDS, fire, this_loop

pytestmark = pytest.mark.lab
SECOND = 1_000_000_000
REJECT = lab.Nat(unsolicited=lab.Unsolicited.ICMP)
# Waits until the port is bound, so until the punch has looked for a route, and then takes that away.
UNROUTE = """
import socket, subprocess, sys
while True:
    with socket.socket() as probe:
        try: probe.bind(("0.0.0.0", int(sys.argv[1])))
        except OSError: break
from pyroute2 import IPRoute
with IPRoute() as routes:
    routes.route("add", type="unreachable", dst=sys.argv[2] + "/32")
"""
FIREWALL = """
table ip test {
    chain out {
        type filter hook output priority 0;
        tcp dport 1314 reject with tcp reset
    }
}
"""


def seconds(words: str) -> float:
    """The one number of seconds in these words."""
    (found,) = re.findall(r"([\d.]+) s (?:before|after) this side", words)
    return float(found)


async def alone(left: lab.Host, peer: lab.Host, **options: Any) -> dict[str, Any]:
    """Fire at a peer on which nothing runs."""
    options = {"at_ns": time.monotonic_ns() + LEAD_NS, "window": 0.3, **options}
    return await fire(left, [(peer.public_address, PORT)], **options)


@pytest.mark.parametrize(
    ("nat", "cause", "words"),
    [
        (None, "refused", "only RSTs came back"),
        (RESET, "refused", "only RSTs came back"),
        (REJECT, "unreachable", "a router on the way says"),
        (DROP, "silence", "nothing at all came back"),
    ],
)
async def test_a_peer_that_never_fires(nat: lab.Nat | None, cause: str, words: str) -> None:
    async with lab.Network() as net:
        left, right = await net.host("left", delay_s=0.01), await net.host("right", delay_s=0.01, nat=nat)
        said = (await alone(left, right))["diagnosis"]
    assert said["cause"] == cause
    assert words in said["sentence"]
    assert not any("is near" in fact for fact in said["evidence"])
    assert "nobody connected to this side's listener" in said["evidence"]


async def test_an_instant_that_is_over() -> None:
    async with lab.Network() as net:
        left, right = await net.host("left"), await net.host("right")
        said = await alone(left, right, at_ns=time.monotonic_ns() - SECOND, window=0.5)
        record = await net.record()
    assert said["error"] == "MissedInstant"
    assert said["report"]["fired"] is None
    assert said["diagnosis"]["cause"] == "not fired"
    assert "nothing sent" in said["diagnosis"]["evidence"]
    assert not any(passage.sent.is_syn for passage in record)


async def test_a_route_that_is_gone_at_the_instant() -> None:
    async with lab.Network() as net:
        left, right = await net.host("left"), await net.host("right")
        said, done = await asyncio.gather(
            alone(left, right, at_ns=time.monotonic_ns() + 2 * LEAD_NS),
            left.run([sys.executable, "-c", UNROUTE, str(PORT), right.public_address]),
        )
        record = await net.record()
    assert done.returncode == 0, done.stderr.decode()
    assert said["diagnosis"]["cause"] == "no route"
    assert "nothing left this host" in said["diagnosis"]["sentence"]
    assert not any(passage.sent.is_syn for passage in record)


async def test_rsts_from_near() -> None:
    """This host's own firewall rejects what it sends."""
    if reason := lab.available(router=True):
        pytest.skip(f"no nft: {reason}")
    async with lab.Network() as net:
        left, right = await net.host("left", delay_s=0.02), await net.host("right", delay_s=0.02)
        done = await left.run(["nft", "-f", "-"], stdin=FIREWALL.encode())
        assert done.returncode == 0, done.stderr.decode()
        said = (await alone(left, right))["diagnosis"]
        record = await net.record()
    assert said["cause"] == "refused"
    assert any("what sends most of them is near" in fact for fact in said["evidence"]), said
    assert not any(passage.sent.is_syn for passage in record)


async def test_a_port_that_was_not_named() -> None:
    """Two punches wait for one address, so a third port of it could be either's."""
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=0.01) for name in ("left", "right")]
        at_ns = time.monotonic_ns() + LEAD_NS
        orders = [
            {"peer": [(right.public_address, PORT + n)], "at": at_ns, "local": PORT, "window": 0.5} for n in (1, 2)
        ]
        came = left.run([sys.executable, PUNCHER, this_loop(), json.dumps(orders)])
        done, _ = await asyncio.gather(came, reset_by(right, left, at_ns + SECOND // 10))
    for said in json.loads(done.stdout):
        assert said["diagnosis"]["cause"] == "wrong port"
        assert f"{right.public_address}:{PORT}," in said["diagnosis"]["sentence"]
        assert said["report"]["arrivals"][0]["remote"] == f"{right.public_address}:{PORT}"


async def reset_by(peer: lab.Host, other: lab.Host, at_ns: int) -> None:
    """Punch, whatever comes of it: the stream may have come up before it is reset."""
    order = json.dumps({"peer": [(other.public_address, PORT)], "at": at_ns, "local": PORT, "window": 0.2})
    await peer.run([sys.executable, PUNCHER, this_loop(), order])


async def test_a_peer_whose_clock_is_ahead() -> None:
    """Its window is over before ours begins; its first SYN is seen, and neither answered nor let in."""
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=0.02) for name in ("left", "right")]
        at_ns = time.monotonic_ns() + LEAD_NS
        late, early = await asyncio.gather(
            fire(left, [(right.public_address, PORT)], at_ns + 23 * SECOND // 10, window=1),
            fire(right, [(left.public_address, PORT)], at_ns, window=0.9),
        )
        record = await net.record()
    assert late["diagnosis"]["cause"] == "clocks apart"
    assert seconds(late["diagnosis"]["sentence"]) == pytest.approx(2.3, rel=0.1)
    assert early["diagnosis"]["cause"] == "silence"
    assert not any(passage.sent.is_syn_ack for passage in record)


@pytest.mark.parametrize(("nat", "apart_s"), [(None, 2.3), (RESET, 2.3)])
async def test_a_peer_that_is_late_and_met_is_told_so(nat: lab.Nat | None, apart_s: float) -> None:
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=0.02, nat=nat) for name in ("left", "right")]
        at_ns = time.monotonic_ns() + LEAD_NS
        early, late = await asyncio.gather(
            fire(left, [(right.public_address, PORT)], at_ns),
            fire(right, [(left.public_address, PORT)], at_ns + round(apart_s * SECOND)),
        )
    assert early["heard"] == late["heard"] == WORDS
    (note,) = early["report"]["notes"]
    assert "after this side" in note
    assert seconds(note) == pytest.approx(apart_s, rel=0.1)


async def test_a_peer_that_is_early_and_met_is_told_so() -> None:
    """The look costs the early side one SYN, and no time: its kernel sends it again before our instant."""
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=0.02) for name in ("left", "right")]
        at_ns = time.monotonic_ns() + LEAD_NS
        late, early = await asyncio.gather(
            fire(left, [(right.public_address, PORT)], at_ns + 23 * SECOND // 10),
            fire(right, [(left.public_address, PORT)], at_ns),
        )
    assert early["heard"] == late["heard"] == WORDS
    (note,) = late["report"]["notes"]
    assert seconds(note) == pytest.approx(2.3, rel=0.1)
    assert late["report"]["elapsed_s"] < 0.5


async def test_a_port_of_the_peer_that_was_not_named_is_worth_a_note() -> None:
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=0.01) for name in ("left", "right")]
        at_ns = time.monotonic_ns() + LEAD_NS
        one, other = await asyncio.gather(
            fire(left, [(right.public_address, PORT + 1)], at_ns),
            fire(right, [(left.public_address, PORT)], at_ns + SECOND // 10),
        )
    assert one["heard"] == other["heard"] == WORDS
    assert f"the peer came from {right.public_address}:{PORT}, which was not named" in one["report"]["notes"][0]
