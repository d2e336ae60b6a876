"""Pictures: one punch as a time-sequence diagram, and a heat map of NAT × NAT. SVG, PNG or PDF, by the file's suffix.

Theory of operation. What is to be drawn is decided first, as values (`_Way`: where a packet is when), then laid out,
then drawn. Lengths are inches and y grows downwards. The time axis is true to scale only within limits: no two moments
come closer than a line of text, and a long silence is cut short (dotted). matplotlib is imported when something is
drawn, without pyplot, which would keep state and look for a display.
"""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from simopen.errors import LabError
from simopen.lab.draw.nat_actions import OPENS, Act, acts, tcp_between
from simopen.lab.draw.text_diagram import moments
from simopen.lab.net.record import Origin, Passage, Record, Verdict
from simopen.lab.packet import Flags

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# An own background, so that one file is readable on a light page and on a dark one. Every ink has a contrast of at
# least 4.5 to it (WCAG 2.1 §1.4.3), and none is told from another by its colour alone.
_PAPER, _INK, _FAINT, _EDGE = "#ffffff", "#1f2328", "#59636e", "#d1d9e0"
_SIDES, _REFUSAL = ("#0a5cad", "#97500a"), "#c0152f"
_SIZE, _SMALL = 8.5, 7.5

_GAP_IN, _SPAN_IN, _MARGIN_IN, _HEAD_IN = 1.75, 3.4, 1.75, 0.75  # host to NAT, NAT to NAT, outside, above
_ROW_IN, _FLIGHT_IN, _SILENCE_IN = 0.22, 1.1, 0.6  # least between two moments, one packet's flight, a cut silence
_MOST_FLIGHTS = 1.3  # longer than so many flights nothing is drawn to scale
_LOST_AT = 0.4  # of the way: not in the middle, where one lost the other way ends
_MOST_DRAWN, _KEPT = 20, 14  # packets; more would be a pattern, not a story: then its begin and its end
_ALONG = (0.26, 0.33, 0.19, 0.4, 0.13, 0.46)  # where on an arrow its label may stand, the best first


class Cell(NamedTuple):
    """One pair of NATs: the share of punches that connected (0 to 1, None: not tried), the median time in ms where any
    did, and what stands in the way ("by prediction": it must be passed so), "" where nothing does."""

    share: float | None
    median_ms: float | None = None
    hindered: str = ""


def time_sequence(record: Record, left: str, right: str, path: str | Path, *, title: str = "") -> None:
    """Draw what went between two hosts: lifelines of both and of their NATs, time downwards, a slanted arrow a packet.

    `path`'s suffix names the format. Left out are what is no opening (data, FINs), and of a long story the middle.

    Raises: ValueError for a suffix that is none, or where no packet went between the two; LabError without matplotlib.
    """
    _save(sequence_figure(record, left, right, title=title), path)


def sequence_figure(record: Record, left: str, right: str, *, title: str = "") -> Figure:
    """The figure that `time_sequence` saves. Raises: ValueError where no packet went between the two; LabError."""
    require_matplotlib()
    return _draw_sequence(_Scene.of(record, left, right), title)


def heat_map(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]], path: str | Path, *, title: str = ""
) -> None:
    """Draw NAT × NAT: the success share as colour and number, what hinders it, hatched, and the median time.

    `cells[i][j]` is for `rows[i]`, the left side's NAT, and `columns[j]`, the right side's.

    Raises: ValueError for a suffix that is none, or cells that do not fit; LabError without matplotlib.
    """
    _save(heat_map_figure(rows, columns, cells, title=title), path)


def heat_map_figure(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]], *, title: str = ""
) -> Figure:
    """The figure that `heat_map` saves. Raises: ValueError for cells that do not fit; LabError."""
    if len(cells) != len(rows) or any(len(line) != len(columns) for line in cells):
        raise ValueError(f"{len(rows)} rows × {len(columns)} columns need as many cells")
    require_matplotlib()
    return _draw_heat_map(rows, columns, cells, title)


class _Point(NamedTuple):
    at_ns: int
    column: int


@dataclass(frozen=True, slots=True)
class _Way:
    """One packet's way over the lifelines. `lost`: its last part is not gone to the end."""

    passage: Passage
    points: tuple[_Point, ...]
    lost: bool

    @property
    def name(self) -> str:
        packet = self.passage.sent
        if packet.headers.quoted is not None:
            return "ICMP"
        names = [name for flag, name in _NAMES if flag in packet.flags]
        return "-".join(names) or "data"

    @property
    def stopped(self) -> bool:
        return self.passage.verdict not in (Verdict.DELIVERED, Verdict.IN_FLIGHT) and not self.lost


_NAMES = ((Flags.SYN, "SYN"), (Flags.RST, "RST"), (Flags.ACK, "ACK"))


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is drawn: the lifelines' names, the packets, each NAT's acts, each host's states. Columns count from left.

    A note is where, what, and what it was about, if that helps.
    """

    columns: tuple[str, ...]
    nats: tuple[int, int]
    ways: tuple[_Way, ...]
    notes: tuple[tuple[_Point, str, str], ...]
    states: tuple[tuple[_Point, str], ...]
    left_out: str
    start_ns: int

    @classmethod
    def of(cls, record: Record, left: str, right: str) -> _Scene:
        found = tcp_between(record, left, right)
        story = [moment for moment in moments(found, left, right) if not moment.dull]
        told = {id(moment.passage): moment.passage for moment in story if not _carries_data(moment.passage)}
        passages, left_out = _shortened(list(told.values()))
        if not passages:
            raise ValueError(f"no packet went between {left} and {right}: there is nothing to draw")
        nats = _count_nats(found, left), _count_nats(found, right)
        place = _Places((left, right), nats)
        flight_ns = _flight_ns(passages)
        kept = {id(passage) for passage in passages}
        did = [act for act in acts(found, left, right) if id(act.passage) in kept]
        states, before = [], ["CLOSED", "CLOSED"]
        for moment in story:
            if id(moment.passage) in kept and moment.state != before[moment.side]:
                before[moment.side] = moment.state
                states.append((_Point(moment.at_ns, place.host(moment.side)), moment.state))
        return cls(
            place.names(found),
            nats,
            tuple(_way(passage, place, flight_ns) for passage in passages),
            tuple(
                (_Point(act.step.at_ns, place.nat(*act.step[:2])), act.words, _about(act))
                for act in did
                if _worth_saying(act)
            ),
            tuple(states),
            left_out,
            passages[0].sent_ns,
        )


def _carries_data(passage: Passage) -> bool:
    return bool(passage.sent.payload_length) and passage.sent.headers.quoted is None


def _worth_saying(act: Act) -> bool:
    """A hole opened, a SYN let in, anything stopped: not what a NAT does with what follows."""
    return act.what == OPENS or act.step.headers is None or (not act.outward and act.passage.sent.is_syn)


def _about(act: Act) -> str:
    """Of a SYN that was not let in: from where, and to which port."""
    if act.step.headers is not None or not act.passage.sent.is_syn:
        return ""
    (address, port), to = act.seen.source, act.seen.destination.port
    return f"{address}:{port}→:{to}"


def _shortened(passages: list[Passage]) -> tuple[list[Passage], str]:
    passages = sorted(passages, key=lambda passage: passage.sent_ns)
    if len(passages) <= _MOST_DRAWN:
        return passages, ""
    head, tail, over = passages[: _KEPT // 2], passages[-_KEPT // 2 :], len(passages) - _KEPT
    since, until = ((end.sent_ns - passages[0].sent_ns) / 1e6 for end in (head[-1], tail[0]))
    return head + tail, f"{over} more packets between {since:.1f} and {until:.1f} ms are left out"


def _count_nats(record: Record, host: str) -> int:
    return max((step.nat + 1 for passage in record for step in passage.steps if step.host == host), default=0)


def _flight_ns(passages: Sequence[Passage]) -> float:
    """What a packet's way takes; it is the scale."""
    times = [p.received_ns - p.sent_ns for p in passages if p.received_ns is not None]
    times += [step.at_ns - p.sent_ns for p in passages for step in p.steps if step.host != p.source]
    return max(1.0, statistics.median(times)) if times else 40e6


@dataclass(frozen=True, slots=True)
class _Places:
    """Which column is whose: left, its NATs outwards, right's NATs inwards, right."""

    hosts: tuple[str, str]
    nats: tuple[int, int]

    @property
    def last(self) -> int:
        return sum(self.nats) + 1

    def host(self, side: int) -> int:
        return self.last if side else 0

    def nat(self, host: str, nat: int) -> int:
        return self.last - 1 - nat if host == self.hosts[1] else 1 + nat

    def names(self, record: Record) -> tuple[str, ...]:
        """Each lifeline's, with the address that it has towards the core, where a packet shows it."""
        names = [""] * (self.last + 1)
        for side, host in enumerate(self.hosts):
            sent = (passage.sent.source.address for passage in record.between(host, self.hosts[1 - side]))
            names[self.host(side)] = f"{host}\n{next(sent, '')}"
            for nat in range(self.nats[side]):
                which = f" {nat + 1}" if self.nats[side] > 1 else ""
                names[self.nat(host, nat)] = f"{host}'s NAT{which}\n{_outer_address(record, host, nat)}"
        return tuple(names)


def _outer_address(record: Record, host: str, nat: int) -> str:
    steps = (step for passage in record if passage.source == host for step in passage.steps)
    return next((s.headers.source.address for s in steps if s.headers and (s.host, s.nat) == (host, nat)), "")


def _way(passage: Passage, place: _Places, flight_ns: float) -> _Way:
    side = place.hosts.index(passage.source)
    points = [_Point(passage.sent_ns, _start(passage, place, side))]
    points += [_Point(step.at_ns, place.nat(step.host, step.nat)) for step in passage.steps]
    if passage.received_ns is not None:
        points.append(_Point(passage.received_ns, place.host(1 - side)))
    # What no NAT stopped and nobody got is lost on the way between the two outermost columns.
    lost = passage.received_ns is None and (not passage.steps or passage.steps[-1].headers is not None)
    if lost:
        points.append(_Point(passage.sent_ns + round(flight_ns), points[-1].column + (-1 if side else 1)))
    return _Way(passage, tuple(points), lost)


def _start(passage: Passage, place: _Places, side: int) -> int:
    if passage.origin is Origin.HOST:
        return place.host(side)
    # Sent by a NAT: the one inside of the first that it passes, else the outermost.
    first = next((step.nat for step in passage.steps if step.host == passage.source), place.nats[side])
    return place.nat(passage.source, first - 1)


def _y_of(scene: _Scene) -> tuple[Callable[[float], float], list[tuple[float, float]], list[float]]:
    """How far down a time is; the rows as (time, y); and the y below which time is cut short."""
    times = sorted({point.at_ns for way in scene.ways for point in way.points})
    scale = _FLIGHT_IN / _flight_ns([way.passage for way in scene.ways])
    rows, cut = [(float(times[0]), _HEAD_IN)], []
    for before, now in pairwise(times):
        gap = max((now - before) * scale, _ROW_IN)
        silent = not any(way.points[0].at_ns <= before and way.points[-1].at_ns >= now for way in scene.ways)
        if gap > _FLIGHT_IN * _MOST_FLIGHTS:
            cut.append(rows[-1][1])
            gap = _SILENCE_IN if silent else _FLIGHT_IN
        rows.append((float(now), rows[-1][1] + gap))

    def y_of(at_ns: float) -> float:
        for (t0, y0), (t1, y1) in pairwise(rows):
            if at_ns <= t1:
                return y0 + (y1 - y0) * (at_ns - t0) / (t1 - t0)
        return rows[-1][1] + (at_ns - rows[-1][0]) * scale

    return y_of, rows, cut


@dataclass(slots=True)
class _Paper:
    """One drawing in inches, y downwards, that knows where its texts are."""

    figure: Figure
    axes: Axes
    taken: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, width: float, height: float) -> _Paper:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), dpi=150, facecolor=_PAPER, edgecolor=_EDGE, linewidth=1.5)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        return cls(figure, axes)

    def write(self, places: Sequence[tuple[float, float]], text: str, *, optional: bool = False, **style: Any) -> None:
        """Write at the first of the places where no other text is; where none is free, at the first if it must."""
        style = {"fontsize": _SIZE, "color": _INK, "va": "center", "ha": "center", **style}
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
        self.axes.plot(xs, ys, **{"solid_capstyle": "round", "color": _INK, "linewidth": 1.2, **style})


def _draw_sequence(scene: _Scene, title: str) -> Figure:
    y_of, rows, cut = _y_of(scene)
    xs = _columns(scene)
    bottom = max(y_of(point.at_ns) for way in scene.ways for point in way.points) + 0.3
    top = 0.35 * bool(title)
    foot = _foot(scene, bool(cut))
    paper = _Paper.of(xs[-1] + _MARGIN_IN - 0.25, top + bottom + 0.25 * len(foot) + 0.15)
    paper.axes.set_ylim(bottom + 0.25 * len(foot) + 0.15, -top)
    if title:
        paper.write([(0.2, 0.05 - top / 2)], title, ha="left", fontsize=10, fontweight="bold")
    for number, note in enumerate(foot):
        paper.write([(0.2, bottom + 0.1 + 0.25 * number)], note, ha="left", color=_FAINT, fontsize=_SMALL)
    _lifelines(paper, scene, xs, [0.42, *(y for _, y in rows), bottom - 0.1], cut)
    _moments(paper, scene, rows)
    _labels(paper, scene, xs, y_of)
    for way in scene.ways:
        _arrow(paper, way, xs, y_of)
    for way in scene.ways:
        _name(paper, way, xs, y_of)
    _details(paper, scene, xs, y_of)
    return paper.figure


def _columns(scene: _Scene) -> list[float]:
    xs = [_MARGIN_IN]
    for column in range(1, len(scene.columns)):
        between_outermost = column == scene.nats[0] + 1
        xs.append(xs[-1] + (_SPAN_IN if between_outermost else _GAP_IN))
    return xs


def _foot(scene: _Scene, cut: bool) -> list[str]:
    notes = [scene.left_out, "where the lifelines are dotted, time is cut short" * cut]
    return [note for note in notes if note]


def _lifelines(paper: _Paper, scene: _Scene, xs: Sequence[float], stops: Sequence[float], cut: Sequence[float]) -> None:
    for x, name in zip(xs, scene.columns, strict=True):
        paper.write([(x, 0.2)], name.strip(), fontsize=_SIZE, fontweight="bold", linespacing=1.2)
        for above, below in pairwise(stops):
            style = ":" if above in cut else "-"
            paper.line([(x, above), (x, below)], color=_FAINT, linewidth=0.9, linestyle=style, zorder=0)


def _moments(paper: _Paper, scene: _Scene, rows: Sequence[tuple[float, float]]) -> None:
    paper.write([(0.6, 0.2)], "ms", color=_FAINT, fontsize=_SMALL, ha="right")
    shown = {p.at_ns for way in scene.ways for p in (way.points[:-1] if way.lost else way.points)}
    for at_ns, y in rows:
        if at_ns not in shown:
            continue
        ms = f"{(at_ns - scene.start_ns) / 1e6:.1f}"
        paper.write([(0.6, y)], ms, color=_FAINT, fontsize=_SMALL, ha="right")


def _labels(paper: _Paper, scene: _Scene, xs: Sequence[float], y_of: Callable[[float], float]) -> None:
    """States outside of the hosts; what a NAT did on the side of its host, above the packet's line."""
    middle = (xs[0] + xs[-1]) / 2
    for point, state in scene.states:
        x, left = xs[point.column], xs[point.column] < middle
        where = (x + (-0.08 if left else 0.08), y_of(point.at_ns))
        paper.write([where], state, ha="right" if left else "left", fontsize=_SMALL)
    for point, words, _ in scene.notes:
        _note(paper, scene, xs[point.column], (point, words), y_of(point.at_ns) - 0.025)


def _details(paper: _Paper, scene: _Scene, xs: Sequence[float], y_of: Callable[[float], float]) -> None:
    """Which SYN it was that a NAT stopped, below that, where there is room."""
    for point, _, about in scene.notes:
        if about:
            _note(paper, scene, xs[point.column], (point, about), y_of(point.at_ns) + 0.02, optional=True)


def _note(
    paper: _Paper, scene: _Scene, x: float, said: tuple[_Point, str], y: float, *, optional: bool = False
) -> None:
    point, words = said
    left = point.column <= scene.nats[0]
    x += -0.07 if left else 0.07
    # Two things at the very same time, at the same NAT: the second stands below the line, or above the first.
    places = [(x, y)] if optional else [(x, y), (x, y + 0.17), (x, y - 0.13)]
    good = words.startswith(("opens", "lets"))
    style: dict[str, Any] = {"ha": "right" if left else "left", "va": "top" if optional else "bottom"}
    paper.write(places, words, optional=optional, color=_FAINT if good else _REFUSAL, fontsize=_SMALL, **style)


def _track(way: _Way, xs: Sequence[float], y_of: Callable[[float], float]) -> list[tuple[float, float]]:
    track = [(xs[point.column], y_of(point.at_ns)) for point in way.points]
    if way.lost:
        (x0, y0), (x1, y1) = track[-2:]
        track[-1] = (x0 + (x1 - x0) * _LOST_AT, y0 + (y1 - y0) * _LOST_AT)
    return track


def _arrow(paper: _Paper, way: _Way, xs: Sequence[float], y_of: Callable[[float], float]) -> None:
    track = _track(way, xs, y_of)
    outward = way.points[1].column > way.points[0].column
    colour = _REFUSAL if way.passage.sent.is_rst or way.name == "ICMP" else _SIDES[not outward]
    paper.line(track[:-1] or track, color=colour)
    paper.axes.annotate(
        "",
        xy=track[-1],
        xytext=track[-2],
        arrowprops={
            "arrowstyle": "-" if way.lost else "-|>",
            "color": colour,
            "linewidth": 1.2,
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )
    under_way = way.passage.verdict is Verdict.IN_FLIGHT
    if (way.lost or way.stopped) and not under_way:
        paper.line([track[-1]], color=_REFUSAL, marker="x", markersize=7, markeredgewidth=2, zorder=5)
    if way.lost:
        (x, y), ink = track[-1], _FAINT if under_way else _REFUSAL
        paper.write([(x, y + 0.14), (x, y - 0.14)], way.passage.verdict.value, color=ink, fontsize=_SMALL)


def _name(paper: _Paper, way: _Way, xs: Sequence[float], y_of: Callable[[float], float]) -> None:
    """The packet's flags, on the part of its track that takes time."""
    track = _track(way, xs, y_of)
    parts = list(pairwise(track))
    (x0, y0), (x1, y1) = parts[-1] if way.lost else max(parts, key=lambda part: abs(part[1][0] - part[0][0]))
    reach = 1.7 if way.lost else 1.0  # of a shorter line
    places = [(x0 + (x1 - x0) * at * reach, y0 + (y1 - y0) * at * reach) for at in _ALONG]
    back = {"facecolor": _PAPER, "edgecolor": "none", "pad": 0.8}
    paper.write(places, way.name, bbox=back, zorder=4, fontweight="bold", fontsize=_SMALL)


_CELL_IN, _CELL_HIGH_IN = 1.4, 0.72


def _draw_heat_map(rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]], title: str) -> Figure:
    waits = list(dict.fromkeys(cell.hindered for line in cells for cell in line if cell.hindered))
    heads = [_wrapped(name, 18) for name in columns]
    left, top = 2.15, 0.35 + 0.16 * max(head.count("\n") + 1 for head in heads) + 0.35 * bool(title)
    width = left + _CELL_IN * len(columns) + 0.3
    height = top + _CELL_HIGH_IN * len(rows) + 0.35 + 0.3 * (len(waits) + 1)
    paper = _Paper.of(width, height)
    if title:
        paper.write([(0.2, 0.25)], title, ha="left", fontsize=10, fontweight="bold")
    for number, name in enumerate(rows):
        paper.write([(left - 0.12, top + _CELL_HIGH_IN * (number + 0.5))], _wrapped(name, 26), ha="right")
    for number, head in enumerate(heads):
        paper.write([(left + _CELL_IN * (number + 0.5), top - 0.1)], head, va="bottom")
    for i, line in enumerate(cells):
        for j, cell in enumerate(line):
            _draw_cell(paper, left + _CELL_IN * j, top + _CELL_HIGH_IN * i, cell, waits)
    _legend(paper, left, top + _CELL_HIGH_IN * len(rows) + 0.3, waits)
    return paper.figure


_HATCHES = ("///", "\\\\\\", "xx", "..")


def _draw_cell(paper: _Paper, x: float, y: float, cell: Cell, waits: Sequence[str]) -> None:
    colour = _shade(cell.share)
    hatch = _HATCHES[waits.index(cell.hindered) % len(_HATCHES)] if cell.hindered else None
    _box(paper, (x, y), (_CELL_IN, _CELL_HIGH_IN), colour, hatch)
    style: dict[str, Any] = {"color": _ink_on(colour), "bbox": {"facecolor": colour, "edgecolor": "none", "pad": 1.5}}
    said = ["–" if cell.share is None else f"{cell.share:.0%}", cell.hindered]
    said.append("" if cell.median_ms is None else f"{cell.median_ms:.0f} ms")
    fonts: list[dict[str, Any]] = [{"fontsize": 11, "fontweight": "bold"}, {"fontsize": _SMALL}, {"fontsize": _SMALL}]
    lines = [(text, font) for text, font in zip(said, fonts, strict=True) if text]
    for number, (text, font) in enumerate(lines):
        where = (x + _CELL_IN / 2, y + _CELL_HIGH_IN / 2 + 0.2 * (number - (len(lines) - 1) / 2))
        paper.write([where], text, **font, **style)


def _shade(share: float | None) -> str:
    """From paper to dark blue: light to dark tells the order without any sense of colour."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    if share is None:
        return _EDGE
    return str(to_hex(LinearSegmentedColormap.from_list("share", ["#f6f8fa", "#7fb0de", "#0a4a8a"])(share)))


def _ink_on(colour: str) -> str:
    """Dark or light, whichever stands out more (WCAG 2.1: relative luminance)."""
    return max((_INK, _PAPER), key=lambda ink: contrast(ink, colour))


def _hatch_on(colour: str) -> str:
    """Seen, and no more: what is read stands before it."""
    return _FAINT if _ink_on(colour) == _INK else _shade(0.5)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2.1, "contrast ratio")."""
    bright, dark = sorted(map(_luminance, (one, other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _box(paper: _Paper, at: tuple[float, float], size: tuple[float, float], colour: str, hatch: str | None) -> None:
    from matplotlib.patches import Rectangle

    paper.axes.add_patch(Rectangle(at, *size, facecolor=colour, edgecolor=_hatch_on(colour), hatch=hatch, linewidth=0))
    paper.axes.add_patch(Rectangle(at, *size, facecolor="none", edgecolor=_PAPER, linewidth=2))


def _legend(paper: _Paper, left: float, y: float, waits: Sequence[str]) -> None:
    paper.write(
        [(0.2, y)],
        "rows: left's NAT, columns: right's; share of punches that connected, and their median time",
        ha="left",
        fontsize=_SMALL,
        color=_FAINT,
    )
    for number, reason in enumerate(waits):
        low = y + 0.3 * (number + 1)
        _box(paper, (0.2, low - 0.09), (0.4, 0.18), _shade(0.0), _HATCHES[number % len(_HATCHES)])
        paper.write([(0.7, low)], reason, ha="left", fontsize=_SMALL, color=_FAINT)


def _wrapped(name: str, width: int) -> str:
    return "\n".join(
        line for part in re.sub(r"([/,+])", r"\1\n", name).split("\n") for line in textwrap.wrap(part, width)
    )


def require_matplotlib() -> None:
    """Raises: LabError where it is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise LabError("pictures need matplotlib: pip install matplotlib") from error


_FORMATS = (".svg", ".png", ".pdf")


def check_suffix(path: str | Path) -> None:
    """Raises: ValueError where the suffix names no format that can be drawn."""
    if Path(path).suffix.lower() not in _FORMATS:
        raise ValueError(f"{str(path)!r} names no kind of picture: end it with {', '.join(_FORMATS)}")


def _save(figure: Figure, path: str | Path) -> None:
    check_suffix(path)
    from matplotlib import rc_context

    # Text stays text in an SVG: it can be searched and read aloud. The same drawing gives the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "simopen"}):
        figure.savefig(path, metadata={"Date": None} if Path(path).suffix.lower() == ".svg" else None)
