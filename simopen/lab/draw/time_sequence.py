"""One punch as a time-sequence diagram, SVG, PNG or PDF by the file's suffix.

Theory of operation. What is to be drawn is decided first, as values (`_Flight`: where a packet is when), then laid out,
then drawn. Lengths are inches and y grows downwards. The time axis is true to scale only within limits: no two moments
come closer than a line of text, and a long silence is cut short (dotted).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from simopen.lab.draw.canvas import FAINT, PAPER, SIZE, SMALL, Canvas, require_matplotlib, save
from simopen.lab.draw.nat_actions import OPENS, Act, acts, tcp_between
from simopen.lab.draw.text_diagram import moments
from simopen.lab.net.record import Origin, Passage, Record, Verdict
from simopen.lab.packet import Flags

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDES, _REFUSAL = ("#0a5cad", "#97500a"), "#c0152f"  # as legible as `canvas.INK`

_GAP_IN, _SPAN_IN, _MARGIN_IN, _HEAD_IN = 1.75, 3.4, 1.75, 0.75  # host to NAT, NAT to NAT, outside, above
_ROW_IN, _FLIGHT_IN, _SILENCE_IN = 0.22, 1.1, 0.6  # least between two moments, one packet's flight, a cut silence
_MOST_FLIGHTS = 1.3  # longer than so many flights nothing is drawn to scale
_LOST_AT = 0.4  # of the way: not in the middle, where one lost the other way ends
_MOST_DRAWN, _KEPT = 20, 14  # packets; more would be a pattern, not a story: then its begin and its end
_ALONG = (0.26, 0.33, 0.19, 0.4, 0.13, 0.46)  # where on an arrow its label may stand, the best first
_ELSEWHERE = (0.52, 0.08, 0.6, 0.68, 0.76, 0.84, 0.92)  # where several cross, as many are lost and sent again
_BESIDE = (-0.13, 0.13)  # off the arrow, inches


def time_sequence(record: Record, left: str, right: str, path: str | Path, *, title: str = "") -> None:
    """Draw what went between two hosts: lifelines of both and of their NATs, time downwards, a slanted arrow a packet.

    `path`'s suffix names the format. Left out are what is no opening (data, FINs), and of a long story the middle.

    Raises: ValueError for a suffix that is none, or where no packet went between the two; LabError without matplotlib.
    """
    save(sequence_figure(record, left, right, title=title), path)


def sequence_figure(record: Record, left: str, right: str, *, title: str = "") -> Figure:
    """The figure that `time_sequence` saves. Raises: ValueError where no packet went between the two; LabError."""
    require_matplotlib()
    return _draw_sequence(_Scene.of(record, left, right), title)


class _Point(NamedTuple):
    at_ns: int
    column: int


@dataclass(frozen=True, slots=True)
class _Flight:
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
    flights: tuple[_Flight, ...]
    notes: tuple[tuple[_Point, str, str], ...]
    states: tuple[tuple[_Point, str], ...]
    left_out: str
    start_ns: int

    @classmethod
    def of(cls, record: Record, left: str, right: str) -> _Scene:
        found = tcp_between(record, left, right)
        story = [moment for moment in moments(found, left, right) if not moment.routine]
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
            tuple(_flight(passage, place, flight_ns) for passage in passages),
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


def _flight(passage: Passage, place: _Places, flight_ns: float) -> _Flight:
    side = place.hosts.index(passage.source)
    points = [_Point(passage.sent_ns, _start(passage, place, side))]
    points += [_Point(step.at_ns, place.nat(step.host, step.nat)) for step in passage.steps]
    if passage.received_ns is not None:
        points.append(_Point(passage.received_ns, place.host(1 - side)))
    # What no NAT stopped and nobody got is lost on the way between the two outermost columns.
    lost = passage.received_ns is None and (not passage.steps or passage.steps[-1].headers is not None)
    if lost:
        points.append(_Point(passage.sent_ns + round(flight_ns), points[-1].column + (-1 if side else 1)))
    return _Flight(passage, tuple(points), lost)


def _start(passage: Passage, place: _Places, side: int) -> int:
    if passage.origin is Origin.HOST:
        return place.host(side)
    # Sent by a NAT: the one inside of the first that it passes, else the outermost.
    first = next((step.nat for step in passage.steps if step.host == passage.source), place.nats[side])
    return place.nat(passage.source, first - 1)


def _y_of(scene: _Scene) -> tuple[Callable[[float], float], list[tuple[float, float]], list[float]]:
    """How far down a time is; the rows as (time, y); and the y below which time is cut short."""
    times = sorted({point.at_ns for flight in scene.flights for point in flight.points})
    scale = _FLIGHT_IN / _flight_ns([flight.passage for flight in scene.flights])
    rows, cut = [(float(times[0]), _HEAD_IN)], []
    for before, now in pairwise(times):
        gap = max((now - before) * scale, _ROW_IN)
        silent = not any(
            flight.points[0].at_ns <= before and flight.points[-1].at_ns >= now for flight in scene.flights
        )
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


def _draw_sequence(scene: _Scene, title: str) -> Figure:
    y_of, rows, cut = _y_of(scene)
    xs = _columns(scene)
    bottom = max(y_of(point.at_ns) for flight in scene.flights for point in flight.points) + 0.3
    top = 0.35 * bool(title)
    foot = _foot(scene, bool(cut))
    canvas = Canvas.of(xs[-1] + _MARGIN_IN - 0.25, top + bottom + 0.25 * len(foot) + 0.15)
    canvas.axes.set_ylim(bottom + 0.25 * len(foot) + 0.15, -top)
    if title:
        canvas.write([(0.2, 0.05 - top / 2)], title, ha="left", fontsize=10, fontweight="bold")
    for number, note in enumerate(foot):
        canvas.write([(0.2, bottom + 0.1 + 0.25 * number)], note, ha="left", color=FAINT, fontsize=SMALL)
    _lifelines(canvas, scene, xs, [0.42, *(y for _, y in rows), bottom - 0.1], cut)
    _moments(canvas, scene, rows)
    _labels(canvas, scene, xs, y_of)
    for flight in scene.flights:
        _arrow(canvas, flight, xs, y_of)
    for flight in scene.flights:
        _name(canvas, flight, xs, y_of)
    _details(canvas, scene, xs, y_of)
    return canvas.figure


def _columns(scene: _Scene) -> list[float]:
    xs = [_MARGIN_IN]
    for column in range(1, len(scene.columns)):
        between_outermost = column == scene.nats[0] + 1
        xs.append(xs[-1] + (_SPAN_IN if between_outermost else _GAP_IN))
    return xs


def _foot(scene: _Scene, cut: bool) -> list[str]:
    notes = [scene.left_out, "where the lifelines are dotted, time is cut short" * cut]
    return [note for note in notes if note]


def _lifelines(
    canvas: Canvas, scene: _Scene, xs: Sequence[float], stops: Sequence[float], cut: Sequence[float]
) -> None:
    for x, name in zip(xs, scene.columns, strict=True):
        canvas.write([(x, 0.2)], name.strip(), fontsize=SIZE, fontweight="bold", linespacing=1.2)
        for above, below in pairwise(stops):
            style = ":" if above in cut else "-"
            canvas.line([(x, above), (x, below)], color=FAINT, linewidth=0.9, linestyle=style, zorder=0)


def _moments(canvas: Canvas, scene: _Scene, rows: Sequence[tuple[float, float]]) -> None:
    canvas.write([(0.6, 0.2)], "ms", color=FAINT, fontsize=SMALL, ha="right")
    shown = {p.at_ns for flight in scene.flights for p in (flight.points[:-1] if flight.lost else flight.points)}
    for at_ns, y in rows:
        if at_ns not in shown:
            continue
        ms = f"{(at_ns - scene.start_ns) / 1e6:.1f}"
        canvas.write([(0.6, y)], ms, color=FAINT, fontsize=SMALL, ha="right")


def _labels(canvas: Canvas, scene: _Scene, xs: Sequence[float], y_of: Callable[[float], float]) -> None:
    """States outside of the hosts; what a NAT did on the side of its host, above the packet's line."""
    middle = (xs[0] + xs[-1]) / 2
    for point, state in scene.states:
        x, left = xs[point.column], xs[point.column] < middle
        where = (x + (-0.08 if left else 0.08), y_of(point.at_ns))
        canvas.write([where], state, ha="right" if left else "left", fontsize=SMALL)
    for point, words, _ in scene.notes:
        _note(canvas, scene, xs[point.column], (point, words), y_of(point.at_ns) - 0.025)


def _details(canvas: Canvas, scene: _Scene, xs: Sequence[float], y_of: Callable[[float], float]) -> None:
    """Which SYN it was that a NAT stopped, below that, where there is room."""
    for point, _, about in scene.notes:
        if about:
            _note(canvas, scene, xs[point.column], (point, about), y_of(point.at_ns) + 0.02, optional=True)


def _note(
    canvas: Canvas, scene: _Scene, x: float, said: tuple[_Point, str], y: float, *, optional: bool = False
) -> None:
    point, words = said
    left = point.column <= scene.nats[0]
    x += -0.07 if left else 0.07
    # Two things at the very same time, at the same NAT: the second stands below the line, or above the first.
    places = [(x, y)] if optional else [(x, y), (x, y + 0.17), (x, y - 0.13)]
    good = words.startswith(("opens", "lets"))
    style: dict[str, Any] = {"ha": "right" if left else "left", "va": "top" if optional else "bottom"}
    canvas.write(places, words, optional=optional, color=FAINT if good else _REFUSAL, fontsize=SMALL, **style)


def _track(flight: _Flight, xs: Sequence[float], y_of: Callable[[float], float]) -> list[tuple[float, float]]:
    track = [(xs[point.column], y_of(point.at_ns)) for point in flight.points]
    if flight.lost:
        (x0, y0), (x1, y1) = track[-2:]
        track[-1] = (x0 + (x1 - x0) * _LOST_AT, y0 + (y1 - y0) * _LOST_AT)
    return track


def _arrow(canvas: Canvas, flight: _Flight, xs: Sequence[float], y_of: Callable[[float], float]) -> None:
    track = _track(flight, xs, y_of)
    outward = flight.points[1].column > flight.points[0].column
    colour = _REFUSAL if flight.passage.sent.is_rst or flight.name == "ICMP" else _SIDES[not outward]
    canvas.line(track[:-1] or track, color=colour)
    canvas.axes.annotate(
        "",
        xy=track[-1],
        xytext=track[-2],
        arrowprops={
            "arrowstyle": "-" if flight.lost else "-|>",
            "color": colour,
            "linewidth": 1.2,
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )
    under_way = flight.passage.verdict is Verdict.IN_FLIGHT
    if (flight.lost or flight.stopped) and not under_way:
        canvas.line([track[-1]], color=_REFUSAL, marker="x", markersize=7, markeredgewidth=2, zorder=5)
    if flight.lost:
        (x, y), ink = track[-1], FAINT if under_way else _REFUSAL
        canvas.write([(x, y + 0.14), (x, y - 0.14)], flight.passage.verdict.value, color=ink, fontsize=SMALL)


def _name(canvas: Canvas, flight: _Flight, xs: Sequence[float], y_of: Callable[[float], float]) -> None:
    """The packet's flags, on the part of its track that takes time."""
    track = _track(flight, xs, y_of)
    parts = list(pairwise(track))
    (x0, y0), (x1, y1) = parts[-1] if flight.lost else max(parts, key=lambda part: abs(part[1][0] - part[0][0]))
    reach = 1.7 if flight.lost else 1.0  # of a shorter line
    along = [min(0.95, at * reach) for at in (*_ALONG, *_ELSEWHERE)]
    places = [(x0 + (x1 - x0) * at, y0 + (y1 - y0) * at) for at in along]
    places += [(x, y + beside) for beside in _BESIDE for x, y in places]
    back = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}
    canvas.write(places, flight.name, bbox=back, zorder=4, fontweight="bold", fontsize=SMALL)
