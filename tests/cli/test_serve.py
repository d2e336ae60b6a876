"""`simopen serve`, as it is typed."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from simopen.cli.main import main
from tests.loops import ONE_LOOP
from tests.signalling.clients import bound

CERTIFICATE = Path(__file__).parents[1] / "certificate.pem"


async def serve(*arguments: str) -> Process:
    command = (sys.executable, "-m", "simopen", "serve", "--host", "127.0.0.1", "--port", "0", *arguments)
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)


async def told(process: Process) -> dict[str, object]:
    assert process.stdout is not None
    return dict(json.loads(await process.stdout.readline()))


@ONE_LOOP
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
async def test_a_signal_ends_it_and_those_who_wait_are_told(number: int, status: int) -> None:
    process = await serve("--json", "--stun-ports", "0,0", "--motd", "be kind")
    client = await bound(str((await told(process))["url"]), "one")
    await client.enter("4")
    process.send_signal(number)
    assert "shutting down" in (await client.hear("error"))["error"]
    await process.communicate()
    assert process.returncode == status


@ONE_LOOP
async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await serve("--no-stun", "--port", str(port))
        _, errors = await process.communicate()
    said = errors.decode()
    assert process.returncode == 1
    assert f"127.0.0.1:{port}" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("--certificate", "nosuch.pem"),
        ("--key", "nosuch.pem"),
        ("--certificate", __file__),
        ("--limit", "nosuch=1"),
        ("--limit", "connections=0"),
        ("--limit", "connections=nan"),
        ("--stun-address", "name.example"),
        ("--stun-ports", "3478"),
        ("--host", "name.example"),
        ("--metrics", "127.0.0.1"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = main(["serve", "--host", "127.0.0.1", "--port", "0", "--no-stun", *arguments])
    except SystemExit as end:  # of what the parser refuses
        status = end.code
    said = capsys.readouterr().err
    assert (status, "bug" in said) == (2, False), said
    assert said.strip()


@ONE_LOOP
async def test_with_all_that_it_has(tmp_path: Path) -> None:
    options = ("--certificate", str(CERTIFICATE), "--state", str(tmp_path / "state"), "--metrics", "0")
    process = await serve("--json", "--no-stun", *options, "--limit", "ping_s=5", "--limit", "connections=10")
    said = await told(process)
    assert str(said["url"]).startswith("wss://127.0.0.1:")
    assert str(said["metrics"]).startswith("127.0.0.1:")
    process.terminate()
    await process.communicate()
    assert process.returncode == 143
