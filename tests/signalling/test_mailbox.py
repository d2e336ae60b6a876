"""A mailbox client through servers that die, stall and lie, and what becomes of its messages."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
from collections.abc import Iterable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode

from simopen.errors import RendezvousUnreachable, SignallingError
from simopen.signalling.base import Message, Mood
from simopen.signalling.hashcash import zero_bits
from simopen.signalling.mailbox import Mailbox, Patience, mailbox
from simopen.signalling.server import serve
from tests.loopback import ports
from tests.signalling.hostile import Middle, mailbox_of, talker

__all__ = ["ports"]
STEADY = Patience(delay_s=0.01, delay_most_s=0.02)
"""Waits for as long as it takes, and connects again at once."""
FICKLE = Patience(gone_s=0.5, delay_s=0.01, delay_most_s=0.02)
"""Waits for whoever is there, and not for long for whoever is not."""
QUICK = Patience(open_s=0.3, answer_s=0.2, gone_s=0.5, delay_s=0.01, delay_most_s=0.02)
"""For those who never answer."""
IMPATIENT = Patience(answer_s=0.3, delay_s=0.01, delay_most_s=0.02, gone_s=60.0)
WELCOME = json.dumps({"type": "welcome", "welcome": {}})


async def refused(url: str, patience: Patience = STEADY) -> SignallingError:
    """What entering a room ends with."""
    with pytest.raises(SignallingError) as raised:
        await wait_in_room(url, patience)
    assert url in str(raised.value)
    return raised.value


async def wait_in_room(url: str, patience: Patience) -> None:
    async with mailbox(url, url, patience=patience) as signaller:
        await signaller.enter("7")
        await signaller.receive()


async def test_nobody_there(ports: tuple[int, int]) -> None:
    error = await refused(f"ws://127.0.0.1:{ports[0]}/v1", FICKLE)
    assert isinstance(error, RendezvousUnreachable)
    assert "Connection refused" in str(error)
    assert "proxy" not in str(error)


async def test_a_proxy_that_the_environment_names_is_told_without_its_password(
    ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", f"http://alice:secret@127.0.0.1:{ports[0]}")
    error = str(await refused("ws://203.0.113.1:4000/v1", FICKLE))
    assert f"ws://203.0.113.1:4000/v1 through the proxy http://127.0.0.1:{ports[0]}, which the environment" in error
    assert "secret" not in error
    monkeypatch.setenv("http_proxy", "none")
    assert "a proxy, which the environment names and which is none" in str(await refused("ws://203.0.113.1/v1", FICKLE))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00" * 300_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000,
    ],
    ids=["nothing", "ssh", "zeros", "a page", "no page", "half a handshake", "headers"],
)
async def test_who_is_no_web_socket_is_unreachable(data: bytes) -> None:
    async with talker(data) as url:
        assert isinstance(await refused(url, QUICK), RendezvousUnreachable)


@pytest.mark.parametrize("said", ["hello", "[]", b"\xff\x00", '{"type": "claimed", "mailbox": "m"}', WELCOME * 2, "{"])
async def test_who_says_something_else_is_no_rendezvous(said: str | bytes) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send(said)
        await connection.wait_closed()

    async with mailbox_of(handler) as url:
        assert "is no rendezvous" in str(await refused(url))


async def test_nobody_is_sent_on_to_another_host() -> None:
    asked = asyncio.Event()

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        writer.close()

    async with await asyncio.start_server(elsewhere, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()[:2]
        head = f"HTTP/1.1 302 Found\r\nLocation: ws://{host}:{port}/admin\r\nContent-Length: 0\r\n\r\n"
        async with talker(head.encode()) as url:
            assert "302" in str(await refused(url, QUICK))
    assert not asked.is_set()


async def test_an_announced_gibibyte_takes_no_memory() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send(WELCOME)
        connection.transport.write(b"\x81\x7f" + (1 << 30).to_bytes(8, "big") + b"x" * 65_536)
        await connection.wait_closed()

    async with mailbox_of(handler) as url:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert "more than a message can have" in str(await refused(url))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.mark.parametrize("last", [None, {"type": "error"}, {"type": "error", "error": None}])
async def test_a_server_that_ends_it_without_a_reason_is_told_as_that(last: dict[str, object] | None) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send(WELCOME)
        if last is not None:
            await connection.send(json.dumps(last))
        await connection.close(CloseCode.POLICY_VIOLATION)

    async with mailbox_of(handler) as url:
        assert str(await refused(url)).endswith("ended the connection: it says no reason")


async def test_parts_without_end_are_ended() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send(WELCOME)
        connection.transport.write(b"\x01\x7e\xff\xff" + b"x" * 65_535)
        for _ in range(8):
            connection.transport.write(b"\x00\x7e\xff\xff" + b"x" * 65_535)
        await connection.wait_closed()

    async with mailbox_of(handler) as url:
        assert "more than a message can have" in str(await refused(url))


@pytest.mark.parametrize("said", [[], [WELCOME]], ids=["at once", "after its welcome"])
async def test_a_server_that_stalls_is_given_up(said: list[str]) -> None:
    async def handler(connection: ServerConnection) -> None:
        for each in said:
            await connection.send(each)
        await connection.wait_closed()

    async with mailbox_of(handler) as url:
        assert "no answer within" in str(await refused(url, QUICK))


@pytest.mark.parametrize("code", [1008, 1009])
async def test_who_is_shown_the_door_does_not_come_again(code: int) -> None:
    connections = 0

    async def handler(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await connection.send(WELCOME)
        await connection.close(code, "too \x1b many")

    async with mailbox_of(handler) as url:
        assert r"too \x1b many" in str(await refused(url))
    assert connections == 1


async def test_a_server_that_says_it_goes_down_is_waited_for() -> None:
    async with serve("127.0.0.1", 0, stun_ports=None) as first:
        url, port = first.url, first.port
        one = Mailbox(url, url, tls=None, proxied=False, patience=STEADY)
        await one.begin()
        room = await one.allocate()
        await one.enter(room)
        await one.send("before", b"1")
    async with serve("127.0.0.1", port, stun_ports=None):
        async with mailbox(url, url, patience=STEADY) as other:
            await other.enter(room)
            assert await other.receive() == Message("before", b"1")
            await other.send("after", b"2")
            assert await one.receive() == Message("after", b"2")
        await one.close(Mood.HAPPY)


def as_it_is(message: dict[str, Any]) -> Iterable[dict[str, Any]]:
    return [message]


async def test_a_lost_network_loses_no_message_and_repeats_none() -> None:
    middle = Middle(as_it_is)
    async with (
        serve("127.0.0.1", 0, stun_ports=None) as server,
        middle.before(server.url) as url,
        mailbox(url, url, patience=STEADY) as one,
        mailbox(server.url, url, patience=STEADY) as other,
    ):
        room = await one.allocate()
        await one.enter(room)
        await other.enter(room)
        for number in range(5):
            await one.send(f"one {number}", b"")
            middle.cut()
            await other.send(f"other {number}", b"")
            assert await other.receive() == Message(f"one {number}", b"")
            assert await one.receive() == Message(f"other {number}", b"")
    assert middle.connections > 1


class Replays:
    """Each message again, and all before it, in the reverse order."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def __call__(self, message: dict[str, Any]) -> Iterable[dict[str, Any]]:
        if message["type"] != "message":
            return [message]
        self.messages.append(message)
        return [*reversed(self.messages), *self.messages]


class Drops:
    """The first two messages: echoes, which tell that the server has one."""

    def __init__(self) -> None:
        self.left = 2

    def __call__(self, message: dict[str, Any]) -> Iterable[dict[str, Any]]:
        if message["type"] == "message" and self.left:
            self.left -= 1
            return []
        return [message]


class Doubles:
    """Answers and all."""

    def __call__(self, message: dict[str, Any]) -> Iterable[dict[str, Any]]:
        return [message] if message["type"] == "welcome" else [message, message]


@pytest.mark.parametrize("kind", [Replays, Doubles, Drops])
async def test_what_comes_twice_or_not_at_all_comes_once(kind: type[Replays | Doubles | Drops]) -> None:
    middle = Middle(kind())
    async with (
        serve("127.0.0.1", 0, stun_ports=None) as server,
        middle.before(server.url) as url,
        mailbox(url, url, patience=IMPATIENT) as one,
        mailbox(server.url, url, patience=IMPATIENT) as other,
    ):
        room = await one.allocate()
        await one.enter(room)
        await other.enter(room)
        for number in range(3):
            await one.send(str(number), b"")
        assert {(await other.receive()).phase for _ in range(3)} == {"0", "1", "2"}
        for number in range(3):
            await other.send(str(number), b"")
        assert {(await one.receive()).phase for _ in range(3)} == {"0", "1", "2"}
        await other.send("end", b"")
        assert await one.receive() == Message("end", b"")
        await one.send("end", b"")
        assert await other.receive() == Message("end", b"")


async def test_a_server_that_lets_in_and_takes_no_message_is_given_up() -> None:
    """As over a path that loses all long packets: each connection comes up, and what it is for never gets there."""
    middle = Middle(lambda message: [] if message["type"] == "message" else [message])
    async with (
        serve("127.0.0.1", 0, stun_ports=None) as server,
        middle.before(server.url) as url,
        mailbox(url, url, patience=QUICK) as one,
    ):
        await one.enter(await one.allocate())
        await one.send("first", b"")
        with pytest.raises(RendezvousUnreachable, match=r"no answer within 200 ms, though something was asked \(short"):
            await one.receive()
    assert middle.connections > 2


async def test_a_stamp_is_made_where_it_is_asked_for() -> None:
    stamps = asyncio.Queue[str]()

    async def handler(connection: ServerConnection) -> None:
        required = {"tea": {}, "hashcash": {"bits": 8, "resource": "r"}}
        await connection.send(json.dumps({"type": "welcome", "welcome": {"permission-required": required}}))
        permission = json.loads(await connection.recv())
        assert (permission["type"], permission["method"]) == ("submit-permissions", "hashcash")
        stamps.put_nowait(permission["stamp"])
        assert json.loads(await connection.recv())["type"] == "bind"
        await connection.wait_closed()

    async with mailbox_of(handler) as url, mailbox(url, url, patience=STEADY):
        assert zero_bits(hashlib.sha1((await stamps.get()).encode()).digest()) >= 8


async def test_what_the_server_says_of_itself_is_there_at_once() -> None:
    async with (
        serve("127.0.0.1", 0, motd="Hello.", stun_ports=(0, 0)) as server,
        mailbox(server.url, server.url) as signaller,
    ):
        assert signaller.welcome.motd == "Hello."
        assert [each.host for each in signaller.welcome.stun] == ["127.0.0.1"]
