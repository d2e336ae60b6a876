"""The two certificates that a session's key makes, one a role. Each side can compute both, and trusts one.

Theory of operation. Pure, and the same bytes on every host and at any time: an Ed25519 private key by HKDF-SHA256
(RFC 5869, without a salt) from the session's key, and a certificate that it signs itself. Ed25519's signatures are
deterministic (RFC 8032 §5.1.6); all else in the certificate is fixed. It is valid from 1970 to 9999, so that no host's
clock matters. Whoever shows the other role's certificate, and signs TLS's handshake with its private key (RFC 8446
§4.4.3), has the session's key. There is no further message of proof.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from simopen.errors import LinkError
from simopen.link.session import LABEL, Role, Session

NAME = "simopen"
_SEED = b"seed\0"  # no role is called so
_FROM, _UNTIL = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Identity:
    """A role's certificate, DER and PEM, and its private key, PEM, which is in no repr."""

    certificate: bytes = field(repr=False)
    certificate_pem: bytes = field(repr=False)
    private_pem: bytes = field(repr=False)


def private_bytes(session: Session, role: Role) -> bytes:
    """The 32 bytes of the role's Ed25519 private key."""
    info = LABEL + role.value.encode() + b"\0" + session.context
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(session.key)


def seed_bytes(session: Session) -> bytes:
    """32 bytes that the two sides of this session have, and nobody else: what they may keep to meet again."""
    info = LABEL + _SEED + session.context
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(session.key)


def identity(session: Session, role: Role) -> Identity:
    """The role's certificate and private key in this session.

    Raises:
        LinkError: the library for cryptography has no Ed25519 here.
    """
    try:
        private = Ed25519PrivateKey.from_private_bytes(private_bytes(session, role))
        certificate = _signed(private)
    except UnsupportedAlgorithm as error:
        raise LinkError(
            f"no link can be made: the package cryptography has no Ed25519 on this host ({error})"
        ) from error
    return Identity(
        certificate.public_bytes(Encoding.DER),
        certificate.public_bytes(Encoding.PEM),
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _signed(private: Ed25519PrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .sign(private, None)
    )
