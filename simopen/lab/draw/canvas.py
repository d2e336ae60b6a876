"""What every picture shares: colours, a canvas in inches that knows where its texts are, and the file it is saved to.

matplotlib is imported when something is drawn, without pyplot, which would keep state and look for a display.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simopen.errors import LabError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A background of their own, so that one file is readable on a light page and on a dark one. Every ink has a contrast of
# at least 4.5 to it (WCAG 2.1 §1.4.3), and none is told from another by its colour alone.
PAPER, INK, FAINT, EDGE = "#ffffff", "#1f2328", "#59636e", "#d1d9e0"
SIZE, SMALL = 8.5, 7.5  # of letters, in points
_FORMATS = (".svg", ".png", ".pdf")


@dataclass(slots=True)
class Canvas:
    """One drawing, its lengths in inches, y downwards, that knows where its texts are."""

    figure: Figure
    axes: Axes
    taken: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, width: float, height: float) -> Canvas:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), dpi=150, facecolor=PAPER, edgecolor=EDGE, linewidth=1.5)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        return cls(figure, axes)

    def write(self, places: Sequence[tuple[float, float]], text: str, *, optional: bool = False, **style: Any) -> None:
        """Write at the first of the places where no other text is; where none is free, at the first if it must."""
        style = {"fontsize": SIZE, "color": INK, "va": "center", "ha": "center", **style}
        written = self.axes.text(*places[0], text, **style)
        for place in places:
            written.set_position(place)
            box = written.get_window_extent()
            if not any(box.overlaps(other) for other in self.taken):
                break
        else:
            if optional:
                written.remove()
                return
            written.set_position(places[0])
            box = written.get_window_extent()
        self.taken.append(box)

    def line(self, points: Sequence[tuple[float, float]], **style: Any) -> None:
        """A line through these points."""
        xs, ys = zip(*points, strict=True)
        self.axes.plot(xs, ys, **{"solid_capstyle": "round", "color": INK, "linewidth": 1.2, **style})


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2.1, "contrast ratio")."""
    bright, dark = sorted(map(_luminance, (one, other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def require_matplotlib() -> None:
    """Raises: LabError where it is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise LabError("pictures need matplotlib: pip install matplotlib") from error


def check_suffix(path: str | Path) -> None:
    """Raises: ValueError where the suffix names no format that can be drawn."""
    if Path(path).suffix.lower() not in _FORMATS:
        raise ValueError(f"{str(path)!r} names no kind of picture: end it with {', '.join(_FORMATS)}")


def save(figure: Figure, path: str | Path) -> None:
    """Write it in the format that `path`'s suffix names. Raises: ValueError as `check_suffix`; OSError."""
    check_suffix(path)
    from matplotlib import rc_context

    # Text stays text in an SVG: it can be searched and read aloud. The same drawing gives the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "simopen"}):
        figure.savefig(path, metadata={"Date": None} if Path(path).suffix.lower() == ".svg" else None)
