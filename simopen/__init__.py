"""One direct TCP stream between two programs behind NATs, by coordinated simultaneous open.

    reader, writer = await simopen.connect(("203.0.113.7", 1314), at=t)

Run on two hosts with the same instant `t`, each naming the other's endpoint, this gives both the two ends of one TCP
stream, opened by SYNs that crossed on the way.
"""

from simopen.address import Endpoint
from simopen.clock import Clock, Estimate, check_clock
from simopen.errors import (
    ClockError,
    LabError,
    LocalEndpointError,
    MissedInstant,
    PunchError,
    ResolutionError,
    SelfConnection,
    SimopenError,
    WindowClosed,
)
from simopen.instant import next_slot
from simopen.opening import connect, connect_self, punch
from simopen.report import Attempt, Report

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "Clock",
    "ClockError",
    "Endpoint",
    "Estimate",
    "LabError",
    "LocalEndpointError",
    "MissedInstant",
    "PunchError",
    "Report",
    "ResolutionError",
    "SelfConnection",
    "SimopenError",
    "WindowClosed",
    "check_clock",
    "connect",
    "connect_self",
    "next_slot",
    "punch",
]
