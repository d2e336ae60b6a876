"""The simulator against the lab: the same cells, the verdict and the later side's time beside each other.

Theory of operation: a `Cell` is turned into two simulated `Side`s, and into two hosts of a lab network with
`benchmarks/agent.py` on each. The time is the later side's, from its first SYN, at the median. When the earlier side
has the stream is printed but not judged: where it fires again after each round trip, that depends on where in such a
round the later SYN finds it, which tenths of a millisecond decide.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from enum import Enum

from benchmarks import establish
from benchmarks.common import Row, median, progress, rounded, table
from benchmarks.establish import Run, Site
from benchmarks.orders import Agent
from benchmarks.simulation.punching import Result, Side, punch
from simopen import lab
from simopen.lab import Allocation, Filtering, Mapping, Nat, Unsolicited

TOLERANCE = 0.10
SEEDS = 20
_STAGGER_S = 0.023
_ROUNDS = 5
_MOST_SKEW_MS = 1.0

Nats = tuple[Nat, ...]
DROP, RESET = (Nat(),), (Nat(unsolicited=Unsolicited.RESET),)
ICMP, HOLD = (Nat(unsolicited=Unsolicited.ICMP),), (Nat(unsolicited=Unsolicited.HOLD),)
OPEN: Nats = ()
RANDOM = (Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM),)
REFUSER = (Nat(refuses_syns=True),)
ANYBODY = (Nat(filtering=Filtering.ENDPOINT_INDEPENDENT, unsolicited=Unsolicited.RESET),)
ADDRESS = (Nat(filtering=Filtering.ADDRESS_DEPENDENT, unsolicited=Unsolicited.RESET),)


@dataclass(frozen=True, slots=True)
class Cell:
    """One set of conditions. `apart_ms`: the right side's instant minus the left's."""

    name: str
    left: Nats
    right: Nats
    rtt_ms: float
    apart_ms: float
    window_s: float = 3.0
    listen: bool = True


def _cells(
    name: str, left: Nats, right: Nats, rtts: Iterable[float], aparts: Iterable[float], **more: float | bool
) -> list[Cell]:
    return [Cell(name, left, right, *place, **more) for place in itertools.product(rtts, aparts)]  # type: ignore[arg-type]


# No difference is half an RTT, nor a whole number of RTTs or seconds: there a hair decides, in the lab too.
CELLS: tuple[Cell, ...] = (
    *_cells("no NAT", OPEN, OPEN, (20, 80, 300), (0, 45, 510)),
    *_cells("drop", DROP, DROP, (20, 80, 300), (0, 45, 510)),
    *_cells("reset", RESET, RESET, (20, 80, 300), (0, 45, 510)),
    *_cells("reset, none", RESET, OPEN, (80,), (45, 250)),
    *_cells("drop, reset", DROP, RESET, (80,), (45, 250)),
    *_cells("window 0.3 s, no NAT", OPEN, OPEN, (80,), (510,), window_s=0.3),
    *_cells("window 0.3 s, drop", DROP, DROP, (80,), (510,), window_s=0.3),
    *_cells("no listener, reset", RESET, RESET, (80,), (30, 250), listen=False),
    *_cells("filter nothing", ANYBODY, ANYBODY, (80,), (250,)),
    *_cells("filter by address", ADDRESS, ADDRESS, (80,), (250,)),
    *_cells("ICMP", ICMP, ICMP, (80,), (45, 250)),
    *_cells("held 6 s", HOLD, HOLD, (80,), (250,)),
    *_cells("home and carrier, drop", DROP + RESET, DROP, (80,), (45, 250)),
    *_cells("random, by address", RANDOM, ADDRESS, (80,), (45, 250)),
    *_cells("by address, random", ADDRESS, RANDOM, (80, 300), (45, 250)),
    *_cells("random, by port", RANDOM, DROP, (80,), (45,), window_s=1.5),
    *_cells("refuses SYNs, drop", REFUSER, DROP, (80,), (45,)),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One cell's figures, ms at the median; None where that many runs did not connect."""

    cell: Cell
    lab_runs: int
    lab_connected: int
    lab_ms: float | None
    lab_both_ms: float | None
    simulated_runs: int
    simulated_connected: int
    simulated_ms: float | None
    simulated_both_ms: float | None

    @property
    def same_verdict(self) -> bool:
        """Whether both connected always, or both never; False where the lab never fired in time."""
        return self.lab_runs > 0 and (
            self.lab_connected / self.lab_runs == self.simulated_connected / self.simulated_runs in (0, 1)
        )

    @property
    def difference(self) -> float | None:
        """The simulator's time less the lab's, as a share of the lab's."""
        if self.lab_ms is None or self.simulated_ms is None:
            return None
        return self.simulated_ms / self.lab_ms - 1

    @property
    def holds(self) -> bool:
        """The same verdict, and the time within the tolerance."""
        return self.same_verdict and (self.difference is None or abs(self.difference) <= TOLERANCE)

    def row(self) -> Row:
        """For JSON; a NAT by its fields that are not the usual ones."""
        cell = self.cell
        return {
            "cell": cell.name,
            "left": _described(cell.left),
            "right": _described(cell.right),
            "rtt_ms": cell.rtt_ms,
            "apart_ms": cell.apart_ms,
            "window_s": cell.window_s,
            "listen": cell.listen,
            "lab_runs": self.lab_runs,
            "lab_connected": self.lab_connected,
            "simulated_runs": self.simulated_runs,
            "simulated_connected": self.simulated_connected,
            "lab_later_p50_ms": rounded(self.lab_ms),
            "simulated_later_p50_ms": rounded(self.simulated_ms),
            "difference": rounded(self.difference),
            "lab_both_p50_ms": rounded(self.lab_both_ms),
            "simulated_both_p50_ms": rounded(self.simulated_both_ms),
            "same_verdict": self.same_verdict,
            "holds": self.holds,
        }


def chosen(count: int) -> list[Cell]:
    """That many of the cells, spread evenly over them."""
    step = max(1.0, len(CELLS) / count)
    return [CELLS[int(place * step)] for place in range(min(count, len(CELLS)))]


def simulated(cell: Cell) -> list[Result]:
    """The cell's punches in the simulator, with one seed each."""
    return [punch(*_sides(cell), seed=seed) for seed in range(SEEDS)]


def _sides(cell: Cell) -> tuple[Side, Side]:
    delay_s, window_s = cell.rtt_ms / 4e3, cell.window_s
    left = Side(delay_s, cell.left, 0.0, window_s, listen=cell.listen)
    return left, Side(delay_s, cell.right, cell.apart_ms / 1e3, window_s, listen=cell.listen)


async def validate(cells: Sequence[Cell], runs: int) -> list[Comparison]:
    """Run every cell in the lab and in the simulator."""
    compared: list[Comparison] = []
    for place in dict.fromkeys((cell.left, cell.right, cell.rtt_ms) for cell in cells):
        here = [cell for cell in cells if (cell.left, cell.right, cell.rtt_ms) == place]
        async with lab.Network(seed=1) as net, _site(net, *place) as site:
            for cell in here:
                progress(f"{len(compared) + 1} of {len(cells)}: {cell.name}, {cell.rtt_ms:g} ms")
                compared.append(_compared(cell, await _in_lab(site, cell, runs)))
    progress("")
    return compared


@asynccontextmanager
async def _site(net: lab.Network, left: Nats, right: Nats, rtt_ms: float) -> AsyncIterator[Site]:
    hosts = [
        await net.host(name, delay_s=rtt_ms / 4e3, nat=nats or None)
        for name, nats in (("left", left), ("right", right))
    ]
    command = [sys.executable, "-m", "benchmarks.agent", "asyncio"]
    agents = await asyncio.gather(*(Agent.start(host, command) for host in hosts))
    try:
        yield Site("asyncio", "", rtt_ms, (hosts[0], hosts[1]), (agents[0], agents[1]), itertools.count())
    finally:
        for agent in agents:
            await agent.close()


def _described(nats: Nats) -> list[Row]:
    usual = asdict(Nat())
    fields = [{name: value for name, value in asdict(nat).items() if value != usual[name]} for nat in nats]
    return [{name: value.value if isinstance(value, Enum) else value for name, value in nat.items()} for nat in fields]


async def _in_lab(site: Site, cell: Cell, runs: int) -> list[Run]:
    """That many punches, fired as far apart as they should be; others are repeated, in a few rounds at most.

    A machine that has other work to do fires late now and then, and a new agent's first punch is always slow.
    """
    kept: list[Run] = []
    for number in range(1 + _ROUNDS):
        tried = await _punches(site, cell, min(runs if number else 1, runs - len(kept)))
        if number:
            kept += [run for run in tried if run.skew_ms is None or abs(run.skew_ms) <= _MOST_SKEW_MS]
    return kept


async def _punches(site: Site, cell: Cell, count: int) -> list[Run]:
    order = establish.Cell("simopen", "asyncio", cell.name, cell.rtt_ms, cell.apart_ms)
    more = {"window_s": cell.window_s, "listen": cell.listen}

    async def one(number: int) -> Run:
        await asyncio.sleep(number * _STAGGER_S)
        return await site.run(order, **more)

    return list(await asyncio.gather(*map(one, range(count))))


def _compared(cell: Cell, runs: Sequence[Run]) -> Comparison:
    results = simulated(cell)
    return Comparison(
        cell,
        len(runs),
        sum(run.later_ms is not None for run in runs),
        _middle(run.later_ms for run in runs),
        _middle(run.both_ms for run in runs),
        len(results),
        sum(result.connected for result in results),
        _middle(result.later_ms for result in results),
        _middle(result.both_ms for result in results),
    )


def _middle(times: Iterable[float | None]) -> float | None:
    known = [time for time in times if time is not None]
    return median(known) if known else None


def report(compared: Sequence[Comparison], runs: int) -> bool:
    """Print the table; whether every cell holds."""
    table(
        f"simulator and lab, ms after the later side's first SYN, medians of {runs} runs in the lab; judged are the "
        f"verdict and the later side's time, within {TOLERANCE:.0%}",
        [_shown(each) for each in compared],
    )
    held = sum(each.holds for each in compared)
    print(f"\n{held} of {len(compared)} cells hold")
    return held == len(compared)


def _shown(each: Comparison) -> Row:
    return {
        "cell": each.cell.name,
        "RTT": f"{each.cell.rtt_ms:g}",
        "apart": f"{each.cell.apart_ms:g}",
        "lab": f"{each.lab_connected}/{each.lab_runs}",
        "sim": f"{each.simulated_connected}/{each.simulated_runs}",
        "lab ms": _ms(each.lab_ms),
        "sim ms": _ms(each.simulated_ms),
        "difference": "" if each.difference is None else f"{each.difference:+.1%}",
        "both, lab": _ms(each.lab_both_ms),
        "both, sim": _ms(each.simulated_both_ms),
        "same verdict": each.same_verdict,
        "holds": each.holds,
    }


def _ms(time: float | None) -> str:
    return "" if time is None else f"{time:.1f}"
