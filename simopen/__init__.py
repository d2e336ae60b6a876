"""One direct TCP stream between two programs behind NATs, by coordinated simultaneous open.

    reader, writer = await simopen.connect(("203.0.113.7", 1314), at=t)

Run on two hosts with the same instant `t`, each naming the other's endpoint, this gives both the two ends of one TCP
stream, opened by SYNs that crossed on the way.
"""

import sys
from importlib import import_module

from simopen._lazy import loader

TYPE_CHECKING = False  # `typing` takes five times as long to load as this
if TYPE_CHECKING:
    from simopen.apps.forward.api import forward
    from simopen.apps.forward.targets import Forward, Target
    from simopen.clock.instant import Instant, next_slot, parse_instant, read_instant
    from simopen.clock.source import Clock, check_clock, unchecked_clock
    from simopen.errors import (
        ClockError,
        CodeError,
        Flaw,
        ForwardError,
        ImpossiblePair,
        LabError,
        LinkBroken,
        LinkError,
        LocalEndpointError,
        MissedInstant,
        PeerChanged,
        PeerError,
        PeerLeft,
        PunchError,
        RendezvousUnreachable,
        ResolutionError,
        RoomCrowded,
        SelfConnection,
        SignallingError,
        SimopenError,
        StunError,
        TicketError,
        WindowClosed,
        WrongCode,
    )
    from simopen.holepunch.api import connect, connect_self, punch
    from simopen.link.bridge import bridge
    from simopen.link.session import new_key
    from simopen.model.endpoint import Endpoint
    from simopen.model.estimate import Estimate, Source
    from simopen.model.event import (
        Answered,
        Armed,
        ClockKnown,
        Event,
        Fired,
        InRoom,
        PeerBegun,
        PeerClock,
        PeerHere,
        Resolved,
        Round,
        SessionBack,
        SessionDown,
        SessionUp,
        SessionWaits,
        Up,
        Verified,
    )
    from simopen.model.nat import Allocation, Filtering, Mapping, Observation, Pooling, Profile
    from simopen.model.outcome import Outcome
    from simopen.model.report import Attempt, Cause, Diagnosis, Report, Via
    from simopen.nat.discovery import discover
    from simopen.rendezvous.api import Meeting, meet, meeting
    from simopen.rendezvous.peers import KnownPeer, remember
    from simopen.rendezvous.session import Session
    from simopen.signalling.server import serve
    from simopen.signalling.server_limits import Limits
    from simopen.ticket.codec import Ticket, parse_ticket
    from simopen.ticket.hold import holding

__version__ = "0.1.0"

__all__ = [
    "Allocation",
    "Answered",
    "Armed",
    "Attempt",
    "Cause",
    "Clock",
    "ClockError",
    "ClockKnown",
    "CodeError",
    "Diagnosis",
    "Endpoint",
    "Estimate",
    "Event",
    "Filtering",
    "Fired",
    "Flaw",
    "Forward",
    "ForwardError",
    "ImpossiblePair",
    "InRoom",
    "Instant",
    "KnownPeer",
    "LabError",
    "Limits",
    "LinkBroken",
    "LinkError",
    "LocalEndpointError",
    "Mapping",
    "Meeting",
    "MissedInstant",
    "Observation",
    "Outcome",
    "PeerBegun",
    "PeerChanged",
    "PeerClock",
    "PeerError",
    "PeerHere",
    "PeerLeft",
    "Pooling",
    "Profile",
    "PunchError",
    "RendezvousUnreachable",
    "Report",
    "ResolutionError",
    "Resolved",
    "RoomCrowded",
    "Round",
    "SelfConnection",
    "Session",
    "SessionBack",
    "SessionDown",
    "SessionUp",
    "SessionWaits",
    "SignallingError",
    "SimopenError",
    "Source",
    "StunError",
    "Target",
    "Ticket",
    "TicketError",
    "Up",
    "Verified",
    "Via",
    "WindowClosed",
    "WrongCode",
    "bridge",
    "check_clock",
    "connect",
    "connect_self",
    "discover",
    "forward",
    "holding",
    "meet",
    "meeting",
    "new_key",
    "next_slot",
    "parse_instant",
    "parse_ticket",
    "punch",
    "read_instant",
    "remember",
    "serve",
    "unchecked_clock",
]

_HOMES = {
    "Allocation": "model.nat",
    "Answered": "model.event",
    "Armed": "model.event",
    "Attempt": "model.report",
    "Cause": "model.report",
    "Clock": "clock.source",
    "ClockError": "errors",
    "ClockKnown": "model.event",
    "CodeError": "errors",
    "Diagnosis": "model.report",
    "Endpoint": "model.endpoint",
    "Estimate": "model.estimate",
    "Event": "model.event",
    "Filtering": "model.nat",
    "Fired": "model.event",
    "Flaw": "errors",
    "Forward": "apps.forward.targets",
    "ForwardError": "errors",
    "ImpossiblePair": "errors",
    "InRoom": "model.event",
    "Instant": "clock.instant",
    "KnownPeer": "rendezvous.peers",
    "LabError": "errors",
    "Limits": "signalling.server_limits",
    "LinkBroken": "errors",
    "LinkError": "errors",
    "LocalEndpointError": "errors",
    "Mapping": "model.nat",
    "Meeting": "rendezvous.api",
    "MissedInstant": "errors",
    "Observation": "model.nat",
    "Outcome": "model.outcome",
    "PeerBegun": "model.event",
    "PeerChanged": "errors",
    "PeerClock": "model.event",
    "PeerError": "errors",
    "PeerHere": "model.event",
    "PeerLeft": "errors",
    "Pooling": "model.nat",
    "Profile": "model.nat",
    "PunchError": "errors",
    "RendezvousUnreachable": "errors",
    "Report": "model.report",
    "ResolutionError": "errors",
    "Resolved": "model.event",
    "RoomCrowded": "errors",
    "Round": "model.event",
    "SelfConnection": "errors",
    "Session": "rendezvous.session",
    "SessionBack": "model.event",
    "SessionDown": "model.event",
    "SessionUp": "model.event",
    "SessionWaits": "model.event",
    "SignallingError": "errors",
    "SimopenError": "errors",
    "Source": "model.estimate",
    "StunError": "errors",
    "Target": "apps.forward.targets",
    "Ticket": "ticket.codec",
    "TicketError": "errors",
    "Up": "model.event",
    "Verified": "model.event",
    "Via": "model.report",
    "WindowClosed": "errors",
    "WrongCode": "errors",
    "bridge": "link.bridge",
    "check_clock": "clock.source",
    "connect": "holepunch.api",
    "connect_self": "holepunch.api",
    "discover": "nat.discovery",
    "forward": "apps.forward.api",
    "holding": "ticket.hold",
    "meet": "rendezvous.api",
    "meeting": "rendezvous.api",
    "new_key": "link.session",
    "next_slot": "clock.instant",
    "parse_instant": "clock.instant",
    "parse_ticket": "ticket.codec",
    "punch": "holepunch.api",
    "read_instant": "clock.instant",
    "remember": "rendezvous.peers",
    "serve": "signalling.server",
    "unchecked_clock": "clock.source",
}


if not TYPE_CHECKING:  # to a type checker it would mean that every name exists
    __getattr__ = loader(globals(), _HOMES)


if "logging" in sys.modules:  # else it is seen to with the first module that logs: loading it takes longer than this
    import_module("simopen._logs")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
