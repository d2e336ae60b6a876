"""What people type after an option, as values: ports, instants, durations, shares. Each raises ValueError with words.

And the options that several commands have.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from simopen.clock.instant import parse_duration, read_instant
from simopen.errors import SimopenError
from simopen.model.endpoint import check_port

T = TypeVar("T")
_MOST_DIGITS = 18


class UsageError(ValueError):
    """What was typed cannot be meant: the user erred, and not this program. The message says what to type instead."""


@contextlib.contextmanager
def judged() -> Iterator[None]:
    """Whatever the calls inside refuse was typed so. Only for calls that judge arguments and do nothing else.

    Raises: UsageError for their ValueError or TypeError; a SimopenError stays what it is.
    """
    try:
        yield
    except (UsageError, SimopenError):
        raise
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """argparse shows an ArgumentTypeError's message; of a ValueError it tells the type's name only."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def _is_whole(text: str) -> bool:
    """Digits as a keyboard has them, and no more than any number here needs: Python reads those of every script."""
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


def port(text: str) -> int:
    """A port number."""
    if not _is_whole(text):
        raise ValueError(f"a port is a number between 1 and 65535, not {text!r}")
    return check_port(int(text), "a port")


def window(text: str) -> float:
    """A duration longer than zero, in seconds."""
    if not (seconds := parse_duration(text)) > 0:
        raise ValueError("it must be longer than zero, as 10s is")
    return seconds


def or_off(text: str) -> float | None:
    """A duration longer than zero, in seconds; None for `off`."""
    return None if text.strip().lower() == "off" else window(text)


def hops(text: str) -> int:
    """A number of hops, as an IP packet's TTL counts them."""
    if not _is_whole(text) or not 1 <= int(text) <= 255:
        raise ValueError(f"hops are a number between 1 and 255, not {text!r}")
    return int(text)


def seed(text: str) -> int:
    """A whole number of whatever sign."""
    if not _is_whole(text.removeprefix("-")):
        raise ValueError(f"a seed is a whole number of at most {_MOST_DIGITS} digits, not {text!r}")
    return int(text)


def share(text: str) -> float:
    """A share from 0 to below 1, from `2%` or `0.02`."""
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        raise ValueError(f"{text!r} is no share: write 2% or 0.02") from None
    if not 0 <= value < 1:
        raise ValueError(f"a share is from 0 to below 100%, not {text}")
    return value


def count(text: str, most: int) -> int:
    """A whole number from 1 to `most`."""
    if not _is_whole(text) or not 1 <= int(text) <= most:
        raise ValueError(f"it must be a number from 1 to {most}, not {text!r}")
    return int(text)


STUN_TIMEOUT_S = 4.0
_AT = (
    "22:14:30 (UTC, nearest), 23:14:30+01:00, 2026-01-01T00:00:00Z, +1m30s, or next:10s (the next full ten seconds); "
    "this machine's clock is checked first"
)


def add_instant(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Declare `--at`. `otherwise`: what it is where it is left out."""
    told = f"the instant: {_AT}; left out: {otherwise}"
    parser.add_argument("--at", metavar="T", type=argument(read_instant), help=told)


def add_stun_servers(parser: argparse.ArgumentParser) -> None:
    """Declare `--stun`, as `nat.stun_tcp.parse_servers` takes it."""
    parser.add_argument(
        "--stun", metavar="HOST[:PORT]", action="append", help="ask this STUN server, over TCP; may be repeated"
    )


def add_timeout(parser: argparse.ArgumentParser, otherwise_s: float) -> None:
    """Declare `--timeout`, in seconds. `otherwise_s`: what it is where it is left out."""
    told = "wait for the servers' answers no longer than this (default: %(default)g s)"
    parser.add_argument("--timeout", metavar="S", type=argument(window), default=otherwise_s, help=told)


def add_punch(parser: argparse.ArgumentParser) -> None:
    """Declare what says from where a meeting's punch goes, and what it may do."""
    parser.add_argument(
        "--spray",
        action="store_true",
        help="where the two NATs leave nothing else, and the peer allows it, too, try very many ports, with up to 450 "
        "SYNs a second for 5 s (default: no)",
    )
    parser.add_argument(
        "--local-port", metavar="N", type=argument(port), help="meet from this port (default: a free one)"
    )
    add_stun_servers(parser)
    add_timeout(parser, STUN_TIMEOUT_S)


def add_time_servers(parser: argparse.ArgumentParser) -> None:
    """Declare `--ntp` and `--no-ntp`, as `clock.source.chosen` takes them."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--ntp", metavar="HOST[:PORT]", action="append", help="ask this NTP server; may be repeated")
    group.add_argument("--no-ntp", action="store_true", help="ask nobody: trust the kernel's word or the local clock")
