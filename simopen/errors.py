"""Everything that simopen raises.

::

    SimopenError
    ├── ClockError               nobody could say what time it is
    ├── CodeError                what was given is no code; also a ValueError
    ├── ForwardError             connections cannot be carried: not allowed, or the stream broke
    ├── LabError                 the lab cannot be had here, or a host of it failed
    ├── LinkBroken               a link ended, and the peer did not end it; also a ConnectionResetError, so an OSError
    ├── PeerError                a peer that is to be known by a name, and is not, or cannot be; also a ValueError
    ├── PunchError               no stream; also a ConnectionError, so an OSError
    │   ├── MissedInstant        the instant and its whole window are over
    │   ├── ResolutionError      the peer's name has no address
    │   ├── ImpossiblePair       no shots could connect these two NATs
    │   ├── LinkError            nobody proved the key
    │   ├── LocalEndpointError   the local endpoint cannot be had: taken, foreign, or not permitted
    │   ├── SelfConnection       the peer is this very socket
    │   └── WindowClosed         the window ended without a stream; also a TimeoutError
    ├── SignallingError          the rendezvous was of no use; also a ConnectionError, so an OSError
    │   ├── PeerLeft             the peer ended the meeting, or is not heard of any more
    │   ├── RendezvousUnreachable    nobody answers there, or not any longer, or what answers is no rendezvous
    │   ├── RoomCrowded          two are in that room already
    │   └── WrongCode            the two sides' codes differ, or somebody has guessed
    │       └── PeerChanged      who is where a known peer should be does not hold its key
    ├── StunError                no STUN server told this host's mapping
    ├── TicketError              a ticket that cannot be used; also a ValueError
    └── TransferError            files did not get across: refused, unreadable, no room, or one side left

A bad argument is a `ValueError` or a `TypeError`, raised before anything is sent. Every error can be pickled and
copied, with its report, diagnosis and notes: it comes whole out of another process.

The words of any of them fit a screen, whatever a name, a server or a peer had to say.
"""

from __future__ import annotations

from enum import Enum

from simopen.model.proof import Reason
from simopen.model.report import Diagnosis, Report
from simopen.model.server import Heard
from simopen.model.wording import LONGEST, human, shortened


class SimopenError(Exception):
    """Anything that simopen raises on its own account."""

    def __str__(self) -> str:
        return shortened(super().__str__(), LONGEST)


class ClockError(SimopenError):
    """Nobody could say what time it is. The message says who was asked and what each answered.

    `heard`: what came of each, where that is why. `has_advice`: whether the message itself says what to do.
    """

    def __init__(self, message: str, heard: tuple[Heard, ...] = (), *, has_advice: bool = False) -> None:
        super().__init__(message)
        self.heard = heard
        self.has_advice = has_advice


_SHORT_S = 0.25
"""An answer from the other side of the world takes longer, names looked up before it not counted."""


def too_short(timeout_s: float, whose: str) -> str | None:
    """What to say where nobody answered within a time that is no reason to suspect the network; None elsewhere."""
    if timeout_s >= _SHORT_S:
        return None
    took = f"no {whose} answered within {human(timeout_s)}"
    return f"{took}, which is too short for an answer from afar: allow a second or more"


def no_names(count: int, kind: str) -> str:
    """What to say, once, where the name of none of several servers can be looked up."""
    return f"none of the {count} {kind} servers' names can be looked up: is this host online?"


class LabError(SimopenError):
    """The lab cannot be had here, or something in it failed. The message says what is missing."""


class ForwardError(SimopenError):
    """Connections cannot be carried over this stream, or not any longer. The message says why, and what to do.

    `is_broken`: the stream broke, and another one to the same peer may do.
    """

    def __init__(self, message: str, *, is_broken: bool = False) -> None:
        super().__init__(message)
        self.is_broken = is_broken


class TransferError(SimopenError):
    """Files did not get across, or not all of them. The message says on which side, why, and what to do."""


class LinkBroken(SimopenError, ConnectionResetError):  # noqa: N818 - says what happened
    """A link that was up has ended, and the peer did not end it: it was cut on the way, altered, or the peer died.

    What was read until then is the peer's, and is not all of it.
    """


class CodeError(SimopenError, ValueError):
    """What was given is no code, and nothing was sent. The message says what is wrong with it."""


class PeerError(SimopenError, ValueError):
    """A name stands for no peer that is known here, or not for one that can be used. The message says what to do."""


class SignallingError(SimopenError, ConnectionError):
    """A rendezvous was of no use. The message names it, and says what was tried, what came, and what to do."""


class PeerLeft(SignallingError):  # noqa: N818 - says what is the matter
    """The peer ended the meeting before a stream came up, or is not heard of any more. The message says which."""


class WrongCode(SignallingError):  # noqa: N818 - says what is the matter
    """The two sides' codes differ, or somebody has guessed at this one: it is of no more use. Make a new one."""


class PeerChanged(WrongCode):
    """Who came where a known peer should be does not hold its key: it has another one now, or is somebody else.

    Nothing has been said to it. The message says what to ask, and how to come to a new key.
    """


class RendezvousUnreachable(SignallingError):  # noqa: N818 - says what is the matter
    """Nobody answers at the rendezvous, or not any longer, or what answers there is no rendezvous."""


class RoomCrowded(SignallingError):  # noqa: N818 - says what is the matter
    """Two are in that room already: the code has been used, or somebody tries to guess it. Make a new one."""


class StunError(SimopenError):
    """A STUN server did not answer, or its answer cannot be believed. The message says who was asked, and what came.

    `heard`: what came of each that was asked.
    """

    def __init__(self, message: str, heard: tuple[Heard, ...] = (Heard.UNUSABLE,)) -> None:
        super().__init__(message)
        self.heard = heard


class Flaw(Enum):
    """What is wrong with a ticket."""

    NO_TICKET = "no ticket"
    CUT_SHORT = "cut short"
    ALTERED = "altered"
    OTHER_VERSION = "of another version"
    EXPIRED = "expired"
    FAR_AHEAD = "for an instant that nobody waits for"
    OWN = "this side's own"
    KEYLESS = "without its private half"
    USED = "used up"
    UNREACHABLE = "of a host that nobody can reach"


class TicketError(SimopenError, ValueError):
    """The text is no ticket that can be used. `flaw` says which way; the message also says what to do."""

    def __init__(self, flaw: Flaw, advice: str) -> None:
        super().__init__(f"the ticket is {flaw.value}: {advice}")
        self.flaw = flaw
        self._advice = advice

    def __reduce__(self) -> tuple[object, ...]:
        """An exception is made again from its message alone, unless it says otherwise."""
        return type(self), (self.flaw, self._advice), self.__dict__


class PunchError(SimopenError, ConnectionError):
    """No stream came up. `report` tells what was tried, `diagnosis` why it failed; None where nothing was tried yet."""

    def __init__(self, message: str, report: Report | None = None, diagnosis: Diagnosis | None = None) -> None:
        super().__init__(message)
        self.report = report
        self.diagnosis = diagnosis


class MissedInstant(PunchError):  # noqa: N818 - says what happened, as TimeoutError's siblings do
    """The instant, and the whole window after it, had passed before anything could be fired."""


class ResolutionError(PunchError):
    """The peer's (or the local) name has no usable address."""


class ImpossiblePair(PunchError):  # noqa: N818 - says what is the matter
    """No shots, or none that were allowed, could connect these two NATs. The message says why, and what would."""


class LinkError(PunchError):
    """No stream came up on which the peer has proven the key, or none can be proven on this host.

    The message says what came instead. Where a side that begins has a stream already, before the peer has answered that
    it took that one too, reading from it raises this, too. `reasons`: why each stream that came up was none with the
    peer; empty where no stream is the matter.
    """

    def __init__(
        self,
        message: str,
        report: Report | None = None,
        diagnosis: Diagnosis | None = None,
        *,
        reasons: tuple[Reason, ...] = (),
    ) -> None:
        super().__init__(message, report, diagnosis)
        self.reasons = reasons


def lost_at_once() -> LinkError:
    """Where a link ends as it begins."""
    lost = "the peer proved the key, and the stream was lost before both had taken it: try again"
    return LinkError(lost, reasons=(Reason.NOT_CHOSEN,))


class LocalEndpointError(PunchError):
    """The local endpoint cannot be had: taken by another program, not this host's, or not permitted."""


class SelfConnection(PunchError):  # noqa: N818
    """The peer named is the very socket that would fire. Wanted on purpose? `simopen.connect_self`."""


class WindowClosed(PunchError, TimeoutError):  # noqa: N818
    """The window ended without a stream. The message says what came back, and what that means."""
