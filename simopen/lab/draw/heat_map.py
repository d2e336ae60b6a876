"""A heat map of NAT × NAT: how many punches connected, and how fast. SVG, PNG or PDF, by the file's suffix."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from simopen.lab.draw.canvas import EDGE, FAINT, INK, PAPER, SMALL, Canvas, contrast, require_matplotlib, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL_IN, _CELL_HIGH_IN = 1.4, 0.72
_HATCHES = ("///", "\\\\\\", "xx", "..")


class Cell(NamedTuple):
    """One pair of NATs: the share of punches that connected (0 to 1, None: not tried), the median time in ms where any
    did, and what stands in the way ("by prediction": it must be passed so), "" where nothing does."""

    share: float | None
    median_ms: float | None = None
    hindered: str = ""


def heat_map(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]], path: str | Path, *, title: str = ""
) -> None:
    """Draw NAT × NAT: the success share as colour and number, what hinders it, hatched, and the median time.

    `cells[i][j]` is for `rows[i]`, the left side's NAT, and `columns[j]`, the right side's.

    Raises: ValueError for a suffix that is none, or cells that do not fit; LabError without matplotlib.
    """
    save(heat_map_figure(rows, columns, cells, title=title), path)


def heat_map_figure(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]], *, title: str = ""
) -> Figure:
    """The figure that `heat_map` saves. Raises: ValueError for cells that do not fit; LabError."""
    if len(cells) != len(rows) or any(len(line) != len(columns) for line in cells):
        raise ValueError(f"{len(rows)} rows × {len(columns)} columns need as many cells")
    require_matplotlib()
    return _draw_heat_map(rows, columns, cells, title)


def _draw_heat_map(rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]], title: str) -> Figure:
    waits = list(dict.fromkeys(cell.hindered for line in cells for cell in line if cell.hindered))
    heads = [_wrapped(name, 18) for name in columns]
    left, top = 2.15, 0.35 + 0.16 * max(head.count("\n") + 1 for head in heads) + 0.35 * bool(title)
    width = left + _CELL_IN * len(columns) + 0.3
    height = top + _CELL_HIGH_IN * len(rows) + 0.35 + 0.3 * (len(waits) + 1)
    canvas = Canvas.of(width, height)
    if title:
        canvas.write([(0.2, 0.25)], title, ha="left", fontsize=10, fontweight="bold")
    for number, name in enumerate(rows):
        canvas.write([(left - 0.12, top + _CELL_HIGH_IN * (number + 0.5))], _wrapped(name, 26), ha="right")
    for number, head in enumerate(heads):
        canvas.write([(left + _CELL_IN * (number + 0.5), top - 0.1)], head, va="bottom")
    for i, line in enumerate(cells):
        for j, cell in enumerate(line):
            _draw_cell(canvas, left + _CELL_IN * j, top + _CELL_HIGH_IN * i, cell, waits)
    _legend(canvas, top + _CELL_HIGH_IN * len(rows) + 0.3, waits)
    return canvas.figure


def _draw_cell(canvas: Canvas, x: float, y: float, cell: Cell, waits: Sequence[str]) -> None:
    colour = _shade(cell.share)
    hatch = _HATCHES[waits.index(cell.hindered) % len(_HATCHES)] if cell.hindered else None
    _box(canvas, (x, y), (_CELL_IN, _CELL_HIGH_IN), colour, hatch)
    style: dict[str, Any] = {"color": _ink_on(colour), "bbox": {"facecolor": colour, "edgecolor": "none", "pad": 1.5}}
    said = ["–" if cell.share is None else f"{cell.share:.0%}", cell.hindered]
    said.append("" if cell.median_ms is None else f"{cell.median_ms:.0f} ms")
    fonts: list[dict[str, Any]] = [{"fontsize": 11, "fontweight": "bold"}, {"fontsize": SMALL}, {"fontsize": SMALL}]
    lines = [(text, font) for text, font in zip(said, fonts, strict=True) if text]
    for number, (text, font) in enumerate(lines):
        where = (x + _CELL_IN / 2, y + _CELL_HIGH_IN / 2 + 0.2 * (number - (len(lines) - 1) / 2))
        canvas.write([where], text, **font, **style)


def _shade(share: float | None) -> str:
    """From canvas to dark blue: light to dark tells the order without any sense of colour."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    if share is None:
        return EDGE
    return str(to_hex(LinearSegmentedColormap.from_list("share", ["#f6f8fa", "#7fb0de", "#0a4a8a"])(share)))


def _ink_on(colour: str) -> str:
    """Dark or light, whichever stands out more (WCAG 2.1: relative luminance)."""
    return max((INK, PAPER), key=lambda ink: contrast(ink, colour))


def _hatch_on(colour: str) -> str:
    """Seen, and no more: what is read stands before it."""
    return FAINT if _ink_on(colour) == INK else _shade(0.5)


def _box(canvas: Canvas, at: tuple[float, float], size: tuple[float, float], colour: str, hatch: str | None) -> None:
    from matplotlib.patches import Rectangle

    canvas.axes.add_patch(Rectangle(at, *size, facecolor=colour, edgecolor=_hatch_on(colour), hatch=hatch, linewidth=0))
    canvas.axes.add_patch(Rectangle(at, *size, facecolor="none", edgecolor=PAPER, linewidth=2))


def _legend(canvas: Canvas, y: float, waits: Sequence[str]) -> None:
    canvas.write(
        [(0.2, y)],
        "rows: left's NAT, columns: right's; share of punches that connected, and their median time",
        ha="left",
        fontsize=SMALL,
        color=FAINT,
    )
    for number, reason in enumerate(waits):
        low = y + 0.3 * (number + 1)
        _box(canvas, (0.2, low - 0.09), (0.4, 0.18), _shade(0.0), _HATCHES[number % len(_HATCHES)])
        canvas.write([(0.7, low)], reason, ha="left", fontsize=SMALL, color=FAINT)


def _wrapped(name: str, width: int) -> str:
    return "\n".join(
        line for part in re.sub(r"([/,+])", r"\1\n", name).split("\n") for line in textwrap.wrap(part, width)
    )
