"""Endpoints: value types, how they are read, and which of them somebody else may name.

Theory of operation: an endpoint is an IP literal and a port, nothing else; names are resolved at the edge
(`net/resolve.py`) and never reach the modules that fire.

An address has one spelling from the moment it is taken, whoever it comes from, so that equal ones compare equal
(`canonical`): IPv4 in IPv6 is IPv4, and only a link-local address keeps its scope, as a number. What people type goes
through `literal`, which refuses what resolvers read in different ways. Who may name which address, `refusal` says.
Everything here is pure, but for the number of an interface.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, TypeAlias, TypeGuard

from simopen.model.wording import quoted

Peer: TypeAlias = "tuple[str, int] | Sequence[tuple[str, int]]"
Local: TypeAlias = "int | tuple[str, int] | None"

ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


class Endpoint(NamedTuple):
    """A transport address: an IP literal (an IPv6 one may carry a scope, `fe80::1%eth0`) and a port 1..65535."""

    address: str
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def check_port(port: object, what: str) -> int:
    """Return `port` where it is an int in 1..65535.

    Raises:
        TypeError: not an int.
        ValueError: out of range. Port 0 would let the kernel pick one, which the other side could not know.
    """
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"{what} must be an int, not {type(port).__name__}")
    if not 1 <= port <= 65535:
        raise ValueError(f"{what} must lie between 1 and 65535, not {quoted(port)}")
    return port


class Reach(IntEnum):
    """How far away the host of an address can be, from this host's own view."""

    NOBODY = 0
    HOST = 1
    LINK = 2
    SITE = 3
    GLOBAL = 4


_KINDS: tuple[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, Reach, str], ...] = tuple(
    (ipaddress.ip_network(network), reach, kind)
    for network, reach, kind in (
        ("0.0.0.0/8", Reach.NOBODY, "an address that no host has"),
        ("127.0.0.0/8", Reach.HOST, "a loopback address"),
        ("169.254.0.0/16", Reach.LINK, "a link-local address"),
        ("10.0.0.0/8", Reach.SITE, "a private address"),
        ("172.16.0.0/12", Reach.SITE, "a private address"),
        ("192.168.0.0/16", Reach.SITE, "a private address"),
        ("100.64.0.0/10", Reach.SITE, "an address inside a provider's network"),  # RFC 6598
        ("192.0.0.0/24", Reach.SITE, "an address inside a provider's network"),  # RFC 6890, of DS-Lite and the like
        ("198.18.0.0/15", Reach.SITE, "an address of test networks"),  # RFC 2544
        ("224.0.0.0/4", Reach.NOBODY, "a multicast address"),
        ("240.0.0.0/4", Reach.NOBODY, "an address that no host has"),  # 255.255.255.255 among them
        ("::/128", Reach.NOBODY, "an address that no host has"),
        ("::1/128", Reach.HOST, "a loopback address"),
        ("fe80::/10", Reach.LINK, "a link-local address"),
        ("fc00::/7", Reach.SITE, "a private address"),
        ("fec0::/10", Reach.SITE, "a private address"),  # RFC 3879's site-local
        ("ff00::/8", Reach.NOBODY, "a multicast address"),
        ("2000::/3", Reach.GLOBAL, "a global address"),
        ("::/0", Reach.NOBODY, "an address that no host has"),
        ("0.0.0.0/0", Reach.GLOBAL, "a global address"),  # those of documentation too: the lab's internet is of them
    )
)
"""IANA's registries of special-purpose addresses, as far as a stream could be asked for there. The first that fits."""


def reach(address: str) -> Reach:
    """How far away the host of an IP address can be."""
    return _kind(address)[0]


def _kind(address: str) -> tuple[Reach, str]:
    ip = _carried(ipaddress.ip_address(address.partition("%")[0]))
    return next((reach, kind) for network, reach, kind in _KINDS if ip.version == network.version and ip in network)


def _carried(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address in an IPv6 one that a gateway would take it out of (6to4, Teredo, NAT64's RFC 6052 prefix)."""
    if ip.version == 4:
        return ip
    if (inner := ip.ipv4_mapped or ip.sixtofour) is not None:
        return inner
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.teredo[1] if ip.teredo else ip


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def refusal(endpoint: Endpoint, nearest: Reach) -> str | None:
    """Why an endpoint that somebody else names is not fired at; None where it may be.

    The one policy on what comes from a ticket, a peer's profile or a STUN server: nobody names what is nearer to this
    host than himself (RFC 8445 §19 has the same worry). `nearest`: how near he can be. What the user types is the
    user's will, and does not come here.
    """
    found, kind = _kind(endpoint.address)
    if found is not Reach.NOBODY and found >= nearest:
        return None
    return kind if found is Reach.NOBODY else f"{kind}, which means another host here than there"


def peer_endpoints(peer: Peer) -> tuple[tuple[str, int], ...]:
    """One (host, port) pair or a sequence of them, as a tuple of pairs; hosts may still be names.

    Raises:
        TypeError: neither a pair nor a sequence of pairs.
        ValueError: no endpoint at all, an empty host, a port out of range.
    """
    given: object = [peer] if _is_pair(peer) else peer
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(map(_is_pair, given)):
        raise TypeError(f"peer must be (host, port), or a sequence of such pairs, not {quoted(peer)}")
    if not given:
        raise ValueError("peer names no endpoint")
    return tuple((_typed_host(host), check_port(port, "the peer's port")) for host, port in given)


def _is_pair(value: object) -> TypeGuard[tuple[str, int]]:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)


def _typed_host(text: str) -> str:
    """An address in its one spelling, or a name, where nothing else stands beside it."""
    host, port = host_and_port(text)
    if port is not None:
        raise ValueError(f"name host and port apart, as in ({quoted(host)}, {port}), not as {quoted(text)}")
    if not host:
        raise ValueError("the peer's host is empty")
    if literal(host) is not None and not is_single(host):
        raise ValueError(f"{quoted(text)} cannot be a peer: that is no single host's address")
    return host


def is_single(address: str) -> bool:
    """Whether it is one host's address, rather than none's or many's."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return not (ip.is_unspecified or ip.is_multicast or address == "255.255.255.255")


def host_and_port(text: str) -> tuple[str, int | None]:
    """The host, and the port where one stands behind it: "name", "name:port", "v4:port", "v6" or "[v6]:port".

    An address comes back in its one spelling.

    Raises:
        ValueError: neither; or an address that cannot be read in one way only (see `literal`).
    """
    plain = _plain(text)
    match = re.fullmatch(r"\[([^][]*)\](?::([0-9]+))?|([^:]*):([0-9]+)", plain)
    host, port = (match[1] or match[3] or "", match[2] or match[4]) if match else (plain, None)
    if port is not None and not (len(port) <= 5 and 0 < int(port) < 65_536):
        raise ValueError(f"the port must lie between 1 and 65535 (in {quoted(text)})")
    if not (bare := host.removesuffix(".")):
        host = ""
    # A name keeps its full stop, which keeps the resolver from trying it in this host's own domains first.
    if (address := literal(bare)) is None and (":" in host or (match and match[1])):
        raise ValueError(f"{quoted(text)} is neither an IP address nor a name, nor one of them with a port")
    return address or host, None if port is None else int(port)


def _require_text(text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"an address or a name is a string, not {type(text).__name__}")


def _plain(text: str) -> str:
    """As it would be typed on a keyboard: no wide digits or full stops, and nothing that cannot be seen."""
    _require_text(text)
    seen = (each for each in unicodedata.normalize("NFKC", text) if unicodedata.category(each) != "Cf")
    return "".join(seen).translate(_FULL_STOPS).strip()


_FULL_STOPS = dict.fromkeys(map(ord, "\u3002\uff0e\uff61"), ".")  # IDNA takes them for one (RFC 3490 §3.1)


def literal(text: str) -> str | None:
    """The IP address that is written there, in its one spelling; None where it can only be a name.

    Raises:
        ValueError: what the resolvers of some systems take for an IPv4 address, and not all for the same one
            (`010.1.2.3`, `127.1`, `0x7f.1`, `2130706433`); or a link-local address that does not say on which link.
    """
    try:
        address = canonical(text)
    except ValueError:
        if _ends_in_number(text):
            raise ValueError(
                f"{quoted(text)} is no IPv4 address: write four numbers from 0 to 255, none with a zero in front"
            ) from None
        return None
    if reach(address) is Reach.LINK and ":" in address and "%" not in address:
        raise ValueError(
            f"{address} is a link-local address, of another host on each link: name the interface of this host, "
            f"as in {address}%eth0"
        )
    return address


def _ends_in_number(host: str) -> bool:
    """Then it is an IPv4 address or nothing: no name of the DNS ends so (url.spec.whatwg.org, RFC 3696 §2)."""
    return re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", host.removesuffix(".").rpartition(".")[2]) is not None


def local_endpoint(local: Local, default_port: int) -> tuple[str | None, int]:
    """The local (address or None for any, port). Left out, the port is the peer's port number.

    Raises:
        TypeError, ValueError: not a port or an (IP literal, port) pair.
    """
    if isinstance(local, tuple) and len(local) != 2:
        raise TypeError(f"a local endpoint is a port or a pair of address and port, not {quoted(local)}")
    address, port = local if isinstance(local, tuple) else (None, default_port if local is None else local)
    return None if address is None else own_address(address), check_port(port, "the local port")


def own_address(text: str) -> str:
    """An address that is to be this host's, in its one spelling.

    Raises:
        ValueError: it is none, or not one that a single host has.
    """
    host, port = host_and_port(text)
    if port is not None or literal(host) is None or not (is_single(host) or host in ANY.values()):
        raise ValueError(f"the local address must be an IP address of this host, not {quoted(text)}")
    return host


def typed_scope(text: str) -> str:
    """The scope of an IPv6 address as it was typed, `%eth0`; empty where there is none.

    `canonical` makes a number of it, which would be another interface's once that one has come anew.
    """
    _, percent, scope = _plain(text).partition("%")
    return percent and percent + scope.partition("]")[0]


def checked_name(name: str) -> str:
    """Raises: UnicodeError for what can be no host's name, so that it need not be looked up."""
    ascii_name = name.encode("idna").decode()
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", ascii_name) or _ends_in_number(ascii_name):
        raise UnicodeError("a host's name is made of letters, digits, hyphens and full stops")
    return name


def normalise(sockaddr: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    """An endpoint from what `accept` or `getpeername` gave, IPv6 flow label dropped and scope kept as number."""
    bare = sockaddr[0].partition("%")[0]
    scope = sockaddr[3] if len(sockaddr) == 4 else 0
    return Endpoint(canonical(f"{bare}%{scope}" if scope else bare), sockaddr[1])


def canonical(address: str) -> str:
    """One spelling for each IP address: `2001:DB8::0:1` is `2001:db8::1`, `::ffff:192.0.2.1` is `192.0.2.1`.

    The scope of a link-local address is a number, where this host has an interface of that name; `sockaddr` complains
    where it does not. The kernel ignores a scope on any other address, and so it goes.

    Raises: ValueError for what is no IP address.
    """
    _require_text(address)
    bare, percent, scope = address.partition("%")
    try:
        ip = ipaddress.ip_address(bare)
    except ValueError:
        raise ValueError(f"not an IP address: {quoted(address)}") from None
    if ip.version == 4:
        if percent:
            raise ValueError(f"an IPv4 address has no scope: {quoted(address)}")
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    if not ip.is_link_local or not scope.strip("0"):
        return str(ip)
    number = scope_id(scope)
    return f"{ip}%{scope if number is None else number}"


def scope_id(scope: str) -> int | None:
    """The number of the interface that a scope names, 0 for none; None where this host has no such interface."""
    if re.fullmatch(r"[0-9]{0,10}", scope) and int(scope or 0) < 2**32:
        return int(scope or 0)
    try:
        return socket.if_nametoindex(scope)
    except (OSError, ValueError):
        return None


def spelled(endpoint: Endpoint, whose: str) -> Endpoint:
    """An endpoint that somebody made by hand, in its one spelling. `whose` it is said to be: "the peer's".

    Raises:
        TypeError, ValueError: not an IP address and a port.
    """
    address, port = endpoint
    if not isinstance(address, str):
        raise TypeError(f"{whose} address must be a string, not {type(address).__name__}")
    return Endpoint(canonical(address), check_port(port, f"{whose} port"))
