"""The protocol's page says the numbers and words that the code has, and lines of it make a vector's bytes."""

from __future__ import annotations

import hashlib
import json
import re
from itertools import pairwise

import pytest

from simopen.apps.forward import proofs
from simopen.apps.forward.agreement import VERSION
from simopen.link import channel, contexts, frames, handshake, nonces, session, transport
from simopen.rendezvous import peers
from simopen.ticket import agreement
from tests.docs.blocks import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
VECTORS = json.loads((ROOT / "tests" / "vectors" / "link_keys.json").read_text(encoding="utf-8"))["sessions"]


@pytest.mark.parametrize(
    "told",
    [
        f'`b"{session.LABEL.decode()[:-1]}\\0"`',
        f'`b"{agreement._LABEL.decode()[:-1]}\\0"`',
        f'`b"{peers._LABEL.decode()[:-1]}\\0"`',
        *(f'`b"{proofs._LABEL.decode()[:-1]}\\0{of}"`' for of in ("server", "client")),
        f'{{"simopen forward": {VERSION}, ',
        f"each side sends {nonces.NONCE_BYTES} random bytes",
        f"less than {session.LEAST_KEY_BYTES} bytes are refused",
        f"`simopen.new_key()` makes {session.KEY_BYTES}",
        f"| ALPN | `{contexts.ALPN}`",
        f"within {handshake.HANDSHAKE_S} s of its coming up, or within {handshake.BEGUN_S} s",
        f"within {transport.ANSWER_S} s of the choice",
        f"{channel.MOST_HANDSHAKE:,} bytes before it has proven anything",
        f"Of {handshake.MOST_AT_ONCE} streams at a time",
        *(kind.value for kind in session.Kind),
        *(role.value for role in session.Role),
    ],
)
def test_it_says_what_the_code_has(told: str) -> None:
    assert told in " ".join(TEXT.split())


def test_the_bytes_that_it_names_are_sent() -> None:
    assert (channel.CHOICE, frames.END_FRAME) == (b"\x01", b"\x01\0\0\0")
    assert b"".join(map(bytes, frames.data_frames(b"ab"))) == b"\x00\0\0\x02ab"
    assert 'the byte `b"\\x01"`' in TEXT
    assert '`b"\\x01\\0\\0\\0"`' in TEXT


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["kind"])
def test_its_context_is_the_vectors(vector: dict[str, str]) -> None:
    """Written from the page alone."""
    texts = [bytes.fromhex(vector[side]) for side in ("mine", "theirs")]
    begins = vector["role"] == "initiator" if vector["kind"] == "hellos" else texts[0] > texts[1]
    hashed = b"simopen link 1\0" + vector["kind"].encode() + b"\0"
    for text in texts if begins else reversed(texts):
        hashed += len(text).to_bytes(4, "big") + text
    assert hashlib.sha256(hashed).hexdigest() == vector["context"]


def test_its_steps_are_numbered_without_a_gap() -> None:
    numbers = [int(found) for found in re.findall(r"^### (\d)\. ", TEXT, re.MULTILINE)]
    assert numbers[0] == 1
    assert all(after == before + 1 for before, after in pairwise(numbers))
