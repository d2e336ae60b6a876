"""The line that says whom a punch waits for, and until when: made of its events, redrawn as the seconds go by.

Theory of operation: `Waiting` holds what is known, by the events that have come, and words it for a moment of
CLOCK_MONOTONIC: pure. `drawn` shows that on a screen. A timer of the loop counts down; nobody is asked anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from simopen.cli.console import Screen, Update, countdown
from simopen.model.estimate import Estimate
from simopen.model.event import ClockKnown, Event, OnEvent
from simopen.model.times import MonoNs
from simopen.model.wording import human

_TICK_S = 0.1
# So long before the instant nothing is drawn any more: it takes some ms with the GIL held, and the shot would wait.
_QUIET_S = 0.3
# An instant further away than this is told with its date.
_FAR_S = 43_200


@dataclass(frozen=True, slots=True)
class Waiting:
    """Whom for, and until when, as far as is known.

    `at_s`: the instant, UTC seconds; None: it fires when it is called, at `began_s`.
    """

    whom: str
    window_s: float
    at_s: float | None
    began_s: float
    estimate: Estimate

    def after(self, event: Event) -> Waiting:
        """What is known after that."""
        if not isinstance(event, ClockKnown):
            return self
        at_s = None if self.at_s is None else event.instant_utc_ns / 1e9
        return replace(self, estimate=event.estimate, at_s=at_s)

    def left_s(self, now_ns: MonoNs) -> float:
        """Until the instant, where CLOCK_MONOTONIC says `now_ns`; zero or less where it has passed, or is now."""
        return 0.0 if self.at_s is None else self.at_s - self._utc_s(now_ns)

    def pause_s(self, now_ns: MonoNs) -> float | None:
        """How long the line stays as it is, unless an event comes; None: for good."""
        if self.left_s(now_ns) > 0:
            return _TICK_S
        until_end_s = self._end_s() - self._utc_s(now_ns)
        return until_end_s if until_end_s > 0 else None

    def text(self, now_ns: MonoNs) -> str:
        """One line; below 80 columns for an IPv4 peer."""
        now_s, end_s = self._utc_s(now_ns), self._end_s()
        if now_s >= end_s:
            return f"{self.whom}: the window ended at {_told(end_s, now_s)}"
        if self.at_s is None or self.at_s <= now_s:
            return f"trying {self.whom} until {_told(end_s)}"
        left_s, at = self.at_s - now_s, datetime.fromtimestamp(self.at_s, UTC)
        bound_ns = self.estimate.bound_at(now_ns)
        sure = "unchecked" if bound_ns is None else f"± {human(bound_ns / 1e9)}"
        if left_s > _FAR_S:
            return f"{self.whom} at {_told(self.at_s, now_s)}, in {left_s:.0f} s; clock {sure}"
        here = f" ({at.astimezone():%H:%M} here)" if at.astimezone().utcoffset() else ""
        left = f"{left_s:.{0 if left_s >= 100 else 1}f}"
        return f"{self.whom} at {_told(self.at_s)}{here}, in {left} s; clock {sure}"

    def _utc_s(self, now_ns: MonoNs) -> float:
        return self.estimate.utc_at(now_ns) / 1e9

    def _end_s(self) -> float:
        return (self.began_s if self.at_s is None else self.at_s) + self.window_s


@contextlib.contextmanager
def drawn(waiting: Waiting, screen: Screen) -> Iterator[OnEvent]:
    """While inside, a line says how far it is; what this yields is told of the events."""
    with screen.line(waiting.text(MonoNs(time.monotonic_ns()))) as update:
        line = _Line(waiting, update)
        line.tick()
        try:
            yield line.on_event
        finally:
            line.stop()


class _Line:
    """Redraws at each event and, until the instant, ten times a second; then once more, at the window's end."""

    def __init__(self, waiting: Waiting, update: Update) -> None:
        self._waiting = waiting
        self._update = update
        self._timer: asyncio.TimerHandle | None = None

    def on_event(self, event: Event) -> None:
        waiting = self._waiting.after(event)
        if waiting != self._waiting:
            self._waiting = waiting
            self.stop()
            self.tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def tick(self) -> None:
        now_ns = MonoNs(time.monotonic_ns())
        left_s = self._waiting.left_s(now_ns)
        if not 0 < left_s < _QUIET_S:
            self._update(self._waiting.text(now_ns), countdown(left_s))
        pause_s = self._waiting.pause_s(now_ns)
        if pause_s is not None:
            self._timer = asyncio.get_running_loop().call_later(pause_s, self.tick)


def _told(utc_s: float, now_s: float | None = None) -> str:
    """A time of day; where that is not near `now_s`, with its date."""
    far = now_s is not None and abs(utc_s - now_s) > _FAR_S
    return f"{datetime.fromtimestamp(int(utc_s), UTC):{'%Y-%m-%d ' * far}%H:%M:%S} UTC"
