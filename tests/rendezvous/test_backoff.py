"""Pauses between tries: at random, from nothing to a bound that doubles to a limit."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from simopen.rendezvous.backoff import STEADY_S, Backoff


def highest(low: float, high: float) -> float:
    assert low == 0.0
    return high


def test_the_bound_doubles_to_its_limit_and_stays_there() -> None:
    backoff = Backoff(0.5, 4.0, highest)
    assert [backoff.pause_s() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_it_begins_anew_after_what_has_lived_and_not_after_what_has_not() -> None:
    backoff = Backoff(0.5, 4.0, highest)
    for _ in range(3):
        backoff.pause_s()
    backoff.over(STEADY_S / 2)
    assert backoff.pause_s() == 4.0
    backoff.over(STEADY_S)
    assert (backoff.tries, backoff.pause_s()) == (0, 0.5)
    backoff.over(STEADY_S)
    backoff.over(0.0)
    assert backoff.tries == 1


@given(st.integers(0, 10_000), st.integers())
def test_every_pause_lies_between_nothing_and_the_limit(tries: int, seed: int) -> None:
    backoff = Backoff(uniform=random.Random(seed).uniform, tries=tries)
    assert 0.0 <= backoff.pause_s() <= backoff.most_s
