"""A Signaller by the URL of a rendezvous: `async with simopen.signalling.connect("wss://…/v1") as signaller:`.

Theory of operation. The scheme says who is there: `ws` and `wss` a mailbox server, the others NATS, over WebSocket too,
for which NATS's own clients have no scheme of its own. In the clear is refused where it was not meant: what is said is
sealed, but anybody on the way could see who meets, and take a part.
A password in a URL goes to the server, and into no error or log.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from simopen.errors import SignallingError
from simopen.model.wording import quoted
from simopen.signalling.base import Signaller

PUBLIC = "ws://relay.magic-wormhole.io:4000/v1"
"""magic-wormhole's public mailbox server, which programs with an app id of their own may use. It has no TLS."""
MAILBOX, NATS = ("ws", "wss"), ("nats", "tls", "nats+ws", "nats+wss")
_SEALED = {"ws": "wss", "nats": "tls", "nats+ws": "nats+wss"}
"""What to take in place of a scheme that is in the clear."""
_SERVERS_MOST = 16


@dataclass(frozen=True, slots=True, repr=False)
class Via:
    """A rendezvous by its URL. `hosts`: "host" or "host:port" each; `login`: "user:password", as it was written."""

    scheme: str
    login: str
    hosts: tuple[str, ...]
    path: str

    def __str__(self) -> str:
        """Without the login and what stands after the path."""
        return f"{self.scheme}://{','.join(self.hosts)}{self.path.partition('?')[0]}"

    def __repr__(self) -> str:
        """As `str` has it, so that no log tells a password."""
        return f"Via({str(self)!r})"

    @property
    def url(self) -> str:
        """The whole, for who connects."""
        return f"{self.scheme}://{self.login}{'@' * bool(self.login)}{','.join(self.hosts)}{self.path}"

    @property
    def servers(self) -> tuple[str, ...]:
        """A URL each, with the login, as NATS's clients take it."""
        scheme, path = self.scheme.removeprefix("nats+"), self.path.partition("?")[0]
        return tuple(f"{scheme}://{self.login}{'@' * bool(self.login)}{host}{path}" for host in self.hosts)

    @property
    def is_here(self) -> bool:
        """Whether all of it is on this host."""
        return all(_is_loopback(host) for host in self.hosts)


def read_via(via: str, *, allow_plain: bool = False) -> Via:
    """The rendezvous that a URL names.

    Args:
        via: "wss://host:port/v1" ("/v1" may be left out), "ws://…", "nats://user:password@host,host,host", "tls://…",
            "nats+wss://host:port", "nats+ws://…"; for NATS, "?creds=" and a file's path may follow.
        allow_plain: let what is in the clear go to other hosts than this, and than `PUBLIC`.

    Raises:
        TypeError: no string.
        ValueError: no such URL, or one in the clear that was not allowed. No password is in the message.
    """
    if not isinstance(via, str):
        raise TypeError(f"via is a URL, not {type(via).__name__}")
    scheme, separator, rest = via.strip().partition("://")
    if not separator or (scheme := scheme.lower()) not in (*MAILBOX, *NATS):
        raise ValueError(f"via must begin with one of {', '.join(f'{each}://' for each in (*MAILBOX, *NATS))}")
    authority, path = re.fullmatch(r"([^/?#]*)([^#]*)(?:#.*)?", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    if "@" in rest[len(authority) :]:
        raise ValueError("via has an @ after its host: in a password, write / as %2F, ? as %3F and # as %23")
    login, _, names = authority.rpartition("@")
    hosts = tuple(_host(name) for name in names.split(","))
    if len(hosts) > (1 if scheme in MAILBOX else _SERVERS_MOST):
        raise ValueError(f"too many hosts in via: {scheme}:// takes {1 if scheme in MAILBOX else _SERVERS_MOST}")
    if not all(each.isprintable() and not each.isspace() for each in login + path):
        raise ValueError("via has a space, or what cannot be seen, in it")
    found = Via(scheme, login, hosts, path if path not in ("", "/") or scheme not in MAILBOX else "/v1")
    if not (allow_plain or scheme not in _SEALED or found.is_here or str(found) == PUBLIC):
        raise ValueError(
            f"{found} is in the clear: whoever is on the way would see who meets, and when. "
            f"Use {_SEALED[scheme]}://, or allow that: --allow-plain, or in a program allow_plain=True"
        )
    return found


@contextlib.asynccontextmanager
async def connect(
    via: str, *, allow_plain: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Signaller]:
    """A connection to a rendezvous, by its URL. Leaving leaves the room too.

    Args:
        via: see `read_via`.
        allow_plain: let what is in the clear go to other hosts than this.
        tls: who is believed to be the server; None: what the usual authorities say.

    Raises:
        SignallingError: nobody answers there, what answers is no rendezvous, or it turns this away.
        TypeError, ValueError: no such URL, or one in the clear that was not allowed.
    """
    where = read_via(via, allow_plain=allow_plain)
    async with _opened(where, tls) as signaller:
        yield signaller


def _opened(where: Via, tls: ssl.SSLContext | None) -> contextlib.AbstractAsyncContextManager[Signaller]:
    if where.scheme in MAILBOX:
        from simopen.signalling.mailbox import mailbox

        return mailbox(where.url, str(where), tls=tls, proxied=not where.is_here)
    try:
        from simopen.signalling.nats import nats_rooms
    except ImportError as error:
        raise SignallingError(f"{where} needs what is not installed: pip install nats-py") from error
    credentials = parse_qs(urlsplit(where.path).query).get("creds", [None])[-1]
    return nats_rooms(where.servers, str(where), tls=tls, credentials=credentials, proxied=not where.is_here)


def _host(name: str) -> str:
    """One that can be looked up, with its port, as it was written.

    Raises:
        ValueError: none.
    """
    try:
        parts = urlsplit(f"//{name}")
        is_one = bool(parts.hostname) and parts.netloc == name
    except ValueError:
        is_one = False
    if not is_one or any(each.isspace() or not each.isprintable() or each == ";" for each in name):
        raise ValueError(f"no host in via: {quoted(name)}")
    try:
        has_port = parts.port != 0
    except ValueError:
        has_port = False
    if not has_port:
        raise ValueError(f"the port must lie between 1 and 65535 (in via: {quoted(name)})")
    return name.lower()


def _is_loopback(host: str) -> bool:
    name = (urlsplit(f"//{host}").hostname or "").partition("%")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
