"""`simopen connect`: what it takes, and how it goes; whom it fires at is `call.py`'s."""

from __future__ import annotations

import argparse
from asyncio import StreamReader, StreamWriter
from typing import TYPE_CHECKING

from simopen.cli import arguments, key
from simopen.cli.arguments import argument, judged
from simopen.cli.carry import carry, ended
from simopen.cli.console import Screen
from simopen.cli.live_line import Waiting, drawn
from simopen.holepunch.options import WINDOW_S
from simopen.model.endpoint import own_address
from simopen.net.tcp_keepalive import KEEPALIVE_S, USER_TIMEOUT_S, Liveness
from simopen.ticket.codec import parse_ticket

if TYPE_CHECKING:
    from simopen.cli.call import Call
    from simopen.clock.source import TimeSource
    from simopen.model.report import Report

EXAMPLE = """\
both sides run it for the same instant, each with the other's public address:
  one$    simopen connect 203.0.113.7 1314 --at 22:14:30
  other$  simopen connect 198.51.100.9 1314 --at 22:14:30
with --key-file F, where both have the same F, nobody else can be the peer, or
read along (a key: umask 077; openssl rand -hex 32 > F)
or each with the ticket that the other's `simopen nat --ticket` printed, which
the other leaves running:
  one$    simopen connect OTHERS-TICKET
  other$  simopen connect ONES-TICKET
with a TICKET, leave out PORT, --at, --local-port and --local-address
what each then types, the other reads; with < FILE and > FILE, a file crosses
"""
# What stands in PORT's place and is as long is not a mistyped port, but what a chat's line break has left of a ticket.
_PIECE = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen connect` takes."""
    port, window = argument(arguments.port), argument(arguments.window)
    parser.add_argument(
        "host", metavar="HOST|TICKET", help="the peer's public address or name, or HOST:PORT, or the peer's ticket"
    )
    parser.add_argument(
        "port",
        metavar="PORT",
        type=argument(_port),
        nargs="?",
        help="HOST's: the one that the peer fires from, as seen outside",
    )
    arguments.add_instant(parser, "now, or the later one of the two tickets")
    parser.add_argument("--local-port", metavar="N", type=port, help="fire from this port (default: the peer's PORT)")
    parser.add_argument(
        "--local-address",
        metavar="IP",
        type=argument(own_address),
        help="fire from this address of this host (default: any)",
    )
    key.add_arguments(parser)
    parser.add_argument(
        "--mine",
        metavar="TICKET",
        type=argument(parse_ticket),
        help="this side's own ticket (default: the one that `simopen nat --ticket` holds on this host)",
    )
    parser.add_argument(
        "--spray",
        action="store_true",
        help="with a TICKET, and on both sides: where the two NATs leave nothing else, try very many ports, with up to "
        "450 SYNs a second for 5 s (default: where both tickets were made with --spray)",
    )
    parser.add_argument(
        "--first-ttl",
        metavar="HOPS",
        type=argument(arguments.hops),
        help="half a second before the instant, open this side's own NAT by shots that go no further than this; "
        "for NATs that answer an early SYN, or shut its sender out",
    )
    parser.add_argument(
        "--window",
        metavar="S",
        type=window,
        default=WINDOW_S,
        help="keep trying for this long after the instant (default: %(default)g s)",
    )
    parser.add_argument(
        "--listen",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also accept the stream on the local port (default: yes); --no-listen: by simultaneous open only",
    )
    _add_liveness(parser)
    arguments.add_time_servers(parser)


def _port(text: str) -> int:
    try:
        return arguments.port(text)
    except ValueError as error:
        if len(text) < _PIECE or not text.isalnum():
            raise
        raise ValueError(f"{error} (a ticket with spaces in it goes in quotes)") from None


def _add_liveness(parser: argparse.ArgumentParser) -> None:
    """A value that no stream can have is refused here, before anybody waits for an instant."""
    parser.add_argument(
        "--keepalive",
        metavar="S",
        type=argument(lambda text: Liveness(keepalive=arguments.or_off(text)).keepalive),
        default=KEEPALIVE_S,
        help="probe an idle stream after this long, so that NATs do not forget it (default: %(default)g s; off: never)",
    )
    parser.add_argument(
        "--user-timeout",
        metavar="S",
        type=argument(lambda text: Liveness(user_timeout=arguments.or_off(text)).user_timeout),
        default=USER_TIMEOUT_S,
        help="end the stream where the peer acknowledges nothing, or takes nothing, for this long (default: "
        "%(default)g s; off: the kernel's own, some 15 min)",
    )


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """The whole command. Returns the exit status. Raises: UsageError, TicketError, PunchError, ClockError."""
    from simopen.cli.call import by_true_time, called  # all that punches, which other commands need not load
    from simopen.clock.source import chosen

    with judged():
        source = chosen(options.ntp, ask=not options.no_ntp)
    with called(options, source, screen=screen) as meant:
        call = await by_true_time(meant, source, options.window, screen)
        for line in call.told:
            screen.say(f"simopen: {line}")
        reader, writer = await _with_countdown(call, options.window, source, screen)
    report: Report = writer.get_extra_info("simopen")
    for note in report.notes:
        screen.note(note)
    screen.say(f"{report.summary()}; the clock: {report.clock}")
    screen.say(f"simopen: {key.PLAIN if report.proof is None else f'proven: {call.proves}'}")
    carried = await carry(reader, writer, screen)
    return ended(options, screen, {"report": report.as_dict()}, carried)


async def _with_countdown(
    call: Call, window_s: float, source: TimeSource, screen: Screen
) -> tuple[StreamReader, StreamWriter]:
    """Make the call while a line shows what it is waiting for."""
    estimate = source.now_estimate()
    waiting = Waiting(call.whom, window_s, call.by_time(estimate), estimate.utc_ns / 1e9, estimate)
    with drawn(waiting, screen) as on_event:
        return await call.streams(on_event)
