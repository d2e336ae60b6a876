"""Real routers: Linux network namespaces with nftables, in the place of a NAT model.

Theory of operation. `LinuxRouter` names a configuration, and `ruleset` writes it down as nft's script: masquerading
towards the core, and one answer to what nobody inside asked for. `router_namespace.py` makes the namespace. `model` is
the NAT model that does the same to every packet tried (tests/lab/host/test_real_routers.py).

Pure: values and text. No socket, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from simopen.lab.nat.model import Nat, Unsolicited
from simopen.lab.net.conditions import Addresses, addresses_of
from simopen.model.nat import Allocation, Filtering, Mapping

WAN = "net0"  # towards the core


class Input(Enum):
    """What the router's input chain does with a packet that nobody inside asked for.

    ACCEPT leaves the answer to the router's own kernel, on which nobody listens: a RST to a TCP segment, the ICMP error
    "port unreachable" to a datagram, and an echo reply. REJECT answers TCP and UDP in the same way, and drops the rest.
    REJECT_ICMP answers TCP too with the ICMP error.
    """

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    REJECT_ICMP = "reject with icmp"


@dataclass(frozen=True, slots=True)
class LinuxRouter:
    """A Linux router: masquerading, a stateful firewall, and the kernel's own time-outs.

    `random` gives every connection a public port at random, as nft's `masquerade random` does; otherwise a connection
    keeps its private port where that is free. IPv6 is forwarded untranslated behind the same firewall, where ACCEPT
    does as REJECT: a host's answer would not be the router's.

    Needs the program nft (Debian: `apt-get install nftables`) and a kernel with nf_tables and connection tracking;
    `available(router=True)` says what is missing. Its ICMP errors are rate-limited by the kernel, as a real router's
    are: net.ipv4.icmp_ratelimit. It is one hop more on the way than a model.
    """

    input: Input = Input.DROP
    random: bool = False

    @property
    def model(self) -> Nat:
        """The NAT model that does as this router does.

        Every connection is tracked by itself and shares its port with those to other endpoints; so with ports kept, it
        looks endpoint-independent to who asks only where its packets come from.
        """
        return Nat(
            Mapping.ADDRESS_AND_PORT_DEPENDENT,
            Filtering.ADDRESS_AND_PORT_DEPENDENT,
            Allocation.RANDOM if self.random else Allocation.PRESERVING,
            _MODELLED[self.input],
            overloading=True,
            tracking=True,
            udp_timeout_s=120.0,
            icmp_timeout_s=30.0,
        )


_MODELLED = {
    Input.ACCEPT: Unsolicited.ACCEPT,
    Input.DROP: Unsolicited.DROP,
    Input.REJECT: Unsolicited.RESET,
    Input.REJECT_ICMP: Unsolicited.ICMP,
}
_REJECT = "meta l4proto udp reject with icmpx port-unreachable; drop"
_REJECT_WITH_RESET = f"meta l4proto tcp reject with tcp reset; {_REJECT}"
_ANSWERS = {
    Input.ACCEPT: "accept",
    Input.DROP: "drop",
    Input.REJECT: _REJECT_WITH_RESET,
    Input.REJECT_ICMP: f"meta l4proto tcp reject with icmpx port-unreachable; {_REJECT}",
}
_ANSWERS_TO_FORWARDED = {**_ANSWERS, Input.ACCEPT: _REJECT_WITH_RESET}

# What connection tracking finds invalid is not translated: it would leave with its private address. Multicast reports
# are nobody's business here: the lab's links carry what programs send.
_RULESET = """\
table inet firewall {{
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname != {wan} accept
        ct state established,related accept
        {answer}
    }}
    chain output {{
        type filter hook output priority filter; policy accept;
        icmpv6 type mld2-listener-report drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname != {wan} ct state invalid drop
        iifname != {wan} accept
        ct state established,related accept
        {answer_to_forwarded}
    }}
}}
table ip translation {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname {wan} masquerade {flags}
    }}
}}
"""


def ruleset(router: LinuxRouter) -> str:
    """The router's configuration as a script for `nft -f`."""
    return _RULESET.format(
        wan=WAN,
        answer=_ANSWERS[router.input],
        answer_to_forwarded=_ANSWERS_TO_FORWARDED[router.input],
        flags="random" if router.random else "",
    )


def addresses_behind(nats: Sequence[Nat], number: int, lan: int, *, routed: bool) -> Addresses:
    """The addresses of the network's `number`-th host: where it has a real router, as behind a model in its place."""
    return addresses_of(number, (Nat(), *nats) if routed else nats, lan=lan)


def outside_of(addresses: Addresses) -> Addresses:
    """The router's own, for those of the host behind it: what the core has to do with."""
    (outer, *_), *pools = addresses.pools
    own6 = _first_of(addresses.private6, ":")
    return replace(addresses, private=outer, private6=own6, public6=own6, pools=tuple(pools))


def inside_of(addresses: Addresses) -> str:
    """The router's IPv4 address on the host's side."""
    return _first_of(addresses.private, ".")


def first_router(host: str) -> str:
    """The address on the host's side of the router that a packet of a host's comes to first."""
    return _first_of(host, ":" if ":" in host else ".")


def _first_of(address: str, separator: str) -> str:
    """The first address of a host's network, which is its router's: hosts begin with 2."""
    network, _, _ = address.rpartition(separator)
    return f"{network}{separator}1"
