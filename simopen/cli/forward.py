"""`simopen forward`: local ports that lead to services at the peer, as `ssh -L` and `-R`, over one stream.

Theory of operation: either side may listen, both may, and each names what the other's connections may go to. What this
side listens on is tried before a code is used up. It runs until either side ends it. With a peer that was met before,
a stream that breaks is no end: the two meet again, and go on with new connections.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import shlex
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from simopen import _logs
from simopen.apps.forward.ports import listening
from simopen.apps.forward.targets import MOST_FORWARDS, Forward, Target, named
from simopen.cli import code, known
from simopen.cli.arguments import UsageError, add_punch, judged
from simopen.cli.console import Screen, print_json
from simopen.cli.warned import warned
from simopen.errors import ForwardError, LocalEndpointError
from simopen.model.wording import quoted

if TYPE_CHECKING:
    from simopen.model.report import Report
    from simopen.rendezvous.peers import KnownPeer

EXAMPLE = """\
port 8080 here leads to the web server beside the other:
  one$    simopen forward --listen 8080 --to localhost:80
  other$  simopen forward --allow localhost:80 7-croissant-zucchini
with a peer that was met before, and again whenever the stream breaks:
  one$    simopen forward --listen 8080 --to localhost:80 @laptop
  other$  simopen forward --allow localhost:80 @desk
several in one, both ways:
  one$    simopen forward --listen 8080 --to localhost:80 \\
            --listen 5433 --to db:5432 --allow localhost:22
"""
_CHANNEL = "forward"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen forward` takes."""
    code.add_code(parser)
    parser.add_argument(
        "--listen",
        metavar="[HOST:]PORT",
        action="append",
        default=[],
        help="take connections on this port, of 127.0.0.1 unless told otherwise; may be repeated, each with its --to",
    )
    parser.add_argument(
        "--to",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help="where the connections go that the --listen before it takes, as the peer sees it; the peer must allow it",
    )
    parser.add_argument(
        "--allow",
        metavar="HOST[:PORT]",
        action="append",
        default=[],
        help="let the peer's connections go there from this host; may be repeated (default: nowhere)",
    )
    parser.add_argument(
        "--channel",
        metavar="NAME",
        help="with @NAME: tells this forward from others of the same two peers that run beside it; the same on both "
        "sides",
    )
    code.add_arguments(parser)
    add_punch(parser)


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """The whole command. Returns the exit status.

    Raises: UsageError; LocalEndpointError for a port that is taken; ForwardError; and as `simopen.meet`.
    """
    from simopen.apps.forward.api import carrier, forward

    try:
        carrier()
    except ImportError as error:
        raise UsageError(str(error)) from error
    forwards, allow = _meant(options)
    await _try([each.listen for each in forwards])

    def carrying(streams: tuple[StreamReader, StreamWriter], report: Report) -> Coroutine[Any, Any, None]:
        ready = partial(_ready, options, screen, report, allow)
        return forward(streams, forwards=forwards, allow=allow, ready=ready)

    typed = code.given(options, options.code)
    peer = known.named(options, typed)
    if peer is None and options.channel is not None:
        raise UsageError("leave out --channel: it is for a peer that was met before, and a code leads to one forward")
    with warned(options, screen, _logs.logger("forward")):
        if peer is not None:
            await _kept_up(options, screen, peer, carrying)
        else:
            line, more = _peers_line(forwards, allow)
            reader, writer, report = await code.met(options, screen, typed, line, channel=_CHANNEL, more=more)
            await carrying((reader, writer), report)
    screen.say("simopen: the peer has ended it")
    return 0


async def _kept_up(
    options: argparse.Namespace,
    screen: Screen,
    peer: KnownPeer,
    carrying: Callable[[tuple[StreamReader, StreamWriter], Report], Awaitable[None]],
) -> None:
    """Carry until the peer ends it; over one stream after the other, where they break."""
    from simopen.rendezvous.session import Session

    channel = _CHANNEL if options.channel is None else f"{_CHANNEL} {options.channel}"
    where = known.place(options, peer, channel)
    told = code.Told(lambda *_: None, screen, peer.name)
    with judged():
        session = Session(
            peer.name,
            channel=channel,
            via=where.via,
            allow_plain=where.allow_plain,
            on_event=told.on_event,
            **code.punch(options),
        )
    async with session:
        has_carried = False
        while True:
            with code.connecting(screen, f"meeting {peer.name} ...") as told.update:
                streams = await session.connect()
            report = code.told(streams[1], screen, known.who(peer))
            try:
                return await carrying(streams, report)
            except ForwardError as error:
                if not (error.is_broken or has_carried):
                    raise
                hint = "; of several forwards of you two, each needs a --channel" * (not error.is_broken)
                screen.say(f"simopen: {error}{hint}; {peer.name} is met again")
                has_carried |= error.is_broken


def _peers_line(forwards: Sequence[Forward], allow: Sequence[Target]) -> tuple[str, str]:
    """What the peer has to type for this side's forwards, with `{}` for the code; and what it has to add, in words."""
    targets = dict.fromkeys(shlex.quote(str(Target(*each.to))) for each in forwards)
    allowing = "".join(f"--allow {each} " for each in targets).replace("{", "{{").replace("}", "}}")
    line = f"simopen forward {allowing}{{}}"
    return line, "" if forwards or not allow else "--listen PORT --to HOST:PORT, which it wants,"


def _ready(
    options: argparse.Namespace, screen: Screen, report: Report, allow: Sequence[Target], carried: Sequence[Forward]
) -> None:
    for each in carried:
        screen.say(f"simopen: forwarding {each} at the peer")
    for target in allow:
        screen.say(f"simopen: the peer's connections may go to {target}")
    screen.say("simopen: Ctrl-C ends it, for both")
    if options.json:
        print_json({"report": report.as_dict(), "forwards": list(map(str, carried)), "allow": list(map(str, allow))})


def _meant(options: argparse.Namespace) -> tuple[list[Forward], list[Target]]:
    """Raises: UsageError."""
    if len(options.listen) != len(options.to):
        raise UsageError("each --listen needs a --to, where its connections go, and each --to a --listen")
    if not options.listen and not options.allow:
        raise UsageError(
            "say what to carry: --listen PORT --to HOST:PORT, or --allow what the peer's connections may reach"
        )
    with judged():
        forwards = [Forward.read(*each) for each in zip(options.listen, options.to, strict=True)]
        allow = [Target.read(each) for each in options.allow]
    if len(forwards) > MOST_FORWARDS:
        raise UsageError(f"{len(forwards)} ports: {MOST_FORWARDS} at most go over one stream")
    listens = [each.listen for each in forwards]
    if twice := next((each for each in listens if listens.count(each) > 1), None):
        raise UsageError(f"--listen {quoted(f'{twice[0]}:{twice[1]}')} is there twice")
    return forwards, allow


async def _try(listens: Sequence[tuple[str, int]]) -> None:
    """Raises: LocalEndpointError where a port cannot be had now, or one is named twice, by names of two spellings."""
    with contextlib.ExitStack() as tried:
        for number, each in enumerate(listens):
            try:
                for sock in await listening(*each):
                    tried.enter_context(sock)
            except LocalEndpointError as error:
                alike = next((other for other in listens[:number] if other[1] == each[1]), None)
                if alike is None or error.errno != errno.EADDRINUSE:
                    raise
                raise LocalEndpointError(f"{error}; or --listen {named(*alike)} has it") from error
