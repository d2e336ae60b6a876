"""The page on other libraries: each program's two functions, over streams that are punched between two addresses."""

from __future__ import annotations

import asyncio
import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import simopen
from tests.docs.blocks import ROOT, Block, run_by
from tests.loopback import HERE, THERE, kept_ports, ports

__all__ = ["ports"]
KEY = bytes(range(32))
LONG_S = 50.0
PRINTED = {
    "asyncssh.run_server(\n        sock": "hello, alice: how are you?",
    "SFTPServer": "letter",
    "websockets": "HELLO",
    "class Clock": "heard b'tick'\nheard b'tock'",
    "set_protocol": "b'tick\\n'\nb'tock\\n'",
    "start_tls": "b'hello\\n' ((('commonName', 'simopen.test'),),)",
    "grpclib": "hello, Bob",
}
"""By what stands in a program: what its two sides print between them."""
BLOCKS = run_by("both ends")
pytestmark = pytest.mark.real_server  # real libraries: where CI lacks one, its page is not shown to be true


async def both(call: Callable[..., Any], ports: tuple[int, int], **options: Any) -> Any:
    """Both ends of one stream."""
    here, there = (HERE, ports[0]), (THERE, ports[1])
    given = {"clock": simopen.unchecked_clock(), **options}
    return await asyncio.gather(call(there, local=here, **given), call(here, local=there, **given))


async def ends(wanted: str, ports: tuple[int, int]) -> Any:
    """What the two functions are given, by their parameter's name as the page has it."""
    if wanted == "sock":
        return [sock for sock, _ in await both(simopen.punch, ports)]
    return await both(simopen.connect, ports, key={"stream": KEY, "plain": None}[wanted])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the keys, the certificate and the file that the programs name, as where a reader's program runs."""
    asyncssh = pytest.importorskip("asyncssh", reason="needs pip install '.[ssh]'")
    for name in ("host_key", "user_key"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(tmp_path / name)
        key.write_public_key(tmp_path / f"{name}.pub")
    shutil.copy(ROOT / "tests" / "certificate.pem", tmp_path)
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "letter").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_program_has_what_it_prints() -> None:
    assert len(BLOCKS) == len(PRINTED)
    assert {len(_printed(block)) for block in BLOCKS} == {1}


def _printed(block: Block) -> list[str]:
    return [words for mark, words in PRINTED.items() if mark in block.text]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
async def test_the_two_sides_talk(
    block: Block, folder: Path, ports: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    for module in re.findall(r"^(?:import|from) (\w+)", block.text, re.MULTILINE):
        pytest.importorskip(module)
    names: dict[str, Any] = {}
    with kept_ports() as free:
        exec(block.text.replace("50051", str(free[0])).replace("50052", str(free[1])), names)
        (wanted,) = inspect.signature(names["serves"]).parameters
        async with asyncio.timeout(LONG_S):
            one, other = await ends(wanted, ports)
            await asyncio.gather(names["serves"](one), names["asks"](other))
    assert _printed(block)[0] in capsys.readouterr().out
