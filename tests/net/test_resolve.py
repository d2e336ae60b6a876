"""Names become endpoints, a bounded number of them; who is cancelled does not wait for a silent name server."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from simopen.errors import ResolutionError
from simopen.model.endpoint import Endpoint
from simopen.net.resolve import MOST_ADDRESSES, look_up, resolve, resolved
from simopen.net.sockets import sockaddr


@pytest.mark.parametrize(
    "escape", ["\x1b[31mred", "\x9b2Jx", "a\u202egro.elpmaxe", "a\rb", "a\x00b", "a b", "a\u2028b"]
)
async def test_a_name_that_would_act_on_a_terminal_is_shown_escaped_and_not_looked_up(escape: str) -> None:
    with pytest.raises(ResolutionError, match="no address") as caught:
        await resolve([(escape, 80)])
    assert str(caught.value).isprintable()


async def test_a_long_name_is_told_in_a_short_message() -> None:
    with pytest.raises(ResolutionError) as caught:
        await resolve([("a" * 100_000, 80)])
    assert len(str(caught.value)) < 300


def answering(addresses: list[str]) -> Callable[..., list[Any]]:
    """A resolver that knows one name's addresses."""

    def ask(host: str, port: int, **_: object) -> list[Any]:
        ends = (Endpoint(each, port) for each in addresses)
        return [(each.family, socket.SOCK_STREAM, 6, "", sockaddr(each)) for each in ends]

    return ask


async def test_of_a_name_with_thousands_of_addresses_eight_of_each_family_are_tried() -> None:
    many = [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(4000)] + [f"2001:db8::{n:x}" for n in range(1, 100)]
    found = await resolved([("many.example", 9)], ask=answering(many))
    assert len(found.endpoints) == 2 * MOST_ADDRESSES
    assert "'many.example' has 4099 addresses, of which 16 are tried: [2001:db8::1]:9, " in found.notes[0]
    assert len(found.notes[0]) < 200


async def test_one_address_in_two_spellings_is_one_endpoint() -> None:
    found = await resolved(
        [("twice.example", 9), ("::ffff:127.0.0.1", 9)], ask=answering(["127.0.0.1", "::ffff:127.0.0.1"])
    )
    assert found == ((Endpoint("127.0.0.1", 9),), ())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(24, "Too many open files"), "could not be looked up (Too many open files); is the network up?"),
        (RuntimeError("can't start new thread"), "could not be looked up (can't start new thread)"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "could not be looked up (Temporary failure)"),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable"), "could not be looked up (Non-recoverable)"),
        (socket.gaierror(socket.EAI_NONAME, "Not known"), "has no address (Not known); check its spelling"),
    ],
)
async def test_that_a_name_has_no_address_is_said_where_a_name_server_said_so(error: Exception, told: str) -> None:
    def ask(*_: object, **__: object) -> list[Any]:
        raise error

    with pytest.raises(ResolutionError, match=re.escape(f"the name 'a.example' {told}")):
        await resolved([("a.example", 9)], ask=ask)


async def test_literals_are_not_looked_up_and_keep_their_order() -> None:
    found = await resolve([("127.0.0.2", 5), ("::1", 5), ("127.0.0.2", 5), ("127.0.0.2", 6)])
    assert found == (Endpoint("127.0.0.2", 5), Endpoint("::1", 5), Endpoint("127.0.0.2", 6))


async def test_a_name_brings_both_families_ipv6_first() -> None:
    found = await resolve([("localhost", 80)])
    families = [endpoint.family for endpoint in found]
    assert socket.AF_INET in families
    assert families == sorted(families, reverse=True)


@pytest.mark.parametrize("name", ["no..name", "a" * 70, "\ud800"])
async def test_a_name_without_an_address_is_told(name: str) -> None:
    with pytest.raises(ResolutionError, match="no address"):
        await resolve([(name, 80)])


async def test_a_look_up_answers_what_the_resolver_does() -> None:
    found = await look_up("127.0.0.1", 5, socket.SOCK_STREAM)
    assert [each[4] for each in found] == [("127.0.0.1", 5)]
    with pytest.raises(UnicodeError):
        await look_up("no..name", 5, socket.SOCK_STREAM)


SILENT = """
import asyncio, socket, sys, threading
from simopen.net.resolve import look_up

async def main():
    async with asyncio.timeout(0.01):
        await look_up("name.example", 1, socket.SOCK_STREAM, ask=lambda *_, **__: threading.Event().wait())

with asyncio.Runner(loop_factory={loop}) as runner:
    try:
        runner.run(main())
    except TimeoutError:
        print("let go")
"""


@pytest.mark.parametrize("loop", ["asyncio.new_event_loop", "__import__('uvloop').new_event_loop"])
def test_a_resolver_that_is_silent_holds_up_neither_the_loop_nor_the_program(loop: str) -> None:
    program = [sys.executable, "-c", SILENT.replace("{loop}", loop)]
    done = subprocess.run(program, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"let go\n", b"")
