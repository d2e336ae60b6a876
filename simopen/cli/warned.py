"""What the package logs as a warning, said to whoever runs a command, though `-v` was not asked for."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator

from simopen.cli.console import Screen


@contextlib.contextmanager
def warned(options: argparse.Namespace, screen: Screen, logger: logging.Logger) -> Iterator[None]:
    """While inside: what this logger and its children warn of is said; where `-v` was asked for, that says it."""
    if options.verbose:
        yield
        return
    handler = _Said(screen)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Said(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.say(f"simopen: warning: {record.getMessage()}")
