"""The time-sequence diagram: what it says, and that nothing covers anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from simopen.lab.draw.time_sequence import sequence_figure, time_sequence
from simopen.lab.net.record import Record
from tests.lab.figures import outside, overlaps, texts_of
from tests.lab.punches import punched

CASES = {
    "drop": {},
    "reset": {"left": "home,reset", "right": "home,reset", "apart_ms": 300},
    "reset, LAN": {"left": "open", "right": "home,reset", "apart_ms": 300, "delay_ms": 1},
    "icmp": {"left": "icmp", "right": "icmp", "apart_ms": 130},
    "held": {"right": "hold", "apart_ms": 200},
    "one silent": {"apart_ms": 2000},
    "loss": {"loss": 0.3, "seed": 6},
    "carrier": {"left": "home+endpoint-independent", "right": "home+home,reset", "apart_ms": 60},
    "failing": {"left": "address-and-port-dependent,sequential", "right": "random,reset"},
    "open": {"left": "open", "right": "open"},
    "at the same time": {"delay_ms": 64, "apart_ms": 64},
    "firewall": {"left": "firewall", "right": "home"},
    "many lost": {
        "left": "open",
        "right": "home+random",
        "apart_ms": 0,
        "loss": 0.46470253850319854,
        "delay_ms": 12.92,
        "seed": 97,
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_no_text_covers_another_or_leaves_the_paper(case: dict[str, object]) -> None:
    figure = sequence_figure(punched(**case), "left", "right", title="a title")  # type: ignore[arg-type]
    assert not overlaps(figure)
    assert not outside(figure)


SPECS = ["home", "home,reset", "icmp", "hold", "open", "refuses-syns", "home+random", "home+home,reset"]
PUNCHES = st.builds(
    punched,
    st.sampled_from(SPECS),
    st.sampled_from(SPECS),
    apart_ms=st.floats(0, 500),
    loss=st.floats(0, 0.5),
    delay_ms=st.floats(0.1, 200),
    seed=st.integers(0, 1000),
)


@settings(max_examples=8, phases=[Phase.explicit, Phase.generate])  # shrinking would draw for minutes
@given(PUNCHES)
def test_no_text_ever_covers_another(record: Record) -> None:
    figure = sequence_figure(record, "left", "right")
    assert not overlaps(figure)
    assert not outside(figure)


def test_a_punch_says_what_each_nat_did(tmp_path: Path) -> None:
    time_sequence(punched(), "left", "right", tmp_path / "punch.svg")
    said = texts_of(tmp_path / "punch.svg")
    for words in ("SYN", "SYN-ACK"):
        assert said.count(words) == 2
    for words in ("opens 198.51.100.1:1314", "opens 203.0.113.1:1314", "left's NAT", "right", "ESTABLISHED", "0.4"):
        assert words in said
    assert said.count("lets in") == 2


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("reset", ["answers RST", "198.51.100.1:1314→:1314", "RST-ACK", "CLOSED"]),
        ("icmp", ["answers ICMP", "ICMP"]),
        ("held", ["holds"]),
        ("loss", ["lost"]),
        ("carrier", ["left's NAT 1", "left's NAT 2", "opens 100.64.1.1:1314"]),
        ("failing", ["drops", "answers RST"]),
        ("one silent", ["drops", "where the lifelines are dotted, time is cut short"]),
        ("reset, LAN", ["more packets between"]),
    ],
)
def test_what_went_wrong_is_said(case: str, words: list[str], tmp_path: Path) -> None:
    time_sequence(punched(**CASES[case]), "left", "right", tmp_path / "punch.svg")  # type: ignore[arg-type]
    said = texts_of(tmp_path / "punch.svg")
    for each in words:
        assert any(text.lstrip("0123456789 ").startswith(each) or text == each for text in said), (each, said)


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        sequence_figure(Record([]), "left", "right")


def test_the_same_punch_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        time_sequence(punched(), "left", "right", tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
