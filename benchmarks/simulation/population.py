"""Which share of pairs connects, in a population of NATs with published shares.

Theory of operation: a `Population` says which share of its hosts is behind which NAT; every ordered pair of its kinds
is punched, at several RTTs and differences of the instants, and weighted by the two shares. So the answer's only errors
are the published shares' own and those of what had to be assumed.

Published are shares of NATs, or of hosts, that *support* hole punching, not of RFC 4787's behaviours. So each is turned
into bounds. Those that support it are assumed to map endpoint-independently and to drop what nobody asked for. Of the
rest nothing is known here: in the kindest reading they map that way too, and answer an unsolicited SYN by a RST; in the
harshest they map address-and-port-dependently with random ports, so that nobody knows where to fire. How all of them
filter is a bound too: by address and port, or by address only, which lets a listener catch a peer whose port nobody
knew.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping as Table
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.common import Row, progress, rounded, table
from benchmarks.simulation.punching import Side, punch
from simopen.lab.nat.model import Nat, Unsolicited
from simopen.model.nat import Allocation, Filtering, Mapping

RTTS_MS = (20.0, 80.0, 300.0)
APARTS_MS = (0.0, 7.0, 45.0, 230.0)


@dataclass(frozen=True, slots=True)
class Source:
    """A published share. `share`: of what `of` says, behind a NAT that supports hole punching as `criterion` says."""

    name: str
    year: int
    share: float
    of: str
    criterion: str


# Read: the first paper's abstract ("about 64% support hole punching for TCP streams"; 184 of 286 as it is cited
# elsewhere), the second report's abstract.
SOURCES = (
    Source(
        "Ford, Srisuresh, Kegel, USENIX ATC",
        2005,
        184 / 286,
        "286 NATs",
        "supports hole punching for TCP streams, by the paper's own test",
    ),
    Source(
        "Halkes, Pouwelse, TU Delft PDS-2010-007",
        2010,
        0.64,
        "all peers of a P2P network, open ones counted with the rest",
        "behind a NAT or firewall that should allow hole punching, for UDP; taken for TCP here",
    ),
)
# What to hold the answer against; none of these goes into it.
PUBLISHED_RESULTS = (
    ("Guha, Francis, IMC", 2005, "88 % of TCP attempts on average, 93 home NATs"),
    ("Halkes, Pouwelse, TU Delft PDS-2010-007", 2010, "more than 80 % of attempts between punchable peers, UDP"),
    ("Trautwein et al., arXiv 2510.27500", 2025, "70 % ± 7.1 % of attempts, libp2p DCUtR, TCP and QUIC alike"),
)
FILTERINGS = (Filtering.ADDRESS_AND_PORT_DEPENDENT, Filtering.ADDRESS_DEPENDENT)
RESTS = ("answers by RST", "random ports")


@dataclass(frozen=True, slots=True)
class Population:
    """Kinds of NAT and their shares, which sum up to 1; and what was assumed of them."""

    source: Source
    rest: str
    filtering: Filtering
    kinds: tuple[tuple[Nat, float], ...]


@dataclass(frozen=True, slots=True)
class Share:
    """The answer for one population. `one_connect`: the same pairs, one plain connect each, no listener, no retry."""

    source: str
    year: int
    published: float
    of: str
    rest: str
    filtering: str
    connects: float
    one_connect: float

    def row(self) -> Row:
        """For JSON."""
        return {
            "source": self.source,
            "year": self.year,
            "of": self.of,
            "punchable": rounded(self.published),
            "assumed_of_the_rest": self.rest,
            "assumed_filtering": self.filtering,
            "connects": rounded(self.connects),
            "one_connect_each": rounded(self.one_connect),
        }


def populations() -> list[Population]:
    """Every source, in both readings of the rest and of the filtering."""
    return [_population(*each) for each in itertools.product(SOURCES, RESTS, FILTERINGS)]


def _population(source: Source, rest: str, filtering: Filtering) -> Population:
    good = Nat(mapping=Mapping.ENDPOINT_INDEPENDENT, filtering=filtering, unsolicited=Unsolicited.DROP)
    others = {
        "answers by RST": replace(good, unsolicited=Unsolicited.RESET),
        "random ports": replace(good, mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM),
    }
    return Population(source, rest, filtering, ((good, source.share), (others[rest], 1 - source.share)))


def pair_share(left: Nat, right: Nat, *, plain: bool = False) -> float:
    """The share of the conditions, RTT × difference, under which two hosts behind these NATs connect.

    Each fires at the endpoint as which a third party saw the other. `plain`: one connect each, and nothing else.
    """
    conditions = list(itertools.product(RTTS_MS, APARTS_MS))
    connected = 0
    for seed, (rtt_ms, apart_ms) in enumerate(conditions):
        one = Side(rtt_ms / 4e3, (left,), listen=not plain, retry=not plain)
        other = replace(one, nats=(right,), error_s=apart_ms / 1e3)
        connected += punch(one, other, seed=seed, discovered=True).connected
    return connected / len(conditions)


def weighted(kinds: Sequence[tuple[Nat, float]], shares: Table[tuple[Nat, Nat], float]) -> float:
    """The share of all pairs, drawn independently, given each pair of kinds' own."""
    pairs = itertools.product(kinds, repeat=2)
    return sum(one * other * shares[left, right] for (left, one), (right, other) in pairs)


def measure() -> list[Share]:
    """Every population."""
    found = []
    for each in populations():
        progress(f"{each.source.name}: {each.rest}")
        nats = [nat for nat, _ in each.kinds]
        pairs = [(left, right) for left in nats for right in nats]
        ours = weighted(each.kinds, {pair: pair_share(*pair) for pair in pairs})
        plain = weighted(each.kinds, {pair: pair_share(*pair, plain=True) for pair in pairs})
        source = each.source
        labels = (source.name, source.year, source.share, source.of, each.rest, each.filtering.value)
        found.append(Share(*labels, ours, plain))
    progress("")
    return found


def report(shares: Sequence[Share]) -> None:
    """Print the answers with what they rest on."""
    table(
        "share of pairs that connect; 'punchable' is published, 'the rest' and 'filtering' are assumed, and are bounds",
        [_shown(each) for each in shares],
    )
    for source in SOURCES:
        print(f"{source.name} {source.year}: {source.share:.1%} of {source.of}; punchable: {source.criterion}")
    print(
        "assumed: both peers drawn independently, each behind one NAT, each knowing the endpoint as which a third "
        f"party saw the other;\nall kinds port-preserving but the random; RTT {_list(RTTS_MS)} ms × instants "
        f"{_list(APARTS_MS)} ms apart, alike often; no loss. Published elsewhere, to compare:"
    )
    for name, year, result in PUBLISHED_RESULTS:
        print(f"{name} {year}: {result}")


def _shown(each: Share) -> Row:
    return {
        "source and year": f"{each.source} {each.year}",
        "the rest": each.rest,
        "filtering": each.filtering,
        "punchable": f"{each.published:.1%}",
        "simopen": f"{each.connects:.1%}",
        "one connect each": f"{each.one_connect:.1%}",
    }


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
