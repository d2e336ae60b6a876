"""What a NAT lets pass of a connection that it follows. That Linux does the same: test_real_routers.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.lab.nat.connection_tracking import IDLE_S, Connection, Phase, Sender, begins_anew, follow
from simopen.lab.packet import Flags, Numbers

SYN, ACK, RST, FIN = Flags.SYN, Flags.ACK, Flags.RST, Flags.FIN
INSIDE, OUTSIDE = Sender.INSIDE, Sender.OUTSIDE
Segments = list[tuple[Sender, Flags]]
OPENED: Segments = [(INSIDE, SYN), (OUTSIDE, SYN | ACK), (INSIDE, ACK)]
segments = st.lists(
    st.tuples(st.sampled_from(Sender), st.sampled_from([SYN, SYN | ACK, ACK, RST, RST | ACK, FIN | ACK]))
)


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


@pytest.mark.parametrize("side", Sender)
def test_a_rst_that_is_the_first_answer_ends_it(side: Sender) -> None:
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


# A connection whose numbers begin at 1000 inside and 5000 outside; inside takes 100 << 2 bytes, outside 1000 << 7.
INSIDE_SYN = (INSIDE, SYN, Numbers(1000, 0, 1001, 60_000, 2))
OUTSIDE_SYN = (OUTSIDE, SYN | ACK, Numbers(5000, 1001, 5001, 60_000, 7))
INSIDE_ACK = (INSIDE, ACK, Numbers(1001, 5001, 1001, 100))
OUTSIDE_DATA = (OUTSIDE, ACK, Numbers(5001, 1001, 5011, 1000))
Numbered = list[tuple[Sender, Flags, Numbers]]
NUMBERED: Numbered = [INSIDE_SYN, OUTSIDE_SYN, INSIDE_ACK]


def told(passing: Numbered, connection: Connection | None = None) -> Connection:
    connection = connection or Connection()
    for side, flags, numbers in passing:
        follows = follow(connection, side, flags, numbers)
        assert follows is not None, (side, flags, numbers)
        connection = follows
    return connection


@pytest.mark.parametrize(
    ("passing", "side", "seq", "phase"),
    [
        # what the other side expects next; further on, within its window, and the next; beyond; before
        (NUMBERED, OUTSIDE, 5001, Phase.RESET),
        (NUMBERED, OUTSIDE, 5002, Phase.DOUBTED),
        (NUMBERED, OUTSIDE, 5401, Phase.DOUBTED),
        (NUMBERED, OUTSIDE, 5402, Phase.OPEN),
        (NUMBERED, OUTSIDE, 5800, Phase.OPEN),
        (NUMBERED, OUTSIDE, 5801, None),
        (NUMBERED, OUTSIDE, 5000, None),
        (NUMBERED, OUTSIDE, 0, None),
        (NUMBERED, INSIDE, 1001, Phase.RESET),
        (NUMBERED, INSIDE, 61_001, Phase.DOUBTED),  # a SYN's window has no scale
        (NUMBERED, INSIDE, 61_002, Phase.OPEN),
        (NUMBERED, INSIDE, 121_001, None),
        ([*NUMBERED, OUTSIDE_DATA], INSIDE, 129_001, Phase.DOUBTED),
        ([*NUMBERED, OUTSIDE_DATA], INSIDE, 129_002, Phase.OPEN),
        # just behind its sender's data, and after somebody else's segment
        ([*NUMBERED, OUTSIDE_DATA], OUTSIDE, 5011, Phase.RESET),
        ([*NUMBERED, OUTSIDE_DATA, INSIDE_ACK], OUTSIDE, 5011, Phase.DOUBTED),
        # an older ACK that comes late
        ([*NUMBERED, (INSIDE, ACK, Numbers(1001, 5011, 1001, 100)), INSIDE_ACK], OUTSIDE, 5011, Phase.RESET),
        # a window of nothing; only one side that offers a scale; no SYN seen at all
        ([*NUMBERED, (INSIDE, ACK, Numbers(1001, 5001, 1001, 0))], OUTSIDE, 5002, Phase.DOUBTED),
        ([*NUMBERED, (INSIDE, ACK, Numbers(1001, 5001, 1001, 0))], OUTSIDE, 5003, None),
        ([INSIDE_SYN, (OUTSIDE, SYN | ACK, Numbers(5000, 1001, 5001, 60_000)), INSIDE_ACK], OUTSIDE, 5201, None),
        ([INSIDE_ACK], OUTSIDE, 5001 + (100 << 14), Phase.RESET),
        ([INSIDE_ACK], OUTSIDE, 5002 + (100 << 14), Phase.OPEN),
        ([INSIDE_ACK], OUTSIDE, 5001 + (200 << 14), None),
        # not assured yet
        (NUMBERED[:2], INSIDE, 1002, Phase.RESET),
        (NUMBERED[:2], INSIDE, 1000, None),
        ([INSIDE_ACK, OUTSIDE_DATA], INSIDE, 1002, Phase.RESET),
        ([INSIDE_ACK, OUTSIDE_DATA, INSIDE_ACK], INSIDE, 1002, Phase.DOUBTED),
        # who has said nothing believes all, and so does who has just asked anew
        ([INSIDE_SYN], OUTSIDE, 99, Phase.RESET),
        ([INSIDE_SYN, OUTSIDE_SYN], OUTSIDE, 99, Phase.RESET),
        ([*NUMBERED, INSIDE_SYN], OUTSIDE, 0, Phase.RESET),
        # one that closes needs no number
        ([*NUMBERED, (INSIDE, FIN | ACK, Numbers(1001, 5001, 1002, 100))], OUTSIDE, 99, Phase.RESET),
    ],
)
def test_a_rst_ends_an_open_connection_only_where_its_number_is_right(
    passing: Numbered, side: Sender, seq: int, phase: Phase | None
) -> None:
    follows = follow(told(passing), side, RST, Numbers(seq, 0, seq, 0))
    assert (follows and follows.phase) is phase


def test_numbers_wrap() -> None:
    """The peer's first is the last but one of all."""
    syn = (OUTSIDE, SYN | ACK, Numbers(2**32 - 2, 1001, 2**32 - 1, 100, 7))
    acks = [(INSIDE, ACK, Numbers(1001, ack, 1001, 100)) for ack in (2**32 - 1, 3)]
    for passing, expected in ((acks[:1], 2**32 - 1), (acks, 3)):
        connection = told([INSIDE_SYN, syn, *passing])
        resets = (Numbers((expected + ahead) % 2**32, 0, 0, 0) for ahead in (0, 4, 400, 401, 800, -1))
        phases = [(follows := follow(connection, OUTSIDE, RST, numbers)) and follows.phase for numbers in resets]
        assert phases == [Phase.RESET, Phase.DOUBTED, Phase.DOUBTED, Phase.OPEN, None, None]


@pytest.mark.parametrize(("side", "flags", "phase"), [(OUTSIDE, ACK, Phase.OPEN), (INSIDE, FIN | ACK, Phase.CLOSING)])
def test_a_connection_that_was_doubted_goes_on(side: Sender, flags: Flags, phase: Phase) -> None:
    doubted = told([*NUMBERED, (OUTSIDE, RST, Numbers(5002, 0, 5002, 0))])
    assert not begins_anew(doubted, SYN)
    assert follow(doubted, OUTSIDE, SYN) is None
    assert told([(side, flags, Numbers(1, 1, 1, 1))], doubted).phase is phase


@given(segments)
def test_without_numbers_every_rst_is_believed(said: Segments) -> None:
    connection = Connection()
    for side, flags in said:
        connection = follow(connection, side, flags) or connection
        assert connection.phase is Phase.NEW or RST not in flags or connection.phase is Phase.RESET


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
