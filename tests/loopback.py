"""Ports for tests on loopback. `from tests.loopback import ports` makes the fixture known where it is used."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

HERE, THERE = "127.0.0.1", "127.0.0.2"
_EVERY = "0.0.0.0"


@contextlib.contextmanager
def kept_ports() -> Iterator[tuple[int, int]]:
    """Two ports that are free on every address, and that the kernel gives to nobody who asks for any, meanwhile."""
    with socket.socket() as one, socket.socket() as other:
        for sock in (one, other):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((_EVERY, 0))
        yield one.getsockname()[1], other.getsockname()[1]


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    """`kept_ports`, while the test runs."""
    with kept_ports() as both:
        yield both
