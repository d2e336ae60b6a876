"""A terminal that a test types at and reads: a pseudo-terminal, which controls the session of the program at it."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Sequence
from types import TracebackType

PATIENCE_S = 50.0
"""Below pytest's faulthandler_timeout, so that what was seen is told."""
# In a new session the terminal on standard error becomes its own: who starts a program has no argument for that.
_TAKING_IT = "import fcntl, os, sys, termios; fcntl.ioctl(2, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


def at_terminal(command: Sequence[str]) -> list[str]:
    """What to start in a new session, with a `Terminal`'s `fd` as standard error at least."""
    return [sys.executable, "-c", _TAKING_IT, *command]


class Terminal:
    """`fd` is the program's end, until `given`; `seen` what it has shown."""

    def __init__(self, columns: int = 80) -> None:
        self._ours, self.fd = os.openpty()
        self._is_given = False
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.given()
        os.close(self._ours)

    def given(self) -> None:
        """The program has its end: once it closes that, nobody has it open."""
        if not self._is_given:
            os.close(self.fd)
            self._is_given = True

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, words: str) -> str:
        """All that was seen, once `words` are there, wherever the lines are broken."""
        until_s = time.monotonic() + PATIENCE_S
        while words not in " ".join(self.seen.split()):
            assert self._more(until_s), f"no {words!r} in: {self.seen}"
        return self.seen

    def wait_for_match(self, pattern: str) -> str:
        """What the first group of `pattern` has, the last time that it occurs, once it does."""
        until_s = time.monotonic() + PATIENCE_S
        while not (found := re.findall(pattern, self.seen, re.MULTILINE)):
            assert self._more(until_s), f"no {pattern!r} in: {self.seen}"
        return str(found[-1])

    def read_to_the_end(self) -> str:
        """All that was seen, once the program has ended."""
        until_s = time.monotonic() + PATIENCE_S
        while self._more(until_s):
            pass
        return self.seen

    def _more(self, until_s: float) -> bool:
        """Whether there may be more; False at the end."""
        left_s = until_s - time.monotonic()
        assert left_s > 0, f"still running after {PATIENCE_S:.0f} s: {self.seen}"
        if not select.select([self._ours], [], [], left_s)[0]:
            return True
        try:
            chunk = os.read(self._ours, 65_536)
        except OSError:  # EIO: nobody has the other end open any more
            return False
        self.seen += chunk.decode(errors="replace").replace("\r\n", "\n")
        return bool(chunk)
