"""Which public ports a NAT tries for a new mapping, best first (RFC 4787 §4.2).

Theory of operation. Every allocation is a place to start and a walk from there; the NAT takes the first port of the
walk that is free, and tells which. Every walk ends, and covers the whole range, so that a NAT drops only when it is
full. Where parity is kept, the ports of the right parity come first and the others after them. Pure: the only chance
is that of the `Random` handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import chain
from math import gcd
from random import Random
from typing import Protocol

LOWEST, HIGHEST = 1024, 65535  # RFC 4787 §4.2.1: a NAT keeps away from the well-known ports
_SPAN = HIGHEST - LOWEST + 1


class Ports(Protocol):
    """One way to allocate. `space` tells apart what has ports of its own: a row of protocols at a public address."""

    def candidates(self, space: Hashable, wanted: int) -> Iterator[int]:
        """The ports to try in that space, in order, for a private port of number `wanted`."""

    def take(self, space: Hashable, port: int) -> None:
        """That candidate was free, and is taken now."""


class Preserving:
    """The private port's own number where it is free, then the next ones."""

    def __init__(self, parity: bool) -> None:
        self._parity = parity

    def candidates(self, space: Hashable, wanted: int) -> Iterator[int]:
        return _parity_first(lambda: _from(wanted), wanted) if self._parity else _from(wanted)

    def take(self, space: Hashable, port: int) -> None:
        pass


class Sequential:
    """The last port and `step`, from a random beginning. `others`: chance at each step that somebody else has it."""

    def __init__(self, step: int, others: float, parity: bool, draws: Random) -> None:
        self._step, self._others, self._parity, self._draws = step, others, parity, draws
        self._last: dict[Hashable, int] = {}

    def candidates(self, space: Hashable, wanted: int) -> Iterator[int]:
        return _walk(self._start(space), self._step, wanted if self._parity else None)

    def take(self, space: Hashable, port: int) -> None:
        self._last[space] = port

    def _start(self, space: Hashable) -> int:
        if space not in self._last:
            return self._draws.randint(LOWEST, HIGHEST)
        steps = 1
        while self._others and self._draws.random() < self._others:
            steps += 1
        return self._last[space] + steps * self._step


class Scattered:
    """Any port, all alike; where it is taken, the next ones."""

    def __init__(self, parity: bool, draws: Random) -> None:
        self._parity, self._draws = parity, draws

    def candidates(self, space: Hashable, wanted: int) -> Iterator[int]:
        return _walk(self._draws.randint(LOWEST, HIGHEST), 1, wanted if self._parity else None)

    def take(self, space: Hashable, port: int) -> None:
        pass


def _from(port: int) -> Iterator[int]:
    """The number itself, which may be a low one, then the next ones, wrapping round to `LOWEST`."""
    return chain(range(port, HIGHEST + 1), range(min(port, LOWEST), port))


def _walk(start: int, step: int, wanted: int | None) -> Iterator[int]:
    """All ports, `step` apart and then those between, wrapping round. `wanted`: one whose parity is to be kept."""
    if wanted is None:
        return _stride(start, step)
    start += (start ^ wanted) & 1
    return _parity_first(lambda: _stride(start, step), wanted)


def _stride(start: int, step: int) -> Iterator[int]:
    between = gcd(step, _SPAN)
    for offset in range(between):
        for number in range(_SPAN // between):
            yield LOWEST + (start + offset + number * step - LOWEST) % _SPAN


def _parity_first(ports: Callable[[], Iterator[int]], wanted: int) -> Iterator[int]:
    return chain((port for port in ports() if not (port ^ wanted) & 1), ports())
