"""Streams that nobody ends: what the kernel is told, and what it then does where a cable is pulled or a NAT forgets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import simopen
from simopen import lab
from simopen.clock import source as clock
from simopen.net.tcp_keepalive import KEEPALIVE_S, USER_TIMEOUT_S, Liveness, Patience
from tests.loopback import HERE, THERE, ports
from tests.loops import this_loop

__all__ = ["ports"]

IDLER = Path(__file__).parents[1].joinpath("idler.py")
ROOT = Path(__file__).parents[2]
LEAD_NS = 1_500_000_000
PORT = 1314


def told(sock: socket.socket) -> tuple[bool, int, int, int]:
    """Whether there are probes, after how long, how often, and after how many ms it ends."""
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_USER_TIMEOUT)
    idle, interval, user_ms = (sock.getsockopt(socket.IPPROTO_TCP, name) for name in names)
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)), idle, interval, user_ms


DEFAULT = (True, 45, 15, 300_000)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, DEFAULT),
        ({"keepalive": 1}, (True, 1, 1, 300_000)),
        ({"keepalive": 7.9, "user_timeout": 0.0015}, (True, 7, 2, 2)),
        ({"user_timeout": None}, (True, 45, 15, 0)),
    ],
)
async def test_what_either_side_s_kernel_is_told(
    ports: tuple[int, int], options: dict[str, Any], expected: tuple[bool, int, int, int]
) -> None:
    left, right = (HERE, ports[0]), (THERE, ports[1])
    (one, first), (other, second) = await asyncio.gather(
        simopen.punch(right, local=left, clock=clock.plain(), **options),
        simopen.punch(left, local=right, clock=clock.plain(), **options),
    )
    with one, other:
        assert told(one) == told(other) == expected, (first.via, second.via)


async def test_without_keepalive_there_are_no_probes(ports: tuple[int, int]) -> None:
    with socket.create_server((THERE, ports[1])):
        sock, _ = await simopen.punch((THERE, ports[1]), local=ports[0], keepalive=None, clock=clock.plain())
    with sock:
        assert not told(sock)[0]


async def test_a_stream_to_itself_is_told_as_well(ports: tuple[int, int]) -> None:
    _, writer = await simopen.connect_self(ports[0])
    assert told(writer.get_extra_info("socket")) == DEFAULT
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("name", ["keepalive", "user_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1e300, 10**400, "45", True, [], b""])
async def test_what_is_no_such_number_is_refused_before_anything_is_sent(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        await simopen.punch((THERE, 9), local=9, **{name: value})
    with pytest.raises((TypeError, ValueError), match=name):
        await simopen.connect_self(9, **{name: value})


def test_the_least_and_the_most_are_what_the_kernel_takes() -> None:
    for liveness in (Liveness(1, 0.001), Liveness(32_767, 2_147_483)):
        with socket.socket() as sock:
            liveness.arrange(sock)
            assert told(sock)[1::2] == (liveness.keepalive, round((liveness.user_timeout or 0) * 1000))


def test_an_idle_stream_is_probed_before_the_quickest_nats_forget_it() -> None:
    assert 2 * KEEPALIVE_S < 120 < USER_TIMEOUT_S


def test_a_closed_socket_is_no_error() -> None:
    sock = socket.socket()
    sock.close()
    Liveness().arrange(sock)


async def test_a_reader_that_pauses_is_not_taken_for_one_that_is_gone() -> None:
    """As the kernel's own time-out would; which is back where nobody looks any more."""
    with socket.create_server((HERE, 0)) as server, socket.create_connection(server.getsockname()) as writer:
        reader, _ = server.accept()
        with reader:
            Liveness(keepalive=1, user_timeout=0.3).arrange(writer)
            writer.setblocking(False)
            with Patience(writer) as patience:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        writer.send(bytes(2**16))
                for _ in range(12):
                    await asyncio.sleep(0.1)
                    assert not patience.is_over()
                reader.recv(2**22)
            assert told(writer)[3] == 300
            assert not writer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def test_nobody_waits_for_the_answer_of_a_closed_socket() -> None:
    with socket.create_server((HERE, 0)) as server, socket.create_connection(server.getsockname()) as sock:
        Liveness(user_timeout=0.001).arrange(sock)
        with Patience(sock) as patience:
            sock.close()
            assert not patience.is_over()
    for nothing in (None, sock):
        with Patience(nothing) as patience:
            assert not patience.is_over()


async def idlers(host: lab.Host, orders: list[dict[str, Any]], loop: str | None = None) -> list[str]:
    argv = [sys.executable, str(IDLER), loop or this_loop(), json.dumps(orders)]
    done = await host.run(argv, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr.decode()
    said: list[str] = json.loads(done.stdout)
    return said


@pytest.mark.lab
async def test_a_peer_whose_cable_is_pulled_ends_who_reads_and_who_writes() -> None:
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=0.005) for name in ("left", "right")]
        at_ns = time.monotonic_ns() + LEAD_NS
        here, there = [], []
        for port, does in ((PORT, "reads"), (PORT + 1, "writes"), (PORT + 2, "pipes")):
            both = {"at": at_ns, "local": port, "keepalive": 1, "user_timeout": 1.5}
            here.append({"does": does, "peer": (right.public_address, port), **both})
            there.append({"does": "pulls_the_cable", "peer": (left.public_address, port), **both})
        gone = asyncio.create_task(idlers(right, there))
        assert await idlers(left, here) == ["ETIMEDOUT"] * 3
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone


@pytest.mark.lab
def test_an_idle_chat_outlives_a_nat_that_forgets_after_three_seconds() -> None:
    """With the probes; without them, what is said after the pause is not let in. On both loops side by side."""
    asyncio.run(idle_chats())


async def idle_chats() -> None:
    async with lab.Network() as net:
        said = await asyncio.gather(*(idle_chat(net, loop) for loop in ("asyncio", "uvloop")))
    assert said == [[["well", "TimeoutError"], ["well", "TimeoutError"]]] * 2


async def idle_chat(net: lab.Network, loop: str) -> list[list[str]]:
    nat = lab.Nat(established_timeout_s=3, filtering=lab.Filtering.ADDRESS_AND_PORT_DEPENDENT)
    left, right = await net.host(f"left-{loop}", nat=nat), await net.host(f"right-{loop}")
    at_ns = time.monotonic_ns() + LEAD_NS
    here, there = [], []
    for port, keepalive in ((PORT, 1), (PORT + 1, None)):
        both = {"at": at_ns, "local": port, "keepalive": keepalive}
        here.append({"does": "answers", "peer": (right.public_address, port), **both})
        there.append({"does": "asks_late", "peer": (left.public_address, port), **both})
    return list(await asyncio.gather(idlers(left, here, loop), idlers(right, there, loop)))
