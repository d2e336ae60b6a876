"""Stamps that a rendezvous may ask for."""

from __future__ import annotations

import hashlib

import pytest

from simopen.signalling.hashcash import Challenge, stamps, zero_bits


@pytest.mark.parametrize("bits", [0, 1, 7, 8, 13])
def test_a_stamp_has_its_bits(bits: int) -> None:
    found = [each for each in stamps(Challenge(bits, "resource-string"), "261125", "salt") if each is not None]
    assert len(found) == 1
    assert found[0].startswith(f"1:{bits}:261125:resource-string::salt:")
    assert found[0].count(":") == 6
    assert zero_bits(hashlib.sha1(found[0].encode()).digest()) >= bits


def test_the_protocols_own_example_is_one() -> None:
    example = "1:6:210723:resource-string::NmZNF4eIbk87mqYz:000003n"
    assert zero_bits(hashlib.sha1(example.encode()).digest()) >= 6


@pytest.mark.parametrize(("digest", "bits"), [(b"\x80", 0), (b"\x00\x01", 15), (b"\x00\x00", 16), (b"\x0f", 4)])
def test_zero_bits_are_counted(digest: bytes, bits: int) -> None:
    assert zero_bits(digest) == bits


@pytest.mark.parametrize("bits", [25, -1, True, "8", None])
def test_not_any_number_of_bits(bits: object) -> None:
    with pytest.raises(ValueError, match="stamp"):
        Challenge(bits, "x")  # type: ignore[arg-type]


@pytest.mark.parametrize("resource", ["a:b", "x" * 257, None, "ü", "\n"])
def test_not_any_resource(resource: object) -> None:
    with pytest.raises(ValueError, match="stamp"):
        Challenge(8, resource)  # type: ignore[arg-type]
