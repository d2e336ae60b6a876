"""When enough has been heard of the STUN servers: how long those that are still silent are waited for.

Pure: times (seconds of one clock) and observations in, a time out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simopen.model.nat import Mapping, Observation
from simopen.nat.classify import mapping_so_far

ENOUGH = 2
"""Servers, at different addresses, whose answers show whether the mapping depends on the address."""
PATIENCE_S = 1.5
"""What the rest still gets after the first answer: a SYN that was lost once comes after 1 s."""
SECOND_PATIENCE, SECOND_GRACE_S = 4, 0.25
"""What the rest of a second round still gets, as a multiple of what its first answer took, and beyond that. Both ports
of the other address are asked: that both SYNs were lost is much less likely than that nobody is there."""
GRACE_S = 0.1
"""What the rest still gets beyond the third round trip once enough answered: a busy machine's delays."""


@dataclass(slots=True)
class Patience:
    """`servers`: how many are asked, from `began_s` on. `awaited`: questions of second rounds not answered yet."""

    servers: int
    began_s: float
    awaited: int = 0
    _second_end_s: float | None = None

    @property
    def wanted(self) -> int:
        """How many servers' answers are enough."""
        return min(ENOUGH, self.servers)

    def answered(self, begun_s: float, now_s: float) -> None:
        """Note that a question of a second round, asked at `begun_s`, was answered now: the rest gets its time."""
        end_s = begun_s + SECOND_PATIENCE * (now_s - begun_s) + SECOND_GRACE_S
        self._second_end_s = max(self._second_end_s or end_s, end_s)

    def end_s(self, seen: Sequence[Observation], now_s: float) -> float:
        """When to stop waiting: an answer takes two round trips, so a third one is half as much again.

        Where what was seen of the punch port tells the mapping, all is settled. Else it takes the second rounds to
        tell, of which an answer shows how long one takes.
        """
        if len({each.server.address for each in seen}) < self.wanted:
            return now_s + PATIENCE_S
        if self.awaited and mapping_so_far(seen) is Mapping.UNKNOWN:
            return min(now_s + PATIENCE_S, self._second_end_s or math.inf)
        return self.began_s + 1.5 * (now_s - self.began_s) + GRACE_S
