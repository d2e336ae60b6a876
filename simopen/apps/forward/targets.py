"""What is listened for, and where connections may go."""

from __future__ import annotations

from dataclasses import dataclass

from simopen.model.endpoint import check_port, host_and_port
from simopen.model.wording import quoted

MOST_FORWARDS = 64
LONGEST_NAME = 253
"""Characters of a host's name, and no address has more: RFC 1035 §2.3.4 has it as 255 bytes on the wire."""
_HERE = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Target:
    """Where the peer may have connections made to from this host; without a port, to any port of that host."""

    host: str
    port: int | None = None

    def __post_init__(self) -> None:
        _require_host(self.host, "name each host: there is no word for all")

    @classmethod
    def read(cls, text: str) -> Target:
        """From HOST or HOST:PORT. Raises: ValueError."""
        host, port = host_and_port(text)
        return cls(host, port)

    def covers(self, host: str, port: int) -> bool:
        """Whether a connection to that is one to this."""
        return self.host.lower() == host.lower() and self.port in {None, port}

    def __str__(self) -> str:
        return self.host if self.port is None else named(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Forward:
    """Connections to this port of this host are made from the peer's host to that host and port."""

    listen: tuple[str, int]
    to: tuple[str, int]

    def __post_init__(self) -> None:
        _require_host(self.listen[0], "0.0.0.0 or [::] is for all addresses")
        _require_host(self.to[0], "name the host")

    @classmethod
    def read(cls, listen: str, to: str) -> Forward:
        """From PORT or HOST:PORT, of this host, and HOST:PORT as the peer sees it. Raises: ValueError."""
        host, port = (_HERE, int(listen)) if listen.isascii() and listen.isdecimal() else host_and_port(listen)
        there, its_port = host_and_port(to)
        if port is None or its_port is None:
            raise ValueError(f"{quoted(listen if port is None else to)} has no port: HOST:PORT is wanted")
        if not (host and there):
            raise ValueError(f"{quoted(to if host else listen)} has no host: HOST:PORT is wanted")
        return cls(
            (host, check_port(port, "the port to listen on")), (there, check_port(its_port, "the target's port"))
        )

    def __str__(self) -> str:
        return f"{named(*self.listen)} to {named(*self.to)}"


def named(host: str, port: int) -> str:
    """The endpoint as it is typed."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _require_host(host: str, instead: str) -> None:
    """Raises: ValueError. `instead`: what to say for a `*`."""
    if not host:
        raise ValueError("there is no host: it is wanted before the port")
    if "*" in host:
        raise ValueError(f"{quoted(host)} is no host: {instead}")
    if len(host) > LONGEST_NAME:
        raise ValueError(f"{quoted(host)} is no host: a name has {LONGEST_NAME} characters at most, not {len(host)}")
