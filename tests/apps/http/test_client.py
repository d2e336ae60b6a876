"""httpx's requests over one stream, which breaks, ends, or is left with a body that nobody wants."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import httpcore2
import httpx
import httpx2
import pytest

import simopen.http
from simopen.errors import WindowClosed

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Peer: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

LIBRARIES = [httpx2, httpx]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def request(reader: asyncio.StreamReader) -> bytes:
    """The head of a request, and its body where it says how long that is."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    return head + await reader.readexactly(int(length.partition(b":")[2]))


async def good(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while await request(reader):
            writer.write(OK)


@contextlib.asynccontextmanager
async def meeting(*peers: Peer) -> AsyncIterator[Callable[[], Awaitable[Streams]]]:
    """What opens a stream to the next of these peers."""
    coming, tasks = iter(peers), list[asyncio.Task[None]]()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await next(coming)(reader, writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(one(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield lambda: asyncio.open_connection(*server.sockets[0].getsockname())
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@contextlib.asynccontextmanager
async def stream_to(peer: Peer) -> AsyncIterator[Streams]:
    """A stream to this peer."""
    async with meeting(peer) as meet:
        reader, writer = await meet()
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def client(library: Any, transport: simopen.http.Transport) -> Any:
    return library.AsyncClient(transport=transport, base_url="http://peer")


@pytest.mark.parametrize("library", LIBRARIES)
async def test_a_hundred_requests_of_all_kinds_take_one_connection(library: Any) -> None:
    asked = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await request(reader):
                asked.append(head)
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")

    async with meeting(echo) as meet, client(library, transport := simopen.http.Transport(meet)) as http:
        answers = await asyncio.gather(*(http.get(f"/{number}") for number in range(50)))
        answers += await asyncio.gather(*(http.post("http://another.name/", content=b"body") for _ in range(50)))
        assert [answer.text for answer in answers] == ["ok"] * 100
        assert transport.connections == 1
    assert [head.split()[1] for head in asked[:50]] == [b"/%d" % number for number in range(50)]
    assert all(b"host: another.name" in head.lower() and head.endswith(b"body") for head in asked[50:])


async def leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)
    writer.transport.abort()


async def answers_and_leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)
    writer.write(OK)


async def says_that_it_closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)
    writer.write(OK.replace(b"OK\r\n", b"OK\r\nconnection: close\r\n", 1))


async def breaks_off_in_the_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)
    writer.write(OK[:20])


async def breaks_off_in_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)
    writer.write(OK[:-1])


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("peer", [leaves, resets])
async def test_what_may_be_repeated_is_asked_again_over_a_new_stream(library: Any, peer: Peer) -> None:
    async with meeting(peer, good) as meet, client(library, transport := simopen.http.Transport(meet)) as http:
        assert (await http.put("/", content=b"whole")).text == "ok"
        assert transport.connections == 2


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("peer", [leaves, resets])
async def test_what_may_not_be_repeated_is_not_and_that_is_said(library: Any, peer: Peer) -> None:
    async with meeting(peer, good) as meet, client(library, transport := simopen.http.Transport(meet)) as http:
        with pytest.raises(library.TransportError, match=r"the POST was sent, and is not sent again"):
            await http.post("/", content=b"order")
        assert transport.connections == 1
        assert (await http.post("/", content=b"another order")).text == "ok"
        assert transport.connections == 2


async def test_a_body_that_is_gone_is_not_sent_again() -> None:
    async def once() -> AsyncIterator[bytes]:
        yield b"whole"

    async with meeting(leaves, good) as meet, client(httpx2, simopen.http.Transport(meet)) as http:
        with pytest.raises(httpx2.RemoteProtocolError, match="is not sent again"):
            await http.put("/", content=once(), headers={"content-length": "5"})


@pytest.mark.parametrize("peer", [answers_and_leaves, says_that_it_closes])
async def test_a_server_that_closes_after_each_response_is_met_again_each_time(peer: Peer) -> None:
    async with meeting(peer, peer, peer) as meet, client(httpx2, transport := simopen.http.Transport(meet)) as http:
        for _ in range(3):
            assert (await http.get("/")).text == "ok"
        assert transport.connections == 3


@pytest.mark.parametrize("peer", [breaks_off_in_the_head, breaks_off_in_the_body])
async def test_an_answer_that_has_begun_is_not_asked_for_again_unseen(peer: Peer) -> None:
    async with meeting(peer, good) as meet, client(httpx2, transport := simopen.http.Transport(meet)) as http:
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.get("/")
        assert transport.connections == 1
        assert (await http.get("/")).text == "ok"


@pytest.mark.parametrize(
    "nonsense",
    [b"\x16\x03\x01" * 50, b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2**18 + b"\r\n\r\n", b"HTTP/9 what\r\n\r\n"],
    ids=["TLS", "a header of 256 KiB", "no HTTP"],
)
async def test_nonsense_is_an_error_and_the_next_request_meets_again(nonsense: bytes) -> None:
    async def talks_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(nonsense)
        await reader.read()

    async with meeting(talks_nonsense, good) as meet, client(httpx2, simopen.http.Transport(meet)) as http:
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.get("/")
        assert (await http.get("/")).text == "ok"


async def test_chunks_of_nonsense_are_an_error() -> None:
    async def talks_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n")
        await reader.read()

    async with meeting(talks_nonsense, good) as meet, client(httpx2, simopen.http.Transport(meet)) as http:
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.get("/")
        assert (await http.get("/")).text == "ok"


async def test_what_a_server_says_unasked_is_the_answer_to_no_request() -> None:
    """Some say 408 to an idle connection, and close it."""
    said = asyncio.Event()

    async def speaks_unasked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK)
        await said.wait()
        writer.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        await reader.read()

    async with (
        meeting(speaks_unasked, good) as meet,
        client(httpx2, transport := simopen.http.Transport(meet)) as http,
    ):
        assert (await http.get("/")).text == "ok"
        said.set()
        assert transport._stream is not None
        while not transport._stream.get_extra_info("is_readable"):  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert (await http.post("/")).text == "ok"
        assert transport.connections == 2


MORE = {
    "a whole answer": OK.replace(b"ok", b"no"),
    "one without a body": b"HTTP/1.1 204 No Content\r\n\r\n",
    "one that goes on": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nno",
    "after one that is not the last": b"HTTP/1.1 102 Processing\r\n\r\n" + OK.replace(b"ok", b"no"),
}


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
async def test_what_came_with_an_answer_is_the_next_requests_answer_neither(more: bytes) -> None:
    async def says_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK + more)
        await request(reader)
        writer.write(OK)
        await reader.read()

    async with (
        meeting(says_more, says_more, good) as meet,
        client(httpx2, transport := simopen.http.Transport(meet)) as http,
    ):
        assert [(await http.get("/")).text for _ in range(2)] == ["ok"] * 2
        with pytest.raises(httpx2.RemoteProtocolError, match=r"was there before .*the POST was sent, and is not sent"):
            await http.post("/")
        assert (await http.get("/")).text == "ok"
        assert transport.connections == 3
    async with meeting(says_more) as meet, client(httpx2, simopen.http.Transport.over(*await meet())) as http:
        assert (await http.get("/")).text == "ok"
        with pytest.raises(httpx2.RemoteProtocolError, match="was there before the request"):
            await http.get("/")


async def test_a_response_that_another_task_reads_may_be_closed() -> None:
    async def goes_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun")
        await reader.read()

    begun = asyncio.Event()

    async def read(response: httpx2.Response) -> None:
        async for _ in response.aiter_raw():
            begun.set()

    async with meeting(goes_on, good) as meet, client(httpx2, simopen.http.Transport(meet)) as http:
        response = await http.send(http.build_request("GET", "/"), stream=True)
        reading = asyncio.create_task(read(response))
        await begun.wait()
        await asyncio.sleep(0)  # it waits for more by now
        await response.aclose()
        with pytest.raises(httpx2.TransportError):
            await reading
        assert (await http.get("/")).text == "ok"


def long(size: int) -> Peer:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await request(reader):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))
                await writer.drain()

    return answers


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(("size", "connections"), [(900_000, 1), (9_000_000, 2)])
async def test_a_body_that_is_left_is_read_on_up_to_a_limit(size: int, connections: int, *, begun: bool) -> None:
    async with meeting(long(size), good) as meet, client(httpx2, transport := simopen.http.Transport(meet)) as http:
        async with http.stream("GET", "/") as response:
            if begun:
                async for _ in response.aiter_raw():
                    break
        assert (await http.get("/")).is_success
        assert transport.connections == connections


@pytest.mark.parametrize("library", LIBRARIES)
async def test_a_meeting_that_fails_is_httpx_s_error_and_the_next_request_tries_again(library: Any) -> None:
    async with meeting(good) as meet:
        known = WindowClosed("no stream within 10 s: silence"), OSError(101, "Network is unreachable")
        tries = iter([*known, TimeoutError()])  # as asyncio raises it: without words

        async def fails_thrice() -> Streams:
            if (error := next(tries, None)) is not None:
                raise error
            return await meet()

        async with client(library, simopen.http.Transport(fails_thrice)) as http:
            for words in ("no stream within 10 s: silence", "Network is unreachable", "TimeoutError"):
                with pytest.raises(library.ConnectError, match=words):
                    await http.get("/")
            assert (await http.get("/")).text == "ok"


async def test_cancelled_in_the_middle_the_next_request_meets_again() -> None:
    got = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        got.set()
        await reader.read()

    async with meeting(mute, good) as meet, client(httpx2, transport := simopen.http.Transport(meet)) as http:
        asking = asyncio.create_task(http.get("/"))
        waiting = asyncio.create_task(http.get("/"))
        await got.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (await waiting).text == "ok"
        assert transport.connections == 2


async def test_a_time_out_is_told_in_httpx_s_words() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with meeting(mute) as meet, client(httpx2, simopen.http.Transport(meet)) as http:
        with pytest.raises(httpx2.ReadTimeout, match=r"the peer sent nothing for 0\.02 s"):
            await http.get("/", timeout=httpx2.Timeout(None, read=0.02))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("reads", [False, True])
async def test_a_task_that_holds_a_response_and_asks_again_is_told_so(library: Any, *, reads: bool) -> None:
    """It waits for itself: what others do not heed holds for that, the pool's time-out."""
    limit = library.Timeout(None, pool=0.05)
    async with meeting(long(9_000_000), good) as meet, client(library, simopen.http.Transport(meet)) as http:
        response = await http.send(http.build_request("GET", "/"), stream=True)
        pieces = response.aiter_raw()
        if reads:
            await anext(pieces)
        with pytest.raises(library.PoolTimeout, match="holds a response that it has not closed"):
            await http.get("/", timeout=limit)
        other = asyncio.create_task(http.get("/", timeout=limit))
        _, waiting = await asyncio.wait({other}, timeout=0.1)
        assert waiting
        await response.aclose()
        assert (await other).text == "ok"


async def test_one_that_another_task_has_begun_to_read_meanwhile_is_waited_for() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK[:-1])
        await asyncio.sleep(0.2)
        writer.write(OK[-1:])
        await good(reader, writer)

    async with meeting(slowly) as meet, client(httpx2, simopen.http.Transport(meet)) as http:
        response = await http.send(http.build_request("GET", "/"), stream=True)
        reading = asyncio.create_task(response.aread())
        assert (await http.get("/", timeout=httpx2.Timeout(None, pool=0.05))).text == "ok"
        assert await reading == b"ok"


async def test_whoever_reads_a_response_is_who_holds_it() -> None:
    limit = httpx2.Timeout(None, pool=0.05)
    async with (
        meeting(long(9_000_000), good) as meet,
        client(httpx2, transport := simopen.http.Transport(meet)) as http,
    ):
        response = await http.send(http.build_request("GET", "/"), stream=True)

        async def reads() -> None:
            pieces = response.aiter_raw()
            await anext(pieces)
            with pytest.raises(httpx2.PoolTimeout):
                await http.get("/", timeout=limit)
            await response.aclose()
            await pieces.aclose()

        reading = asyncio.create_task(reads())
        while transport._holder is not reading:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert (await http.get("/", timeout=limit)).text == "ok"
        await reading


async def test_a_response_that_nobody_is_left_to_close_is_told_too() -> None:
    async with meeting(long(9_000_000)) as meet, client(httpx2, simopen.http.Transport(meet)) as http:

        async def asks() -> httpx2.Response:
            found: httpx2.Response = await http.send(http.build_request("GET", "/"), stream=True)
            return found

        response = await asyncio.create_task(asks())
        with pytest.raises(httpx2.PoolTimeout, match="a task that has ended holds a response"):
            await http.get("/", timeout=httpx2.Timeout(None, pool=0.05))
        await response.aclose()


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "GET", "headers": {"X": "a\nb"}},
        {"method": "G T"},
        {"method": "GET", "headers": [("Host", "a"), ("Host", "b")]},
    ],
)
@pytest.mark.parametrize("library", LIBRARIES)
async def test_what_is_no_request_costs_no_stream(library: Any, wrong: dict[str, Any]) -> None:
    async with (
        stream_to(good) as streams,
        client(library, transport := simopen.http.Transport.over(*streams)) as http,
    ):
        for _ in range(2):
            with pytest.raises(library.LocalProtocolError):
                await http.request(url="/", **wrong)
            assert (await http.get("/")).text == "ok"
    assert transport.connections == 1


async def test_what_has_ended_the_only_stream_is_told_to_the_next_request() -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("the disk is gone")

    async with stream_to(good) as streams, client(httpx2, simopen.http.Transport.over(*streams)) as http:
        with pytest.raises(ValueError, match="the disk is gone"):
            await http.post("/", content=breaks())
        with pytest.raises(httpx2.ConnectError, match="a request failed while it was sent: the disk is gone"):
            await http.get("/")


async def test_a_peer_that_waits_to_be_read_takes_nothing_and_is_left_all_the_same() -> None:
    left = asyncio.Event()

    async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            left.set()

    async with meeting(echoes, good) as meet, client(httpx2, simopen.http.Transport(meet)) as http:
        with pytest.raises(httpx2.WriteTimeout):
            await http.post("/", content=bytes(40 * 2**20), timeout=httpx2.Timeout(None, write=0.1))
        assert (await http.get("/")).text == "ok"
        await left.wait()


async def test_a_body_is_sent_for_as_long_as_the_peer_takes_some_of_it() -> None:
    async def takes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(3 * 2**20 // 2**16):
            await reader.readexactly(2**16)
            await asyncio.sleep(0.02)
        writer.write(OK)

    async with meeting(takes) as meet:
        reader, writer = await meet()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        http = client(httpx2, simopen.http.Transport.over(reader, writer))
        limit = httpx2.Timeout(None, write=0.4)
        assert (await http.post("/", content=bytes(3 * 2**20), timeout=limit)).text == "ok"
        await http.aclose()


@pytest.mark.parametrize("library", LIBRARIES)
async def test_a_request_may_be_of_a_class_of_the_programs(library: Any) -> None:
    class Signed(library.Request):  # type: ignore[misc]
        pass

    async with meeting(good) as meet, client(library, simopen.http.Transport(meet)) as http:
        answer = await http.send(Signed("GET", "http://peer/"))
        assert (type(answer), answer.text) == (library.Response, "ok")


async def test_an_answers_stream_tells_its_two_ends() -> None:
    async with meeting(good) as meet:
        reader, writer = await meet()
        async with client(httpx2, simopen.http.Transport.over(reader, writer)) as http:
            stream = (await http.get("/")).extensions["network_stream"]
            for name, own in (("client_addr", "sockname"), ("server_addr", "peername")):
                assert stream.get_extra_info(name) == writer.get_extra_info(own)


@pytest.mark.parametrize("url", ["https://peer/", "ftp://peer/"])
async def test_another_scheme_is_refused_before_anybody_is_met(url: str) -> None:
    async with client(httpx2, transport := simopen.http.Transport(_never)) as http:
        with pytest.raises(httpx2.UnsupportedProtocol, match="use http://"):
            await http.get(url)
        assert transport.connections == 0


async def _never() -> Streams:
    raise AssertionError("nobody is to be met")


async def test_a_closed_transport_meets_nobody() -> None:
    transport = simopen.http.Transport(_never)
    await transport.aclose()
    with pytest.raises(httpx2.ConnectError, match="this transport is closed"):
        await transport.handle_async_request(httpx2.Request("GET", "http://peer/"))


async def test_what_is_met_for_as_the_transport_is_closed_is_closed_too() -> None:
    async with meeting(good) as meet:
        may_meet, met = asyncio.Event(), list[Streams]()

        async def slowly() -> Streams:
            await may_meet.wait()
            met.append(await meet())
            return met[0]

        transport = simopen.http.Transport(slowly)
        asking = asyncio.create_task(client(httpx2, transport).get("/"))
        await asyncio.sleep(0.01)
        await transport.aclose()
        may_meet.set()
        with pytest.raises(httpx2.ConnectError, match="this transport is closed"):
            await asking
        assert met[0][1].is_closing()


async def test_a_stream_that_no_request_came_for_is_closed_with_its_transport() -> None:
    ended = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        ended.set()

    async with meeting(waits) as meet:
        await simopen.http.Transport.over(*await meet()).aclose()
        await ended.wait()


def test_the_errors_of_httpcore_have_names_that_both_libraries_know() -> None:
    for name in (
        "ReadError",
        "WriteError",
        "ConnectError",
        "ReadTimeout",
        "RemoteProtocolError",
        "UnsupportedProtocol",
    ):
        assert issubclass(getattr(httpcore2, name), Exception)
        assert all(issubclass(getattr(library, name), library.TransportError) for library in LIBRARIES)
