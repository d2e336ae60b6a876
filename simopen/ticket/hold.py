"""The one place that makes tickets, a new key for each; and holds the mapping that they name."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager

from simopen import _logs
from simopen.clock.instant import Instant, checked, next_slot
from simopen.clock.source import CHECK_TIMEOUT_S, ClockArgument, as_clock, kernel_word, plain
from simopen.clock.true_time import When, is_news, learn, remark
from simopen.model.endpoint import Local, Reach, refusal
from simopen.model.estimate import Estimate
from simopen.model.nat import Profile
from simopen.model.times import MonoNs
from simopen.model.wording import FEW, listed
from simopen.nat.discovery import TIMEOUT_S, Discovery, discovering
from simopen.nat.stun_tcp import DEFAULT_SERVERS
from simopen.ticket.codec import Ticket, in_utc
from simopen.ticket.keys import PrivateKey

logger = _logs.logger("discovery")

LEAD_S = 120.0
"""Until a ticket's instant, unless one is named: two people copy, send and paste a word each."""


def holding(
    local: Local = None,
    *,
    servers: Sequence[str | tuple[str, int]] = DEFAULT_SERVERS,
    timeout: float = TIMEOUT_S,
    filtering: bool = False,
) -> AbstractAsyncContextManager[Held]:
    """`discover`, and hold the mapping while inside: `async with holding(1314) as found: print(found.profile)`.

    The connections to the servers stay open and are asked again every 25 s; where all servers have hung up, one is
    connected to anew. Leaving closes them by FIN. `filtering`: whether to find that out, too, as `discover` does, which
    may take a second more; whom this host can meet does not depend on it. Arguments and errors are as in `discover`.
    """
    return discovering(local, servers=servers, timeout=timeout, kind=Held, filtering=filtering)


class Held(Discovery):
    """A `Discovery` that makes tickets, good as long as it holds the mapping. Made by `holding`."""

    @property
    def notes(self) -> tuple[str, ...]:
        """As a `Discovery`'s; and, first, where a ticket of this host's would be of no use to anybody, and why."""
        return (*unreachable(self.profile), *super().notes)

    def ticket(self, at: float | None = None, now: Estimate | None = None, *, spray: bool = False) -> Ticket:
        """What the peer needs to know, as one word once encoded; good as long as this holds the mapping.

        `at`: the instant, UTC seconds; left out, a full ten seconds about two minutes ahead. `now`: what the time is;
        left out, the kernel's word or the local clock, which may be wrong: `make_ticket` asks first. `spray`: allow a
        plan hundreds of SYNs a second, where the peer's ticket does, too.

        One that no peer can use is logged: see `notes`. Raises: ValueError for an instant that no calendar holds.
        """
        for note in unreachable(self.profile):
            logger.warning("%s", note)
        now = now or kernel_word() or plain()
        if at is None:
            at = next_slot(lead_s=LEAD_S, now=now.utc_at(MonoNs(time.monotonic_ns())) / 1e9)
        return issued(self.profile, checked(at), self.port, ahead_ns=now.utc_at(MonoNs(0)), spray=spray)

    async def make_ticket(self, at: Instant = None, *, clock: ClockArgument = None, spray: bool = False) -> Ticket:
        """As `ticket`, by true time: time servers are asked first, unless the kernel's word is good enough.

        `at` and `clock` are as for `connect`; left out, `at` is about two minutes ahead. Where nobody tells the time,
        the ticket goes by the local clock, and that is logged.

        Raises: TypeError or ValueError for an instant or a clock that is none.
        """
        source = as_clock(clock)
        when = When.told(at, source)
        learnt = await learn(source, source.limit_s, CHECK_TIMEOUT_S)
        if (text := remark(learnt)) and is_news(source, learnt):
            logger.warning("%s", text)
        at_s = None if when.is_now else when.utc_ns(learnt.estimate) / 1e9
        return self.ticket(at_s, learnt.estimate, spray=spray)


def unreachable(profile: Profile) -> Iterator[str]:
    """What to say where no peer can use any endpoint of the profile's, wherever that peer is."""
    ends = [*profile.hosts, *([] if profile.mapped is None else [profile.mapped])]
    refused = {end._replace(address=end.address.partition("%")[0]): refusal(end, Reach.SITE) for end in ends}
    if None not in refused.values():
        yield (
            f"no peer can use a ticket of this host's, as it is known at {listed(refused, ', ', FEW)} only "
            f"({listed(refused.values())}): connect it to a network that leads further, or ask a STUN server beyond "
            f"this one, and then make a ticket anew"
        )


def issued(profile: Profile, at: float, local_port: int, *, ahead_ns: int, spray: bool = False) -> Ticket:
    """A ticket of this side's own, with a new key.

    `at`: the instant, UTC seconds, rounded up to whole ones. `ahead_ns`: add it to the clock of the profile's
    observations to get UTC.
    """
    private = PrivateKey.new()
    return Ticket(in_utc(profile, ahead_ns), math.ceil(at), local_port, private.public(), spray, private)
