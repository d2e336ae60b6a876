"""What each side of SSH proves itself by, made of the secret that both have."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from simopen.apps.forward.proofs import proofs

SECRET = bytes(range(32))


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
