"""What all pictures share: kinds of files, texts that can be read, and matplotlib loaded late."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from simopen.lab.draw.canvas import check_suffix, contrast
from simopen.lab.draw.heat_map import Cell, heat_map_figure
from simopen.lab.draw.time_sequence import sequence_figure, time_sequence
from tests.lab.punches import punched

NAMES = ["one", "other"]
CELLS = [[Cell(1.0, 81.4), Cell(0.0, None, "by prediction")], [Cell(0.5, 81.0), Cell(None)]]


@pytest.mark.parametrize(("suffix", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_suffix_names_the_format(suffix: str, magic: bytes, tmp_path: Path) -> None:
    time_sequence(punched(), "left", "right", tmp_path / f"it.{suffix}")
    assert (tmp_path / f"it.{suffix}").read_bytes().startswith(magic)


def test_another_suffix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"out\.txt.*\.svg, \.png"):
        check_suffix("out.txt")


def test_every_text_can_be_read_on_its_ground() -> None:
    from matplotlib.colors import to_hex  # late: every one of pytest's processes loads this file, and one draws

    for figure in (sequence_figure(punched(), "left", "right"), heat_map_figure(NAMES, NAMES, CELLS)):
        for text in figure.axes[0].texts:
            patch = text.get_bbox_patch()
            ground = to_hex(patch.get_facecolor() if patch else figure.get_facecolor())
            assert contrast(to_hex(text.get_color()), ground) >= 4.5, text.get_text()


def test_matplotlib_loads_when_something_is_drawn() -> None:
    drawing = "simopen.lab.draw.heat_map, simopen.lab.draw.time_sequence"
    code = f"import json, sys, {drawing}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert "matplotlib" not in json.loads(done.stdout)
