"""The command `simopen`, which is `python -m simopen`: Ctrl-C is seen to first, since the rest takes 0.2 s to load."""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False  # `typing` takes 5 ms to load
if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> int:
    """Run the command that was typed, as a process of its own. Returns the exit status."""
    try:
        from simopen.cli.interrupts import leave_at_once

        leave_at_once()
    except KeyboardInterrupt:  # in these 2 ms
        print("simopen: interrupted", file=sys.stderr)
        return 130
    return _loaded()()


def _loaded() -> Callable[[], int]:
    """The command line's `main`. What is loaded stays: to look for garbage in it took an eighth of a start."""
    gc.disable()
    from simopen.cli.main import main

    gc.freeze()  # nor is it looked through later, at the interpreter's end least of all
    gc.enable()
    return main


if __name__ == "__main__":
    sys.exit(main())
