"""Servers as people name them, of whatever kind: what `read_servers` makes of them. No name is looked up."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.model import wording
from simopen.model.server import Server, read_server, read_servers

WHAT = "a time server"
NAMED = [
    ("time.example.org", "time.example.org", 123),
    ("Time.Example.ORG.", "time.example.org.", 123),
    ("time.example.org:11123", "time.example.org", 11123),
    ("192.0.2.1", "192.0.2.1", 123),
    ("192.0.2.1:124", "192.0.2.1", 124),
    ("2001:db8::1", "2001:db8::1", 123),
    ("[2001:db8::1]", "2001:db8::1", 123),
    ("[2001:db8::1]:124", "2001:db8::1", 124),
    ("[fe80::1%eth0]:124", "fe80::1%eth0", 124),
    (("time.example.org", 124), "time.example.org", 124),
    (("::1", 124), "::1", 124),
]


@pytest.mark.parametrize(("named", "host", "port"), NAMED)
def test_ways_to_name_a_server(named: str | tuple[str, int], host: str, port: int) -> None:
    assert read_servers([named], 123, WHAT) == (Server(host, port, 123),)


@pytest.mark.parametrize(
    ("server", "told"),
    [
        (Server("a.example", 123, 123), "a.example"),
        (Server("a.example", 3478, 123), "a.example:3478"),
        (Server("2001:db8::1", 123, 123), "2001:db8::1"),
        (Server("2001:db8::1", 5, 123), "[2001:db8::1]:5"),
    ],
)
def test_the_usual_port_goes_without_saying(server: Server, told: str) -> None:
    assert str(server) == told
    assert read_server(told, 123, WHAT) == server


@pytest.mark.parametrize(
    "bad",
    ["", " ", "a b", "http://x", "user@x", ":123", "x:y", "x:0", "x:65536", "[::1", "::1]:5", "1:2:3",
     "a" * 64, "127.1:9", "010.1.2.3", ("x", 0), ("", 123), ("x", -1), ("x:1", 2)],
)  # fmt: skip
def test_what_is_no_server_is_a_value_error(bad: str | tuple[str, int]) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_servers([bad], 123, WHAT)


def test_no_servers_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="no time servers given"):
        read_servers([], 123, WHAT)


@given(st.text(max_size=30))
def test_any_text_is_a_server_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        read = read_server(text, 123, WHAT)
        assert read_server(str(read), 123, WHAT) == read


@pytest.mark.parametrize("names", ["time.example.org", b"x", None, 5, object(), "y" * 9999])
def test_a_bare_name_is_not_taken_for_a_sequence_of_letters(names: Any) -> None:
    with pytest.raises(TypeError, match="a sequence of names") as raised:
        read_servers(names, 123, WHAT)
    assert len(str(raised.value)) < wording.LONGEST


@pytest.mark.parametrize("bad", [None, 5, (), ("x",), ("x", 1, 2), (1, 123), ("x", "1"), ("x", 1.5)])
def test_a_server_of_no_sensible_type_is_told_in_a_sentence(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"not the name of a time server|must be an int"):
        read_servers([bad], 123, WHAT)
