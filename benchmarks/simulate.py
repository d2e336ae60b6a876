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

from benchmarks.common import Row, measuring, options_parser, rounded, save, table
from benchmarks.simulation import clocks, population, validation
from benchmarks.simulation.punching import Side, punch
from simopen.lab.nat.model import Nat, Unsolicited

BAR_A_MINUTE = 20_000
Answer = tuple[bool, list[Row]]

_DROP, _RESET = (Nat(),), (Nat(unsolicited=Unsolicited.RESET),)
# From the shortest punch to one that fires 7 times; 80 ms of RTT.
LOADS = {
    "no NAT, at once": (Side(0.02), Side(0.02)),
    "drop, 45 ms apart": (Side(0.02, _DROP), Side(0.02, _DROP, error_s=0.045)),
    "reset, 500 ms apart": (Side(0.02, _RESET), Side(0.02, _RESET, error_s=0.5)),
    "drop behind drop, 5 % loss": (Side(0.02, _DROP * 2, loss=0.025), Side(0.02, _DROP * 2, loss=0.025)),
}


def rate(options: argparse.Namespace) -> Answer:
    """Punches a minute, by one process on one core."""
    rows = [_rate(load, *sides, options.punches) for load, sides in LOADS.items()]
    table(f"simulated punches a minute of one core's time; at least {BAR_A_MINUTE:,}", rows)
    return all(row["in_bar"] for row in rows), rows


def _rate(load: str, left: Side, right: Side, punches: int) -> Row:
    start_s = time.process_time()
    for seed in range(punches):
        punch(left, right, seed=seed)
    a_minute = punches * 60 / (time.process_time() - start_s)
    return {"punch": load, "punches": punches, "a_minute": rounded(a_minute), "in_bar": a_minute >= BAR_A_MINUTE}


def clock_errors(options: argparse.Namespace) -> Answer:
    """The share that connects, over clock error × RTT × window."""
    cells = clocks.measure(options.punches, options.seed)
    clocks.report(cells)
    return True, [cell.row() for cell in cells]


def populations(options: argparse.Namespace) -> Answer:
    """The share of pairs that connects, in populations of NATs."""
    shares = population.measure()
    population.report(shares)
    return True, [share.row() for share in shares]


def validate(options: argparse.Namespace) -> Answer:
    """The lab's word on the same cells."""
    compared = asyncio.run(validation.validate(validation.chosen(options.cells), options.runs))
    return validation.report(compared, options.runs), [each.row() for each in compared]


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
    parser = options_parser(__doc__)
    parser.add_argument("question", nargs="*", help=f"of {', '.join(QUESTIONS)}")
    parser.add_argument("--punches", type=_positive, default=500, help="a cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cells", type=_positive, default=len(validation.CELLS), help="of the validation")
    parser.add_argument("--runs", type=_positive, default=5, help="in the lab, a cell")
    options = parser.parse_args()
    asked = options.question or [name for name in QUESTIONS if name != "validate"]
    if unknown := set(asked) - set(QUESTIONS):
        parser.error(f"no such question: {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    with measuring(
        punches=options.punches,
        seed=options.seed,
        lab_runs_a_cell=options.runs,
        clock_errors="normal around 0, independent",
    ) as given:
        answers = {name: QUESTIONS[name](options) for name in asked}
    rows = [{"question": name, **row} for name, (_, found) in answers.items() for row in found]
    save(options.json, "simulate", given, rows)
    return 0 if all(held for held, _ in answers.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
