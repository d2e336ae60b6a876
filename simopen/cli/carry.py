"""A stream between standard input and output, until both directions have ended; and what is told of it then."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os

from simopen.apps.pipe import Carried, pipe
from simopen.cli.console import Screen, print_json
from simopen.model.wording import amount
from simopen.net.streams import abort

_STDIN, _STDOUT = 0, 1


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, screen: Screen) -> Carried:
    """Standard input and output and the stream, until both have ended and all is sent; then it is closed.

    Whoever reads standard output meets its end with the peer's, though standard input may go on.
    """
    carried = Carried()
    try:
        await pipe(reader, writer, source=_STDIN, sink=_STDOUT, carried=carried, peer_ended=end_output)
        writer.close()
        with contextlib.suppress(OSError):  # it is broken: `carried` tells
            await writer.wait_closed()
    except BaseException:
        # Not `close`, which waits until a peer that may have stopped reading has taken all.
        abort(writer)
        screen.say(_counts(carried))
        raise
    return carried


def end_output() -> None:
    """Nothing else of this process may still have what standard output was; the number is not free for other files."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDOUT)
    os.close(nowhere)


def _counts(carried: Carried, took_s: float | None = None) -> str:
    told = f"{carried.sent} bytes sent, {carried.received} received"
    if took_s is None:
        return told
    return f"{told} in {took_s:.1f} s ({amount((carried.sent + carried.received) / max(took_s, 1e-3))}/s)"


def ended(
    options: argparse.Namespace,
    screen: Screen,
    result: dict[str, object],
    carried: Carried,
    took_s: float | None = None,
) -> int:
    """Tell how much was carried, and what broke. Returns the exit status.

    `result`: of the command, for JSON. `took_s`: in what time; where it is given, that and the rate are told, too.
    """
    if options.json:
        took = {} if took_s is None else {"seconds": took_s}
        print_json({**result, "sent": carried.sent, "received": carried.received, "error": carried.error, **took})
    if carried.error:
        screen.say(f"simopen: the stream broke ({carried.error}); the other end may miss some of what was sent")
    screen.say(_counts(carried, took_s))
    return 1 if carried.error else 0
