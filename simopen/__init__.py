"""One direct TCP stream between two programs behind NATs, by coordinated simultaneous open.

    reader, writer = await simopen.connect(("203.0.113.7", 1314), at=t)

Run on two hosts with the same instant `t`, each naming the other's endpoint, this gives both the two ends of one TCP
stream, opened by SYNs that crossed on the way.
"""

import sys
from importlib import import_module

from simopen.lazy import loader

TYPE_CHECKING = False  # `typing` takes five times as long to load as this
if TYPE_CHECKING:
    from simopen.address import Endpoint
    from simopen.clock import Clock, Estimate, check_clock
    from simopen.diagnosis import Cause, Diagnosis
    from simopen.discovery import discover
    from simopen.errors import (
        ClockError,
        ImpossiblePair,
        LabError,
        LinkBroken,
        LinkError,
        LocalEndpointError,
        MissedInstant,
        PunchError,
        ResolutionError,
        SelfConnection,
        SimopenError,
        StunError,
        TicketError,
        WindowClosed,
    )
    from simopen.instant import next_slot, read_instant
    from simopen.link.session import new_key
    from simopen.nat import Profile
    from simopen.opening import connect, connect_self, punch
    from simopen.report import Attempt, Report
    from simopen.ticket import Ticket, parse_ticket

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "Cause",
    "Clock",
    "ClockError",
    "Diagnosis",
    "Endpoint",
    "Estimate",
    "ImpossiblePair",
    "LabError",
    "LinkBroken",
    "LinkError",
    "LocalEndpointError",
    "MissedInstant",
    "Profile",
    "PunchError",
    "Report",
    "ResolutionError",
    "SelfConnection",
    "SimopenError",
    "StunError",
    "Ticket",
    "TicketError",
    "WindowClosed",
    "check_clock",
    "connect",
    "connect_self",
    "discover",
    "new_key",
    "next_slot",
    "parse_ticket",
    "punch",
    "read_instant",
]

_HOMES = {
    "Attempt": "report",
    "Cause": "diagnosis",
    "Clock": "clock",
    "ClockError": "errors",
    "Diagnosis": "diagnosis",
    "Endpoint": "address",
    "Estimate": "clock",
    "ImpossiblePair": "errors",
    "LabError": "errors",
    "LinkBroken": "errors",
    "LinkError": "errors",
    "LocalEndpointError": "errors",
    "MissedInstant": "errors",
    "Profile": "nat",
    "PunchError": "errors",
    "Report": "report",
    "ResolutionError": "errors",
    "SelfConnection": "errors",
    "SimopenError": "errors",
    "StunError": "errors",
    "Ticket": "ticket",
    "TicketError": "errors",
    "WindowClosed": "errors",
    "check_clock": "clock",
    "connect": "opening",
    "connect_self": "opening",
    "discover": "discovery",
    "new_key": "link.session",
    "next_slot": "instant",
    "parse_ticket": "ticket",
    "punch": "opening",
    "read_instant": "instant",
}


if not TYPE_CHECKING:  # to a type checker it would mean that every name exists
    __getattr__ = loader(globals(), _HOMES)


if "logging" in sys.modules:  # else it is seen to with the first module that logs: loading it takes longer than this
    import_module("simopen.logs")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
