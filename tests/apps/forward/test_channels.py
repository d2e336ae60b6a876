"""SSH on a socket whose two ends share a secret, or do not."""

from __future__ import annotations

import asyncio
import contextlib

import asyncssh
import pytest

from simopen.apps.forward.channels import _Client, _Server, _speaking, carry
from simopen.apps.forward.proofs import proofs
from simopen.apps.forward.targets import Forward
from simopen.errors import ForwardError
from tests.link.peers import connected

SECRET = bytes(range(32))
ROLES: tuple[list[Forward] | None, ...] = ([], None)
"""SSH's client wants nothing of the peer; its server."""


@pytest.mark.parametrize("secrets", [(SECRET, bytes(32)), (bytes(32), SECRET)])
async def test_two_that_do_not_share_it_carry_nothing(secrets: tuple[bytes, bytes]) -> None:
    ends = connected()
    sides = [
        carry(sock, secret, forwards=(), allowed=(), theirs=theirs, ready=None)
        for sock, secret, theirs in zip(ends, secrets, ROLES, strict=True)
    ]
    for raised in await asyncio.gather(*sides, return_exceptions=True):
        assert isinstance(raised, ForwardError)
        assert raised.is_broken


async def test_neither_secret_is_in_what_asyncssh_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    asyncssh.set_debug_level(3)
    ends, ready = connected(), asyncio.Event()
    sides = [
        asyncio.ensure_future(carry(sock, SECRET, forwards=(), allowed=(), theirs=theirs, ready=lambda _: ready.set()))
        for sock, theirs in zip(ends, ROLES, strict=True)
    ]
    try:
        await ready.wait()
        sides[0].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*sides)
    finally:
        asyncssh.set_debug_level(1)
    key, password = proofs(SECRET)
    assert "Completed key exchange" in caplog.text
    assert password not in caplog.text
    assert password[:16] not in caplog.text
    assert SECRET.hex() not in caplog.text
    assert str(key.export_private_key()) not in caplog.text


async def test_neither_side_asks_ssh_whether_the_peer_is_there() -> None:
    """Behind what the channels have to send, its answer would come too late on a slow path."""
    ends, sides = connected(), (_Client((), ()), _Server((), ()))
    both = await asyncio.gather(*(_speaking(sock, SECRET, side) for sock, side in zip(ends, sides, strict=True)))
    try:
        assert [each._keepalive_interval for each in both] == [0, 0]
    finally:
        for connection, sock in zip(both, ends, strict=True):
            connection.abort()
            await connection.wait_closed()
            sock.close()
