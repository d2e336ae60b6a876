"""What two sides say to each other, played without a network: who confirms, who asks, and who is turned away."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simopen.errors import SignallingError, WrongCode
from simopen.rendezvous import exchange
from simopen.rendezvous.exchange import Derive, Exchange, Go, Peer, Send
from simopen.rendezvous.pake import Pake
from simopen.rendezvous.sealing import BODY_BYTES, Channel

A, B, C = "a" * 16, "b" * 16, "c" * 16
RIGHT, WRONG = b"right", b"wrong"


class Side:
    """An exchange with its PAKE, and what it has to send. `works_ns`: for a key."""

    def __init__(self, name: str, secret: bytes = RIGHT, began_ns: int = 0, is_long: bool = False, **more: Any) -> None:
        self.pake = Pake(secret, "7")
        self.said = Exchange(name, self.pake.message, began_ns, is_long=is_long, **more)
        self.out: list[Send] = [self.said.first]
        self.now_ns = self.works_ns = 0

    def hear(self, phase: str, body: bytes) -> None:
        self._do(self.said.hear(phase, body, self.now_ns, self.now_ns))

    def _do(self, actions: list[Send | Derive]) -> None:
        for each in actions:
            if isinstance(each, Send):
                self.out.append(each)
            else:
                key = self.pake.finish(each.message)
                there_ns = self.now_ns + self.works_ns
                self._do(self.said.keyed(each.theirs, key, there_ns, there_ns))

    @property
    def peer(self) -> Peer:
        assert self.said.peer is not None
        return self.said.peer


def settle(*sides: Side, order: Callable[[list[Send]], list[Send]] = list) -> None:
    """Pass on all that there is to pass on."""
    while any(side.out for side in sides):
        for side in sides:
            out, side.out = order(side.out), []
            for message in out:
                for other in sides:
                    if other is not side:
                        other.hear(message.phase, message.body)


def met() -> tuple[Side, Side]:
    one, other = Side(A), Side(B)
    settle(one, other)
    return one, other


def test_the_same_code_confirms_on_both_sides() -> None:
    one, other = met()
    assert one.peer.channel.link_key == other.peer.channel.link_key
    assert not one.said.begun


@pytest.mark.parametrize("sides", [("source", "store"), ("source", None), (None, "store")])
def test_sides_of_two_names_or_of_one_confirm(sides: tuple[str | None, str | None]) -> None:
    one, other = Side(A, side=sides[0]), Side(B, side=sides[1])
    settle(one, other)
    assert one.peer.channel.link_key == other.peer.channel.link_key


def test_two_of_one_name_are_no_peers_and_both_learn_of_it() -> None:
    one, other = Side(A, side="source"), Side(B, side="source")
    other.hear(one.said.first.phase, one.said.first.body)
    one.hear(other.said.first.phase, other.said.first.body)
    for side, theirs in ((one, other), (other, one)):
        with pytest.raises(SignallingError, match="it is this side, once more"):
            side.hear(theirs.out[-1].phase, theirs.out[-1].body)


@pytest.mark.parametrize("purposes", [(("give", "take"), ("take", "give")), (("talk", "talk"), None)])
def test_two_whose_purposes_fit_or_are_not_said_confirm(purposes: Any) -> None:
    one, other = (Side(name, purpose=purpose) for name, purpose in zip((A, B), purposes, strict=True))
    settle(one, other)
    assert one.peer.channel.link_key == other.peer.channel.link_key


@pytest.mark.parametrize("theirs", [("take", "give"), ("talk", "talk"), ("\x1b[2J", "anything")])
def test_two_that_are_there_for_what_does_not_fit_are_both_told(theirs: tuple[str, str]) -> None:
    one, other = Side(A, purpose=("take", "give")), Side(B, purpose=theirs)
    other.hear(one.said.first.phase, one.said.first.body)
    one.hear(other.said.first.phase, other.said.first.body)
    for side, peer in ((one, other), (other, one)):
        with pytest.raises(SignallingError, match="the two do not fit") as told:
            side.hear(peer.out[-1].phase, peer.out[-1].body)
        assert "'take'" in str(told.value)
        assert str(told.value).isprintable()


@pytest.mark.parametrize("waited_ns", [0, 10**9, 10**12])
def test_one_asks_for_the_time_the_one_that_came_later(waited_ns: int) -> None:
    one, other = Side(A, began_ns=-waited_ns), Side(B)
    settle(one, other)
    assert one.peer.asks is not other.peer.asks
    assert other.peer.asks or not waited_ns


def test_what_a_key_takes_is_no_waiting() -> None:
    one, other = Side(A, began_ns=-5_000_000), Side(B)
    other.works_ns = 50_000_000
    settle(one, other)
    assert other.peer.asks
    assert not one.peer.asks


def test_another_code_is_told_to_both() -> None:
    one, other = Side(A), Side(B, WRONG)
    other.hear(one.said.first.phase, one.said.first.body)
    one.hear(other.said.first.phase, other.said.first.body)
    for side, theirs in ((one, other), (other, one)):
        with pytest.raises(WrongCode, match="new code"):
            side.hear(theirs.out[-1].phase, theirs.out[-1].body)


def test_one_is_told_whether_the_guess_was_right_and_no_second_before_it_has_confirmed() -> None:
    one, guess, second = Side(A), Side(B, WRONG), Side(C, WRONG)
    for each in (guess, second):
        one.hear(each.said.first.phase, each.said.first.body)
    assert [each.phase for each in one.out] == [f"{A}-pake", f"{A}-{B}-0"]
    second.hear(one.said.first.phase, one.said.first.body)
    with pytest.raises(WrongCode):
        one.hear(second.out[-1].phase, second.out[-1].body)


def test_who_was_told_and_left_without_a_word_has_had_the_one_guess() -> None:
    """Another one that confirms is told so, as it may be the peer; and is no peer any more, as it may be no other."""
    one, guess, comes = Side(A), Side(B, WRONG), Side(C)
    one.now_ns = 2 * exchange.SOON_NS
    one.hear(guess.said.first.phase, guess.said.first.body)
    settle(one, comes)
    assert one.said.peer is None
    assert "guessed" in str(one.said.burnt)
    last = exchange.bye(one.said.begun[C], str(one.said.burnt))
    comes.hear(last.phase, last.body)
    assert "guessed" in str(comes.peer.bye)


def test_over_a_slow_rendezvous_who_was_there_before_has_not_guessed() -> None:
    one, dead, comes = Side(A), Side(B), Side(C)
    one.said.entered(exchange.SOON_NS)  # a round trip
    one.now_ns = 2 * exchange.SOON_NS
    one.hear(dead.said.first.phase, dead.said.first.body)
    settle(one, comes)
    assert one.said.burnt is None
    assert one.peer.channel.theirs == C


@pytest.mark.parametrize("is_first", [True, False])
def test_what_a_dead_side_has_left_in_the_room_misleads_nobody(is_first: bool) -> None:
    one, dead, comes = Side(A), Side(B), Side(C)
    settle(one, dead)
    left = [dead.said.first, one.said.first] if is_first else [one.said.first, dead.said.first]
    for message in left:
        comes.hear(message.phase, message.body)
    settle(one, comes)
    assert comes.peer.channel.theirs == A
    assert one.peer.channel.theirs == C


def test_a_long_secret_stands_many_who_only_begin() -> None:
    one, gone, comes = Side(A, is_long=True), Side(B), Side(C)
    one.hear(gone.said.first.phase, gone.said.first.body)
    settle(one, comes)
    assert one.peer.channel.theirs == C


def test_a_peer_that_comes_anew_takes_the_place_of_the_former() -> None:
    one, _ = met()
    former, anew = one.peer, Side(C)
    anew.hear(one.said.first.phase, one.said.first.body)
    settle(one, anew)
    assert one.peer is not former
    assert one.peer.channel.link_key == anew.peer.channel.link_key


def test_who_comes_after_the_peer_and_guesses_wrong_ends_it() -> None:
    one, _ = met()
    guess = Side(C, WRONG)
    guess.hear(one.said.first.phase, one.said.first.body)
    with pytest.raises(WrongCode):
        settle(one, guess)


def test_reversed_and_doubled_messages_change_nothing() -> None:
    one, other = Side(A), Side(B)
    settle(one, other, order=lambda out: out[::-1] * 2)
    one.out += [exchange.hello(one.peer, 1, "TICKET"), exchange.go(one.peer, 1, Go(5, -6, 7))]
    other.out += [exchange.ask(other.peer, 3) for _ in range(4)]
    settle(one, other, order=lambda out: out[::-1] * 2)
    assert other.peer.hellos[1].ticket == "TICKET"
    assert other.peer.hellos[1].sealed == one.peer.own_hellos[1].sealed
    assert other.peer.goes[1] == Go(5, -6, 7)
    assert len(other.peer.samples) == 4


def test_what_is_sent_back_or_is_strange_is_passed_over() -> None:
    one, other = met()
    one.hear(one.said.first.phase, one.said.first.body)
    one.hear("version", b"{}")
    one.hear(f"{B}-{A}-7", bytes(658))
    one.out.append(exchange.bye(one.peer, "enough"))
    settle(one, other)
    assert other.peer.bye == "enough"


def test_questions_are_answered_so_many_times_and_no_more() -> None:
    one, other = met()
    for _ in range(40):
        other.out.append(exchange.ask(other.peer, 0))
    for each in other.out:
        one.hear(each.phase, each.body)
    assert len(one.out) == 16


@pytest.mark.parametrize("why", ["", "x" * 5000, "é\U0001f600\n" * 500, "\x1b[31m" * 300])
def test_any_reason_fits(why: str) -> None:
    one, other = met()
    one.out += [exchange.over(one.peer, 1, why, is_final=True), exchange.bye(one.peer, why)]
    settle(one, other)
    assert other.peer.overs[1].is_final
    assert why.startswith(other.peer.bye or "")


SAID = st.one_of(
    st.binary(max_size=BODY_BYTES),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()[:BODY_BYTES]),
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["hi", "ask", "answer", "hello", "go", "over", "done", "bye"])},
        optional={
            name: st.none() | st.integers() | st.text(max_size=9) | st.booleans()
            for name in ("round", "ticket", "at", "difference", "bound", "number", "came", "left", "why", "waited")
        },
    ).map(lambda value: json.dumps(value).encode()[:BODY_BYTES]),
)


@settings(max_examples=60)
@given(st.lists(SAID, max_size=4), st.booleans())
def test_whatever_a_peer_with_the_code_says_is_taken_or_refused(said: list[bytes], begins: bool) -> None:
    one = Exchange(A, bytes(33), 0)
    one.hear(f"{B}-pake", b"S" + bytes(32), 0, 0)
    one.keyed(B, bytes(32), 0, 0)
    theirs = Channel(bytes(32), B, A)
    opening = [b'{"kind":"hi","waited":3}'] if begins else []
    with contextlib.suppress(SignallingError):
        for body in [*opening, *said]:
            one.hear(*theirs.seal(body), 0, 0)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text(max_size=40), st.binary(max_size=40)), max_size=8))
def test_whatever_strangers_say_is_passed_over(heard: list[tuple[str, bytes]]) -> None:
    one = Exchange(A, bytes(33), 0)
    for phase, body in heard:
        assert one.hear(phase, body, 0, 0) == []
