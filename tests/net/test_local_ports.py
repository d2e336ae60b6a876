"""One registry a process: whichever loop, thread or spelling, no two punches take each other's streams."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import socket
import threading
import time
from typing import Any

import pytest
import uvloop

import simopen
from simopen.clock import source as clock
from simopen.clock.scheduler import spin
from simopen.holepunch.listener import Listener
from simopen.holepunch.retry import Window
from simopen.holepunch.runner import Runner
from simopen.model.endpoint import Endpoint
from simopen.model.shot import Shot
from simopen.model.times import MonoNs
from simopen.net.local_ports import LocalPorts
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]

FAR_NS = 2**62
PEER = Endpoint("192.0.2.1", 9)


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (("0.0.0.0", 7), ("127.0.0.1", 7), True),
        (("127.0.0.1", 7), ("0.0.0.0", 7), True),
        (("0.0.0.0", 7), ("0.0.0.0", 7), True),
        (("127.0.0.1", 7), ("127.0.0.1", 7), True),
        (("127.0.0.1", 7), ("127.0.0.2", 7), False),
        (("0.0.0.0", 7), ("127.0.0.2", 7), False),
        (("0.0.0.0", 7), ("127.0.0.1", 8), False),
    ],
)
def test_one_5_tuple_is_one_however_its_local_end_is_named(
    first: tuple[str, int], second: tuple[str, int], clash: bool
) -> None:
    """The kernel takes 127.0.0.1 towards this peer."""
    held = LocalPorts()
    claim = held.claim(first, PEER, HERE)
    with pytest.raises(simopen.LocalEndpointError, match="already") if clash else contextlib.nullcontext():
        held.claim(second, PEER, HERE)
    held.release(claim)
    held.release(held.claim(first, PEER, HERE))


def test_where_nobody_knows_which_address_it_would_be_any_may_be_it() -> None:
    held = LocalPorts()
    held.claim(("0.0.0.0", 7), PEER, None)
    with pytest.raises(simopen.LocalEndpointError):
        held.claim(("127.0.0.2", 7), PEER, None)
    held.claim(("0.0.0.0", 7), Endpoint("192.0.2.1", 10), None)


@pytest.mark.parametrize("turned", [False, True])
async def test_a_port_and_its_address_and_port_are_one_local_end(ports: tuple[int, int], turned: bool) -> None:
    one, other = (None, (HERE, ports[0])) if turned else (HERE, ports[0])
    peer = (THERE, ports[1])
    with (
        Runner.opened(one, (Shot(ports[0], Endpoint(*peer)),)),
        pytest.raises(simopen.LocalEndpointError, match="already connecting"),
    ):
        await simopen.punch(peer, local=other, clock=clock.plain())


async def met(local: tuple[str, int], peer: tuple[str, int], at: float) -> str:
    """Say who one is, and give what the other said."""
    sock, _ = await simopen.punch(peer, local=local, at=at, clock=clock.plain(), window=8)
    loop = asyncio.get_running_loop()
    with sock:
        await loop.sock_sendall(sock, f"{local[0]:<16}".encode())
        heard = b""
        while len(heard) < 16 and (more := await loop.sock_recv(sock, 16)):
            heard += more
    return heard.decode().strip()


def test_loops_in_threads_share_one_local_port(ports: tuple[int, int]) -> None:
    """Five peers each, of three loops of two makes, and the peers in loops of their own: nobody gets another's."""
    factories = [asyncio.new_event_loop, uvloop.new_event_loop, asyncio.new_event_loop]
    mine, found = (HERE, ports[0]), {}

    def run(key: tuple[int, bool], meetings: list[tuple[tuple[str, int], tuple[str, int]]], at: float) -> None:
        async def main() -> list[str | BaseException]:
            return await asyncio.gather(*(met(*each, at) for each in meetings), return_exceptions=True)

        with asyncio.Runner(loop_factory=factories[key[0]]) as runner:
            found[key] = runner.run(main())

    for _ in range(3):
        at, threads = time.time() + 0.3, []
        for number in range(len(factories)):
            peers = [(f"127.0.{number + 4}.{each}", ports[1]) for each in range(1, 6)]
            for ours in (True, False):
                meetings = [(mine, peer) if ours else (peer, mine) for peer in peers]
                threads.append(threading.Thread(target=run, args=((number, ours), meetings, at)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(len(factories)):
            assert found[number, True] == [f"127.0.{number + 4}.{each}" for each in range(1, 6)]
            assert found[number, False] == [HERE] * 5


class Waiting:
    """A waiter that takes note of what it gets."""

    def __init__(self, *peers: Endpoint) -> None:
        self.peers = peers
        self.got: asyncio.Queue[tuple[socket.socket, Endpoint]] = asyncio.Queue()
        self.strangers: list[Endpoint] = []

    def accepted(self, sock: socket.socket, remote: Endpoint) -> None:
        self.got.put_nowait((sock, remote))

    def turned_away(self, remote: Endpoint) -> None:
        self.strangers.append(remote)


async def dialled(peer: Endpoint, local: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    sock.bind(peer)
    await asyncio.get_running_loop().sock_connect(sock, local)
    return sock


async def test_what_comes_for_a_guest_that_is_about_to_fire_waits_for_it(ports: tuple[int, int]) -> None:
    """As well as what comes for one that has not even begun, for a moment; the listener is another's until then."""
    loop, held = asyncio.get_running_loop(), LocalPorts()
    peers = [Endpoint(f"127.0.4.{number}", ports[1]) for number in (1, 2, 3)]
    first, due, late = (Waiting(peer) for peer in peers)
    borrow = functools.partial(Listener.borrow, family=socket.AF_INET, ports=held)
    listener = borrow(("0.0.0.0", ports[0]))
    listener.listen()
    listener.join(loop, first)
    due_listener = borrow(("0.0.0.0", ports[0]))
    assert due_listener is listener
    due_listener.expect(loop, due)
    dialling = [await dialled(peer, (HERE, ports[0])) for peer in peers]
    sock, remote = await first.got.get()
    sock.close()
    assert remote == peers[0]
    while not held.doubted:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)
    late_listener = borrow((HERE, ports[0]))
    late_listener.expect(loop, late)
    for waiter, theirs, peer in ((due, due_listener, peers[1]), (late, late_listener, peers[2])):
        assert waiter.got.empty()
        theirs.join(loop, waiter)
        sock, remote = waiter.got.get_nowait()
        assert remote == peer
        sock.close()
    for waiter, theirs in ((first, listener), (due, due_listener), (late, late_listener)):
        theirs.give_back(loop, waiter)
    for each in dialling:
        each.close()
    assert not held.listeners
    assert not held.doubted


async def test_what_is_on_its_way_to_a_loop_that_is_over_goes_to_nobody(ports: tuple[int, int]) -> None:
    """And the listener goes on for the others."""
    loop, held = asyncio.get_running_loop(), LocalPorts()
    peers = [Endpoint(f"127.0.4.{number}", ports[1]) for number in (1, 2)]
    gone, here = Waiting(peers[0]), Waiting(peers[1])
    over = asyncio.new_event_loop()
    listener = Listener.borrow((HERE, ports[0]), socket.AF_INET, ports=held)
    listener.listen()
    listener.join(over, gone)
    over.close()
    Listener.borrow((HERE, ports[0]), socket.AF_INET, ports=held)
    listener.join(loop, here)
    dialling = [await dialled(peer, (HERE, ports[0])) for peer in peers]
    sock, remote = await here.got.get()
    sock.close()
    assert remote == peers[1]
    with pytest.raises(ConnectionResetError):
        await loop.sock_recv(dialling[0], 1)
    for waiter, its_loop in ((gone, over), (here, loop)):
        listener.give_back(its_loop, waiter)
    for each in dialling:
        each.close()
    assert not held.listeners


async def test_a_second_shortage_while_the_listener_pauses_is_one_pause(ports: tuple[int, int]) -> None:
    loop, held, peer = asyncio.get_running_loop(), LocalPorts(), Endpoint(THERE, ports[1])

    class Short(socket.socket):
        left = 3

        def accept(self) -> tuple[socket.socket, Any]:
            if Short.left:
                Short.left -= 1
                raise OSError(errno.EMFILE, "injected")
            return super().accept()

    waiter = Waiting(peer)
    listener = Listener.borrow((HERE, ports[0]), socket.AF_INET, ports=held, make=Short)
    listener.listen()
    listener.join(loop, waiter)  # which looks at once
    pause = listener._readings[loop].pause
    listener.collect(loop)  # a lane met a taken 5-tuple
    assert pause is not None
    assert listener._readings[loop].pause is pause
    dialling = await dialled(peer, (HERE, ports[0]))
    (await waiter.got.get())[0].close()
    listener.give_back(loop, waiter)
    dialling.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_forked_child_keeps_no_port_busy(ports: tuple[int, int]) -> None:
    """Its duplicates would: the parent's closing would end nothing."""
    made: list[socket.socket] = []

    def make(family: int, kind: int, protocol: int) -> socket.socket:
        made.append(socket.socket(family, kind, protocol))
        return made[-1]

    with Runner.opened(HERE, [Shot(ports[0], Endpoint(THERE, ports[1]))], make=make) as runner:
        runner.fired(spin(MonoNs(0), runner.aim(MonoNs(0))))
        runner.watch(Window(MonoNs(0), MonoNs(FAR_NS)))
        assert sum(sock.fileno() >= 0 for sock in made) == 2  # the shot's and the listener's
        if not (child := os.fork()):
            try:
                os._exit(sum(sock.fileno() >= 0 for sock in made))
            finally:
                os._exit(99)
    _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - it has ended, or does now
    assert os.waitstatus_to_exitcode(status) == 0
