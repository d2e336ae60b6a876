"""The page on codes: its programs meet, through a server of ours."""

from __future__ import annotations

import asyncio
import re

import pytest

import simopen
from tests.docs.blocks import ROOT

TEXT = (ROOT / "docs" / "codes.md").read_text(encoding="utf-8")
PROGRAM = re.search(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


async def test_the_program_meets_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert PROGRAM is not None
    async with asyncio.timeout(60), simopen.serve("127.0.0.1", 0, stun_ports=(0, 0)) as server:
        names: dict[str, object] = {}
        exec(PROGRAM[1].replace("127.0.0.1:4000", f"127.0.0.1:{server.port}"), names)
        code: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def takes() -> None:
            await names["takes"](await code)  # type: ignore[operator]

        await asyncio.gather(names["makes"](code.set_result), takes())  # type: ignore[operator]
    assert "hello" in capsys.readouterr().out
