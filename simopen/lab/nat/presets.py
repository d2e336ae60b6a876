"""NATs by name and by description: `home`, `home+cgn`, `endpoint-independent/address-dependent,sequential,step=4`.

Theory of operation. Pure: text in, a tuple of `Nat` out, from the host outwards, and back again. A description is words
in any order, separated by commas; each word sets one or more of `Nat`'s fields, and what no word sets stays at its
default, or at what the short name in front has set. Every word is a row of a table below.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from simopen.lab.nat.model import FILTERINGS, MAPPINGS, Nat, Unsolicited
from simopen.model.nat import Allocation, Filtering, Pooling
from simopen.model.nat import Mapping as NatMapping

T = TypeVar("T")

Nats = tuple[Nat, ...]
"""From the host outwards; empty where the host has a public address and no firewall."""

_APART, _WORDS_APART = "+", ","


class Preset(NamedTuple):
    """A short name's behaviour, and a line on what it is and whose word that is."""

    nats: Nats
    says: str


PRESETS: dict[str, Preset] = {
    # Linux routers' masquerade keeps the port while it is free, and filters by conntrack's 4-tuple; RFC 5382 REQ-1
    # wants the mapping, and Ford et al. (2005, "Peer-to-Peer Communication Across NATs") met it at most consumer NATs.
    "home": Preset(
        (Nat(),),
        "a router at home: one mapping for all destinations, the port kept, only who was called may answer (Linux)",
    ),
    # RFC 6888 REQ-1 (hence RFC 5382's mapping), REQ-2 (paired pooling), REQ-7 (endpoint-independent filtering
    # recommended); ports at random as RFC 7857 §9 has it (RFC 6056).
    "cgn": Preset(
        (Nat(filtering=Filtering.ENDPOINT_INDEPENDENT, allocation=Allocation.RANDOM, pool=4),),
        "a carrier's NAT as RFC 6888 asks: one mapping for all destinations, random port, lets anybody in",
    ),
    # Richter et al. (2016, "A Multi-perspective Analysis of Carrier-Grade NAT Deployment") saw this mapping and
    # random ports in cellular networks far more than elsewhere; it is their restrictive end, not their average.
    "mobile": Preset(
        (Nat(mapping=NatMapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM),),
        'a mobile carrier at its strictest: a random port for each destination ("symmetric"; Richter et al. 2016)',
    ),
    # pf.conf(5): `nat-to` takes a port of its own for every connection, unless `static-port`. That it rejects, instead
    # of dropping, is this lab's choice: a company's firewall often does, so that its users need not wait.
    "corporate": Preset(
        (
            Nat(
                mapping=NatMapping.ADDRESS_AND_PORT_DEPENDENT,
                allocation=Allocation.RANDOM,
                unsolicited=Unsolicited.RESET,
            ),
        ),
        "a company's firewall, as BSD's pf translates: a random port for each destination, and a RST for strangers",
    ),
    # RFC 6092 §3.3: no translation, nothing unasked gets in, and simultaneous open must work.
    "firewall": Preset((Nat(translates=False),), "a stateful firewall that translates nothing (RFC 6092)"),
    "open": Preset((), "a public address and nothing in between"),
}


@dataclass(frozen=True, slots=True)
class _Word:
    sets: Mapping[str, object]
    says: str


WORDS: dict[str, _Word] = {
    "port-preserving": _Word({"allocation": Allocation.PRESERVING}, "the public port is the host's own, while free"),
    "sequential": _Word({"allocation": Allocation.SEQUENTIAL}, "each new mapping gets the next port"),
    "random": _Word({"allocation": Allocation.RANDOM}, "each new mapping gets any port"),
    "drop": _Word({"unsolicited": Unsolicited.DROP}, "a SYN that nobody asked for vanishes"),
    "reset": _Word({"unsolicited": Unsolicited.RESET}, "a SYN that nobody asked for is answered with a RST"),
    "icmp": _Word({"unsolicited": Unsolicited.ICMP}, "a SYN that nobody asked for is answered with an ICMP error"),
    "hold": _Word({"unsolicited": Unsolicited.HOLD}, "such a SYN is kept for 6 s, in case ours follows (RFC 5382)"),
    "accept": _Word(
        {"unsolicited": Unsolicited.ACCEPT}, "as reset; pings are answered, and datagrams remembered (Linux)"
    ),
    "parity": _Word({"parity": True}, "odd ports stay odd, even ones even (RFC 4787)"),
    "one-row": _Word({"one_row": True}, "TCP and UDP take public ports from one row, not from one each"),
    "hairpinning": _Word({"hairpinning": True}, "hosts behind it reach each other at its public address"),
    "reset-kills": _Word({"reset_kills": True}, "a RST removes the mapping at once"),
    "refuses-syns": _Word({"refuses_syns": True}, "no SYN comes in, not even where one went out"),
    "tracking": _Word({"tracking": True}, "follows each TCP connection: a late SYN or a stray RST is refused (Linux)"),
    "paired": _Word({"pooling": Pooling.PAIRED}, "a host keeps its public address"),
    "arbitrary": _Word({"pooling": Pooling.ARBITRARY}, "each mapping may have another public address"),
    "overloading": _Word({"overloading": True}, "mappings to different endpoints may share a public port (Linux)"),
    "no-translation": _Word({"translates": False}, "addresses and ports stay: a firewall"),
}


@dataclass(frozen=True, slots=True)
class _Option:
    field: str
    parse: Callable[[str], float]
    says: str


OPTIONS: dict[str, _Option] = {
    "step": _Option("step", int, "sequential: from one port to the next"),
    "others": _Option("others", float, "sequential: chance that other traffic takes the next port, 0 to 1"),
    "pool": _Option("pool", int, "how many public addresses it has"),
    "established": _Option("established_timeout_s", float, "seconds until an idle TCP stream is forgotten"),
    "transitory": _Option("transitory_timeout_s", float, "seconds until a TCP stream that is not up is forgotten"),
    "udp": _Option("udp_timeout_s", float, "seconds until an idle UDP mapping is forgotten"),
    "icmp": _Option("icmp_timeout_s", float, "seconds until an idle echo's mapping is forgotten"),
}

_MAPPINGS = {mapping.value: mapping for mapping in MAPPINGS}
_FILTERINGS = {filtering.value: filtering for filtering in FILTERINGS}
_MEANINGS = {
    "endpoint-independent": "mapping: one public endpoint for all destinations; filtering: anybody may answer",
    "address-dependent": "mapping: one per address called; filtering: any port of an address called may answer",
    "address-and-port-dependent": "mapping: one per endpoint called; filtering: only an endpoint called may answer",
}


def parse_nats(text: str) -> Nats:
    """The NATs that a description means, from the host outwards: `home`, `home+cgn`, `sequential,step=4`, ...

    Raises: ValueError for a word that is none; the message names those that come near it.
    """
    return tuple(nat for part in text.split(_APART) for nat in _parse_part(part.strip()))


def format_nats(nats: Nats) -> str:
    """The description of these NATs, in full words: `parse_nats` gives the same NATs back."""
    return _APART.join(map(_format_nat, nats)) or "open"


def short_name(nats: Nats) -> str:
    """The shortest description: the short names where there are some, else as `format_nats`."""
    known = {preset.nats: name for name, preset in PRESETS.items()}
    return known.get(nats) or _APART.join(known.get((nat,)) or _format_nat(nat) for nat in nats)


def explained() -> list[tuple[str, str]]:
    """Each short name and each word, with a line on what it means."""
    words = {word: meaning.says for word, meaning in WORDS.items()}
    options = {f"{name}=N": option.says for name, option in OPTIONS.items()}
    return [*((name, preset.says) for name, preset in PRESETS.items()), *(_MEANINGS | words | options).items()]


def _parse_part(text: str) -> Nats:
    first, *rest = (word.strip() for word in text.split(_WORDS_APART))
    if first not in PRESETS:
        return (_changed(Nat(), [first, *rest]),)
    nats = PRESETS[first].nats
    if rest and not nats:
        raise ValueError(f"{first!r} has no NAT that {', '.join(map(repr, rest))} could change")
    return tuple(_changed(nat, rest) for nat in nats)


def _changed(nat: Nat, words: list[str]) -> Nat:
    fields: dict[str, Any] = {}
    for word in words:
        fields |= _meaning(word)
    return dataclasses.replace(nat, **fields)


def _meaning(word: str) -> Mapping[str, object]:
    """What one word sets. Raises: ValueError."""
    if word in WORDS:
        return WORDS[word].sets
    name, given, value = word.partition("=")
    if given:
        return _option(name, value)
    mapping, slash, filtering = word.partition("/")
    if slash or mapping in _MAPPINGS:
        return _shape(mapping, filtering)
    raise _unknown(word, "behaviour", [*PRESETS, *_MAPPINGS, *WORDS, *(f"{option}=N" for option in OPTIONS)])


def _shape(mapping: str, filtering: str) -> dict[str, object]:
    """`mapping/filtering`; either may be left out."""
    sets: dict[str, object] = {}
    if mapping:
        sets["mapping"] = _among(mapping, "mapping", _MAPPINGS)
    if filtering:
        sets["filtering"] = _among(filtering, "filtering", _FILTERINGS)
    return sets


def _option(name: str, value: str) -> dict[str, object]:
    option = _among(name, "option", OPTIONS)
    try:
        value.encode("ascii")  # raises a ValueError: Python reads the digits of every script
        return {option.field: option.parse(value)}
    except ValueError:
        whole = "a whole number" if option.parse is int else "a number"
        raise ValueError(f"{name}= takes {whole} ({option.says}), not {value!r}") from None


def _among(word: str, kind: str, choices: Mapping[str, T]) -> T:
    if word not in choices:
        raise _unknown(word, kind, list(choices))
    return choices[word]


def _unknown(word: str, kind: str, choices: list[str]) -> ValueError:
    near = difflib.get_close_matches(word, choices, n=3, cutoff=0.5)
    hint = f"do you mean {' or '.join(near)}?" if near else f"there are {', '.join(choices)}"
    return ValueError(f"{word!r} is no {kind} of a NAT: {hint}" if word else f"a word is missing: {hint}")


def _format_nat(nat: Nat) -> str:
    words = [f"{nat.mapping.value}/{nat.filtering.value}", nat.allocation.value, nat.unsolicited.value]
    said = {"mapping", "filtering", "allocation", "unsolicited"}
    changed = {f.name: value for f in dataclasses.fields(nat) if (value := getattr(nat, f.name)) != f.default}
    for field, value in changed.items():
        if field not in said:
            words.append(_word_for(field, value))
    return _WORDS_APART.join(words)


def _word_for(field: str, value: object) -> str:
    for name, option in OPTIONS.items():
        if option.field == field:
            return f"{name}={value!r}"
    return next(name for name, word in WORDS.items() if word.sets == {field: value})
