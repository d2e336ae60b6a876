"""Peers that are met again, for the commands: `@NAME` in a code's place, and `--remember NAME` at a first meeting."""

from __future__ import annotations

import argparse
from asyncio import StreamWriter
from typing import TYPE_CHECKING

from simopen.cli.arguments import UsageError, judged
from simopen.cli.console import Screen
from simopen.errors import PeerError

if TYPE_CHECKING:
    from simopen.rendezvous.peers import KnownPeer
    from simopen.rendezvous.session import Place

AT = "@"
"""Before a peer's name."""


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--remember`."""
    parser.add_argument(
        "--remember",
        metavar="NAME",
        help="keep what it takes to meet this peer again without a code, as @NAME; it has to remember this side, too",
    )


def named(options: argparse.Namespace, code: str | None) -> KnownPeer | None:
    """The peer that stands in a code's place; None where it is a code. Raises: UsageError, PeerError."""
    if code is None or not code.strip().startswith(AT):
        return None
    from simopen.rendezvous.peers import known_peer

    if options.secret_file is not None:
        raise UsageError("leave out --secret-file: the key of a peer that was met before is kept")
    if options.remember is not None:
        raise UsageError(f"leave out --remember: {code.strip()} is remembered already; `simopen peers` renames it")
    return known_peer(code)


def place(options: argparse.Namespace, known: KnownPeer, channel: str) -> Place:
    """Where a known peer is met. Raises: UsageError; RendezvousUnreachable where no rendezvous is named."""
    from simopen.rendezvous.session import Place

    with judged():
        return Place.of(known, channel, options.via, options.allow_plain or None)


def who(known: KnownPeer) -> str:
    """Whom a stream is proven to lead to."""
    return f"{known.name}, by the key that you both have kept"


def require_name(options: argparse.Namespace) -> None:
    """Raises: PeerError where --remember has a name that cannot be given: before a code is used up."""
    if options.remember is not None:
        from simopen.rendezvous.peers import require_free

        require_free(options.remember)


async def remembered(options: argparse.Namespace, screen: Screen, writer: StreamWriter, via: str | None) -> None:
    """Keep the peer, where --remember says so. What cannot be kept is told: the stream is there, and goes on.

    Raises: LinkError where the stream was lost meanwhile.
    """
    if options.remember is None:
        return
    from simopen.rendezvous.peers import remember

    try:
        known = await remember(options.remember, writer, via=via, allow_plain=options.allow_plain)
    except PeerError as error:
        screen.note(f"the peer is not remembered: {error}")
    except BaseException:
        writer.transport.abort()
        raise
    else:
        screen.say(f"simopen: remembered: @{known.name} meets this peer again, once it has remembered this side, too")
