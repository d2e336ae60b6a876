"""The command line: `simopen connect`, `clock`, `self`, `demo`.

Theory of operation: arguments are parsed here and nowhere else; each command is one coroutine over the public calls.
Standard output carries the stream's data, everything said to people goes to standard error.

Exit status: 0 done, 1 no stream (or no trustworthy time), 2 bad usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import TypeVar

from simopen import __version__, clock, opening
from simopen.clock import FixedClock, TimeSource
from simopen.errors import PunchError, SimopenError
from simopen.instant import parse_duration, parse_instant
from simopen.pipe import Carried, pipe
from simopen.report import Report
from simopen.screen import Screen

T = TypeVar("T")

_TICK_S = 0.1
_AT = "22:14:30 (UTC, nearest), 2026-01-01T00:00:00Z, +10s, or next:10s (the next full ten seconds)"


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.CRITICAL, format="%(name)s: %(message)s")
    screen = Screen(quiet=options.json)
    try:
        return _run(options.command(options, screen))
    except (ValueError, TypeError) as error:
        _failed(options, screen, error)
        return 2
    except SimopenError as error:
        _failed(options, screen, error)
        return 1
    except KeyboardInterrupt:
        screen.say("interrupted; everything is closed")
        return 130


def _run(command: Coroutine[object, object, int]) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(command)
    return uvloop.run(command)


def _failed(options: argparse.Namespace, screen: Screen, error: Exception) -> None:
    screen.say(f"simopen: {error}")
    if options.json:
        report = error.report if isinstance(error, PunchError) else None
        _print_json({"error": type(error).__name__, "message": str(error), "report": report and report.as_dict()})


def _print_json(value: object) -> None:
    print(json.dumps(value), file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="simopen",
        description="One direct TCP stream between two hosts behind NATs, by simultaneous open.",
    )
    parser.add_argument("--version", action="version", version=f"simopen {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_connect(_command(commands, "connect", _connect, "open a stream and connect it to stdin and stdout, like nc"))
    _add_clock(_command(commands, "clock", _clock, "tell how far this machine's clock is off, and how sure that is"))
    _add_self(_command(commands, "self", _self, "connect one socket to itself: what you type comes back through TCP"))
    _add_demo(_command(commands, "demo", _demo, "two hosts behind two NATs on this machine, and the SYNs crossing"))
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace, Screen], Coroutine[object, object, int]],
    what: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    parser.set_defaults(command=run)
    where = "; on standard error, as standard output carries the data" if name in ("connect", "self") else ""
    parser.add_argument("--json", action="store_true", help=f"tell the result as one line of JSON{where}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens to standard error")
    return parser


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _instant(text: str) -> float:
    try:
        return parse_instant(text, time.time())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_connect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="the peer's public address or name")
    parser.add_argument("port", metavar="PORT", type=int, help="the port that the peer fires from, as seen outside")
    parser.add_argument("--at", metavar="T", type=_instant, help=f"the instant: {_AT}; left out: now")
    parser.add_argument("--local-port", metavar="N", type=int, help="fire from this port (default: the peer's PORT)")
    parser.add_argument("--local-address", metavar="IP", help="fire from this address of this host (default: any)")
    parser.add_argument(
        "--window",
        metavar="S",
        type=_duration,
        default=opening.WINDOW_S,
        help="keep trying for this long after the instant (default: %(default)g s)",
    )
    parser.add_argument(
        "--listen",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also accept the stream on the local port (default: yes)",
    )
    _add_servers(parser)


def _add_servers(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--ntp", metavar="HOST[:PORT]", action="append", help="ask this NTP server; may be repeated")
    group.add_argument("--no-ntp", action="store_true", help="ask nobody: trust the kernel's word or the local clock")


def _add_clock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ntp", metavar="HOST[:PORT]", action="append", help="ask this NTP server; may be repeated")
    parser.add_argument("--timeout", metavar="S", type=_duration, default=clock.CHECK_TIMEOUT_S, help="%(default)g s")


def _add_self(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("port", metavar="PORT", type=int, nargs="?", default=1314, help="default: %(default)d")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--delay", metavar="S", type=_duration, default=0.04, help="one way between the hosts (default: 40ms)"
    )
    parser.add_argument("--loopback", action="store_true", help="two processes on loopback instead of the lab")


def _time_source(options: argparse.Namespace) -> TimeSource:
    if options.no_ntp:
        return FixedClock(clock.kernel_word() or clock.plain())
    return clock.as_clock(options.ntp)


async def _connect(options: argparse.Namespace, screen: Screen) -> int:
    source = _time_source(options)
    port = options.local_port or options.port
    local = (options.local_address, port) if options.local_address else port
    stream = opening.connect(
        (options.host, options.port),
        at=options.at,
        local=local,
        window=options.window,
        listen=options.listen,
        clock=source,
    )
    peer = f"{options.host}:{options.port}"
    reader, writer = await _with_countdown(stream, peer, options, source, screen)
    report: Report = writer.get_extra_info("simopen")
    for note in report.notes:
        screen.say(f"note: {note}")
    screen.say(f"{report.summary()}; the clock: {report.clock}")
    carried = Carried()
    try:
        await pipe(reader, writer, source=sys.stdin.fileno(), sink=sys.stdout.fileno(), carried=carried)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return _ended(options, screen, report, carried)


def _ended(options: argparse.Namespace, screen: Screen, report: Report, carried: Carried) -> int:
    if options.json:
        counts = {"sent": carried.sent, "received": carried.received, "error": carried.error}
        _print_json({"report": report.as_dict(), **counts})
    why = f"the stream broke ({carried.error})" if carried.error else "done"
    screen.say(f"{why}: {carried.sent} bytes sent, {carried.received} received")
    return 1 if carried.error else 0


async def _with_countdown(
    work: Coroutine[object, object, T],
    peer: str,
    options: argparse.Namespace,
    source: TimeSource,
    screen: Screen,
) -> T:
    """Await `work` while a line shows what it is waiting for."""
    task = asyncio.ensure_future(work)
    try:
        with screen.line(_waiting_for(peer, options, source)) as update:
            while not task.done():
                update(_waiting_for(peer, options, source))
                await asyncio.wait({task}, timeout=_TICK_S)
        return await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _waiting_for(peer: str, options: argparse.Namespace, source: TimeSource) -> str:
    estimate = source.now_estimate()
    left_s = (options.at or 0) - estimate.utc_ns / 1e9
    if options.at is None or left_s <= 0:
        return f"firing at {peer} for up to {options.window:g} s"
    at = datetime.fromtimestamp(options.at, UTC)
    here = f" ({at.astimezone():%H:%M:%S} here)" if at.astimezone().utcoffset() else ""
    return f"{peer} at {at:%Y-%m-%d %H:%M:%S} UTC{here}, in {left_s:.1f} s; the clock: {estimate}"


async def _clock(options: argparse.Namespace, screen: Screen) -> int:
    with screen.line("asking the time servers"):
        estimate = await clock.check_clock(options.ntp or clock.DEFAULT_SERVERS, options.timeout)
    if options.json:
        print(json.dumps(estimate.as_dict()))
        return 0
    columns = ("server", "offset", "±", "delay", "stratum", "verdict")
    screen.table("what each server says", columns, [_row(each) for each in estimate.servers])
    screen.say(f"add {estimate} to this machine's clock to get true time")
    kernel = clock.kernel_word()
    screen.say(f"the kernel says: {kernel}" if kernel else "the kernel says: nobody disciplines this clock")
    return 0


def _row(each: clock.Evidence) -> tuple[str, ...]:
    verdict = each.refused or "agrees"
    if each.offset_s is None or each.bound_s is None or each.delay_s is None:
        return (each.name, "", "", "", "", verdict)
    milliseconds = (f"{value * 1e3:.2f} ms" for value in (each.bound_s, each.delay_s))
    return (each.name, f"{each.offset_s:+.4f} s", *milliseconds, str(each.stratum), verdict)


async def _self(options: argparse.Namespace, screen: Screen) -> int:
    reader, writer = await opening.connect_self(options.port)
    sock = writer.get_extra_info("socket")
    screen.say(f"{sock.getsockname()} is connected to {sock.getpeername()}: itself. What you type comes back")
    carried = await pipe(reader, writer, source=sys.stdin.fileno(), sink=sys.stdout.fileno())
    writer.close()
    screen.say(f"{carried.sent} bytes sent, {carried.received} received")
    return 0


async def _demo(options: argparse.Namespace, screen: Screen) -> int:
    from simopen import demo  # it loads the lab

    if options.loopback:
        return await demo.on_loopback("as asked", as_json=options.json)
    return await demo.run(options.delay, as_json=options.json)
