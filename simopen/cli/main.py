"""The command line: `simopen send`, `receive`, `pipe`, `meet`, `connect`, `clock`, `nat`, `doctor`, `self`, `demo`, ...

Theory of operation: each command is one coroutine over the public calls, in a module of its name that declares its
arguments, too (`self` is `connect_self.py`). What is typed is read by `arguments.py`. Standard output carries the
stream's data, or the answer of `clock`, `nat`, `doctor`, `demo`, `lab` and `serve`; what else is said to people goes to
standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator

from simopen import _logs
from simopen.cli import (
    arguments,
    clock,
    completion,
    connect,
    connect_self,
    doctor,
    forward,
    lab,
    meet,
    nat,
    peers,
    pipe,
    receive,
    send,
    serve,
)
from simopen.cli.arguments import UsageError, argument
from simopen.cli.console import USUAL_WIDTH, Screen, answer, print_json, wrapped, write_in_any_encoding
from simopen.cli.interrupts import WORDS, Ending
from simopen.cli.parser import Parser, Version
from simopen.clock.instant import parse_duration
from simopen.errors import ClockError, CodeError, PeerError, PunchError, SimopenError, TicketError
from simopen.model.report import Diagnosis
from simopen.model.server import Heard
from simopen.model.wording import shortened
from simopen.net.os_errors import reason
from simopen.net.sockets import make_room

_LONGEST_BUG = 300  # characters
_STATUS = "exit status: 0 done, 1 {}, 2 bad usage, 129 hung up, 130 interrupted, 143 terminated"
_NO_STREAM = "no stream or a broken one"
# What status 1 means.
_FAILURES = {
    "send": "not all is there",
    "receive": "not all is here",
    "pipe": "no stream, or one side lacks something",
    "forward": "no stream or a broken one, or a port or target that cannot be had",
    "meet": _NO_STREAM,
    "connect": _NO_STREAM,
    "clock": "nobody could be believed",
    "nat": "no server answered",
    "doctor": "something fails",
    "self": _NO_STREAM,
    "demo": _NO_STREAM,
    "lab": "not every run connected",
    "peers": "it cannot be written",
    "completion": "it cannot be written",
    "serve": "it cannot serve",
}
_EXAMPLES = {
    "send": send.EXAMPLE,
    "receive": receive.EXAMPLE,
    "pipe": pipe.EXAMPLE,
    "forward": forward.EXAMPLE,
    "connect": connect.EXAMPLE,
    "meet": meet.EXAMPLE,
    "nat": nat.EXAMPLE,
    "peers": peers.EXAMPLE,
    "lab": lab.EXAMPLES,
    "completion": completion.EXAMPLE,
    "serve": serve.EXAMPLE,
}
_SECONDS = "S: seconds, or 250ms, 2m, 1h\n"


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit status."""
    _have_standard_streams()
    write_in_any_encoding(sys.stdout, sys.stderr)
    try:
        options = _parser().parse_args(argv)  # reading NATs loads the lab, which takes its time
    except KeyboardInterrupt:
        print("simopen: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        return _unwritten(error)
    with _logging(options.verbose):
        return _run_to_the_end(options, Screen(quiet=options.json, live=not options.verbose))


@contextlib.contextmanager
def _logging(verbose: int) -> Iterator[None]:
    """While inside: what this package logs goes to standard error, as far as is wanted; what others log, nowhere."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(name)s: %(message)s", "%H:%M:%S"))
    nowhere, level = logging.NullHandler(), _logs.PACKAGE.level
    logging.getLogger().addHandler(nowhere)  # else a warning of asyncio's would be printed
    if verbose:
        _logs.PACKAGE.addHandler(handler)
        _logs.PACKAGE.setLevel(logging.INFO if verbose == 1 else logging.DEBUG)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(nowhere)
        _logs.PACKAGE.removeHandler(handler)
        _logs.PACKAGE.setLevel(level)


def _run_to_the_end(options: argparse.Namespace, screen: Screen) -> int:
    try:
        make_room(options.room)
        status = _run(options.command(options, screen))
        answer("", end="")
    except _EXPECTED as error:
        return _failed(options, screen, error)
    return status


def _have_standard_streams() -> None:
    """Where one was closed (`<&-`), the next socket would get its number and be taken for it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - until the end


def _unwritten(error: OSError) -> int:
    """Of a help or a version that cannot be written; whoever closes a pager has seen enough, and is told nothing."""
    _let_go_of_full_streams()
    if not isinstance(error, BrokenPipeError):
        Screen().say(f"simopen: {reason(error)}")
    return 1


def _let_go_of_full_streams() -> None:
    """Or the interpreter would complain at its end, when it flushes what nobody takes."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)


def _run(command: Coroutine[object, object, int]) -> int:
    """The command's status. Ctrl-C and SIGTERM cancel it, so that a terminal gets its cursor back, and hosts end.

    Raises: KeyboardInterrupt for Ctrl-C, and CancelledError for another signal, each with its number.
    """
    with Ending() as ending:
        try:
            return _runner()(_watched(command, ending))
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            number = ending.number or _number(error)
            raise (KeyboardInterrupt if number == signal.SIGINT else asyncio.CancelledError)(number) from None


def _runner() -> Callable[[Coroutine[object, object, int]], int]:
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


async def _watched(command: Coroutine[object, object, int], ending: Ending) -> int:
    task = asyncio.current_task()
    assert task is not None
    ending.watch(asyncio.get_running_loop(), task)
    return await command


def _number(error: BaseException) -> int:
    """The signal that ended the command."""
    usual = signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM
    return error.args[0] if error.args and isinstance(error.args[0], int) else usual


_ENDED = (KeyboardInterrupt, asyncio.CancelledError)
_EXPECTED = (Exception, *_ENDED)
# The first that fits. Without words: the error's own. What fits none is nobody's doing but this program's.
_ENDINGS: tuple[tuple[type[BaseException], int, str], ...] = (
    (BrokenPipeError, 1, "standard output is closed: nobody reads it any more"),  # the stream's own is in `Carried`
    (UsageError, 2, ""),
    (TicketError, 2, ""),
    (CodeError, 2, ""),
    (PeerError, 2, ""),
    (SimopenError, 1, ""),
    (OSError, 1, ""),
    (MemoryError, 1, "out of memory"),
)


def _bug(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{os.path.basename(frames[-1].filename)}, line {frames[-1].lineno}" if frames else "nowhere"
    said = shortened(f"{type(error).__name__}: {error}", _LONGEST_BUG)
    return f"this is a bug in simopen, not in what you typed: {said} ({where}); please report it, with what -vv shows"


def _told(error: BaseException) -> tuple[int, str]:
    """The status for it, and what is said."""
    if isinstance(error, _ENDED):
        return 128 + _number(error), f"{WORDS[signal.Signals(_number(error))]}; everything is closed"
    fitting = [(status, words or reason(error)) for kind, status, words in _ENDINGS if isinstance(error, kind)]
    return fitting[0] if fitting else (1, _bug(error))


def _failed(options: argparse.Namespace, screen: Screen, error: BaseException) -> int:
    status, message = _told(error)
    report = error.report if isinstance(error, PunchError) else None
    diagnosis = error.diagnosis if isinstance(error, PunchError) else None
    for detail in getattr(error, "__notes__", ()):
        _logs.PACKAGE.info("%s", detail)
    if options.verbose > 1:
        _logs.PACKAGE.debug("where it happened:", exc_info=error)
    _let_go_of_full_streams()
    for note in report.notes if report else ():
        screen.note(note)
    screen.say("\n".join(_diagnosed(diagnosis)) if diagnosis else f"simopen: {message}")
    if isinstance(error, ClockError) and not error.has_advice:
        firewall = "does a firewall drop UDP port 123? " if Heard.NOTHING in error.heard else ""
        screen.say(f"simopen: {firewall}Name a time server that you can reach with --ntp")
    if options.json:
        told = {"report": report and report.as_dict(), "diagnosis": diagnosis and diagnosis.as_dict()}
        with contextlib.suppress(OSError):  # as what is said
            print_json({"error": type(error).__name__, "message": message, **told})
    return status


def _diagnosed(diagnosis: Diagnosis) -> Iterator[str]:
    yield f"simopen: no stream: {diagnosis.sentence}"
    yield from (f"  seen: {fact}" for fact in diagnosis.evidence)
    yield f"  to do: {diagnosis.advice}"


def _status(not_done: str) -> str:
    return wrapped(_STATUS.format(not_done), USUAL_WIDTH - 1)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="simopen",
        description="One direct TCP stream between two hosts behind NATs, by simultaneous open.",
        epilog=_status("not done"),
    )
    parser.add_argument("--version", action=Version, nargs=0, help="show program's version number and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sending = _command(commands, "send", send.run, "send files, folders or a text to whoever has the code")
    send.add_arguments(sending)
    receiving = _command(commands, "receive", receive.run, "receive what somebody sends")
    receive.add_arguments(receiving)
    meeting = _command(
        commands, "meet", meet.run, "meet a peer who runs it, too: each gives the other one line to type"
    )
    meet.add_arguments(meeting)
    dialling = _command(commands, "connect", connect.run, "open a stream and connect it to stdin and stdout, like nc")
    connect.add_arguments(dialling)
    piping = _command(
        commands, "pipe", pipe.run, "carry stdin and stdout, or a local port, to the peer, and to the end"
    )
    pipe.add_arguments(piping)
    forwarding = _command(commands, "forward", forward.run, "make ports of this host lead to services at the peer")
    forward.add_arguments(forwarding)
    knowing = _command(commands, "peers", peers.run, "show the peers that can be met again without a code")
    peers.add_arguments(knowing)
    asking = _command(commands, "clock", clock.run, "tell how far this machine's clock is off, and how sure that is")
    clock.add_arguments(asking)
    ask = _command(commands, "nat", nat.run, "tell what the NATs in front of this host do to TCP, and what that means")
    nat.add_arguments(ask)
    fit = _command(
        commands, "doctor", doctor.run, "tell whether this host is fit to punch, and what to do where it is not"
    )
    arguments.add_time_servers(fit)
    doctor.add_arguments(fit)
    alone = _command(
        commands, "self", connect_self.run, "connect one socket to itself: what you type comes back through TCP"
    )
    connect_self.add_arguments(alone)
    _add_demo(_command(commands, "demo", _demo, "two hosts behind two NATs on this machine, and the SYNs crossing"))
    trying = _command(commands, "lab", lab.run, "two hosts behind the NATs that you name punch, and why it went so")
    lab.add_arguments(trying)
    completing = _command(commands, "completion", completion.run, "print a shell's completion of commands and codes")
    completion.add_arguments(completing)
    completing.set_defaults(parsers=commands.choices)
    serving = _command(commands, "serve", serve.run, "serve peers that meet by a code, and STUN to all")
    serve.add_arguments(serving)
    return parser


def _command(
    commands: argparse._SubParsersAction[Parser],
    name: str,
    run: Callable[[argparse.Namespace, Screen], Coroutine[object, object, int]],
    what: str,
) -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        name, help=what, description=what[0].upper() + what[1:] + ".", formatter_class=formatter
    )
    parser.epilog = _EXAMPLES.get(name, "") + _SECONDS * (name not in _WITHOUT_TIMES) + _status(_FAILURES[name])
    parser.set_defaults(command=run, room=_ROOM.get(name, _USUAL_ROOM))
    where = ", on standard error" if name in _ON_STANDARD_ERROR else ""
    parser.add_argument("--json", action="store_true", help=f"tell the result as one line of JSON{where}")
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="log what happens to standard error; -vv: in detail, with tracebacks",
    )
    return parser


# Descriptors that a command needs, measured: with fewer, it fails somewhere in the middle.
_ROOM = {"lab": 96, "demo": 56, "doctor": 24, "meet": 24, "send": 32, "receive": 32, "pipe": 32, "forward": 32}
# 9 are an event loop's own: with less uvloop ends the process by SIGABRT, or cannot be closed again.
_USUAL_ROOM = 12
_WITHOUT_TIMES = ("self", "serve", "peers", "completion")
# Where standard output carries data, and where there is an answer before the end: a code.
_ON_STANDARD_ERROR = ("connect", "meet", "self", "send", "receive", "pipe", "forward")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    delay = argument(parse_duration)
    parser.add_argument(
        "--delay", metavar="S", type=delay, default=0.04, help="one way between the hosts (default: 40ms)"
    )
    parser.add_argument("--loopback", action="store_true", help="two processes on loopback instead of the lab")


async def _demo(options: argparse.Namespace, screen: Screen) -> int:
    from simopen.cli import demo  # it loads the lab

    if options.loopback:
        return await demo.on_loopback(None, as_json=options.json)
    return await demo.run(options.delay, as_json=options.json)
