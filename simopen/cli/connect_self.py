"""`simopen self`: one socket, connected to itself, and standard input and output through it."""

from __future__ import annotations

import argparse

from simopen.cli.arguments import argument, port
from simopen.cli.carry import carry, ended
from simopen.cli.console import Screen
from simopen.model.endpoint import Endpoint

_PORT = 1314


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen self` takes."""
    parser.add_argument(
        "port", metavar="PORT", type=argument(port), nargs="?", default=_PORT, help=f"on 127.0.0.1 (default: {_PORT})"
    )


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """The whole command. Returns the exit status. Raises: PunchError where the port cannot be had."""
    from simopen.holepunch import api  # all that punches, which other commands need not load

    reader, writer = await api.connect_self(options.port)
    sock = writer.get_extra_info("socket")
    ours, theirs = (Endpoint(*name[:2]) for name in (sock.getsockname(), sock.getpeername()))
    screen.say(f"{ours} is connected to {theirs}: itself. What you type comes back")
    carried = await carry(reader, writer, screen)
    return ended(options, screen, {"local": str(ours), "remote": str(theirs)}, carried)
