"""Frames: what goes in comes out, however it is cut; and nothing else than frames is taken for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.errors import LinkBroken
from simopen.link.frames import END_FRAME, MOST_DATA, Decoder, data_frames

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "link_frames.json").read_text())


def encoded(*writes: bytes, end: bool = True) -> bytes:
    return b"".join(bytes(piece) for data in writes for piece in data_frames(data)) + END_FRAME * end


@pytest.mark.parametrize("vector", VECTORS["streams"], ids=lambda each: str(each["what"]))
def test_the_vectors(vector: dict[str, object]) -> None:
    writes, wire = [bytes.fromhex(each) for each in vector["writes"]], bytes.fromhex(str(vector["wire"]))  # type: ignore[attr-defined]
    assert encoded(*writes, end=bool(vector["ends"])) == wire
    decoder = Decoder()
    assert decoder.feed(wire) == b"".join(writes)
    assert decoder.ended is vector["ends"]


@pytest.mark.parametrize("wire", VECTORS["refused"])
def test_what_is_no_frame_is_refused_at_once_however_it_is_cut(wire: str) -> None:
    data = bytes.fromhex(wire)
    for piece in (len(data), 1):
        decoder = Decoder()
        with pytest.raises(LinkBroken, match="no simopen"):  # noqa: PT012 - however soon
            for at in range(0, len(data), piece):
                decoder.feed(data[at : at + piece])


@given(st.lists(st.binary(max_size=200), max_size=5), st.lists(st.integers(0, 1200)), st.booleans())
def test_however_it_is_cut_it_comes_out_as_it_went_in(writes: list[bytes], cuts: list[int], end: bool) -> None:
    wire, decoder, got, at = encoded(*writes, end=end), Decoder(), b"", 0
    for cut in [*sorted(min(cut, len(wire)) for cut in cuts), len(wire)]:
        got += decoder.feed(wire[at:cut])
        at = cut
    assert got == b"".join(writes)
    assert decoder.ended is end


@given(st.binary(max_size=300))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    decoder = Decoder()
    try:
        assert len(decoder.feed(data)) <= len(data)
    except LinkBroken:
        return


def test_the_longest_frame_and_one_byte_more() -> None:
    data = bytes(MOST_DATA + 1)
    heads = [bytes(piece[:4]) for piece in data_frames(data) if len(piece) <= 5]
    assert heads == [b"\0\xff\xff\xff", b"\0\0\0\x01"]
    assert Decoder().feed(encoded(data)) == data


def test_data_is_handed_on_before_its_frame_is_complete() -> None:
    decoder = Decoder()
    assert decoder.feed(b"\0\xff\xff\xffab") == b"ab"
    assert decoder.feed(b"c") == b"c"
