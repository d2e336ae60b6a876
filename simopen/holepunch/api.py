"""The public calls, `connect`, `punch` and `connect_self`: whatever was named, from here on there is one road.

Theory of operation: the arguments become one value (`options`), whom to fire at another (`targets`); `firing` waits for
the instant and brings the stream, which is handed over as a socket, as asyncio's streams, or as a link's.
"""

from __future__ import annotations

import asyncio
import errno
import time
from dataclasses import replace
from functools import partial
from socket import socket
from typing import TYPE_CHECKING, Unpack, overload

from simopen.clock.instant import Instant
from simopen.clock.source import CHECK_TIMEOUT_S, ClockArgument, TimeSource
from simopen.clock.true_time import When, good_enough_s, learn, patience_s
from simopen.errors import PunchError, lost_at_once
from simopen.holepunch.firing import in_window, stopped_by
from simopen.holepunch.options import WINDOW_S, Common, CommonOfStreams, Keyed, Options
from simopen.holepunch.runner import Runner
from simopen.holepunch.targets import Aim, Order, budgeted, named, planned
from simopen.holepunch.trace import Trace
from simopen.link.session import Session
from simopen.model.endpoint import Endpoint, Local, Peer, local_endpoint, normalise
from simopen.model.event import OnEvent, Up, Verified
from simopen.model.nat import Profile
from simopen.model.report import Report
from simopen.model.times import MonoNs
from simopen.model.wording import quoted
from simopen.net.sockets import connect as connect_socket
from simopen.net.sockets import is_self_connected, keep, open_socket
from simopen.net.streams import STREAM_LIMIT, streams_over
from simopen.net.tcp_keepalive import KEEPALIVE_S, USER_TIMEOUT_S, Liveness
from simopen.ticket.agreement import agreed_instant, both_spray, later_instant, session
from simopen.ticket.codec import Ticket, check_hosts, looks_like_ticket

if TYPE_CHECKING:  # what it imports takes 0.1 s to load
    from simopen.holepunch.verification import Verification


@overload
async def connect(
    peer: Peer, *, local: Local = None, **options: Unpack[Keyed]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]: ...
@overload
async def connect(
    peer: Ticket, *, mine: Ticket, spray: bool = False, **options: Unpack[CommonOfStreams]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]: ...
@overload
async def connect(
    peer: Profile, *, mine: Profile, spray: bool = False, **options: Unpack[Keyed]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]: ...
async def connect(
    peer: Peer | Profile | Ticket,
    *,
    mine: Profile | Ticket | None = None,
    spray: bool = False,
    first_ttl: int | None = None,
    at: Instant = None,
    local: Local = None,
    window: float = WINDOW_S,
    listen: bool = True,
    clock: ClockArgument = None,
    keepalive: float | None = KEEPALIVE_S,
    user_timeout: float | None = USER_TIMEOUT_S,
    on_event: OnEvent | None = None,
    limit: int = STREAM_LIMIT,
    key: bytes | None = None,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Like `asyncio.open_connection`, to a peer that does the same at the same instant.

    Returns asyncio's own (reader, writer); `writer.get_extra_info("simopen")` is the `Report`.
    `writer.start_tls(context, server_side=...)` takes a stream without a key to TLS in either role.

    Args:
        peer: (host, port), or several such pairs, fired at side by side from the one local port. Where several answer,
            the first named wins: name them in the same order of preference on both sides. Or the peer's `Ticket`, or
            its `Profile`.
        mine: this side's own ticket or profile, as the peer has it: the two make the plan of what to fire. Profiles'
            observations are timed in UTC ns, as a ticket's are. The local port is the profile's; left out, the instant
            is the later one of two tickets.
        spray: whether a plan may take up to 450 SYNs a second for 5 s, at random ports of the peer's NAT. It may, too,
            where both tickets allow it; to pass it here is to know that the peer does, as its plan must be the same.
        first_ttl: hops, 1 to 255: half a second before the instant, first shots that go no further open this side's
            own NAT, so that it lets in a peer who fires a little early, and does not answer, close a mapping or shut
            the peer out. Enough to get out of one's own NATs, and too few to reach the peer's.
        at: the instant: an aware `datetime`, UTC seconds since 1970, or what `read_instant` made of a text, which is
            resolved once the clock is checked; left out, now.
        local: the local port or (IP address, port); left out, the peer's port number. The peer must fire at it.
        window: seconds after the instant during which SYNs are repeated and a stream is accepted.
        listen: also accept the stream on the local port: it catches a peer whose SYN finds none of ours in flight,
            or whose NAT chose another port. Without it only simultaneous open connects.
        clock: an `Estimate` of `check_clock`, a `Clock`, or NTP servers to ask; left out, the kernel's word where it is
            good enough, else public NTP servers. Asked while waiting: that delays a shot only where the instant is
            nearer than half a second, or over, by a clock that nobody has checked.
        keepalive: seconds, 1 to 32,767, in whole ones: on an idle stream the kernel then sends a probe, which keeps
            NATs from forgetting it; where nobody answers, further ones follow three times as often. None: no probes.
        user_timeout: seconds, from 0.001 on: a peer that acknowledges nothing for so long, neither data nor probes, is
            gone, and so is one that takes nothing for so long while data waits for it; whoever reads or writes then
            meets ETIMEDOUT, a reader by a third of `keepalive` later. None: the kernel's own, minutes. Linux only.
        on_event: called in the event loop with an `Event` at each step: `Resolved`, `ClockKnown`, `Armed`, `Fired`,
            `Answered`, `Up`, `Verified`. What it raises is logged and harms nothing; while it runs, the loop waits,
            so let it be quick. `on_event=print` shows the steps.
        limit: the reader's buffer limit in bytes, as asyncio's.
        key: at least 16 random bytes that the peer has, too, and nobody else: `simopen.new_key()` makes one. The
            stream is then a link: both ends have proven the key, by TLS 1.3, and nobody on the way reads or alters what
            it carries. An end that the peer did not send is an error (`LinkBroken`). Without a key whoever answers at
            the peer's address is taken for it. Two tickets carry a key of their own: theirs is always a link.

    Raises:
        TypeError, ValueError: a bad argument, a naive datetime among them.
        TicketError: the tickets' instants are over by true time, or years away, or both are the same ticket.
        ResolutionError, LocalEndpointError, SelfConnection: before anything is sent.
        ImpossiblePair: at once, where the two profiles leave no way; the message says why.
        MissedInstant: the window had closed before anything could be sent.
        WindowClosed: the window ended without a stream.
        LinkError: streams came up, and nobody proved the key; at once where the peer's own endpoint answers with
            another key.
        PunchError: all of these but the first two; `report` tells what was tried, `diagnosis` why it failed.
    """
    _check_limit(limit)
    return await connected(
        peer,
        mine,
        Options.told(
            spray=spray,
            first_ttl=first_ttl,
            at=at,
            local=local,
            window=window,
            listen=listen,
            clock=clock,
            keepalive=keepalive,
            user_timeout=user_timeout,
            on_event=on_event,
            key=key,
        ),
        limit,
    )


async def connected(
    peer: Peer | Profile | Ticket, mine: Profile | Ticket | None, options: Options, limit: int = STREAM_LIMIT
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """`connect`, with its options judged."""
    if isinstance(peer, Ticket) and isinstance(mine, Ticket):
        if options.session is not None:
            raise TypeError("two tickets carry a key of their own: no other goes along with them")
        proves = session(mine, peer)
        met = await _linked(peer, mine, replace(options, session=proves), proves, limit)
        if mine.private is not None:  # until the peer has taken the link, both may have to try again
            met[1].get_extra_info("simopen_link").when_answered(mine.private.spend)
        return met
    if options.session is not None:
        return await _linked(peer, mine, options, options.session, limit)
    sock, report = await _punched(peer, mine, options)
    return await _streams(sock, limit, report)


async def _linked(
    peer: Peer | Profile | Ticket, mine: Profile | Ticket | None, options: Options, proves: Session, limit: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    from simopen.link.streams import streams

    runner, trace = await _opened(peer, mine, options, proves)
    with runner:
        stream, verification = await in_window(runner, trace), trace.verification
        assert verification is not None
        report = trace.report(stream)
        try:
            ends = normalise(stream.sock.getsockname()), stream.remote
            options.liveness.arrange(stream.sock)
        except OSError as error:  # it was reset, and the loop has closed it
            raise stopped_by(lost_at_once(), report) from error
        link = await verification.link()
        link.transport.gone = partial(options.ours.endings.note, ends)
    options.tell(Up(stream.established_ns, stream.remote, stream.via))
    options.tell(Verified(MonoNs(time.monotonic_ns()), stream.remote))
    return streams(link, replace(report, proof=link.proof), limit)


@overload
async def punch(peer: Peer, *, local: Local = None, **options: Unpack[Common]) -> tuple[socket, Report]: ...
@overload
async def punch(
    peer: Ticket, *, mine: Ticket, spray: bool = False, **options: Unpack[Common]
) -> tuple[socket, Report]: ...
@overload
async def punch(
    peer: Profile, *, mine: Profile, spray: bool = False, **options: Unpack[Common]
) -> tuple[socket, Report]: ...
async def punch(
    peer: Peer | Profile | Ticket,
    *,
    mine: Profile | Ticket | None = None,
    spray: bool = False,
    first_ttl: int | None = None,
    at: Instant = None,
    local: Local = None,
    window: float = WINDOW_S,
    listen: bool = True,
    clock: ClockArgument = None,
    keepalive: float | None = KEEPALIVE_S,
    user_timeout: float | None = USER_TIMEOUT_S,
    on_event: OnEvent | None = None,
) -> tuple[socket, Report]:
    """Open one direct TCP stream to a peer that does the same at the same instant; returns (socket, report).

    It is in the clear and proves nothing, with tickets, too: whoever answers at the peer's address is taken for it.
    Where both ends are to be proven, and a library takes only a socket, `bridge(await connect(...))` gives one.

    The socket is connected and non-blocking; pass it as `sock=` to any library. It is the caller's to close. What it is
    closed with, or shut down, leaves about one round trip after the stream came up at the earliest, or the routers on
    the way could not follow it, and would let no next stream between the same two endpoints in for a minute or more.
    Code that has only the descriptor, as uvloop's transports do, shuts it down at once: then wait that long before.

    The arguments, and what is raised, are those of `connect`, but for `limit`.
    """
    return await _punched(
        peer,
        mine,
        Options.told(
            spray=spray,
            first_ttl=first_ttl,
            at=at,
            local=local,
            window=window,
            listen=listen,
            clock=clock,
            keepalive=keepalive,
            user_timeout=user_timeout,
            on_event=on_event,
        ),
    )


async def _punched(
    peer: Peer | Profile | Ticket, mine: Profile | Ticket | None, options: Options
) -> tuple[socket, Report]:
    runner, trace = await _opened(peer, mine, options, None)
    with runner:
        stream = await in_window(runner, trace)
    options.liveness.arrange(stream.sock)
    sock, report = options.ours.endings.hold(stream.sock, stream.took_ns), trace.report(stream)
    options.tell(Up(stream.established_ns, stream.remote, stream.via))
    return sock, report


def _verification(proves: Session, aim: Aim) -> Verification:
    """Raises: LinkError where this host cannot do it."""
    from simopen.holepunch.verification import Verification

    # At a port that was foreseen or guessed, or one of several, anybody may be: then another key there proves nothing.
    return Verification(proves, ends_early=aim.plan is None and len(aim.peers) == 1)


async def _opened(
    peer: Peer | Profile | Ticket, mine: Profile | Ticket | None, options: Options, proves: Session | None
) -> tuple[Runner, Trace]:
    """All that there is before the instant. The runner is to be entered at once: what did not win is open inside."""
    order, hops, aim = await _aimed(peer, mine, options)
    shots, left, resends = budgeted(aim, hops)
    tell = options.tell
    trace = Trace(
        order,
        aim,
        options.window_s,
        hops,
        by_ticket=isinstance(peer, Ticket),
        by_code=not isinstance(peer, Ticket) and options.session is not None and options.session.role is not None,
        tell=tell,
        scheduler=options.scheduler,
    )
    trace.tell_peers()
    trace.verification = None if proves is None else _verification(proves, aim)
    trace.runner = Runner.opened(
        aim.local[0],
        shots,
        listen=options.listen,
        chooses=aim.chooses,
        left=left,
        resends=resends,
        tell=tell,
        verification=trace.verification,
        ours=options.ours,
    )
    return trace.runner, trace


async def _aimed(
    peer: Peer | Profile | Ticket, mine: Profile | Ticket | None, options: Options
) -> tuple[Order, int | None, Aim]:
    """When, and whom at, whatever kind of peer was named; from here on there is one road."""
    _check_together(peer, mine, options)
    when, spray, source = options.when, options.spray, options.clock
    if isinstance(peer, Ticket) and isinstance(mine, Ticket):
        check_hosts(peer)
        when = when if options.is_at_told else await _agreed(mine, peer, source, options.window_s)
        spray = spray or both_spray(mine, peer)
        peer, mine = peer.profile, mine.profile
    hops = options.hops(when)
    if _plan_depends_on_time(when, peer, mine):
        await learn(source, good_enough_s(source, options.window_s), CHECK_TIMEOUT_S)
    order = Order(when, options.window_ns, source)
    _check_loop()
    if isinstance(peer, Profile) and isinstance(mine, Profile):
        return order, hops, await planned(peer, mine, order, spray=spray, known=options.plan)
    assert not isinstance(peer, (Profile, Ticket))
    return order, hops, await named(peer, options.local, order)


def _check_together(peer: Peer | Profile | Ticket, mine: Profile | Ticket | None, options: Options) -> None:
    """What the overloads say, for those who have no type checker. Raises: TypeError."""
    if isinstance(peer, str) and looks_like_ticket(peer):
        raise TypeError("peer is a ticket's text: simopen.parse_ticket makes the ticket of it")
    if isinstance(mine, str):
        raise TypeError("mine is a text, which has no private half of its key: pass the ticket that `holding` made")
    if isinstance(peer, (Profile, Ticket)):
        if type(mine) is not type(peer) or options.local is not None:
            kind = "profile" if isinstance(peer, Profile) else "ticket"
            raise TypeError(f"with a peer's {kind}, this side's own goes along as `mine`, and names the local port")
    elif mine is not None:
        raise TypeError("a ticket or a profile of this side's own, as `mine`, goes along with one of the peer's")
    elif options.spray:
        raise TypeError("spray goes along with a peer's ticket or profile: an endpoint has no ports to guess")


async def connect_self(
    local: int | tuple[str, int],
    *,
    keepalive: float | None = KEEPALIVE_S,
    user_timeout: float | None = USER_TIMEOUT_S,
    limit: int = STREAM_LIMIT,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """One socket, connected to itself: what is written to it, it reads (RFC 9293 §3.5, with nobody else in play).

    `local`: a port on 127.0.0.1, or (IP address of this host, port). The rest is as in `connect`.

    Raises:
        TypeError, ValueError: not a port or an (IP address, port) pair.
        LocalEndpointError: the endpoint cannot be had.
        PunchError: the kernel did not connect the socket to itself: simultaneous open is switched off, or something
            listens on that port.
    """
    _check_limit(limit)
    liveness = Liveness(keepalive, user_timeout)
    address, port = local_endpoint(local, 0)
    endpoint = Endpoint(address or "127.0.0.1", port)
    sock = open_socket(endpoint, endpoint.family)
    try:
        await connect_socket(sock, endpoint)
        selfish = is_self_connected(sock)
        keep(sock)
        liveness.arrange(sock)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise _self_error(error, endpoint) from error
        raise
    if not selfish:
        sock.close()
        raise PunchError(f"something on this host listens on {endpoint} and took the connection")
    return await _streams(sock, limit, None)


def _self_error(error: OSError, endpoint: Endpoint) -> PunchError:
    if error.errno == errno.EADDRNOTAVAIL:  # its 5-tuple is taken, by another that is connected to itself
        other = endpoint.port + 1 if endpoint.port < 65535 else endpoint.port - 1
        return PunchError(f"port {endpoint.port} is in use: name another (simopen self {other})")
    return PunchError(f"the kernel would not connect {endpoint} to itself: {error.strerror}")


def _check_limit(limit: float) -> None:
    """Before a peer is met: asyncio would complain afterwards."""
    if not isinstance(limit, (int, float)):
        raise TypeError(f"limit is a number of bytes, not {quoted(limit)}")
    if not limit > 0:
        raise ValueError(f"limit must be above 0, not {limit}")


async def _agreed(mine: Ticket, theirs: Ticket, source: TimeSource, window_s: float) -> When:
    """The instant of two tickets. Raises: TicketError where by true time that is over, or years away."""
    left_s = later_instant(mine, theirs) - source.now_estimate().utc_ns / 1e9
    learnt = await learn(source, good_enough_s(source, window_s), patience_s(left_s, window_s))
    return When.told(agreed_instant(mine, theirs, learnt.estimate.utc_ns / 1e9, window_s), source)


def _plan_depends_on_time(when: When, *sides: Peer | Profile | Ticket | None) -> bool:
    """Whether a plan is to be made for when nobody knows yet: a row of ports is further on by then."""
    profiles = [side for side in sides if isinstance(side, Profile)]
    return bool(profiles) and (when.is_unresolved or (when.is_now and any(side.step is not None for side in profiles)))


def _check_loop() -> None:
    if isinstance(asyncio.get_running_loop(), getattr(asyncio, "ProactorEventLoop", ())):
        raise PunchError(
            "this needs a selector event loop: asyncio.run(main(), loop_factory=asyncio.SelectorEventLoop)"
        )


async def _streams(
    sock: socket, limit: int, report: Report | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        reader, writer = await streams_over(sock, limit)
    except OSError as error:
        raise _not_taken(error, report) from error
    writer.simopen_report = report
    return reader, writer


def _not_taken(error: OSError, report: Report | None) -> PunchError:
    """For a stream that is up, and that the event loop would not have."""
    told = PunchError(f"the stream came up, but this program's event loop could not take it: {error.strerror or error}")
    return told if report is None else stopped_by(told, report)
