"""What the NATs on the way did, as the record has it and as it is put into words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simopen.lab.draw.nat_actions import acts, flows, tcp_between
from simopen.lab.net.record import Record
from simopen.model.endpoint import Endpoint
from tests.lab.punches import punched

LEFT, RIGHT = Endpoint("198.51.100.1", 1314), Endpoint("203.0.113.1", 1314)


def syn_acts(left: str, right: str, apart_ms: float = 0.4) -> list[str]:
    record = punched(left, right, apart_ms=apart_ms)
    found = [act for act in acts(record, "left", "right") if act.passage.sent.is_syn]
    return [f"{act.step.host}/{act.step.nat} {act.words}" for act in found]


@pytest.mark.parametrize(
    ("left", "right", "apart_ms", "did"),
    [
        ("open", "open", 0.4, []),
        (
            "home",
            "home",
            0.4,
            [
                "left/0 opens 198.51.100.1:1314",
                "right/0 lets in",
                "right/0 opens 203.0.113.1:1314",
                "left/0 lets in",
            ],
        ),
        (
            "open",
            "home,reset",
            60,
            ["right/0 answers RST", "right/0 opens 203.0.113.1:1314", "right/0 lets in"],
        ),
        ("open", "home+home", 60, ["right/1 drops", "right/0 opens 100.64.2.1:1314", "right/1 opens 203.0.113.1:1314"]),
        ("open", "icmp", 60, ["right/0 answers ICMP", "right/0 opens 203.0.113.1:1314", "right/0 lets in"]),
        ("open", "hold", 60, ["right/0 holds", "right/0 opens 203.0.113.1:1314"]),
    ],
)
def test_each_nat_s_part_in_the_syns(left: str, right: str, apart_ms: float, did: list[str]) -> None:
    assert syn_acts(left, right, apart_ms) == did


def test_what_a_nat_saw_is_what_the_one_outside_of_it_passed_on() -> None:
    found = acts(punched("home+/endpoint-independent", "random"), "left", "right")
    dropped = next(act for act in found if act.what == "drops" and act.step.host == "left")
    assert dropped.step.nat == 0
    assert dropped.seen.source.address == RIGHT.address
    assert dropped.seen.destination == Endpoint("100.64.1.1", 1314)
    assert {act.seen.source.address for act in found if act.what == "opens"} == {
        "192.168.1.2",
        "100.64.1.1",
        "192.168.2.2",
    }


def test_a_flow_is_what_the_outermost_nat_made_of_it() -> None:
    assert flows(punched("home+home", "open"), "left", "right") == [(LEFT, RIGHT)]
    assert flows(punched("open", "home"), "left", "right") == [(LEFT, RIGHT)]
    ((given, fired_at),) = flows(punched("home", "random"), "right", "left")
    assert (given.address, fired_at) == (RIGHT.address, LEFT)
    assert given.port != RIGHT.port


def test_a_syn_that_its_own_nat_stops_has_no_flow() -> None:
    stopped = [
        replace(each, steps=tuple(step._replace(headers=None) for step in each.steps if step.host == each.source))
        for each in punched()
    ]
    assert not flows(Record(stopped), "left", "right")


def test_only_the_two_hosts_tcp_counts() -> None:
    record = punched()
    assert len(tcp_between(record, "left", "right")) == len(record)
    assert not tcp_between(record, "left", "observer")
