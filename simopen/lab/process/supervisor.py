"""The lab's own process, a fork of the fork server.

Theory of operation. One thread, one epoll: it forwards packets between the hosts' links through the `Core`, and obeys
the user's process on a socket. It is a process of its own so that the user's Python does not hold its GIL. When
that socket ends, however its owner went, it kills what runs in its hosts and goes, and the namespaces with it.

A delivery waits in a timerfd, since epoll's own time-out is in ms. The real-time scheduler keeps programs under test
that spin from delaying packets, where it may be had. Adding a host or fetching the record holds packets up for some
ms: do that before the traffic, or after.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from simopen.lab.host.links import Link, tun_is_open
from simopen.lab.host.syscalls import Timer, set_timer_slack
from simopen.lab.net.conditions import CORE, MOST_HOSTS, Addresses, second_address
from simopen.lab.net.core import Core
from simopen.lab.net.linux_router import LinuxRouter, addresses_behind, outside_of
from simopen.lab.process.messages import (
    AddHost,
    Answer,
    Done,
    Failed,
    FetchRecord,
    ForgetRecord,
    HostAdded,
    LinkKind,
    Ready,
    RecordFetched,
    receive,
    send,
)

_PACKETS_AT_ONCE = 8  # then the timer and the other links have their turn
_REALTIME_PRIORITY = 50  # above a program under test that fires with a real-time priority of its own
_NICE = -10


class _Gateway(NamedTuple):
    """A real router: under which host's name the core knows it, and its namespace."""

    name: str
    namespace: int


class Supervisor:
    """The hosts, their links and the core between them."""

    def __init__(self, channel: socket.socket, seed: int, link: LinkKind) -> None:
        self._channel = channel
        self._link = link
        self._core = Core(seed)
        self._links: dict[str, Link] = {}
        self._lans: dict[str, int] = {}  # host -> the number of the first host on its LAN
        self._gateways: dict[int, _Gateway] = {}  # by LAN
        self._namespaces: list[int] = []
        self._timer = Timer()
        self._armed_ns: int | None = None
        self._running = True
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._watch(self._timer.fileno(), self._wake)
        self._watch(channel.fileno(), self._obey)

    def run(self) -> None:
        """Work until the user's process is done with the lab."""
        while self._running:
            self._deliver()
            for fd, _ in self._poll.poll():
                self._handlers[fd]()

    def end_hosts(self) -> None:
        """Kill what runs in the hosts."""
        from simopen.lab.host.namespaces import end_processes_in

        end_processes_in({os.fstat(fd).st_ino for fd in self._namespaces})

    def _watch(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, select.EPOLLIN)

    def _deliver(self) -> None:
        while (arrival := self._core.take_due(time.monotonic_ns())) is not None:
            with suppress(OSError):  # the host's kernel would not have it: as on a full queue
                self._links[arrival.host].write(arrival.data)
        due_ns = self._core.due_ns
        if due_ns is not None and due_ns != self._armed_ns:
            self._timer.arm(due_ns)
        self._armed_ns = due_ns

    def _wake(self) -> None:
        self._timer.acknowledge()
        self._armed_ns = None

    def _forward(self, host: str) -> None:
        for _ in range(_PACKETS_AT_ONCE):
            data = self._links[host].read()
            if data is None:
                return
            self._core.offer(host, data, time.monotonic_ns())

    def _obey(self) -> None:
        message = receive(self._channel)
        if message is None:
            self._running = False
            return
        answer, fds = self._answer(message[0])
        send(self._channel, answer, fds)
        if isinstance(answer, RecordFetched):
            os.close(fds[0])

    def _answer(self, request: object) -> tuple[Answer, tuple[int, ...]]:
        match request:
            case AddHost():
                return self._add_host(request)
            case FetchRecord():
                return RecordFetched(), (self._record(),)
            case ForgetRecord():
                self._core.forget_passages()
                return Done(), ()
        return Failed(f"the lab does not know {request!r}"), ()

    def _record(self) -> int:
        for host in self._links:  # what was sent before the question belongs in the answer
            self._forward(host)
        return _memory_file(pickle.dumps(self._core.passages()))

    def _add_host(self, request: AddHost) -> tuple[Answer, tuple[int, ...]]:
        number = len(self._lans) + 1
        refusal = self._refusal(request, number)
        if refusal is not None:
            return Failed(refusal), ()
        lan = number if request.beside is None else self._lans[request.beside]
        try:
            addresses, namespaces = self._make(request, number, lan)
        except Exception as error:  # pyroute2's tree is its own
            return Failed(f"host {request.name!r} could not be made: {error!r}"), ()
        self._namespaces += namespaces
        self._lans[request.name] = lan
        return HostAdded(addresses), namespaces

    def _make(self, request: AddHost, number: int, lan: int) -> tuple[Addresses, tuple[int, ...]]:
        """Make a host, and its router where it wants one, and attach what faces the core. Returns the namespaces."""
        from simopen.lab.host.namespaces import make_host
        from simopen.lab.host.router_namespace import make_host_behind, make_host_beside

        gateway, tun = self._gateways.get(lan), self._link is LinkKind.TUN
        routed = request.router is not None or gateway is not None
        addresses = addresses_behind(request.conditions.nats, number, lan, routed=routed)
        if request.two_addresses:
            addresses = replace(addresses, second=second_address(number))
        if gateway is not None:
            host = make_host_beside(gateway.namespace, number, addresses)
            self._core.route_through(gateway.name, addresses.private6)
            return addresses, (host,)
        if request.router is None:
            host, link = make_host(number, addresses, tun=tun)
            self._attach(request, addresses, link)
            return addresses, (host,)
        host, namespace, link = make_host_behind(request.router, number, addresses, tun=tun)
        self._gateways[lan] = _Gateway(request.name, namespace)
        self._attach(request, outside_of(addresses), link)
        self._core.route_through(request.name, addresses.private6)
        return addresses, (host, namespace)

    def _refusal(self, request: AddHost, number: int) -> str | None:
        name, beside = request.name, request.beside
        if number > MOST_HOSTS:
            return f"a network has at most {MOST_HOSTS} hosts"
        if beside is not None and beside not in self._lans:
            return f"host {name!r} cannot be beside {beside!r}: this network has no such host"
        if not name or name == CORE or name in self._lans:
            return f"a host cannot be called {name!r}: names are new, not empty and not {CORE!r}"
        return None

    def _attach(self, request: AddHost, addresses: Addresses, link: Link) -> None:
        self._links[request.name] = link
        self._core.attach(request.name, request.conditions, addresses, request.beside)
        self._watch(link.fileno(), partial(self._forward, request.name))


def serve(fd: int, seed: int, link: LinkKind) -> int:
    """Run a lab on the socket of that descriptor, to its end. Returns the process's exit status."""
    with socket.socket(fileno=fd) as channel, suppress(BrokenPipeError, ConnectionResetError):  # our user is gone
        try:
            user_namespace, link = _enter(link)
        except OSError as error:
            send(channel, Failed(f"no namespaces for a lab here: {error}"))
            return 0
        _hurry()
        supervisor = Supervisor(channel, seed, link)
        theirs, lifeline = os.pipe()
        try:
            send(channel, Ready(link), (theirs,) if user_namespace is None else (theirs, user_namespace))
            os.close(theirs)
            supervisor.run()
        finally:
            os.close(lifeline)
            supervisor.end_hosts()
    return 0


def probe(link: LinkKind, router: bool) -> int:
    """Make one host, behind a real router or not. Returns the exit status; a failure's cause is on standard error."""
    from simopen.lab.host.namespaces import make_host
    from simopen.lab.host.router_namespace import make_host_behind

    try:
        _, link = _enter(link)
        addresses, tun = addresses_behind((), 1, 1, routed=router), link is LinkKind.TUN
        if router:
            make_host_behind(LinuxRouter(), 1, addresses, tun=tun)
        else:
            make_host(1, addresses, tun=tun)
    except Exception as error:  # whatever it is, it is the answer
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _enter(link: LinkKind) -> tuple[int | None, LinkKind]:
    from simopen.lab.host.namespaces import enter_own_namespaces

    user_namespace = enter_own_namespaces()
    if link is LinkKind.AUTO:
        link = LinkKind.TUN if tun_is_open() else LinkKind.VETH
    return user_namespace, link


def _hurry() -> None:
    """Wake on time: no timer slack, no collector's pauses, and before other programs where that is allowed."""
    set_timer_slack(1)
    gc.freeze()
    gc.disable()  # what the lab holds has no cycles
    try:
        priority = os.sched_param(_REALTIME_PRIORITY)
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, priority)
    except PermissionError:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)


def _memory_file(data: bytes) -> int:
    fd = os.memfd_create("simopen-lab-record")
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    return fd
