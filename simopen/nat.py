"""What a NAT does, from observations of it; and where it will put the next mapping.

Theory of operation. An observation says: this local endpoint, seen by that server, had this public endpoint, at this
time. `classify` compares them in RFC 4787's terms. Mapping comes from the punch port's own observations, by the rules
of RFC 5780 §4.3. Too little evidence, or evidence that contradicts itself, is UNKNOWN.

Pure: no socket and no clock. Times are ns of any one clock; only their order and their distances count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations

from simopen.address import Endpoint


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
    """One Binding over TCP: from `local` to `server`, which saw `mapped`. The SYN left at `at_ns`."""

    local: Endpoint
    server: Endpoint
    mapped: Endpoint
    at_ns: int


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of the NATs in front of one punch port, and from what.

    `layers`: NATs in a row, 0 for none; 2 means at least two; None where that cannot be told. `mapped`: the punch
    port's public endpoint as last seen. `hosts`: the punch port on this host's own addresses. `step` and `busy` go with
    SEQUENTIAL: the distance between ports, and the share of steps that others take, 0 to 1; `delta` goes with
    CONSTANT_DELTA: add it to the local port to get the mapped one. `confidence`: the chance, 0 to 1, that mapping
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
    confidence: float = 0.0
    observations: tuple[Observation, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = [f"{self.mapping.value} mapping", f"{self.allocation.value} allocation{self._detail()}"]
        said += [f"{self.filtering.value} filtering", f"{self.pooling.value} pooling"]
        where = "" if self.mapped is None else f"; seen as {self.mapped}"
        return f"{', '.join(said)}{where}; {self.confidence:.0%} sure"

    def _detail(self) -> str:
        if self.step is not None and self.busy is not None:
            return f" (step {self.step}, others take {self.busy:.0%})"
        return "" if self.delta is None else f" ({self.delta:+d})"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A public endpoint and the chance, 0 to 1, that the next new mapping gets it."""

    endpoint: Endpoint
    probability: float


def classify(
    observations: Iterable[Observation], *, hosts: Sequence[Endpoint] = (), hairpinning: bool | None = None
) -> Profile:
    """The profile that these observations support. All of one address family, in any order.

    The punch port is that of `hosts`; without hosts, the local port with most observations.
    """
    seen = tuple(sorted(observations, key=lambda each: each.at_ns))
    if not seen:
        return Profile(hosts=tuple(hosts), hairpinning=hairpinning)
    port = hosts[0].port if hosts else Counter(each.local.port for each in seen).most_common(1)[0][0]
    ours = [each for each in seen if each.local.port == port]
    mapping = _mapping(ours, set(hosts))
    return Profile(
        mapping=mapping,
        hairpinning=hairpinning,
        layers=0 if mapping is Mapping.NONE else None,
        mapped=ours[-1].mapped if ours else None,
        hosts=tuple(hosts),
        observations=seen,
    )


# (same server address and other port: one mapping?, other address: one mapping?) -> what that means, RFC 5780 §4.3.
# None: not tested. What is missing here is UNKNOWN: untested, or a contradiction.
_BY_TESTS: dict[tuple[bool | None, bool | None], Mapping] = {
    (True, True): Mapping.ENDPOINT_INDEPENDENT,
    (None, True): Mapping.ENDPOINT_INDEPENDENT,
    (True, False): Mapping.ADDRESS_DEPENDENT,
    (False, False): Mapping.ADDRESS_AND_PORT_DEPENDENT,
    (False, None): Mapping.ADDRESS_AND_PORT_DEPENDENT,
}


def _mapping(ours: Sequence[Observation], hosts: set[Endpoint]) -> Mapping:
    untranslated = {each.mapped == each.local or each.mapped in hosts for each in ours}
    if untranslated != {False}:
        return Mapping.NONE if untranslated == {True} else Mapping.UNKNOWN
    pairs = list(combinations(ours, 2))
    same_address = {a.mapped == b.mapped for a, b in pairs if a.server.address == b.server.address}
    other_address = {a.mapped == b.mapped for a, b in pairs if a.server.address != b.server.address}
    if len(same_address) > 1 or len(other_address) > 1:
        return Mapping.UNKNOWN
    return _BY_TESTS.get((next(iter(same_address), None), next(iter(other_address), None)), Mapping.UNKNOWN)


def predict(profile: Profile, now_ns: int, most: int = 64, *, remote: Endpoint | None = None) -> tuple[Prediction, ...]:
    """Where the punch port's next new mapping will be, best first, at most `most` of them.

    `now_ns`: when its SYN will leave, by the observations' clock. `remote`: to whom, where that is known.
    """
    reused = profile.mapping in {Mapping.NONE, Mapping.ENDPOINT_INDEPENDENT}
    if not reused or profile.mapped is None:
        return ()
    return (Prediction(profile.mapped, profile.confidence),)[:most]
