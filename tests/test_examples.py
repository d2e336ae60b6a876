"""The examples, run as their docstrings say."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simopen import lab
from tests.loopback import ports

__all__ = ["ports"]
EXAMPLES = Path(__file__).parent.parent / "examples"
TESTED = {"love.py", "same_port.py", "selfie.py"}
# Until two interpreters have started, on a machine that does other things as well.
LEAD_S = 1.5


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_each_example_is_tested_and_says_what_it_does() -> None:
    found = {path.name: path.read_text() for path in EXAMPLES.glob("*.py")}
    assert set(found) == TESTED
    assert all(text.startswith('"""') for text in found.values())


@pytest.mark.lab
def test_love() -> None:
    asyncio.run(_love())


async def _love() -> None:
    """Each knows the other's public address and the instant, nothing else; the SYNs cross."""
    async with lab.Network() as net:
        left = await net.host("left", delay_s=0.02, nat=lab.Nat())
        right = await net.host("right", delay_s=0.02, nat=lab.Nat())
        love, at = [sys.executable, str(EXAMPLES / "love.py")], str(time.time() + LEAD_S)
        ended = await asyncio.gather(
            left.run([*love, right.public_address, "1314", at, "--no-ntp"]),
            right.run([*love, left.public_address, "1314", at, "--no-ntp"]),
        )
        record = await net.record()
    for done in ended:
        assert (done.returncode, done.stdout, done.stderr) == (0, b"I love you.\n", b"")
    assert record.opened_simultaneously("left", "right")


def test_love_says_how_to_use_it() -> None:
    done = run("love.py")
    assert done.returncode == 1
    assert "python love.py 203.0.113.7 1314 22:14:30" in done.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["love.py", "127.0.0.1", "1314", "soon"], "'soon' is no instant"),
        (["love.py", "no..name", "1314", "+1s", "--no-ntp"], "'no..name' has no address"),
        (["selfie.py", "70000"], "65535, not 70000"),
        (["same_port.py", "70000"], "65535, not 70000"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words: list[str], complaint: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_same_port(ports: tuple[int, int]) -> None:
    done = run("same_port.py", ports[0])
    assert (done.returncode, done.stderr) == (0, "")
    rows = [f"127.0.0.1:{ports[0]}  ->  127.0.0.{n}:{ports[0]}  ESTABLISHED" for n in (2, 3)]
    assert sorted(done.stdout.splitlines()) == rows


def test_selfie(ports: tuple[int, int]) -> None:
    done = run("selfie.py", ports[0])
    assert (done.returncode, done.stderr) == (0, "")
    me = ("127.0.0.1", ports[0])
    assert done.stdout == f"sockname {me} == peername {me}: True\nI love me.\n"
