"""What people are told where the system refuses something."""

from __future__ import annotations

import errno
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.net.os_errors import connection_reason, local_error, reason


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (OSError("no number"), "no number"),
        (OSError(errno.EPIPE, None), str(OSError(errno.EPIPE, None))),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "Temporary failure"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
    ],
)
def test_the_systems_words_are_told_without_its_number(error: Exception, told: str) -> None:
    assert reason(error) == told


@pytest.mark.parametrize(
    ("number", "local", "told"),
    [
        (errno.EADDRINUSE, "192.0.2.1:1314", "another program has it and does not share it"),
        (errno.EADDRINUSE, "192.0.2.1:0", "every port that the kernel gives out is taken"),
        (errno.EADDRNOTAVAIL, "192.0.2.1:1314", "that address is not this host's"),
        (errno.EADDRNOTAVAIL, "192.0.2.1:0", "that address is not this host's"),
        (errno.EADDRNOTAVAIL, "127.0.0.1:0", "every port that the kernel gives out is taken"),
        (errno.EADDRNOTAVAIL, "0.0.0.0:0", "every port that the kernel gives out is taken"),
        (errno.EACCES, "192.0.2.1:80", "not permitted: ports below 1024"),
        (errno.ENOBUFS, "192.0.2.1:1314", os.strerror(errno.ENOBUFS)),
        (socket.EAI_NONAME, "nowhere.example:80", "Name or service not known"),
    ],
)
def test_a_local_endpoint_that_cannot_be_had_says_why(number: int, local: str, told: str) -> None:
    address, _, port = local.rpartition(":")
    refused = local_error(OSError(number, "Name or service not known"), (address, int(port)))
    assert str(refused).startswith(f"cannot use {local} on this host: {told}")
    assert refused.errno == number


def test_an_error_without_a_number_is_told_too() -> None:
    assert "cannot use" in str(local_error(OSError("odd"), ("192.0.2.1", 9)))


@given(st.integers(1, 200))
def test_whatever_the_errno_a_servers_refusal_has_words(number: int) -> None:
    assert connection_reason(OSError(number, os.strerror(number)))


def test_a_servers_refusal_is_said_of_the_server() -> None:
    assert connection_reason(ConnectionRefusedError(errno.ECONNREFUSED, "x")) == "it refused the connection"


def test_asyncio_s_own_words_of_a_connection_are_not_told() -> None:
    error = OSError(errno.EHOSTUNREACH, "Connect call failed ('192.0.2.1', 80)")
    assert connection_reason(error) == os.strerror(errno.EHOSTUNREACH)
    assert connection_reason(socket.gaierror(socket.EAI_NONAME, "Name or service not known")) == (
        "Name or service not known"
    )
