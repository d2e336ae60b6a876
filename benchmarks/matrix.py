"""NAT × NAT: which pairs connect, how fast, and what the others wait for.

    python -m benchmarks.matrix [--runs 20] [--rtt 80] [--at-once 8] [--only KIND ...] [--json FILE]

Both sides know nothing but the endpoint as which a third host saw the other side's punch port; the connection that told
it stays open until the punch is over. Then both fire at one instant. Each pair is tried in both orders in turn, which
count as one cell. `ms`: from the later first SYN until both sides have the stream. The heat map goes beside FILE, as
SVG and as PNG.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import Row, conditions, described, options_parser, progress, save, shape, shown, table
from benchmarks.expected import Outlook, expected
from benchmarks.orders import Agent, Order
from simopen import lab
from simopen.lab import Allocation, Filtering, Mapping, Nat, Unsolicited
from simopen.lab.plot import Cell, heat_map

SIDES = ("left", "right")
_OBSERVER = str(Path(lab.__file__).with_name("observer.py"))
_OBSERVER_PORT = 1313
_FIRST_PORT, _PORTS_APART = 2000, 4  # a NAT that keeps the port may take the next one for the next mapping
_WINDOW_S, _LEAD_S, _HOLD_S = 3.0, 0.25, 0.5

_CARRIER = Nat(filtering=Filtering.ENDPOINT_INDEPENDENT, allocation=Allocation.RANDOM)
_MOVING = Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT)
# By RFC 7857's abbreviations: mapping (M) / filtering (F), endpoint-independent (EI), address-dependent (AD),
# address-and-port-dependent (APD). The port is kept where nothing else is said.
KINDS: dict[str, tuple[Nat, ...]] = {
    "open": (),
    "firewall": (Nat(translates=False),),
    "EIM/EIF random": (_CARRIER,),
    "EIM/ADF": (Nat(filtering=Filtering.ADDRESS_DEPENDENT),),
    "EIM/APDF": (Nat(),),
    "EIM/APDF, RST": (Nat(unsolicited=Unsolicited.RESET),),
    "EIM/APDF, ICMP": (Nat(unsolicited=Unsolicited.ICMP),),
    "EIM/APDF, holds": (Nat(unsolicited=Unsolicited.HOLD),),
    "EIM/APDF + carrier": (Nat(), _CARRIER),
    "APDM overloading": (replace(_MOVING, overloading=True),),
    "ADM/ADF random": (
        Nat(Mapping.ADDRESS_DEPENDENT, Filtering.ADDRESS_DEPENDENT, Allocation.RANDOM, Unsolicited.DROP),
    ),
    "APDM/EIF random": (replace(_MOVING, filtering=Filtering.ENDPOINT_INDEPENDENT, allocation=Allocation.RANDOM),),
    "APDM/APDF next": (_MOVING,),
    "APDM/APDF sequential": (replace(_MOVING, allocation=Allocation.SEQUENTIAL),),
    "APDM/APDF random": (replace(_MOVING, allocation=Allocation.RANDOM),),
}


@dataclass(frozen=True, slots=True)
class Side:
    """A host behind NATs of one kind, and the agent on it."""

    host: lab.Host
    agent: Agent

    async def observed(self, observer: lab.Host, local: int) -> Order:
        """The endpoint as which the observer sees that local port."""
        hold_s = _LEAD_S + _WINDOW_S + _HOLD_S
        told = {"peer": observer.public_address, "port": _OBSERVER_PORT, "local": local, "hold_s": hold_s}
        return await self.agent.ask({"method": "observe", **told})

    async def fire(self, local: int, peer: Order, at_ns: int) -> Order:
        order = {"peer": peer["address"], "port": peer["port"], "local": local, "at_ns": at_ns}
        return await self.agent.ask({"method": "simopen", **order, "window_s": _WINDOW_S, "hold_s": _HOLD_S})


class Outcome(NamedTuple):
    """Milliseconds from the later first SYN until both have the stream; None, and why, where they do not connect."""

    both_ms: float | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Sites:
    """A left and a right side of every kind, and the observer."""

    observer: lab.Host
    sides: dict[tuple[str, str], Side]

    async def punch(self, left: str, right: str, local: int) -> Outcome:
        pair = self.sides["left", left], self.sides["right", right]
        seen = await asyncio.gather(*(side.observed(self.observer, local) for side in pair))
        unseen = [each["error"] for each in seen if "error" in each]
        if unseen:
            raise RuntimeError(f"{left} × {right}: the observer could not be asked: {unseen[0]}")
        at_ns = time.monotonic_ns() + round(_LEAD_S * 1e9)
        fired = (side.fire(local, peer, at_ns) for side, peer in zip(pair, reversed(seen), strict=True))
        answers = await asyncio.gather(*fired)
        errors = [f"{side}: {each['error']}" for side, each in zip(SIDES, answers, strict=True) if "error" in each]
        if errors:
            return Outcome(None, "; ".join(errors))
        done, first = (max(answer[name] for answer in answers) for name in ("established_ns", "first_ns"))
        return Outcome((done - first) / 1e6)


@asynccontextmanager
async def sites(net: lab.Network, kinds: Sequence[str], rtt_ms: float) -> AsyncIterator[Sites]:
    delay_s = rtt_ms / 4e3
    observer = await net.host("observer", delay_s=delay_s)
    watching = await observer.start([sys.executable, _OBSERVER, str(_OBSERVER_PORT)], stderr=None)
    assert watching.stdout is not None
    await watching.stdout.readline()
    sides = {}
    try:
        for number, (kind, side) in enumerate(itertools.product(kinds, SIDES)):
            progress(f"starting {side} {kind}")
            host = await net.host(f"{side}-{number}", delay_s=delay_s, nat=KINDS[kind] or None)
            agent = await Agent.start(host, [sys.executable, "-m", "benchmarks.agent", "asyncio"])
            sides[side, kind] = Side(host, agent)
        yield Sites(observer, sides)
    finally:
        for each in sides.values():
            await each.agent.close()


async def measure(options: argparse.Namespace) -> list[Row]:
    """A row per pair of kinds."""
    pairs = list(itertools.combinations_with_replacement(options.only, 2))
    plan = [pair[:: 1 - 2 * (run % 2)] for run in range(options.runs) for pair in pairs]
    room, done = asyncio.Semaphore(options.at_once), itertools.count(1)
    async with lab.Network(seed=1) as net, sites(net, options.only, options.rtt) as here:

        async def one(number: int, left: str, right: str) -> Outcome:
            async with room:
                found = await here.punch(left, right, _FIRST_PORT + number * _PORTS_APART)
            progress(f"{next(done)} of {len(plan)} punches")
            return found

        found = await asyncio.gather(*(one(number, *pair) for number, pair in enumerate(plan)))
    progress("")
    outcomes = {pair: [got for each, got in zip(plan, found, strict=True) if set(each) == set(pair)] for pair in pairs}
    return [_row(pair, each) for pair, each in outcomes.items()]


def _row(pair: tuple[str, str], outcomes: Sequence[Outcome]) -> Row:
    left, right = pair
    outlook, why = expected(KINDS[left], KINDS[right])
    connected = [each.both_ms for each in outcomes if each.both_ms is not None]
    return {
        "left": left,
        "right": right,
        "n": len(outcomes),
        "connected": len(connected),
        **shape(connected, "both", "ms"),
        "expected": outlook.value,
        "held": len(connected) == len(outcomes) if outlook is Outlook.CONNECTS else not connected,
        "why": why,
        "error": next((each.error for each in outcomes if each.error), None) if outlook is Outlook.CONNECTS else None,
    }


def draw(rows: Sequence[Row], beside: Path) -> None:
    """The heat map, as SVG and PNG. A pair stands on both sides of the diagonal."""
    kinds = list(dict.fromkeys(row["left"] for row in rows))
    cells = {frozenset((row["left"], row["right"])): _cell(row) for row in rows}
    picture = [[cells[frozenset((left, right))] for right in kinds] for left in kinds]
    title = "Which NATs two programs get through today, each knowing the other's endpoint as a third host saw it"
    for suffix in (".svg", ".png"):
        heat_map(kinds, kinds, picture, beside.with_suffix(suffix), title=title)


def _cell(row: Row) -> Cell:
    return Cell(row["connected"] / row["n"], row["both_p50_ms"], _HINDERED[Outlook(row["expected"])])


_HINDERED = {Outlook.CONNECTS: "", Outlook.WAITS: "waits for port prediction", Outlook.NEVER: "no TCP can"}


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rtt", type=float, default=80, metavar="MS")
    parser.add_argument("--at-once", type=int, default=8, help="punches under way at any time")
    parser.add_argument("--only", nargs="+", default=list(KINDS), choices=KINDS, metavar="KIND")
    options = parser.parse_args()
    given = conditions(runs=options.runs, rtt_ms=options.rtt, at_once=options.at_once)
    print(described(given), flush=True)
    rows = asyncio.run(measure(options))
    table("left × right", [{name: value for name, value in row.items() if name != "error"} for row in rows])
    wrong = [row for row in rows if not row["held"]]
    for row in wrong:
        share = f"{row['connected']} of {row['n']}, though it {row['expected']}"
        print(f"{row['left']} × {row['right']}: {share}. {row['error'] or ''}")
    print(f"\nevery pair does what is expected: {shown(not wrong)}")
    save(options.json, "matrix", given, rows)
    if options.json:
        draw(rows, Path(options.json))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
