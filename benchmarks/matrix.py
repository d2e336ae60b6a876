"""NAT × NAT: which pairs connect, how fast, at how many SYNs; and which are refused at once.

    python -m benchmarks.matrix [--runs 20] [--rtt 80] [--at-once 16] [--only KIND ... | --counted | --short]
        [--discover] [--ntp] [--tickets | --meet] [--json FILE]

Both sides do what a user would: ask STUN servers over TCP from the punch port and hold the mapping, give each other
their profiles, agree on an instant, and punch. Sprays are allowed where nothing else helps, and first shots have a low
TTL where a NAT closes its mapping on a RST. A stream counts where a few bytes went each way. Each cell is tried in both
orders in turn. `ms`: from the later instant until both sides have the stream; a refusal: from both profiles being
known. SYNs are counted in the lab's record, the kernel's repetitions too.

A cell falls under the bar of its line. Of a share that so few runs cannot show, such as 99 % of 20, a cell may miss one
punch; the line as a whole may not. NATs that count ports are tried with a row of them for each protocol, and with one
row for TCP and UDP. `--counted`: these alone. `--discover`, `--ntp`: each user's program also learns another port's
profile meanwhile, and asks for the time between the profiles and the punch. `--tickets`: both swap tickets, and `ms` is
until both sides have the link; each bar has two round trips more. `--meet`: both meet by a code through `simopen
serve`, and do the whole way by that, so that no cell is apart and no first shot has a low TTL; `ms` is from the later
side's first SYN until both have the link, or from when the later one began to say what its NATs do until both are
refused; the bars are those of tickets. `--short`: one cell of each line, and one of one row. The heat map goes beside
FILE, as SVG and as PNG; of `--meet` there is none.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.cells import ALL_KINDS, CELLS, KINDS, Cell, among, counted, one_of_each_line
from benchmarks.common import (
    Row,
    measuring,
    median,
    options_parser,
    progress,
    rounded,
    save,
    shape,
    shown,
    table,
)
from benchmarks.expected import BARS, Bar, Face, Line, Outlook
from benchmarks.sites import Meanwhile, Punch, Syns, opened, side_by_side, syns_between, syns_by_host
from simopen import lab
from simopen.lab.draw.heat_map import Cell as Field
from simopen.lab.draw.heat_map import heat_map

LINK_RTT = 2.0
"""What tickets and codes may take longer than two profiles: both sides are proven."""
_UNKNOWN_AT_MOST = 0.05  # of the profiles may leave the mapping open; none may be wrong


class Try(NamedTuple):
    """One punch of a cell, and the SYNs of both sides. `more_rtt`: round trips that a link may take beyond the bar."""

    cell: Cell
    punch: Punch
    syns: tuple[Syns, Syns]
    more_rtt: float = 0.0

    @property
    def took_ms(self) -> float | None:
        """Until it was as expected, so until the refusal where there is no way; None where it never was."""
        return self.punch.refused_ms if self.cell.expected.outlook is Outlook.NEVER else self.punch.both_ms

    @property
    def most(self) -> Syns:
        """The worse side's."""
        return Syns(*map(max, zip(*self.syns, strict=True)))


def missed(bar: Bar, tries: Sequence[Try], rtt_ms: float, *, lone: bool) -> list[str]:
    """What of a bar these do not reach, a few words each. `lone`: they are of one cell, and few."""
    within_ms = _within_ms(bar, tries, rtt_ms)
    took = [each.took_ms for each in tries if each.took_ms is not None]
    good, asked = sum(each <= within_ms for each in took), bar.share * len(tries)
    sent, in_a_second = (max(counts) for counts in zip(*(each.most for each in tries), strict=True))
    wrong = {
        f"{good} of {len(tries)}": good < (math.floor(asked) if lone else asked),
        f"median {median(took or [math.inf]) / rtt_ms:.2f} RTT": bar.median_rtt is not None
        and median(took or [math.inf]) > (bar.median_rtt + tries[0].more_rtt) * rtt_ms,
        f"{sent} SYNs": bar.syns is not None and sent > bar.syns,
        f"{in_a_second} SYNs/s": bar.syns_per_s is not None and in_a_second > bar.syns_per_s,
    }
    return [words for words, is_so in wrong.items() if is_so]


def _within_ms(bar: Bar, tries: Sequence[Try], rtt_ms: float) -> float:
    return math.inf if bar.within_s is None else bar.within_s * 1e3 + tries[0].more_rtt * rtt_ms


async def measure(options: argparse.Namespace, cells: Sequence[Cell]) -> list[Try]:
    """Every punch of every cell. A round has each cell once, and ends before the record is read: that takes a while."""
    found: list[Try] = []
    meanwhile = Meanwhile(options.discover, options.ntp, options.tickets, options.meet)
    async with lab.Network(seed=1) as net, opened(net, cells, options.rtt, meanwhile) as here:
        await net.clear_record()
        for run in range(options.runs):
            progress(f"round {run + 1} of {options.runs}")
            ordered = [cell.turned if run % 2 else cell for cell in cells]
            punches = await side_by_side(here, ordered, options.at_once)
            times_ns = syns_by_host(await net.record(), here.server_addresses)
            await net.clear_record()
            found += [_tried(*each, times_ns) for each in zip(cells, punches, strict=True)]
    more_rtt = LINK_RTT if options.tickets or options.meet else 0.0
    found = [each._replace(more_rtt=more_rtt) for each in found]
    progress("")
    return found


def _tried(cell: Cell, punch: Punch, times_ns: dict[str, list[int]]) -> Try:
    one, other = (syns_between(times_ns.get(host, []), punch.begun_ns, punch.ended_ns) for host in punch.hosts)
    return Try(cell, punch, (one, other))


def summed(tries: Sequence[Try], line: Line, rtt_ms: float, *, lone: bool) -> Row:
    """What a row says of some tries that fall under that line's bar."""
    wrong = missed(BARS[line], tries, rtt_ms, lone=lone)
    within_ms = _within_ms(BARS[line], tries, rtt_ms)
    took = [each.took_ms for each in tries if each.took_ms is not None]
    return {
        "n": len(tries),
        "connected": sum(each.punch.both_ms is not None for each in tries),
        "refused": sum(each.punch.refused_ms is not None for each in tries),
        "in_time": sum(each <= within_ms for each in took),
        **shape(took, "took", "ms"),
        "took_max_ms": rounded(max(took, default=None)),
        "syns": max(each.most.sent for each in tries),
        "syns_per_s": max(each.most.in_a_second for each in tries),
        "held": not wrong,
        "missed": ", ".join(wrong),
    }


def cell_row(tries: Sequence[Try], rtt_ms: float) -> Row:
    """A row of one cell."""
    cell = tries[0].cell
    outlook, line, why = cell.expected
    errors = Counter(each.punch.error for each in tries if each.punch.error)
    return {
        "table": "cells",
        "left": cell.left,
        "right": cell.right,
        "apart_ms": cell.apart_ms,
        **summed(tries, line, rtt_ms, lone=True),
        "expected": outlook.value,
        "line": line.value,
        "why": why,
        "plan": next((each.punch.plan for each in tries if each.punch.plan), None),
        "error": errors.most_common(1)[0][0] if errors else None,
    }


def line_row(line: Line, tries: Sequence[Try], rows: Sequence[Row], rtt_ms: float) -> Row:
    """A row of one line of the bars. `rows`: those of its cells. The slowest cell's median is the one that counts."""
    medians = [row["took_p50_ms"] for row in rows if row["took_p50_ms"] is not None]
    said = summed(tries, line, rtt_ms, lone=False)
    wrong = [f"{row['left']} × {row['right']}: {row['missed']}" for row in rows if not row["held"]]
    slowest = rounded(max(medians) / rtt_ms) if medians and line is not Line.REFUSED else None
    return {
        "table": "lines",
        "line": line.value,
        "bar": str(BARS[line]),
        "cells": len(rows),
        **said,
        "slowest_cell_rtt": slowest,
        "held": said["held"] and not wrong,
        "missed": "; ".join([*filter(None, [said["missed"]]), *wrong]),
    }


def profile_row(tries: Sequence[Try]) -> Row:
    """A row of how often the mapping was told as it is."""
    told = [(Face.of(ALL_KINDS[kind]).mapping, word) for each in tries for kind, word in each.punch.told]
    right, unknown = sum(true == word for true, word in told), sum(word == "unknown" for _, word in told)
    wrong = len(told) - right - unknown
    held = not wrong and unknown <= _UNKNOWN_AT_MOST * len(told)
    return {"table": "profiles", "n": len(told), "right": right, "unknown": unknown, "wrong": wrong, "held": held}


def rows_of(tries: Sequence[Try], rtt_ms: float) -> list[Row]:
    """A row for each line, one for the profiles, and one for each cell."""
    cells = {cell: [each for each in tries if each.cell == cell] for cell in dict.fromkeys(each.cell for each in tries)}
    rows = [cell_row(each, rtt_ms) for each in cells.values()]
    lines = []
    for line in Line:
        ours = [each for each in tries if each.cell.expected.line is line]
        if ours:
            lines.append(line_row(line, ours, [row for row in rows if row["line"] == line.value], rtt_ms))
    profiles = [profile_row(tries)] if any(each.punch.told for each in tries) else []
    return [*lines, *profiles, *rows]


def draw(rows: Sequence[Row], beside: Path) -> None:
    """The heat map, as SVG and PNG. A pair stands on both sides of the diagonal."""
    ends = [(row, frozenset((row["left"], row["right"]))) for row in rows if not row["apart_ms"]]
    cells = {pair: _field(row) for row, pair in ends if pair <= KINDS.keys()}
    kinds = [kind for kind in KINDS if any(kind in pair for pair in cells)]
    picture = [[cells.get(frozenset((left, right)), Field(None)) for right in kinds] for left in kinds]
    title = "Which NATs two programs get through that know each other's profile"
    for suffix in (".svg", ".png"):
        heat_map(kinds, kinds, picture, beside.with_suffix(suffix), title=title)


def _field(row: Row) -> Field:
    outlook = Outlook(row["expected"])
    way = "" if outlook is Outlook.CONNECTS else outlook.value
    connected_ms = None if outlook is Outlook.NEVER else row["took_p50_ms"]
    return Field(row["connected"] / row["n"], connected_ms, way)


def chosen(options: argparse.Namespace) -> list[Cell]:
    """The cells that the options ask for."""
    if options.short:
        found = one_of_each_line()
    elif options.counted:
        found = counted()
    else:
        found = among(options.only) if options.only else list(CELLS)
    return at_one_instant(found) if options.meet else found


def at_one_instant(cells: Sequence[Cell]) -> list[Cell]:
    """Each pair once, both sides firing together."""
    return list(dict.fromkeys(cell._replace(apart_ms=0.0) for cell in cells))


def report(rows: Sequence[Row]) -> None:
    """Print all rows, each kind as a table, and what was missed."""
    hidden = {"table", "missed", "error", "plan"}
    for name, title in (("cells", "left × right"), ("lines", "the bars"), ("profiles", "the mapping, as it was told")):
        if shown_rows := [{k: v for k, v in row.items() if k not in hidden} for row in rows if row["table"] == name]:
            table(title, shown_rows)
    wrong = [row for row in rows if not row["held"]]
    for row in wrong:
        if row["table"] == "cells":
            pair = Cell(row["left"], row["right"], row["apart_ms"])
            print(f"{pair}: {row['missed']}. {row['error'] or ''}")
    print(f"\nevery pair does what is expected: {shown(not wrong)}")


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rtt", type=float, default=80, metavar="MS")
    parser.add_argument("--at-once", type=int, default=16, help="punches under way at any time")
    parser.add_argument("--only", nargs="+", choices=ALL_KINDS, metavar="KIND", help="only cells of these kinds")
    parser.add_argument("--short", action="store_true", help="one cell of each line")
    parser.add_argument("--counted", action="store_true", help="only cells of NATs that count ports")
    parser.add_argument("--discover", action="store_true", help="users learn another port's profile meanwhile")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--tickets", action="store_true", help="users swap tickets, and bring up links")
    way.add_argument("--meet", action="store_true", help="users meet by a code, through a rendezvous")
    parser.add_argument("--ntp", action="store_true", help="users ask for the time before they punch")
    options = parser.parse_args()
    with measuring(runs=options.runs, rtt_ms=options.rtt, at_once=options.at_once) as given:
        rows = rows_of(asyncio.run(measure(options, chosen(options))), options.rtt)
    report(rows)
    save(options.json, "matrix_by_code" if options.meet else "matrix", given, rows)
    if options.json and not options.meet:
        draw([row for row in rows if row["table"] == "cells"], Path(options.json))
    return 0 if all(row["held"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
