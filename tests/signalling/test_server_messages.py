"""What is read of a client's message, and that nothing but BadMessage comes of one that cannot be meant."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simopen.signalling import server_messages as messages
from simopen.signalling.server_messages import BadMessage, encode, parse

GOOD: dict[str, tuple[dict[str, object], object]] = {
    "bind": ({"appid": "a", "side": "s"}, messages.Bind("a", "s")),
    "ping": ({"ping": 7}, messages.Ping(7)),
    "list": ({}, messages.ListRooms()),
    "allocate": ({}, messages.Allocate()),
    "claim": ({"nameplate": "12"}, messages.Claim("12")),
    "release": ({}, messages.Release(None)),
    "open": ({"mailbox": "m"}, messages.Open("m")),
    "add": ({"phase": "p", "body": "00fF"}, messages.Add("p", "00fF")),
    "close": ({"mood": "happy"}, messages.Close(None, "happy")),
}
BAD = {
    "no JSON": b"{",
    "no object": b"[]",
    "no UTF-8": b'{"type": "\xff"}',
    "UTF-16": '{"type": "list"}'.encode("utf-16"),
    "no type": b"{}",
    "unknown type": b'{"type": "dance"}',
    "a type that is none": b'{"type": ["list"]}',
    "NaN": b'{"type": "ping", "ping": NaN}',
    "infinite": b'{"type": "ping", "ping": 1e999}',
    "nested": b"[" * 100_000,
    "nested in an object": b'{"type": "bind", "x": ' + b"[" * 100_000,
    "a huge number": b'{"type": "ping", "ping": ' + b"9" * 5000 + b"}",
    "a key is missing": b'{"type": "bind", "appid": "a"}',
    "a value of another kind": b'{"type": "bind", "appid": 1, "side": "s"}',
    "half a surrogate pair": b'{"type": "bind", "appid": "\\ud800", "side": "s"}',
    "too long": json.dumps({"type": "open", "mailbox": "m" * 257}).encode(),
    "no number": b'{"type": "claim", "nameplate": "abc"}',
    "another script's digits": '{"type": "claim", "nameplate": "٣"}'.encode(),
    "a long number": json.dumps({"type": "claim", "nameplate": "1" * 41}).encode(),
    "no hex": b'{"type": "add", "phase": "p", "body": "0g"}',
    "half a byte": b'{"type": "add", "phase": "p", "body": "0"}',
}


@pytest.mark.parametrize("kind", GOOD)
def test_each_command_is_read(kind: str) -> None:
    values, command = GOOD[kind]
    heard = parse(json.dumps({"type": kind, "id": "x1", "more": [1], **values}).encode())
    assert (heard.command, heard.id) == (command, "x1")


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_meant_is_told(name: str) -> None:
    with pytest.raises(BadMessage):
        parse(BAD[name])


@given(
    st.one_of(st.binary(), st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(), st.lists))
)
@example({"type": "close", "mood": 1})
def test_whatever_comes_is_read_or_refused(said: object) -> None:
    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    try:
        heard = parse(data)
    except BadMessage as error:
        json.loads(encode("error", error=error.said, orig=error.orig))
    else:
        json.loads(encode("error", orig=heard.orig))


@pytest.mark.parametrize("said", ["x" * 65, {"a": 1}, 2**70, [1], "\ud800"], ids=repr)
def test_an_id_that_nobody_needs_is_not_passed_on(said: object) -> None:
    assert parse(json.dumps({"type": "list", "id": said}).encode()).id is None


def test_what_was_read_deep_down_can_be_said_again() -> None:
    for depth in (100, 900, 990, 1000):
        try:
            heard = parse(b'{"type": "list", "x": ' + b"[" * depth + b"]" * depth + b"}")
        except BadMessage:
            continue
        json.loads(encode("error", orig=heard.orig))
