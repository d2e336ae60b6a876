"""A hundred thousand punches without a network: the library's own window and the lab's NAT models, simulated.

    python -m benchmarks.simulate [--punches 500] [--seed 1] [--json FILE] [rate] [clocks] [population]
    python -m benchmarks.simulate validate [--cells 50] [--runs 5] [--json FILE]

`rate`: punches a minute on one core. `clocks`: the share that connects over clock error × RTT × window.
`population`: the share of pairs that connects, in a population of NATs with published shares. `validate`: the same
cells in the lab, which must agree in the verdict, and in the later side's time within 10 %; exits with 1 where one does
not. Left out, everything that needs no lab.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.common import conditions, save, table, verdict
from benchmarks.simulation import clocks, population, validation
from benchmarks.simulation.punching import Side, punch
from simopen.lab.nat import Nat, Unsolicited

BAR_A_MINUTE = 20_000
Answer = tuple[bool, list[dict[str, Any]]]

_DROP, _RESET = (Nat(),), (Nat(unsolicited=Unsolicited.RESET),)
# From the shortest punch to one that fires 7 times; 80 ms of RTT.
LOADS = {
    "no NAT, at once": (Side(0.02), Side(0.02)),
    "drop, 45 ms apart": (Side(0.02, _DROP), Side(0.02, _DROP, error_s=0.045)),
    "reset, 500 ms apart": (Side(0.02, _RESET), Side(0.02, _RESET, error_s=0.5)),
    "drop behind drop, 5 % loss": (Side(0.02, _DROP * 2, loss=0.025), Side(0.02, _DROP * 2, loss=0.025)),
}


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast one kind of punch is simulated."""

    load: str
    punches: int
    a_minute: float


def rate(options: argparse.Namespace) -> Answer:
    """Punches a minute, by one process on one core."""
    rates = [_rate(load, *sides, options.punches) for load, sides in LOADS.items()]
    rows = [[each.load, f"{each.a_minute:,.0f}", verdict(each.a_minute >= BAR_A_MINUTE)] for each in rates]
    table(f"simulated punches a minute, one process; at least {BAR_A_MINUTE:,}", ["punch", "a minute", "in bar"], rows)
    return all(each.a_minute >= BAR_A_MINUTE for each in rates), [asdict(each) for each in rates]


def _rate(load: str, left: Side, right: Side, punches: int) -> Rate:
    start = time.process_time()
    for seed in range(punches):
        punch(left, right, seed=seed)
    return Rate(load, punches, punches * 60 / (time.process_time() - start))


def clock_errors(options: argparse.Namespace) -> Answer:
    """The share that connects, over clock error × RTT × window."""
    cells = clocks.measure(options.punches, options.seed)
    clocks.report(cells)
    return True, [asdict(cell) for cell in cells]


def populations(options: argparse.Namespace) -> Answer:
    """The share of pairs that connects, in populations of NATs."""
    shares = population.measure()
    population.report(shares)
    return True, [asdict(share) for share in shares]


def validate(options: argparse.Namespace) -> Answer:
    """The lab's word on the same cells."""
    compared = asyncio.run(validation.validate(validation.chosen(options.cells), options.runs))
    return validation.report(compared, options.runs), [each.as_dict() for each in compared]


QUESTIONS: dict[str, Callable[[argparse.Namespace], Answer]] = {
    "rate": rate,
    "clocks": clock_errors,
    "population": populations,
    "validate": validate,
}


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="*", help=f"of {', '.join(QUESTIONS)}")
    parser.add_argument("--punches", type=_positive, default=500, help="a cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cells", type=_positive, default=len(validation.CELLS), help="of the validation")
    parser.add_argument("--runs", type=_positive, default=5, help="in the lab, a cell")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    asked = options.question or [name for name in QUESTIONS if name != "validate"]
    if unknown := set(asked) - set(QUESTIONS):
        parser.error(f"no such question: {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    given = conditions(punches=options.punches, seed=options.seed)
    print(given, flush=True)
    answers = {name: QUESTIONS[name](options) for name in asked}
    cells = [{"question": name, **cell} for name, (_, found) in answers.items() for cell in found]
    asked_for: dict[str, object] = {"machine": given, **vars(options)}
    save(options.json, {"benchmark": "simulate", "conditions": asked_for, "cells": cells})
    return 0 if all(held for held, _ in answers.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
