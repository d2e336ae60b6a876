"""What is known of the NATs in front of one punch port: RFC 4787's words, what was observed, and views of that.

Theory of operation: an `Observation` says which public endpoint a server saw; a `Profile` is what `classify` makes
of many. Of these, only a mapping's first observation took a port: `new_mappings` keeps these alone, and a run is their
ports in order.

Pure: no socket and no clock. Times are ns of any one clock; only their order and their distances count.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from simopen.model.endpoint import Endpoint
from simopen.model.times import AnyNs
from simopen.model.wording import quoted


class Mapping(Enum):
    """Which flows of one local endpoint share a public one (RFC 4787 §4.1)."""

    NONE = "none"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    UNKNOWN = "unknown"


class Filtering(Enum):
    """From whom a mapping lets packets in (RFC 4787 §5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    UNKNOWN = "unknown"


class Allocation(Enum):
    """How a new mapping gets its public port (RFC 4787 §4.2.1)."""

    PRESERVING = "port-preserving"
    CONSTANT_DELTA = "constant-delta"
    SEQUENTIAL = "sequential"
    RANDOM = "random"
    UNKNOWN = "unknown"


class Pooling(Enum):
    """Whether all mappings of one host share a public address (RFC 4787 §4.1, "paired")."""

    PAIRED = "paired"
    ARBITRARY = "arbitrary"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Observation:
    """One Binding over TCP: from `local` to `server`, which saw `mapped`. The SYN left at `at_ns`.

    `own`: how many ports of a row this program's other flows took since the new mapping before. `classify` tells.
    """

    local: Endpoint
    server: Endpoint
    mapped: Endpoint
    at_ns: AnyNs
    own: int = 0


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of the NATs in front of one punch port, and from what.

    `layers`: NATs in a row, 0 for none; 2 means at least two; None where that cannot be told. `mapped`: the punch
    port's public endpoint as last seen. `hosts`: the punch port on this host's own addresses. `step` and `busy` go with
    SEQUENTIAL: the distance between ports, and the share of steps that others take, 0 to 1; `delta` goes with
    CONSTANT_DELTA: add it to the local port to get the mapped one. `one_row`: whether TCP and UDP take their ports from
    one row; None where that was not seen. `confidence`: the chance, 0 to 1, that mapping
    and allocation are as said. `notes`: what did not fit, one sentence each.
    """

    mapping: Mapping = Mapping.UNKNOWN
    allocation: Allocation = Allocation.UNKNOWN
    filtering: Filtering = Filtering.UNKNOWN
    pooling: Pooling = Pooling.UNKNOWN
    hairpinning: bool | None = None
    layers: int | None = None
    mapped: Endpoint | None = None
    hosts: tuple[Endpoint, ...] = ()
    step: int | None = None
    busy: float | None = None
    delta: int | None = None
    one_row: bool | None = None
    confidence: float = 0.0
    observations: tuple[Observation, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = [
            f"{self.mapping.value} mapping" if self.mapping is not Mapping.NONE else "no translation",
            f"{self.allocation.value} allocation{self._detail()}",
        ]
        said += [f"{self.filtering.value} filtering", f"{self.pooling.value} pooling"]
        where = "" if self.mapped is None else f"; seen as {self.mapped}"
        return f"{', '.join(said)}{where}; {self.confidence:.0%} sure"

    def _detail(self) -> str:
        if self.step is not None and self.busy is not None:
            return f" (step {self.step}, others take {self.busy:.0%})"
        return "" if self.delta is None else f" ({self.delta:+d})"


MOST_OWN = 2**16
"""Ports that there are: no more of a row can be this program's own."""
_LATEST_NS = 2**63


def check(profile: Profile) -> None:
    """Refuse a profile that somebody made by hand, and whose parts are of no sense.

    Raises:
        TypeError: an endpoint, an observation, a time or a count is of another type.
        ValueError: a share, a time or a count is beyond what there can be.
    """
    for what, parts in (("hosts", profile.hosts), ("observations", profile.observations)):
        if not isinstance(parts, (tuple, list)):
            raise TypeError(f"a profile's {what} are a tuple of them, not {type(parts).__name__}")
    if isinstance(profile.confidence, bool) or not isinstance(profile.confidence, (int, float)):
        raise TypeError(f"a profile's confidence is a number, not {type(profile.confidence).__name__}")
    if not 0 <= profile.confidence <= 1:
        raise ValueError(f"a profile's confidence lies between 0 and 1, not at {quoted(profile.confidence)}")
    for seen in profile.observations:
        if not isinstance(seen, Observation):
            raise TypeError(f"a profile's observations are Observations, not {type(seen).__name__}")
        if not (isinstance(seen.local, Endpoint) and isinstance(seen.mapped, Endpoint)):
            raise TypeError("an observation's ends are Endpoints")
        check_whole(seen.own, "an observation's own ports", 0, MOST_OWN)
        check_time(seen.at_ns, "an observation's time, in ns,")
    for end in (*profile.hosts, *([] if profile.mapped is None else [profile.mapped])):
        if not isinstance(end, tuple):
            raise TypeError(f"a profile's endpoints are Endpoints, not {type(end).__name__}")


def check_time(value: object, what: str) -> None:
    """Refuse what are no ns of any clock's, as `check_whole` does."""
    check_whole(value, what, 1 - _LATEST_NS, _LATEST_NS)


def check_whole(value: object, what: str, least: int, beyond: int) -> None:
    """Refuse what is no whole number from `least` to below `beyond`.

    Raises: TypeError for another type; ValueError for one that is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be a whole number, not {type(value).__name__}")
    if not least <= value < beyond:
        raise ValueError(f"{what} must be {least} to {beyond - 1}")


NEW_FOR_OTHERS = {Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT}
