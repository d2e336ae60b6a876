"""How to punch, whomever at: what callers of `connect` and `punch` may say, judged once, before anything is done.

Theory of operation: from here on one frozen `Options` travels, not a dozen arguments. `Common` names those of them that
go with every kind of peer, for the type checker alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from simopen.clock import scheduler as threads
from simopen.clock.instant import Instant, positive_s
from simopen.clock.scheduler import Scheduler
from simopen.clock.source import ClockArgument, TimeSource, as_clock
from simopen.clock.true_time import When
from simopen.holepunch.callback import NOBODY, Teller
from simopen.link.session import Session
from simopen.model.endpoint import Local
from simopen.model.event import OnEvent
from simopen.model.shot import Plan
from simopen.net import registries
from simopen.net.registries import Registries
from simopen.net.tcp_keepalive import KEEPALIVE_S, USER_TIMEOUT_S, Liveness

WINDOW_S = 10.0
"""Long enough for SYNs lost twice (the kernel resends after 1, 2, ... s) and for clocks that nobody has set in a
while; short enough for somebody who waits for a verdict."""


class Common(TypedDict, total=False):
    """What goes along with an endpoint, with a profile, and with a ticket."""

    first_ttl: int | None
    at: Instant
    window: float
    listen: bool
    clock: ClockArgument
    keepalive: float | None
    user_timeout: float | None
    on_event: OnEvent | None


class CommonOfStreams(Common, total=False):
    """The same for `connect`."""

    limit: int


class Keyed(CommonOfStreams, total=False):
    """The same for `connect`, where a key is not in the tickets."""

    key: bytes | None


@dataclass(frozen=True, slots=True)
class Options:
    """As told; `window_ns` and `when` are read from that. `plan`: the two tickets', where it is made already.

    `session`: what the peer is to prove; None: nothing. `scheduler`: whose thread waits for the instant, and fires.
    `ours`: what this process's punches share.
    """

    when: When
    is_at_told: bool
    window_s: float
    window_ns: int
    clock: TimeSource
    local: Local
    listen: bool
    spray: bool
    first_ttl: int | None
    liveness: Liveness
    tell: Teller
    plan: Plan | None
    session: Session | None = None
    scheduler: Scheduler = threads.shared
    ours: Registries = registries.shared

    @classmethod
    def told(
        cls,
        *,
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
        plan: Plan | None = None,
        key: bytes | None = None,
        scheduler: Scheduler = threads.shared,
    ) -> Options:
        """The arguments of `connect`, judged. Raises: TypeError, ValueError."""
        source, liveness = as_clock(clock), Liveness(keepalive, user_timeout)
        tell = NOBODY if on_event is None else Teller(on_event)
        when = When.told(at, source)
        window_ns = round(positive_s("window", window) * 1e9)
        hops = _hops(first_ttl)
        session = None if key is None else Session.bare(key)
        return cls(
            when,
            at is not None,
            window,
            window_ns,
            source,
            local,
            listen,
            spray,
            hops,
            liveness,
            tell,
            plan,
            session,
            scheduler,
        )

    def hops(self, when: When) -> int | None:
        """`first_ttl`, where its shots have an instant to come before. Raises: ValueError where they have none."""
        if self.first_ttl is not None and when.is_now:
            raise ValueError("first_ttl needs an instant: the first shots come before it")
        return self.first_ttl


def _hops(first_ttl: int | None) -> int | None:
    if first_ttl is None:
        return None
    if isinstance(first_ttl, bool) or not isinstance(first_ttl, int):
        raise TypeError(f"first_ttl must be an int, not {type(first_ttl).__name__}")
    if not 1 <= first_ttl <= 255:
        raise ValueError(f"first_ttl must lie between 1 and 255 hops, not {first_ttl}")
    return first_ttl
