"""`simopen clock`: how far this machine's clock is off, and what each time server says."""

from __future__ import annotations

import argparse
import json
import sys

from simopen.cli.arguments import add_timeout, judged
from simopen.cli.console import Screen, answer, fitted
from simopen.clock.ntp_client import DEFAULT_SERVERS, parse_servers
from simopen.clock.source import CHECK_TIMEOUT_S, check_clock, kernel_says
from simopen.model.estimate import Evidence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen clock` takes."""
    parser.add_argument("--ntp", metavar="HOST[:PORT]", action="append", help="ask this NTP server; may be repeated")
    add_timeout(parser, CHECK_TIMEOUT_S)


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """The whole command. Returns the exit status.

    Raises: ClockError where nobody could be believed; UsageError for what is no server.
    """
    servers = options.ntp or DEFAULT_SERVERS
    with judged():
        parse_servers(servers)
    with screen.line("asking the time servers"):
        estimate = await check_clock(servers, options.timeout)
    if options.json:
        answer(json.dumps(estimate.as_dict()))
        return 0
    columns = ("server", "offset", "±", "delay", "stratum", "verdict")
    screen.table("what each server says", columns, [_row(each) for each in estimate.servers])
    answer(fitted(f"add {estimate} to this machine's clock to get true time", sys.stdout))
    answer(fitted(f"the kernel says: {kernel_says()}", sys.stdout))
    return 0


def _row(each: Evidence) -> tuple[str, ...]:
    verdict = each.refused or "agrees"
    if each.offset_s is None or each.bound_s is None or each.delay_s is None:
        return (each.name, "", "", "", "", verdict)
    milliseconds = (f"{value * 1e3:.2f} ms" for value in (each.bound_s, each.delay_s))
    return (each.name, f"{each.offset_s:+.4f} s", *milliseconds, str(each.stratum), verdict)
