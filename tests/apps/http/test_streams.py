"""What both ends of HTTP over a stream need of streams."""

from __future__ import annotations

import asyncio

from simopen.apps.http.streams import linger
from tests.apps.http.test_pieces import plain
from tests.link.peers import pair


async def test_a_peer_that_goes_on_speaking_for_ever_is_left() -> None:
    async with pair(plain) as ((reader, writer), (_, peer)):

        async def speaks() -> None:
            while True:
                peer.write(b"more")
                await asyncio.sleep(0)

        speaking = asyncio.create_task(speaks())
        await linger(reader, writer, limit_s=0.05)
        assert not speaking.done()
        speaking.cancel()
        await asyncio.wait({speaking})
