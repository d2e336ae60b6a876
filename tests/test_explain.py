"""The lab's runs in sentences, on runs made by hand and on records of the pure core."""

from __future__ import annotations

from typing import Any

import pytest

from simopen import explain
from simopen.lab.packet import Endpoint
from simopen.lab.presets import parse_nats
from simopen.lab.record import Record
from simopen.trial import Run, Setting, Summary, summed_up
from tests.lab.punches import punched

MS = 1_000_000
SEEN = {"left": Endpoint("198.51.100.1", 1314), "right": Endpoint("203.0.113.1", 1314)}
FAILED: dict[str, dict[str, Any]] = {
    "left": {"fired_ns": 0, "error": "no stream"},
    "right": {"fired_ns": 5 * MS, "error": "nothing came"},
}


def connected(later_ms: float, record: Record | None = None) -> Run:
    """Right fires 5 ms after left, and has the stream `later_ms` after its own SYN; left 10 ms after that."""
    done_ns = 5 * MS + round(later_ms * MS)
    answers = {
        "left": {"fired_ns": 0, "established_ns": done_ns + 10 * MS, "via": "connect", "rtt_s": 0.0805},
        "right": {"fired_ns": 5 * MS, "established_ns": done_ns, "via": "accept", "rtt_s": None},
    }
    return Run(SEEN, answers, record or punched())


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
    runs = [connected(80), Run(SEEN, FAILED, Record([]))]
    assert summed_up(runs) == Summary(2, 1, 80.0, 80.0)
    assert explain.summary(summed_up(runs)).startswith("1 of 2 connected (50%); ms after the later side's")
    assert "1 of 2 not connected: left says: no stream; right says: nothing came" in explain.story(setting(), runs)


@pytest.mark.parametrize(
    ("left", "right", "reason"),
    [
        ("random", "home", "to 203.0.113.1:1314, but right fired at port 1314: this pair waits for many guesses"),
        ("sequential", "home", "but right fired at port 1314: this pair waits for port prediction"),
        ("random", "random", "no TCP means reach that"),
        ("refuses-syns", "refuses-syns", "of left's 2 SYNs none arrived (2 filtered); of right's 2 SYNs none arrived"),
    ],
)
def test_the_packets_say_why_not(left: str, right: str, reason: str) -> None:
    run = Run(SEEN, FAILED, punched(left, right))
    assert reason in explain.reason(run, setting(left, right))


def test_a_side_that_learnt_no_endpoint_says_so() -> None:
    run = Run({}, {"left": {"error": "no word from the observer: no answer"}, "right": {}}, Record([]))
    assert not run.connected
    assert explain.reason(run, setting()) == "left: no word from the observer: no answer"


def test_where_no_packet_explains_it_the_sides_do() -> None:
    run = Run(SEEN, FAILED, Record([]))
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
