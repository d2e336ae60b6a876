"""Whom `simopen connect` will fire at, and when: by HOST and PORT or by ticket, from what was typed.

Theory of operation: a ticket is told from a host's name by how it looks, and nothing that looks like one is ever
looked up. This side's own ticket is needed, too: `--mine`, or the one that `simopen nat --ticket` holds on this host
(`ticket.store`), which stays held until the punch is over.
"""

from __future__ import annotations

import argparse
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from simopen.cli import key
from simopen.cli.arguments import UsageError, judged
from simopen.cli.console import Screen
from simopen.clock.source import TimeSource
from simopen.clock.true_time import When, good_enough_s, learn, local_note, must_ask, patience_s, remark
from simopen.errors import Flaw, TicketError
from simopen.holepunch import api
from simopen.holepunch.diagnosis import ago
from simopen.holepunch.options import Options
from simopen.holepunch.targets import possible
from simopen.model.endpoint import Endpoint, host_and_port, peer_endpoints
from simopen.model.estimate import Estimate
from simopen.model.event import OnEvent
from simopen.model.shot import Plan
from simopen.model.times import UtcNs
from simopen.model.wording import quoted, shown
from simopen.ticket import store
from simopen.ticket.agreement import LATE_S, agreed_instant, both_spray, later_instant
from simopen.ticket.codec import Ticket, check_hosts, looks_like_ticket, parse_ticket
from simopen.ticket.keys import NEW

# What the tickets say, and nobody else.
_IN_TICKETS = {
    "port": "PORT",
    "at": "--at",
    "local_port": "--local-port",
    "local_address": "--local-address",
    "key": "--key",
    "key_file": "--key-file",
    "key_env": "--key-env",
}


@dataclass(frozen=True, slots=True)
class Call:
    """Whom this side will fire at, by name; at which instant (UTC seconds; None: now); and the call that does it.

    `told`: what is worth saying before that. `by`: the same call by what was learnt of the time since; it raises
    TicketError where by that a ticket is of no use. `proves`: who the peer is, where a link is proven.
    """

    whom: str
    at: float | None
    streams: Callable[[OnEvent], Coroutine[object, object, tuple[StreamReader, StreamWriter]]]
    told: tuple[str, ...]
    by: Callable[[Estimate], Call]
    when: When
    proves: str

    def by_time(self, estimate: Estimate) -> float | None:
        """The instant as `at` tells it, if that is the time: the clock may become known only while the call waits."""
        return None if self.when.is_now else self.when.utc_ns(estimate) / 1e9


@contextlib.contextmanager
def called(
    options: argparse.Namespace,
    source: TimeSource,
    where: store.Places | None = None,
    screen: Screen | None = None,
) -> Iterator[Call]:
    """Whom the options mean. Where that is a ticket, this side's mapping stays held while inside.

    When, and whether a ticket is of use, is told by what the time is: where somebody can be asked that, `by_true_time`
    is to follow. `where`: where this side's ticket lies; left out, the usual places. `screen`: where it is said how a
    key is at risk.

    Raises: UsageError for what cannot be meant; TicketError for a ticket that cannot be used;
    ImpossiblePair for two tickets that leave no way.
    """
    estimate = source.now_estimate()
    if _means_host(options):
        with judged():
            _to_host(options, When.told(options.at, source), source, None, estimate)  # before a key is asked for
        secret = key.told(options, screen or Screen(quiet=True))
        yield _to_host(options, When.told(options.at, source), source, secret, estimate)
        return
    _refuse(options, _IN_TICKETS, "the tickets say that")
    theirs = parse_ticket(options.host)
    check_hosts(theirs)
    with _own_ticket(options.mine, where or store.directories()) as mine:
        unknown = must_ask(source, estimate, good_enough_s(source, options.window))
        with judged():
            call = _to_ticket(_Planned.of(theirs, mine, spray=options.spray), options, source, estimate)
            call = call if unknown else call.by(estimate)
        yield call


async def by_true_time(call: Call, source: TimeSource, window_s: float, screen: Screen) -> Call:
    """The same call, once the time is known as well as it can be; says where this machine's clock is wrong."""
    if call.at is None:
        return call
    estimate, good_s = source.now_estimate(), good_enough_s(source, window_s)
    asking_s = patience_s(call.at - estimate.utc_ns / 1e9, window_s)
    with contextlib.ExitStack() as stack:
        if must_ask(source, estimate, good_s):
            stack.enter_context(screen.line("asking the time servers what the time is ..."))
        learnt = await learn(source, good_s, asking_s)
    if text := remark(learnt):
        screen.note(text)
    with judged():
        return call.by(learnt.estimate)


def _means_host(options: argparse.Namespace) -> bool:
    if looks_like_ticket(options.host):
        return False
    key.require_host(options)
    if options.port is None:
        _complain_of_cut_ticket(options.host)
    _refuse(options, {"mine": "--mine", "spray": "--spray"}, "they go with a ticket")
    return True


def _complain_of_cut_ticket(text: str) -> None:
    """A little of a ticket is told from the beginning of a ticket; everything else is a host."""
    try:
        parse_ticket(text)
    except TicketError as error:
        if error.flaw is Flaw.CUT_SHORT:
            raise


def _peer(options: argparse.Namespace) -> tuple[str, int]:
    """HOST and PORT, which may be typed as one word."""
    host, port = host_and_port(options.host)
    if port is not None and options.port not in {None, port}:
        raise UsageError(f"two ports are named, {port} and {options.port}: leave one out")
    port = options.port if port is None else port
    if port is None:
        said = quoted(options.host)
        raise UsageError(f"PORT is missing: `simopen connect HOST PORT`, or a ticket; and {said} is no ticket")
    return host, port


def _refuse(options: argparse.Namespace, names: dict[str, str], why: str) -> None:
    given = [said for name, said in names.items() if getattr(options, name) not in {None, False}]
    if given:
        raise UsageError(f"leave out {' and '.join(given)}: {why}")


@contextlib.contextmanager
def _own_ticket(given: Ticket | None, where: store.Places) -> Iterator[Ticket]:
    with store.in_use(where, given) as held:
        if given and not held:
            raise TicketError(Flaw.KEYLESS, f"`simopen nat --ticket`, which made it, does not run here any more; {NEW}")
        if not held:
            raise UsageError(
                "no ticket is held on this host, and the peer needs one as well: run `simopen nat --ticket` in another "
                "terminal, leave it running, give its ticket to your peer, and then run this again"
            )
        if len(held) > 1:
            raise UsageError(f"{len(held)} tickets are held on this host: name the one that your peer has with --mine")
        yield held[0]


def _to_host(
    options: argparse.Namespace, when: When, source: TimeSource, secret: bytes | None, estimate: Estimate
) -> Call:
    host, port = _peer(options)
    peer_endpoints((host, port))  # complains of what is no single host's
    if options.first_ttl is not None and when.is_now:
        raise UsageError("--first-ttl needs --at: the first shots come before the instant")
    local_port = options.local_port or port
    at_s = None if when.is_now else when.utc_ns(estimate) / 1e9
    return Call(
        str(Endpoint(shown(host), port)),  # a name, maybe: for the brackets
        at_s,
        lambda on_event: api.connect(
            (host, port),
            at=when.as_told,
            local=(options.local_address, local_port) if options.local_address else local_port,
            window=options.window,
            listen=options.listen,
            first_ttl=options.first_ttl,
            clock=source,
            key=secret,
            keepalive=options.keepalive,
            user_timeout=options.user_timeout,
            on_event=on_event,
        ),
        tuple(_if_local(when, estimate)),
        partial(_to_host, options, when, source, secret),
        when,
        "who has the key, too",
    )


def _if_local(when: When, estimate: Estimate) -> Iterator[str]:
    if text := local_note(when, estimate):
        yield f"note: {text}"


@dataclass(frozen=True, slots=True)
class _Planned:
    """Two tickets, and what they come to. None of it depends on what is learnt of the time: so it is made once."""

    theirs: Ticket
    mine: Ticket
    instant: int
    spray: bool
    plan: Plan

    @classmethod
    def of(cls, theirs: Ticket, mine: Ticket, *, spray: bool) -> _Planned:
        """Raises: ImpossiblePair for two that leave no way; TicketError for one and the same."""
        instant, spray = later_instant(mine, theirs), spray or both_spray(mine, theirs)
        plan = possible(mine.profile, theirs.profile, now_ns=UtcNs(instant * 10**9), spray=spray)
        return cls(theirs, mine, instant, spray, plan)

    def to_tell(self, now_s: float) -> Iterator[str]:
        """What is worth saying before the call."""
        yield from _if_old(self.theirs, now_s)
        yield from _told(self.plan, self.mine, self.theirs, spray=self.spray)


def _judged(planned: _Planned, options: argparse.Namespace, source: TimeSource, estimate: Estimate) -> Call:
    agreed_instant(planned.mine, planned.theirs, estimate.utc_ns / 1e9, options.window)
    return _to_ticket(planned, options, source, estimate)


def _to_ticket(planned: _Planned, options: argparse.Namespace, source: TimeSource, estimate: Estimate) -> Call:
    return Call(
        str(planned.theirs.profile.mapped or "the ticket's owner"),
        planned.instant,
        lambda on_event: api.connected(
            planned.theirs,
            planned.mine,
            Options.told(
                at=planned.instant,
                spray=planned.spray,
                first_ttl=options.first_ttl,
                window=options.window,
                listen=options.listen,
                clock=source,
                keepalive=options.keepalive,
                user_timeout=options.user_timeout,
                on_event=on_event,
                plan=planned.plan,
            ),
        ),
        tuple(planned.to_tell(estimate.utc_ns / 1e9)),
        partial(_judged, planned, options, source),
        When.told(planned.instant, source),
        "the one who made that ticket",
    )


def _if_old(theirs: Ticket, now_s: float) -> Iterator[str]:
    """Its owner may have a `connect` that holds the mapping until the later instant, and may not."""
    late_s = now_s - theirs.instant
    if late_s > LATE_S:
        yield (
            f"note: your peer's ticket was for {datetime.fromtimestamp(theirs.instant, UTC):%H:%M:%S} UTC, "
            f"{ago(round(late_s * 1e9))} ago: it works only if your peer's `simopen connect` has been running since; "
            f"else ask for a new one"
        )


def _told(plan: Plan, mine: Ticket, theirs: Ticket, *, spray: bool) -> Iterator[str]:
    """The plan; and where it sprays, or would, what the two tickets say of that."""
    if plan.sprays and spray and not both_spray(mine, theirs):
        yield f"plan: {plan.why}, if your peer runs with --spray, too: {_lacking(mine, theirs)}"
        return
    yield f"plan: {plan.why}"
    if plan.sprays and not spray:
        yield (
            "note: this way fails where that NAT asks for the port, too; with hundreds of SYNs a second it would be "
            f"tried, but {_lacking(mine, theirs)}: run this with --spray on both sides, or make both tickets by "
            "`simopen nat --ticket --spray`"
        )


def _lacking(mine: Ticket, theirs: Ticket) -> str:
    if mine.spray:
        return "your peer's ticket does not allow it"
    return "your own ticket does not allow it" if theirs.spray else "neither ticket allows it"
