"""From the later side's first SYN to established, in the lab: RTT × difference of the instants × what answers.

    python -m benchmarks.establish [--runs 20] [--rtt 2 20 80 300] [--apart 0 30 45 100 500 2000] [--json FILE]

Answers: "none", hosts with public addresses, whose kernels answer a SYN that comes too early with a RST; "drop" and
"reset", two NATs with address-and-port-dependent filtering that drop, or answer with a RST, what nobody asked for.
"loss": "drop" with 5 % of the packets lost each way. "later": on the side whose instant is later. "both": on whichever
side gets it last. The rival is `asyncio.open_connection` in a loop, on the same hosts in the same run; where it does
not get through within its window of 5 s, that is counted and not timed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.common import (
    Row,
    measuring,
    median,
    options_parser,
    progress,
    quantile,
    save,
    shape,
    shown,
    table,
)
from benchmarks.orders import Agent, Order
from simopen import lab

NATS = {
    "none": None,
    "drop": lab.Nat(unsolicited=lab.Unsolicited.DROP),
    "reset": lab.Nat(unsolicited=lab.Unsolicited.RESET),
    "loss": lab.Nat(unsolicited=lab.Unsolicited.DROP),
}
LOSS = 0.05
WINDOWS_S = {"simopen": 10.0, "open_connection": 5.0}
LEAD_S = 0.15


@dataclass(frozen=True, slots=True)
class Cell:
    """One set of conditions. `rtt_ms`: both ways; `apart_ms`: the right side's instant minus the left's."""

    method: str
    loop: str
    answer: str
    rtt_ms: float
    apart_ms: float


@dataclass(frozen=True, slots=True)
class Run:
    """One punch: ms after the later side's first SYN, None where it did not connect."""

    cell: Cell
    later_ms: float | None
    both_ms: float | None
    skew_ms: float | None = None  # how far the shots were apart, less what they should have been
    error: str | None = None


@dataclass(slots=True)
class Site:
    """Two hosts and an agent on each, for one loop, answer and RTT."""

    loop: str
    answer: str
    rtt_ms: float
    hosts: tuple[lab.Host, lab.Host]
    agents: tuple[Agent, Agent]
    numbers: itertools.count[int]

    async def run(self, cell: Cell, **more: object) -> Run:
        """One punch, on a port of its own; `more` goes into both agents' orders."""
        number = next(self.numbers)
        at_ns = time.monotonic_ns() + round(LEAD_S * 1e9)
        ats_ns = (at_ns, at_ns + round(cell.apart_ms * 1e6))
        answers = await asyncio.gather(
            *(
                agent.ask(
                    {
                        "method": cell.method,
                        "peer": peer.public_address,
                        "port": 2000 + number,
                        "local": 2000 + number,
                        "at_ns": each_ns,
                        "window_s": WINDOWS_S[cell.method],
                        "hold_s": 0.2 + 2 * cell.rtt_ms / 1e3,
                        **more,
                    }
                )
                for agent, peer, each_ns in zip(self.agents, reversed(self.hosts), ats_ns, strict=True)
            )
        )
        return _judged(cell, answers)


def _judged(cell: Cell, answers: Sequence[Order]) -> Run:
    errors = [answer["error"] for answer in answers if "error" in answer]
    if errors:
        return Run(cell, None, None, error=errors[0])
    left, right = answers
    start_ns = max(left["first_ns"], right["first_ns"])
    done_ms = [(answer["established_ns"] - start_ns) / 1e6 for answer in (left, right)]
    skew_ms = (right["first_ns"] - left["first_ns"]) / 1e6 - cell.apart_ms
    return Run(cell, done_ms[1], max(done_ms), skew_ms)


@asynccontextmanager
async def site(net: lab.Network, loop: str, answer: str, rtt_ms: float) -> AsyncIterator[Site]:
    """Two hosts, `rtt_ms` apart, and an agent on each."""
    hosts = []
    for side in ("left", "right"):
        name = f"{side}-{loop}-{answer}-{rtt_ms:g}"
        loss = LOSS / 2 if answer == "loss" else 0.0  # both accesses lose, so the way between them loses twice that
        hosts.append(await net.host(name, delay_s=rtt_ms / 4e3, loss=loss, nat=NATS[answer]))
    command = [sys.executable, "-m", "benchmarks.agent", loop]
    agents = await asyncio.gather(*(Agent.start(host, command) for host in hosts))
    try:
        yield Site(loop, answer, rtt_ms, (hosts[0], hosts[1]), (agents[0], agents[1]), itertools.count())
    finally:
        for agent in agents:
            await agent.close()


async def measure(options: argparse.Namespace) -> list[Run]:
    """Every cell, `options.runs` times; the rival `options.rival_runs` times."""
    runs: list[Run] = []
    places = list(itertools.product(options.answer, options.rtt, options.loop))
    for done, (answer, rtt_ms, loop) in enumerate(places):
        async with lab.Network(seed=done) as net, site(net, loop, answer, rtt_ms) as here:
            for apart_ms in options.apart if answer != "loss" else [0.0]:
                for method, count in (("simopen", options.runs), ("open_connection", options.rival_runs)):
                    cell = Cell(method, loop, answer, rtt_ms, apart_ms)
                    progress(f"{done + 1} of {len(places)}: {cell}")
                    runs += await _repeat(here, cell, count)
    progress("")
    return runs


async def _repeat(here: Site, cell: Cell, count: int) -> list[Run]:
    """Several at a time, a little apart; fewer where the earlier side fires again after each round trip meanwhile."""
    noisy = cell.answer in ("none", "reset") and cell.apart_ms > cell.rtt_ms / 2
    room = asyncio.Semaphore(max(1, min(8, int(cell.rtt_ms / 5))) if noisy else 8)

    async def one(number: int) -> Run:
        async with room:
            await asyncio.sleep(number % 8 * 0.017)
            return await here.run(cell)

    return list(await asyncio.gather(*(one(number) for number in range(count))))


def summary(runs: Sequence[Run]) -> list[Row]:
    """A row per answer, RTT and difference; both loops in one."""
    places = dict.fromkeys((run.cell.answer, run.cell.rtt_ms, run.cell.apart_ms) for run in runs)
    return [
        _row(place, [run for run in runs if (run.cell.answer, run.cell.rtt_ms, run.cell.apart_ms) == place])
        for place in places
    ]


def _row(place: tuple[str, float, float], runs: Sequence[Run]) -> Row:
    answer, rtt_ms, apart_ms = place
    ours = [run for run in runs if run.cell.method == "simopen"]
    rival = [run for run in runs if run.cell.method != "simopen"]
    later, both, theirs = _times(ours, "later_ms"), _times(ours, "both_ms"), _times(rival, "later_ms")
    return {
        "answer": answer,
        "rtt_ms": rtt_ms,
        "apart_ms": apart_ms,
        "n": len(ours),
        "connected": len(later),
        **shape(later, "later", "ms"),
        **shape(both, "both", "ms"),
        "held": len(later) == len(ours) > 0 and _in_bar(answer, rtt_ms, later, both),
        "loop_n": len(rival),
        "loop_connected": len(theirs),
        **shape(theirs, "loop_later", "ms"),
    }


def _in_bar(answer: str, rtt_ms: float, later: Sequence[float], both: Sequence[float]) -> bool:
    if answer == "loss":
        return median(later) <= 1.1 * rtt_ms + 3 and max(both) < 10_000
    middle = median(later) <= 1.05 * rtt_ms + 3 and median(both) <= 1.55 * rtt_ms + 3
    return middle and quantile(later, 0.99) <= 2 * rtt_ms + 5 and quantile(both, 0.99) <= 2 * rtt_ms + 5


def _times(runs: Sequence[Run], name: str) -> list[float]:
    return [value for run in runs if (value := getattr(run, name)) is not None]


def main() -> None:
    parser = options_parser(__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rival-runs", type=int, default=5)
    parser.add_argument("--rtt", type=float, nargs="+", default=[2, 20, 80, 300], metavar="MS")
    parser.add_argument("--apart", type=float, nargs="+", default=[0, 30, 45, 100, 500, 2000], metavar="MS")
    parser.add_argument("--answer", nargs="+", default=list(NATS), choices=NATS)
    parser.add_argument("--loop", nargs="+", default=["asyncio", "uvloop"], choices=["asyncio", "uvloop"])
    options = parser.parse_args()
    with measuring(runs=options.runs, rival_runs=options.rival_runs, loops=" and ".join(options.loop)) as given:
        runs = asyncio.run(measure(options))
    rows = summary(runs)
    table("ms after the later side's first SYN ('loop': asyncio.open_connection in a loop)", rows)
    for run in runs:
        if run.error and run.cell.method == "simopen":
            print(run)
    print(f"\nevery bar held: {shown(all(row['held'] for row in rows))}")
    save(options.json, "establish", given, rows)


if __name__ == "__main__":
    main()
