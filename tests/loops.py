"""The loops that tests run on: which, where not on both; which this is; and uvloop's, made to end."""

from __future__ import annotations

import asyncio
import warnings

import pytest
import uvloop

ONE_LOOP = pytest.mark.asyncio(loop_factories=["asyncio"])
"""What is tested runs in a process of its own, on a loop of its own choice: the test's loop only waits for it."""


class EndingLoop(uvloop.Loop):
    """One whose end comes: where a warning is an error, uvloop's stops closing what a failed test has left open, and
    waits for it for ever."""

    def close(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # `nothing_left` tells of it
            super().close()


def this_loop() -> str:
    return "uvloop" if isinstance(asyncio.get_running_loop(), uvloop.Loop) else "asyncio"
