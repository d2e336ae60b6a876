"""What the user's process says to the lab's process and to the fork server, and they to it.

Theory of operation. A Unix SOCK_SEQPACKET pair carries one pickled message per datagram, and file descriptors beside
it. Every request has one answer, in order. A record may be long: it travels as a memory file, of which only the
descriptor is sent, so that the lab's process never waits for its reader. Pickle is fit here and nowhere else: both
ends are this package, and one has started the other.
"""

from __future__ import annotations

import os
import pickle
import socket
from dataclasses import dataclass
from enum import Enum

from simopen.errors import LabError
from simopen.lab.net.conditions import Addresses, Conditions
from simopen.lab.net.linux_router import LinuxRouter

_LONGEST_MESSAGE = 65536
_MOST_FDS = 4


class LinkKind(Enum):
    """How a host's link is held: see `links.py`. AUTO takes TUN where it can be had."""

    AUTO = "auto"
    TUN = "tun"
    VETH = "veth"


@dataclass(frozen=True, slots=True)
class Ready:
    """The lab's first word. Comes with its lifeline (see `launcher.py`), and the user namespace where it made one."""

    link: LinkKind


@dataclass(frozen=True, slots=True)
class AddHost:
    """`beside`: the host with which it shares LAN, NATs and access; its conditions are then that host's.

    `router`: the real one next to the host; the NATs of `conditions` are between that and the core. `two_addresses`:
    whether it has a further public one.
    """

    name: str
    conditions: Conditions
    beside: str | None = None
    router: LinuxRouter | None = None
    two_addresses: bool = False


@dataclass(frozen=True, slots=True)
class HostAdded:
    """Comes with the host's network namespace, and its router's where it has one."""

    addresses: Addresses


@dataclass(frozen=True, slots=True)
class FetchRecord:
    pass


@dataclass(frozen=True, slots=True)
class RecordFetched:
    """Comes with a memory file: a pickled list of passages."""


@dataclass(frozen=True, slots=True)
class ForgetRecord:
    pass


@dataclass(frozen=True, slots=True)
class Done:
    pass


@dataclass(frozen=True, slots=True)
class Failed:
    reason: str


@dataclass(frozen=True, slots=True)
class Fork:
    """To the fork server: fork a lab, on the socket that comes with this, or without one try whether a lab can be had.

    First comes the file for what it complains of. `router`: whether to try a real router as well.
    """

    link: LinkKind
    seed: int = 0
    router: bool = False


@dataclass(frozen=True, slots=True)
class Forked:
    """Comes with the process's pidfd."""

    pid: int


@dataclass(frozen=True, slots=True)
class Reap:
    """To the fork server: wait for the end of the process that it forked, and forget it."""

    pid: int


@dataclass(frozen=True, slots=True)
class Reaped:
    returncode: int


Request = AddHost | FetchRecord | ForgetRecord
Answer = Ready | HostAdded | RecordFetched | Done | Failed
ForkServerRequest = Fork | Reap
ForkServerAnswer = Done | Forked | Reaped | Failed
Message = Request | Answer | ForkServerRequest | ForkServerAnswer


def send(channel: socket.socket, message: Message, fds: tuple[int, ...] = ()) -> None:
    """Send one message; the other side gets duplicates of the descriptors. Raises: OSError."""
    socket.send_fds(channel, [pickle.dumps(message)], fds)


def receive(channel: socket.socket) -> tuple[object, list[int]] | None:
    """The next message and the descriptors with it, which are the caller's now; None after the other side's end.

    Raises: OSError (BlockingIOError where there is nothing yet); LabError where this process could not take all of the
    descriptors.
    """
    data, fds, flags, _ = socket.recv_fds(channel, _LONGEST_MESSAGE, _MOST_FDS)
    if flags & socket.MSG_CTRUNC:  # recv(2); the kernel has closed those that found no number
        for fd in fds:
            os.close(fd)
        raise LabError("this process has no file descriptors left for the lab; raise its limit (ulimit -n)")
    for fd in fds:
        os.set_inheritable(fd, False)
    return (pickle.loads(data), fds) if data else None
