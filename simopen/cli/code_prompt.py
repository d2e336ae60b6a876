"""What is typed at the terminal in a code's place: the code, or the line that the peer's command shows."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterator

from simopen.cli.arguments import UsageError
from simopen.cli.interrupts import Blocking
from simopen.model.wording import quoted

VARIABLE = "SIMOPEN_CODE"
_NOT_TAKEN = {"--allow", "--secret-file"}
"""A permission is given by who types it; and whose file it is nobody else knows."""


def asked(options: argparse.Namespace, prompt: str = "Code: ") -> str:
    """The code, typed at the terminal; Tab completes its words. It may be the whole line that the peer's command shows.

    Raises: UsageError where there is no terminal; or the line names another rendezvous than this command was given.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            f"there is no terminal to ask for the code at: give it as CODE, in {VARIABLE}, or by --code-fd"
        )
    with _completing():
        return meant(typed(prompt), options)


def meant(line: str, options: argparse.Namespace) -> str:
    """The code that is typed; of the peer's whole line, the rest goes to the options. Raises: UsageError."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    if "simopen" not in words:
        return " ".join(line.split())
    if "--via" in words[:-2]:
        via = words[words.index("--via") + 1]
        if options.via not in (None, via):
            raise UsageError(
                f"that line names the rendezvous {quoted(via)}, and this command {quoted(options.via)}: leave out --via"
            )
        options.via = via
    if untaken := [each for each in words if each in _NOT_TAKEN]:
        raise UsageError(f"that line has {untaken[0]}, which is not taken over from here: type all of it as a command")
    options.allow_plain |= "--allow-plain" in words
    options.spray |= "--spray" in words
    return words[-1]


def typed(prompt: str) -> str:
    """A line. Raises: UsageError where there is none."""
    try:
        with Blocking(), _on_a_line_of_its_own():
            if sys.stdout.isatty():
                return input(prompt)
            print(prompt, end="", file=sys.stderr, flush=True)  # standard output carries the data
            return input()
    except EOFError as error:
        raise UsageError("nothing was typed") from error


@contextlib.contextmanager
def _on_a_line_of_its_own() -> Iterator[None]:
    """What is said after a prompt that nobody has answered does not stand behind it."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the terminal was closed
            print(file=sys.stderr, flush=True)
        raise


@contextlib.contextmanager
def _completing() -> Iterator[None]:
    try:
        import readline
    except ImportError:  # a Python without it: nothing is completed
        yield
        return
    from simopen.rendezvous.codes import completed

    def complete(text: str, state: int) -> str | None:
        found = completed(text)
        return found[state] if state < len(found) else None

    before = readline.get_completer(), readline.get_completer_delims()
    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n")
    readline.set_auto_history(False)
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_completer(before[0])
        readline.set_completer_delims(before[1])
        readline.set_auto_history(True)
