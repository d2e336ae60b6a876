from __future__ import annotations

import asyncio
import socket
import time

import pytest

from simopen.clock.scheduler import spin
from simopen.holepunch.budget import opened_first
from simopen.holepunch.retry import Window
from simopen.holepunch.runner import Connector
from simopen.model.endpoint import Endpoint
from simopen.model.report import Via
from simopen.model.shot import Shot
from simopen.net import own_flows
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]
FAR_NS = 2**62
JIFFY_NS = 10_000_000  # the kernel's grain


async def test_a_stream_that_the_loop_has_not_accepted_yet_is_not_taken_for_another_program_s(
    ports: tuple[int, int],
) -> None:
    """The kernel has established it, and shots at the same 5-tuple fail meanwhile."""
    peer = Endpoint(THERE, ports[1])
    with Connector.opened(HERE, [Shot(ports[0], peer)]) as connector, socket.socket() as other:
        connector.fired(spin(0, connector.aim(0)))
        connector.watch(Window(0, FAR_NS))
        [lane] = connector._lanes
        while lane not in connector._timers:  # noqa: ASYNC110 - until a RST has come and no shot is in flight
            await asyncio.sleep(0)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((THERE, ports[1]))
        other.connect((HERE, ports[0]))
        for _ in range(2):  # no await: the loop comes round to nothing in between
            connector._timers[lane].cancel()
            connector._refire(lane, 0)
        async with asyncio.timeout(5):
            stream = await connector.stream()
        with stream.sock:
            assert (stream.via, stream.remote) == (Via.ACCEPT, peer)


async def test_a_first_port_that_somebody_has_leaves_the_later_ones(ports: tuple[int, int]) -> None:
    peer = Endpoint(THERE, ports[1])
    with socket.socket() as holder:
        holder.bind((HERE, 0))
        shots = [Shot(holder.getsockname()[1], peer), Shot(ports[0], peer, after_ns=1_000_000, once=True)]
        with Connector.opened(HERE, shots) as connector, socket.create_server((THERE, ports[1])):
            connector.rehearse()
            connector.fired(spin(0, connector.aim(0)))
            connector.watch(Window(0, FAR_NS))
            async with asyncio.timeout(5):
                stream = await connector.stream()
            stream.sock.close()


async def test_a_port_that_somebody_has_costs_only_its_own_first_shots(ports: tuple[int, int]) -> None:
    peers = [Endpoint(THERE, port) for port in ports]
    with socket.socket() as holder:
        holder.bind((HERE, 0))
        taken = holder.getsockname()[1]
        shots = [Shot(port, peer) for port in (taken, ports[0]) for peer in peers]
        with Connector.opened(HERE, opened_first(tuple(shots), 1)) as connector:
            await connector.open_the_way(time.monotonic_ns() + 100_000_000)
            assert [bool(lane.started_ns) for lane in connector._first] == [False, False, True, True]
            assert [lane._sock for lane in connector._first] == [None] * 4


async def test_first_shots_are_closed_even_where_the_instant_has_come_near(ports: tuple[int, int]) -> None:
    """Between two of them; they would hold the 5-tuples of those that are due at it."""
    with Connector.opened(HERE, opened_first((Shot(ports[0], Endpoint(THERE, ports[1])),), 1)) as connector:
        [lane] = connector._first
        lane.load()
        await connector.open_the_way(time.monotonic_ns())
        assert lane._sock is None


async def test_first_shots_that_a_blocked_loop_would_send_after_the_instant_are_not_sent(
    ports: tuple[int, int],
) -> None:
    with Connector.opened(HERE, opened_first((Shot(ports[0], Endpoint(THERE, ports[1])),), 1)) as connector:
        [lane] = connector._first
        asyncio.get_running_loop().call_later(0.01, time.sleep, 0.6)
        await connector.open_the_way(time.monotonic_ns() + 550_000_000)  # half a second before which it is due
        assert not lane.started_ns


async def test_later_shots_that_are_long_due_keep_their_pace(ports: tuple[int, int]) -> None:
    peers = [Endpoint(THERE, port) for port in range(2000, 2200)]
    shots = [Shot(ports[0], peer, number * 2_250_000, once=True) for number, peer in enumerate(peers)]
    with Connector.opened(HERE, shots) as connector:
        now_ns = time.monotonic_ns()
        connector.fired(spin(0, connector.aim(now_ns - 5_000_000_000)))
        connector.watch(Window(0, FAR_NS))
        for _ in range(200):
            await asyncio.sleep(0)
        fired = sum(lane.started_ns > 0 for lane in connector._later)
        assert 1 <= fired < 20 + 0.5 * (time.monotonic_ns() - now_ns) / 1e6


async def test_no_shot_leaves_once_the_window_is_over(ports: tuple[int, int]) -> None:
    shots = [Shot(ports[0], Endpoint(THERE, ports[1])), Shot(ports[0], Endpoint(THERE, ports[0]), 1_000_000)]
    with Connector.opened(HERE, shots) as connector:
        connector.fired(spin(0, connector.aim(0)))
        connector.watch(Window(0, 1))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not connector._later[0].started_ns


async def test_a_later_shot_without_a_socket_leaves_the_others(ports: tuple[int, int]) -> None:
    peer = Endpoint(THERE, ports[1])
    with socket.socket() as holder:
        holder.bind((HERE, 0))
        taken = Shot(holder.getsockname()[1], peer, after_ns=1, once=True)
        shots = [Shot(ports[0], peer, after_ns=20_000_000, once=True), taken]
        with Connector.opened(HERE, shots, listen=False) as connector, socket.create_server((THERE, ports[1])):
            connector.fired(spin(0, connector.aim(0)))
            connector.watch(Window(0, FAR_NS))
            async with asyncio.timeout(5):
                stream = await connector.stream()
            stream.sock.close()


@pytest.mark.parametrize(("taken", "left"), [(0, 5), (3, 2), (4, 1), (99, 1)])
async def test_guesses_whose_ports_other_flows_have_taken_are_left_out(
    taken: int, left: int, ports: tuple[int, int]
) -> None:
    """The first ones go, at the instant's before later ones; what is no guess stays, and so does the last guess."""
    guesses = [
        Shot(ports[0], Endpoint(THERE, 9 + number), after_ns=number // 3 * 10**9, once=True, lasts_ns=10**9)
        for number in range(5)
    ]
    peer = Endpoint(THERE, ports[1])
    with Connector.opened(HERE, [Shot(ports[0], peer), *guesses]) as connector:
        connector.leave_out(taken)
        lanes = (*connector._lanes, *connector._later)
        assert [lane.peer for lane in lanes] == [peer, *(shot.remote for shot in guesses[5 - left :])]
        connector.fired(spin(0, connector.aim(0)))
        assert own_flows.process.since(connector.fired_ns)[0][:-1] == (True, ports[0], peer)


@pytest.mark.parametrize("listen", [True, False])
async def test_a_stream_is_dated_by_the_kernel_where_the_loop_came_round_to_it_late(
    ports: tuple[int, int], listen: bool
) -> None:
    """Though the peer has spoken since."""
    peer = Endpoint(THERE, ports[1])
    with Connector.opened(HERE, [Shot(ports[0], peer)], listen=listen) as connector, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((THERE, ports[1]))
        if not listen:
            other.listen()
        before_ns = time.monotonic_ns()
        connector.fired(spin(0, connector.aim(0)))
        if listen:
            other.connect((HERE, ports[0]))
        up_ns = time.monotonic_ns()
        time.sleep(0.2)  # noqa: ASYNC251 - the loop is busy meanwhile
        speaker = other if listen else other.accept()[0]
        speaker.send(b"I love you.")
        time.sleep(0.2)  # noqa: ASYNC251
        connector.watch(Window(0, FAR_NS))
        async with asyncio.timeout(5):
            stream = await connector.stream()
        speaker.close()
        stream.sock.close()
    assert stream.via is (Via.ACCEPT if listen else Via.CONNECT)
    assert before_ns - JIFFY_NS <= stream.established_ns <= up_ns + JIFFY_NS
