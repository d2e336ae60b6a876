"""The lab's own process: `python -m simopen.lab.supervisor FD`.

Theory of operation. One thread, one epoll: it forwards packets between the hosts' links through the `Core`, and obeys
the user's process on the socket FD. It is a process of its own so that the user's Python does not hold its GIL. When
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
from functools import partial

from simopen.lab.conditions import CORE, MOST_HOSTS, Addresses, addresses_of
from simopen.lab.core import Core
from simopen.lab.links import Link, tun_is_open
from simopen.lab.linux import Timer, set_timer_slack
from simopen.lab.messages import (
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


class Supervisor:
    """The hosts, their links and the core between them."""

    def __init__(self, channel: socket.socket, seed: int, link: LinkKind) -> None:
        self._channel = channel
        self._link = link
        self._core = Core(seed)
        self._links: dict[str, Link] = {}
        self._lans: dict[str, int] = {}  # host -> the number of the first host on its LAN
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
        from simopen.lab.namespaces import end_processes_in

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
        number = len(self._namespaces) + 1
        refusal = self._refusal(request, number)
        if refusal is not None:
            return Failed(refusal), ()
        lan = number if request.beside is None else self._lans[request.beside]
        addresses = addresses_of(number, request.conditions.nats, lan=lan)
        try:
            namespace, link = self._make_host(number, addresses)
        except Exception as error:  # pyroute2's tree is its own
            return Failed(f"host {request.name!r} could not be made: {error!r}"), ()
        self._attach(request, addresses, namespace, link)
        self._lans[request.name] = lan
        return HostAdded(addresses), (namespace,)

    def _refusal(self, request: AddHost, number: int) -> str | None:
        name, beside = request.name, request.beside
        if number > MOST_HOSTS:
            return f"a network has at most {MOST_HOSTS} hosts"
        if beside is not None and beside not in self._links:
            return f"host {name!r} cannot be beside {beside!r}: this network has no such host"
        if not name or name == CORE or name in self._links:
            return f"a host cannot be called {name!r}: names are new, not empty and not {CORE!r}"
        return None

    def _make_host(self, number: int, addresses: Addresses) -> tuple[int, Link]:
        from simopen.lab.namespaces import make_host

        return make_host(number, addresses, tun=self._link is LinkKind.TUN)

    def _attach(self, request: AddHost, addresses: Addresses, namespace: int, link: Link) -> None:
        self._namespaces.append(namespace)
        self._links[request.name] = link
        self._core.attach(request.name, request.conditions, addresses, request.beside)
        self._watch(link.fileno(), partial(self._forward, request.name))


def main(arguments: list[str]) -> int:
    """Run a lab on the socket of that descriptor; with `--probe`, only say whether one could be had."""
    if arguments[0] == "--probe":
        return _probe(LinkKind(arguments[1]))
    fd, seed, link = arguments
    with socket.socket(fileno=int(fd)) as channel:
        os.set_inheritable(channel.fileno(), False)
        with suppress(BrokenPipeError, ConnectionResetError):  # the user's process is gone: so are we
            return _serve(channel, int(seed), LinkKind(link))
    return 0


def _serve(channel: socket.socket, seed: int, link: LinkKind) -> int:
    try:
        user_namespace, link = _enter(link)
    except OSError as error:
        send(channel, Failed(f"no namespaces for a lab here: {error}"))
        return 0
    _hurry()
    supervisor = Supervisor(channel, seed, link)
    try:
        send(channel, Ready(link), () if user_namespace is None else (user_namespace,))
        supervisor.run()
    finally:
        supervisor.end_hosts()
    return 0


def _probe(link: LinkKind) -> int:
    """Make one host, and say on standard error why that failed."""
    from simopen.lab.namespaces import make_host

    try:
        _, link = _enter(link)
        make_host(1, addresses_of(1), tun=link is LinkKind.TUN)
    except Exception as error:  # whatever it is, it is the answer
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _enter(link: LinkKind) -> tuple[int | None, LinkKind]:
    from simopen.lab.namespaces import enter_own_namespaces

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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
