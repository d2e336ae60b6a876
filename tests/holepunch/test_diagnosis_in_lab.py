"""Every way to fail, provoked with packets in the lab: the diagnosis names it, and what it says was so."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from simopen import lab
from tests.holepunch.test_punching import AHEAD_NS, DROP, PORT, RESET, WORDS, fire, fire_together, meet, order
from tests.stalls import ALONE_S

pytestmark = pytest.mark.lab
ROUND_TRIP_S = 0.08  # of two sides whose clocks differ
REJECT = lab.Nat(unsolicited=lab.Unsolicited.ICMP)
# Once the port is bound, the punch has looked for a route: then that is taken away.
UNROUTE = """
import socket, sys, time
from pyroute2 import IPRoute
print("ready", flush=True)
while True:
    with socket.socket() as probe:
        try: probe.bind(("0.0.0.0", int(sys.argv[1])))
        except OSError: break
    time.sleep(0.01)
with IPRoute() as routes:
    routes.route("add", type="unreachable", dst=sys.argv[2] + "/32")
"""
FIREWALL = """
table ip test {{
    chain test {{
        type filter hook forward priority 0
        tcp dport 1314 reject with {answer}
    }}
}}
"""


def seconds(words: str) -> tuple[float, float]:
    """The one number of seconds in these words, twice; or from where to where it lies."""
    (found,) = re.findall(r"(?:([\d.]+) to )?([\d.]+) s (?:before|after) this side", words)
    least, most = found
    return float(least or most), float(most)


async def alone(left: lab.Host, peer: lab.Host, **options: Any) -> dict[str, Any]:
    """Fire at a peer on which nothing runs."""
    (said,) = await fire(left, order(peer, **{"window": ALONE_S, **options}))
    return said


NEVER_FIRES = {
    "none": (None, "refused", "only refusals came back"),
    "reset": (RESET, "refused", "only refusals came back"),
    "reject": (REJECT, "refused", "only refusals came back"),
    "drop": (DROP, "silence", "nothing at all came back"),
}


async def test_a_peer_that_never_fires() -> None:
    async with lab.Network() as net:
        pairs = [
            (await net.host(f"left-{name}", delay_s=0.01), await net.host(f"right-{name}", delay_s=0.01, nat=nat))
            for name, (nat, _, _) in NEVER_FIRES.items()
        ]
        found = await fire_together(*((left, [order(right, window=ALONE_S)]) for left, right in pairs))
    for name, (each,) in zip(NEVER_FIRES, found, strict=True):
        said, (_, cause, words) = each["diagnosis"], NEVER_FIRES[name]
        assert said["cause"] == cause, name
        assert words in said["sentence"], name
        assert not any("come from near" in fact for fact in said["evidence"]), name
        assert "nobody connected to this side's listener" in said["evidence"], name


async def test_an_instant_that_is_over() -> None:
    async with lab.Network() as net:
        left, right = await net.host("left"), await net.host("right")
        said = await alone(left, right, after_s=-(AHEAD_NS / 1e9 + 1), window=0.5)
        record = await net.record()
    assert said["error"] == "MissedInstant"
    assert said["report"]["fired"] is None
    assert said["diagnosis"]["cause"] == "not fired"
    assert "nothing sent" in said["diagnosis"]["evidence"]
    assert not any(passage.sent.is_syn for passage in record)


async def test_a_route_that_is_gone_at_the_instant() -> None:
    async with lab.Network() as net:
        left, right = await net.host("left"), await net.host("right")
        unrouting = await left.start([sys.executable, "-c", UNROUTE, str(PORT), right.public_address])
        assert unrouting.stdout is not None
        assert await unrouting.stdout.readline() == b"ready\n"
        said = await alone(left, right)
        assert await unrouting.wait() == 0
        record = await net.record()
    assert said["diagnosis"]["cause"] == "no route"
    assert "nothing left this host" in said["diagnosis"]["sentence"]
    assert not any(passage.sent.is_syn for passage in record)


@pytest.mark.lab(router=True)
@pytest.mark.parametrize(
    ("answer", "cause", "near"), [("tcp reset", "refused", True), ("icmp type host-unreachable", "unreachable", False)]
)
async def test_the_own_routers_firewall(answer: str, cause: str, near: bool) -> None:
    """It rejects what this side sends, so nothing gets out; the peer is 20 ms away."""
    async with lab.Network() as net:
        left = await net.host("left", delay_s=0.01, nat=lab.LinuxRouter())
        right = await net.host("right", delay_s=0.01)
        assert left.router is not None
        done = await left.router.run(["nft", "-f", "-"], stdin=FIREWALL.format(answer=answer).encode())
        assert done.returncode == 0, done.stderr.decode()
        said = (await alone(left, right))["diagnosis"]
        record = await net.record()
    assert said["cause"] == cause
    assert any("come from near" in fact for fact in said["evidence"]) is near
    assert not any(passage.sent.is_syn for passage in record)


async def test_a_port_that_was_not_named() -> None:
    """Two punches wait for one address, so a third port of it could be either's."""
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=0.01) for name in ("left", "right")]
        # For as long as the other may be late, and this one held up.
        waiting = [order(right, PORT + n, window=2 * ALONE_S) for n in (1, 2)]
        # Whatever comes of the right one's punch: its stream may have come up before it is reset.
        ended, _ = await fire_together((left, waiting), (right, [order(left, after_s=0.1, window=2)]))
    for said in ended:
        assert said["diagnosis"]["cause"] == "wrong port"
        assert f"{right.public_address}:{PORT}," in said["diagnosis"]["sentence"]
        assert said["report"]["arrivals"][0]["remote"] == f"{right.public_address}:{PORT}"


async def apart(net: lab.Network, apart_s: float, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the early one says, and the late one."""
    left, right = [await net.host(name, delay_s=ROUND_TRIP_S / 4) for name in ("left", "right")]
    return await meet(left, right, apart_s=apart_s, **options)


async def test_a_peer_whose_clock_is_ahead() -> None:
    """Its window is over before ours begins; its SYN is seen, and neither answered nor let in."""
    async with lab.Network() as net:
        early, late = await apart(net, 1.5 * ALONE_S, window=ALONE_S)
        record = await net.record()
    assert late["diagnosis"]["cause"] == "clocks apart"
    assert_it_is_told_how_early(late["diagnosis"]["sentence"], early, late)
    assert early["diagnosis"]["cause"] in ("silence", "refused")  # refused where the kernel's resend was in time
    assert not any(passage.sent.is_syn_ack for passage in record)


def assert_it_is_told_how_early(words: str, early: dict[str, Any], late: dict[str, Any]) -> None:
    """Between two looks, which are 0.1 s apart, or as long as this process was kept from looking."""
    least_s, most_s = seconds(words)
    assert least_s - 0.2 <= late["report"]["instant"] - early["report"]["fired"] <= most_s + 0.2


def assert_it_is_told_how_late(early: dict[str, Any], late: dict[str, Any]) -> None:
    """Where the last refusal and the stream lie near each other, as the early side saw it, or refusal and shot.

    They do, unless this process was kept from firing shortly before: then who knows when the peer began?
    """
    assert early["heard"] == late["heard"] == WORDS
    fired_s = late["report"]["fired"]
    apart_s = fired_s - early["report"]["instant"]
    notes = [note for note in early["report"]["notes"] if "after this side" in note]
    # To a tenth, which is how seldom a late shot is repeated, or three round trips; told in tenths of a second.
    refused_s = max(each["started"] for each in early["report"]["attempts"] if each["result"] == "answered by RST")
    up_s = early["report"]["fired"] + early["report"]["elapsed_s"]
    doubt_s = up_s - ROUND_TRIP_S - refused_s
    known = doubt_s < max(apart_s / 10, 3 * ROUND_TRIP_S) - 0.02
    if notes or known or fired_s - refused_s < max(apart_s / 10, 1.5 * ROUND_TRIP_S) - ROUND_TRIP_S / 2:
        assert len(notes) == 1, (apart_s, doubt_s, early["report"])
        told_s, _ = seconds(notes[0])
        assert told_s == pytest.approx(apart_s, abs=apart_s / 10 + ROUND_TRIP_S / 2 + 0.05)


async def test_a_peer_that_was_a_little_late_and_met() -> None:
    async with lab.Network() as net:
        assert_it_is_told_how_late(*await apart(net, 0.8))


async def test_a_peer_that_was_late_for_one_and_early_for_the_other_and_met() -> None:
    """The look costs the early side one SYN: its kernel sends it again, and is refused as ever, before our instant."""
    async with lab.Network() as net:
        early, late = await apart(net, 3.6)
        record = await net.record()
    assert_it_is_told_how_late(early, late)
    (note,) = [note for note in late["report"]["notes"] if "before this side" in note]
    assert_it_is_told_how_early(note, early, late)
    ours = min(passage.sent_ns for passage in record.syns("right", "left"))
    assert any(passage.sent.is_rst and passage.sent_ns < ours for passage in record.between("right", "left"))


async def test_a_port_of_the_peer_that_was_not_named_is_worth_a_note() -> None:
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=0.01) for name in ("left", "right")]
        (one,), (other,) = await fire_together((left, [order(right, PORT + 1)]), (right, [order(left, after_s=0.1)]))
    assert one["heard"] == other["heard"] == WORDS
    assert f"the peer came from {right.public_address}:{PORT}, which was not named" in one["report"]["notes"][0]
