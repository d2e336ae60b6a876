"""The public calls: cancelled at any moment, with a kernel that fails, in a crowd, in many threads at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple, TypeVar
from unittest import mock

import uvloop

import simopen
from simopen.clock.source import plain
from simopen.ticket.hold import holding
from tests.conftest import open_sockets, our_threads
from tests.fake_ntp import FakeNtp
from tests.fake_stun import FakeStun
from tests.loopback import HERE, THERE, kept_ports

_T = TypeVar("_T")
HUNG_S = 20.0
"""No call here is asked for more than a second: after this long one hangs."""
TURNS, TURN_S = 200, 0.005
FACTORIES = (asyncio.new_event_loop, uvloop.new_event_loop)


class Place(NamedTuple):
    """What a call is made against: two ports, and servers as they come."""

    ports: tuple[int, int]
    stun: FakeStun
    ntp: FakeNtp


@contextlib.asynccontextmanager
async def somewhere(chance: Random) -> AsyncIterator[Place]:
    """Servers that answer, answer slowly, or not at all."""
    stun = FakeStun(
        silent=chance.random() < 0.3, drip_s=chance.choice((0.0, 0.0, 0.001)), hangs_up=chance.random() < 0.1
    )
    ntp = FakeNtp(up_s=chance.choice((0.0, 0.02)), answers=chance.choice((None, None, 0, 2)))
    with kept_ports() as ports:
        async with stun, ntp:
            yield Place(ports, stun, ntp)


def on_a_loop(work: Callable[[Random], Awaitable[_T]]) -> Callable[[Random], _T]:
    """The coroutine as a function of chance alone, on either loop."""

    @functools.wraps(work)
    def one(chance: Random) -> _T:
        with asyncio.Runner(loop_factory=chance.choice(FACTORIES)) as runner:
            found = runner.run(_bounded(work(chance)))
        leftover = _settled(our_threads)
        assert not leftover, f"left behind: {leftover}"
        return found

    return one


async def _bounded(work: Awaitable[_T]) -> _T:
    async with asyncio.timeout(6 * HUNG_S):
        return await work


def _settled(left: Callable[[], Sequence[object]]) -> Sequence[object]:
    for _ in range(TURNS):
        if not left():
            return ()
        time.sleep(TURN_S)
    return left()


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """No task, thread or socket more than before, and nothing raised where nobody could catch it."""
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    yield
    gc.collect()
    assert not unseen, f"raised where nobody could catch it: {unseen}"
    left: tuple[object, ...] = ()
    for _ in range(TURNS):
        left = (asyncio.all_tasks() - tasks, our_threads(), max(0, open_sockets() - sockets))
        if not any(left):
            return
        gc.collect()
        await asyncio.sleep(TURN_S)
    raise AssertionError("left behind: tasks {}, threads {}, sockets {}".format(*left))


# --- the calls. Each takes what `somewhere` gives, and ends within a second or when it is cancelled.


def _instant(chance: Random) -> float | None:
    return chance.choice((None, time.time() + chance.uniform(-0.05, 0.3)))


async def _one_side(place: Place, chance: Random) -> object:
    mine, theirs = place.ports
    peers = [(THERE, theirs), *([("::1", theirs)] if chance.random() < 0.2 else [])]
    local = (HERE, mine) if len(peers) == 1 else mine
    more: dict[str, Any] = {"at": _instant(chance), "listen": chance.random() < 0.8}
    return await simopen.connect(peers, local=local, clock=plain(), window=0.3, **more)


async def _other_side(place: Place, at: float | None) -> object:
    mine, theirs = place.ports
    return await simopen.connect((HERE, mine), local=(THERE, theirs), at=at, clock=plain(), window=0.5)


async def _met(place: Place, chance: Random) -> object:
    at = _instant(chance)
    one = simopen.connect((THERE, place.ports[1]), local=(HERE, place.ports[0]), at=at, clock=plain(), window=0.5)
    other = asyncio.create_task(_other_side(place, at))
    try:
        return await one
    finally:
        other.cancel()
        await _closed(other)


async def _proven(place: Place, chance: Random) -> object:
    """Both sides, with one key: a link."""
    ends = [(HERE, place.ports[0]), (THERE, place.ports[1])]
    at, listen = _instant(chance), chance.random() < 0.8
    sides = [
        asyncio.ensure_future(
            simopen.connect(peer, local=local, at=at, listen=listen, clock=plain(), window=0.5, key=bytes(range(32)))
        )
        for peer, local in (ends, ends[::-1])
    ]
    try:
        return await sides[0]
    finally:
        sides[1].cancel()
        await _closed(sides[1])


async def _by_checked_clock(place: Place, chance: Random) -> object:
    mine, theirs = place.ports
    at = time.time() + chance.uniform(0.1, 0.8)
    return await simopen.punch((THERE, theirs), local=(HERE, mine), at=at, clock=[place.ntp.name], window=0.2)


async def _checked_clock(place: Place, chance: Random) -> object:
    return await simopen.check_clock([place.ntp.name], timeout=0.5)


async def _discovered(place: Place, chance: Random) -> object:
    return await simopen.discover((HERE, place.ports[0]), servers=[place.stun.name], timeout=0.5)


async def _held(place: Place, chance: Random) -> object:
    async with holding((HERE, place.ports[0]), servers=[place.stun.name], timeout=0.5) as found:
        await asyncio.sleep(chance.choice((0, 0.05)))
        found.ticket(spray=chance.random() < 0.5).encode()
        return found.profile


async def _by_itself(place: Place, chance: Random) -> object:
    return await simopen.connect_self((HERE, place.ports[0]))


Call = Callable[[Place, Random], Awaitable[object]]
CALLS: tuple[Call, ...] = (
    _one_side,
    _met,
    _proven,
    _by_checked_clock,
    _checked_clock,
    _discovered,
    _held,
    _by_itself,
)


async def _closed(task: asyncio.Task[object]) -> object:
    """What came of it, its stream closed. Raises: what is neither a result nor one of this library's errors."""
    done, _ = await asyncio.wait({task}, timeout=HUNG_S)
    if not done:
        task.cancel()
        task.print_stack()
        raise AssertionError(f"hangs: {task}")
    if task.cancelled():
        return None
    if (error := task.exception()) is not None:
        if not isinstance(error, simopen.SimopenError):
            raise error
        assert len(str(error)) <= 2000, f"{len(str(error))} characters"
        return error
    _close(task.result())
    return task.result()


def _close(result: object) -> None:
    match result:
        case (socket.socket() as sock, _):
            sock.close()
        case (_, asyncio.StreamWriter() as writer):
            writer.transport.abort()


@on_a_loop
async def cancellation(chance: Random) -> None:
    """A call is cancelled at a random moment, counted in turns of the loop or in time."""
    async with somewhere(chance) as place, nothing_left():
        task = asyncio.ensure_future(chance.choice(CALLS)(place, chance))
        if chance.random() < 0.5:
            for _ in range(chance.randrange(80)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(10 ** chance.uniform(-4, -0.5))
        task.cancel()
        await _closed(task)


# --- the kernel fails

_ERRNOS = (
    *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EINTR, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.EHOSTUNREACH, errno.EACCES, errno.EPERM, errno.EINVAL, errno.EADDRNOTAVAIL, errno.EADDRINUSE),
    *(errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.EPIPE, errno.ENOPROTOOPT),
)
_METHODS = (
    *("__init__", "bind", "listen", "connect", "connect_ex", "accept", "setsockopt", "getsockname", "getpeername"),
    *("send", "sendto", "recv", "recvfrom", "recvmsg", "recvmsg_into", "shutdown"),
)
# What the kernel may say to these, and nothing else. `getsockopt` is not among them: SO_ERROR is always told.
_ONLY = {"getsockname": (errno.ENOBUFS,), "getpeername": (errno.ENOTCONN, errno.ENOBUFS)}


class Failing(NamedTuple):
    """The `first`-th use of a socket's method by this library, and so many after it, end in an error."""

    method: str
    code: int
    first: int
    times: int


@contextlib.contextmanager
def injected(failing: Failing) -> Iterator[None]:
    """Let calls fail that come straight from this library's modules; those of asyncio and of the servers here do not.

    It cannot represent what C code does on its own: uvloop's streams, and name look-ups.
    """
    true, used = getattr(socket.socket, failing.method), 0

    def call(self: socket.socket, *args: Any, **options: Any) -> Any:
        nonlocal used
        module = sys._getframe(1).f_globals.get("__name__", "")
        if module.startswith("simopen.") and not module.startswith("simopen.lab"):
            used += 1
            if failing.first <= used < failing.first + failing.times:
                if failing.method == "connect_ex":
                    return failing.code
                raise OSError(failing.code, os.strerror(failing.code))
        return true(self, *args, **options)

    with mock.patch.object(socket.socket, failing.method, call):
        yield


@on_a_loop
async def injected_error(chance: Random) -> None:
    """A socket's method fails, once, some times or from then on: a result or an error of this library comes of it."""
    method = chance.choice(_METHODS)
    code = chance.choice(_ONLY.get(method, _ERRNOS))
    failing = Failing(method, code, chance.randint(1, 4), chance.choice((1, 1, 3, 10**9)))
    async with somewhere(chance) as place, nothing_left():
        call = chance.choice(CALLS)
        with injected(failing):
            task = asyncio.ensure_future(call(place, chance))
            try:
                await _closed(task)
            except Exception as error:
                error.add_note(f"{failing}, in {call.__name__}")
                raise


# --- a crowd

AT_ONCE = 500


@on_a_loop
async def strangers(chance: Random) -> None:
    """A listener that is knocked at by AT_ONCE strangers meanwhile still meets its peer, and nobody else."""
    with kept_ports() as ports:
        async with nothing_left():
            far = (THERE, ports[1])
            meeting = asyncio.ensure_future(simopen.connect(far, local=(HERE, ports[0]), clock=plain(), window=HUNG_S))
            await _crowd((HERE, ports[0]), chance)
            answering = asyncio.ensure_future(
                simopen.connect((HERE, ports[0]), local=far, clock=plain(), window=HUNG_S)
            )
            await asyncio.wait({meeting, answering}, timeout=2 * HUNG_S)
            (reader, writer), (_, other) = meeting.result(), answering.result()
            assert writer.get_extra_info("peername")[0] == THERE
            other.write(b"I love you.")
            assert await reader.readexactly(11) == b"I love you."
            for each in (writer, other):
                each.transport.abort()


async def _crowd(target: tuple[str, int], chance: Random) -> None:
    """Strangers who connect and then say something, hang up, reset, or stay a while; none of them gets an answer."""
    loop, staying, met = asyncio.get_running_loop(), list[socket.socket](), 0
    deadline_s = time.monotonic() + 3 * HUNG_S
    while met < AT_ONCE:
        assert time.monotonic() < deadline_s, f"only {met} strangers came as far as the listener"
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((f"127.0.{chance.randint(3, 99)}.{chance.randint(1, 254)}", 0))
        try:
            await loop.sock_connect(sock, target)
        except ConnectionRefusedError:  # nobody listens yet
            sock.close()
            await asyncio.sleep(0.001)
            continue
        except OSError:  # it was turned away already
            pass
        met += 1
        match chance.randrange(4):
            case 0:
                with contextlib.suppress(OSError):
                    sock.send(chance.randbytes(chance.randint(1, 2000)))
                sock.close()
            case 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.close()
            case 2:
                staying.append(sock)
            case _:
                sock.close()
        if len(staying) > 50:
            staying.pop(0).close()
    for sock in staying:
        sock.close()


# --- threads

THREADS = 12


def threads(chance: Random) -> None:
    """Six pairs of threads, each with a loop of its own, meet pair by pair; half of the time all six of one side at one
    local endpoint."""
    shared, factory = chance.random() < 0.5, chance.choice(FACTORIES)
    heard: list[object] = []
    with kept_ports() as ports:
        ready = threading.Barrier(THREADS)

        def run(number: int, side: int) -> None:
            near = (f"127.0.1.{1 if shared else number}", ports[0])
            ends = (near, (f"127.0.2.{number}", ports[1]))
            with asyncio.Runner(loop_factory=factory) as runner:
                ready.wait()
                try:
                    heard.append(runner.run(_say(f"{number}", ends[side], ends[1 - side])))
                except Exception as error:
                    error.add_note(f"pair {number}, side {side}, one endpoint for all: {shared}")
                    heard.append(error)

        running = [threading.Thread(target=run, args=(number, side)) for number in range(1, 7) for side in (0, 1)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(3 * HUNG_S)
        assert not any(thread.is_alive() for thread in running), "a thread hangs"
    errors = [each for each in heard if isinstance(each, Exception)]
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {THREADS} threads failed", errors)
    assert not _settled(our_threads)


async def _say(words: str, near: tuple[str, int], far: tuple[str, int]) -> None:
    reader, writer = await simopen.connect(far, local=near, clock=plain(), window=HUNG_S)
    try:
        writer.write(f"{words}\n".encode())
        assert await reader.readline() == f"{words}\n".encode()
        writer.write(b"bye\n")
        assert await reader.readline() == b"bye\n"  # both have all before either hangs up
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
