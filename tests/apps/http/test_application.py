"""Applications that fail, refuse, break off or do not end: what the peer hears of it, and what ends by it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import websockets

import simopen
import simopen.http
from simopen.apps.http import server
from tests.apps.http.test_client import good, meeting
from tests.apps.http.test_pieces import Both, plain
from tests.apps.http.test_server import Receive, Send, application, client, lives, served, shout
from tests.link.peers import pair, stream_pair

REFUSED: dict[str, dict[str, Any]] = {
    "/headers-of-text": {"status": 200, "headers": [("x", "y")]},
    "/two-lines": {"status": 200, "headers": [(b"x", b"y\nz")]},
    "/nul": {"status": 200, "headers": [(b"x", b"\0")]},
    "/99": {"status": 99},
    "/100": {"status": 100},
    "/600": {"status": 600},
    "/no-status": {},
}
"""Starts of answers that are none."""
FAILING = "/raises", "/says-nothing", "/is-cancelled", *REFUSED
ANSWERING = "/closes", "/raises-afterwards"


async def fails(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """In the ways that an application can."""
    if scope["type"] == "lifespan":
        await lives(receive, send)
    elif scope["path"] == "/raises":
        raise RuntimeError("boom")
    elif scope["path"] == "/is-cancelled":
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task
    elif (start := REFUSED.get(scope["path"])) is not None:
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": b"ok"})
    elif scope["path"] == "/raises-afterwards":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        raise RuntimeError("a task in the background")
    elif scope["path"] == "/closes":
        closing = [(b"Connection", b"close"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": closing})
        await send({"type": "http.response.body", "body": b"ok"})


async def test_an_application_that_fails_or_would_close_ends_no_stream(caplog: pytest.LogCaptureFixture) -> None:
    async with served(fails) as streams, client(streams) as asking:
        told = [await asking.get(f"http://peer{path}") for path in (*FAILING, *ANSWERING) * 2]
    statuses = [500] * len(FAILING) + [200] * len(ANSWERING)
    assert [(each.status_code, "connection" in each.headers) for each in told] == [
        (each, False) for each in statuses
    ] * 2
    assert "the application failed at GET /raises" in caplog.text
    assert "the application did not answer GET /says-nothing" in caplog.text


BODILESS = ("GET", 204), ("GET", 304), ("HEAD", 200)


@pytest.mark.parametrize("then", ["says more", "raises", "returns"])
async def test_an_answer_that_has_no_body_is_whole_once_it_has_begun(then: str) -> None:
    async def goes_on(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lives(receive, send)
            return
        status = int(scope["path"][1:])
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"4")]})
        if then == "says more":
            await send({"type": "http.response.body", "body": b"null"})
        elif then == "raises":
            raise RuntimeError("boom")

    async with served(goes_on) as streams, client(streams) as asking:
        for method, status in BODILESS * 2:
            answer = await asking.request(method, f"http://peer/{status}")
            assert (answer.status_code, answer.content) == (status, b"")


@pytest.mark.parametrize("kind", [plain, stream_pair])
@pytest.mark.parametrize("raises", [False, True])
async def test_half_an_answer_never_looks_whole(kind: Callable[[], Awaitable[Both]], *, raises: bool) -> None:
    """Nor to a peer of HTTP/1.0, to whom a stream's end is the answer's."""

    async def breaks_off(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lives(receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if raises:
            raise RuntimeError("boom")

    async with pair(kind) as ((reader, writer), theirs):
        serving = asyncio.create_task(simopen.http.serve(breaks_off, theirs, log_level="critical"))
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises((ConnectionResetError, simopen.LinkBroken)):
            await reader.read()
        writer.close()
        await serving


@pytest.mark.parametrize("kind", [plain, stream_pair])
async def test_nor_does_one_that_is_cancelled(kind: Callable[[], Awaitable[Both]]) -> None:
    async def waits(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lives(receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await receive()

    async with pair(kind) as ((reader, writer), theirs):
        serving = asyncio.create_task(simopen.http.serve(waits, theirs, log_level="critical"))
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await reader.readuntil(b"half")
        serving.cancel()
        with pytest.raises((ConnectionResetError, simopen.LinkBroken)):
            await reader.read()
        writer.close()
        await asyncio.wait({serving})


@pytest.mark.parametrize(
    ("begins", "said", "ends"),
    [
        (True, b"GET / HTTP/1.0\r\n\r\n", False),
        (False, b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", True),
    ],
    ids=["half an answer", "refused by uvicorn"],
)
async def test_what_an_application_says_after_its_connection_counts_for_nothing(
    begins: bool, said: bytes, ends: bool
) -> None:
    """Half an answer is not made whole by it, nor one of uvicorn's own half."""
    parts: list[dict[str, Any]] = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": b"half", "more_body": True},
        {"type": "http.response.body", "body": b"the rest"},
    ]

    async def goes_on(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lives(receive, send)
            return
        for part in parts[:2] if begins else ():
            await send(part)
        while (await receive())["type"] != "http.disconnect":
            pass
        for part in parts[2:] if begins else parts:
            await send(part)

    async with served(goes_on) as (reader, writer):
        writer.write(said)
        if begins:
            await reader.readuntil(b"half")
            writer.write_eof()
        if ends:
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        else:
            with pytest.raises(ConnectionResetError):
                await reader.read()


async def test_an_application_is_told_who_asks() -> None:
    ends = list[tuple[Any, Any]]()

    async def notes(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            ends.append((scope["client"], scope["server"]))
        await (shout if scope["type"] == "websocket" else application)(scope, receive, send)

    for number in range(2):
        async with served(notes) as streams:
            names = tuple(streams[1].get_extra_info(name) for name in ("sockname", "peername"))
            if number:
                async with websockets.connect("ws://peer/", sock=await simopen.bridge(streams)):
                    pass
            else:
                async with client(streams) as asking:
                    assert (await asking.get("http://peer/", headers={"x-forwarded-for": "192.0.2.1"})).is_success
        assert ends.pop() == names


EARLY = {
    413: b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1000000\r\n\r\n",
    400: b"GET what\r\n\r\n",
}


@pytest.mark.parametrize("status", EARLY)
async def test_who_is_refused_while_it_still_speaks_hears_that(status: int) -> None:
    """What is closed with something unread resets its connection, and what was said last is lost."""

    async def refuses(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lives(receive, send)
            return
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"no"})

    async with served(refuses) as (reader, writer):
        writer.write(EARLY[status] + bytes(1_000_000))
        assert (await reader.read()).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("cancels", [1, 2])
async def test_cancelled_while_the_application_starts_nothing_of_it_is_left(cancels: int) -> None:
    steps, begun, goes_on = list[str](), asyncio.Event(), asyncio.Event()

    async def slow(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        begun.set()
        await goes_on.wait()
        await send({"type": "lifespan.startup.complete"})
        steps.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    async with meeting(good) as meet:
        serving = asyncio.create_task(simopen.http.serve(slow, await meet()))
        await begun.wait()
        for _ in range(cancels):
            serving.cancel()
            await asyncio.sleep(0)
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await serving
    assert steps == ["lifespan.shutdown"]


@pytest.mark.parametrize("where", ["startup", "shutdown"])
async def test_a_lifespan_that_does_not_end_is_ended(where: str, caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def endless(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            while (await receive())["type"] != f"lifespan.{where}":
                await send({"type": "lifespan.startup.complete"})
            begun.set()
            await asyncio.Event().wait()
        finally:
            begun.set()  # at its end at the latest, where this machine was busy for so long

    async def run() -> None:
        async with server._running(endless, "critical", limit_s=0.5):
            pass

    running = asyncio.create_task(run())
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "the application's lifespan does not end, and is cancelled" in caplog.text


async def test_an_application_that_does_not_end_is_ended_once_nobody_is_there() -> None:
    stopped, begun = list[str](), {"/streams": asyncio.Event(), "/waits": asyncio.Event()}

    async def endless(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lives(receive, send)
            return
        try:
            begun[scope["path"]].set()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while scope["path"] == "/streams":
                await send({"type": "http.response.body", "body": b"more", "more_body": True})
                await asyncio.sleep(0.01)
            await asyncio.Event().wait()
        finally:
            stopped.append(scope["path"])

    async def asked(path: str) -> None:
        done = asyncio.Event()

        async def serve(*arguments: Any) -> None:
            await simopen.http.serve(*arguments, log_level="critical")
            done.set()

        async with served(endless, serve) as (_, writer):
            writer.write(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path.encode())
            await begun[path].wait()
            writer.transport.abort()
            await done.wait()

    async with asyncio.timeout(20):
        await asyncio.gather(asked("/streams"), asked("/waits"))
    assert sorted(stopped) == ["/streams", "/waits"]
