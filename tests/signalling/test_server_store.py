"""Rooms on disk."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from simopen.errors import SimopenError
from simopen.signalling.server_conversation import House
from simopen.signalling.server_limits import Limits
from simopen.signalling.server_rooms import Room
from simopen.signalling.server_store import Store
from tests.signalling.clients import Talk


def after(path: Path, house: House) -> dict[str, Room]:
    """What a restart finds, by nameplate."""
    store = Store(path)
    store.write(house.rooms.changes())
    store.close()
    store = Store(path)
    found = {room.nameplate or "": room for room in store.rooms()}
    store.close()
    return found


def test_a_restart_finds_rooms_sides_and_messages(tmp_path: Path) -> None:
    house = House(Limits())
    one = Talk(house, "one")
    mailbox = one.enter("7")
    one.say("add", phase="pake", body="aa", id=5)
    found = after(tmp_path / "state", house)
    again = House(Limits())
    again.rooms.restore(found.values(), 0.0)
    other = Talk(again, "other")
    assert other.ask("claim", nameplate="7")["mailbox"] == mailbox
    [(_, late)] = other.say("open", mailbox=mailbox)
    assert (late["side"], late["body"], late["id"]) == ("one", "aa", 5)
    assert Talk(again, "third").ask("claim", nameplate="7")["type"] == "claimed", "who was there has not come back"


def test_what_is_over_is_not_found(tmp_path: Path) -> None:
    house = House(Limits())
    one = Talk(house, "one")
    one.enter("7")
    one.say("add", phase="pake", body="aa")
    one.ask("close")
    assert after(tmp_path / "state", house) == {}


def test_a_room_that_was_restored_ends_as_any_other(tmp_path: Path) -> None:
    house = House(Limits())
    Talk(house, "one").enter("7")
    again = House(Limits(unattended_s=10))
    again.rooms.restore(after(tmp_path / "state", house).values(), 0.0)
    again.rooms.expire(11.0)
    assert len(again.rooms) == 0


def test_no_address_is_written(tmp_path: Path) -> None:
    house = House(Limits())
    Talk(house, "one", whose="203.0.113.77").enter("7")
    after(tmp_path / "state", house)
    assert b"203.0.113.77" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_two_servers_do_not_share_a_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    with pytest.raises(SimopenError, match="another server has it"):
        Store(tmp_path / "state")
    store.close()


@pytest.mark.parametrize("what", ["text", "another's", "directory", "nowhere"])
def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, what: str) -> None:
    path = tmp_path / "state"
    if what == "text":
        path.write_text("this is no database, and is to stay as it is " * 30)
    elif what == "another's":
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE theirs (x)")
        db.close()
    elif what == "directory":
        path.mkdir()
    else:
        path = tmp_path / "no" / "such" / "place"
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(SimopenError, match="name another file"):
        Store(path)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """Who knows a mailbox's name may hear what is in it."""
    Store(tmp_path / "state").close()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600


def damage(path: Path, what: str) -> None:
    if what == "pages":
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 4096))
        return
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE rooms SET sides = {what}")
    db.close()


@pytest.mark.parametrize("what", ["pages", "'{'", "'7 7'", "'7'", "NULL"])
def test_a_damaged_file_is_told_to_be_one(tmp_path: Path, what: str) -> None:
    house = House(Limits())
    Talk(house, "one").enter("7")
    path = tmp_path / "state"
    after(path, house)
    damage(path, what)
    with (
        pytest.raises(SimopenError, match=r"rooms cannot be kept in .*state.*name another file"),
        contextlib.closing(Store(path)) as store,
    ):
        store.rooms()


def test_what_was_not_written_is_once_it_can_be(tmp_path: Path) -> None:
    house = House(Limits())
    one = Talk(house, "one")
    one.enter("7")
    one.say("add", phase="pake", body="aa")
    store = Store(tmp_path / "state")
    store.write(house.rooms.changes())
    one.ask("close")
    Talk(house, "other").enter("8")
    house.rooms.changes()  # the disk was full
    store.write_anew(house.rooms.all_as_changes())
    assert [room.nameplate for room in store.rooms()] == ["8"]
    store.close()
