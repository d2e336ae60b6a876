"""Ports that are listened on: of names and addresses, those that are taken, and those that cannot be."""

from __future__ import annotations

import errno
import socket

import pytest

from simopen.apps.forward.ports import listening
from simopen.errors import LocalEndpointError
from tests.loopback import HERE, kept_ports


async def test_each_address_of_a_name_is_listened_at() -> None:
    with kept_ports() as (port, _):
        socks = await listening("localhost", port)
        families = {each[0] for each in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
        assert {each.family for each in socks} <= families
        for each in socks:
            socket.create_connection(each.getsockname()).close()
            each.close()


async def test_one_port_under_two_names_is_taken() -> None:
    with kept_ports() as (port, _):
        socks = await listening(HERE, port)
        with pytest.raises(LocalEndpointError, match=f"cannot use localhost:{port} .*has it") as raised:
            await listening("localhost", port)
        assert raised.value.errno == errno.EADDRINUSE
        for each in socks:
            each.close()


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("nobody.invalid", "the name 'nobody.invalid' (has no address|could not be looked up)"),
        ("203.0.113.1", "that address is not this host's"),
        ("127.1", "'127.1' is no IPv4 address"),
        ("a b", "the name 'a b' has no address, as no host can be named so"),
    ],
)
async def test_what_is_not_this_hosts_is_told_in_this_programs_words(host: str, why: str) -> None:
    with pytest.raises(LocalEndpointError, match=f"cannot use {host}:1024 on this host: {why}") as raised:
        await listening(host, 1024)
    assert "while attempting" not in str(raised.value)
