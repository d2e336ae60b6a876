"""The hello at NATS: what is said is read so, and whatever else comes is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.signalling.nats_hello import Hello, Word, read_hello


@given(st.from_regex(r"[0-9a-f]{16}", fullmatch=True), st.integers(0, 1000), st.sampled_from(Word))
def test_what_is_said_is_read(side: str, heard: int, word: Word) -> None:
    hello = Hello(side, heard, word)
    assert read_hello(hello.encoded()) == hello


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ab 1",
        b"ab 1 comes more",
        b"ab one comes",
        b"ab -1 comes",
        b"ab 1 sleeps",
        b"a.b 1 comes",
        b"> 1 comes",
        b" 1 comes",
        b"a" * 41 + b" 1 comes",
        "é 1 comes".encode(),
        b'{"stream":"ALL","seq":1}',
    ],
)
def test_what_is_none(data: bytes) -> None:
    assert read_hello(data) is None


@given(st.binary(max_size=80))
def test_whatever_comes_is_no_fault(data: bytes) -> None:
    hello = read_hello(data)
    assert hello is None or hello.side.isalnum()
