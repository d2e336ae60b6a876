"""A rendezvous server, spoken to over WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sqlite3
import ssl
import struct
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

import simopen
from simopen.errors import LocalEndpointError
from simopen.signalling.server import serve
from simopen.signalling.server_limits import Limits
from simopen.signalling.server_store import Store
from tests.signalling.clients import APP, Client, bound, ended

CERTIFICATE = Path(__file__).parents[1] / "certificate.pem"
HERE = "127.0.0.1"


def served(**options: Any) -> Any:
    """On loopback, at a free port, without STUN."""
    return serve(HERE, 0, stun_ports=None, **options)


async def all_of(client: Client) -> list[str]:
    """The kinds of all messages until the server hung up."""
    heard = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            heard.append(str((await client.hear())["type"]))
    return heard


async def test_two_sides_hear_each_other() -> None:
    async with served() as server:
        one, other = await bound(server.url, "one"), await bound(server.url, "other")
        nameplate = (await one.ask("allocate", "allocated"))["nameplate"]
        assert await one.enter(nameplate) == await other.enter(nameplate)
        await one.say("add", phase="pake", body="00ff", id="x")
        for client in (one, other):
            message = await client.hear("message")
            assert (message["side"], message["phase"], message["body"], message["id"]) == ("one", "pake", "00ff", "x")


async def test_a_message_in_many_fragments_is_one() -> None:
    async with served() as server:
        client = await bound(server.url, "one")
        await client.connection.send(['{"type":', '"ping"', "", ',"ping"', ":9}"])
        assert (await client.hear("pong"))["pong"] == 9


async def test_over_tls() -> None:
    tls, trusting = in_tls()
    async with served(tls=tls) as server:
        assert server.url.startswith("wss://")
        client = await bound(server.url, "one", ssl=trusting)
        assert (await client.ask("ping", "pong", ping=1))["pong"] == 1
        reader, writer = await asyncio.open_connection(HERE, server.port)
        writer.write(b"GET /v1 HTTP/1.1\r\n\r\n")  # no TLS: it is let go, and nobody else hears of it
        await ended(reader)
        writer.close()
        assert (await client.ask("ping", "pong", ping=2))["pong"] == 2


async def test_those_who_wait_are_told_that_it_ends() -> None:
    async with served() as server:
        client = await bound(server.url, "one")
        await client.enter("4")
    assert "shutting down" in (await client.hear("error"))["error"]
    with pytest.raises(ConnectionClosed) as closed:
        await client.hear()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


async def test_rooms_live_through_a_restart_where_there_is_a_file(tmp_path: Path) -> None:
    async with served(state=tmp_path / "state") as server:
        one = await bound(server.url, "one")
        nameplate = (await one.ask("allocate", "allocated"))["nameplate"]
        mailbox = await one.enter(nameplate)
        await one.say("add", phase="pake", body="aa")
        await one.hear("message")
    with pytest.raises(ConnectionClosed, match="keeps its rooms"):
        await one.hear()
    async with served(state=tmp_path / "state") as server:
        other = await bound(server.url, "other")
        assert await other.enter(nameplate) == mailbox
        assert (await other.hear("message"))["body"] == "aa"


UPGRADE = (
    b"GET /v1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(kind: str, **values: object) -> bytes:
    """One command, as a client sends it."""
    return Frame(Opcode.TEXT, json.dumps({"type": kind, **values}).encode()).serialize(mask=True)


async def test_a_waiter_that_vanished_is_noticed_and_its_user_let_in_again() -> None:
    """It has closed its lid: no FIN comes, and no pong."""
    async with served(limits=Limits(ping_s=1.0)) as server:
        reader, writer = await asyncio.open_connection(HERE, server.port)
        writer.write(UPGRADE + frame("bind", appid=APP, side="one") + frame("claim", nameplate="4"))
        again, other = await bound(server.url, "one again"), await bound(server.url, "other")
        assert b"claimed" in await ended(reader), "it has its place until it is missed"
        await again.enter("4")
        await other.enter("4")
        assert (await (await bound(server.url, "third")).ask("claim", "error", nameplate="4"))["error"] == "crowded"
        writer.close()


async def test_ten_thousand_bytes_of_nothing_and_those_who_say_nothing_are_let_go() -> None:
    """Mute ones, one that sends its request byte by byte, and one that never says who it is."""
    async with served(limits=Limits(handshake_s=1.5, bind_s=1.5, ping_s=1.5)) as server:
        mute = [await asyncio.open_connection(HERE, server.port) for _ in range(20)]
        slow, writer = await asyncio.open_connection(HERE, server.port)
        writer.write(b"GET /v1 HTTP/1.1\r\nX: ")
        nobody = await connect(server.url, compression=None)
        for reader, _ in mute:
            assert await ended(reader) == b""
        assert b"101" not in await ended(slow)
        assert await all_of(Client(nobody)) == ["welcome"]
        assert nobody.close_reason == "no bind came"
        for _, each in [*mute, (slow, writer)]:
            each.close()
        assert (await (await bound(server.url, "one")).ask("ping", "pong", ping=1))["pong"] == 1


async def test_mute_connections_keep_nobody_out() -> None:
    """The oldest of them makes room, for others at the same address, too."""
    async with served(limits=Limits(connections_an_address=5)) as server:
        crowd = [await asyncio.open_connection(HERE, server.port) for _ in range(8)]
        for reader, _ in crowd[:3]:
            assert await ended(reader) == b""
        one, other = await bound(server.url, "one"), await bound(server.url, "other")
        assert await one.enter("4") == await other.enter("4")
        for _, writer in crowd:
            writer.close()


async def test_a_full_server_lets_the_oldest_mute_one_go_whosever_it_is() -> None:
    async with serve((HERE, "127.0.0.2"), 0, stun_ports=None, limits=Limits(connections=5)) as server:
        crowd = [await asyncio.open_connection("127.0.0.2", server.port, local_addr=("127.0.0.2", 0)) for _ in range(5)]
        client = await bound(server.url, "one")
        assert await ended(crowd[0][0]) == b""
        assert (await client.ask("ping", "pong", ping=1))["pong"] == 1
        for _, writer in crowd:
            writer.close()


async def test_too_many_of_one_address_are_turned_away_and_those_of_another_are_not() -> None:
    async with serve((HERE, "127.0.0.2"), 0, stun_ports=None, limits=Limits(connections_an_address=3)) as server:
        for number in range(3):
            await bound(server.url, f"{number}")
        reader, writer = await asyncio.open_connection(HERE, server.port)
        assert await ended(reader) == b""
        writer.close()
        client = await bound(f"ws://127.0.0.2:{server.port}/v1", "one", local_addr=("127.0.0.2", 0))
        assert (await client.ask("ping", "pong", ping=1))["pong"] == 1


async def test_connections_that_have_ended_are_not_remembered() -> None:
    async with served() as server:
        for _ in range(1_500):
            with socket.create_connection((HERE, server.port)) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await asyncio.sleep(0)
        client = await bound(server.url, "one")
        await client.enter("7")
        assert len(server._agenda) < 1_100


async def test_a_side_that_connects_anew_has_one_connection() -> None:
    """The former is lost, and its client does not know: by many of them one address could fill the memory."""
    async with served() as server:
        former, anew, peer = [await bound(server.url, side) for side in ("one", "one", "peer")]
        assert await former.enter("7") == await anew.enter("7") == await peer.enter("7")
        assert await all_of(former) == []
        await peer.say("add", phase="pake", body="00")
        assert (await anew.hear("message"))["side"] == "peer"


async def test_who_does_not_read_is_let_go() -> None:
    async with served(limits=Limits(unread_bytes=100_000, room_bytes=50_000_000, bytes_at_once=50_000_000)) as server:
        deaf, one = await bound(server.url, "deaf"), await bound(server.url, "one")
        await deaf.enter("4")
        await one.enter("4")
        deaf.connection.transport.pause_reading()
        for number in range(400):
            await one.say("add", phase=str(number), body="00" * 25_000)
            await one.hear("message")
        deaf.connection.transport.resume_reading()
        assert len(await all_of(deaf)) < 400


async def test_a_message_that_is_too_long_ends_the_connection() -> None:
    async with served() as server:
        client = await bound(server.url, "one")
        await client.say("add", phase="p", body="00" * 140_000)
        with pytest.raises(ConnectionClosed) as closed:
            await client.hear()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_who_floods_is_slowed_down_and_loses_nothing() -> None:
    async with served(limits=Limits(bytes_at_once=20_000, bytes_a_second=200_000)) as server:
        client = await bound(server.url, "one")
        await client.enter("4")
        for number in range(10):
            await client.say("add", phase=str(number), body="00" * 3_000)
        assert [(await client.hear("message"))["phase"] for _ in range(10)] == [str(number) for number in range(10)]


PING = bytes((0x89, 0x80, 0, 0, 0, 0))
EMPTY = bytes((0x01, 0x80, 0, 0, 0, 0))


@pytest.mark.parametrize("frame", [PING, EMPTY, bytes((0x00, *EMPTY[1:]))])
async def test_frames_of_nothing_are_counted_too_and_hold_up_nobody(frame: bytes) -> None:
    limits = Limits(bytes_at_once_an_address=100_000, bytes_a_second_an_address=20_000)
    async with serve((HERE, "127.0.0.2"), 0, stun_ports=None, limits=limits) as server:
        crowd = [await connect(server.url.replace(HERE, "127.0.0.2"), local_addr=("127.0.0.2", 0)) for _ in range(4)]
        honest = await bound(server.url, "honest")
        for each in crowd:
            each.transport.write(frame * 40_000)
        began_s = asyncio.get_running_loop().time()
        for number in range(20):
            assert (await honest.ask("ping", "pong", ping=number))["pong"] == number
        assert asyncio.get_running_loop().time() - began_s < 5
        for each in crowd:
            each.transport.abort()


async def test_of_pings_none_is_lost_that_waited_for_its_turn() -> None:
    limits = Limits(bytes_at_once=40_000, bytes_a_second=4_000_000)
    async with served(limits=limits) as server, connect(server.url) as client:
        await client.recv()
        waiting = [await client.ping(str(number)) for number in range(2_000)]
        await asyncio.gather(*waiting)


def in_tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, and what trusts it."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE)
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    trusting.check_hostname = False
    return tls, trusting


async def test_handshakes_that_are_not_gone_on_with_keep_nobody_out() -> None:
    tls, trusting = in_tls()
    async with serve((HERE, "127.0.0.2", "127.0.0.3"), 0, stun_ports=None, tls=tls) as server:
        crowd = [
            await asyncio.open_connection(host, server.port, local_addr=(host, 0))
            for _ in range(200)
            for host in ("127.0.0.2", "127.0.0.3")
        ]
        for _, writer in crowd:
            writer.write(b"\x16")
        async with asyncio.timeout(8):  # its own turn would come after ten
            client = await bound(server.url, "one", ssl=trusting)
            assert (await client.ask("ping", "pong", ping=1))["pong"] == 1
        for _, writer in crowd:
            writer.close()


@pytest.mark.parametrize("count", [1, 40])
async def test_each_step_of_a_beginning_has_its_time_and_no_more(count: int) -> None:
    """The first byte late, TLS later, and no request: or no turn for TLS at all."""
    tls, trusting = in_tls()
    async with served(tls=tls, limits=Limits(handshake_s=2.0)) as server:
        late = [await asyncio.open_connection(HERE, server.port) for _ in range(count)]
        await asyncio.sleep(1.0)
        if count == 1:
            await late[0][1].start_tls(trusting)
        else:
            for _, writer in late:
                writer.write(b"\x16")
        async with asyncio.timeout(20):
            for reader, writer in late:
                await ended(reader)
                writer.close()
            while server._house.accounts.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/v2", 404), ("/v1", 426)])
async def test_what_a_browser_is_told(path: str, status: int) -> None:
    async with served() as server:
        reader, writer = await asyncio.open_connection(HERE, server.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (await reader.readline()).split()[1] == str(status).encode()
        await ended(reader)
        writer.close()


async def test_another_path_is_no_rendezvous() -> None:
    async with served() as server:
        with pytest.raises(InvalidStatus):
            await connect(server.url.replace("/v1", "/other"))


async def test_stun_is_served_where_the_server_is_and_nowhere_else() -> None:
    async with serve(HERE, 0, stun_ports=(0, 0)) as server:
        assert server.stun_ports is not None
        for port in server.stun_ports:
            with socket.create_connection((HERE, port)):
                pass
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.2", port))
    with pytest.raises(LocalEndpointError, match=r"192\.0\.2\.1: not all of that is this host's.*PUBLIC/LOCAL"):
        async with serve(HERE, 0, stun_ports=(0, 0), stun_addresses=["192.0.2.1"]):
            pass


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server((HERE, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalEndpointError, match=f"{HERE}:{port}"):
            async with serve(HERE, port, stun_ports=None):
                pass
        with pytest.raises(LocalEndpointError, match=f"{HERE}:{port}"):
            async with serve(HERE, 0, stun_ports=(port, 0), stun_addresses=[HERE]):
                pass


async def test_the_welcome_names_the_stun_servers_by_the_name_that_the_client_has() -> None:
    async with serve(HERE, 0, motd="be kind", stun_ports=(0, 0), stun_addresses=[HERE]) as server:
        client = await connect(f"ws://localhost:{server.port}/v1", compression=None)
        said = json.loads(await client.recv())["welcome"]
        assert server.stun_ports is not None
        assert said == {"motd": "be kind", "stun": [f"localhost:{server.stun_ports[0]}"]}
        profile = await simopen.discover(servers=[(HERE, server.stun_ports[0])])
        assert profile.mapping is simopen.Mapping.NONE
        await client.close()


async def test_where_the_disk_takes_nothing_that_is_said_once_and_all_is_written_in_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Store):
        is_full = True

        def write(self, changes: Any) -> None:
            if self.is_full:
                raise sqlite3.OperationalError("database or disk is full")
            super().write(changes)

        def write_anew(self, changes: Any) -> None:
            if self.is_full:
                raise sqlite3.OperationalError("database or disk is full")
            super().write_anew(changes)

    async with served(state=tmp_path / "other") as server:
        assert server._store is not None
        server._store.close()
        server._store = store = Full(tmp_path / "state")
        client = await bound(server.url, "one")
        for room in ("4", "5", "6"):
            await (await bound(server.url, f"of {room}")).enter(room)
        await client.enter("7")
        said = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
        assert sum("rooms cannot be kept for now" in each for each in said) == 1, said
        store.is_full = False
    store.close()
    with contextlib.closing(Store(tmp_path / "state")) as found:
        assert {"4", "5", "6", "7"} >= {str(room.nameplate) for room in found.rooms()} >= {"7"}


async def test_a_room_that_is_too_old_ends_and_whoever_waits_in_it_is_told() -> None:
    async with served(limits=Limits(room_s=1.5)) as server:
        client = await bound(server.url, "one")
        await client.enter("4")
        assert "too old" in (await client.hear("error"))["error"]


@pytest.mark.parametrize(
    "argument",
    [
        *({"port": port} for port in (10**400, -1, 65_536, float("nan"), True, "", None)),
        *({"stun_ports": ports} for ports in (5, "", (), (0,), (0, 10**400), (0, None))),
        *({"metrics": at} for at in (5, "", ("127.0.0.1",), ("127.0.0.1", 10**400))),
        *({"host": host} for host in (5, None, [5], "")),
        *({"stun_addresses": addresses} for addresses in (5, None, [5], [""])),
        *({"state": file} for file in (5, b"", True)),
        *({"limits": limits} for limits in (5, None, "")),
    ],
    ids=lambda argument: str(argument)[:40],
)
async def test_an_argument_of_no_sense_is_said_to_be_one(argument: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^.{10,300}$"):
        async with serve(**{"host": "127.0.0.1", "port": 0, "stun_ports": None, **argument}):
            pass
