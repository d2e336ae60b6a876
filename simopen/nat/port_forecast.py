"""Where a row of ports goes on: the chance of each port for the next mapping, and for those after it.

Theory of operation. `port_sequence.py` weighs the hypotheses. Of each, a port's chance moves on with every mapping by
one step, or two where another took the first, and so on, with geometrically falling chances: a recursive filter, whose
work is that of the ports that matter, however busy the row is. Others' mappings by the clock count only until our next
one, since those after it follow right behind; so hypotheses that differ by their rates alone go together.

Pure: numbers in, numbers out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain, islice, repeat, zip_longest
from math import exp
from typing import NamedTuple

from simopen.nat.port_sequence import (
    HIGHEST,
    JUMP,
    LOWEST,
    MOST_STEPS,
    SPAN,
    Taken,
    Weights,
    by_rate,
    log_sum,
)


def ahead(weights: Weights, last: Taken, local: int, at_s: float, before: int = 0) -> dict[int, float]:
    """The chance of each port that the next mapping but `before` gets, for `local` at `at_s`. Sums to 1 at most."""
    return next(islice(_each_ahead(weights, _Next(last, local, at_s), _CLOSELY), before, None))


def each_ahead(weights: Weights, last: Taken, local: int, at_s: float, most: int) -> Iterator[dict[int, float]]:
    """`ahead` for each of the next `most` mappings, of the hypotheses and ports that matter."""
    return islice(_each_ahead(weights, _Next(last, local, at_s), _ROUGHLY), most)


class _Cutoff(NamedTuple):
    """How closely a row is followed: so many hypotheses, the likeliest, and no port that is rarer than that.

    `later`: after the first mapping. A flat row has thousands of ports, of which none is worth a shot.
    """

    groups: int
    first: float
    later: float


_CLOSELY, _ROUGHLY = _Cutoff(84, 1e-5, 1e-5), _Cutoff(12, 1e-4, 3e-4)


class _Next(NamedTuple):
    """The mapping that is foreseen: what came last, for which local port it will be, and when (s)."""

    last: Taken
    local: int
    at_s: float


def _each_ahead(weights: Weights, then: _Next, cutoff: _Cutoff) -> Iterator[dict[int, float]]:
    """The chances of the next mapping, of the one after it, …"""
    groups = [each for each in _likeliest_groups(weights)[: cutoff.groups] if sum(each[1].values()) > cutoff.first]
    rows = [_first(*each, then, cutoff.first) for each in groups]
    while True:
        found: dict[int, float] = {}
        so_far = found.get  # there are thousands of ports
        for row in rows:
            distance = row.group.distance
            ports = range(row.start, row.start + distance * len(row.chances), distance)
            for port, chance in zip(ports, row.chances, strict=True):
                found[port] = so_far(port, 0.0) + chance
        yield _wrapped(found, cutoff.first)
        rows = [_one_more(row, cutoff.later) for row in rows if row.chances]


def _wrapped(found: Mapping[int, float], too_rare: float) -> dict[int, float]:
    """Those ports that matter, back in their range as `wrapped` brings them, without thousands of calls."""
    if found and min(found) >= LOWEST and max(found) <= HIGHEST:
        return {port: chance for port, chance in found.items() if chance > too_rare}
    return {LOWEST + (port - LOWEST) % SPAN: chance for port, chance in found.items() if chance > too_rare}


def _likeliest_groups(weights: Weights) -> list[tuple[_Group, dict[float, float]]]:
    """Hypotheses that differ by their rates alone together, with each rate's share; the likeliest first."""
    total = log_sum(list(weights.values()))
    group: dict[_Group, dict[float, float]] = defaultdict(dict)
    for hypothesis, weight in weights.items():
        group[_Group(hypothesis.step, hypothesis.keeps_parity, hypothesis.busy)][hypothesis.rate] = exp(weight - total)
    return sorted(group.items(), key=lambda each: -sum(each[1].values()))


class _Group(NamedTuple):
    """What hypotheses have in common that differ by their rates alone, which count until the next mapping only."""

    step: int
    keeps_parity: bool
    busy: float

    @property
    def period(self) -> int:
        """Steps after which the distances between ports repeat themselves."""
        return 2 if self.keeps_parity and self.step % 2 else 1

    @property
    def distance(self) -> int:
        """From a port to the next one that may be taken; below 0 where the row goes down."""
        unit = 2 if self.period == 2 else abs(self.step)
        return unit if self.step > 0 else -unit

    def moved(self, port: int, steps: int, local: int) -> int:
        """The port that a local one gets, so many steps on."""
        port += steps * self.step
        return port + ((port ^ local) & 1 if self.keeps_parity else 0)

    def place(self, steps: int, port: int, first: int, local: int) -> int:
        """How many distances lie between what `first` steps lead to and what so many do."""
        return (self.moved(port, steps, local) - self.moved(port, first, local)) // self.distance

    def placed(self, then: _Next, chances: list[float]) -> list[float]:
        """The chances of 1, 2, … steps as those of the ports that these lead to, of which two may be the same."""
        if self.period == 1:
            return chances
        found = [0.0] * (self.place(len(chances), then.last.port, 1, then.local) + 1)
        for steps, chance in enumerate(chances, start=1):
            found[self.place(steps, then.last.port, 1, then.local)] += chance
        return found


class _Row(NamedTuple):
    """The chances of `start` and of the ports behind it, as far apart as `group` says."""

    group: _Group
    start: int
    chances: list[float]

    def trimmed(self, too_rare: float) -> _Row:
        chances, end = self.chances, len(self.chances)
        while end and chances[end - 1] <= too_rare:
            end -= 1
        first = 0
        while first < end and chances[first] <= too_rare:
            first += 1
        return _Row(self.group, self.start + first * self.group.distance, chances[first:end])


def _first(group: _Group, shares: Mapping[float, float], then: _Next, too_rare: float) -> _Row:
    elapsed_s = max(then.at_s - then.last.at_s, 0.0)
    rated = [[share * chance for chance in by_rate(rate * elapsed_s)] for rate, share in shares.items()]
    by_the_clock = chain(map(sum, zip_longest(*rated, fillvalue=0.0)), repeat(0.0))
    busy, idle, fits = group.busy, 1 - group.busy, 1 - JUMP
    chances: list[float] = []
    rest, chance, add = sum(shares.values()), 0.0, chances.append
    for each in islice(by_the_clock, MOST_STEPS):
        chance = busy * chance + idle * each  # `filtered`, without a generator's turns
        add(fits * chance)
        rest -= chance
        if rest < too_rare:
            break
    start = group.moved(then.last.port, 1, then.local)
    return _Row(group, start, group.placed(then, chances)).trimmed(too_rare)


def _one_more(row: _Row, too_rare: float) -> _Row:
    """Each port's chance goes on by one step, or two, …, of geometrically falling chances: a recursive filter."""
    group, ratio = row.group, row.group.busy**row.group.period
    found, start = _fed(row)
    lag = group.step * group.period // group.distance
    if ratio:
        for place, before in zip(range(lag, len(found)), found, strict=False):
            found[place] += ratio * before
        while ratio * max(found[-lag:]) > too_rare:
            found.append(ratio * found[-lag])
    return _Row(group, start, found).trimmed(too_rare)


def _fed(row: _Row) -> tuple[list[float], int]:
    """What goes into the filter: the chances of the first steps of a period, and which port they begin at.

    A row's ports have the local port's parity, where that is kept.
    """
    group, port = row.group, row.start
    share = (1 - JUMP) * (1 - group.busy)
    found = [share * chance for chance in row.chances]
    if group.period == 2:
        shift = group.place(2, port, 1, port)
        found += [0.0] * shift
        for place, chance in enumerate(row.chances, start=shift):
            found[place] += share * group.busy * chance
    return found, group.moved(port, 1, port)
