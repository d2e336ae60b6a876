from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.errors import ResolutionError
from simopen.model.endpoint import (
    Endpoint,
    Reach,
    canonical,
    check_port,
    host_and_port,
    local_endpoint,
    normalise,
    own_address,
    peer_endpoints,
    reach,
    refusal,
    server_name,
)
from simopen.net.resolve import MOST_ADDRESSES, look_up, resolve, resolved
from simopen.net.sockets import sockaddr


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


SIX = st.integers(2**48, 2**128 - 1).map(ipaddress.IPv6Address)  # beyond IPv4's


@given(SIX, st.integers(1, 65535), st.integers(0, 9))
def test_an_ipv6_endpoint_survives_the_socket_form(address: ipaddress.IPv6Address, port: int, scope: int) -> None:
    text = f"{address}%{scope}" if scope and address.is_link_local else str(address)
    endpoint = Endpoint(text, port)
    assert normalise(sockaddr(endpoint)) == endpoint
    assert endpoint.family == socket.AF_INET6
    assert str(endpoint) == f"[{text}]:{port}"


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
    with pytest.raises(ValueError, match="no IPv4 address"):
        server_name(f"{typed}:9", 9, "a server")


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


@pytest.mark.parametrize(
    "escape", ["\x1b[31mred", "\x9b2Jx", "a\u202egro.elpmaxe", "a\rb", "a\x00b", "a b", "a\u2028b"]
)
async def test_a_name_that_would_act_on_a_terminal_is_shown_escaped_and_not_looked_up(escape: str) -> None:
    with pytest.raises(ResolutionError, match="no address") as caught:
        await resolve([(escape, 80)])
    assert str(caught.value).isprintable()


async def test_a_long_name_is_told_in_a_short_message() -> None:
    with pytest.raises(ResolutionError) as caught:
        await resolve([("a" * 100_000, 80)])
    assert len(str(caught.value)) < 300


def answering(addresses: list[str]) -> Callable[..., list[Any]]:
    """A resolver that knows one name's addresses."""

    def ask(host: str, port: int, **_: object) -> list[Any]:
        ends = (Endpoint(each, port) for each in addresses)
        return [(each.family, socket.SOCK_STREAM, 6, "", sockaddr(each)) for each in ends]

    return ask


async def test_of_a_name_with_thousands_of_addresses_eight_of_each_family_are_tried() -> None:
    many = [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(4000)] + [f"2001:db8::{n:x}" for n in range(1, 100)]
    found = await resolved([("many.example", 9)], ask=answering(many))
    assert len(found.endpoints) == 2 * MOST_ADDRESSES
    assert "'many.example' has 4099 addresses, of which 16 are tried: [2001:db8::1]:9, " in found.notes[0]
    assert len(found.notes[0]) < 200


async def test_one_address_in_two_spellings_is_one_endpoint() -> None:
    found = await resolved(
        [("twice.example", 9), ("::ffff:127.0.0.1", 9)], ask=answering(["127.0.0.1", "::ffff:127.0.0.1"])
    )
    assert found == ((Endpoint("127.0.0.1", 9),), ())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(24, "Too many open files"), "could not be looked up (Too many open files); is the network up?"),
        (RuntimeError("can't start new thread"), "could not be looked up (can't start new thread)"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "could not be looked up (Temporary failure)"),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable"), "could not be looked up (Non-recoverable)"),
        (socket.gaierror(socket.EAI_NONAME, "Not known"), "has no address (Not known); check its spelling"),
    ],
)
async def test_that_a_name_has_no_address_is_said_where_a_name_server_said_so(error: Exception, told: str) -> None:
    def ask(*_: object, **__: object) -> list[Any]:
        raise error

    with pytest.raises(ResolutionError, match=re.escape(f"the name 'a.example' {told}")):
        await resolved([("a.example", 9)], ask=ask)


@pytest.mark.parametrize("typed", ["224.0.0.1", "255.255.255.255", "ff02::1", "::ffff:224.0.0.1"])
def test_what_no_host_can_have_is_no_local_address(typed: str) -> None:
    with pytest.raises(ValueError, match="must be an IP address of this host"):
        own_address(typed)


def test_a_scope_that_names_no_interface_is_told() -> None:
    with pytest.raises(ResolutionError, match="no interface named"):
        sockaddr(Endpoint("fe80::1%nosuch0", 80))


async def test_literals_are_not_looked_up_and_keep_their_order() -> None:
    found = await resolve([("127.0.0.2", 5), ("::1", 5), ("127.0.0.2", 5), ("127.0.0.2", 6)])
    assert found == (Endpoint("127.0.0.2", 5), Endpoint("::1", 5), Endpoint("127.0.0.2", 6))


async def test_a_name_brings_both_families_ipv6_first() -> None:
    found = await resolve([("localhost", 80)])
    families = [endpoint.family for endpoint in found]
    assert socket.AF_INET in families
    assert families == sorted(families, reverse=True)


@pytest.mark.parametrize("name", ["no..name", "a" * 70, "\ud800"])
async def test_a_name_without_an_address_is_told(name: str) -> None:
    with pytest.raises(ResolutionError, match="no address"):
        await resolve([(name, 80)])


async def test_a_look_up_answers_what_the_resolver_does() -> None:
    found = await look_up("127.0.0.1", 5, socket.SOCK_STREAM)
    assert [each[4] for each in found] == [("127.0.0.1", 5)]
    with pytest.raises(UnicodeError):
        await look_up("no..name", 5, socket.SOCK_STREAM)


SILENT = """
import asyncio, socket, sys, threading
from simopen.net.resolve import look_up

async def main():
    async with asyncio.timeout(0.01):
        await look_up("name.example", 1, socket.SOCK_STREAM, ask=lambda *_, **__: threading.Event().wait())

with asyncio.Runner(loop_factory={loop}) as runner:
    try:
        runner.run(main())
    except TimeoutError:
        print("let go")
"""


@pytest.mark.parametrize("loop", ["asyncio.new_event_loop", "__import__('uvloop').new_event_loop"])
def test_a_resolver_that_is_silent_holds_up_neither_the_loop_nor_the_program(loop: str) -> None:
    program = [sys.executable, "-c", SILENT.replace("{loop}", loop)]
    done = subprocess.run(program, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"let go\n", b"")
