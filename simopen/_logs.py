"""The package's loggers: `simopen` and its children. INFO tells the story, DEBUG every shot; nothing is said unasked.

Theory of operation: without a handler of the program's own, a warning would reach standard error; a NullHandler keeps
it off there. Nothing is logged in the scheduler's thread, nor from the handover to it until a stream is up or the
window is over: to format a record and to write it takes the GIL for a while, and a shot would wait. What happened
meanwhile is told afterwards, from the report.
"""

from __future__ import annotations

import logging

PACKAGE = logging.getLogger("simopen")
PACKAGE.addHandler(logging.NullHandler())


def logger(name: str) -> logging.Logger:
    """The package's logger of that name: `simopen.clock` for "clock"."""
    return PACKAGE.getChild(name)
