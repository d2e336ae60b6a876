"""What a NAT lets pass of a connection that it follows. That Linux does the same: test_real_routers.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.lab.packet import Flags
from simopen.lab.tracking import IDLE_S, Connection, Phase, Side, begins_anew, follow

SYN, ACK, RST, FIN = Flags.SYN, Flags.ACK, Flags.RST, Flags.FIN
INSIDE, OUTSIDE = Side.INSIDE, Side.OUTSIDE
Segments = list[tuple[Side, Flags]]
OPENED: Segments = [(INSIDE, SYN), (OUTSIDE, SYN | ACK), (INSIDE, ACK)]
segments = st.lists(st.tuples(st.sampled_from(Side), st.sampled_from([SYN, SYN | ACK, ACK, RST, RST | ACK, FIN | ACK])))


def after(passing: Segments) -> Connection:
    """A connection after segments of which none is refused."""
    connection = Connection()
    for side, flags in passing:
        follows = follow(connection, side, flags)
        assert follows is not None, (side, flags)
        connection = follows
    return connection


@pytest.mark.parametrize(
    ("passing", "admitted"),
    [
        ([], False),
        ([(INSIDE, SYN)], True),
        ([(INSIDE, SYN), (OUTSIDE, SYN)], True),
        ([(INSIDE, ACK)], False),
        (OPENED, False),
        ([*OPENED, (OUTSIDE, FIN | ACK)], False),
        ([*OPENED, (OUTSIDE, RST)], False),
        ([*OPENED, (OUTSIDE, RST), (INSIDE, SYN)], False),
    ],
)
def test_a_syn_from_outside_passes_only_while_the_connection_opens(passing: Segments, admitted: bool) -> None:
    assert (follow(after(passing), OUTSIDE, SYN) is not None) is admitted


@pytest.mark.parametrize("side", Side)
def test_a_rst_that_is_the_first_answer_ends_it(side: Side) -> None:
    assert after([(INSIDE, SYN), (side, RST)]).is_over
    assert not after([*OPENED, (side, RST)]).is_over


@pytest.mark.parametrize(
    ("passing", "anew"),
    [
        (OPENED, False),
        ([*OPENED, (INSIDE, RST)], True),
        ([*OPENED, (OUTSIDE, RST)], False),
        ([*OPENED, (INSIDE, FIN | ACK), (OUTSIDE, FIN | ACK)], False),
        ([*OPENED, (INSIDE, FIN | ACK), (OUTSIDE, FIN | ACK), (INSIDE, ACK)], True),
    ],
)
def test_a_syn_opens_a_new_connection_where_the_old_one_was_ended_from_inside(passing: Segments, anew: bool) -> None:
    assert begins_anew(after(passing), SYN) is anew
    assert not begins_anew(after(passing), ACK)


def test_a_peer_that_answers_a_syn_after_its_rst_is_let_in() -> None:
    assert after([*OPENED, (OUTSIDE, RST), (INSIDE, SYN), (OUTSIDE, SYN | ACK)]).phase is Phase.OPEN
    assert after([*OPENED, (OUTSIDE, RST), (OUTSIDE, SYN | ACK)]).phase is Phase.RESET


@given(segments)
def test_nothing_from_outside_opens_anything(said: Segments) -> None:
    connection = Connection()
    for side, flags in said:
        if side is OUTSIDE:
            assert follow(connection, side, flags) is None


@given(segments)
def test_every_phase_that_is_kept_has_an_end(said: Segments) -> None:
    connection = Connection()
    for side, flags in said:
        connection = follow(connection, side, flags) or connection
    assert connection.phase is Phase.NEW or IDLE_S[connection.phase] > 0
