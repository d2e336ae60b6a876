from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from simopen.clock.scheduler import spin
from simopen.holepunch.attempts import Stream
from simopen.holepunch.budget import opened_first
from simopen.holepunch.retry import Window
from simopen.holepunch.runner import Runner
from simopen.model.endpoint import Endpoint
from simopen.model.report import Via
from simopen.model.shot import Shot
from simopen.model.times import MonoNs
from simopen.net.local_ports import LocalPorts
from simopen.net.own_flows import Flows
from simopen.net.registries import Registries
from tests.fake_network import FakeNetwork
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]
FAR_NS = 2**62
JIFFY_NS = 10_000_000  # the kernel's grain


def begin(runner: Runner, closes_ns: int = FAR_NS) -> None:
    """It has fired what is due at the instant, and watches."""
    runner.fired(spin(MonoNs(0), runner.aim(MonoNs(time.monotonic_ns()))))
    runner.watch(Window(MonoNs(0), MonoNs(closes_ns)))


async def streamed(runner: Runner) -> Stream:
    async with asyncio.timeout(5):
        return await runner.stream()


async def test_a_stream_that_the_loop_has_not_accepted_yet_is_not_taken_for_another_program_s(
    ports: tuple[int, int],
) -> None:
    """The kernel has established it, and shots at the same 5-tuple fail meanwhile: the listener is looked at first."""
    made: list[socket.socket] = []

    def make(family: int, kind: int, protocol: int) -> socket.socket:
        made.append(socket.socket(family, kind, protocol))
        return made[-1]

    peer = Endpoint(THERE, ports[1])
    with Runner.opened(HERE, [Shot(ports[0], peer)], make=make) as runner, socket.socket() as other:
        begin(runner)
        open_ones = [each for each in made if each.fileno() >= 0]
        [listener] = [each for each in open_ones if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
        asyncio.get_running_loop().remove_reader(listener.fileno())  # it never comes round to that
        while not runner.attempts:  # until a RST has come and no shot is in flight  # noqa: ASYNC110
            await asyncio.sleep(0)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(peer)
        other.connect((HERE, ports[0]))
        stream = await streamed(runner)
        with stream.sock:
            assert (stream.via, stream.remote) == (Via.ACCEPT, peer)


async def test_a_first_port_that_somebody_has_leaves_the_later_ones(ports: tuple[int, int]) -> None:
    peer = Endpoint(THERE, ports[1])
    with socket.socket() as holder:
        holder.bind((HERE, 0))
        shots = [Shot(holder.getsockname()[1], peer), Shot(ports[0], peer, after_ns=1_000_000, once=True)]
        with Runner.opened(HERE, shots) as runner, socket.create_server((THERE, ports[1])):
            runner.prepared.rehearse()
            begin(runner)
            (await streamed(runner)).sock.close()


async def test_a_port_that_somebody_has_costs_only_its_own_first_shots(ports: tuple[int, int]) -> None:
    peers = [Endpoint(THERE, port) for port in ports]
    with socket.socket() as holder:
        holder.bind((HERE, 0))
        taken = holder.getsockname()[1]
        shots = [Shot(port, peer) for port in (taken, ports[0]) for peer in peers]
        with Runner.opened(HERE, opened_first(tuple(shots), 1)) as runner:
            await runner.prepared.open_the_way(MonoNs(time.monotonic_ns() + 350_000_000))
            first = runner.prepared.first
            assert [bool(attempts.pair.started_ns) for attempts in first] == [False, False, True, True]
            assert not any(attempts.loaded for attempts in first)


async def test_first_shots_are_closed_even_where_the_instant_has_come_near(ports: tuple[int, int]) -> None:
    """Between two of them; they would hold the 5-tuples of those that are due at it."""
    with Runner.opened(HERE, opened_first((Shot(ports[0], Endpoint(THERE, ports[1])),), 1)) as runner:
        [attempts] = runner.prepared.first
        attempts.load()
        await runner.prepared.open_the_way(MonoNs(time.monotonic_ns()))
        assert not attempts.loaded


async def test_first_shots_that_a_blocked_loop_would_send_after_the_instant_are_not_sent(
    ports: tuple[int, int],
) -> None:
    with Runner.opened(HERE, opened_first((Shot(ports[0], Endpoint(THERE, ports[1])),), 1)) as runner:
        [attempts] = runner.prepared.first
        asyncio.get_running_loop().call_later(0.01, time.sleep, 0.6)
        await runner.prepared.open_the_way(
            MonoNs(time.monotonic_ns() + 550_000_000)
        )  # half a second before which it is due
        assert not attempts.pair.started_ns


async def test_later_shots_that_are_long_due_keep_their_pace(ports: tuple[int, int]) -> None:
    peers = [Endpoint(THERE, port) for port in range(2000, 2200)]
    shots = [Shot(ports[0], peer, number * 2_250_000, once=True) for number, peer in enumerate(peers)]
    with Runner.opened(HERE, shots) as runner:
        now_ns = time.monotonic_ns()
        runner.fired(spin(MonoNs(0), runner.aim(MonoNs(now_ns - 5_000_000_000))))
        runner.watch(Window(MonoNs(0), MonoNs(FAR_NS)))
        for _ in range(200):
            await asyncio.sleep(0)
        fired = sum(pair.started_ns > 0 for pair in runner.prepared.attempts)
        assert 1 <= fired < 20 + 0.5 * (time.monotonic_ns() - now_ns) / 1e6


async def test_no_shot_leaves_once_the_window_is_over(ports: tuple[int, int]) -> None:
    shots = [Shot(ports[0], Endpoint(THERE, ports[1])), Shot(ports[0], Endpoint(THERE, ports[0]), 1_000_000)]
    with Runner.opened(HERE, shots) as runner:
        begin(runner, closes_ns=1)
        for _ in range(50):
            await asyncio.sleep(0)
        first, later = runner.prepared.attempts
        assert first.started_ns
        assert not later.started_ns


async def test_a_later_shot_without_a_socket_leaves_the_others(ports: tuple[int, int]) -> None:
    peer = Endpoint(THERE, ports[1])
    with socket.socket() as holder:
        holder.bind((HERE, 0))
        taken = Shot(holder.getsockname()[1], peer, after_ns=1, once=True)
        shots = [Shot(ports[0], peer, after_ns=20_000_000, once=True), taken]
        with Runner.opened(HERE, shots, listen=False) as runner, socket.create_server((THERE, ports[1])):
            begin(runner)
            (await streamed(runner)).sock.close()


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
    ours = Registries(flows=Flows())
    with Runner.opened(HERE, [Shot(ports[0], peer), *guesses], ours=ours) as runner:
        runner.prepared.leave_out(taken)
        left_in = [pair.shot.remote for pair in runner.prepared.attempts]
        assert left_in == [peer, *(shot.remote for shot in guesses[5 - left :])]
        runner.fired(spin(MonoNs(0), runner.aim(MonoNs(0))))
        assert ours.flows.since(runner.fired_ns)[0][:-1] == (True, ports[0], peer)


@pytest.mark.parametrize("listen", [True, False])
async def test_a_stream_is_dated_by_the_kernel_where_the_loop_came_round_to_it_late(
    ports: tuple[int, int], listen: bool
) -> None:
    """Though the peer has spoken since."""
    peer = Endpoint(THERE, ports[1])
    with Runner.opened(HERE, [Shot(ports[0], peer)], listen=listen) as runner, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((THERE, ports[1]))
        if not listen:
            other.listen()
        before_ns = time.monotonic_ns()
        runner.fired(spin(MonoNs(0), runner.aim(MonoNs(0))))
        if listen:
            other.connect((HERE, ports[0]))
        up_ns = time.monotonic_ns()
        time.sleep(0.2)  # noqa: ASYNC251 - the loop is busy meanwhile
        speaker = other if listen else other.accept()[0]
        speaker.send(b"I love you.")
        time.sleep(0.2)  # noqa: ASYNC251
        runner.watch(Window(MonoNs(0), MonoNs(FAR_NS)))
        stream = await streamed(runner)
        speaker.close()
        stream.sock.close()
    assert stream.via is (Via.ACCEPT if listen else Via.CONNECT)
    assert before_ns - JIFFY_NS <= stream.established_ns <= up_ns + JIFFY_NS


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A stream as a listener hands it over, and the peer's end of it."""
    with socket.create_server((HERE, 0)) as server, socket.create_connection(server.getsockname()) as other:
        sock, _ = server.accept()
        sock.setblocking(False)
        with sock:
            yield sock, other


def waiting(ports: tuple[int, int], chooses: bool | None = None) -> contextlib.AbstractContextManager[Runner]:
    """A runner that gets no answer; what is let in for it from its second peer waits for something better."""
    network = FakeNetwork()
    shots = [Shot(ports[0], Endpoint(address, ports[1])) for address in (THERE, "127.0.0.3")]
    return Runner.opened(HERE, shots, make=network.socket, ours=Registries(ports=LocalPorts()), chooses=chooses)


@pytest.mark.parametrize("chooses", [None, True, False])
async def test_what_is_to_be_kept_in_the_moment_when_nobody_waits_any_more_is_closed(
    ports: tuple[int, int], pair: tuple[socket.socket, socket.socket], chooses: bool | None
) -> None:
    with waiting(ports, chooses) as runner:
        begin(runner)
        waiter = asyncio.create_task(runner.stream())
        await asyncio.sleep(0)
        waiter.cancel()
        runner.accepted(pair[0], Endpoint(THERE, ports[1]))
        await asyncio.wait({waiter})
    assert pair[0].fileno() == -1


@pytest.mark.parametrize("chooses", [None, True, False])
async def test_what_waits_for_a_better_one_as_the_time_is_up_is_taken(
    ports: tuple[int, int], pair: tuple[socket.socket, socket.socket], chooses: bool | None
) -> None:
    with waiting(ports, chooses) as runner:
        begin(runner)
        waiter = asyncio.create_task(runner.stream())
        await asyncio.sleep(0)
        runner.accepted(pair[0], Endpoint("127.0.0.3", ports[1]))
        waiter.cancel()
        await asyncio.wait({waiter})
        stream = runner.last()
    assert stream is not None
    assert stream.sock is pair[0]
    assert pair[0].fileno() != -1


async def test_what_was_kept_in_the_moment_when_the_time_is_up_is_taken(
    ports: tuple[int, int], pair: tuple[socket.socket, socket.socket]
) -> None:
    with waiting(ports) as runner:
        begin(runner)
        waiter = asyncio.create_task(runner.stream())
        await asyncio.sleep(0)
        runner.accepted(pair[0], Endpoint(THERE, ports[1]))
        waiter.cancel()
        await asyncio.wait({waiter})
        assert runner.last() is not None
    assert pair[0].fileno() != -1


async def test_nothing_is_left_where_the_time_is_up(ports: tuple[int, int]) -> None:
    with waiting(ports) as runner:
        begin(runner)
        assert runner.last() is None


async def test_two_runners_meet_on_a_network_that_is_none(ports: tuple[int, int]) -> None:
    """All that a punch does with the network goes through one seam; at its end each has one socket."""
    network = FakeNetwork()
    shots = {HERE: Shot(ports[0], Endpoint(THERE, ports[1])), THERE: Shot(ports[1], Endpoint(HERE, ports[0]))}
    with contextlib.ExitStack() as stack:
        runners = [
            stack.enter_context(Runner.opened(here, [shot], make=network.socket, ours=Registries(ports=LocalPorts())))
            for here, shot in shots.items()
        ]
        for runner in runners:
            begin(runner)
        streams = [await streamed(runner) for runner in runners]
    assert sorted(each.fileno() >= 0 for each in network.sockets)[-3:] == [False, True, True]
    assert [stream.remote for stream in streams] == [shot.remote for shot in shots.values()]
    for stream in streams:
        stream.sock.close()


async def test_a_listener_catches_a_syn_that_comes_later(ports: tuple[int, int]) -> None:
    network = FakeNetwork()
    here, there = Endpoint(HERE, ports[0]), Endpoint(THERE, ports[1])
    with (
        Runner.opened(HERE, [Shot(ports[0], there, after_ns=3600 * 10**9)], make=network.socket) as early,
        Runner.opened(THERE, [Shot(ports[1], here)], make=network.socket) as late,
    ):
        begin(early)
        begin(late)
        streams = [await streamed(runner) for runner in (early, late)]
        assert [stream.via for stream in streams] == [Via.ACCEPT, Via.CONNECT]
        for stream in streams:
            stream.sock.close()


async def test_every_socket_is_closed_where_no_stream_comes(ports: tuple[int, int]) -> None:
    network = FakeNetwork()
    with Runner.opened(HERE, [Shot(ports[0], Endpoint(THERE, ports[1]))], make=network.socket) as runner:
        begin(runner)
        await asyncio.sleep(0)
    assert network.sockets
    assert all(each.fileno() < 0 for each in network.sockets)
    assert [attempt.errno for attempt in runner.attempts] == [None]
