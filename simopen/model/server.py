"""Servers to ask (STUN, NTP), as people name them. Pure: a name is looked up elsewhere (`net/resolve.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from simopen.model.endpoint import check_port, checked_name, host_and_port, literal, typed_scope
from simopen.model.wording import quoted


class Heard(StrEnum):
    """What came of asking a server that was of no use: what is decided by it, while a message has the details."""

    NO_NAME = "its name could not be looked up"
    NO_NAME_YET = "its name was not looked up in time"
    NO_WAY = "there is no route to it"
    NOTHING = "no answer"
    PORTAL = "a web page instead"
    UNUSABLE = "an answer that is of no use, or a refusal"

    @property
    def is_unnamed(self) -> bool:
        """Whether it could not even be asked, for want of its address."""
        return self in (Heard.NO_NAME, Heard.NO_NAME_YET)


@dataclass(frozen=True, slots=True)
class Server:
    """A server to ask, by name or address. `usual_port`: where such servers listen; it goes without saying."""

    host: str
    port: int
    usual_port: int

    def __str__(self) -> str:
        if self.port == self.usual_port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_servers(servers: Sequence[str | tuple[str, int]], usual_port: int, what: str) -> tuple[Server, ...]:
    """Each server, as `read_server` reads it. `what` each is: "a ...".

    Raises:
        TypeError: what is no sequence of names, as a bare one; a name that is no string.
        ValueError: none at all, or one that cannot be read.
    """
    if isinstance(servers, (str, bytes)):
        raise TypeError(f"servers is a sequence of names: write [{quoted(servers)}]")
    if not isinstance(servers, Iterable):
        raise TypeError(f"servers is a sequence of names, not {quoted(servers)}")
    if not (read := tuple(read_server(each, usual_port, what) for each in servers)):
        raise ValueError(f"no {what.removeprefix('a ')}s given")
    return read


def read_server(server: str | tuple[str, int], usual_port: int, what: str) -> Server:
    """A server named as "host", "host:port", "v6", "[v6]:port" or (host, port). `what` it is: "a ...".

    Raises:
        TypeError: a host that is no string.
        ValueError: no resolver could look it up, or a port out of range.
    """
    given, port = server if isinstance(server, (tuple, list)) and len(server) == 2 else (server, usual_port)
    if not isinstance(given, str):
        raise TypeError(f"not the name of {what}: {quoted(given)}")
    host, typed_port = host_and_port(given)
    if typed_port is not None and server is not given:
        raise ValueError(f"not {what}: {quoted(server)}")
    port = check_port(port if typed_port is None else typed_port, f"the port of {what}")
    if literal(host) is not None:
        return Server(host.partition("%")[0] + typed_scope(given) * ("%" in host), port, usual_port)
    try:
        return Server(checked_name(host.lower()), port, usual_port)
    except UnicodeError as error:
        raise ValueError(f"not {what}: {quoted(server)} ({error})") from error
