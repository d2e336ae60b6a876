"""The URL of a rendezvous: what is read, what is refused, and that no password is told."""

from __future__ import annotations

import pytest

from simopen.signalling import connect
from simopen.signalling.via import PUBLIC, read_via


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("wss://rendezvous.example.org/v1", "wss://rendezvous.example.org/v1"),
        ("wss://rendezvous.example.org", "wss://rendezvous.example.org/v1"),
        (" WSS://Rendezvous.example.org:4000/ ", "wss://rendezvous.example.org:4000/v1"),
        ("wss://a.example/x?token=1", "wss://a.example/x?token=1"),
        ("ws://localhost:4000", "ws://localhost:4000/v1"),
        ("ws://[::1]:4000/v1", "ws://[::1]:4000/v1"),
        ("nats://127.0.0.1", "nats://127.0.0.1"),
        ("tls://u:p@a.example,b.example:4222", "tls://u:p@a.example,b.example:4222"),
        ("tls://a.example?creds=/home/me/me.creds", "tls://a.example?creds=/home/me/me.creds"),
        ("NATS+WSS://a.example,b.example/nats", "nats+wss://a.example,b.example/nats"),
        ("nats+ws://localhost", "nats+ws://localhost"),
        (PUBLIC, PUBLIC),
    ],
)
def test_what_is_read(typed: str, url: str) -> None:
    assert read_via(typed).url == url


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "rendezvous.example.org",
        "http://a.example",
        "wss://",
        "wss:///v1",
        "wss://a.example:0/v1",
        "wss://a.example:65536/v1",
        "wss://a.example,b.example/v1",
        "wss://a b.example/v1",
        "wss://a.example/v1\r\nHost: x",
        "ws://[::1/v1",
        "tls://a.example,",
        "tls://" + ",".join(["a.example"] * 17),
        "nats+tcp://a.example",
    ],
)
def test_what_is_no_url_of_a_rendezvous(typed: str) -> None:
    with pytest.raises(ValueError, match="via"):
        read_via(typed)


@pytest.mark.parametrize(
    "typed",
    [
        "ws://a.example/v1",
        "ws://relay.magic-wormhole.io:4001/v1",
        "ws://192.0.2.1/v1",
        "nats://127.0.0.1,a.example",
        "nats+ws://a.example/nats",
    ],
)
def test_in_the_clear_only_where_it_is_meant(typed: str) -> None:
    with pytest.raises(ValueError, match="in the clear"):
        read_via(typed)
    assert read_via(typed, allow_plain=True).url == typed


@pytest.mark.parametrize(
    "typed",
    [
        "ws://u:hunter2@a.example/v1",
        "ws://u:hunter2@a.example,/v1",
        "ws://u:hun/ter2@a.example/v1",
        "ws://u:hun#ter2@a.example/v1",
        "ws://u:hun?ter2@a.example/v1",
        "http://u:hunter2@a.example",
        "wss://u:hunter2@a .example",
        "nats://u:hunter2@a.example",
        "nats://hunter2@a.example",
        "wss://u:hunter 2@a.example",
    ],
)
def test_no_error_tells_a_password(typed: str) -> None:
    with pytest.raises(ValueError, match=r"via|in the clear") as refused:
        read_via(typed)
    assert "hun" not in str(refused.value)
    assert "ter2" not in str(refused.value)


def test_each_node_of_nats_is_a_url_as_its_clients_take_it() -> None:
    assert read_via("tls://u:p@a,b:1?creds=x").servers == ("tls://u:p@a", "tls://u:p@b:1")
    assert read_via("nats+wss://u:p@a,b:1/nats?creds=x").servers == ("wss://u:p@a/nats", "wss://u:p@b:1/nats")


def test_nothing_that_is_shown_tells_a_password() -> None:
    via = read_via("wss://u:hunter2@a.example/v1?key=hunter2")
    assert "hunter2" in via.url
    assert "hunter2" not in f"{via} {via!r}"


@pytest.mark.parametrize("host", ["127.0.0.1:99999", "a.example:0", "[::1]:http", "a.example:-1"])
def test_a_port_that_is_none_is_told_as_the_port(host: str) -> None:
    with pytest.raises(ValueError, match=r"the port must lie between 1 and 65535 \(in via: ") as refused:
        read_via(f"wss://{host}/v1")
    assert repr(host) in str(refused.value)


async def test_a_bad_url_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="via"):
        async with connect("http://a.example"):
            pass
    with pytest.raises(TypeError):
        async with connect(None):  # type: ignore[arg-type]
            pass
