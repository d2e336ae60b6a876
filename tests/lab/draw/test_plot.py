"""The pictures: what they say, that nothing covers anything else, and that they can be read."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.transforms import Bbox

from simopen.lab.draw import plot
from simopen.lab.draw.plot import Cell
from simopen.lab.net.record import Record
from tests.lab.punches import punched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["home", "address-and-port-dependent/address-and-port-dependent,sequential,step=4,others=0.3", "home+cgn"]
PREDICTION, GUESSES = "by prediction", "no TCP can"
CELLS = [
    [Cell(1.0, 81.4), Cell(0.0, None, PREDICTION), Cell(0.95, 120.0)],
    [Cell(0.0, None, GUESSES), Cell(0.5, 81.0), Cell(None)],
    [Cell(0.3, 1081.0, GUESSES), Cell(0.0), Cell(0.62, 4.2)],
]
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
}


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    return [(text.get_text(), text.get_window_extent()) for text in figure.axes[0].texts if text.get_text()]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    return [(one[0], two[0]) for one, two in combinations(boxes(figure), 2) if one[1].overlaps(two[1])]


def outside(figure: Figure) -> list[str]:
    return [text for text, box in boxes(figure) if Bbox.union([box, figure.bbox]).bounds != figure.bbox.bounds]


def texts_of(path: Path) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.parse(path).iter(f"{SVG}text")]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_no_text_covers_another_or_leaves_the_paper(case: dict[str, object]) -> None:
    figure = plot.sequence_figure(punched(**case), "left", "right", title="a title")  # type: ignore[arg-type]
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
    figure = plot.sequence_figure(record, "left", "right")
    assert not overlaps(figure)
    assert not outside(figure)


def test_a_punch_says_what_each_nat_did(tmp_path: Path) -> None:
    plot.time_sequence(punched(), "left", "right", tmp_path / "punch.svg")
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
    plot.time_sequence(punched(**CASES[case]), "left", "right", tmp_path / "punch.svg")  # type: ignore[arg-type]
    said = texts_of(tmp_path / "punch.svg")
    for each in words:
        assert any(text.lstrip("0123456789 ").startswith(each) or text == each for text in said), (each, said)


def test_the_heat_map_has_every_number_and_explains_the_hatches(tmp_path: Path) -> None:
    plot.heat_map(NAMES, NAMES, CELLS, tmp_path / "map.svg", title="RTT 80 ms")
    said = texts_of(tmp_path / "map.svg")
    for words in ("100%", "0%", "95%", "81 ms", "1081 ms", "–", PREDICTION, GUESSES):
        assert words in said
    figure = plot.heat_map_figure(NAMES, NAMES, CELLS)
    assert not overlaps(figure)
    assert not outside(figure)
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert len(hatched) == 3 + 2  # the cells, and the legend


def test_cells_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="3 rows × 2 columns"):
        plot.heat_map_figure(NAMES, NAMES[:2], CELLS)


@pytest.mark.parametrize(("suffix", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_suffix_names_the_format(suffix: str, magic: bytes, tmp_path: Path) -> None:
    plot.time_sequence(punched(), "left", "right", tmp_path / f"it.{suffix}")
    assert (tmp_path / f"it.{suffix}").read_bytes().startswith(magic)


def test_another_suffix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"out\.txt.*\.svg, \.png"):
        plot.check_suffix("out.txt")


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.sequence_figure(Record([]), "left", "right")


def test_the_same_punch_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        plot.time_sequence(punched(), "left", "right", tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_every_text_can_be_read_on_its_ground() -> None:
    for figure in (plot.sequence_figure(punched(), "left", "right"), plot.heat_map_figure(NAMES, NAMES, CELLS)):
        for text in figure.axes[0].texts:
            patch = text.get_bbox_patch()
            ground = to_hex(patch.get_facecolor() if patch else figure.get_facecolor())
            assert plot.contrast(to_hex(text.get_color()), ground) >= 4.5, text.get_text()


def test_matplotlib_loads_when_something_is_drawn() -> None:
    code = "import json, sys, simopen.lab.draw.plot; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert "matplotlib" not in json.loads(done.stdout)
