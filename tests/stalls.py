"""For tests that hold on a machine which may stall for a second."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

ALONE_S = 3
"""A window whose end is to be diagnosed: who is held up for half of it blames its own host, and rightly."""


async def shortest(measure: Callable[[], Awaitable[float]], below: float, tries: int = 6) -> float:
    """The least of a few measurements, each as `measure` makes it; no more are made once one is `below` that.

    A stall makes what is measured longer, and never shorter.
    """
    found = await measure()
    for _ in range(tries - 1):
        if found < below:
            break
        found = min(found, await measure())
    return found
