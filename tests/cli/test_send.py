"""`simopen send` and `receive`, two commands through a rendezvous of ours; and what is said of what is offered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import simopen
from simopen.apps.transfer.messages import VERSION, Offer
from simopen.cli import interrupts
from simopen.cli.main import main
from simopen.cli.receive import _told_first
from simopen.cli.send import described, moved
from tests.loops import ONE_LOOP

ROOT = Path(__file__).parents[2]
LONG_S = 60
DATA = random.Random(4).randbytes(2_000_000)


@contextlib.asynccontextmanager
async def rendezvous() -> AsyncIterator[str]:
    async with asyncio.timeout(LONG_S), simopen.serve("127.0.0.1", 0, stun_ports=(0, 0)) as server:
        yield f"ws://127.0.0.1:{server.port}/v1"


async def started(home: Path, *words: str, **more: str) -> Process:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(home / "config"), "PYTHONPATH": str(ROOT), **more}
    command = [sys.executable, "-m", "simopen", *words]
    return await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, cwd=home
    )


async def code_of(command: Process) -> str:
    assert command.stderr is not None
    return str(json.loads(await command.stderr.readline())["code"])


async def ended(command: Process, given: bytes | None = None) -> tuple[int | None, bytes, str]:
    out, said = await command.communicate(given)
    assert b"Traceback" not in said
    return command.returncode, out, said.decode()


async def waits(pid: int) -> None:
    """Until its main thread has been in one system call for a while."""
    seen, call = list[str](), Path(f"/proc/{pid}/syscall").read_text
    while len(seen) < 3 or len(set(seen[-3:])) > 1 or seen[-1].startswith("running"):
        await asyncio.sleep(0.1)
        seen.append(call())


@ONE_LOOP
async def test_a_file_and_a_folder_cross(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    (tmp_path / "x.bin").write_bytes(DATA)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "y").write_bytes(b"y")
    async with rendezvous() as via:
        sender = await started(tmp_path, "send", "--json", "--via", via, "x.bin", "d")
        receiver = await started(
            tmp_path, "receive", "--yes", "--into", "into", "--via", via, SIMOPEN_CODE=await code_of(sender)
        )
        sent, received = await asyncio.gather(ended(sender), ended(receiver))
    assert sent[0] == received[0] == 0, (sent, received)
    assert json.loads(sent[2])["sent"] == ["x.bin", "d"]
    assert (tmp_path / "into" / "x.bin").read_bytes() == DATA
    assert (tmp_path / "into" / "d" / "y").read_bytes() == b"y"
    assert sorted(os.listdir(tmp_path / "into")) == ["d", "x.bin"]
    assert "proven: the one who has the same code" in received[2]


@ONE_LOOP
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "words", [["send", "--text", "-"], ["receive", "--yes", "--code-fd", "0"], ["pipe", "--secret-file", "fifo", "x"]]
)
async def test_one_signal_ends_who_waits_for_a_pipe(tmp_path: Path, words: list[str], number: signal.Signals) -> None:
    os.mkfifo(tmp_path / "fifo")
    command = await started(tmp_path, *words, "--via", "ws://127.0.0.1:1/v1")
    await waits(command.pid)
    command.send_signal(number)
    async with asyncio.timeout(10):
        assert await command.wait() == 128 + number
    assert command.stdin is not None
    command.stdin.close()
    assert (await ended(command))[2] == f"simopen: {interrupts.WORDS[number]}; everything is closed\n"


@ONE_LOOP
@pytest.mark.parametrize(("given", "why"), [(b"caf\xe9 \xff", "not UTF-8"), (b"x" * 70_000, "64 KiB at most")])
async def test_a_text_that_is_none_is_not_sent(tmp_path: Path, given: bytes, why: str) -> None:
    status, _, said = await ended(await started(tmp_path, "send", "--text", "-", "--via", "ws://127.0.0.1:1/v1"), given)
    assert status == 1
    assert why in said


@ONE_LOOP
async def test_a_text_without_end_is_not_read_to_it(tmp_path: Path) -> None:
    command = await started(tmp_path, "send", "--text", "-", "--via", "ws://127.0.0.1:1/v1")
    assert command.stdin is not None
    with contextlib.suppress(ConnectionError):
        for _ in range(2_000):
            command.stdin.write(bytes(2**16))
            await command.stdin.drain()
    assert await command.wait() == 1, "it does not wait for the end"
    assert command.stderr is not None
    assert b"64 KiB at most" in await command.stderr.read()


@ONE_LOOP
async def test_a_text_is_printed(tmp_path: Path) -> None:
    async with rendezvous() as via:
        sender = await started(tmp_path, "send", "--json", "--text", "-", "--via", via)
        assert sender.stdin is not None
        sender.stdin.write("grüße\n".encode())
        sender.stdin.close()
        receiver = await started(tmp_path, "receive", "--yes", "--via", via, await code_of(sender))
        sent, received = await asyncio.gather(ended(sender), ended(receiver))
    assert (sent[0], received[0], received[1].decode()) == (0, 0, "grüße\n\n")


@ONE_LOOP
async def test_who_is_terminated_tells_the_other_and_nothing_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    async with rendezvous() as via:
        sender = await started(tmp_path, "send", "--json", "--via", via, "-")
        receiver = await started(tmp_path, "receive", "--yes", "--into", "into", "--via", via, await code_of(sender))
        assert sender.stdin is not None
        sender.stdin.write(DATA)
        await sender.stdin.drain()
        while not any(each.stat().st_size for each in (tmp_path / "into").rglob("stdin")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        sender.terminate()
        sent, received = await asyncio.gather(ended(sender), ended(receiver))
        assert (sent[0], received[0]) == (143, 1)
        assert "interrupted" in received[2]
        assert "is kept in" in received[2]
        assert [each.name for each in (tmp_path / "into").iterdir() if not each.name.startswith(".")] == []


@ONE_LOOP
async def test_nothing_is_overwritten_and_both_are_told(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    (tmp_path / "x").write_bytes(b"new")
    (tmp_path / "into" / "x").write_bytes(b"old")
    async with rendezvous() as via:
        sender = await started(tmp_path, "send", "--json", "--via", via, "x")
        receiver = await started(tmp_path, "receive", "--yes", "--into", "into", "--via", via, await code_of(sender))
        sent, received = await asyncio.gather(ended(sender), ended(receiver))
    assert sent[0] == received[0] == 1
    assert "exists already" in sent[2]
    assert "exists already" in received[2]
    assert (tmp_path / "into" / "x").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["send"], 2, "name a file"),
        (["send", "x", "--text", "y"], 2, "not both"),
        (["send", "nothing-there"], 1, "cannot read"),
        (["send", "nothing-there", "--via", "ws://127.0.0.1:99999/v1"], 2, "the port must lie between"),
        (["send", "nothing-there", "@nobody"], 2, "no peer is known here as nobody"),
        (["send", "/dev/null"], 1, "no file and no folder"),
        (["send", "--words", "99", "x"], 2, "words"),
        (["receive", "7-croissant-zucchini"], 2, "--yes"),
        (["receive", "--yes", "--into", "nowhere", "7-croissant-zucchini"], 2, "no folder"),
        (["receive", "--yes", "--into", "/proc/self", "7-croissant-zucchini"], 2, "cannot write"),
        (["receive", "--yes", "--via", "ws://127.0.0.1:1/v1"], 2, "terminal"),
        (["receive", "--yes", "--via", "ws://127.0.0.1:1/v1", "croissant"], 2, "number"),
        (["pipe", "--to", "nowhere", "7-croissant-zucchini"], 2, "HOST:PORT"),
        (["pipe", "--to", "a:1", "--listen", "2"], 2, "not allowed with"),
        (["pipe", "--listen", "0"], 2, "port"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    returned, told = typed(words, capsys, monkeypatch)
    assert returned == status, told
    assert said in told


def typed(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[object, str]:
    """In this process, where nobody is asked: the status, and what is said."""
    monkeypatch.setenv("SIMOPEN_VIA", "")
    try:
        status: object = main(words)
    except SystemExit as end:
        status = end.code
    return status, capsys.readouterr().err


def offer(*names: str, files: int = 1, folders: int = 0, size: int | None = 21_000_000) -> Offer:
    return Offer(VERSION, names, files, folders, size)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (offer("x.pdf"), "file x.pdf (21.0 MB)"),
        (offer("stdin", size=None), "file stdin (of unknown size)"),
        (offer("d", files=1, folders=1, size=7), "folder d (1 file, 7 B)"),
        (offer("d", files=12_000, folders=3), "folder d (12,000 files, 21.0 MB)"),
        (
            offer(f"x.pdf{' ' * 200}.desktop", size=7),
            f"file x.pdf{' ' * 71} ...{' ' * 32}.desktop (7 B)",
        ),
        (offer("d", files=0, folders=10**6, size=0), "folder d (0 files in 1,000,000 folders, 0 B)"),
        (offer("a", "b", files=2), "2 things, a, b (2 files, 21.0 MB)"),
        (Offer(VERSION, (), 0, 0, 0, "x"), "a text"),
    ],
)
def test_an_offer_in_words(what: Offer, told: str) -> None:
    assert described(what) == told


def test_a_hidden_name_among_many_is_shown_to_whoever_is_asked() -> None:
    assert _told_first(("a", "b", ".bash_logout", "c")) == [".bash_logout", "a", "b", "c"]


def test_how_fast_it_was() -> None:
    assert moved(10_000_000, 0, 2.0) == "2.0 s (5.0 MB/s)"
    assert moved(10_000_000, 4_000_000, 2.0) == "2.0 s (3.0 MB/s; 4.0 MB of it were there already)"
