"""The flows that this process opens, so that it never takes its own for somebody else's.

Theory of operation: a NAT that gives out ports in a row gives one to every new flow, whatever it is for. So each TCP
connection, each question over UDP (STUN, NTP) is noted as it leaves, by whoever sends it, and whoever judges what a NAT
did meanwhile asks here what else went out. One record serves the whole process, all its loops and threads; it is passed
as an argument where it is used, and tests have their own. Other processes of this host are others.

What is not noted is not known to take a port: a name is looked up by the C library, with as many datagrams as it likes,
but before what it was looked up for leaves; NAT-PMP goes to the nearest router, which does not translate it.

Pure: the clock is the caller's.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import NamedTuple

from simopen.model.endpoint import Endpoint, normalise
from simopen.model.times import MonoNs

MOST = 8192  # several sprays; who asks looks back over seconds


class Flow(NamedTuple):
    """One that may have got a port of a NAT's row. `at_ns`: when its first packet left, CLOCK_MONOTONIC."""

    is_tcp: bool
    local_port: int
    remote: Endpoint
    at_ns: MonoNs


class Flows:
    """A record of flows. Safe between threads, and in a process that was forked: a deque does each step whole."""

    def __init__(self) -> None:
        self._noted: deque[Flow] = deque(maxlen=MOST)
        self._judged: dict[int, MonoNs] = {}

    def note(self, flow: Flow) -> None:
        """Add one that leaves now. The latest are kept."""
        self._noted.append(flow)

    def note_socket(self, sock: socket.socket, remote: Endpoint, at_ns: MonoNs) -> None:
        """Add that of a socket that has its local port."""
        self.note(Flow(sock.type == socket.SOCK_STREAM, normalise(sock.getsockname()).port, remote, at_ns))

    def since(self, at_ns: MonoNs) -> tuple[Flow, ...]:
        """Those that left then or later, in order."""
        return tuple(sorted((flow for flow in self._noted.copy() if flow.at_ns >= at_ns), key=lambda flow: flow.at_ns))

    def judge(self, port: int, until_ns: MonoNs) -> None:
        """Note that a profile of this local port takes account of all that left until then."""
        self._judged[port] = until_ns

    def judged_until(self, port: int) -> MonoNs | None:
        """The time of the latest `judge`; None where this process made no profile of that port."""
        return self._judged.get(port)


shared = Flows()
"""That of this process."""
