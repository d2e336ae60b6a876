"""Sessions in the lab: the network of one of two hosts behind NATs is gone for a while, and comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.rendezvous.cuts import cut, mend, two_sessions


@pytest.mark.lab(router=True)
def test_a_session_is_back_after_its_network_is(tmp_path: Path) -> None:
    asyncio.run(back(tmp_path))


async def back(folder: Path) -> None:
    async with two_sessions(folder, keepalive=1.0, user_timeout=1.0) as (host, sides):
        await asyncio.gather(*(side.until("heard") for side in sides))
        await cut(host)
        await asyncio.gather(*(side.until("session down") for side in sides))
        mended_ns = await mend(host)
        await asyncio.gather(*(side.until("session back", mended_ns) for side in sides))
        await asyncio.gather(*(side.until("heard", mended_ns) for side in sides))
        for side in sides:
            steps = side.steps()
            assert steps[:2] == ["session up", "session down"]
            assert steps[-1] == "session back"
            assert set(steps[2:-1]) <= {"session waits"}
