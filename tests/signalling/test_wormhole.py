"""magic-wormhole's own client, `wormhole send` and `wormhole receive`, through our server."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

import pytest

from simopen.signalling.server import serve

WORMHOLE = Path(sys.executable).with_name("wormhole")
pytestmark = [
    pytest.mark.real_server,
    pytest.mark.skipif(not WORMHOLE.exists(), reason="magic-wormhole is not here: pip install magic-wormhole"),
]
NOWHERE = "tcp:127.0.0.1:9"  # the two are on one host: they connect directly, and need no relay


async def wormhole(url: str, *arguments: str, cwd: Path | None = None) -> Process:
    options = ("--relay-url", url, "--transit-helper", NOWHERE)
    return await asyncio.create_subprocess_exec(
        str(WORMHOLE), *options, *arguments, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, cwd=cwd
    )


async def ended(process: Process) -> str:
    """What it wrote to standard output, once it has ended well."""
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def code_of(sending: Process) -> str:
    """The code that it says is to be typed at the other side."""
    assert sending.stderr is not None
    while "code is" not in (line := (await sending.stderr.readline()).decode()):
        assert line, "it ended without a code"
    return line.split()[-1]


async def test_a_text_passes() -> None:
    async with serve("127.0.0.1", 0, stun_ports=None) as server:
        sending = await wormhole(server.url, "send", "--no-qr", "--code", "7-guitar-x", "--text", "hello there")
        receiving = await wormhole(server.url, "receive", "7-guitar-x")
        _, received = await asyncio.gather(ended(sending), ended(receiving))
    assert received == "hello there\n"


async def test_a_file_passes_by_a_code_that_the_server_gave(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40
    (tmp_path / "sent").write_bytes(data)
    async with serve("127.0.0.1", 0, stun_ports=None) as server:
        sending = await wormhole(server.url, "send", "--no-qr", str(tmp_path / "sent"))
        code = await code_of(sending)
        receiving = await wormhole(server.url, "receive", "--accept-file", "-o", "got", code, cwd=tmp_path)
        await asyncio.gather(ended(sending), ended(receiving))
    assert (tmp_path / "got").read_bytes() == data
