"""TLS on a punched stream, whichever side is the server and whoever speaks first."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

import simopen
from simopen.clock import source as clock
from simopen.net.start_tls import Writer
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]

CERTIFICATE = Path(__file__).parents[1].joinpath("certificate.pem")
NAME = "simopen.test"
Pair = tuple[asyncio.StreamReader, Writer]


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=CERTIFICATE)


async def punched(ports: tuple[int, int], **options: Any) -> tuple[Pair, Pair]:
    left, right = (HERE, ports[0]), (THERE, ports[1])
    options = {"clock": clock.plain(), **options}
    one, other = await asyncio.gather(
        simopen.connect(right, local=left, **options), simopen.connect(left, local=right, **options)
    )
    assert isinstance(one[1], Writer)
    assert isinstance(other[1], Writer)
    return (one[0], one[1]), (other[0], other[1])


async def close(*pairs: Pair) -> None:
    for _, writer in pairs:
        writer.transport.abort()
    await asyncio.sleep(0)


async def talk(one: Pair, other: Pair, words: bytes) -> None:
    for (_, writer), (reader, _) in ((one, other), (other, one)):
        writer.write(words)
        await writer.drain()
        assert await reader.readexactly(len(words)) == words


async def upgraded(server: Pair, client: Pair) -> None:
    await asyncio.gather(
        server[1].start_tls(server_context(), server_side=True),
        client[1].start_tls(client_context(), server_hostname=NAME),
    )


@pytest.mark.parametrize("turned", [False, True])
async def test_either_side_can_be_the_server(ports: tuple[int, int], turned: bool) -> None:
    one, other = await punched(ports)
    server, client = (other, one) if turned else (one, other)
    await talk(server, client, b"in the clear")
    await upgraded(server, client)
    await talk(server, client, b"sealed" * 50_000)
    assert client[1].get_extra_info("ssl_object").version() == "TLSv1.3"
    assert client[1].get_extra_info("simopen") is not None
    await close(one, other)


@pytest.mark.parametrize("words", [b"", b"the last line in the clear\n"])
async def test_a_client_that_speaks_before_the_server_has_begun_is_heard(ports: tuple[int, int], words: bytes) -> None:
    """Its ClientHello waits in the server's reader; with it, words that the server's program read before."""
    server, client = await punched(ports)
    client[1].write(words)
    hello = asyncio.create_task(client[1].start_tls(client_context(), server_hostname=NAME))
    while len(server[0]._buffer) <= len(words):  # type: ignore[attr-defined]  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.001)
    if words:
        assert await server[0].readline() == words
    await server[1].start_tls(server_context(), server_side=True)
    await hello
    await talk(server, client, b"sealed")
    await close(server, client)


async def test_a_reader_that_was_full_is_no_obstacle(ports: tuple[int, int]) -> None:
    """It had stopped reading the socket."""
    server, client = await punched(ports, limit=8)
    hello = asyncio.create_task(client[1].start_tls(client_context(), server_hostname=NAME))
    while not server[0]._buffer:  # type: ignore[attr-defined]  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.001)
    await server[1].start_tls(server_context(), server_side=True)
    await hello
    await talk(server, client, b"sealed")
    await close(server, client)


async def test_words_in_the_clear_that_nobody_read_fail_the_handshake(ports: tuple[int, int]) -> None:
    server, client = await punched(ports)
    client[1].write(b"unread " * 100)
    while not server[0]._buffer:  # type: ignore[attr-defined]  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.001)
    hello = asyncio.create_task(client[1].start_tls(client_context(), server_hostname=NAME))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await server[1].start_tls(server_context(), server_side=True)
    await asyncio.gather(hello, return_exceptions=True)
    await close(server, client)


@pytest.mark.parametrize(
    ("context", "options", "error", "what"),
    [
        (None, {}, TypeError, "SSLContext"),
        (client_context, {"server_side": True}, ValueError, "other role"),
        (server_context, {}, ValueError, "other role"),
        (server_context, {"server_side": True, "server_hostname": NAME}, ValueError, "client's side"),
    ],
)
async def test_what_cannot_be_meant_is_refused_and_the_stream_goes_on(
    ports: tuple[int, int], context: Any, options: dict[str, Any], error: type[Exception], what: str
) -> None:
    one, other = await punched(ports)
    with pytest.raises(error, match=what):
        await one[1].start_tls(context and context(), **options)
    await talk(one, other, b"still here")
    await close(one, other)


async def test_a_stream_to_itself_has_the_roles_too(ports: tuple[int, int]) -> None:
    reader, writer = await simopen.connect_self(ports[0])
    assert isinstance(writer, Writer)
    await close((reader, writer))
