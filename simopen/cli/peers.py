"""`simopen peers`: the peers that can be met again without a code, and what to do about them."""

from __future__ import annotations

import argparse
import json

from simopen.cli.arguments import UsageError
from simopen.cli.console import Screen, answer
from simopen.errors import PeerError

EXAMPLE = """\
at the first meeting, each names the other as it likes:
  one$    simopen meet --remember laptop
  other$  simopen meet --remember desk 7-croissant-zucchini
and from then on:
  one$    simopen forward --listen 8080 --to localhost:80 @laptop
  other$  simopen forward --allow localhost:80 @desk
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen peers` takes."""
    parser.add_argument(
        "--forget",
        metavar="NAME",
        action="append",
        default=[],
        help="remove what is kept of this peer; may be repeated",
    )
    parser.add_argument("--rename", metavar=("NAME", "NEW"), nargs=2, help="call this peer NEW from now on")


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """The whole command. Returns the exit status. Raises: UsageError; PeerError for a name that is not known."""
    from simopen.rendezvous import peers

    if options.rename is not None and options.forget:
        raise UsageError("leave out --forget or --rename: one at a time")
    if options.rename is not None:
        peers.rename(*options.rename)
        screen.say(f"simopen: {options.rename[0]} is called {options.rename[1]} from now on")
        return 0
    for name in options.forget:
        peers.forget(name)
        screen.say(f"simopen: {name} is forgotten here; it may still wait for this computer until it forgets, too")
    if not options.forget:
        _show(options, screen)
    return 0


def _show(options: argparse.Namespace, screen: Screen) -> None:
    from simopen.rendezvous import peers

    rows: list[tuple[str, ...]] = []
    said: list[dict[str, str | None]] = []
    for name in peers.names():
        try:
            known = peers.known_peer(name)
        except PeerError as error:
            screen.note(str(error))
            said.append({"name": name, "error": str(error)})
            continue
        via = _without_login(known.via)
        rows.append((f"@{name}", known.since, via or "-"))
        said.append({"name": name, "since": known.since, "via": via})
    if options.json:
        answer(json.dumps({"peers": said}))
    elif rows:
        screen.table("peers that can be met without a code", ("peer", "since", "meets at"), rows)
    elif not said:
        screen.say("simopen: no peer is remembered yet: meet one with --remember NAME, on both sides")


def _without_login(via: str | None) -> str | None:
    """A URL as it may be shown."""
    from simopen.signalling.via import read_via

    return None if via is None else str(read_via(via, allow_plain=True))
