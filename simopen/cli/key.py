"""The key that both sides share, from a file, the environment or a terminal: never from where others can read it.

Theory of operation: a key is bytes. Text is one, too, without the line's end that an editor or `echo` put behind it;
where it is hexadecimal digits alone, as `simopen.new_key().hex()` gives them, it is the bytes that they stand for. So
the same key is meant by a file of bytes on one side and by its digits on the other. What it says is in no message.

What stands on the command line, every user of the host can read (ps): that works, and is warned of.
"""

from __future__ import annotations

import argparse
import getpass
import os
import re
import stat
from collections.abc import Mapping

from simopen.cli.arguments import UsageError, judged
from simopen.cli.console import Screen
from simopen.cli.interrupts import Blocking
from simopen.link.session import checked
from simopen.model.wording import quoted

ASKED = ""
"""What `--key` is where nothing follows it."""
_LONGEST = 4096
_DIGITS = re.compile(rb"[0-9a-fA-F]+")
PLAIN = (
    "plain: not encrypted, and whoever answers there is taken for your peer; a key that both have, as --key-file F, "
    "proves who it is"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--key-file`, `--key-env` and `--key`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--key-file",
        metavar="F",
        help="encrypt, and prove that the peer has the same key: 16 random bytes or more, or their hexadecimal digits, "
        "in this file",
    )
    group.add_argument("--key-env", metavar="NAME", help="the same, from this environment variable")
    group.add_argument(
        "--key",
        metavar="KEY",
        nargs="?",
        const=ASKED,
        help="the same, typed: without KEY it is asked for and not shown; with it, every user of this host can read it",
    )


def is_given(options: argparse.Namespace) -> bool:
    """Whether one of them was typed."""
    return (options.key_file, options.key_env, options.key) != (None, None, None)


def require_host(options: argparse.Namespace) -> None:
    """Raises: UsageError where `--key` was to ask, and has taken the host for the key, so that a port stands there."""
    if options.key not in (None, ASKED) and options.port is None and options.host.isdigit():
        raise UsageError(
            "HOST is missing: what follows --key is taken for the key; to be asked for one, put --key last: "
            "`simopen connect HOST PORT --key`"
        )


def told(options: argparse.Namespace, screen: Screen, environment: Mapping[str, str] = os.environ) -> bytes | None:
    """The key that the options mean; None where they name none. `screen`: where it is said how one is at risk.

    Raises: UsageError where there is none in that place, or it is none.
    """
    if not is_given(options):
        return None
    require_input(options.key_file, "key")
    with judged():
        return checked(key_of(_given(options, screen, environment)))


def require_input(source: str | int | None, what: str) -> None:
    """Raises: UsageError where this file, or descriptor, is standard input, which carries the data."""
    try:
        given = os.fstat(0)
        is_same = source is not None and os.path.samestat(os.stat(source), given)
    except (OSError, ValueError):  # which is told where it is read
        return
    if is_same and not stat.S_ISCHR(given.st_mode):  # a terminal gives both, one after the other, and /dev/null none
        raise UsageError(f"standard input cannot be both the {what} and the data")


def key_of(given: bytes) -> bytes:
    """What was given, without a text's line end; the bytes that hexadecimal digits stand for."""
    text = given.rstrip(b"\r\n") if _is_text(given) else given
    if _DIGITS.fullmatch(text) and len(text) % 2 == 0:
        return bytes.fromhex(text.decode())
    return text


def _is_text(given: bytes) -> bool:
    """Random bytes, of which the last may be a line's end, are no UTF-8 or hold control characters."""
    try:
        return given.rstrip(b"\r\n").decode().isprintable()
    except UnicodeDecodeError:
        return False


def _given(options: argparse.Namespace, screen: Screen, environment: Mapping[str, str]) -> bytes:
    if options.key_file is not None:
        return in_file(options.key_file, screen)
    if options.key_env is not None:
        return _in_environment(options.key_env, environment)
    if options.key is ASKED or options.key == ASKED:
        return _typed()
    screen.note(
        "the key is on the command line, where every user of this host can read it (ps), and your shell keeps it: use "
        "--key-file, --key-env, or --key alone, which asks for it"
    )
    return str(options.key).encode("utf-8", "surrogateescape")


def in_file(path: str, screen: Screen) -> bytes:
    """What is in that file, as `key_of` takes it. Raises: UsageError."""
    try:
        with Blocking(), open(path, "rb") as file:  # a pipe may be silent
            found = os.fstat(file.fileno())
            given = file.read(_LONGEST + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"the key's file {quoted(path)} cannot be read: {why}") from error
    if len(given) > _LONGEST:
        raise UsageError(f"{quoted(path)} holds more than {_LONGEST} bytes: that is no key")
    if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        screen.note(f"others than its owner can get at {quoted(path)} (mode {mode:o}): chmod 600 keeps it secret")
    return given


def _in_environment(name: str, environment: Mapping[str, str]) -> bytes:
    if not (value := environment.get(name, "")):
        raise UsageError(f"no key is in the environment: {quoted(name)} is not set, or empty (export it)")
    return value.encode("utf-8", "surrogateescape")


def _typed() -> bytes:
    """Asked for at the terminal, as standard input carries the data."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError as error:
        raise UsageError("there is no terminal to ask for the key at: use --key-file or --key-env") from error
    try:
        return getpass.getpass("Key (not shown): ").encode("utf-8", "surrogateescape")
    except EOFError as error:
        raise UsageError("no key was typed") from error
