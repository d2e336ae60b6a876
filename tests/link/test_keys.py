"""What a key makes: the same bytes for whoever computes them, and nothing of it where it could be read."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

import simopen
from simopen.link.contexts import ready
from simopen.link.keys import identity, private_bytes, seed_bytes
from simopen.link.session import Kind, Role, Session, checked

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "link_keys.json").read_text())["sessions"]
KEY = bytes(range(32))


def session(vector: dict[str, Any], *, turned: bool = False) -> Session:
    mine, theirs = bytes.fromhex(vector["mine"]), bytes.fromhex(vector["theirs"])
    if turned:
        mine, theirs = theirs, mine
    kind = Kind(vector["kind"])
    begins = (vector["role"] == "initiator") is not turned if kind is Kind.HELLOS else None
    return Session.between(kind, bytes.fromhex(vector["key"]), mine, theirs, begins=begins)


def hkdf(key: bytes, info: bytes) -> bytes:
    """RFC 5869 for 32 bytes without a salt, written out."""
    extracted = hmac.digest(b"\0" * 32, key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: str(each["kind"]))
def test_the_vectors(vector: dict[str, Any]) -> None:
    ours, theirs = session(vector), session(vector, turned=True)
    assert ours.role == vector["role"]
    assert ours.role is not None
    assert theirs.role is ours.role.other
    assert ours.context == theirs.context == bytes.fromhex(vector["context"])
    for role in Role:
        assert private_bytes(ours, role).hex() == vector[role]["private"]
        for side in (ours, theirs):
            assert identity(side, role).certificate.hex() == vector[role]["certificate"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: str(each["kind"]))
def test_the_vectors_are_what_the_rfcs_say(vector: dict[str, Any]) -> None:
    """By the standard library alone, from the words of the protocol."""
    texts = [bytes.fromhex(vector["mine"]), bytes.fromhex(vector["theirs"])]
    if vector["kind"] != "hellos":
        assert (vector["role"] == "initiator") is (texts[0] > texts[1])
    if vector["role"] == "responder":
        texts.reverse()
    said = b"".join(len(text).to_bytes(4, "big") + text for text in texts)
    context = hashlib.sha256(b"simopen link 1\0" + vector["kind"].encode() + b"\0" + said).digest()
    assert context.hex() == vector["context"]
    for role in ("initiator", "responder"):
        info = b"simopen link 1\0" + role.encode() + b"\0" + context
        assert hkdf(bytes.fromhex(vector["key"]), info).hex() == vector[role]["private"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: str(each["kind"]))
def test_a_seed_is_the_sessions_and_the_same_on_both_sides(vector: dict[str, Any]) -> None:
    ours, theirs = session(vector), session(vector, turned=True)
    info = b"simopen link 1\0seed\0" + bytes.fromhex(vector["context"])
    assert seed_bytes(ours) == seed_bytes(theirs) == hkdf(bytes.fromhex(vector["key"]), info)
    assert seed_bytes(ours).hex() not in repr(ready(ours))


@pytest.mark.parametrize("role", Role)
def test_a_certificate_is_the_same_whenever_it_is_made_and_valid_at_any_time(role: Role) -> None:
    certificate = x509.load_der_x509_certificate(identity(session(VECTORS[0]), role).certificate)
    public = certificate.public_key()
    assert isinstance(public, Ed25519PublicKey)
    public.verify(certificate.signature, certificate.tbs_certificate_bytes)
    assert (certificate.serial_number, certificate.subject) == (1, certificate.issuer)
    assert certificate.subject.rfc4514_string() == "CN=simopen"
    assert certificate.not_valid_before_utc.timestamp() == 0
    assert certificate.not_valid_after_utc.year == 9999


@given(
    st.lists(st.binary(min_size=16, max_size=40), min_size=2, max_size=2, unique=True),
    st.sampled_from(Kind),
    st.sampled_from([(None, None), (True, False), (False, True)]),
)
def test_two_sides_agree_on_all_but_the_role_and_nobody_else_does(
    texts: list[bytes], kind: Kind, begins: tuple[bool | None, bool | None]
) -> None:
    one = Session.between(kind, KEY, *texts, begins=begins[0])
    other = Session.between(kind, KEY, *reversed(texts), begins=begins[1])
    assert {one.role, other.role} == set(Role)
    assert one.context == other.context
    assert private_bytes(one, Role.INITIATOR) != private_bytes(one, Role.RESPONDER)
    for foreign in (
        Session.between(kind, KEY, texts[0], texts[1] + b"\0"),
        Session.between(next(each for each in Kind if each is not kind), KEY, *texts),
        Session.between(kind, bytes(32), *texts),
    ):
        assert private_bytes(foreign, Role.INITIATOR) != private_bytes(one, Role.INITIATOR)


@pytest.mark.parametrize("begins", [None, True, False])
def test_a_text_of_ones_own_makes_no_session(begins: bool | None) -> None:
    with pytest.raises(ValueError, match="this side's own"):
        Session.between(Kind.NONCES, KEY, b"a" * 16, b"a" * 16, begins=begins)


@pytest.mark.parametrize("key", [b"", b"x" * 15, bytearray(15), memoryview(b"abc")])
def test_a_short_key_is_refused_and_told_why(key: Any) -> None:
    with pytest.raises(ValueError, match=r"at least 16 random bytes, not \d+: .*can try.*new_key"):
        Session.bare(key)


@pytest.mark.parametrize("key", ["correct horse battery staple", 16, None, [1] * 16])
def test_what_is_no_bytes_is_no_key_and_is_not_told(key: Any) -> None:
    with pytest.raises(TypeError, match="new_key") as told:
        Session.bare(key)
    assert "horse" not in str(told.value)


@pytest.mark.parametrize("key", [b"x" * 16, bytearray(b"x" * 16), memoryview(b"x" * 16)])
def test_any_bytes_are_the_same_key(key: Any) -> None:
    assert checked(key) == b"x" * 16


def test_each_new_key_is_new_and_long_enough() -> None:
    keys = {simopen.new_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(Session.bare(key).key) for key in keys} == {32}


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_a_key_is_in_no_repr_and_no_pickle(way: Any) -> None:
    secret = session(VECTORS[0])
    with pytest.raises(TypeError, match="secret"):
        way(secret)
    assert repr(KEY)[2:-1] not in repr(secret)
    assert KEY.hex() not in repr(secret)
    made = identity(secret, Role.INITIATOR)
    assert repr(made) == "Identity()"


def test_a_role_goes_along_with_a_context() -> None:
    for role, context in ((Role.INITIATOR, b""), (None, b"c" * 32)):
        with pytest.raises(ValueError, match="along with"):
            Session(KEY, context, role)


def test_a_key_is_made_without_what_proves_it() -> None:
    """The library for cryptography is loaded when there is a link to make."""
    code = "import sys, simopen; simopen.new_key(); print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
