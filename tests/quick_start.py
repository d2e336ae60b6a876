"""Imported first by the programs that tests start by the hundred: what they load, no garbage collector looks through.

To do so took a quarter of a start.
"""

from __future__ import annotations

import gc

gc.disable()


def loaded(*_: object) -> None:
    """All is, with what is named here. From now on the collector sees to what comes after it."""
    gc.freeze()
    gc.enable()
