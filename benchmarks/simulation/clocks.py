"""Does a punch get through, however wrong the two clocks are: success over clock error × RTT × window.

Theory of operation: each side's error is drawn from a normal distribution around 0, the two independently. Beside the
simulated share stands the one expected from the errors alone: the windows overlap where the errors differ by less than
one window, and the difference of two normal errors is normal too, √2 times as wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from benchmarks.common import Row, progress, rounded, shape, table
from benchmarks.simulation.punching import Side, punch
from simopen.lab.nat.model import Nat, Unsolicited

ERRORS_S = (0.01, 0.1, 1.0, 3.0, 10.0)
RTTS_MS = (20.0, 80.0, 300.0)
WINDOWS_S = (1.0, 3.0, 10.0, 30.0)
ANSWERS = {"drop": Nat(unsolicited=Unsolicited.DROP), "reset": Nat(unsolicited=Unsolicited.RESET)}


@dataclass(frozen=True, slots=True)
class Cell:
    """One set of conditions and what came of it. `error_s`: the standard deviation of each side's clock error.

    `later_ms`: the later side's times after its first SYN, of those that connected.
    """

    answer: str
    error_s: float
    rtt_ms: float
    window_s: float
    punches: int
    connected: int
    later_ms: tuple[float, ...]

    @property
    def share(self) -> float:
        """Of the punches, those that connected."""
        return self.connected / self.punches

    @property
    def expected(self) -> float:
        """The share of the punches whose windows overlap."""
        return overlap(self.error_s, self.window_s)

    def row(self) -> Row:
        """For JSON."""
        return {
            "unsolicited": self.answer,
            "clock_error_sigma_s": self.error_s,
            "rtt_ms": self.rtt_ms,
            "window_s": self.window_s,
            "punches": self.punches,
            "connected": self.connected,
            "windows_overlap": rounded(self.expected),
            **shape(self.later_ms, "later", "ms"),
        }


def success(answer: str, error_s: float, rtt_ms: float, window_s: float, *, punches: int, seed: int) -> Cell:
    """Punch that many times, both sides behind the NAT of that answer, each with a clock error of its own."""
    draws = Random(seed)
    base = Side(rtt_ms / 4e3, (ANSWERS[answer],), window_s=window_s)
    times, connected = [], 0
    for number in range(punches):
        left, right = (replace(base, error_s=draws.gauss(0.0, error_s)) for _ in range(2))
        result = punch(left, right, seed=number)
        connected += result.connected
        if result.later_ms is not None:
            times.append(result.later_ms)
    return Cell(answer, error_s, rtt_ms, window_s, punches, connected, tuple(times))


def overlap(error_s: float, window_s: float) -> float:
    """How likely two windows overlap whose openings err independently and normally, each by `error_s`."""
    return math.erf(window_s / (2 * error_s))


def measure(punches: int, seed: int) -> list[Cell]:
    """Every cell."""
    cells: list[Cell] = []
    for answer in ANSWERS:
        for error_s in ERRORS_S:
            progress(f"clock error {error_s:g} s, {answer}")
            for rtt_ms in RTTS_MS:
                row = (success(answer, error_s, rtt_ms, each, punches=punches, seed=seed) for each in WINDOWS_S)
                cells += row
    progress("")
    return cells


def report(cells: Sequence[Cell]) -> None:
    """Print one table per answer."""
    for answer in dict.fromkeys(cell.answer for cell in cells):
        here = [cell for cell in cells if cell.answer == answer]
        places = dict.fromkeys((cell.error_s, cell.rtt_ms) for cell in here)
        table(
            f"share that connects, both NATs {answer} what nobody asked for (in brackets: the windows overlap); "
            f"{here[0].punches} punches a cell; each clock errs normally around 0, independently of the other; no loss",
            [_shown([cell for cell in here if (cell.error_s, cell.rtt_ms) == place]) for place in places],
        )


def _shown(cells: Sequence[Cell]) -> Row:
    shares = {f"window {cell.window_s:g} s": f"{cell.share:.1%} ({cell.expected:.1%})" for cell in cells}
    return {"error σ, s": f"{cells[0].error_s:g}", "RTT, ms": f"{cells[0].rtt_ms:g}", **shares}
