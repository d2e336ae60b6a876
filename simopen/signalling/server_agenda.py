"""When a rendezvous server looks at its lines and rooms: pure, by any one clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Agenda(Generic[T]):
    """Things, each with the time when it is to be looked at."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, at_s: float, thing: T) -> None:
        """Look at it then."""
        self._serial += 1
        heapq.heappush(self._heap, (at_s, self._serial, thing))

    def keep(self, is_kept: Callable[[T], bool]) -> None:
        """Look at no others any more."""
        self._heap = [each for each in self._heap if is_kept(each[2])]
        heapq.heapify(self._heap)

    def due(self, now: float, most: int) -> Iterator[T]:
        """What is to be looked at now, at most so many."""
        for _ in range(most):
            if not self._heap or self._heap[0][0] > now:
                return
            yield heapq.heappop(self._heap)[2]
