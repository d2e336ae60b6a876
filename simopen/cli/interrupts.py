"""Ctrl-C and SIGTERM in a program of this package, from its first moment to its last: one line, and the status of each.

Theory of operation. While a command runs, a signal cancels it, and it closes what it has open. Before that (the modules
of a command take 0.2 s to load) and after it nothing is open, and the process ends at once. Nothing is raised there: a
KeyboardInterrupt in the middle of an import, or of the interpreter's own end, is a traceback that nobody can catch.
A signal that the program was started to ignore (`nohup`, a shell's `&`) stays ignored.

It loads nothing but `signal`: what is loaded before a handler is there is time without one.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # `typing` takes 5 ms to load
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable
    from types import FrameType
    from typing import NoReturn, Self

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):  # not on Windows; a terminal that was closed
    WORDS[signal.SIGHUP] = "hung up"
_SHOW_CURSOR = b"\x1b[?25h"  # DECTCEM: a live line may have hidden it


def leave(number: int, frame: FrameType | None = None) -> NoReturn:
    """End the process at once, and say why; a signal handler."""
    line = f"simopen: {WORDS[signal.Signals(number)]}\n".encode()
    try:
        os.write(2, _SHOW_CURSOR + line if os.isatty(2) else line)
    except OSError:  # nobody reads it any more
        pass
    finally:
        os._exit(128 + number)


def leave_at_once() -> None:
    """Whatever comes from now on ends the process at once."""
    for number in _heeded():
        signal.signal(number, leave)


def _heeded() -> Iterable[signal.Signals]:
    return [number for number in WORDS if signal.getsignal(number) is not signal.SIG_IGN]


class Blocking:
    """While inside, a signal raises where it comes: for what blocks the loop's own thread, and waits for a person or a
    pipe. Without an effect but in the main thread."""

    def __init__(self) -> None:
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        try:
            for number in _heeded():
                self._before[number] = signal.signal(number, self._cut_short)
        except ValueError:  # not the main thread
            self._before.clear()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _cut_short(self, number: int, frame: FrameType | None) -> NoReturn:
        ending = getattr(self._before.get(number), "__self__", None)
        if isinstance(ending, Ending):
            ending.number = number  # what the program's status is made of
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        from asyncio import CancelledError

        raise CancelledError


class Ending:
    """While inside, the first signal cancels the task that `watch` was told of, and the next one ends the process.

    Without an effect but in the main thread, where alone Python handles signals.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that came; None where none did."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[object] | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        try:
            for number in _heeded():
                self._before[number] = signal.signal(number, self._come)
        except ValueError:  # not the main thread
            self._before.clear()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def watch(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[object]) -> None:
        """This task is what a signal cancels; at once, where one has come."""
        self._loop, self._task = loop, task
        if self.number is not None:
            task.cancel()

    def _come(self, number: int, frame: FrameType | None) -> None:
        over = self._task is not None and self._task.done()
        if over or self.number is not None:
            leave(number)
        self.number = number
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
