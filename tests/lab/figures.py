"""What a picture says, and where."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

SVG = "{http://www.w3.org/2000/svg}"


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    return [(text.get_text(), text.get_window_extent()) for text in figure.axes[0].texts if text.get_text()]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    return [(one[0], two[0]) for one, two in combinations(boxes(figure), 2) if one[1].overlaps(two[1])]


def outside(figure: Figure) -> list[str]:
    from matplotlib.transforms import Bbox

    return [text for text, box in boxes(figure) if Bbox.union([box, figure.bbox]).bounds != figure.bbox.bounds]


def texts_of(path: Path) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.parse(path).iter(f"{SVG}text")]
