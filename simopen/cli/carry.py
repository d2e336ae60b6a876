"""A stream between standard input and output, until both directions have ended; and what is told of it then."""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from simopen.apps.pipe import Carried, pipe
from simopen.cli.console import Screen, print_json

_STDIN, _STDOUT = 0, 1


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, screen: Screen) -> Carried:
    """Standard input and output and the stream, until both have ended and all is sent; then it is closed."""
    carried = Carried()
    try:
        await pipe(reader, writer, source=_STDIN, sink=_STDOUT, carried=carried)
        writer.close()
        with contextlib.suppress(OSError):  # it is broken: `carried` tells
            await writer.wait_closed()
    except BaseException:
        # Not `close`, which waits until a peer that may have stopped reading has taken all.
        writer.transport.abort()
        screen.say(_counts(carried))
        raise
    return carried


def _counts(carried: Carried) -> str:
    return f"{carried.sent} bytes sent, {carried.received} received"


def ended(options: argparse.Namespace, screen: Screen, result: dict[str, object], carried: Carried) -> int:
    """Tell how much was carried, and what broke. `result`: of the command, for JSON. Returns the exit status."""
    if options.json:
        print_json({**result, "sent": carried.sent, "received": carried.received, "error": carried.error})
    if carried.error:
        screen.say(f"simopen: the stream broke ({carried.error}); the other end may miss some of what was sent")
    screen.say(_counts(carried))
    return 1 if carried.error else 0
