"""The page on codes: its programs meet, through a server of ours."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import simopen
from simopen.rendezvous import backoff
from simopen.rendezvous import session as sessions
from tests.docs.blocks import ROOT, run_by

PROGRAM, SECRET, SESSION = (block.text for block in run_by("by code"))


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


async def test_the_program_that_remembers_meets_itself_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    async with asyncio.timeout(60), simopen.serve("127.0.0.1", 0, stun_ports=(0, 0)) as server:
        names: dict[str, Any] = {}
        exec(SESSION.replace("127.0.0.1:4000", f"127.0.0.1:{server.port}"), names)
        await asyncio.gather(*(names["first"]("7-croissant-zucchini", each) for each in ("laptop", "desk")))
        await asyncio.gather(*map(names["later"], ("laptop", "desk")))
    told = capsys.readouterr().out
    assert "laptop is here" in told
    assert "desk is here" in told


def test_its_seconds_are_the_codes() -> None:
    text = " ".join((ROOT / "docs" / "codes.md").read_text(encoding="utf-8").split())
    noticed_s = sessions.KEEPALIVE_S + sessions.USER_TIMEOUT_S + sessions.Session.LOOK_S  # idle; unanswered; looked at
    assert f"noticed within {noticed_s:g} s" in text
    assert f"of {backoff.FIRST_S:g} s at most at first and of {backoff.MOST_S:g} s later" in text
