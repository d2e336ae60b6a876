"""A stream that breaks after each byte of a request, and of its answer: what is asked again, and what never is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import simopen.http
from simopen.link.handshake import Handshake
from simopen.link.streams import streams
from tests.apps.http.test_client import OK, Peer, Streams, client, meeting, request
from tests.link.peers import sessions, stream_pair
from tests.loops import ONE_LOOP

ROOT = Path(__file__).parents[3]
BODY = b"order"


class Shop:
    """What comes whole is done, and counted."""

    def __init__(self) -> None:
        self.done = 0

    async def good(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await request(reader):
                self.done += 1
                writer.write(OK)

    def takes(self, size: int, cut: Callable[[asyncio.StreamWriter], None]) -> Peer:
        """So many bytes of the first request, and then the stream breaks."""

        async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(size)
            cut(writer)

        return peer

    def gives(self, size: int, cut: Callable[[asyncio.StreamWriter], None]) -> Peer:
        """So many bytes of the first answer."""

        async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request(reader)
            self.done += 1
            writer.write(OK[:size])
            await writer.drain()
            cut(writer)

        return peer


def resets(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def ends(writer: asyncio.StreamWriter) -> None:
    writer.close()


def cuts(shop: Shop, whole: int) -> Iterator[tuple[Peer, bool, bool]]:
    """A peer for each place: whether the request was whole by then, and whether something of the answer had come.

    Of the head every third: it is long, and its bytes are alike.
    """
    for size in sorted({*range(0, whole, 3), *range(whole - len(BODY) - 4, whole)}):
        yield shop.takes(size, (resets, ends)[size % 2]), False, False
    for size in range(len(OK)):
        yield shop.gives(size, (resets, ends)[size % 2]), True, size > 0


async def length_of(method: str) -> int:
    """What the request takes, in bytes."""
    seen = []

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(len(await request(reader)))
        writer.write(OK)

    async with meeting(counts) as meet, client(httpx2, simopen.http.Transport(meet)) as http:
        await ask(http, method)
    return seen[0]


async def ask(http: Any, method: str) -> str:
    return str((await http.request(method, "/", headers={"accept": "*"}, content=BODY)).text)


async def test_what_may_be_repeated_is_never_lost_before_an_answer() -> None:
    shop, whole = Shop(), await length_of("PUT")
    for peer, _, begun in cuts(shop, whole):
        async with meeting(peer, shop.good) as meet, client(httpx2, transport := simopen.http.Transport(meet)) as http:
            try:
                answered = await ask(http, "PUT") == "ok"
            except httpx2.TransportError:
                answered = False
            assert answered is not begun
            assert await ask(http, "PUT") == "ok"
            assert transport.connections == 2


async def test_what_may_not_be_repeated_is_done_once_at_most() -> None:
    whole = await length_of("POST")
    for peer, came, _ in cuts(shop := Shop(), whole):
        shop.done = 0
        async with meeting(peer, shop.good) as meet, client(httpx2, transport := simopen.http.Transport(meet)) as http:
            with pytest.raises(httpx2.TransportError):
                await ask(http, "POST")
            assert (shop.done, transport.connections) == (came, 1)
            assert await ask(http, "POST") == "ok"


@contextlib.asynccontextmanager
async def linked(peer: Peer) -> AsyncIterator[Callable[[], Any]]:
    """As `meeting`, over a stream whose two ends are proven."""
    ours, theirs = await stream_pair()
    task = asyncio.ensure_future(peer(*theirs))

    async def meet() -> Streams:
        return ours

    try:
        yield meet
    finally:
        await task
        theirs[1].transport.abort()


def dies(writer: asyncio.StreamWriter) -> None:
    """As the kernel ends the streams of a process that is killed: by a FIN, without a word of the link's."""
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
        sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(("end", "whole"), [(ends, True), (dies, False)])
async def test_an_answer_without_a_length_is_whole_only_if_the_peer_has_ended_it(end: Any, whole: bool) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhalf of it?")
        await writer.drain()
        end(writer)

    async with linked(answers) as meet, client(httpx2, simopen.http.Transport(meet)) as http:
        if whole:
            assert await ask(http, "GET") == "half of it?"
        else:
            with pytest.raises(httpx2.ReadError, match="the peer did not end it"):
                await ask(http, "GET")


@contextlib.asynccontextmanager
async def peers_process(answer: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A peer in a process of its own, and the port at which it takes a link."""
    command = [sys.executable, "-m", "tests.answerer", answer]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    try:
        yield process, int(await process.stdout.readline())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@ONE_LOOP
async def test_a_peer_whose_process_is_killed_in_a_request_is_asked_again_as_its_next_one() -> None:
    async with peers_process("") as (one, first), peers_process("ok") as (_, second):
        ports = [second, first]

        async def meet() -> Streams:
            handshake = Handshake(sessions()[0], limit_s=60.0)
            sock = socket.create_connection(("127.0.0.1", ports.pop()))
            sock.setblocking(False)
            handshake.offer(sock)
            return streams(await handshake.link())

        async with client(httpx2, transport := simopen.http.Transport(meet)) as http:
            asking = asyncio.ensure_future(ask(http, "GET"))
            assert one.stdout is not None
            assert await one.stdout.readline() == b"asked\n"
            one.kill()
            assert await asking == "ok"
            assert transport.connections == 2
