"""What `simopen meet` shows of a round: how long until its instant, then what has happened."""

from __future__ import annotations

from typing import Any, ClassVar

from simopen.cli.console import Screen, countdown
from simopen.model.event import Answered, Event
from simopen.model.outcome import Outcome

# So long before the instant nothing is drawn any more: it takes some ms with the GIL held, and the shot would wait.
_QUIET_S = 0.3


class Line:
    """The live line of one round: a countdown from `left_s` on, then what has happened."""

    _STEPS: ClassVar = {"fired": "SYN out to {}", "up": "{} answered", "verified": "{} is proven"}

    def __init__(self, screen: Screen, whom: str, until: str, left_s: float) -> None:
        self._whom, self._until = whom, until
        self._drawing = screen.line(f"{self._counted(left_s)} ({until})")
        self._shown = ""
        self.has_fired = False

    def __enter__(self) -> Line:
        self._update = self._drawing.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._drawing.__exit__(*error)

    def count_down(self, left_s: float) -> None:
        """So many seconds are left until the instant."""
        if left_s >= _QUIET_S:
            self._show(self._counted(left_s), countdown(left_s))

    def on_event(self, event: Event) -> None:
        """Called at each step."""
        self.has_fired |= event.step == "fired"
        step = "up" if _is_stream(event) else event.step
        if words := self._STEPS.get(step):
            self._show(words.format(self._whom), step)

    def _counted(self, left_s: float) -> str:
        return f"meeting {self._whom} in {max(0.0, left_s):.0f} s"

    def _show(self, text: str, step: str) -> None:
        if text != self._shown:
            self._shown = text
            self._update(f"{text} ({self._until})", step)


def _is_stream(event: Event) -> bool:
    """Whether a SYN has become a stream, of which nothing is proven yet."""
    return isinstance(event, Answered) and event.attempt.outcome is Outcome.OPEN
