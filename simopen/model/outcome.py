"""What became of a SYN, by the errno that told it.

Theory of operation: pure. The same errno means one thing as the answer of `connect` itself (this host's own routing
table, its own rules), and another when it comes later (a router's ICMP, the peer's RST). What this host refuses is no
verdict, unless it cannot pass within a window: those are few, and are listed with their reasons (`_FINAL`).
"""

from __future__ import annotations

import errno
import sys
from enum import Enum


class Outcome(Enum):
    """What became of a SYN, or of the attempt to send one."""

    OPEN = "established"
    IN_FLIGHT = "no answer"
    RESET = "answered by RST"
    ICMP = "answered by ICMP"
    EXHAUSTED = "no answer until the kernel gave up"
    TAKEN = "the 5-tuple was taken"
    NO_ROUTE = "no route"
    HELD = "another socket of this host has the 5-tuple"
    DENIED = "not permitted on this host"
    UNSUPPORTED = "not supported by this host"
    FAILED = "failed"


SENT = frozenset({Outcome.OPEN, Outcome.IN_FLIGHT, Outcome.RESET})
"""What `connect` itself answers where a SYN left: anything else was this host's refusal to send one."""
UNDER_WAY = frozenset({Outcome.OPEN, Outcome.IN_FLIGHT})
"""The same where the kernel has more to tell: of a socket that is connected at once, too, a moment later."""
ANSWERS = frozenset({Outcome.OPEN, Outcome.RESET, Outcome.ICMP})
"""What somebody else said to a SYN."""

# What cannot pass within a window. Whatever an errno that is in no table means, it may.
_FINAL = {
    # A rule or a missing right (SELinux, seccomp, a cgroup's filter, a `prohibit` route): somebody decided that, and is
    # to be asked, not waited for. A firewall's rules are not told this way: they drop the SYN, or answer it by ICMP.
    errno.EACCES: Outcome.DENIED,
    errno.EPERM: Outcome.DENIED,
    # This kernel was made, or booted, without it.
    errno.EAFNOSUPPORT: Outcome.UNSUPPORTED,
    errno.EPROTONOSUPPORT: Outcome.UNSUPPORTED,
    errno.EPROTOTYPE: Outcome.UNSUPPORTED,
    errno.ESOCKTNOSUPPORT: Outcome.UNSUPPORTED,
}
# The answer of `connect` itself.
_AT_ONCE = {
    0: Outcome.OPEN,
    errno.EINPROGRESS: Outcome.IN_FLIGHT,
    errno.EINTR: Outcome.IN_FLIGHT,  # POSIX: the connection goes on by itself
    errno.ECONNREFUSED: Outcome.RESET,
    errno.ECONNRESET: Outcome.RESET,
    errno.ECONNABORTED: Outcome.RESET,
    errno.EADDRNOTAVAIL: Outcome.TAKEN,
    errno.EADDRINUSE: Outcome.TAKEN,  # macOS's word for it
    # This host's routing table: none, `unreachable`, or the interface is down.
    errno.EHOSTUNREACH: Outcome.NO_ROUTE,
    errno.ENETUNREACH: Outcome.NO_ROUTE,
    errno.EHOSTDOWN: Outcome.NO_ROUTE,
    errno.ENETDOWN: Outcome.NO_ROUTE,
    errno.EINVAL: Outcome.NO_ROUTE,  # a `blackhole` route; or the address that the socket is bound to is gone
    **_FINAL,
    **({errno.EWOULDBLOCK: Outcome.IN_FLIGHT} if sys.platform == "win32" else {}),  # elsewhere it is a shortage
}
# What the network, or the kernel's patience, answered later (Linux: icmp_err_convert, tcp_v6_err).
_LATER = {
    0: Outcome.OPEN,
    errno.ECONNREFUSED: Outcome.RESET,
    errno.ECONNRESET: Outcome.RESET,
    errno.ECONNABORTED: Outcome.RESET,
    errno.EHOSTUNREACH: Outcome.ICMP,
    errno.ENETUNREACH: Outcome.ICMP,
    errno.EHOSTDOWN: Outcome.ICMP,
    errno.ENOPROTOOPT: Outcome.ICMP,  # protocol unreachable
    errno.EPROTO: Outcome.ICMP,
    errno.EACCES: Outcome.ICMP,  # ICMPv6: administratively prohibited
    errno.EOPNOTSUPP: Outcome.ICMP,
    errno.EMSGSIZE: Outcome.ICMP,
    errno.ETIMEDOUT: Outcome.EXHAUSTED,
}
# The answer of `socket` or `bind` for a port that this punch never had: most likely a slip of whoever named it.
_NEVER_HAD = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENODEV, *_FINAL}


def outcome_of(error: int, *, immediate: bool) -> Outcome:
    """The outcome that an errno means; FAILED for one that is in no table.

    `immediate`: the errno came from the `connect` call itself. "Unreachable" is then this host's own routing table
    speaking, and not a router on the way.
    """
    return (_AT_ONCE if immediate else _LATER).get(error, Outcome.FAILED)


def passes(error: int, *, had: bool) -> bool:
    """Whether what kept `socket`, `bind` or `listen` from a local port may pass within a window.

    `had`: whether the port was had before: then the address may be gone for a moment, or the port in other hands.
    """
    return error not in (_FINAL if had else _NEVER_HAD)
