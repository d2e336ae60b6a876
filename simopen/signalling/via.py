"""A Signaller by the URL of a rendezvous: `async with simopen.signalling.connect("wss://…/v1") as signaller:`.

Theory of operation. `ws` and `wss` are mailbox servers; no other kind is known. In the clear is refused where it was
not meant: what is said is sealed, but anybody on the way could see who meets, and take a part.
A password in a URL goes to the server, and into no error or log.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from simopen.model.wording import quoted
from simopen.signalling.base import Signaller

PUBLIC = "ws://relay.magic-wormhole.io:4000/v1"
"""magic-wormhole's public mailbox server, which programs with an app id of their own may use. It has no TLS."""
_SCHEMES = ("ws", "wss")


@dataclass(frozen=True, slots=True, repr=False)
class Via:
    """A rendezvous by its URL. `host`: with its port, where it has one; `login`: "user:password", as it was written."""

    scheme: str
    login: str
    host: str
    path: str

    def __str__(self) -> str:
        """Without the login and what stands after the path."""
        return f"{self.scheme}://{self.host}{self.path.partition('?')[0]}"

    def __repr__(self) -> str:
        """As `str` has it, so that no log tells a password."""
        return f"Via({str(self)!r})"

    @property
    def url(self) -> str:
        """The whole, for who connects."""
        return f"{self.scheme}://{self.login}{'@' * bool(self.login)}{self.host}{self.path}"

    @property
    def is_here(self) -> bool:
        """Whether it is on this host."""
        return _is_loopback(self.host)


def read_via(via: str, *, allow_plain: bool = False) -> Via:
    """The rendezvous that a URL names.

    Args:
        via: "wss://host:port/v1", or "ws://…"; "/v1" may be left out.
        allow_plain: let `ws` go to other hosts than this, and than `PUBLIC`.

    Raises:
        TypeError: no string.
        ValueError: no such URL, or one in the clear that was not allowed. No password is in the message.
    """
    if not isinstance(via, str):
        raise TypeError(f"via is a URL, not {type(via).__name__}")
    scheme, separator, rest = via.strip().partition("://")
    if not separator or (scheme := scheme.lower()) not in _SCHEMES:
        raise ValueError("via is a URL that begins with wss:// (or ws://, which is in the clear)")
    authority, path = re.fullmatch(r"([^/?#]*)([^#]*)(?:#.*)?", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    if "@" in rest[len(authority) :]:
        raise ValueError("via has an @ after its host: in a password, write / as %2F, ? as %3F and # as %23")
    login, _, name = authority.rpartition("@")
    if not all(each.isprintable() and not each.isspace() for each in login + path):
        raise ValueError("via has a space, or what cannot be seen, in it")
    found = Via(scheme, login, _host(name), path if path not in ("", "/") else "/v1")
    if not (allow_plain or scheme == "wss" or found.is_here or str(found) == PUBLIC):
        raise ValueError(
            f"{found} is in the clear: whoever is on the way would see who meets, and when. "
            "Use wss://, or allow it (allow_plain)"
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
    from simopen.signalling.mailbox import mailbox

    async with mailbox(where.url, str(where), tls=tls, proxied=not where.is_here) as signaller:
        yield signaller


def _host(name: str) -> str:
    """One that can be looked up, with its port, as it was written.

    Raises:
        ValueError: none.
    """
    try:
        parts = urlsplit(f"//{name}")
        is_one = bool(parts.hostname) and parts.netloc == name and (parts.port is None or parts.port > 0)
    except ValueError:
        is_one = False
    if not is_one or any(each.isspace() or not each.isprintable() or each in ",;" for each in name):
        raise ValueError(f"no host in via: {quoted(name)}")
    return name.lower()


def _is_loopback(host: str) -> bool:
    name = (urlsplit(f"//{host}").hostname or "").partition("%")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
