"""Meeting again: as many streams in a row on one pair of ports, behind real routers, with no wait in between.

    python -m benchmarks.again [--meetings 10] [--rtt 80] [--answers drop reject accept] [--loop uvloop]
        [--short] [--json FILE]

What a router remembers of a stream can shut the next one out: how it was ended decides. Both hosts are behind a Linux
router each (nftables masquerade); a cell is one pair of input policies, who ends the stream, how, how long after it
came up, and by which call it was opened. The next meeting is agreed on as soon as both sides have closed. A meeting
counts where both sides had the stream; `ms`: from the first SYN until it was up, on the side that took longer.

Each cell has a port of its own, and cells that share their routers go side by side. `--short`: one cell of each kind
of end, and equal policies only.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from benchmarks import common
from benchmarks.common import Row
from benchmarks.orders import Agent, Order
from simopen import lab
from simopen.lab import Input, LinuxRouter

ANSWERS = ("drop", "reject", "accept")
ENDS = ("fin", "rst")
SIDES = ("left", "right", "both")
AFTER_MS = (0, 20, 100, 500)
CALLS = ("connect", "punch")
WINDOW_S = 10.0
_FIRST_PORT = 20_000
_LEAD_S = 0.15  # from agreeing to the instant


class Ending(NamedTuple):
    """By which call the stream was opened, and how it ends: in what way, by whom, how long after it came up."""

    call: str
    end: str
    by: str
    after_ms: int


class Meeting(NamedTuple):
    """One of a cell's. `elapsed_ms`: None where there was none, or on one side only; `error` then says why."""

    elapsed_ms: float | None
    error: str | None


ENDINGS = tuple(Ending(*each) for each in product(CALLS, ENDS, SIDES, AFTER_MS))
BRIEFLY = tuple(each for each in ENDINGS if each.by == "both" and each.after_ms in {0, 100})


async def in_a_row(
    agents: Sequence[Agent], hosts: Sequence[lab.Host], ending: Ending, port: int, count: int
) -> list[Meeting]:
    """So many meetings on that port, each agreed on when the one before is over on both sides."""
    met = []
    for _ in range(count):
        at_ns = time.monotonic_ns() + round(_LEAD_S * 1e9)
        orders = [_order(ending, side, hosts[1 - number], port, at_ns) for number, side in enumerate(SIDES[:2])]
        met.append(_met(await asyncio.gather(*(agent.ask(order) for agent, order in zip(agents, orders, strict=True)))))
    return met


def _order(ending: Ending, side: str, peer: lab.Host, port: int, at_ns: int) -> Order:
    ends = ending.by in {side, "both"}
    return {
        "method": ending.call,
        "peer": peer.public_address,
        "port": port,
        "at_ns": at_ns,
        "window_s": WINDOW_S,
        "end": ending.end,
        "after_s": ending.after_ms / 1e3 if ends else None,
    }


def _met(answers: Sequence[Order]) -> Meeting:
    errors = [answer["error"] for answer in answers if "error" in answer]
    if errors:
        return Meeting(None, "; ".join(errors))
    return Meeting(max(answer["elapsed_s"] for answer in answers) * 1e3, None)


async def measure(
    pair: tuple[str, str], endings: Sequence[Ending], options: argparse.Namespace
) -> dict[Ending, list[Meeting]]:
    """Every ending behind one pair of routers."""
    async with lab.Network(seed=1) as net:
        routers = [LinuxRouter(Input(answer)) for answer in pair]
        nats: list[lab.Nat | LinuxRouter] = [router.model if options.model else router for router in routers]
        hosts = [
            await net.host(side, delay_s=options.rtt / 4e3, nat=nat) for side, nat in zip(SIDES[:2], nats, strict=True)
        ]
        command = [sys.executable, "-m", "benchmarks.partner", options.loop]
        agents = [await Agent.start(host, command) for host in hosts]
        room = asyncio.Semaphore(options.at_once)

        async def one(number: int, ending: Ending) -> list[Meeting]:
            async with room:
                return await in_a_row(agents, hosts, ending, _FIRST_PORT + number, options.meetings)

        try:
            found = await asyncio.gather(*(one(*each) for each in enumerate(endings)))
        finally:
            await asyncio.gather(*(agent.close() for agent in agents))
    return dict(zip(endings, found, strict=True))


def row_of(pair: tuple[str, str], ending: Ending, met: Sequence[Meeting]) -> Row:
    """A row of one cell."""
    took = [each.elapsed_ms for each in met if each.elapsed_ms is not None]
    errors = Counter(each.error for each in met if each.error)
    return {
        "left": pair[0],
        "right": pair[1],
        **ending._asdict(),
        "n": len(met),
        "met": len(took),
        **common.shape(took, "took", "ms"),
        "took_max_ms": common.rounded(max(took, default=None)),
        "held": len(took) == len(met),
        "error": errors.most_common(1)[0][0] if errors else None,
    }


def main() -> int:
    parser = common.options_parser(__doc__)
    parser.add_argument("--meetings", type=int, default=10, help="in a row, in each cell")
    parser.add_argument("--rtt", type=float, default=80, metavar="MS")
    parser.add_argument("--answers", nargs="+", choices=ANSWERS, default=ANSWERS, help="the routers' input policies")
    parser.add_argument("--loop", choices=common.LOOPS, default="uvloop")
    parser.add_argument("--model", action="store_true", help="the routers' models in their place")
    parser.add_argument("--at-once", type=int, default=12, help="cells under way at any time")
    parser.add_argument("--short", action="store_true", help="fewer cells")
    options = parser.parse_args()
    with common.measuring(
        meetings=options.meetings, rtt_ms=options.rtt, at_once=options.at_once, loop=options.loop
    ) as given:
        rows = asyncio.run(_rows(options))
    common.table("meetings in a row", [{k: v for k, v in row.items() if k != "error"} for row in rows])
    for row in rows:
        if not row["held"]:
            print(f"{row['left']} × {row['right']}, {row['call']}, {row['end']} by {row['by']}: {row['error']}")
    print(f"\nevery meeting came about: {common.shown(all(row['held'] for row in rows))}")
    common.save(options.json, "again", given, rows)
    return 0 if all(row["held"] for row in rows) else 1


async def _rows(options: argparse.Namespace) -> list[Row]:
    pairs = [(each, each) for each in options.answers] if options.short else list(product(options.answers, repeat=2))
    rows: list[Row] = []
    for pair in pairs:
        common.progress(f"{pair[0]} × {pair[1]}")
        endings = BRIEFLY if options.short else ENDINGS
        found = await measure(pair, endings, options)
        rows += [row_of(pair, *each) for each in found.items()]
    common.progress("")
    return rows


if __name__ == "__main__":
    sys.exit(main())
