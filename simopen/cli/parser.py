"""argparse's parser, as this program's users meet it: whatever was typed, it complains in a sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from simopen import __version__
from simopen.cli.console import answer, fitted

_LONGEST_HALF = 300  # characters
_NO_OPTION = "\0"  # before a word that is none, whatever it looks like: no argument of a program's has it


class Parser(argparse.ArgumentParser):
    """Complains in a sentence that fits a screen, whatever was typed, and that a terminal does not obey."""

    _is_within = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's own; and a command's words and options may stand in any order: `connect HOST --at T PORT`.

        What comes after `--` is no option. Of words in any order, argparse itself forgets that.
        """
        if self._is_within or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._is_within = True
        try:
            return self.parse_known_intermixed_args(_ended_options(sys.argv[1:] if args is None else args), namespace)
        finally:
            self._is_within = False

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, broken between words where it is a terminal that reads it."""
        self.print_usage(sys.stderr)
        said = _abridged(message.replace(_NO_OPTION, ""))
        self.exit(2, fitted(f"{self.prog}: error: {said}", sys.stderr) + "\n")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """As argparse's own, which before Python 3.13 takes the two dashes of `--at=--` for the end of the options."""
        if action.option_strings and arg_strings == ["--"]:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        return super()._get_value(action, arg_string.removeprefix(_NO_OPTION))

    def print_help(self, file: Any = None) -> None:
        """Raises: OSError where it cannot be written; argparse's own says nothing then, and ends with status 0."""
        answer(self.format_help(), end="", file=file)


class Version(argparse.Action):
    """As argparse's own, and raises as `Parser.print_help` does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        answer(f"simopen {__version__}")
        parser.exit()


def _ended_options(words: Sequence[str]) -> list[str]:
    """Without `--`, and what comes after it marked."""
    if "--" not in words:
        return list(words)
    end = list(words).index("--")
    return [*words[:end], *(_NO_OPTION + each for each in words[end + 1 :])]


def _abridged(text: str) -> str:
    """Without the middle, where it is long: what was typed stands there, and at the end what to type instead."""
    return text if len(text) <= 2 * _LONGEST_HALF else f"{text[:_LONGEST_HALF]} ... {text[-_LONGEST_HALF:]}"
