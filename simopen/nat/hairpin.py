"""Whether the NAT lets two of this host's mappings reach each other (hairpinning, RFC 5382 REQ-8).

Theory of operation: a simultaneous open with ourselves, as two peers behind that NAT would make it. Two local ports
whose mappings are known fire at each other's mapping, and one of them listens too; so it works under every filtering
that a real punch would pass. The punch port takes no part: a NAT that answers by RST may close the mapping it was for.

A connection alone is no proof, since a proxy or the NAT itself may have answered: a random token must come across.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import NamedTuple, Self

from simopen.errors import LocalEndpointError
from simopen.model.endpoint import Endpoint
from simopen.net.sockets import connect, open_socket

ROW = 64
"""Two new mappings at most so far apart may be of a row of ports: at random, that happens once in 500 times."""
_TOKEN_BYTES = 16
_MOST_SHOTS, _FLOOR_S = 3, 0.005
_MOST_ACCEPTED = 32
"""Only what comes from our own other port counts, and it is among the first: nobody else knows of this one yet."""


class Mapped(NamedTuple):
    """A local endpoint, and the public one that it is mapped to."""

    local: Endpoint
    mapped: Endpoint


def in_a_row(one: Mapped, other: Mapped) -> bool:
    """Whether the two mappings may be neighbours in a row of ports.

    Not where local ports keep their numbers: those may well lie side by side.
    """
    if all(each.local.port == each.mapped.port for each in (one, other)):
        return False
    return one.mapped.address == other.mapped.address and abs(one.mapped.port - other.mapped.port) <= ROW


async def hairpins(one: Mapped, other: Mapped, timeout_s: float) -> bool | None:
    """Whether a stream comes up between the two by way of their mappings. `timeout_s`: a round trip to a server.

    The SYNs go no further than the NAT, so by then they have come back if they ever do, though a stream may need as
    long again to be open. None: one of them was refused and the other was not, so that its way may be a long one.

    Raises:
        LocalEndpointError: no socket can be had on one of the two ports.
    """
    token = os.urandom(_TOKEN_BYTES)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(open_socket(one.local, one.local.family))
        listening.listen()
        answering, firing = (
            stack.enter_context(_Attempt(mine.local, its.mapped)) for mine, its in ((one, other), (other, one))
        )
        # In this order: the first shot opens the listener's mapping for the one that follows.
        ways = (_heard_crossing(answering, token), _heard_accepted(listening, token), _say(firing, token))
        async with _running(ways) as tasks:
            if await _any_true(tasks, timeout_s):
                return True
            states = frozenset({_state(answering.sock), _state(firing.sock)})
            if _ESTABLISHED in states:
                return await _any_true(tasks, timeout_s)
            return True if _SYN_RECEIVED in states else _VERDICTS.get(states)


class _Attempt:
    """One local end that fires at a mapping: again after a RST, since by then the NAT has seen both ends' SYNs."""

    def __init__(self, local: Endpoint, peer: Endpoint) -> None:
        self._local, self._peer = local, peer
        self.sock = open_socket(local, local.family)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    async def connect(self) -> bool:
        for _ in range(_MOST_SHOTS):
            try:
                await connect(self.sock, self._peer)
            except ConnectionError:
                self.sock.close()
                self.sock = open_socket(self._local, self._local.family)
                await asyncio.sleep(_FLOOR_S)
            else:
                return True
        return False


# linux/tcp_states.h. SYN-RECEIVED after a connect: a SYN crossed ours, and only our own other port fires there.
_ESTABLISHED, _SYN_SENT, _SYN_RECEIVED, _CLOSED = 1, 2, 3, 7
_VERDICTS: dict[frozenset[int | None], bool] = {frozenset({_SYN_SENT}): False, frozenset({_CLOSED}): False}


def _state(sock: socket.socket) -> int | None:
    """The first byte of TCP_INFO; None where it cannot be had, as off Linux."""
    if sys.platform != "linux":
        return None
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


@contextlib.asynccontextmanager
async def _running(ways: Iterable[Coroutine[None, None, bool]]) -> AsyncIterator[list[asyncio.Task[bool]]]:
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _any_true(tasks: list[asyncio.Task[bool]], timeout_s: float) -> bool:
    with contextlib.suppress(TimeoutError):
        for ended in asyncio.as_completed(map(asyncio.shield, tasks), timeout=timeout_s):
            if await ended:
                return True
    return False


async def _heard_crossing(attempt: _Attempt, token: bytes) -> bool:
    with contextlib.suppress(OSError, LocalEndpointError):
        return await attempt.connect() and await _hears(attempt.sock, token)
    return False


async def _heard_accepted(listening: socket.socket, token: bytes) -> bool:
    """Whoever else connects may say nothing, and keeps nobody waiting."""
    heard = asyncio.Event()
    with contextlib.ExitStack() as stack:
        async with _running([_accept(listening, token, stack, heard)]) as tasks:
            ended = asyncio.create_task(heard.wait())
            try:
                await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended.cancel()
    return heard.is_set()


async def _accept(listening: socket.socket, token: bytes, stack: contextlib.ExitStack, heard: asyncio.Event) -> bool:
    """Accept a few, and listen to all of them."""
    async with asyncio.TaskGroup() as group:
        for _ in range(_MOST_ACCEPTED):
            sock, _ = await asyncio.get_running_loop().sock_accept(listening)
            group.create_task(_listen_to(stack.enter_context(sock), token, heard))
            await asyncio.sleep(0)  # where more are there already, `sock_accept` does not let the loop run
    return heard.is_set()


async def _listen_to(sock: socket.socket, token: bytes, heard: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        if await _hears(sock, token):
            heard.set()


async def _hears(sock: socket.socket, token: bytes) -> bool:
    heard = b""
    while len(heard) < len(token):
        came = await asyncio.get_running_loop().sock_recv(sock, len(token) - len(heard))
        if not came:
            return False
        heard += came
    return heard == token


async def _say(attempt: _Attempt, token: bytes) -> bool:
    """Fire, and send the token. That it left proves nothing."""
    with contextlib.suppress(OSError, LocalEndpointError):
        if await attempt.connect():
            await asyncio.get_running_loop().sock_sendall(attempt.sock, token)
    return False
