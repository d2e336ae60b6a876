"""Rooms: who is in which, what is kept, and when one ends."""

from __future__ import annotations

import sys

import pytest

from simopen.signalling.server_limits import Accounts, Limits
from simopen.signalling.server_rooms import Kept, Refusal, Room, Rooms

APP, WHOSE = "app", "192.0.2.1"


def rooms(**limits: float) -> Rooms:
    given = Limits(**limits)  # type: ignore[arg-type]
    return Rooms(given, Accounts(given))


def entered(house: Rooms, side: str, name: str = "7", *, now: float = 0.0) -> tuple[Room, object]:
    """A side in the room, with a connection."""
    room, member = house.claim(APP, name, side, WHOSE, now), object()
    house.attach(room, member, side, now)
    house.listen(room, member)
    return room, member


def message(side: str, body: str = "00") -> Kept:
    return Kept(side, "p", body, None, 0.0)


def test_two_have_a_room_and_a_third_does_not() -> None:
    house = rooms()
    assert entered(house, "one")[0] is entered(house, "other")[0]
    with pytest.raises(Refusal, match="crowded"):
        house.claim(APP, "7", "third", WHOSE, 0.0)
    assert entered(house, "one")[0].sides.keys() == {"one", "other"}, "the two go on"


def test_what_is_kept_for_one_address_keeps_no_other_out() -> None:
    house = rooms(kept_bytes_an_address=3_000, kept_bytes=6_000)
    room, _ = entered(house, "one")
    house.add(room, message("one", "00" * 1000), 0.0)
    with pytest.raises(Refusal, match="for this address"):
        house.add(house.claim(APP, "8", "one", WHOSE, 0.0), message("one", "00" * 1000), 0.0)
    house.add(house.claim(APP, "9", "honest", "198.51.100.1", 0.0), message("honest", "00" * 1000), 0.0)
    house.close(room, "one", "happy", 0.0)
    house.add(house.claim(APP, "8", "one", WHOSE, 0.0), message("one", "00" * 1000), 0.0)


def test_another_apps_room_is_another() -> None:
    house = rooms()
    assert house.claim(APP, "7", "one", WHOSE, 0.0) is not house.claim("other app", "7", "one", WHOSE, 0.0)


def test_who_comes_back_has_its_place_and_what_was_kept() -> None:
    house = rooms()
    room, member = entered(house, "one")
    entered(house, "other")
    house.add(room, message("other"), 0.0)
    house.detach(room, member, 1.0)
    again = house.open(APP, room.mailbox, "one", WHOSE, 2.0)
    assert again is room
    assert house.listen(again, object()) == (message("other"),)


def test_who_came_back_under_a_new_name_takes_the_place_of_the_one_that_is_gone() -> None:
    house = rooms()
    room, member = entered(house, "one")
    house.add(room, message("one"), 0.0)
    house.detach(room, member, 1.0)
    entered(house, "one again")
    entered(house, "other")
    assert room.sides.keys() == {"one again", "other"}
    assert room.messages == []
    assert house.size == 0
    with pytest.raises(Refusal, match="crowded"):
        house.claim(APP, "7", "one", WHOSE, 2.0)


def test_who_has_closed_keeps_its_place() -> None:
    """A code is guessed once: whoever guessed wrongly makes no room for the next guess."""
    house = rooms()
    room, member = entered(house, "guesser")
    entered(house, "one")
    house.close(room, "guesser", "scary", 1.0)
    house.detach(room, member, 1.0)
    with pytest.raises(Refusal, match="crowded"):
        house.claim(APP, "7", "guesser again", WHOSE, 2.0)


def test_where_one_has_closed_and_the_other_vanished_the_next_two_have_another_room() -> None:
    house = rooms()
    room, _ = entered(house, "one")
    _, vanishes = entered(house, "other")
    house.close(room, "one", "happy", 1.0)
    house.detach(room, vanishes, 1.0)
    assert house.claim(APP, "7", "other", WHOSE, 2.0) is room, "it may come back"
    following, _ = entered(house, "third")
    assert following is not room
    assert room.gone
    assert entered(house, "fourth")[0] is following
    assert house.moods == {"happy": 1}


def test_a_room_that_both_have_closed_is_gone_by_the_worse_mood() -> None:
    house = rooms()
    room, _ = entered(house, "one")
    entered(house, "other")
    house.close(room, "one", "happy", 1.0)
    assert len(house) == 1
    house.close(room, "other", "scary", 1.0)
    assert (len(house), house.moods) == (0, {"scary": 1})
    assert house.claim(APP, "7", "third", WHOSE, 2.0) is not room


def test_moods_that_are_made_up_are_not_counted_apart() -> None:
    house = rooms()
    for number in range(3):
        room, _ = entered(house, "one", str(number))
        house.close(room, "one", f"mood {number}", 0.0)
    assert house.moods == {"other": 3}


def test_a_released_number_leads_nowhere_once_both_have_let_go_of_it() -> None:
    house = rooms()
    room, _ = entered(house, "one")
    entered(house, "other")
    house.release(APP, "7", "one", 0.0)
    with pytest.raises(Refusal, match="reclaimed"):
        house.claim(APP, "7", "one", WHOSE, 0.0)
    house.release(APP, "7", "other", 0.0)
    assert house.claim(APP, "7", "third", WHOSE, 0.0) is not room
    assert house.find(APP, room.mailbox) is room


def test_numbers_are_short_and_each_is_given_once() -> None:
    house = rooms(rooms=2_000, rooms_an_address=2_000)
    names = [house.allocate(APP, f"side {number}", WHOSE, 0.0) for number in range(1_100)]
    assert len(set(names)) == len(names)
    assert [max(len(name) for name in names[:most]) for most in (9, 99, 999)] == [1, 2, 3]
    assert {len(name) for name in names[999:]} == {4}


def test_an_empty_room_is_kept_for_a_while_and_one_with_somebody_for_longer() -> None:
    house = rooms(unattended_s=10, room_s=100)
    left, member = entered(house, "one", "1")
    stayed, _ = entered(house, "one", "2")
    house.detach(left, member, 0.0)
    assert house.expire(9.0) == []
    assert len(house) == 2
    assert house.expire(11.0) == []
    assert (left.gone, stayed.gone) == (True, False)
    told = [room for now in range(12, 102) for room in house.expire(float(now))]
    assert told == [stayed], "somebody is in it, and should hear that it is over"
    assert house.moods == {"pruney": 2}


def test_what_is_kept_is_bounded() -> None:
    house = rooms(room_messages=3, room_bytes=2000, kept_bytes=3500)
    room, _ = entered(house, "one")
    for _ in range(3):
        house.add(room, message("one"), 0.0)
    with pytest.raises(Refusal, match="full"):
        house.add(room, message("one"), 0.0)
    with pytest.raises(Refusal, match="full"):
        house.add(entered(house, "one", "8")[0], message("one", "00" * 750), 0.0)
    house.add(entered(house, "one", "9")[0], message("one", "00" * 600), 0.0)
    with pytest.raises(Refusal, match="server is full"):
        house.add(entered(house, "one", "10")[0], message("one", "00" * 600), 0.0)


@pytest.mark.parametrize("kept", [Kept("", "", "", None, 0.0), Kept("one", "p", "", "\U0001f600" * 64, 0.0)])
def test_what_is_kept_counts_for_what_it_takes(kept: Kept) -> None:
    texts = (kept.side, kept.phase, kept.body, kept.id)
    held = sys.getsizeof(kept) + sum(sys.getsizeof(each) for each in texts if each)
    assert held <= kept.size <= held + 1_000


def test_rooms_that_have_ended_are_not_remembered() -> None:
    house = rooms(rooms_tried_at_once=100_000)
    for number in range(20_000):
        house.close(house.open(APP, f"mailbox {number}", "one", WHOSE, 0.0), "one", "happy", 0.0)
    assert len(house) == 0
    assert len(house._agenda) <= 1_001
    kept = house.open(APP, "mailbox", "one", WHOSE, 0.0)
    for number in range(2_000):
        house.close(house.open(APP, f"mailbox {number}", "one", WHOSE, 0.0), "one", "happy", 0.0)
    assert not house.expire(1e9, 10_000)
    assert kept.gone


def test_rooms_are_bounded_in_all_and_of_one_address() -> None:
    house = rooms(rooms=3, rooms_an_address=2)
    house.allocate(APP, "a", "one", 0.0)
    house.allocate(APP, "b", "one", 0.0)
    with pytest.raises(Refusal, match="from this address"):
        house.allocate(APP, "c", "one", 0.0)
    house.allocate(APP, "c", "other", 0.0)
    with pytest.raises(Refusal, match="no room left"):
        house.allocate(APP, "d", "other", 0.0)


def test_guessing_is_slow_for_one_address_and_nobody_else_is_harmed() -> None:
    house = rooms(rooms_tried_at_once=5, rooms_tried_a_minute=6)
    waiting = house.allocate(APP, "one", "192.0.2.9", 0.0)
    for name in range(1_000, 1_005):
        house.claim(APP, str(name), f"guesser {name}", "the guesser", 0.0)
    with pytest.raises(Refusal, match="too many codes"):
        house.claim(APP, "1005", "guesser", "the guesser", 0.0)
    assert house.claim(APP, waiting, "other", "192.0.2.10", 0.0).sides.keys() == {"one", "other"}
    house.claim(APP, "2000", "guesser", "the guesser", 10.0)
    assert house.claim(APP, waiting, "one", "192.0.2.9", 10.0), "its own number is no guess, however often"


def test_changes_tell_all_that_a_restart_must_know() -> None:
    house = rooms()
    room, _ = entered(house, "one")
    house.add(room, message("one"), 0.0)
    house.close(room, "one", "happy", 0.0)
    changes = house.changes()
    assert [change.message for change in changes if change.message] == [message("one")]
    assert changes[-1] == (room.key, None, None, None)
    assert house.changes() == []
