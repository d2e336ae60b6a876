"""Ports that a NAT gives out one after the other, as a walk: how far it steps, who else steps, where it comes next.

Theory of operation. A counter moves by one step for each new mapping, ours or another's. So the gap between two of
our ports, in steps, is 1 and what others took in between. Two models of the others are weighed against each other:
a fixed chance at each step that others take it, whatever the time (a geometric distribution, as where traffic comes in
bursts with ours), and a rate of mappings a second (a Poisson distribution). Each hypothesis is a step, one model with
one parameter, and whether parity is kept (RFC 4787 §4.2.2); the posterior over a grid of them predicts the next port.
The grid is small on purpose: a dozen gaps support no finer one.

Pure: numbers in, numbers out. It knows ports and times, no addresses and no NATs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from math import exp, inf, lgamma, log, sqrt
from typing import NamedTuple

LOWEST, HIGHEST = 1024, 65535  # RFC 4787 §4.2.1: NATs keep away from the well-known ports
SPAN = HIGHEST - LOWEST + 1
JUMP = 0.01
"""Chance that a gap fits no walk: a SYN that was overtaken or sent again, a counter that wrapped elsewhere. Assumed."""

# Prior weights, by hand: steps of 1 and 2 are what has been seen most; a quiet NAT is common, a very busy one is not.
_STEPS = {1: 0.55, 2: 0.2, 3: 0.05, 4: 0.08, 5: 0.02, 6: 0.02, 8: 0.03, -1: 0.03, -2: 0.02}
_BUSY = dict(
    zip(
        (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999),
        (0.25, 0.1, 0.1, 0.1, 0.07, 0.07, 0.06, 0.05, 0.04, 0.04, 0.04, 0.03, 0.02, 0.01, 0.01, 5e-3, 3e-3, 1e-3, 1e-3),
        strict=True,
    )
)
_RATES = dict.fromkeys((0.3, 1.0, 3.0, 6.0, 10.0, 18.0, 30.0, 55.0, 100.0, 180.0, 300.0, 1000.0, 3000.0), 1 / 13)
_MODELS = {("busy", value): 0.6 * weight for value, weight in _BUSY.items()} | {
    ("rate", value): 0.4 * weight for value, weight in _RATES.items()
}
_KEEPS_PARITY = {False: 0.8, True: 0.2}
_NEGLIGIBLE = 1e-6


class Taken(NamedTuple):
    """One new mapping: its public port, the local port it is for, and when (s, any clock)."""

    port: int
    local: int
    at_s: float


Run = Sequence[Taken]
"""Mappings in the order in which one counter gave them out."""


class Walk(NamedTuple):
    """One hypothesis. `model` is "busy" (`value`: chance a step that others take it) or "rate" (others a second)."""

    step: int
    keeps_parity: bool
    model: str
    value: float

    def chance(self, steps: int, elapsed_s: float) -> float:
        """That the counter moves by so many steps from one of our mappings to the next."""
        if self.model == "busy":
            return float((1 - self.value) * self.value ** (steps - 1))
        return _poisson(steps - 1, self.value * max(elapsed_s, 0.0))

    def likely_steps(self, elapsed_s: float) -> range:
        """All but a negligible share of what `chance` gives."""
        if self.model == "busy":
            return range(1, 2 + int(log(_NEGLIGIBLE) / log(self.value)) if self.value else 2)
        mean = self.value * max(elapsed_s, 0.0)
        return range(1 + max(0, int(mean - 6 * sqrt(mean))), 8 + int(mean + 6 * sqrt(mean)))

    def lands(self, port: int, steps: int, local: int) -> int:
        """The port that many steps after `port`, for that local port."""
        target = port + steps * self.step
        return wrapped(target + ((target ^ local) & 1 if self.keeps_parity else 0))


def wrapped(port: int) -> int:
    """A number that ran past either end of the range, back in it."""
    return LOWEST + (port - LOWEST) % SPAN


@cache
def _log_factorial(number: int) -> float:
    return lgamma(number + 1)


def _poisson(count: int, mean: float) -> float:
    if mean <= 0:
        return float(count == 0)
    return exp(count * log(mean) - mean - _log_factorial(count))


def log_sum(logs: Sequence[float]) -> float:
    """log(sum(exp(each))), without overflow."""
    top = max(logs, default=-inf)
    return top if top == -inf else top + log(sum(exp(each - top) for each in logs))


def weigh(runs: Sequence[Run]) -> dict[Walk, float]:
    """The log of prior times likelihood of each hypothesis. The first port of each run is given."""
    gaps = [pair for run in runs for pair in pairwise(run)]
    parities = [parity for parity in _KEEPS_PARITY if not parity or _all_keep_parity(runs)]
    return {
        Walk(step, parity, *model): log(_STEPS[step] * _KEEPS_PARITY[parity] * weight) + fit
        for step in _STEPS
        for parity in parities
        for (model, weight), fit in zip(_MODELS.items(), _fits(gaps, step, parity), strict=True)
    }


def evidence(runs: Sequence[Run]) -> float:
    """The log likelihood of the runs after their first ports, whatever the walk."""
    return log_sum(list(weigh(runs).values()))


def likeliest(weights: Mapping[Walk, float], runs: Sequence[Run]) -> tuple[int, float]:
    """The step, and the maximum likelihood estimate of the share of steps that others took, 0 to below 1."""
    best = max(weights, key=weights.__getitem__)
    gaps = [(a, b, b.at_s - a.at_s) for run in runs for a, b in pairwise(run)]
    counted = [(_steps_between(a.port, b.port, best.step, best.keeps_parity), elapsed_s) for a, b, elapsed_s in gaps]
    fitting = [min(steps) for steps, elapsed_s in counted if _likelihood(best, steps, elapsed_s) > 2 * JUMP / SPAN]
    return best.step, 1 - len(fitting) / sum(fitting) if fitting else 0.0


def _all_keep_parity(runs: Sequence[Run]) -> bool:
    return not any((taken.port ^ taken.local) & 1 for run in runs for taken in run)


def _fits(gaps: Sequence[tuple[Taken, Taken]], step: int, parity: bool) -> Iterator[float]:
    counted = [(_steps_between(a.port, b.port, step, parity), b.at_s - a.at_s) for a, b in gaps]
    for model in _MODELS:
        walk = Walk(step, parity, *model)
        yield sum(log(_likelihood(walk, counts, elapsed_s)) for counts, elapsed_s in counted)


def _likelihood(walk: Walk, counts: Sequence[int], elapsed_s: float) -> float:
    return JUMP / SPAN + (1 - JUMP) * sum(walk.chance(steps, elapsed_s) for steps in counts)


def _steps_between(first: int, then: int, step: int, parity: bool) -> tuple[int, ...]:
    """Each number of steps that leads from one port to the other; where parity is kept, one port may be skipped."""
    sign = 1 if step > 0 else -1
    gaps = [(then - first - skipped) * sign % SPAN for skipped in range(1 + parity)]
    return tuple(gap // abs(step) for gap in gaps if gap and gap % step == 0)


def ahead(weights: Mapping[Walk, float], last: Taken, local: int, at_s: float, before: int = 0) -> dict[int, float]:
    """The chance of each port that the next mapping but `before` gets, for `local` at `at_s`. Sums to 1 at most."""
    total = log_sum(list(weights.values()))
    chances: dict[int, float] = defaultdict(float)
    for walk, weight in weights.items():
        share = exp(weight - total)
        if share < _NEGLIGIBLE:
            continue
        for port, chance in _after(walk, last, local, at_s, before).items():
            chances[port] += share * chance
    return dict(chances)


def _after(walk: Walk, last: Taken, local: int, at_s: float, before: int) -> dict[int, float]:
    chances = {last.port: 1.0}
    for elapsed_s in (at_s - last.at_s, *[0.0] * before):
        chances = _one_more(walk, chances, local, elapsed_s)
    return chances


def _one_more(walk: Walk, chances: Mapping[int, float], local: int, elapsed_s: float) -> dict[int, float]:
    found: dict[int, float] = defaultdict(float)
    moves = [(steps, (1 - JUMP) * walk.chance(steps, elapsed_s)) for steps in walk.likely_steps(elapsed_s)]
    for port, chance in chances.items():
        for steps, move in moves:
            if chance * move > _NEGLIGIBLE:
                found[walk.lands(port, steps, local)] += chance * move
    return found
