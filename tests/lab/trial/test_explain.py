"""The lab's runs in sentences, on runs made by hand and on records of the pure core."""

from __future__ import annotations

from typing import Any

import pytest

from simopen.lab.nat.presets import parse_nats
from simopen.lab.net.record import Record
from simopen.lab.trial import explain
from simopen.lab.trial.run import Learnt, Run, Setting, Summary, summed_up
from simopen.model.endpoint import Endpoint
from simopen.model.endpoint import Endpoint as Address
from simopen.model.nat import Allocation, Mapping, Profile
from tests.lab.punches import punched

MS = 1_000_000
WHY = "the SYNs cross"
FAILED: dict[str, dict[str, Any]] = {
    "left": {"fired_ns": 0, "error": "no stream", "plan": WHY},
    "right": {"fired_ns": 5 * MS, "error": "nothing came", "plan": WHY},
}
NO_WAY = "these two NATs leave no way: 2^32 pairs of ports to guess"
REFUSED: dict[str, dict[str, Any]] = {name: {"error": NO_WAY, "refused": True} for name in ("left", "right")}


def learnt(left: str = "home", right: str = "home") -> dict[str, Learnt]:
    """What two sides find out whose first NATs were asked by way of two servers."""
    return {"left": _learnt(left, "192.168.1.2", "198.51.100.1"), "right": _learnt(right, "192.168.2.2", "203.0.113.1")}


def _learnt(spec: str, own: str, public: str) -> Learnt:
    nat = parse_nats(spec)[0]
    mapping, allocation = Mapping(nat.mapping.value), Allocation(nat.allocation.value)
    seen = [1314] if mapping is Mapping.ENDPOINT_INDEPENDENT else [5000, 7000, 6000]
    hosts, mapped = (Address(own, 1314),), Address(public, seen[-1])
    profile = Profile(mapping, allocation, mapped=mapped, hosts=hosts, confidence=0.99)
    return Learnt(profile, tuple(Endpoint(public, port) for port in seen))


def connected(later_ms: float, record: Record | None = None) -> Run:
    """Right fires 5 ms after left, and has the stream `later_ms` after its own SYN; left 10 ms after that."""
    done_ns = 5 * MS + round(later_ms * MS)
    answers = {
        "left": {"fired_ns": 0, "established_ns": done_ns + 10 * MS, "via": "connect", "rtt_s": 0.0805},
        "right": {"fired_ns": 5 * MS, "established_ns": done_ns, "via": "accept", "rtt_s": None},
    }
    for name, own, other in (("left", "192.168.1.2", "203.0.113.1"), ("right", "192.168.2.2", "198.51.100.1")):
        answers[name] |= {"plan": WHY, "local": [own, 1314], "remote": [other, 1314]}
    return Run(learnt(), answers, record or punched())


def setting(left: str = "home", right: str = "home", **more: Any) -> Setting:
    return Setting(parse_nats(left), parse_nats(right), **more)


def test_times_count_from_the_later_side_s_first_syn() -> None:
    run = connected(81)
    assert run.later == "right"
    assert (run.established_ms("right"), run.established_ms("left")) == (81, 91)
    words = explain.verdict(run, setting())
    assert words.startswith("connected: right 81.0 ms after the later side's first SYN through the listener")
    assert "left after 91.0 ms through its own SYN's socket; round trip 80.5 ms" in words


@pytest.mark.parametrize(
    ("times", "summary"),
    [
        ([], Summary(0, 0, None, None)),
        ([80.0], Summary(1, 1, 80.0, 80.0)),
        ([90.0, 80.0], Summary(2, 2, 85.0, 90.0)),
        ([float(number) for number in range(1, 101)], Summary(100, 100, 50.5, 99.0)),
        ([float(number) for number in range(1, 201)], Summary(200, 200, 100.5, 198.0)),
    ],
)
def test_runs_are_summed_up(times: list[float], summary: Summary) -> None:
    assert summed_up([connected(time_ms) for time_ms in times]) == summary


def test_failures_count_and_are_not_timed() -> None:
    runs = [connected(80), Run(learnt(), FAILED, Record([]))]
    assert summed_up(runs) == Summary(2, 1, 80.0, 80.0)
    assert explain.summary(summed_up(runs)).startswith("1 of 2 connected (50%); ms after the later side's")
    assert "1 of 2 not connected: left says: no stream; right says: nothing came" in explain.story(setting(), runs)


@pytest.mark.parametrize(
    ("left", "right", "reason"),
    [
        (
            "mobile",
            "home",
            "to SYNs to 203.0.113.1:1314, but right fired at 198.51.100.1:1314; --spray tries very many ports",
        ),
        ("refuses-syns", "refuses-syns", "of left's 3 SYNs none arrived (3 filtered); of right's 3 SYNs none arrived"),
    ],
)
def test_the_packets_say_why_not(left: str, right: str, reason: str) -> None:
    run = Run(learnt(left, right), FAILED, punched(left, right))
    assert reason in explain.reason(run, setting(left, right))


def test_both_sides_wrong_ports_are_named() -> None:
    run = Run(learnt(), FAILED, punched("random", "random"))
    told = explain.reason(run, setting())
    assert "left's NAT gave 198.51.100.1:" in told
    assert "right's NAT gave 203.0.113.1:" in told


@pytest.mark.parametrize("more", [{"spray": True}, {}], ids=["it sprayed", "a spray would not help"])
def test_the_spray_is_named_only_where_it_may_help(more: dict[str, Any]) -> None:
    left = "mobile" if more else "random"
    run = Run(learnt(left), FAILED, punched(left))
    assert explain.reason(run, setting(left, **more)).endswith("but right fired at 198.51.100.1:1314")


def test_a_pair_that_is_refused_names_the_ports_that_move() -> None:
    run = Run(learnt("mobile"), REFUSED, Record([]))
    moved = "left's NAT gave one local port 198.51.100.1:5000, 6000, 7000 for 3 destinations"
    assert run.refused
    assert explain.reason(run, setting("mobile")) == f"{moved}; {NO_WAY}"
    assert "plan:" not in explain.story(setting("mobile"), [run])


def test_a_side_that_learnt_nothing_says_so() -> None:
    run = Run({"right": learnt()["right"]}, {"left": {"error": "no server answered"}, "right": {}}, Record([]))
    assert not run.connected
    assert explain.reason(run, setting()) == "left: no server answered"


def test_what_was_found_and_planned_comes_first() -> None:
    told = explain.story(setting(), [connected(81)]).splitlines()
    found = [line for line in told if line.startswith(("left found: ", "right found: ", "plan: "))]
    assert found[0].startswith("left found: endpoint-independent mapping, port-preserving allocation")
    assert found[2] == f"plan: {WHY}"
    assert told.index(found[2]) < told.index(explain.verdict(connected(81), setting()))


def test_a_side_that_was_late_is_named() -> None:
    run = connected(81)
    run.answers["left"]["report"], run.answers["right"]["report"] = {"late_s": 0.25}, {"late_s": 0.001}
    told = explain.story(setting(), [run])
    assert "left fired 250 ms late" in told
    assert "right fired" not in told


def test_of_several_runs_the_plans_are_counted() -> None:
    assert f"plan, 2 of 2 times: {WHY}" in explain.story(setting(), [connected(81), connected(82)])


def test_of_many_syns_those_of_the_stream_are_drawn() -> None:
    run = connected(81)
    run.answers["left"]["local"][1] = 1315  # as if it had come up from another port than the one whose SYN is here
    assert explain.story(setting(), [run]).endswith("left out: 1 SYN that met nothing")
    assert "left out" not in explain.story(setting(), [connected(81)])


def test_a_long_story_loses_its_middle() -> None:
    record = punched("refuses-syns,reset", "refuses-syns,reset")
    assert len(record) > 100
    told = explain.story(setting(), [Run(learnt(), FAILED, record)]).splitlines()
    assert len(told) < 80
    assert any(line.startswith("... ") and line.endswith(" lines left out ...") for line in told)


def test_many_ports_are_summed_up() -> None:
    ends = [Endpoint("198.51.100.1", port) for port in (7, 5, 9, 6, 8)]
    run = Run({**learnt(), "left": Learnt(learnt()["left"].profile, tuple(ends))}, REFUSED, Record([]))
    assert "198.51.100.1 with 5 ports from 5 to 9 for 5 destinations" in explain.reason(run, setting())


def test_where_no_packet_explains_it_the_sides_do() -> None:
    run = Run(learnt(), FAILED, Record([]))
    assert explain.reason(run, setting()) == "left says: no stream; right says: nothing came"


def test_each_nat_has_a_line() -> None:
    run = connected(81, punched("home+home", "home,reset", apart_ms=60))
    assert explain.what_the_nats_did(run) == [
        "left's NAT 1 of 2: opened 100.64.1.1:1314, let in 1 SYN",
        "left's NAT 2 of 2: opened 198.51.100.1:1314, let in 1 SYN",
        "right's NAT: opened 203.0.113.1:1314, let in 1 SYN, answered RST to 1 SYN",
    ]
    first, *_ = explain.nats_as_dict(run)
    assert first == {"host": "left", "nat": 0, "from": "left", "what": "opens", "public": "100.64.1.1:1314"}


def test_the_scene_has_every_condition() -> None:
    scene = explain.scene(setting("home+cgn", "open", delay_s=0.02, jitter_s=0.001, loss=0.025, apart_s=0.1))
    assert "left: home+cgn (endpoint-independent/" in scene
    assert "right: open\n" in scene
    assert scene.endswith("20 ms apart one way, 1 ms jitter, 2.5% lost each way, right fires 100 ms later")
