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
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.common import conditions, median, progress, quantile, save, table, verdict
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


class Agent:
    """One benchmark agent on one lab host."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Have one order obeyed."""
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[order["id"]] = answer
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return await answer

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            self._waiting.pop(answer["id"]).set_result(answer)

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reader


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
                        "id": number,
                        "method": cell.method,
                        "peer": peer.public_address,
                        "port": 2000 + number,
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


def _judged(cell: Cell, answers: Sequence[dict[str, Any]]) -> Run:
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
    agents = [Agent(await host.start(command, stderr=None)) for host in hosts]
    try:
        await asyncio.gather(*(agent.ask({"id": -1, "method": "ready"}) for agent in agents))
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


def report(runs: Sequence[Run]) -> bool:
    """Print the tables; whether every bar holds."""
    held = True
    for answer in dict.fromkeys(run.cell.answer for run in runs):
        rows = []
        for rtt_ms in dict.fromkeys(run.cell.rtt_ms for run in runs):
            for apart_ms in dict.fromkeys(run.cell.apart_ms for run in runs if run.cell.answer == answer):
                chosen = [r for r in runs if r.cell.answer == answer and r.cell.rtt_ms == rtt_ms]
                chosen = [r for r in chosen if r.cell.apart_ms == apart_ms]
                row, good = _row(answer, rtt_ms, apart_ms, chosen)
                rows.append(row)
                held &= good
        columns = (
            "RTT",
            "apart",
            "simopen",
            "later p50",
            "p99",
            "both p50",
            "p99",
            "in bar",
            "loop",
            "later p50",
            "p99",
        )
        table(
            f"{answer}: ms after the later side's first SYN ('loop' and after: asyncio.open_connection)", columns, rows
        )
    return held


def _row(answer: str, rtt_ms: float, apart_ms: float, runs: Sequence[Run]) -> tuple[list[str], bool]:
    ours = [run for run in runs if run.cell.method == "simopen"]
    rival = [run for run in runs if run.cell.method != "simopen"]
    later, both = _times(ours, "later_ms"), _times(ours, "both_ms")
    if not later:
        return [f"{rtt_ms:g}", f"{apart_ms:g}", f"0/{len(ours)}", *[""] * 4, "NO", f"0/{len(rival)}", "", ""], False
    if answer == "loss":
        good = median(later) <= 1.1 * rtt_ms + 3 and max(both) < 10_000
    else:
        good = median(later) <= 1.05 * rtt_ms + 3 and median(both) <= 1.55 * rtt_ms + 3
        good &= quantile(later, 0.99) <= 2 * rtt_ms + 5 and quantile(both, 0.99) <= 2 * rtt_ms + 5
    good &= len(later) == len(ours)
    theirs = _times(rival, "later_ms")
    cells = [f"{rtt_ms:g}", f"{apart_ms:g}", f"{len(later)}/{len(ours)}", *_shape(later), *_shape(both), verdict(good)]
    return [*cells, f"{len(theirs)}/{len(rival)}", *_shape(theirs)], good


def _times(runs: Sequence[Run], name: str) -> list[float]:
    return [value for run in runs if (value := getattr(run, name)) is not None]


def _shape(values: Sequence[float]) -> tuple[str, str]:
    return (f"{median(values):.1f}", f"{quantile(values, 0.99):.1f}") if values else ("", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rival-runs", type=int, default=5)
    parser.add_argument("--rtt", type=float, nargs="+", default=[2, 20, 80, 300], metavar="MS")
    parser.add_argument("--apart", type=float, nargs="+", default=[0, 30, 45, 100, 500, 2000], metavar="MS")
    parser.add_argument("--answer", nargs="+", default=list(NATS), choices=NATS)
    parser.add_argument("--loop", nargs="+", default=["asyncio", "uvloop"], choices=["asyncio", "uvloop"])
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    print(conditions(n=f"{options.runs} per cell and loop", loops=" and ".join(options.loop)), flush=True)
    runs = asyncio.run(measure(options))
    held = report(runs)
    failed = [run for run in runs if run.error and run.cell.method == "simopen"]
    for run in failed:
        print(run)
    print(f"\n{len(runs)} runs, {len(failed)} of simopen's failed; every bar held: {verdict(held)}")
    save(options.json, [asdict(run) for run in runs])


if __name__ == "__main__":
    main()
