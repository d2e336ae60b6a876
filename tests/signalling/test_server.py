"""A rendezvous server, spoken to over WebSocket."""

from __future__ import annotations

import pytest
from websockets.exceptions import ConnectionClosed

from simopen.signalling.server import serve
from tests.signalling.clients import bound


async def test_two_sides_hear_each_other() -> None:
    async with serve("127.0.0.1", 0, stun_ports=None) as server:
        one, other = await bound(server.url, "one"), await bound(server.url, "other")
        nameplate = (await one.ask("allocate", "allocated"))["nameplate"]
        assert await one.enter(nameplate) == await other.enter(nameplate)
        await one.say("add", phase="pake", body="00ff", id="x")
        for client in (one, other):
            message = await client.hear("message")
            assert (message["side"], message["phase"], message["body"], message["id"]) == ("one", "pake", "00ff", "x")


async def test_those_who_wait_are_told_that_it_ends() -> None:
    async with serve("127.0.0.1", 0, stun_ports=None) as server:
        client = await bound(server.url, "one")
        await client.enter("4")
    assert "shutting down" in (await client.hear("error"))["error"]
    with pytest.raises(ConnectionClosed) as closed:
        await client.hear()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
