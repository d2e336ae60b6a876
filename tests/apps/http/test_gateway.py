"""Servers that end their connections, behind a stream that goes on; and what else a server may do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator

import httpx2
import pytest
import websockets

import simopen
import simopen.http
from simopen.apps.http import gateway
from simopen.net.streams import cut
from tests.apps.http.test_client import (
    OK,
    Peer,
    Streams,
    answers_and_leaves,
    breaks_off_in_the_body,
    breaks_off_in_the_head,
    good,
    leaves,
    long,
    meeting,
    request,
    resets,
    says_that_it_closes,
    stream_to,
)


@contextlib.asynccontextmanager
async def behind(*servers: Peer) -> AsyncIterator[Streams]:
    """A stream to a gateway, whose connections are to one of these servers after the other."""
    async with meeting(*servers) as connect:

        async def carries(reader: StreamReader, writer: StreamWriter) -> None:
            with contextlib.suppress(OSError):
                await gateway.carry(connect, reader, writer)

        async with stream_to(carries) as streams:
            yield streams


def client(streams: Streams) -> httpx2.AsyncClient:
    """Over that stream alone."""
    return httpx2.AsyncClient(transport=simopen.http.Transport.over(*streams), base_url="http://peer")


async def as_http_1_0(reader: StreamReader, writer: StreamWriter) -> None:
    """As Python's own http.server: no length, and the connection's end is the answer's."""
    await request(reader)
    writer.write(b"HTTP/1.0 200 OK\r\nserver: old\r\n\r\nok")


@pytest.mark.parametrize("server", [answers_and_leaves, says_that_it_closes, as_http_1_0])
async def test_a_server_that_closes_after_each_answer_does_not_end_the_stream(server: Peer) -> None:
    async with behind(*[server] * 6) as streams, client(streams) as http:
        for _ in range(3):
            assert (await http.get("/")).text == "ok"
            assert (await http.post("/", content=b"body")).text == "ok"


async def test_a_server_that_keeps_its_connection_is_asked_over_one() -> None:
    async with behind(good) as streams, client(streams) as http:
        for _ in range(5):
            assert (await http.post("/", content=b"body")).text == "ok"


@pytest.mark.parametrize("leaves_how", [leaves, resets])
async def test_what_may_be_repeated_is_where_a_kept_connection_ends_under_it(leaves_how: Peer) -> None:
    """As the request crosses the end of an idle connection."""
    asked = 0

    async def answers_once(reader: StreamReader, writer: StreamWriter) -> None:
        nonlocal asked
        await request(reader)
        writer.write(OK)
        asked += 1
        await leaves_how(reader, writer)
        asked += 1

    async with behind(answers_once, answers_once, good) as streams, client(streams) as http:
        assert (await http.get("/")).text == "ok"
        assert (await http.get("/")).text == "ok"
        answer = await http.post("/", content=b"order")
        assert (answer.status_code, answer.text) == (502, "the server behind this peer has not answered\n")
        assert (await http.get("/")).text == "ok"
    assert asked == 4


@pytest.mark.parametrize("server", [leaves, resets, breaks_off_in_the_head])
async def test_a_server_that_does_not_answer_is_told_and_the_stream_goes_on(
    server: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "simopen"):
        async with behind(server, good) as streams, client(streams) as http:
            answer = await http.get("/")
            assert (answer.status_code, answer.text) == (502, "the server behind this peer has not answered\n")
            assert (await http.head("/")).status_code == 200
    (record,) = caplog.records
    assert server is not leaves or "the server has closed the connection without an answer" in record.getMessage()


async def test_half_an_answer_never_looks_like_a_whole_one() -> None:
    async with behind(breaks_off_in_the_body) as streams, client(streams) as http:
        with pytest.raises(httpx2.TransportError):
            await http.get("/")


async def test_nor_does_it_to_a_peer_to_whom_a_streams_end_is_the_answers() -> None:
    async with behind(breaks_off_in_the_body) as (reader, writer):
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_nonsense_of_a_servers_is_not_passed_on() -> None:
    async def talks_nonsense(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        writer.write(b"\x16\x03\x01" * 50)
        await reader.read()

    async with behind(talks_nonsense, good) as streams, client(streams) as http:
        assert (await http.get("/")).status_code == 502
        assert (await http.get("/")).status_code == 200


async def test_what_came_with_an_answer_is_no_answer_to_the_next_request() -> None:
    async def says_more(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        writer.write(OK + OK.replace(b"ok", b"no"))
        await reader.read()

    async with behind(says_more, says_more, good) as streams, client(streams) as http:
        assert [(await http.post("/")).text for _ in range(3)] == ["ok"] * 3


async def test_a_peer_that_speaks_http_1_0_is_spared_trailers() -> None:
    async def trails(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n")

    async with behind(trails) as (reader, writer):
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("host", [b"", b"host: x\r\n"])
async def test_a_peer_may_speak_http_1_0(host: bytes) -> None:
    """As `curl -0` and old clients do: the stream's end is the answer's."""
    heads = list[bytes]()

    async def continues(reader: StreamReader, writer: StreamWriter) -> None:
        heads.append(await request(reader))
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\nok")

    async with behind(continues) as (reader, writer):
        writer.write(b"GET / HTTP/1.0\r\n" + host + b"\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"chunked" not in head.lower()
    assert body == b"ok"
    assert heads == [b"GET / HTTP/1.1\r\n" + (host or b"host: \r\n") + b"\r\n"]


async def test_a_server_that_speaks_http_1_0_may_say_go_on() -> None:
    async def tells(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.0 100 Continue\r\n\r\n" + OK)
        await reader.read()

    async with behind(tells) as streams, client(streams) as http:
        assert (await http.get("/")).text == "ok"


async def test_what_a_connection_says_of_itself_is_not_passed_on() -> None:
    async def tells(reader: StreamReader, writer: StreamWriter) -> None:
        head = await reader.readuntil(b"0\r\n\r\n")
        assert head.split(b"\r\n") == [
            b"POST / HTTP/1.1",
            b"host: x",
            b"transfer-encoding: chunked",
            b"b: 2",
            *(b"", b"2", b"it", b"0", b"", b""),
        ]
        writer.write(OK.replace(b"\r\n", b"\r\nconnection: keep-alive, c\r\nc: 3\r\nd: 4\r\n", 1))
        await reader.read()

    async with behind(tells) as (reader, writer):
        head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n"
        writer.write(head + b"connection: keep-alive, a\r\na: 1\r\nb: 2\r\n\r\n2\r\nit\r\n0\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
    assert answer == b"HTTP/1.1 200 OK\r\nd: 4\r\ncontent-length: 2\r\n\r\n"


OWN = {
    "its length": b"connection: content-length, host\r\ncontent-length: 2\r\n\r\nit",
    "its chunks": b"connection: transfer-encoding\r\ntransfer-encoding: chunked\r\n\r\n2\r\nit\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("said", OWN.values(), ids=OWN)
async def test_what_a_message_says_of_itself_is_no_connections(said: bytes) -> None:
    """A server that is not told where a request ends takes its body for the next one."""
    fields, _, body = said.partition(b"\r\n\r\n")
    own = fields.partition(b"\r\n")[2]

    async def tells(reader: StreamReader, writer: StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head == b"POST / HTTP/1.1\r\nhost: x\r\n" + own + b"\r\n\r\n"
        assert await reader.readexactly(len(body)) == body
        writer.write(OK)
        await reader.read()

    async with behind(tells) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\n" + said)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("is_there", [False, True])
async def test_who_waits_to_be_told_to_go_on_and_is_refused_is_told_that(*, is_there: bool) -> None:
    """Whether its body comes after that nobody knows, so the stream ends."""

    async def refuses(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n")
        await reader.read()

    async def nobody() -> Streams:
        raise ConnectionRefusedError("it refused the connection")

    async with meeting(refuses) as connect:

        async def carries(reader: StreamReader, writer: StreamWriter) -> None:
            await gateway.carry(connect if is_there else nobody, reader, writer)

        async with stream_to(carries) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n")
            answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 417 " if is_there else b"HTTP/1.1 502 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()


NONSENSE = {
    "TLS": b"\x16\x03\x01" * 50,
    "a head of more than 100 KiB": b"GET / HTTP/1.1\r\nx: ".ljust(100 * 1024 + 1, b"y"),
    "no HTTP": b"GET what\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    "a chunk of nonsense": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_of_the_peers_is_refused(said: bytes) -> None:
    async with behind(good) as (reader, writer):
        writer.write(said)
        assert (await reader.readline()) == b"HTTP/1.1 400 Bad Request\r\n"
        await reader.read()


async def test_who_is_refused_while_it_still_speaks_hears_that() -> None:
    """A stream that is closed with something unread is reset, and what was said last is lost."""
    async with behind(good) as (reader, writer):
        writer.write(b"GET what\r\n\r\n" + bytes(1_000_000))
        assert (await reader.read()).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_large_bodies_go_both_ways() -> None:
    async with behind(long(9_000_000)) as streams, client(streams) as http:
        assert len((await http.post("/", content=bytes(5_000_000))).content) == 9_000_000


async def test_an_answer_before_the_request_is_whole_passes_and_the_stream_goes_on() -> None:
    async def refuses(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await reader.read()

    async with behind(refuses, good) as (reader, writer):
        head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n"
        writer.write(head)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413 Too Large\r\n")
        writer.write(bytes(300_000) + b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_who_waits_to_be_told_to_go_on_is() -> None:
    async def tells(reader: StreamReader, writer: StreamWriter) -> None:
        assert b"100-continue" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await reader.readexactly(4) == b"body"
        writer.write(OK)
        await reader.read()

    async with behind(tells) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"body")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_peer_that_goes_in_the_middle_of_an_answer_ends_the_servers_connection() -> None:
    gone = asyncio.Event()

    async def never_ends(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        assert await reader.read() == b""
        gone.set()

    async with behind(never_ends) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"half")
        writer.close()
        await gone.wait()


@pytest.mark.parametrize("change", [b"", b"connection: upgrade\r\nupgrade: h2c\r\n"], ids=["", "to change"])
async def test_a_peer_that_goes_before_it_is_answered_is_told_to_the_server(change: bytes) -> None:
    gone = asyncio.Event()

    async def waits(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        assert await reader.read() == b""
        gone.set()

    async with behind(waits) as (_, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n" + change + b"\r\n")
        writer.close()
        await gone.wait()


CHANGE = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: upper\r\n\r\n"
CHANGES = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: upper\r\n\r\n"


async def test_what_the_two_change_to_passes_and_half_closes_travel() -> None:
    async def upper(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        writer.write(CHANGES + b"ready: ")
        writer.write((await reader.read()).upper())

    async with behind(upper) as (reader, writer):
        writer.write(CHANGE + b"early ")
        writer.write(b"words" * 100_000)
        writer.write_eof()
        assert b"upgrade: upper\r\n" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b"ready: EARLY " + b"WORDS" * 100_000


async def test_who_has_ended_its_direction_by_the_change_hears_what_comes_after_it() -> None:
    async def speaks(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        writer.write(CHANGES + b"words")
        assert await reader.read() == b""

    async with behind(speaks) as (reader, writer):
        writer.write(CHANGE)
        writer.write_eof()
        assert await reader.read() == CHANGES + b"words"


async def test_what_breaks_after_the_change_does_not_look_ended_to_the_peer() -> None:
    async def breaks(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        writer.write(CHANGES + b"half")
        assert await reader.readexactly(3) == b"got"
        cut(writer)

    async with behind(breaks) as (reader, writer):
        writer.write(CHANGE)
        await reader.readuntil(b"half")
        writer.write(b"got")
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_nor_does_it_to_the_server() -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def hears(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        writer.write(CHANGES)
        try:
            heard.set_result(await reader.read())
        except ConnectionResetError as error:
            heard.set_exception(error)

    async with behind(hears) as (reader, writer):
        writer.write(CHANGE)
        await reader.readuntil(b"\r\n\r\n")
        cut(writer)
        with pytest.raises(ConnectionResetError):
            await heard


async def test_websockets_pass() -> None:
    async def shout(peer: websockets.ServerConnection) -> None:
        async for words in peer:
            await peer.send(str(words).upper())

    async with websockets.serve(shout, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()

        async def carries(reader: StreamReader, writer: StreamWriter) -> None:
            await gateway.carry(lambda: asyncio.open_connection(*address), reader, writer)

        async with meeting(carries) as meet:
            sock = await simopen.bridge(await meet())
            async with websockets.connect("ws://peer/", sock=sock) as peer:
                for words in ("hello", "again" * 100_000):
                    await peer.send(words)
                    assert await peer.recv() == words.upper()
