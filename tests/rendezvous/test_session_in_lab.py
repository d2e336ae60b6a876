"""Sessions in the lab: the network of one of two hosts is gone for a while, and comes back, or is another one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.rendezvous.cuts import Side, cut, mend, move, two_sessions


@pytest.mark.lab(router=True)
def test_a_session_is_back_after_its_network_is(tmp_path: Path) -> None:
    asyncio.run(back(tmp_path))


async def back(folder: Path) -> None:
    async with two_sessions(folder, keepalive=1.0, user_timeout=1.0) as (host, sides):
        await asyncio.gather(*(side.until("heard") for side in sides))
        await cut(host)
        await asyncio.gather(*(side.until("session down") for side in sides))
        await both_back(sides, await mend(host))


async def both_back(sides: tuple[Side, Side], after_ns: int) -> None:
    """They meet again, and hear each other."""
    await asyncio.gather(*(side.until("session back", after_ns) for side in sides))
    await asyncio.gather(*(side.until("heard", after_ns) for side in sides))
    for side in sides:
        steps = side.steps()
        assert steps[:2] == ["session up", "session down"]
        assert steps[-1] == "session back"
        assert set(steps[2:-1]) <= {"session waits"}


@pytest.mark.lab
def test_a_session_is_back_after_its_host_has_changed_its_address(tmp_path: Path) -> None:
    asyncio.run(back_from_elsewhere(tmp_path))


async def back_from_elsewhere(folder: Path) -> None:
    async with two_sessions(folder, moves=True, keepalive=1.0, user_timeout=1.0) as (host, sides):
        await asyncio.gather(*(side.until("heard") for side in sides))
        await both_back(sides, await move(host))
