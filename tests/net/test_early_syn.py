"""Seeing a SYN without letting anybody in, on loopback. What a peer makes of it is in test_diagnosis_in_lab.py."""

from __future__ import annotations

import socket

import pytest

from simopen.net import early_syn
from tests.connection_table import connections
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]  # the fixture is used by name
ELSEWHERE = "127.0.0.3"


def knock(source: str, target: str, port: int) -> socket.socket:
    """Send a SYN; loopback delivers it at once."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    sock = socket.socket(family)
    sock.bind((source, 0))
    sock.setblocking(False)
    sock.connect_ex((target, port))
    return sock


@pytest.mark.parametrize("addresses", [[THERE], [ELSEWHERE, THERE]])
def test_a_syn_of_a_peers_address_is_seen_and_not_answered(ports: tuple[int, int], addresses: list[str]) -> None:
    looking = early_syn.EarlySynWatch((HERE, ports[0]), socket.AF_INET, addresses)
    assert not looking.saw()
    with knock(THERE, HERE, ports[0]) as peer:
        assert looking.saw()
        assert looking.saw()
        rows = [row for row in connections(socket.AF_INET) if row.local == peer.getsockname()]
        assert [row.state for row in rows] == ["SYN-SENT"]
    looking.close()


def test_strangers_are_turned_away_and_not_counted(ports: tuple[int, int]) -> None:
    looking = early_syn.EarlySynWatch((HERE, ports[0]), socket.AF_INET, [THERE])
    with knock(ELSEWHERE, HERE, ports[0]) as stranger:
        assert not looking.saw()
        with pytest.raises(ConnectionResetError):
            stranger.recv(1)
    looking.close()


@pytest.mark.parametrize(("addresses", "seen"), [(["::1"], True), (["2001:db8::1"], False), (["::2", "::1"], True)])
def test_ipv6(ports: tuple[int, int], addresses: list[str], seen: bool) -> None:
    looking = early_syn.EarlySynWatch(("::1", ports[0]), socket.AF_INET6, addresses)
    with knock("::1", "::1", ports[0]):
        assert looking.saw() is seen
    looking.close()


@pytest.mark.parametrize("count", [early_syn._MOST_TURNED_AWAY, 1100])
def test_a_flood_of_strangers_proves_nothing(count: int, ports: tuple[int, int]) -> None:
    """Where more come than the queue holds, the kernel drops, and counts, whosever SYN it is."""
    looking = early_syn.EarlySynWatch((HERE, ports[0]), socket.AF_INET, [THERE])
    flood = [knock(ELSEWHERE, HERE, ports[0]) for _ in range(count)]
    assert not looking.saw()
    for sock in flood:
        sock.close()
    with knock(THERE, HERE, ports[0]):
        assert not looking.saw()
    looking.close()


def test_where_somebody_listens_nobody_looks(ports: tuple[int, int]) -> None:
    looking = early_syn.watch((HERE, ports[0]), socket.AF_INET, [THERE])
    assert looking is not None
    looking.close()
    for address in (HERE, "::1"):
        with socket.create_server((address, ports[0]), family=socket.AF_INET6 if ":" in address else socket.AF_INET):
            assert early_syn.watch((HERE, ports[0]), socket.AF_INET, [THERE]) is None


def test_a_port_that_cannot_be_had_is_not_looked_at() -> None:
    with socket.socket() as holder:
        holder.bind((HERE, 0))
        assert early_syn.watch((HERE, holder.getsockname()[1]), socket.AF_INET, [THERE]) is None


def test_once_closed_the_port_refuses_as_ever(ports: tuple[int, int]) -> None:
    looking = early_syn.EarlySynWatch((HERE, ports[0]), socket.AF_INET, [THERE])
    looking.close()
    with socket.socket() as peer:
        peer.bind((THERE, 0))
        with pytest.raises(ConnectionRefusedError):
            peer.connect((HERE, ports[0]))
