"""The kernel's table against sockets whose state is known."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from simopen.model.endpoint import ANY, Endpoint, normalise
from simopen.net.sock_diag import listens, state
from tests.connection_table import Connection, connections, sockets

FAMILIES = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
family = pytest.mark.parametrize("family", FAMILIES, ids=["v4", "v6"])


@pytest.fixture
def pair(family: socket.AddressFamily) -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server((FAMILIES[family], 0), family=family) as server:
        left = socket.create_connection(server.getsockname()[:2])
        right, _ = server.accept()
    with left, right:
        yield left, right


def ends(sock: socket.socket) -> tuple[Endpoint, Endpoint]:
    return normalise(sock.getsockname()), normalise(sock.getpeername())


def states(local: Endpoint, remote: Endpoint) -> list[str]:
    return [row.state for row in connections(local.family) if (row.local, row.remote) == (local, remote)]


@family
def test_a_listener(family: socket.AddressFamily) -> None:
    with socket.create_server((FAMILIES[family], 0), family=family) as server:
        rows = [row for row in connections(family) if row.local == normalise(server.getsockname())]
    (row,) = rows
    assert (row.remote, row.state) == ((ANY[family], 0), "LISTEN")


ROW = "   {number}: 0100007F:{port} {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0"
NOBODY, PEER = "00000000:0000", "0200007F:0009"


def test_a_socket_of_which_the_kernel_gives_two_rows_is_counted_once() -> None:
    """As the last row has it; two listeners that share a port are two."""
    rows = [
        ROW.format(number=0, port="0007", remote=NOBODY, state="0A", inode=11),
        ROW.format(number=1, port="0007", remote=NOBODY, state="0A", inode=12),
        ROW.format(number=2, port="0007", remote=NOBODY, state="0A", inode=11),
        ROW.format(number=3, port="0008", remote=PEER, state="02", inode=13),
        ROW.format(number=4, port="0008", remote=PEER, state="01", inode=13),
    ]
    here, there = Endpoint("127.0.0.1", 7), Endpoint("127.0.0.2", 9)
    listener = Connection(here, Endpoint(ANY[socket.AF_INET], 0), "LISTEN")
    stream = Connection(here._replace(port=8), there, "ESTABLISHED")
    assert sockets(rows, socket.AF_INET) == [listener, listener, stream]


@family
def test_a_connection_through_its_states(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    here, there = ends(left), ends(right)
    assert states(*here) == states(*there) == ["ESTABLISHED"]
    left.shutdown(socket.SHUT_WR)
    assert right.recv(1) == b""
    assert states(*there) == ["CLOSE-WAIT"]
    while states(*here) == ["FIN-WAIT-1"]:  # until the acknowledgement is in
        time.sleep(0.001)
    assert states(*here) == [state(*here)] == ["FIN-WAIT-2"]
    assert state(*there) == "CLOSE-WAIT"
    right.shutdown(socket.SHUT_WR)
    assert left.recv(1) == b""
    assert states(*here) == [state(*here)] == ["TIME-WAIT"]
    assert state(*there) is None


@family
def test_the_state_of_a_5_tuple(family: socket.AddressFamily, pair: tuple[socket.socket, socket.socket]) -> None:
    local, remote = ends(pair[0])
    assert state(local, remote) == "ESTABLISHED"
    assert state((ANY[family], local.port), remote) == "ESTABLISHED"
    assert state(remote, local) == "ESTABLISHED"
    assert state(local, local) is None
    assert state((local.address, remote.port), remote) is None
    assert state(("127.0.0.9" if family == socket.AF_INET else "::9", local.port), remote) is None


@family
def test_what_listens_on_a_port_has_no_5_tuple(family: socket.AddressFamily) -> None:
    with socket.create_server((FAMILIES[family], 0), family=family) as server:
        local = normalise(server.getsockname())
        assert state(local, Endpoint(local.address, 9)) is None
        assert state((ANY[family], local.port), Endpoint(local.address, 9)) is None


def test_a_peer_without_a_route_has_no_state() -> None:
    assert state((ANY[socket.AF_INET6], 9), Endpoint("fe80::1%4294967295", 9)) is None


@pytest.mark.parametrize("family", [socket.AF_INET6])
def test_a_scope_is_no_part_of_the_table(pair: tuple[socket.socket, socket.socket]) -> None:
    local, remote = ends(pair[0])
    assert state(local, Endpoint(f"{remote.address}%1", remote.port)) == "ESTABLISHED"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_what_listens_is_told_from_what_is_connected(
    family: socket.AddressFamily, pair: tuple[socket.socket, socket.socket]
) -> None:
    connected = ends(pair[0])[0].port
    with socket.create_server(("", 0), family=family) as server:
        port = server.getsockname()[1]
        assert listens(port)
        assert not listens(connected)
    assert not listens(port)
