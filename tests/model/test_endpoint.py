from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.model.endpoint import (
    Endpoint,
    Reach,
    canonical,
    check_port,
    host_and_port,
    literal,
    local_endpoint,
    normalise,
    own_address,
    peer_endpoints,
    reach,
    refusal,
)


@pytest.mark.parametrize("port", [0, -1, 65536, 10**9])
def test_a_port_out_of_range_is_a_value_error(port: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 65535"):
        check_port(port, "the port")


@pytest.mark.parametrize("port", ["80", 80.0, None, True])
def test_a_port_that_is_no_int_is_a_type_error(port: object) -> None:
    with pytest.raises(TypeError, match="must be an int"):
        check_port(port, "the port")


@pytest.mark.parametrize("peer", ["example.org:80", ("example.org",), 80, None, [("a", 1), "b"], (1, "a"), ["ab"]])
def test_a_peer_that_is_no_pair_is_a_type_error(peer: object) -> None:
    with pytest.raises(TypeError, match=r"\(host, port\)"):
        peer_endpoints(peer)  # type: ignore[arg-type]


@pytest.mark.parametrize("peer", ["x" * 100_000, [("a", 1)] * 9_000 + ["b"], b"x" * 100_000, {"x" * 9_000: 1}])
def test_the_refusal_of_a_long_one_fits_a_screen(peer: object) -> None:
    with pytest.raises(TypeError) as refused:
        peer_endpoints(peer)  # type: ignore[arg-type]
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(("peer", "what"), [([], "no endpoint"), (("", 80), "empty"), ([("a", 0)], "1 and 65535")])
def test_a_peer_that_names_nobody_is_a_value_error(peer: object, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        peer_endpoints(peer)  # type: ignore[arg-type]


def test_one_pair_and_a_sequence_of_pairs_are_both_peers() -> None:
    assert peer_endpoints(("a", 1)) == (("a", 1),)
    assert peer_endpoints([("a", 1), ("b", 2)]) == (("a", 1), ("b", 2))


@pytest.mark.parametrize(
    ("local", "expected"),
    [(None, (None, 1314)), (99, (None, 99)), (("127.0.0.1", 99), ("127.0.0.1", 99)), (("::1", 99), ("::1", 99))],
)
def test_the_local_port_is_the_peers_where_none_is_given(local: object, expected: object) -> None:
    assert local_endpoint(local, 1314) == expected  # type: ignore[arg-type]


def test_the_local_address_must_be_a_literal() -> None:
    with pytest.raises(ValueError, match="IP address of this host"):
        local_endpoint(("localhost", 99), 1314)
    for bad in ((), ("127.0.0.1",), ("127.0.0.1", 9, 9)):
        with pytest.raises(TypeError, match="a local endpoint is a port or a pair of address and port"):
            local_endpoint(bad, 1314)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("2001:DB8::0:1", "2001:db8::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("fe80::1%lo", "fe80::1%1"),
        ("fe80::1%1", "fe80::1%1"),
        ("fe80::1%0", "fe80::1"),
        ("2001:db8::1%lo", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:0201", "192.0.2.1"),
        ("fe80::1%nosuch0", "fe80::1%nosuch0"),
    ],
)
def test_each_address_has_one_spelling(spelling: str, expected: str) -> None:
    assert canonical(spelling) == expected


def test_ipv4_in_ipv6_is_ipv4_for_what_sockets_tell_too() -> None:
    assert normalise(("::ffff:127.0.0.1", 5, 0, 0)) == Endpoint("127.0.0.1", 5)


@pytest.mark.parametrize(
    ("typed", "host", "port"),
    [
        ("203.0.113.7", "203.0.113.7", None),
        (" 203.0.113.7\n", "203.0.113.7", None),
        ("203.0.113.7.", "203.0.113.7", None),
        ("203.0.113.7:1314", "203.0.113.7", 1314),
        ("２０３.0.113.7", "203.0.113.7", None),
        ("203。0。113。7", "203.0.113.7", None),
        ("203.0.113.7\u200b", "203.0.113.7", None),
        ("[2001:DB8::7]", "2001:db8::7", None),
        ("[2001:db8::7]:9", "2001:db8::7", 9),
        ("2001:db8::7:9", "2001:db8::7:9", None),
        ("[::ffff:203.0.113.7]:9", "203.0.113.7", 9),
        ("[fe80::1%lo]:9", "fe80::1%1", 9),
        ("peer.example.org.", "peer.example.org.", None),
        ("peer.example.org:9", "peer.example.org", 9),
        ("7.example", "7.example", None),
        ("0xhost", "0xhost", None),
    ],
)
def test_a_host_is_read_in_one_way_and_a_port_behind_it_too(typed: str, host: str, port: int | None) -> None:
    assert host_and_port(typed) == (host, port)


@pytest.mark.parametrize(
    "typed",
    [
        "010.1.2.3",
        "10.1.2.03",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.",
        "0X7F.1",
    ],
)
def test_what_resolvers_take_for_an_address_each_in_its_own_way_is_refused(typed: str) -> None:
    with pytest.raises(ValueError, match="no IPv4 address: write four numbers"):
        host_and_port(typed)
    with pytest.raises(ValueError, match="no IPv4 address"):
        peer_endpoints((typed, 9))


@pytest.mark.parametrize("typed", ["fe80::1", "[fe80::1]:9", "fe80::1%0", "FE80:0::1"])
def test_a_link_local_address_without_its_link_is_told_so(typed: str) -> None:
    with pytest.raises(ValueError, match="name the interface of this host, as in fe80::1%eth0"):
        host_and_port(typed)


@pytest.mark.parametrize(
    "typed", ["x:y", "[name]", "[name]:5", "a:0", "a:65536", f"a:{'9' * 5000}", "[::1", "::1]:5", ":::"]
)
def test_what_is_neither_a_host_nor_a_host_and_port(typed: str) -> None:
    with pytest.raises(ValueError, match=r"neither an IP address nor a name|the port must lie"):
        host_and_port(typed)


@pytest.mark.parametrize("peer", [("203.0.113.7:9", 9), ("[2001:db8::7]:9", 8), [("peer.example.org:1", 2)]])
def test_a_host_with_a_port_behind_it_is_refused_in_programs(peer: object) -> None:
    with pytest.raises(ValueError, match="name host and port apart, as in"):
        peer_endpoints(peer)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"])
def test_nobody_and_everybody_are_no_peer(host: str) -> None:
    with pytest.raises(ValueError, match="no single host"):
        peer_endpoints((host, 9))


@pytest.mark.parametrize(
    ("address", "how_far"),
    [
        ("127.0.0.1", Reach.HOST),
        ("127.255.0.1", Reach.HOST),
        ("::1", Reach.HOST),
        ("::ffff:127.0.0.1", Reach.HOST),
        ("64:ff9b::127.0.0.1", Reach.HOST),
        ("2002:7f00:1::1", Reach.HOST),
        ("169.254.169.254", Reach.LINK),
        ("fe80::1", Reach.LINK),
        ("10.1.2.3", Reach.SITE),
        ("172.31.0.1", Reach.SITE),
        ("172.32.0.1", Reach.GLOBAL),
        ("192.168.0.1", Reach.SITE),
        ("100.64.0.1", Reach.SITE),
        ("100.128.0.1", Reach.GLOBAL),
        ("fd00::1", Reach.SITE),
        ("64:ff9b::10.0.0.1", Reach.SITE),
        ("0.1.2.3", Reach.NOBODY),
        ("::", Reach.NOBODY),
        ("::7f00:1", Reach.NOBODY),
        ("224.0.0.1", Reach.NOBODY),
        ("240.0.0.1", Reach.NOBODY),
        ("255.255.255.255", Reach.NOBODY),
        ("ff02::1", Reach.NOBODY),
        ("9.9.9.9", Reach.GLOBAL),
        ("203.0.113.1", Reach.GLOBAL),
        ("2001:db8::1", Reach.GLOBAL),
    ],
)
def test_how_far_away_an_address_can_be(address: str, how_far: Reach) -> None:
    assert reach(address) is how_far
    assert [each for each in Reach if refusal(Endpoint(address, 9), each) is None] == [
        each for each in Reach if Reach.NOBODY < how_far >= each
    ]


@given(st.ip_addresses())
def test_every_address_is_somewhere(address: object) -> None:
    assert reach(str(address)) in Reach


@given(st.text())
def test_whatever_is_typed_is_a_host_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        host, port = host_and_port(text)
        assert port is None or 0 < port < 65_536
        assert host_and_port(host) == (host, None)


@pytest.mark.parametrize("typed", ["224.0.0.1", "255.255.255.255", "ff02::1", "::ffff:224.0.0.1"])
def test_what_no_host_can_have_is_no_local_address(typed: str) -> None:
    with pytest.raises(ValueError, match="must be an IP address of this host"):
        own_address(typed)


@pytest.mark.parametrize("text", [5, b"127.0.0.1", None, 10**400])
def test_an_address_that_is_no_text_is_a_type_error(text: Any) -> None:
    for read in (literal, host_and_port, own_address):
        with pytest.raises(TypeError, match="a string, not"):
            read(text)
