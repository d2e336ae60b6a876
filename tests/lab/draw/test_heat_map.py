"""The heat map: every number is there, what hinders is explained, and nothing covers anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from simopen.lab.draw.heat_map import Cell, heat_map, heat_map_figure
from tests.lab.figures import outside, overlaps, texts_of

NAMES = ["home", "address-and-port-dependent/address-and-port-dependent,sequential,step=4,others=0.3", "home+cgn"]
PREDICTION, GUESSES = "by prediction", "no TCP can"
CELLS = [
    [Cell(1.0, 81.4), Cell(0.0, None, PREDICTION), Cell(0.95, 120.0)],
    [Cell(0.0, None, GUESSES), Cell(0.5, 81.0), Cell(None)],
    [Cell(0.3, 1081.0, GUESSES), Cell(0.0), Cell(0.62, 4.2)],
]


def test_the_heat_map_has_every_number_and_explains_the_hatches(tmp_path: Path) -> None:
    heat_map(NAMES, NAMES, CELLS, tmp_path / "map.svg", title="RTT 80 ms")
    said = texts_of(tmp_path / "map.svg")
    for words in ("100%", "0%", "95%", "81 ms", "1081 ms", "–", PREDICTION, GUESSES):
        assert words in said
    figure = heat_map_figure(NAMES, NAMES, CELLS)
    assert not overlaps(figure)
    assert not outside(figure)
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert len(hatched) == 3 + 2  # the cells, and the legend


def test_cells_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="3 rows × 2 columns"):
        heat_map_figure(NAMES, NAMES[:2], CELLS)
