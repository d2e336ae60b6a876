"""What is found on a host, and what that means for whoever wants to punch from it: a verdict and a line of advice.

Theory of operation. Pure: facts in, a `Finding` out, one function for each check. `doctor` reads the facts. FAIL means
that simopen cannot do its work, or not all of it; WARN that it works worse, or with fewer peers; UNKNOWN that the
facts could not be had. Nothing is said that was not seen: a firewall's rules are not read, so what is said of it is
hints, and whether TCP gets out at all is what the STUN servers show.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from simopen.model.endpoint import Endpoint
from simopen.model.estimate import Estimate
from simopen.model.nat import Filtering, Mapping, Profile
from simopen.model.server import Heard

OFF_S = 0.1
"""Two hosts that are both off by that may fire 0.2 s apart, beyond most one-way delays; see `clock.source.LIMIT_S`."""
DESCRIPTORS = 1_100
"""About 1,000 SYNs of a spray are in flight at once (256 local ports, fired at again before they are given up)."""
_WEB_PORTS = {80, 443}
_CARRIERS = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598
_NOTHING = "-"


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warning"
    FAIL = "fails"
    UNKNOWN = "unknown"


class Check(StrEnum):
    """What is looked at, in the order in which it is told."""

    CLOCK = "clock"
    SIMULTANEOUS_OPEN = "simultaneous open"
    PORT_SHARING = "port sharing"
    DESCRIPTORS = "file descriptors"
    FIREWALL = "firewall (hints)"
    IPV4 = "IPv4"
    IPV6 = "IPv6"
    STUN = "STUN over TCP"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check came to: `found` and `advice` are a line each, `notes` what else was said, a sentence each.

    `but`: what a warning comes to, in a few words, where the check's name does not tell.
    """

    check: Check
    verdict: Verdict
    found: str
    advice: str = _NOTHING
    notes: tuple[str, ...] = ()
    but: str = ""


def summary(found: Sequence[Finding]) -> str:
    """Whether this host is fit to punch, in a line."""
    if failing := _with(Verdict.FAIL, found):
        return f"not fit: {', '.join(each.check for each in failing)}"
    warned = [f"{each.check} ({each.but})" if each.but else each.check for each in _with(Verdict.WARN, found)]
    return f"fit, but: {', '.join(warned)}" if warned else "fit"


def _with(verdict: Verdict, found: Sequence[Finding]) -> list[Finding]:
    return [each for each in found if each.verdict is verdict]


def judge_clock(kernel: Estimate | None, checked: Estimate | str) -> Finding:
    """`kernel`: the kernel's word, if it has one. `checked`: the time servers', or why there is none."""
    told = [each for each in (checked, kernel) if isinstance(each, Estimate)]
    notes = () if isinstance(checked, Estimate) else (checked,)
    if not told:
        advice = "install chrony, or name a time server that answers with --ntp"
        return Finding(Check.CLOCK, Verdict.WARN, "nobody says how far it is off", advice, notes)
    advice = _clock_advice(told[0], kernel)
    verdict = Verdict.OK if advice == _NOTHING else Verdict.WARN
    return Finding(Check.CLOCK, verdict, "; ".join(map(str, told)), advice, notes)


def _clock_advice(best: Estimate, kernel: Estimate | None) -> str:
    if best.bound_s is None or best.bound_s > OFF_S:
        return "no better is known: install chrony, or name nearer time servers with --ntp"
    if abs(best.offset_s) <= OFF_S:
        return _NOTHING
    if kernel is not None and (kernel.bound_s or 0) <= OFF_S:  # then it is believed before anybody is asked
        return "what keeps this clock tells the kernel that it is right, and simopen believes it: restart it (chronyd?)"
    return "simopen corrects for it while a time server answers; install chrony to set it right"


def judge_simultaneous_open(connected: bool | str, switch: str | None) -> Finding:
    """`connected`: whether a socket got connected to itself, or why that could not be tried.

    `switch`: net.ipv4.tcp_simult_connect, which hardened kernels have (linux-hardened: off unless switched on).
    """
    check = Check.SIMULTANEOUS_OPEN
    if switch == "0":
        advice = "sudo sysctl -w net.ipv4.tcp_simult_connect=1"
        return Finding(check, Verdict.FAIL, "this kernel has it switched off (net.ipv4.tcp_simult_connect)", advice)
    if isinstance(connected, str):
        advice = "see that loopback is up and that no firewall stands in it; then ask again"
        return Finding(check, Verdict.UNKNOWN, f"could not be tried on loopback: {connected}", advice)
    if not connected:
        advice = "see that no firewall stands in loopback; else this kernel cannot do it: only the listener connects"
        return Finding(check, Verdict.FAIL, "the kernel does not answer a SYN that crosses its own", advice)
    return Finding(check, Verdict.OK, "one socket connected to itself")


def judge_port_sharing(refused: str | None) -> Finding:
    """`refused`: why a second socket could not have the first one's port; None where it could."""
    if refused is None:
        return Finding(Check.PORT_SHARING, Verdict.OK, "two sockets had one local port")
    advice = "without it nothing can fire and listen on one port: use a system with SO_REUSEPORT (Linux since 3.9)"
    return Finding(Check.PORT_SHARING, Verdict.FAIL, refused, advice)


def judge_descriptors(soft: float, hard: float) -> Finding:
    """The two limits of RLIMIT_NOFILE; `inf` where there is none."""
    found = f"this process may have {soft:,.0f}, and take up to {hard:,.0f}"
    if hard >= DESCRIPTORS:  # the runner takes what it needs
        return Finding(Check.DESCRIPTORS, Verdict.OK, found)
    advice = f"only a spray needs {DESCRIPTORS:,}: have root raise the hard limit (limits.conf)"
    return Finding(Check.DESCRIPTORS, Verdict.WARN, found, advice)


_DROPPING = re.compile(r"hook (input|output) [^;]*; policy drop;")
_INBOUND = "nothing, unless the peer's NAT picks a new port for each peer: then let TCP to the punch port in"


def judge_firewall(chains: str | None, legacy: str | None, services: Sequence[str]) -> Finding:
    """`chains`: what `nft list chains` says; `legacy`: /proc/net/ip_tables_names; None where they cannot be read.

    `services`: the firewalls that are switched on.
    """
    dropping = set(_DROPPING.findall(chains or ""))
    on = [f"{service} is on" for service in services]
    if "output" in dropping:
        advice = "let TCP from the punch port out: `nft list ruleset` shows the rules"
        return _hint(Verdict.WARN, [*on, "nftables drops what goes out, unless a rule lets it"], advice)
    if legacy and "filter" in legacy.split():
        advice = "`iptables-legacy -S OUTPUT` must let TCP from the punch port out"
        return _hint(Verdict.UNKNOWN, [*on, "iptables has rules that were not read"], advice)
    if chains is None:
        advice = "ask again as root; STUN over TCP, below, shows whether TCP gets out"
        return _hint(Verdict.UNKNOWN, [*on, "its rules cannot be read"], advice)
    if on or dropping:
        return _hint(Verdict.OK, [*on, "what comes in unasked is dropped"], _INBOUND)
    return _hint(Verdict.OK, ["nftables drops nothing by policy"], _NOTHING)


def _hint(verdict: Verdict, found: Sequence[str], advice: str) -> Finding:
    return Finding(Check.FIREWALL, verdict, "; ".join(found), advice)


_OFFLINE = "bring the network up: this host reaches nobody"
_ASK_FOR_IPV6 = "ask the provider for it: between two hosts that have IPv6 there is no NAT"


def judge_ipv4(source: str | None, source6: str | None) -> Finding:
    """`source`: the address that packets to the internet would leave from, by IPv4; `source6`: by IPv6."""
    if source is None:
        return _no_route(Check.IPV4, source6, "nothing, where the peer has IPv6 too; else ask the provider for IPv4")
    address = ipaddress.ip_address(source)
    if address.is_link_local:
        return Finding(Check.IPV4, Verdict.WARN, f"{source}, which goes no further than the link", "is DHCP working?")
    if address in _CARRIERS:
        return Finding(
            Check.IPV4, Verdict.OK, f"has a route, from {source}, an address behind a provider's NAT: see `simopen nat`"
        )
    if address.is_private:
        return Finding(Check.IPV4, Verdict.OK, f"has a route, from {source}, a private address: see `simopen nat`")
    return Finding(Check.IPV4, Verdict.OK, f"has a route, from {source}, a public address")


def judge_ipv6(source: str | None, source4: str | None) -> Finding:
    """`source`: the address that packets to the internet would leave from, by IPv6; `source4`: by IPv4."""
    if source is None:
        return _no_route(Check.IPV6, source4, _ASK_FOR_IPV6)
    if not ipaddress.ip_address(source).is_global:
        return Finding(Check.IPV6, Verdict.WARN, f"{source}, which the internet does not reach", _ASK_FOR_IPV6)
    return Finding(
        Check.IPV6,
        Verdict.OK,
        f"has a route, from {source}, a public address: to peers with IPv6, no NAT is in the way",
    )


def _no_route(check: Check, other: str | None, advice: str) -> Finding:
    if other is None:
        return Finding(check, Verdict.FAIL, "no route to the internet", _OFFLINE)
    return Finding(check, Verdict.WARN, "no route to the internet", advice)


_MAPPING: dict[Mapping, tuple[Verdict, str]] = {
    Mapping.NONE: (Verdict.OK, _NOTHING),
    Mapping.ENDPOINT_INDEPENDENT: (Verdict.OK, _NOTHING),
    Mapping.ADDRESS_DEPENDENT: (Verdict.WARN, "not every peer can be met through this NAT: see `simopen nat`"),
    Mapping.ADDRESS_AND_PORT_DEPENDENT: (
        Verdict.WARN,
        'not every peer can be met through this NAT ("symmetric NAT"): see `simopen nat`',
    ),
    Mapping.UNKNOWN: (Verdict.UNKNOWN, "name more STUN servers with --stun, and see `simopen nat`"),
}

_WEB_ONLY = "only ports of the web answered: if a firewall is why, agree on port 443 with the peer"


def judge_stun(
    asked: Sequence[int],
    answered: Sequence[Endpoint],
    profile: Profile | None,
    notes: Sequence[str],
    heard: Sequence[Heard] = (),
) -> Finding:
    """`asked`: the ports of the servers asked; `answered`: the ends that answered; `notes`: what the others did, in
    words, and `heard` what that comes to."""
    if profile is None or not answered:
        return Finding(Check.STUN, Verdict.FAIL, _nobody(heard, len(asked)), _why_silent(heard), tuple(notes))
    if {end.port for end in answered} <= _WEB_PORTS and not set(asked) <= _WEB_PORTS:
        return Finding(
            Check.STUN,
            Verdict.WARN,
            _heard(answered, profile),
            _WEB_ONLY,
            tuple(notes),
            "only ports of the web answered",
        )
    verdict, advice = _MAPPING[profile.mapping]
    return Finding(Check.STUN, verdict, _heard(answered, profile), advice, tuple(notes))


def _heard(answered: Sequence[Endpoint], profile: Profile) -> str:
    translated = "no translation" if profile.mapping is Mapping.NONE else f"{profile.mapping.value} mapping"
    filtered = "" if profile.filtering is Filtering.UNKNOWN else f", {profile.filtering.value} filtering"
    return f"{len(answered)} endpoints answered: {translated}{filtered}, seen as {profile.mapped}"


_TOLD = "told this host's mapping"
_SILENT = {Heard.NO_NAME, Heard.NO_NAME_YET, Heard.NO_WAY, Heard.NOTHING}
"""Who refuses, or says what cannot be believed, does answer."""


def _nobody(heard: Sequence[Heard], asked: int) -> str:
    """That nobody answered, where that is so."""
    silent = _SILENT.issuperset(heard)
    if asked > 1:
        return f"none of {asked} servers {'answered' if silent else _TOLD}"
    return "the server did not answer" if silent else "the server did not tell this host's mapping"


def _why_silent(heard: Sequence[Heard]) -> str:
    """By what came of asking the servers."""
    if Heard.PORTAL in heard:
        return "open a web page, log in to this network, and ask again"
    if heard and all(each.is_unnamed for each in heard):
        return "see that names are looked up here (/etc/resolv.conf), or name a server by its address with --stun"
    if not _SILENT.issuperset(heard):
        return "the notes say what came back, from a server or a firewall: name a server that answers with --stun"
    if Heard.NO_WAY in heard and Heard.NOTHING not in heard:
        return "see that the network is up, and has a route for the servers' address family; then ask again"
    return "does a firewall let TCP out to any port? Name a server that you can reach with --stun"
