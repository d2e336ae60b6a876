"""When two sides try that have agreed on no instant: the same rounds on both, whatever their clocks say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.errors import Flaw, TicketError
from simopen.holepunch.rounds import FARTHEST_S, ROUND_S, WINDOW_S, Foreseen, foreseen, next_round
from simopen.lab.nat import model as lab
from simopen.link.handshake import HANDSHAKE_S
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Mapping
from simopen.ticket.codec import Ticket, parse_ticket
from tests.ticket.test_codec import NOW, SIMPLE, discovered

OTHER = replace(
    SIMPLE,
    instant=NOW + 30,
    key=bytes(range(32)),
    profile=replace(SIMPLE.profile, mapped=Endpoint("198.51.100.9", 8), hosts=(Endpoint("192.168.9.9", 1314),)),
)
APDM = Mapping.ADDRESS_AND_PORT_DEPENDENT


def behind(allocation: Allocation, *, spray: bool = False) -> Ticket:
    return replace(discovered(lab.Nat(mapping=APDM, allocation=allocation)), spray=spray)


@given(st.floats(0, 2**32), st.floats(0, 290))
def test_whoever_begins_later_fires_when_the_other_does(begun_s: float, later_s: float) -> None:
    ours, its = next_round(None, begun_s), next_round(None, begun_s + later_s)
    assert ours % ROUND_S == its % ROUND_S == 0
    assert 0 < ours - begun_s <= ROUND_S + 0.5
    while ours < its:
        ours = next_round(None, ours + WINDOW_S)
    assert ours == its


def test_a_mute_stream_of_the_last_moment_costs_no_round() -> None:
    assert next_round(None, NOW + WINDOW_S + HANDSHAKE_S) == NOW + ROUND_S


@given(st.floats(0, 1e9), st.floats(-(2**31), 2**31))
def test_windows_overlap_whatever_the_difference_of_the_clocks_is(now_s: float, off_s: float) -> None:
    """A peer in 1970, or in 2038: where no server tells the time, each goes by its own."""
    ours = next_round(None, now_s + 2**31)
    its = next_round(None, now_s + 2**31 + off_s) - off_s
    apart_s = (its - ours) % ROUND_S
    assert min(apart_s, ROUND_S - apart_s) <= ROUND_S / 2 < WINDOW_S


def test_a_pair_whose_endpoints_are_known_waits_for_no_tickets_instant() -> None:
    assert foreseen(SIMPLE, OTHER) is None


@pytest.mark.parametrize("turned", [False, True])
def test_a_row_of_ports_is_foreseen_for_the_later_instant_on_both_sides(turned: bool) -> None:
    row = behind(Allocation.SEQUENTIAL)
    mine, theirs = (OTHER, row) if turned else (row, OTHER)
    pair = foreseen(mine, parse_ticket(theirs.encode()))
    assert pair == (NOW + 30, False)
    assert next_round(pair, NOW) == NOW + 30
    for late_s in (0.0, 0.1, 8.5, 3600.0):
        after = next_round(pair, NOW + 30 + late_s)
        assert after % ROUND_S == 0
        assert after > NOW + 30 + late_s


@pytest.mark.parametrize(("one", "other"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_spray_waits_for_the_instant_where_both_tickets_allow_it(one: bool, other: bool) -> None:
    lost, known = behind(Allocation.RANDOM, spray=one), replace(OTHER, spray=other)
    for mine, theirs in ((lost, known), (known, lost)):
        assert foreseen(mine, theirs) == ((NOW + 30, True) if one and other else None)


def test_a_spray_has_one_try() -> None:
    assert next_round(Foreseen(NOW, True), NOW - 1) == NOW
    for instant, flaw in ((0, Flaw.EXPIRED), (NOW - 1, Flaw.EXPIRED), (2**32 - 1, Flaw.FAR_AHEAD)):
        with pytest.raises(TicketError, match="run `simopen meet --spray` anew on both sides") as caught:
            next_round(Foreseen(instant, True), NOW)
        assert caught.value.flaw is flaw


def test_nobody_waits_for_an_instant_of_a_wrong_clock() -> None:
    for instant in (0, 2**32 - 1):
        assert next_round(Foreseen(instant, False), NOW) <= NOW + 2 * ROUND_S
    assert next_round(Foreseen(round(NOW + FARTHEST_S), False), NOW) == NOW + FARTHEST_S
