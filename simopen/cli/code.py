"""Meeting by a code, for the commands: where the code and the rendezvous come from, and what is said meanwhile.

Theory of operation: a code is typed as an argument, at a prompt, in `SIMOPEN_CODE`, or comes through a file descriptor;
on the command line every user of the host can read it, which harms little, as it is good for one meeting. The
rendezvous is an option, `SIMOPEN_VIA`, or what was answered once. Who makes the code is shown the line for the peer,
and its QR code where the terminal has room. In a code's place may stand `@NAME`, of a peer that was met before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shlex
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from simopen.cli import key, known
from simopen.cli.arguments import UsageError, argument, judged
from simopen.cli.carry import carry, ended
from simopen.cli.code_prompt import VARIABLE, asked
from simopen.cli.code_prompt import typed as typed_at
from simopen.cli.console import Screen, print_json
from simopen.cli.interrupts import Blocking
from simopen.cli.qr import columns, qr
from simopen.errors import CodeError
from simopen.model.wording import quoted

if TYPE_CHECKING:
    from simopen.cli.console import Update
    from simopen.model.event import Event
    from simopen.model.report import Report
    from simopen.rendezvous.codes import Code
    from simopen.rendezvous.peers import KnownPeer

ASKED = "-"
"""As the code: ask for it."""
_PATIENCE_S = 20.0
_NOBODY = "nobody is there yet: is the code right, and not used before, and does the peer's command still run?"
_LONGEST = 400
_CODE = re.compile(r"[^\w]*[0-9０-９]{1,12}[^\w]*[^\W\d_]{2,14}([^\w]+[^\W\d_]{2,14}){0,23}[^\w]*")
_WORDS = re.compile(r"[^\W\d_]{2,14}([-\u2010-\u2015 ]+[^\W\d_]{2,14})+")


def _count(text: str) -> int:
    from simopen.rendezvous.codes import check_count

    if not (text.isascii() and text.isdecimal() and len(text) < 9):
        raise ValueError(f"not a number of words: {quoted(text)}")
    return check_count(int(text))


def _descriptor(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 9):
        raise ValueError(f"not a file descriptor: {quoted(text)}")
    try:
        os.fstat(int(text))  # now: later it may be one of this program's own
    except (OSError, OverflowError) as error:
        raise ValueError(f"this program was given no file descriptor {text}") from error
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what says where and by what to meet; the code itself is the command's own argument."""
    parser.add_argument(
        "--via",
        metavar="URL",
        help="the rendezvous, the same on both sides: wss:// or ws:// of a mailbox server, nats:// (default: "
        "SIMOPEN_VIA, or what was answered before)",
    )
    parser.add_argument(
        "--words", metavar="N", type=argument(_count), default=None, help="make a code of so many words (default: 2)"
    )
    parser.add_argument(
        "--code-fd", metavar="N", type=argument(_descriptor), help="read the code from this file descriptor, to its end"
    )
    parser.add_argument(
        "--secret-file",
        metavar="F",
        help="instead of a code's words: 16 random bytes or more, or their hexadecimal digits, in this file, which "
        "both sides have; CODE is then the name of the room",
    )
    known.add_argument(parser)
    parser.add_argument(
        "--allow-plain",
        action="store_true",
        help="let a rendezvous on another host be spoken to in the clear: whoever is on the way sees who meets, and "
        "when",
    )


def add_code(parser: argparse.ArgumentParser) -> None:
    """Declare CODE, for a command on either side of which it may be left out."""
    parser.add_argument(
        "code",
        metavar="CODE|@NAME",
        nargs="?",
        help="the code that the peer's command shows, or a peer that was met before (default: a new code is made)",
    )


def is_code(text: str) -> bool:
    """Whether this is meant as a code, right or wrong, or as a peer's name, and not as a ticket."""
    plain = text.strip()[:_LONGEST]
    if plain.startswith(known.AT):
        return True
    return bool(_CODE.fullmatch(plain) or _WORDS.fullmatch(plain)) and "simopen" not in plain


def is_meant(options: argparse.Namespace, typed: str | None, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to meet by a code. `typed`: the argument, which may be a ticket."""
    if typed is not None:
        return typed == ASKED or options.secret_file is not None or is_code(typed)
    from simopen.rendezvous.where import named

    named_ways = (options.words, options.code_fd, options.secret_file)
    with judged():
        return any(each is not None for each in named_ways) or VARIABLE in environment or named(options.via) is not None


def require_input(options: argparse.Namespace, *, sends: bool = False) -> None:
    """Raises: UsageError where the secret would be read from standard input, which carries the data.

    The code may be, and then there is nothing to send: where there is to be something (`sends`), it may not either.
    """
    key.require_input(options.secret_file, "secret")
    if sends:
        key.require_input(options.code_fd, "code")


def given(options: argparse.Namespace, typed: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The code, or with a secret the room's name; None where a new one is to be made.

    Raises: UsageError for two of them, or none where there should be; CodeError.
    """
    if typed is not None and options.code_fd is not None:
        raise UsageError("leave out CODE or --code-fd: each says what the code is")
    code = environment.get(VARIABLE) if typed is None else typed
    if options.code_fd is not None:
        code = _read(options.code_fd)
    if code == ASKED:
        code = asked(options)
    if code is not None and options.words is not None:
        raise UsageError("leave out --words: it is for a new code, and one is given")
    return code


def _read(descriptor: int) -> str:
    found = b""
    try:
        with Blocking():
            while len(found) <= _LONGEST and (more := os.read(descriptor, _LONGEST + 1)):
                found += more
    except OSError as error:
        raise UsageError(f"the code cannot be read from descriptor {descriptor}: {error.strerror}") from error
    if not (text := found[:_LONGEST].decode("utf-8", "replace").strip()):
        raise CodeError(f"there is no code in file descriptor {descriptor}")
    return text


def named_rendezvous(
    options: argparse.Namespace, environment: Mapping[str, str] = os.environ, file: Path | None = None
) -> str | None:
    """Its URL; None where nobody has named one. Raises: UsageError for what is none, before anything takes its time."""
    from simopen.rendezvous import where
    from simopen.signalling.via import read_via

    with judged():
        found = where.named(options.via, environment, file)
    try:
        if found is not None:
            read_via(found, allow_plain=options.allow_plain)
    except ValueError as error:
        who = where.VARIABLE if where.VARIABLE in environment else file or where.path()
        raise UsageError(str(error) if options.via is not None else f"{who}: {error}") from error
    return found


def rendezvous(options: argparse.Namespace, screen: Screen) -> str:
    """Its URL; where nobody has named one, it is asked for once, at a terminal, and remembered.

    Raises: UsageError for what is none, and, with the ways to name one, where there is nobody to ask.
    """
    from simopen.rendezvous import where

    if (found := named_rendezvous(options)) is not None:
        return found
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(where.WAYS)
    screen.say(where.WAYS)
    via = typed_at("The rendezvous (Enter: magic-wormhole's public server): ").strip() or where.PUBLIC
    from simopen.signalling.via import read_via

    with judged():
        read_via(via, allow_plain=options.allow_plain)
    try:
        screen.say(f"simopen: remembered in {where.remember(via)}")
    except OSError as error:
        screen.note(f"the rendezvous could not be remembered: {error.strerror}")
    return via


async def met(
    options: argparse.Namespace,
    screen: Screen,
    code: str | None,
    line: str,
    *,
    channel: str,
    more: str = "",
    purpose: tuple[str, str] | None = None,
    limit: int | None = None,
) -> tuple[StreamReader, StreamWriter, Report]:
    """The streams of a meeting by a code, or by a new one, which is shown; and how they met.

    `options`: with what `add_arguments` and `add_punch` declare. `code`: as `given` gives it. `line`: what the peer has
    to type, with `{}` for the code; empty where this side takes a code, and makes none: then it is asked for. `more`:
    what it has to put before the code by itself, in words.
    `channel`: what the streams are for, where a known peer is met. `purpose`: this command, and the peer's, where
    that is not the same.

    Raises: UsageError, CodeError, PeerError; and as `simopen.meet`.
    """
    from simopen.net.streams import STREAM_LIMIT
    from simopen.rendezvous.api import meeting
    from simopen.rendezvous.codes import WORDS, parse_code

    is_typed = code is None and not line
    if is_typed:
        code = asked(options)
    fits = purpose or (f"simopen {channel}",) * 2
    if (peer := known.named(options, code)) is not None:
        return await _met_again(options, screen, peer, channel, fits=fits, limit=limit or STREAM_LIMIT)
    known.require_name(options)
    secret = _secret(options, screen, code)
    if is_typed and code and secret is None and _is_doubtful(parse_code(code)):  # a slip would cost both sides the code
        code = asked(options, "Code (Enter: as it is): ") or code
        secret = _secret(options, screen, code)
    via = rendezvous(options, screen)
    with connecting(screen) as update, judged(), Told(update, screen, has_code=bool(code) and secret is None) as events:
        async with meeting(
            code,
            words=options.words or WORDS,
            via=via,
            secret=secret,
            purpose=fits,
            allow_plain=options.allow_plain,
            limit=limit or STREAM_LIMIT,
            on_event=events.on_event,
            **punch(options),
        ) as found:
            if code is None:
                _show(found.code, line, via, options, screen, more=more)
            reader, writer = await found.streams()
    report = told(writer, screen, f"the one who has the same {'code' if secret is None else 'secret'}")
    await known.remembered(options, screen, writer, via)
    return reader, writer, report


def punch(options: argparse.Namespace) -> dict[str, Any]:
    """What `add_punch` declares, as `simopen.meet` takes it."""
    return {
        "local": options.local_port,
        "servers": options.stun or None,
        "timeout": options.timeout,
        "spray": options.spray,
    }


def _secret(options: argparse.Namespace, screen: Screen, code: str | None) -> bytes | None:
    from simopen.rendezvous.api import checked_secret, room_named
    from simopen.rendezvous.codes import WORDS, parse_code, unlisted

    with judged():
        if options.secret_file is not None:
            if code is not None:
                room_named(code)
            return checked_secret(key.key_of(key.in_file(options.secret_file, screen)))
        for wrong, meant in () if code is None else unlisted(parse_code(code)):
            hint = f"; is it {quoted(meant)}?" if meant else ""
            screen.note(f"{quoted(wrong)} is no word of the list that codes are made of{hint}")
        if code is not None and len(parse_code(code).words) < WORDS:
            screen.note(f"codes have {WORDS} words, unless one was asked for with fewer: is that all of it?")
    return None


def _is_doubtful(code: Code) -> bool:
    """Whether something of it looks mistyped, or left out."""
    from simopen.rendezvous.codes import WORDS, unlisted

    return len(code.words) < WORDS or bool(unlisted(code))


async def _met_again(
    options: argparse.Namespace, screen: Screen, peer: KnownPeer, channel: str, *, fits: tuple[str, str], limit: int
) -> tuple[StreamReader, StreamWriter, Report]:
    where = known.place(options, peer, channel)
    with connecting(screen) as update, judged():
        on_event = Told(update, screen, peer.name).on_event
        reader, writer = await where.meet(purpose=fits, limit=limit, on_event=on_event, **punch(options))
    return reader, writer, told(writer, screen, known.who(peer))


def told(writer: StreamWriter, screen: Screen, whom: str) -> Report:
    """How they met, after it is said."""
    report: Report = writer.get_extra_info("simopen")
    for note in report.notes:
        screen.note(note)
    screen.say(report.summary())
    screen.say(f"simopen: proven: {whom}")
    return report


@contextlib.contextmanager
def connecting(screen: Screen, text: str = "connecting to the rendezvous ...") -> Iterator[Update]:
    """A live line that begins so: a step of its own, so that the next one is said where nothing is redrawn."""
    with screen.line(text) as update:
        update(text, "connecting")
        yield update


class Told:
    """The live line, made of what happens. `peer`: the name of a known one that is waited for.

    `has_code`: whether this side was given the code, so that its peer is there as a rule. Whoever has waited for
    `patience_s` then, and has not left this, is told what may be the matter.
    """

    def __init__(
        self,
        update: Update,
        screen: Screen,
        peer: str | None = None,
        *,
        has_code: bool = False,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self.update, self._screen, self._peer = update, screen, peer
        self._has_code, self._patience_s = has_code, patience_s
        self._hint: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._hint is not None:
            self._hint.cancel()

    def on_event(self, event: Event) -> None:
        if self._hint is not None and event.step != "in room":
            self._hint.cancel()
        if event.step == "in room" and self._has_code and self._hint is None:
            self._hint = asyncio.get_running_loop().call_later(self._patience_s, self._screen.note, _NOBODY)
        if (motd := getattr(event, "motd", None)) is not None:
            self._screen.say(f"the rendezvous says: {' '.join(motd.split())}")  # one line, in nobody else's voice
        if event.step == "in room" and self._peer is not None:
            self._screen.note(f"waiting for {self._peer}, which comes only if it has remembered this computer, too")
        if event.step == "session back":
            self._screen.say(f"simopen: {event}")
        elif event.step in {"in room", "peer here", "round", "up", "verified", "session waits"}:
            is_known = self._peer is not None and event.step == "peer here"
            step = f"{event.step} {getattr(event, 'number', '')}"  # each round is one
            self.update(f"{f'{self._peer} is here' if is_known else event} ...", step)


def _show(code: str, line: str, via: str, options: argparse.Namespace, screen: Screen, *, more: str) -> None:
    both = " --allow-plain" * options.allow_plain + " --spray" * options.spray
    secret = " --secret-file F" * (options.secret_file is not None)
    whole = line.format(f"--via {shlex.quote(via)}{both}{secret} {code}")
    if options.json:
        print_json({"code": code, "line": whole})
    named = "--remember and a name for this computer" * (options.remember is not None)
    anew = " and ".join(filter(None, (more, named)))
    put = f", with {anew} before the code" * bool(anew)
    screen.say(f"The code is {code}. On the other computer, type this{put}:\n")
    screen.verbatim(whole)
    for row in qr(whole, sys.stderr.encoding or "ascii", columns()):
        screen.verbatim(row)
    screen.say("")


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """`simopen meet` by a code. Returns the exit status. Raises: as `met`."""
    if options.stdio is not None:
        raise UsageError("leave out --stdio FILE: it is for a ticket, and this meets by a code")
    require_input(options)
    began_s = time.monotonic()
    reader, writer, report = await met(
        options, screen, given(options, options.ticket), "simopen meet {}", channel="meet"
    )
    if sys.stdin.isatty():
        screen.say("simopen: what you type reaches your peer; Ctrl-D ends")
    carried = await carry(reader, writer, screen)
    return ended(options, screen, {"report": report.as_dict()}, carried, time.monotonic() - began_s)
