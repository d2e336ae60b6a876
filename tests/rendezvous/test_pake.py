"""SPAKE2 behind its seam: two sides, one key; and one error for whatever comes that is no message."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simopen.rendezvous.pake import MESSAGE_BYTES, BadMessage, Pake

ONE, OTHER, WRONG = Pake(b"secret", "7"), Pake(b"secret", "7"), Pake(b"Secret", "7")


def test_the_same_secret_in_the_same_room_comes_to_the_same_key() -> None:
    assert ONE.finish(OTHER.message) == OTHER.finish(ONE.message)
    assert len(ONE.message) == MESSAGE_BYTES == 33


def test_another_secret_or_another_room_comes_to_another_key() -> None:
    assert ONE.finish(WRONG.message) != WRONG.finish(ONE.message)
    elsewhere = Pake(b"secret", "8")
    assert ONE.finish(elsewhere.message) != elsewhere.finish(ONE.message)


def test_a_peer_that_comes_anew_gets_another_key_from_the_same_message() -> None:
    anew = Pake(b"secret", "7")
    assert ONE.finish(anew.message) == anew.finish(ONE.message) != ONE.finish(OTHER.message)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        OTHER.message[:-1],
        OTHER.message + b"\0",
        b"A" + OTHER.message[1:],
        b"S" + bytes(32),
        b"S" + b"\xff" * 32,
        b"S" + (1).to_bytes(32, "little"),
        ONE.message,
    ],
    ids=["empty", "short", "long", "other side", "zeros", "ones", "neutral", "own"],
)
def test_bad_input_of_each_kind_is_one_error(message: bytes) -> None:
    with pytest.raises(BadMessage):
        ONE.finish(message)


@settings(max_examples=20)
@given(st.binary(max_size=40) | st.binary(min_size=32, max_size=32).map(lambda rest: b"S" + rest))
def test_any_bytes_give_a_key_or_that_error(message: bytes) -> None:
    with contextlib.suppress(BadMessage):
        assert len(ONE.finish(message)) == 32
