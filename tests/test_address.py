from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.address import (
    Endpoint,
    canonical,
    check_port,
    local_endpoint,
    look_up,
    normalise,
    peer_endpoints,
    resolve,
    sockaddr,
)
from simopen.errors import ResolutionError


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


@given(st.ip_addresses(v=6), st.integers(1, 65535), st.integers(0, 9))
def test_an_ipv6_endpoint_survives_the_socket_form(address: object, port: int, scope: int) -> None:
    text = f"{address}%{scope}" if scope else str(address)
    endpoint = Endpoint(text, port)
    assert normalise(sockaddr(endpoint)) == endpoint
    assert endpoint.family == socket.AF_INET6
    assert str(endpoint) == f"[{text}]:{port}"


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [("2001:DB8::0:1", "2001:db8::1"), ("127.0.0.1", "127.0.0.1"), ("fe80::1%lo", "fe80::1%1")],
)
def test_each_address_has_one_spelling(spelling: str, expected: str) -> None:
    assert canonical(spelling) == expected


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
from simopen.address import look_up

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
