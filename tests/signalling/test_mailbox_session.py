"""What a session says, and what it makes of what it hears, without a network."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.errors import RendezvousUnreachable, RoomCrowded, SignallingError
from simopen.signalling.base import Message, Mood
from simopen.signalling.mailbox_session import HEARD_MOST, Session

WHERE = "wss://rendezvous.example.org/v1"


def session() -> Session:
    made = Session(WHERE, "app", "me")
    made.connected()
    return made


def hear(to: Session, kind: str, **values: object) -> None:
    to.hear(json.dumps({"type": kind, **values}))


def said(by: Session) -> list[str]:
    """The kinds of what goes out next."""
    kinds = [json.loads(each)["type"] for each in by.to_say]
    by.to_say.clear()
    return kinds


def opened() -> Session:
    made = session()
    hear(made, "welcome", welcome={})
    made.enter("7")
    hear(made, "claimed", mailbox="m")
    said(made)
    return made


def test_a_first_message_waits_for_no_further_answer() -> None:
    made = session()
    made.enter("7")
    made.send("pake", b"x")
    hear(made, "welcome", welcome={})
    assert said(made) == ["bind", "claim"]
    hear(made, "claimed", mailbox="m")
    assert said(made) == ["open", "add"]


def test_a_new_connection_repeats_only_what_the_server_has_not() -> None:
    made = opened()
    made.send("one", b"1")
    made.send("two", b"2")
    made.connected()
    hear(made, "welcome", welcome={})
    hear(made, "claimed", mailbox="m")
    assert said(made) == ["bind", "claim", "open", "ping"]
    hear(made, "message", side="me", phase="one", body="31")
    hear(made, "pong", pong=2)
    assert [json.loads(each)["phase"] for each in made.to_say] == ["two"]


def test_repeats_and_own_echoes_are_left_out() -> None:
    made = opened()
    made.send("x", b"")
    for _ in range(2):
        hear(made, "message", side="me", phase="x", body="")
        hear(made, "message", side="you", phase="x", body="00")
    assert list(made.inbox) == [Message("x", b"\0")]
    assert not made.expects


def flood(to: Session, body: str) -> None:
    for number in range(HEARD_MOST + 1):
        hear(to, "message", side="you", phase=str(number), body=body)


@pytest.mark.parametrize("body", ["", "00" * 16_000], ids=["many", "long"])
def test_more_than_a_meeting_needs_ends_it(body: str) -> None:
    made = opened()
    with pytest.raises(SignallingError, match="more came"):
        flood(made, body)
    assert sum(len(each.body) for each in made.inbox) < 5_000_000


def test_what_a_server_says_of_itself() -> None:
    made = session()
    stun = ["a.example:3478", "b.example:3479", 5, "no name at all", *["c.example"] * 20]
    hear(made, "welcome", welcome={"motd": "Hello\x1b[2J", "stun": stun, "more": [1]})
    assert made.welcome.motd == "Hello\x1b[2J"
    assert [str(each) for each in made.welcome.stun[:2]] == ["a.example", "b.example:3479"]
    assert len(made.welcome.stun) <= 8


def test_who_is_turned_away_is_told_in_the_servers_words() -> None:
    with pytest.raises(SignallingError, match=r"rendezvous\.example\.org.*closed for \\x1b the night"):
        hear(session(), "welcome", welcome={"error": "closed for \x1b the night"})


@pytest.mark.parametrize("required", [{}, {"none": {}}, {"none": {}, "hashcash": {}}, None, "x"])
def test_no_permission_is_needed(required: object) -> None:
    made = session()
    hear(made, "welcome", welcome={"permission-required": required})
    assert said(made) == ["bind"]


def test_a_stamp_goes_before_all_else() -> None:
    made = session()
    hear(made, "welcome", welcome={"permission-required": {"hashcash": {"bits": 6, "resource": "r"}}})
    assert (said(made), made.challenge is not None) == ([], True)
    made.permit("1:6:...")
    assert said(made) == ["submit-permissions", "bind"]


@pytest.mark.parametrize(
    "required", [{"tea": {}}, {"hashcash": 1}, {"hashcash": {"bits": 60, "resource": "r"}}, {"hashcash": {}}]
)
def test_a_permission_that_cannot_be_had_is_said(required: object) -> None:
    with pytest.raises(SignallingError, match="asks for"):
        hear(session(), "welcome", welcome={"permission-required": required})


@pytest.mark.parametrize("asked", ["claim", "open"])
def test_a_crowded_room_is_said(asked: str) -> None:
    with pytest.raises(RoomCrowded, match=r"room 7 at wss://rendezvous\.example\.org/v1"):
        hear(opened(), "error", error="crowded", orig={"type": asked})


def test_any_other_refusal_is_said() -> None:
    with pytest.raises(SignallingError, match=r"refuses 'add'.*full"):
        hear(opened(), "error", error="the mailbox is full", orig={"type": "add"})


@pytest.mark.parametrize("why", [{}, {"error": None}, {"error": ""}, {"error": ["x"]}])
def test_a_server_that_gives_no_reason_is_not_said_to_give_one(why: dict[str, object]) -> None:
    with pytest.raises(SignallingError, match=r"refuses 'add': it says no reason$"):
        hear(opened(), "error", orig={"type": "add"}, **why)
    made = opened()
    hear(made, "error", **why)
    assert made.last_words == "no reason"


def test_a_room_is_left_whenever_it_is_known() -> None:
    made = session()
    hear(made, "welcome", welcome={})
    made.allocate()
    made.close(Mood.LONELY)
    assert not made.is_closed
    hear(made, "allocated", nameplate="7")
    hear(made, "claimed", mailbox="m")
    assert said(made) == ["bind", "allocate", "claim", "release", "close"]
    hear(made, "closed")
    assert made.is_closed


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe",
        "",
        "[]",
        "[" * 100_000,
        "1e999",
        '{"type": 5}',
        '{"type": "claimed"}',
        '{"type": "message", "side": 1}',
        '{"type": "message", "side": "you", "phase": "x", "body": "0g"}',
        '{"type": "message", "side": "you", "phase": "x", "body": 7}',
        '{"type": "allocated", "nameplate": "x"}',
        '{"type": "welcome", "welcome": {}}',
    ],
)
def test_who_speaks_another_protocol_is_no_rendezvous(data: str | bytes) -> None:
    made = session()
    hear(made, "welcome", welcome={})
    made.allocate()
    made.enter("7")
    if b"message" in (data if isinstance(data, bytes) else data.encode()):
        hear(made, "claimed", mailbox="m")
    with pytest.raises(RendezvousUnreachable, match=r"rendezvous\.example\.org/v1 is no rendezvous"):
        made.hear(data)


@pytest.mark.parametrize("kind", ["claimed", "message", "allocated", "pong"])
def test_nothing_comes_before_the_welcome(kind: str) -> None:
    with pytest.raises(RendezvousUnreachable, match="before any welcome"):
        hear(session(), kind, mailbox="m", nameplate="1", side="s", phase="p", body="")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda each: st.lists(each, max_size=2)
)
_KEYS = st.sampled_from(["type", "welcome", "nameplate", "mailbox", "side", "phase", "body", "error", "orig", "id"])
_KINDS = st.sampled_from(["welcome", "allocated", "claimed", "message", "closed", "error", "pong", "ack", "new"])


@given(st.lists(st.dictionaries(_KEYS, _VALUES | _KINDS, max_size=5), max_size=6))
def test_whatever_is_heard_only_what_is_documented_is_raised(messages: list[dict[str, object]]) -> None:
    made = opened()
    for message in messages:
        try:
            made.hear(json.dumps(message))
        except SignallingError:
            return
