"""Ctrl-C and SIGTERM at moments that a test can name: an import, the interpreter's end, a command that is stuck."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
# Signals itself when the module named is looked for, then goes on as `simopen ARGUMENTS`.
WHILE_LOADING = """
import os, sys
number, module, *sys.argv[1:] = sys.argv[1:]
class Signals:
    def find_spec(self, name, *_):
        if name == module:
            os.kill(os.getpid(), int(number))
sys.meta_path.insert(0, Signals())
from simopen.__main__ import main
sys.exit(main())
"""
AT_THE_END = """
import atexit, os, sys
number, *sys.argv[1:] = sys.argv[1:]
atexit.register(os.kill, os.getpid(), int(number))
from simopen.__main__ import main
sys.exit(main())
"""
# Says at its end how many objects the garbage collector leaves alone, and whether it collects the others.
COLLECTING = """
import atexit, gc, sys
atexit.register(lambda: print(gc.get_freeze_count(), gc.isenabled(), file=sys.stderr))
from simopen.__main__ import main
sys.exit(main())
"""
# A command that is stuck in the loop's thread, where it cannot be cancelled.
STUCK = """
import asyncio, os, signal, sys, time
from simopen.cli import interrupts
interrupts.leave_at_once()

async def stuck():
    ending.watch(asyncio.get_running_loop(), asyncio.current_task())
    print("stuck", flush=True)
    while ending.number is None:
        time.sleep(0.01)
    print("heard", flush=True)
    while True:
        time.sleep(1)

with interrupts.Ending() as ending:
    asyncio.run(stuck())
"""


def ended(code: str, *arguments: object) -> tuple[int, str]:
    """The status of a program, and what it said."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def says(number: signal.Signals) -> tuple[int, str]:
    return 128 + number, f"simopen: {SIGNALS[number]}\n"


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("simopen.cli.main", ["clock"]),
        ("asyncio", ["clock"]),
        ("enum", ["clock"]),
        ("simopen.holepunch.api", ["self", "9"]),
        ("simopen.lab.nat.presets", ["lab", "--left", "home"]),
        ("uvloop", ["self", "9"]),
    ],
)
def test_while_modules_are_loaded(number: signal.Signals, module: str, arguments: Sequence[str]) -> None:
    """Some are loaded before there is a handler, some by the command line, some by a command's start."""
    status, said = ended(WHILE_LOADING, int(number), module, *arguments)
    if module == "enum":  # `signal` itself loads it
        assert (status, "Traceback" in said) == ((130, False) if number is signal.SIGINT else (-number, False))
    elif module in {"uvloop", "simopen.holepunch.api"}:
        assert (status, said) == (128 + number, f"simopen: {SIGNALS[number]}; everything is closed\n")
    else:
        assert (status, said) == says(number)


def test_what_is_loaded_is_looked_through_for_garbage_by_nobody_and_what_comes_after_it_is() -> None:
    status, said = ended(COLLECTING, "lab", "--list")
    frozen, collects = said.split()
    assert (status, int(frozen) > 10_000, collects) == (0, True, "True")


@pytest.mark.parametrize("number", SIGNALS)
def test_at_the_interpreters_end(number: signal.Signals) -> None:
    assert ended(AT_THE_END, int(number), "lab", "--list") == says(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_what_the_first_cannot(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(number)
        assert process.stdout.readline() == "heard\n"  # else the two might be taken for one
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == says(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals) -> None:
    """As `nohup` does it, and a shell's `&` in a script."""
    ignoring = f"import signal; signal.signal({int(number)}, signal.SIG_IGN)\n"
    assert ended(ignoring + WHILE_LOADING, int(number), "uvloop", "lab", "--list") == (0, "")
