"""The one place that makes tickets: a new key for each."""

from __future__ import annotations

import math

from simopen.model.nat import Profile
from simopen.ticket.codec import Ticket, in_utc
from simopen.ticket.keys import PrivateKey


def issued(profile: Profile, at: float, local_port: int, *, ahead_ns: int, spray: bool = False) -> Ticket:
    """A ticket of this side's own, with a new key.

    `at`: the instant, UTC seconds, rounded up to whole ones. `ahead_ns`: add it to the clock of the profile's
    observations to get UTC.
    """
    private = PrivateKey.new()
    return Ticket(in_utc(profile, ahead_ns), math.ceil(at), local_port, private.public(), spray, private)
