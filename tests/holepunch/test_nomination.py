"""Which stream is kept, and that nobody is left with two or none. The races themselves are in test_plan_in_lab.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.holepunch.nomination import MOST_OFFERED, Condition, Nomination, Offer, Verdict
from simopen.holepunch.retry import grace_ns
from simopen.model.times import MonoNs

MS, S = 1_000_000, 1_000_000_000
SILENT, SPOKEN, RESET = Condition.SILENT, Condition.SPOKEN, Condition.RESET
PARTS = [None, True, False]


def nomination(*, chooses: bool | None, better_may_come: bool = True) -> Nomination:
    return Nomination(chooses=chooses, coming=lambda _: better_may_come)


def offer(rank: int = 0, took_ns: int = 20 * MS, waited_ns: int = 40 * MS, *, named: bool = True) -> Offer:
    return Offer(rank, took_ns, waited_ns, named)


def looked(choice: Nomination, found: Mapping[Any, Condition], at_ns: int | None = None) -> Verdict:
    """Look when it is time."""
    assert choice.due_ns is not None
    return choice.judge(found, MonoNs(choice.due_ns if at_ns is None else at_ns))


@pytest.mark.parametrize("chooses", [None, True])
def test_what_nothing_can_better_is_looked_at_at_once_and_kept(chooses: bool | None) -> None:
    choice = nomination(chooses=chooses, better_may_come=False)
    choice.offer("only", offer(3), MonoNs(7 * S))
    assert choice.due_ns == 7 * S
    assert looked(choice, {"only": SILENT}) == Verdict("only")


@pytest.mark.parametrize(
    ("chooses", "wait_ns"), [(None, grace_ns(40 * MS)), (True, 3 * MS)], ids=["both choose", "chooses"]
)
def test_for_a_better_one_it_is_waited_a_little(chooses: bool | None, wait_ns: int) -> None:
    """Whoever chooses is done before the other side, which waits longer than the handshake took, believes."""
    choice = nomination(chooses=chooses)
    choice.offer("first", offer(2, took_ns=6 * MS), MonoNs(0))
    choice.offer("second", offer(1), MonoNs(MS))
    assert choice.due_ns == wait_ns
    assert looked(choice, {"first": SILENT, "second": SILENT}) == Verdict("second")


def test_of_one_rank_that_with_the_named_endpoint_is_better_and_then_the_first() -> None:
    choice = nomination(chooses=None)
    choice.offer("from another port", offer(named=False), MonoNs(0))
    choice.offer("first", offer(), MonoNs(0))
    choice.offer("second", offer(), MonoNs(0))
    assert looked(choice, dict.fromkeys(choice.streams, SILENT)).kept == "first"


@pytest.mark.parametrize("chooses", PARTS)
def test_what_has_been_reset_is_not_kept(chooses: bool | None) -> None:
    choice = nomination(chooses=chooses)
    choice.offer("best", offer(0), MonoNs(0))
    choice.offer("other", offer(1), MonoNs(0))
    assert looked(choice, {"best": RESET, "other": SILENT}) == Verdict("other", ("best",))


@pytest.mark.parametrize("chooses", PARTS)
def test_where_all_have_been_reset_nothing_is_left(chooses: bool | None) -> None:
    choice = nomination(chooses=chooses)
    choice.offer("only", offer(), MonoNs(0))
    assert looked(choice, {"only": RESET}) == Verdict(None, ("only",))
    assert choice.streams == ()
    assert choice.due_ns is None


@pytest.mark.parametrize("chooses", PARTS)
@pytest.mark.parametrize("named", [True, False])
def test_of_one_pair_alone_a_reset_is_no_choice_but_an_end(chooses: bool | None, *, named: bool) -> None:
    choice = Nomination(chooses=chooses, coming=lambda _: False, alone=True)
    choice.offer("from another port", offer(named=False), MonoNs(0))
    choice.offer("only", offer(named=named), MonoNs(0))
    verdict = looked(choice, dict.fromkeys(choice.streams, RESET))
    if named and chooses is not False:
        assert verdict == Verdict("only", ("from another port",))
    else:
        assert verdict == Verdict(None, ("from another port", "only"))


def test_who_follows_believes_in_what_no_rst_has_come_for_in_a_round_trip() -> None:
    choice = nomination(chooses=False)
    choice.offer("only", offer(took_ns=80 * MS), MonoNs(0))
    assert choice.due_ns == 140 * MS
    assert looked(choice, {"only": SILENT}, 139 * MS) == Verdict()
    assert choice.due_ns == 140 * MS
    assert looked(choice, {"only": SILENT}) == Verdict("only")


@pytest.mark.parametrize("speaks", [False, True], ids=["resets the other", "speaks"])
def test_who_follows_keeps_what_the_peer_keeps_however_late_that_shows(*, speaks: bool) -> None:
    """The first one's round trip is long over, and the peer's loop has been busy elsewhere."""
    choice = nomination(chooses=False)
    choice.offer("first", offer(), MonoNs(0))
    choice.offer("second", offer(), MonoNs(0))
    while choice.due_ns is not None and choice.due_ns < S:
        assert looked(choice, {"first": SILENT, "second": SILENT}) == Verdict()
    found = {"first": SILENT, "second": SPOKEN} if speaks else {"first": RESET, "second": SILENT}
    assert looked(choice, found).kept == "second"


def test_who_follows_and_is_told_nothing_takes_one_in_the_end() -> None:
    """The RST may have been lost on the way."""
    choice = nomination(chooses=False)
    choice.offer("first", offer(), MonoNs(0))
    choice.offer("second", offer(), MonoNs(5 * MS))
    looks = 0
    while not (verdict := looked(choice, {"first": SILENT, "second": SILENT})).kept:
        looks += 1
    assert verdict == Verdict("first")
    assert 90 < looks < 110


def test_who_follows_looks_when_the_earliest_is_due() -> None:
    choice = nomination(chooses=False)
    choice.offer("slow", offer(took_ns=10 * S), MonoNs(0))
    assert choice.due_ns == S + 20 * MS
    choice.offer("fast", offer(took_ns=0), MonoNs(0))
    assert choice.due_ns == 20 * MS


@pytest.mark.parametrize("chooses", PARTS)
def test_as_the_window_ends_the_best_that_waits_is_taken(chooses: bool | None) -> None:
    choice = nomination(chooses=chooses)
    choice.hurry(MonoNs(S))
    assert choice.due_ns is None, "there is nothing to take yet"
    for stream, rank in (("worse", 1), ("best", 0)):
        choice.offer(stream, offer(rank), MonoNs(S))
    choice.hurry(MonoNs(S))
    assert choice.due_ns == S
    assert looked(choice, {"worse": SILENT, "best": SILENT}) == Verdict("best")


@pytest.mark.parametrize("chooses", PARTS)
def test_of_thousands_only_a_few_wait_and_the_better_one_wins(chooses: bool | None) -> None:
    """Somebody else at the peer's address, behind the same NAT, before and after the peer itself."""
    choice = nomination(chooses=chooses)
    crowded_out = [choice.offer(number, offer(1, named=False), MonoNs(0)) for number in range(1500)]
    crowded_out.append(choice.offer("peer", offer(1), MonoNs(0)))
    crowded_out += [choice.offer(1500 + number, offer(1, named=False), MonoNs(0)) for number in range(1500)]
    assert len(choice.streams) == MOST_OFFERED
    assert crowded_out.count(None) == MOST_OFFERED
    assert "peer" in choice.streams
    choice.hurry(MonoNs(S))
    assert looked(choice, dict.fromkeys(choice.streams, SILENT)).kept == "peer"


@given(
    st.sampled_from(PARTS),
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from(Condition)), min_size=1, max_size=9),
)
def test_one_that_lives_is_kept_in_the_end_and_no_better_one_that_does(
    chooses: bool | None, streams: list[tuple[int, bool, Condition]]
) -> None:
    choice = nomination(chooses=chooses)
    for number, (rank, named, _) in enumerate(streams):
        choice.offer(number, offer(rank, named=named), MonoNs(0))
    found = {number: condition for number, (_, _, condition) in enumerate(streams)}
    verdict = Verdict()
    while verdict.kept is None and choice.due_ns is not None:
        verdict = looked(choice, found)
    alive = [number for number in found if found[number] is not RESET]
    spoken = [number for number in alive if found[number] is SPOKEN] if chooses is False else []
    best = min(alive, key=lambda number: (streams[number][0], not streams[number][1]), default=None)
    assert verdict.kept == (spoken[0] if spoken else best)
