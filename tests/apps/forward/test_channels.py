"""What each side of SSH proves itself by, made of the secret that both have."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac

import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from simopen.apps.forward.channels import carry, proofs
from simopen.apps.forward.targets import Forward
from simopen.errors import ForwardError
from tests.link.peers import connected

SECRET = bytes(range(32))
ROLES: tuple[list[Forward] | None, ...] = ([], None)
"""SSH's client wants nothing of the peer; its server."""


def hkdf(secret: bytes, info: bytes) -> bytes:
    """RFC 5869 by hand, no salt, 32 bytes."""
    key = hmac.digest(bytes(32), secret, hashlib.sha256)
    return hmac.digest(key, info + b"\x01", hashlib.sha256)


def test_they_are_what_the_pages_say() -> None:
    key, password = proofs(SECRET)
    private = Ed25519PrivateKey.from_private_bytes(hkdf(SECRET, b"simopen forward 2\0server"))
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert key.export_public_key().split()[:2] == public.split()
    assert password == hkdf(SECRET, b"simopen forward 2\0client").hex()


def test_another_secret_makes_others() -> None:
    key, password = proofs(SECRET)
    other_key, other_password = proofs(bytes(32))
    assert key.public_data != other_key.public_data
    assert password != other_password
    assert proofs(SECRET)[1] == password


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
