"""HTTP over a session: requests go on over the next stream, and what may not be done twice is not."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections import Counter
from typing import Any

import httpx2
import pytest

import simopen.http
from tests.rendezvous.test_session import Site, site

__all__ = ["site"]
HALF = b"half"


class Application:
    """Counts what it was asked for, and cuts `writer`'s stream before it answers `/cut` for the first time.

    Of `/half` it says half, and no more until the peer has gone.
    """

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.writer: StreamWriter | None = None

    def cut(self) -> None:
        assert self.writer is not None
        self.writer.transport.abort()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("it has no lifespan")
        asked = f"{scope['method']} {scope['path']}"
        self.done[asked] += 1
        if scope["path"] == "/cut" and self.done[asked] == 1:
            self.cut()
        headers = [(b"content-length", b"%d" % (2 * len(HALF)))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": HALF, "more_body": True})
        while scope["path"] == "/half" and (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": HALF})


async def cut_within(http: httpx2.AsyncClient, application: Application) -> None:
    """Cut the stream once half of an answer has come."""
    async with http.stream("GET", "/half") as answer:
        async for _ in answer.aiter_raw():
            application.cut()


async def test_what_may_be_done_twice_is_asked_again_and_nothing_else(site: Site) -> None:
    application = Application()
    async with site.session("laptop") as asks, site.session("desk") as serves:

        async def met() -> tuple[StreamReader, StreamWriter]:
            reader, application.writer = await asks.connect()
            return reader, application.writer

        serving = asyncio.ensure_future(simopen.http.serve(application, serves))
        transport = simopen.http.Transport(met)
        async with httpx2.AsyncClient(transport=transport, base_url="http://peer") as http:
            assert (await http.get("/cut")).content == 2 * HALF
            with pytest.raises(httpx2.TransportError, match="POST was sent, and is not sent again"):
                await http.post("/cut")
            assert (await http.post("/whole")).content == 2 * HALF
            application.cut()  # between two requests
            assert (await http.post("/next")).content == 2 * HALF
            with pytest.raises(httpx2.TransportError):
                await cut_within(http, application)
            assert (await http.get("/last")).content == 2 * HALF
        serving.cancel()
        await asyncio.wait({serving})
        assert transport.connections == asks.streams == 5
    once = ("POST /cut", "POST /whole", "POST /next", "GET /half", "GET /last")
    assert application.done == {"GET /cut": 2, **dict.fromkeys(once, 1)}
