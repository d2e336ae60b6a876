"""Ports that a NAT allocates in sequence: by which step, and how many mappings of others come between.

Theory of operation. A counter moves by one step for each new mapping, ours or another's. So the gap between two of
our ports, in steps, is 1 and what others took in between. That has two parts: at each step others may take the port,
whatever the time (a geometric distribution: traffic that comes in bursts with ours), and others make mappings at some
rate (a negative binomial one: real traffic is burstier than a Poisson process, and the grid below is coarse). Each
hypothesis is a step, one chance, one rate, and whether parity is kept (RFC 4787 §4.2.2); `port_forecast.py` predicts
the next ports by the posterior over a grid of them. The grid is small on purpose: a dozen gaps support no finer one. Of
others' own parities nothing is known, so where parity is kept and steps are 3 or more, the step may come out wrong.

Pure: numbers in, numbers out. It knows ports and times, no addresses and no NATs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, chain, pairwise, repeat, takewhile
from math import exp, inf, lgamma, log
from operator import add, mul
from typing import NamedTuple, TypeAlias

LOWEST, HIGHEST = 1024, 65535  # RFC 4787 §4.2.1: NATs keep away from the well-known ports
SPAN = HIGHEST - LOWEST + 1
ANY_PORT = -log(SPAN)
JUMP = 0.01
"""Chance that a gap fits no hypothesis: a SYN overtaken or sent again, a counter that wrapped elsewhere. Assumed."""

MOST_STEPS = 1000
"""A gap beyond so many steps fits no hypothesis. Further off than that no port has a chance above 1 %."""
BURSTINESS = 6.0
"""Shape of the negative binomial: at a mean of 6, its variance is twice that of a Poisson distribution. Assumed."""

# Prior weights, by hand: steps of 1 and 2 are what has been seen most; a quiet NAT is common, a very busy one is not.
_STEPS = {1: 0.57, 2: 0.21, 3: 0.05, 4: 0.09, 8: 0.04, -1: 0.04}
_BUSY = {0.0: 0.32, 0.05: 0.14, 0.12: 0.18, 0.25: 0.18, 0.4: 0.1, 0.6: 0.06, 0.85: 0.02}
_RATES = {0.0: 0.45, 2.0: 0.14, 8.0: 0.14, 30.0: 0.14, 120.0: 0.08, 600.0: 0.05}
_TRAFFIC = {(busy, rate): _BUSY[busy] * _RATES[rate] for busy in _BUSY for rate in _RATES}
_KEEPS_PARITY = {False: 0.8, True: 0.2}
_JUMPS = (log(JUMP / SPAN),) * len(_TRAFFIC)
_NEGLIGIBLE = 1e-5
_NOTHING = 1e-12  # far below a jump's chance of any one port


class Taken(NamedTuple):
    """One new mapping: its public port, the local port it is for, and when (s, any clock).

    `own`: how many steps since the one before are this program's own, for flows whose ports nobody told.
    """

    port: int
    local: int
    at_s: float
    own: int = 0


Run: TypeAlias = tuple[Taken, ...]
"""Mappings in the order in which one counter gave them out."""


class Hypothesis(NamedTuple):
    """One hypothesis. `busy`: the chance at a step that others take it; `rate`: mappings of others a second."""

    step: int
    keeps_parity: bool
    busy: float
    rate: float

    def chances(self, elapsed_s: float) -> Iterator[float]:
        """That the counter moves by 1, 2, … steps from one of our mappings to the next, all but a negligible rest."""
        total = 0.0
        for chance in filtered(chain(by_rate(self.rate * max(elapsed_s, 0.0)), repeat(0.0)), self.busy):
            yield chance
            total += chance
            if total > 1 - _NEGLIGIBLE:
                return

    def chance(self, steps: int, elapsed_s: float, own: int = 0) -> float:
        """One of `chances`. `own`: so many further steps are our own, not counted, at each of which others may come."""
        fewest, by_chance = _by_chance(self.busy, own)
        rated = by_rate(self.rate * max(elapsed_s, 0.0))
        # Of all others, so many come by the clock where the fewest come by chance; one less for each more of these.
        most = steps - 1 - fewest
        if most < 0:
            return 0.0
        least = max(0, most - len(by_chance) + 1)
        return float(sum(map(mul, rated[least : most + 1], by_chance[most - least :: -1])))


def wrapped(port: int) -> int:
    """A number that ran past either end of the range, back in it."""
    return LOWEST + (port - LOWEST) % SPAN


Weights: TypeAlias = Mapping[Hypothesis, float]
"""The log of each hypothesis's prior times likelihood."""


@lru_cache(128)  # each gap of a run is asked for several times, by each order of the runs and each step
def by_rate(mean: float) -> tuple[float, ...]:
    """The negative binomial distribution of that mean: the chance of 0, 1, … others, until the rest is negligible."""
    more = mean / (BURSTINESS + mean)
    chance = (1 - more) ** BURSTINESS
    found = [chance]
    for others in range(1, MOST_STEPS):
        chance *= more * (BURSTINESS - 1 + others) / others
        if chance < _NOTHING and others > mean:
            break
        found.append(chance)
    return tuple(found)


@lru_cache(256)
def _by_chance(busy: float, own: int) -> tuple[int, tuple[float, ...]]:
    """The chances of so many others at `own` + 1 steps of ours: a negative binomial distribution.

    With it: how many are the first one's, since of fewer the chance is as good as none.
    """
    if not busy:
        return 0, (1.0,)
    likeliest = int(own * busy / (1 - busy))
    # In logarithms, as the ways in which others come at a spray's steps are beyond any float.
    ways = lgamma(own + likeliest + 1) - lgamma(own + 1) - lgamma(likeliest + 1)
    top = exp(ways + likeliest * log(busy) + (own + 1) * log(1 - busy))
    more = [busy * (own + others) / others for others in range(likeliest + 1, likeliest + MOST_STEPS)]
    fewer = [others / (busy * (own + others)) for others in range(likeliest, 0, -1)]
    rising, falling = (
        list(takewhile(lambda chance: chance > _NOTHING, accumulate(ratios, mul, initial=top)))
        for ratios in (fewer, more)
    )
    return likeliest - len(rising) + 1, (*rising[:0:-1], *falling)


def filtered(rated: Iterable[float], busy: float) -> Iterator[float]:
    """What comes by the clock, and after it more by chance: f(n) = busy f(n - 1) + (1 - busy) rated(n)."""
    chance = 0.0
    for each in rated:
        chance = busy * chance + (1 - busy) * each
        yield chance


def log_sum(logs: Sequence[float]) -> float:
    """log(sum(exp(each))), without overflow."""
    top = max(logs, default=-inf)
    return top if top == -inf else top + log(sum(exp(each - top) for each in logs))


@lru_cache(64)  # the verdict, the estimates and each prediction ask about the same runs
def weigh(runs: tuple[Run, ...]) -> Weights:
    """Weigh each hypothesis. The first port of each run is given."""
    gaps = [pair for run in runs for pair in pairwise(run)]
    parities = [parity for parity in _KEEPS_PARITY if not parity or _all_keep_parity(runs)]
    return {
        Hypothesis(step, parity, *traffic): log(_STEPS[step] * _KEEPS_PARITY[parity] * weight) + fit
        for step in _STEPS
        for parity in parities
        for (traffic, weight), fit in zip(_TRAFFIC.items(), _fits(gaps, step, parity), strict=True)
    }


def evidence(runs: tuple[Run, ...]) -> float:
    """The log likelihood of the runs after their first ports, whatever the hypothesis."""
    return log_sum(list(weigh(runs).values()))


def likeliest(weights: Weights, runs: tuple[Run, ...]) -> tuple[int, float]:
    """The step, and the maximum likelihood estimate of the share of steps that others took, 0 to below 1."""
    best = max(weights, key=weights.__getitem__)
    gaps = [pair for run in runs for pair in pairwise(run)]
    counted = [(_steps_between(a, b, best.step, best.keeps_parity), b.at_s - a.at_s, b.own) for a, b in gaps]
    fitting = [(min(each[0]), each[2]) for each in counted if _likelihood(best, *each) > 2 * JUMP / SPAN]
    ours = sum(1 + own for _, own in fitting)
    return best.step, 1 - ours / sum(steps + own for steps, own in fitting) if fitting else 0.0


def _all_keep_parity(runs: tuple[Run, ...]) -> bool:
    return not any((taken.port ^ taken.local) & 1 for run in runs for taken in run)


def _fits(gaps: Sequence[tuple[Taken, Taken]], step: int, parity: bool) -> list[float]:
    """The log likelihood of the gaps for each traffic."""
    fits = [0.0] * len(_TRAFFIC)
    for a, b in gaps:
        counts = _steps_between(a, b, step, parity)
        fits = list(map(add, fits, _fits_of_gap(counts, b.at_s - a.at_s, b.own) if counts else _JUMPS))
    return fits


@lru_cache(512)  # steps of 3, with and without parity, lead to the same numbers as others do
def _fits_of_gap(counts: tuple[int, ...], elapsed_s: float, own: int) -> tuple[float, ...]:
    by_count = [_chances_of(count, elapsed_s, own) for count in counts]
    return tuple(log(JUMP / SPAN + (1 - JUMP) * sum(chances)) for chances in zip(*by_count, strict=True))


@lru_cache(512)
def _chances_of(steps: int, elapsed_s: float, own: int) -> tuple[float, ...]:
    """The chance of so many steps, for each traffic."""
    return tuple(Hypothesis(1, False, *traffic).chance(steps, elapsed_s, own) for traffic in _TRAFFIC)


def _likelihood(hypothesis: Hypothesis, counts: Sequence[int], elapsed_s: float, own: int) -> float:
    return JUMP / SPAN + (1 - JUMP) * sum(hypothesis.chance(steps, elapsed_s, own) for steps in counts)


def without_own(first: Taken, then: Taken, step: int) -> int:
    """How many steps of the gap between two mappings go with our own other flows: theirs, and those of others at them.

    Others come at each step alike. Where the gap is less than our own, some of these had mappings of an earlier time.
    0 where it is no gap of such steps.
    """
    steps = (then.port - first.port) * (1 if step > 0 else -1) % SPAN // abs(step)
    others = max(0, steps - 1 - then.own)
    return max(0, steps - 1 - round(others / (1 + then.own))) if others < MOST_STEPS else 0


def _steps_between(first: Taken, then: Taken, step: int, parity: bool) -> tuple[int, ...]:
    """Each number of steps that leads from one to the other, without those of our own in between.

    Where parity is kept, each of them may have skipped a port.
    """
    sign = 1 if step > 0 else -1
    own = then.own * abs(step)
    gaps = ((then.port - first.port - skipped) * sign % SPAN - own for skipped in range(1 + parity * (1 + then.own)))
    return tuple(gap // abs(step) for gap in gaps if 0 < gap <= MOST_STEPS * abs(step) and gap % step == 0)


def fit_of_sequence(runs: tuple[Run, ...]) -> float:
    """The log likelihood of runs that may begin anywhere and come in either order."""
    return len(runs) * ANY_PORT + log_sum(_fits_of_orders(runs))


def _fits_of_orders(runs: tuple[Run, ...]) -> tuple[float, float]:
    """As the SYNs left; or, rarely, in another order, where some were overtaken or sent again."""
    ways = sum(map(_log_ways, runs))
    return log(0.9) + evidence(runs), log(0.1) - ways + evidence(tuple(map(_by_port, runs)))


def _log_ways(run: Run) -> float:
    """The log of how many orders are no further from that of the ports than this one: which were late, and where."""
    places = {(each.port, each.local): place for place, each in enumerate(_by_port(run))}
    rising: list[int] = []  # at each index the lowest end of a rising subsequence of that length
    for each in run:
        place = places[each.port, each.local]
        at = bisect_left(rising, place)
        rising[at : at + 1] = [place]
    late = len(run) - len(rising)
    return min(2 * late * log(len(run)), lgamma(len(run) + 1))


def in_order(runs: dict[str, Run]) -> dict[str, Run]:
    """The runs as they are, or by their ports where SYNs were overtaken on the way, whichever is likelier."""
    as_sent, by_port = _fits_of_orders(tuple(runs.values()))
    return runs if as_sent >= by_port else {address: _by_port(run) for address, run in runs.items()}


def _by_port(run: Run) -> Run:
    """In ascending order round the circle of ports, from behind the widest gap; times in order, too."""
    ports = sorted(run)
    gaps = [(taken.port - ports[index - 1].port) % SPAN for index, taken in enumerate(ports)]
    start = gaps.index(max(gaps))
    times = sorted(taken.at_s for taken in run)
    # How many other flows of our own left before each: one that comes late was not the last to leave.
    left = dict(zip(run, accumulate(taken.own for taken in run), strict=True))
    ordered = ports[start:] + ports[:start]
    most = list(accumulate((left[taken] for taken in ordered), max))
    return tuple(
        each._replace(at_s=at_s, own=now - before)
        for each, at_s, now, before in zip(ordered, times, most, most[:1] + most, strict=False)
    )
