"""What each side of SSH proves itself by, made of the secret that both have (HKDF-SHA256, RFC 5869).

For one socket, and kept nowhere.
"""

from __future__ import annotations

import asyncssh
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_LABEL = b"simopen forward 2\0"


def proofs(secret: bytes) -> tuple[asyncssh.SSHKey, str]:
    """The server's key, and the client's password."""

    def derived(what: bytes) -> bytes:
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=_LABEL + what).derive(secret)

    private = Ed25519PrivateKey.from_private_bytes(derived(b"server"))
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return asyncssh.import_private_key(pem), derived(b"client").hex()
