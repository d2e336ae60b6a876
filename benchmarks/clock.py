"""How far from the truth the estimated time is, how wide its bound, and how often the truth is inside.

    python -m benchmarks.clock [--trials 1000] [--loop asyncio|uvloop] [--seed 1]

Each trial: three or four time servers on loopback sockets with a common, random, exactly known offset; a
random delay out and another back for each, so that every path is asymmetric; one of the servers lies, by a
little or by a lot. The three methods see the same servers at the same time:

  simopen         `check_clock`: all servers, least delay of four to eight, hull of what a majority covers
  naive Marzullo  the same intervals, but the smallest region that most of them cover
  ntplib          its own client in a thread: one query to one server, picked at random; bound = its delay / 2
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import ntplib

from benchmarks.common import LOOPS, Row, measuring, options_parser, progress, run_on, save, shape, table
from simopen.clock.source import check_clock
from simopen.errors import ClockError
from simopen.model.estimate import Estimate
from tests.fake_ntp import FakeNtp

OFFSET_S, DELAY_S, BATCH = 5.0, 0.05, 20
METHODS = ("simopen", "naive Marzullo", "ntplib")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One method's answer in one trial, s. `bound_s` is what it claims."""

    error_s: float
    bound_s: float

    @property
    def inside(self) -> bool:
        return abs(self.error_s) <= self.bound_s


def marzullo(intervals: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The smallest region covered by the most intervals; the first of them where there are several."""
    edges = sorted(edge for lo, hi in intervals for edge in ((lo, 0), (hi, 1)))
    depth, deepest, best = 0, 0, (0.0, 0.0)
    for (at, closing), (until, _) in itertools.pairwise(edges):
        depth += -1 if closing else 1
        if depth > deepest:
            deepest, best = depth, (at, until)
    return best


def by_marzullo(estimate: Estimate, offset_s: float) -> Outcome:
    intervals = [
        (each.offset_s - each.bound_s, each.offset_s + each.bound_s)
        for each in estimate.servers
        if each.offset_s is not None and each.bound_s is not None
    ]
    low_s, high_s = marzullo(intervals)
    return Outcome((low_s + high_s) / 2 - offset_s, (high_s - low_s) / 2)


def ask_ntplib(server: FakeNtp, offset_s: float) -> Outcome:
    stats = ntplib.NTPClient().request(server.host, version=4, port=server.port, timeout=5)
    return Outcome(stats.offset - offset_s, stats.delay / 2)


def some_servers(rng: random.Random, offset_s: float) -> list[FakeNtp]:
    lie_s = rng.choice((rng.uniform(-0.1, 0.1), rng.uniform(-OFFSET_S, OFFSET_S)))
    offsets_s = [offset_s + lie_s] + [offset_s] * rng.choice((2, 3))
    rng.shuffle(offsets_s)
    return [FakeNtp(each, rng.uniform(0, DELAY_S), rng.uniform(0, DELAY_S)) for each in offsets_s]


async def trial(rng: random.Random) -> dict[str, Outcome]:
    """One set of servers, asked by all methods. A method without an answer is left out."""
    offset_s = rng.uniform(-OFFSET_S, OFFSET_S)
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(each) for each in some_servers(rng, offset_s)]
        single = asyncio.create_task(asyncio.to_thread(ask_ntplib, rng.choice(servers), offset_s))
        try:
            estimate = await check_clock([each.name for each in servers])
        except ClockError:
            return {"ntplib": await single}
        ours = Outcome(estimate.offset_s - offset_s, estimate.bound_s or 0.0)
        return dict(zip(METHODS, (ours, by_marzullo(estimate, offset_s), await single), strict=True))


async def run(trials: int, seed: int) -> list[dict[str, Outcome]]:
    rng = random.Random(seed)
    outcomes: list[dict[str, Outcome]] = []
    while left := trials - len(outcomes):
        progress(f"{len(outcomes)} of {trials} trials")
        outcomes += await asyncio.gather(*(trial(rng) for _ in range(min(BATCH, left))))
    return outcomes


def row(method: str, outcomes: Sequence[dict[str, Outcome]]) -> Row:
    answered = [each[method] for each in outcomes if method in each]
    return {
        "method": method,
        "trials": len(outcomes),
        "answered": len(answered),
        "inside": sum(each.inside for each in answered),
        **shape([abs(each.error_s) * 1e3 for each in answered], "error", "ms"),
        **shape([each.bound_s * 1e3 for each in answered], "bound", "ms"),
    }


def main() -> None:
    parser = options_parser(__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    options = parser.parse_args()
    with measuring(
        loop=options.loop, seed=options.seed, offset_s=OFFSET_S, delay_up_to_ms=DELAY_S * 1e3, side_by_side=BATCH
    ) as given:
        outcomes = run_on(options.loop, run(options.trials, options.seed))
    rows = [row(method, outcomes) for method in METHODS]
    table("the estimate against the truth, which is inside its bound or not", rows)
    save(options.json, "clock", given, rows)


if __name__ == "__main__":
    main()
