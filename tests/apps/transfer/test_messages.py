"""What two sides of a transfer say, and what nobody says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.apps.transfer import messages
from simopen.apps.transfer.messages import (
    MOST_DATA,
    MOST_NAMES,
    VERSION,
    Accepted,
    Complete,
    End,
    Failed,
    File,
    Folder,
    Has,
    Message,
    Offer,
    Received,
    Refused,
)
from simopen.errors import TransferError

SHA = "0" * 64
ALL: list[Message] = [
    Offer(VERSION, ("a", "b"), 2, 0, 10),
    Offer(VERSION, ("stdin",), 1, 0, None),
    Offer(VERSION, (), 0, 0, 0, "a text\nof two lines \U0001f468"),
    Refused("no"),
    Has("a/b", 7, SHA),
    Accepted(),
    Folder("a"),
    File("a/b", 7, 3, executable=True),
    File("a/c", None, 0, executable=False),
    End(SHA),
    Complete(),
    Received(),
    Failed("no room"),
]


def fed(raw: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(raw)
    reader.feed_eof()
    return reader


async def test_what_is_written_is_read() -> None:
    raw = b"".join(map(messages.record, ALL)) + messages.data(b"piece") + messages.data(b"")
    reader = fed(raw)
    assert [await messages.read(reader) for _ in ALL] == ALL
    assert [await messages.read(reader), await messages.read(reader)] == [b"piece", b""]
    with pytest.raises(TransferError, match="the peer left"):
        await messages.read(reader)


@pytest.mark.parametrize("cut", range(1, 30, 4))
async def test_a_cut_is_no_end(cut: int) -> None:
    with pytest.raises(TransferError, match="the peer left"):
        await messages.read(fed(messages.record(File("a", 1, 0, executable=False))[:-cut]))


@pytest.mark.parametrize(
    "raw", [b"GET / HTTP/1.1\r\n", b"r\xff\xff\xff\xff", b"d" + (MOST_DATA + 1).to_bytes(4) + b"x"]
)
async def test_another_talker_is_told_at_once(raw: bytes) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(raw)
    with pytest.raises(TransferError, match="does not speak"):
        await messages.read(reader)


def told(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


OFFER = {"is": "offer", "version": VERSION, "names": ["a"], "files": 1, "folders": 0, "size": 1, "message": None}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"1",
        b"null",
        b"[" * 100_000,
        b'{"is":"accepted"' + b"1" * 10_000,
        told(**{"is": "nothing"}),
        told(**{"is": ["offer"]}),
        told(**{"is": "folder"}),
        told(**{"is": "folder", "path": 7}),
        told(**{"is": "end", "sha256": "0" * 63}),
        told(**{"is": "end", "sha256": 0}),
        told(**{"is": "file", "path": "a", "size": -1, "start": 0, "executable": False}),
        told(**{"is": "file", "path": "a", "size": 1, "start": 0.0, "executable": False}),
        told(**{"is": "file", "path": "a", "size": 1, "start": True, "executable": False}),
        told(**{"is": "file", "path": "a", "size": 2**63, "start": 0, "executable": False}),
        told(**{"is": "file", "path": "a", "size": 1, "start": 0, "executable": 1}),
        told(**{**OFFER, "names": "abc"}),
        told(**{**OFFER, "names": [[]]}),
        told(**{**OFFER, "names": ["a"] * (MOST_NAMES + 1)}),
        told(**{**OFFER, "files": None}),
        told(**{**OFFER, "message": "x" * 2**17}),
    ],
)
def test_what_says_nothing_is_a_transfer_error(raw: bytes) -> None:
    with pytest.raises(TransferError, match="nobody can read"):
        messages.parsed(raw)


@pytest.mark.parametrize("version", [VERSION + 1, "1", None])
def test_another_version_says_so(version: object) -> None:
    with pytest.raises(TransferError, match="version"):
        messages.parsed(told(**{**OFFER, "version": version}))


@given(
    st.binary(max_size=200) | st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8)).map(json.dumps)
)
def test_whatever_comes_is_a_message_or_a_transfer_error(raw: bytes | str) -> None:
    try:
        messages.parsed(raw if isinstance(raw, bytes) else raw.encode())
    except TransferError as error:
        assert len(str(error)) < 400  # noqa: PT017 - any bytes may be a message


def test_a_reason_of_any_length_is_told() -> None:
    raw = messages.failed("\x00" * 10**6)
    assert len(raw) < 2**14
