"""Sealed messages: in order and once, whatever a rendezvous does with them; and nothing told by lengths."""

from __future__ import annotations

import random

import pytest

from simopen.rendezvous.sealing import BODY_BYTES, SEALED_BYTES, Channel, Unopened, pake_of, pake_phase

A, B, C = "a" * 16, "b" * 16, "c" * 16
KEY = bytes(range(32))


def pair(key: bytes = KEY) -> tuple[Channel, Channel]:
    return Channel(KEY, A, B), Channel(key, B, A)


def test_both_sides_have_one_link_key_and_seal_with_two() -> None:
    one, other = pair()
    assert one.link_key == other.link_key
    assert one.seal(b"x")[1] != other.seal(b"x")[1]


@pytest.mark.parametrize("length", [0, 1, 100, BODY_BYTES])
def test_all_have_one_length(length: int) -> None:
    one, other = pair()
    phase, sealed = one.seal(bytes(length))
    assert len(sealed) == SEALED_BYTES
    assert [body for body, _ in other.take(phase, sealed)] == [bytes(length)]


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="640"):
        pair()[0].seal(bytes(BODY_BYTES + 1))


@pytest.mark.parametrize("seed", range(5))
def test_reordered_and_doubled_they_come_in_order_and_once(seed: int) -> None:
    one, other = pair()
    messages = [one.seal(bytes([number])) for number in range(30)] * 2
    random.Random(seed).shuffle(messages)
    taken = [body for phase, sealed in messages for body, _ in other.take(phase, sealed)]
    assert taken == [bytes([number]) for number in range(30)]


def test_another_key_altered_swapped_or_reflected_opens_nothing() -> None:
    one, other = pair()
    phase, sealed = one.seal(b"first")
    next_phase, _ = one.seal(b"second")
    with pytest.raises(Unopened):
        pair(bytes(32))[1].take(phase, sealed)
    for wrong_phase, wrong in [
        (phase, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (phase, sealed + b"\0"),
        (phase, b""),
        (next_phase, sealed),
        (phase.replace("-0", "-00"), sealed),
        (phase.replace(A, C), sealed),
        ("nonsense", sealed),
    ]:
        with pytest.raises(Unopened):
            other.take(wrong_phase, wrong)
    with pytest.raises(Unopened):
        one.take(phase, sealed)
    assert not other.is_confirmed
    assert other.take(phase, sealed)


def test_far_ahead_is_not_kept() -> None:
    one, other = pair()
    messages = [one.seal(b"") for _ in range(300)]
    assert other.take(*messages[299]) == []
    assert not other.is_confirmed


def test_who_begins_is_read_from_the_phase() -> None:
    assert pake_of(pake_phase(A), bytes(33)) == A
    assert pake_of(pake_phase(A), bytes(34)) is None
    assert pake_of("pake", bytes(33)) is None
