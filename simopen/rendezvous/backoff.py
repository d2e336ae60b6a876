"""When to try again: ever later, and at random, so that all whom one server has lost do not come back at once.

Theory of operation: pure. Before each try a pause is drawn from 0 to a bound, which doubles to a limit: "full jitter",
which spreads the load best of the ways that have been compared (Brooker, "Exponential backoff and jitter", 2015).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

FIRST_S = 0.5
MOST_S = 4.0
"""Pauses from 0 to 4 s: a network that is there again is noticed 1.3 s later on average (a third of the bound)."""
STEADY_S = 1.0
"""What lived shorter counts as a try that failed: two programs that do not get on shall not meet without a pause."""
_DOUBLINGS = 32


@dataclass(slots=True)
class Backoff:
    """Draws one pause after the other. `uniform`: as `random.uniform`."""

    first_s: float = FIRST_S
    most_s: float = MOST_S
    uniform: Callable[[float, float], float] = random.uniform
    tries: int = 0

    def pause_s(self) -> float:
        """Seconds until the next try."""
        bound_s = min(self.most_s, self.first_s * 2 ** min(self.tries, _DOUBLINGS))
        self.tries += 1
        return self.uniform(0.0, bound_s)

    def over(self, lived_s: float) -> None:
        """What a try has brought is over, after so many seconds."""
        self.tries = 0 if lived_s >= STEADY_S else max(1, self.tries)
