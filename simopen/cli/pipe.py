"""`simopen pipe`: standard input and output, or one local TCP connection, over the stream of a meeting by a code.

Theory of operation: unlike `meet`, which carries as nc does, both sides end with status 0 only if each knows that the
other one has all of what it sent. A local service is connected to once the peer is here, and a local program is let in
by the loopback address alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simopen.apps.pipe import Carried
from simopen.cli import code
from simopen.cli.arguments import UsageError, add_punch, argument, port
from simopen.cli.carry import end_output, ended
from simopen.cli.console import Screen
from simopen.errors import TransferError
from simopen.model.wording import quoted
from simopen.net import sockets
from simopen.net.aside import in_thread
from simopen.net.os_errors import connection_reason, reason

if TYPE_CHECKING:
    from simopen.apps.acknowledged import Frames

EXAMPLE = """\
one$    tar c photos | simopen pipe
other$  simopen pipe 7-croissant-zucchini > photos.tar
the other's SSH server, as port 2222 here:
one$    simopen pipe --listen 2222
other$  simopen pipe --to localhost:22 7-croissant-zucchini
"""
_HERE = "127.0.0.1"
_CONNECTED_S = 10.0


@dataclass(frozen=True, slots=True)
class _Ends:
    """Descriptors: what is sent comes from `source`, what is received goes to `sink`; `ended` closes that."""

    source: int
    sink: int
    ended: Callable[[], object]


def _service(text: str) -> tuple[str, int]:
    host, colon, number = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"not HOST:PORT: {quoted(text)}")
    return host.removeprefix("[").removesuffix("]"), port(number)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen pipe` takes."""
    code.add_code(parser)
    end = parser.add_mutually_exclusive_group()
    end.add_argument(
        "--to",
        metavar="HOST:PORT",
        type=argument(_service),
        help="instead of stdin and stdout, connect to this service",
    )
    end.add_argument(
        "--listen",
        metavar="PORT",
        type=argument(port),
        help="instead of stdin and stdout, let one local program connect to this port of 127.0.0.1",
    )
    end.add_argument("--recv-only", action="store_true", help="send nothing: leave standard input alone")
    code.add_arguments(parser)
    add_punch(parser)


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """The whole command. Returns the exit status.

    Raises: UsageError; OSError where the local end fails; and as `simopen.meet`.
    """
    from simopen.apps.acknowledged import Frames, carry_to_the_end
    from simopen.apps.transfer.api import ending

    if options.to is None and options.listen is None and not options.recv_only:
        code.require_input(options)
    with _listening(options.listen) as listener:
        typed = code.given(options, options.code)
        reader, writer, report = await code.met(options, screen, typed, "simopen pipe {}", channel="pipe")
        began_s = time.monotonic()
        carried, frames = Carried(), Frames(reader)
        async with ending(reader, writer), _ends(options, listener, screen, frames, carried) as ends:
            await carry_to_the_end(
                frames, writer, source=ends.source, sink=ends.sink, carried=carried, peer_ended=ends.ended
            )
    return ended(options, screen, {"report": report.as_dict()}, carried, time.monotonic() - began_s)


@contextlib.contextmanager
def _listening(number: int | None) -> Iterator[socket.socket | None]:
    """Raises: UsageError where the port cannot be had: before a code is used up."""
    if number is None:
        yield None
        return
    try:
        listener = socket.create_server((_HERE, number), backlog=1)
    except OSError as error:
        why = os.strerror(error.errno or 0)  # since 3.13 the error's own words say more than a user asked for
        raise UsageError(f"cannot listen on {_HERE}:{number}: {why}") from error
    with listener:
        listener.setblocking(False)
        yield listener


@contextlib.asynccontextmanager
async def _ends(
    options: argparse.Namespace, listener: socket.socket | None, screen: Screen, frames: Frames, carried: Carried
) -> AsyncIterator[_Ends]:
    if listener is None and options.to is None:
        source = os.open(os.devnull, os.O_RDONLY) if options.recv_only else 0
        try:
            yield _Ends(source, 1, end_output)
        finally:
            if source:
                os.close(source)
        return
    connecting = _connected(options.to) if listener is None else _accepted(listener, screen)
    with await frames.unless_gone(connecting) as local:
        sockets.drop(local)  # whatever breaks shall not look to it like an end
        try:
            yield _Ends(local.fileno(), local.fileno(), lambda: _shut(local, carried))
        except BrokenPipeError as error:  # which is said of standard output elsewhere
            raise TransferError(reason(error)) from error
        if not carried.error:
            sockets.keep(local)


async def _accepted(listener: socket.socket, screen: Screen) -> socket.socket:
    name = f"{_HERE}:{listener.getsockname()[1]}"
    screen.say(f"simopen: connect to {name} now; one connection is let in")
    local, _ = await asyncio.get_running_loop().sock_accept(listener)
    listener.close()
    return local


async def _connected(service: tuple[str, int]) -> socket.socket:
    """Raises: TransferError."""
    where = f"cannot connect to {service[0]}:{service[1]}"
    try:
        local = await in_thread("simopen-connector", socket.create_connection, service, _CONNECTED_S)
    except TimeoutError as error:
        raise TransferError(f"{where}: it does not answer within {_CONNECTED_S:g} s") from error
    except OSError as error:
        raise TransferError(f"{where}: {connection_reason(error)}") from error
    local.setblocking(False)
    return local


def _shut(local: socket.socket, carried: Carried) -> None:
    if not carried.error:
        with contextlib.suppress(OSError):
            local.shutdown(socket.SHUT_WR)
