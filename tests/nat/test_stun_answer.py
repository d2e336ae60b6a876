"""A STUN server's reading and answering, held against the codec that clients have."""

from __future__ import annotations

import aioice.stun
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.errors import StunError
from simopen.model.endpoint import Endpoint
from simopen.nat import stun, stun_answer
from simopen.nat.stun_answer import Back, ConnectBack

T = bytes(range(12))
SERVER, SEEN, OTHER = Endpoint("203.0.113.1", 3478), Endpoint("198.51.100.7", 40_000), Endpoint("203.0.113.2", 3479)


@pytest.mark.parametrize("back", [None, ConnectBack(Back.CAN, Back.CANNOT), ConnectBack(Back.SILENT, Back.CONNECTED)])
def test_what_is_answered_is_what_is_understood(back: ConnectBack | None) -> None:
    request = stun_answer.read(stun.request(T, connect_back=back))
    assert request == stun_answer.Request(T, back)
    assert stun.parse(stun_answer.answer(request, SEEN, OTHER, back), T, SERVER) == stun.Answer(SEEN, OTHER, back)


def test_an_attribute_that_must_be_understood_and_is_not_is_an_error() -> None:
    asked = stun_answer.message(stun_answer.REQUEST, T, stun_answer.attribute(0x0003, bytes(4)))  # CHANGE-REQUEST
    said = stun_answer.answer(stun_answer.read(asked), SEEN, None)
    told = aioice.stun.parse_message(said)
    assert told.attributes["ERROR-CODE"] == (420, "Unknown Attribute")


def test_another_codec_reads_the_answer() -> None:
    asked = stun_answer.read(stun.request(T))
    read = aioice.stun.parse_message(stun_answer.answer(asked, SEEN, OTHER, ConnectBack(Back.CAN, Back.CAN)))
    assert (read.attributes["XOR-MAPPED-ADDRESS"], read.attributes["OTHER-ADDRESS"]) == (tuple(SEEN), tuple(OTHER))


@given(st.binary(max_size=700))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    for each in (data, stun.request(T)[:4] + stun.request(T)[4:8] + data):
        try:
            stun_answer.read(each)
        except StunError:
            continue


@given(st.data())
def test_a_request_comes_in_any_pieces(data: st.DataObject) -> None:
    whole = stun.request(T, connect_back=ConnectBack(Back.CAN, Back.CANNOT))
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert 0 < stun_answer.missing(whole[:cut]) <= len(whole) - cut
    assert stun_answer.missing(whole) == 0


@given(st.binary(max_size=6))
def test_a_value_of_ours_or_none(value: bytes) -> None:
    read = ConnectBack.decode(value)
    assert read is None or read.encode()[:2] == value[:2]
