"""Tell the caller's `on_event` what happens, so that nothing it does can harm the punch.

Theory of operation: it is called at once, in the event loop, in the order of the steps. What it raises is logged the
first time, and the punch goes on. What it cannot be kept from is taking long: the loop waits.
"""

from __future__ import annotations

import asyncio
import inspect

from simopen import _logs
from simopen.model.event import Event, OnEvent

logger = _logs.PACKAGE


class Teller:
    """Calls `on_event` with each event; does nothing where there is none.

    Raises: TypeError where it cannot be called, or is a coroutine function, whose coroutine nobody would await.
    """

    __slots__ = ("_has_failed", "_on_event")

    def __init__(self, on_event: OnEvent | None) -> None:
        if on_event is not None and not callable(on_event):
            raise TypeError(f"on_event must be callable with an event, not {type(on_event).__name__}")
        if inspect.iscoroutinefunction(on_event):
            raise TypeError("on_event must be a function, not a coroutine function: it is called, not awaited")
        self._on_event = on_event
        self._has_failed = False

    def __bool__(self) -> bool:
        """Whether anybody listens: else an event need not even be made."""
        return self._on_event is not None

    def __call__(self, event: Event) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except (Exception, asyncio.CancelledError):  # its own, as nothing is awaited here
            if not self._has_failed:
                logger.exception("on_event failed at %r; the punch goes on", event.step)
            self._has_failed = True


NOBODY = Teller(None)
