"""`simopen nat`: what the NATs in front of a port do, in a table, and what that means to its user.

Theory of operation: `discovery` finds out; here a profile becomes words. They say what follows from RFC 4787's classes
for a peer that wants to be met, and nothing that was not observed. With `--ticket`, `nat_ticket` goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from functools import partial
from typing import TYPE_CHECKING, TextIO

from simopen.cli.arguments import (
    STUN_TIMEOUT_S,
    UsageError,
    add_instant,
    add_stun_servers,
    add_time_servers,
    add_timeout,
    argument,
    judged,
    port,
)
from simopen.cli.console import Screen, answer
from simopen.holepunch.prospects import prospects
from simopen.net.aside import aside

if TYPE_CHECKING:
    from simopen.clock.source import TimeSource
    from simopen.model.nat import Profile
    from simopen.ticket.codec import Ticket
    from simopen.ticket.hold import Held

EXAMPLE = """\
to meet a peer, make a ticket each, in one terminal, and leave it running:
  one$    simopen nat --ticket
  other$  simopen nat --ticket
and exchange them; then each, in another terminal of the same host:
  one$    simopen connect OTHERS-TICKET
  other$  simopen connect ONES-TICKET
"""
Row = tuple[str, str, str]

_MAPPING = {
    "none": "peers fire at this host's own address",
    "endpoint-independent": "every peer sees the same public endpoint, so any peer can fire at it",
    "address-dependent": "each peer's address sees another public endpoint",
    "address-and-port-dependent": 'each peer sees another public endpoint ("symmetric NAT")',
    "unknown": "too little was seen, or it contradicts itself",
}
_ALLOCATION = {
    "port-preserving": "the public port is this host's own: a peer knows it beforehand",
    "constant-delta": "the public port is this host's own and a constant: a peer can know it beforehand",
    "sequential": "the next public port can be guessed",
    "random": "a new public port cannot be guessed",
    "unknown": "too little was seen",
}
_POOLING = {
    "paired": "always the same public address",
    "arbitrary": "each mapping may have another public address",
    "unknown": "too little was seen",
}
_HAIRPINNING = {
    True: ("yes", "peers behind the same NAT can meet at its public address"),
    False: ("no", "peers behind the same NAT must meet at their own addresses"),
    None: ("unknown", "it was not tried, or what came of it does not tell"),
}
_FILTERING = {
    "endpoint-independent": "whoever knows the public endpoint gets in",
    "address-dependent": "any port of an address that was fired at gets in",
    "address-and-port-dependent": "only the very endpoint that was fired at gets in",
    "unknown": "to tell, a server must connect back: those of `simopen serve` do, at two addresses",
}
_LAYERS = {
    0: ("none", "nothing is translated"),
    1: ("one", "a port that is opened on the nearest router is open to the world"),
    2: ("two or more", "a further NAT, a carrier's maybe: opening a port on the nearest router does not help"),
    None: ("unknown", "what the nearest router says (NAT-PMP), if anything, does not tell"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen nat` takes."""
    parser.add_argument(
        "--local-port", metavar="N", type=argument(port), help="ask from this port (default: a free one)"
    )
    add_stun_servers(parser)
    add_timeout(parser, STUN_TIMEOUT_S)
    parser.add_argument(
        "--ticket",
        action="store_true",
        help="print a ticket for your peer, alone on standard output, and hold the mapping for `simopen connect`",
    )
    parser.add_argument(
        "--spray",
        action="store_true",
        help="with --ticket, on both sides: where the two NATs leave nothing else, let `simopen connect` try very many "
        "ports, with up to 450 SYNs a second for 5 s (default: no)",
    )
    add_instant(parser, "the full ten seconds two minutes ahead (with --ticket)")
    add_time_servers(parser)


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """The whole command. Returns the exit status.

    Raises: StunError where no server answered; LocalEndpointError for a port that cannot be had.
    """
    from simopen.cli.nat_ticket import learn_the_time
    from simopen.clock.source import chosen
    from simopen.nat.stun_tcp import DEFAULT_SERVERS, parse_servers
    from simopen.ticket.hold import holding

    if options.at is not None and not options.ticket:
        raise UsageError("--at goes with --ticket: a ticket carries an instant")
    if options.spray and not options.ticket:
        raise UsageError("--spray goes with --ticket: a ticket carries your consent to it")
    servers = options.stun or DEFAULT_SERVERS
    with judged():
        source = chosen(options.ntp, ask=not options.no_ntp)
        parse_servers(servers)
    at = await learn_the_time(source, screen, options.at, options.timeout) if options.ticket else None
    async with contextlib.AsyncExitStack() as stack:
        with screen.line("asking the STUN servers ..."):
            wanted = not options.ticket
            held = holding(options.local_port, servers=servers, timeout=options.timeout, filtering=wanted)
            found = await stack.enter_async_context(held)
        if options.ticket:
            await _invite(found, source, at, options, screen)
        else:
            await _tell(found, options, screen)
    return 0


async def _tell(found: Held, options: argparse.Namespace, screen: Screen) -> None:
    found.give_up()
    await _foreseen(found)
    if options.json:
        answer(json.dumps(_all_of(found)))
    else:
        _draw(found, screen, sys.stdout)


async def _invite(
    found: Held, source: TimeSource, at: float | None, options: argparse.Namespace, screen: Screen
) -> None:
    from simopen.cli.nat_ticket import Invitation
    from simopen.ticket import store

    if options.verbose or options.json:
        await _foreseen(found)
    if options.verbose:
        _draw(found, screen, sys.stderr)  # standard output is for the ticket
    else:
        screen.say(f"public endpoint {found.profile.mapped}: {_MAPPING[found.profile.mapping.value]}")
    show = partial(_show, found, screen, as_json=options.json)
    await Invitation(found, source, screen, show, store.directories(), options.spray).hold(at)


async def _foreseen(found: Held) -> None:
    """Have at hand whom this host can meet: to find out takes a thread up to a second, and the mapping is kept."""
    await aside(prospects, found.profile)


def _draw(found: Held, screen: Screen, where: TextIO) -> None:
    title, columns = "the NATs in front of this host, as TCP meets them", ("what", "found", "means")
    screen.table(title, columns, rows(found.profile), where)
    _tell_notes(found, screen)


def _tell_notes(found: Held, screen: Screen) -> None:
    for note in found.notes:
        screen.note(note)


def _all_of(found: Held) -> dict[str, object]:
    return as_dict(found.profile) | {"notes": found.notes, "servers": list(map(str, found.servers))}


def _show(found: Held, screen: Screen, ticket: Ticket, *, as_json: bool) -> None:
    text = ticket.encode()
    _tell_notes(found, screen)
    told = json.dumps(_all_of(found) | {"ticket": text, "instant": ticket.instant}) if as_json else text
    if is_seen := sys.stdout.isatty():
        screen.say("")
    answer(told)  # whoever reads it in a pipe waits for it
    if is_seen:
        screen.say("")


def rows(profile: Profile) -> list[Row]:
    """What was found, and what it means, by RFC 4787's words."""
    told = [
        ("mapping", profile.mapping.value, _MAPPING[profile.mapping.value]),
        ("port allocation", _allocation(profile), _ALLOCATION[profile.allocation.value]),
        ("address pooling", profile.pooling.value, _POOLING[profile.pooling.value]),
        ("filtering", profile.filtering.value, _FILTERING[profile.filtering.value]),
        ("hairpinning", *_HAIRPINNING[profile.hairpinning]),
        ("NATs in a row", *_LAYERS[profile.layers]),
        ("sure of the first two", f"{profile.confidence:.0%}", f"from {len(profile.observations)} answers"),
    ]
    if profile.mapped is not None:
        told.insert(0, ("public endpoint", str(profile.mapped), "where the servers saw this port"))
    return told + [(f"peers behind {each.peer}", each.verdict, each.why) for each in prospects(profile)]


def _allocation(profile: Profile) -> str:
    if profile.step is not None and profile.busy is not None:
        return f"sequential, step {profile.step}, others take {profile.busy:.0%}"
    return profile.allocation.value if profile.delta is None else f"{profile.allocation.value}, {profile.delta:+d}"


def as_dict(profile: Profile) -> dict[str, object]:
    """For JSON: RFC 4787's words, endpoints as text, the evidence last."""
    words = {name: getattr(profile, name).value for name in ("mapping", "allocation", "filtering", "pooling")}
    numbers = {
        name: getattr(profile, name)
        for name in ("hairpinning", "layers", "step", "busy", "delta", "one_row", "confidence")
    }
    seen = [
        {"local": str(each.local), "server": str(each.server), "mapped": str(each.mapped)}
        for each in profile.observations
    ]
    mapped = None if profile.mapped is None else str(profile.mapped)
    meets = [each._asdict() for each in prospects(profile)]
    return {
        **words,
        **numbers,
        "mapped": mapped,
        "meets": meets,
        "hosts": list(map(str, profile.hosts)),
        "observations": seen,
    }
