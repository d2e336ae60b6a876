"""One client's conversation, without a network."""

from __future__ import annotations

import json
from typing import Any

import pytest

from simopen.signalling.server_conversation import House
from simopen.signalling.server_limits import Limits
from tests.signalling.clients import Talk


def house(**limits: Any) -> House:
    return House(Limits(**limits))


def test_each_command_is_acknowledged_by_its_id() -> None:
    talk = Talk(house(), "one")
    [first, *_] = talk.hear(json.dumps({"type": "list", "id": "ab12"}).encode())
    assert {"type": "ack", "id": "ab12"}.items() <= json.loads(first.data).items()


def test_the_list_of_rooms_is_empty() -> None:
    here = house()
    Talk(here, "one").ask("allocate")
    assert Talk(here, "other").ask("list")["nameplates"] == []


def test_two_sides_hear_each_other_and_late_what_was_said() -> None:
    here = house()
    one, other = Talk(here, "one"), Talk(here, "other")
    one.enter("7")
    [(to, echo)] = one.say("add", phase="pake", body="aa", id="i1")
    assert (to, echo["body"]) == (one.conversation, "aa")
    mailbox = other.ask("claim", nameplate="7")["mailbox"]
    [(_, late)] = other.say("open", mailbox=mailbox)
    assert (late["side"], late["phase"], late["body"], late["id"]) == ("one", "pake", "aa", "i1")
    assert {to for to, _ in other.say("add", phase="1", body="bb")} == {one.conversation, other.conversation}


def test_a_third_side_is_told_that_it_is_crowded() -> None:
    here = house()
    for side in ("one", "other"):
        Talk(here, side).enter("7")
    assert Talk(here, "third").ask("claim", nameplate="7")["error"] == "crowded"


TOO_SOON: dict[str, dict[str, object]] = {
    "add": {"phase": "p", "body": "00"},
    "release": {},
    "close": {},
}


@pytest.mark.parametrize("kind", TOO_SOON)
def test_what_comes_too_soon_is_an_error_with_the_message(kind: str) -> None:
    answer = Talk(house(), "one").ask(kind, **TOO_SOON[kind])
    assert answer["type"] == "error"
    assert answer["orig"]["type"] == kind


def test_first_of_all_a_client_says_who_it_is() -> None:
    talk = Talk(house())
    assert "bind" in talk.ask("allocate")["error"]
    assert talk.ask("ping", ping=3)["pong"] == 3


def test_what_is_done_once_is_refused_twice() -> None:
    talk = Talk(house(), "one")
    assert "already" in talk.ask("bind", appid="a", side="b")["error"]
    talk.ask("allocate")
    assert "greedy" in talk.ask("allocate")["error"]
    talk.enter("7")
    assert "claim" in talk.ask("claim", nameplate="8")["error"]


def test_what_was_refused_may_be_tried_again() -> None:
    here = house()
    talks = [Talk(here, side) for side in ("one", "other", "third")]
    for talk in talks[:2]:
        talk.enter("7")
    assert talks[2].ask("claim", nameplate="7")["type"] == "error"
    assert talks[2].ask("claim", nameplate="8")["type"] == "claimed"


def test_a_close_whose_answer_was_lost_is_repeated_by_another_connection() -> None:
    here = house()
    mailbox = Talk(here, "one").enter("7")
    again = Talk(here, "one")
    assert again.ask("close", mailbox=mailbox, mood="happy")["type"] == "closed"
    assert len(here.rooms) == 0
    assert Talk(here, "one").ask("close", mailbox=mailbox)["type"] == "closed", "and once more"
    assert len(here.rooms) == 0


def test_who_leaves_keeps_its_place() -> None:
    here = house()
    one = Talk(here, "one")
    mailbox = one.enter("7")
    one.conversation.leave(0.0)
    back = Talk(here, "one")
    assert back.ask("claim", nameplate="7")["mailbox"] == mailbox


def test_who_says_too_much_at_once_is_ended() -> None:
    talk = Talk(house(messages_at_once=10, messages_a_second=1))
    sendings = [sending for _ in range(11) for sending in talk.hear(b'{"type": "ping", "ping": 1}')]
    assert sendings[-1].last == "too many messages"
    assert [sending.last for sending in sendings[:-1]] == [None] * 20


def test_who_talks_nonsense_is_ended_after_a_while() -> None:
    talk = Talk(house(bad_messages=3))
    assert [talk.hear(b"nonsense")[-1].last is not None for _ in range(3)] == [False, False, True]


def test_the_welcome_says_what_it_is_told() -> None:
    sending = Talk(house()).conversation.welcome({"motd": "hello"}, 1.0)
    assert json.loads(sending.data)["welcome"] == {"motd": "hello"}
