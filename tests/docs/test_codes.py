"""The page on codes: its programs meet, through a server of ours."""

from __future__ import annotations

import asyncio

import pytest

import simopen
from tests.docs.blocks import run_by

PROGRAM, SECRET = (block.text for block in run_by("by code"))


async def test_the_program_meets_itself(capsys: pytest.CaptureFixture[str]) -> None:
    async with asyncio.timeout(60), simopen.serve("127.0.0.1", 0, stun_ports=(0, 0)) as server:
        names: dict[str, object] = {}
        exec(PROGRAM.replace("127.0.0.1:4000", f"127.0.0.1:{server.port}"), names)
        code: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def takes() -> None:
            await names["takes"](await code)  # type: ignore[operator]

        await asyncio.gather(names["makes"](code.set_result), takes())  # type: ignore[operator]
    assert "hello" in capsys.readouterr().out


async def test_the_program_with_a_secret_meets_itself() -> None:
    async with asyncio.timeout(60), simopen.serve("127.0.0.1", 0, stun_ports=(0, 0)) as server:
        names: dict[str, object] = {}
        exec(SECRET.replace("wss://rendezvous.example.org", f"ws://127.0.0.1:{server.port}"), names)
        key = simopen.new_key()
        ended = await asyncio.gather(*(names["nightly"](key) for _ in range(2)))  # type: ignore[operator]
        for _, writer in ended:
            writer.transport.abort()
