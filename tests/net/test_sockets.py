"""What every socket of a punch is made of."""

from __future__ import annotations

import ipaddress
import logging
import os
import resource
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.errors import ResolutionError
from simopen.model.endpoint import Endpoint, normalise
from simopen.net.sockets import make_room, sockaddr

SIX = st.integers(2**48, 2**128 - 1).map(ipaddress.IPv6Address)  # beyond IPv4's


@given(SIX, st.integers(1, 65535), st.integers(0, 9))
def test_an_ipv6_endpoint_survives_the_socket_form(address: ipaddress.IPv6Address, port: int, scope: int) -> None:
    text = f"{address}%{scope}" if scope and address.is_link_local else str(address)
    endpoint = Endpoint(text, port)
    assert normalise(sockaddr(endpoint)) == endpoint
    assert endpoint.family == socket.AF_INET6
    assert str(endpoint) == f"[{text}]:{port}"


def test_a_scope_that_names_no_interface_is_told() -> None:
    with pytest.raises(ResolutionError, match="no interface named"):
        sockaddr(Endpoint("fe80::1%nosuch0", 80))


def test_a_limit_that_is_raised_for_the_whole_process_is_told(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(os.listdir("/dev/fd")) + 8
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        with caplog.at_level(logging.INFO, "simopen"):
            make_room(4)
            assert not caplog.records  # there was enough
            make_room(64)
        now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert now > few
    (record,) = caplog.records
    assert record.getMessage() == (
        f"this process may now have {now} files open (RLIMIT_NOFILE), not {few}: that many are needed"
    )
