"""STUN servers that answer as they are told: rightly, wrongly, slowly, or not at all.

They speak over TCP, and over UDP unless told otherwise, on this machine's loopback. What they cannot represent:
CHANGE-REQUEST, TLS, authentication. The bytes are those of the lab's server, made without the codec that is tested.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

from simopen.model.endpoint import Endpoint, normalise
from simopen.nat.stun_answer import ERROR, ERROR_CODE, attribute, message, success

TRIES = 40
_SOON_S = 0.05  # another program's question to a name or time server, from a number that the kernel gave it, is short
Translation = Callable[[Endpoint, Endpoint], Endpoint]
"""(the endpoint that the server sees, its own) -> the one that it tells."""
Wrong = Callable[[bytes, bytes], bytes]
"""(the request, the right answer) -> what is sent instead."""


def error(request: bytes, code: int, reason: str) -> bytes:
    value = struct.pack("!HBB", 0, code // 100, code % 100) + reason.encode()
    return message(ERROR, request[8:20], attribute(ERROR_CODE, value))


def as_seen(seen: Endpoint, server: Endpoint) -> Endpoint:
    return seen


class FakeStun:
    """`async with FakeStun() as server`: it answers at `server.name` until the end.

    `told`: the mapping that it tells. `other`: its OTHER-ADDRESS. `wrong`: what it sends instead. `drip_s`:
    seconds before each byte; `late_s`: before each answer. `silent`: it reads and says nothing. `hangs_up`: it closes
    each connection at once. `answers`: how many questions it answers on a connection before it closes it. `udp`:
    whether it answers there too.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        told: Translation = as_seen,
        other: Endpoint | None = None,
        wrong: Wrong | None = None,
        drip_s: float = 0.0,
        late_s: float = 0.0,
        silent: bool = False,
        hangs_up: bool = False,
        answers: int | None = None,
        udp: bool = True,
    ) -> None:
        self.end = Endpoint(host, port)
        self.told, self.other = told, other
        self.clients: list[Endpoint] = []  # who connected
        self.ended: list[Endpoint] = []  # whose connection was closed, by whichever side
        self.changed = asyncio.Condition()
        self._wrong, self._drip_s, self._silent, self._udp = wrong, drip_s, silent, udp
        self._late_s, self._hangs_up, self._answers = late_s, hangs_up, answers
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        wanted = self.end
        for tries_left in reversed(range(TRIES)):
            self._server = await asyncio.start_server(self._connected, *wanted, reuse_address=True, reuse_port=True)
            self.end = normalise(self._server.sockets[0].getsockname())
            self._datagrams = socket.socket(self.end.family, socket.SOCK_DGRAM)
            self._datagrams.setblocking(False)
            try:
                if self._udp:
                    self._datagrams.bind(self.end)
            except OSError:  # another program has a free port's number for its datagrams
                self._datagrams.close()
                self._server.close()
                if not tries_left:
                    raise
                await asyncio.sleep(_SOON_S)
            else:
                break
        if self._udp:
            asyncio.get_running_loop().add_reader(self._datagrams, self._datagram)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._datagrams)
        self._datagrams.close()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def name(self) -> str:
        return str(self.end)

    async def until(self, reached: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(reached)

    def _datagram(self) -> None:
        request, seen = self._datagrams.recvfrom(2048)
        if not self._silent:
            self._datagrams.sendto(self._reply(request, normalise(seen)), seen)

    def _reply(self, request: bytes, seen: Endpoint) -> bytes:
        right = success(request, self.told(seen, self.end), self.other)
        return right if self._wrong is None else self._wrong(request, right)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        if (peer := writer.get_extra_info("peername")) is None:  # it has hung up by now, as uvloop tells
            await _hang_up(writer)
            self._tasks.discard(task)
            return
        seen = normalise(peer)
        await self._tell(self.clients, seen)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer, seen)
        finally:
            await _hang_up(writer)
            self._tasks.discard(task)
            await self._tell(self.ended, seen)

    async def _tell(self, what: list[Endpoint], who: Endpoint) -> None:
        async with self.changed:
            what.append(who)
            self.changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Endpoint) -> None:
        left = self._answers
        while not self._hangs_up and left != 0:
            request = await reader.readexactly(20)
            if not self._silent:
                await asyncio.sleep(self._late_s)
                if writer.is_closing():  # the other side has hung up; uvloop would raise
                    return
                await self._send(writer, self._reply(request, seen))
            left = None if left is None else left - 1

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if not self._drip_s:
            writer.write(data)
        else:
            for byte in data:
                await asyncio.sleep(self._drip_s)
                if writer.is_closing():  # the other side has hung up; uvloop would raise
                    return
                writer.write(bytes([byte]))
        await writer.drain()


@contextlib.asynccontextmanager
async def full_server(
    hosts: tuple[str, str],
    ports: tuple[int, int],
    *,
    told: Translation = as_seen,
    udp: bool = True,
    answers: int | None = None,
    others_late_s: float = 0.0,
) -> AsyncIterator[dict[Endpoint, FakeStun]]:
    """Two addresses with two ports each, as RFC 5780 wants them; the first that is listed is the one to ask."""
    async with contextlib.AsyncExitStack() as stack:
        servers: dict[Endpoint, FakeStun] = {}
        for mine, its in (hosts, hosts[::-1]):
            for port, other in (ports, ports[::-1]):
                how: dict[str, Any] = {"udp": udp, "answers": answers, "late_s": others_late_s if servers else 0.0}
                server = FakeStun(mine, port, told=told, other=Endpoint(its, other), **how)
                servers[Endpoint(mine, port)] = await stack.enter_async_context(server)
        yield servers


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Close it, and hear what it ended with: else the garbage collector tells, where it finds that future first."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
