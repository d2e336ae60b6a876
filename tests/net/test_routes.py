"""Which way this host would take, and which addresses are its own; nothing is sent."""

from __future__ import annotations

import pytest

from simopen.errors import LocalEndpointError
from simopen.model.endpoint import Endpoint
from simopen.net.routes import is_own, source_address


def test_the_kernel_names_the_address_that_it_would_take() -> None:
    assert source_address(Endpoint("127.0.0.9", 9), None) == "127.0.0.1"


def test_an_address_that_was_named_is_the_one() -> None:
    assert source_address(Endpoint("127.0.0.9", 9), "127.0.0.2") == "127.0.0.2"


def test_a_foreign_address_leads_nowhere() -> None:
    assert source_address(Endpoint("127.0.0.9", 9), "240.0.0.1") is None


@pytest.mark.parametrize(
    ("address", "own"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("240.0.0.9", False), ("::1", True)),
        # Sockets can be bound to all of these.
        *(
            ("0.0.0.0", False),
            ("::", False),
            ("224.0.0.1", False),
            ("255.255.255.255", False),
            ("127.255.255.255", False),
        ),
    ],
)
def test_which_addresses_are_this_hosts(address: str, own: bool) -> None:
    assert is_own(address) is own


def test_without_a_descriptor_nobody_can_ask() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(LocalEndpointError, match="no file descriptors left"):
            source_address(Endpoint("127.0.0.9", 9), None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
