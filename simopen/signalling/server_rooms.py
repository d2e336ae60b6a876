"""Rooms of a mailbox server: who is in which, what is kept for whom, and when one ends.

Theory of operation. A room is a mailbox that two sides send to and hear from, and, until both know it, the number
(nameplate) that leads to it. A side is a client's own name for itself: who comes back under it is the same one,
whatever connection it comes by, and hears all that was kept. A member is a connection; the rooms only tell them apart.

At most two sides have a room. Where a third comes by the number, and one of the two is not connected, that one has lost
its place, with what it had sent: it was left behind by a program that ended, and its user has come back under a new
name. So what holds a room is a connection that lives, which is why the server must ping. Whoever has closed the room
keeps its place as long as the other one is in it: a code is guessed at once, and not twice.

A room ends when both sides have closed it, when one has, the other is not connected, and a third comes by the number,
who has another one then; when nobody has been connected to it for a while, or when it is too old.

Pure: `now` is seconds of any one clock that never steps. What is to be remembered through a restart is told as
`Change`s, as far as somebody takes them.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from simopen.signalling.server_agenda import Agenda
from simopen.signalling.server_limits import Accounts, Limits

MOST_SIDES = 2
_SIZES = range(1, 8)  # digits of a nameplate that is allocated
_DENSE = 3  # up to so many digits all numbers are given before longer ones are
_TRIES = 16
_ID_BYTES = 16
_EACH_BYTES = 512
_FEW_GONE = 1_000

Key: TypeAlias = tuple[str, str]


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """What cannot be done in these rooms. The words go to the client: `crowded` and `reclaimed` are the protocol's."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One message in a mailbox, as its sender gave it. `at_s`: when it came, UTC."""

    side: str
    phase: str
    body: str
    id: str | int | None
    at_s: float

    @property
    def size(self) -> int:
        """Bytes that it counts for: about what it takes of memory."""
        texts = (self.body, self.phase, self.side, str(self.id))
        return _EACH_BYTES + sum(len(each) if each.isascii() else 4 * len(each) for each in texts)


@dataclass(slots=True, eq=False)
class Room:
    """One mailbox. Times as `now` has them.

    `sides`: each one's mood once it has closed, None while it has not. `claims`: who holds the nameplate; False: has
    released it. `members`: the connections in it, each with its side; `listening`: those that hear its messages.
    """

    app: str
    mailbox: str
    nameplate: str | None
    whose: str
    born_s: float
    touched_s: float
    sides: dict[str, str | None] = field(default_factory=dict)
    claims: dict[str, bool] = field(default_factory=dict)
    members: dict[Hashable, str] = field(default_factory=dict)
    listening: list[Hashable] = field(default_factory=list)
    messages: list[Kept] = field(default_factory=list)
    size: int = 0
    gone: bool = False

    @property
    def key(self) -> Key:
        """What it is found by."""
        return self.app, self.mailbox


class Change(NamedTuple):
    """What a restart must know: a room as it is now, a message that was added, or (both None) that the room is gone.

    `dropped`: the side whose messages are gone.
    """

    key: Key
    room: Room | None = None
    message: Kept | None = None
    dropped: str | None = None


class Rooms:
    """All rooms of a server. `random`: a number below the one given, as `secrets.randbelow`.

    `moods`: how rooms ended, by the worst that one of the sides said; `pruney` for those that ended by time.
    """

    def __init__(self, limits: Limits, accounts: Accounts, *, random: Callable[[int], int] = secrets.randbelow) -> None:
        self._limits = limits
        self._accounts = accounts
        self._random = random
        self._by_mailbox: dict[Key, Room] = {}
        self._by_nameplate: dict[Key, Room] = {}
        self._short: Counter[tuple[str, int]] = Counter()
        self._agenda: Agenda[Room] = Agenda()
        self._changes: list[Change] = []
        self.size = 0
        self.moods: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._by_mailbox)

    @property
    def waiting(self) -> int:
        """Rooms with one side alone; takes as long as there are rooms."""
        return sum(len(room.sides) < MOST_SIDES for room in self._by_mailbox.values())

    def changes(self) -> list[Change]:
        """What has changed since this was last asked."""
        taken, self._changes = self._changes, []
        return taken

    def all_as_changes(self) -> list[Change]:
        """All that there is, for a memory that has nothing."""
        rooms = self._by_mailbox.values()
        return [
            change
            for room in rooms
            for change in (Change(room.key, room), *(Change(room.key, room, each) for each in room.messages))
        ]

    def allocate(self, app: str, side: str, whose: str, now: float) -> str:
        """A free nameplate, as short as there is one, claimed for this side.

        Raises: Refusal.
        """
        name = self._free_nameplate(app)
        room = self._begin(app, _new_mailbox(), name, whose, now)
        room.claims[side] = True
        room.sides[side] = None
        self._changed(room)
        return name

    def claim(self, app: str, name: str, side: str, whose: str, now: float) -> Room:
        """The room that the nameplate leads to, a new one where it led nowhere; the side has a place there now.

        Raises: Refusal.
        """
        room = self._by_nameplate.get((app, name))
        if room is None or side not in room.claims:
            self._count_try(whose, now)
        if room is not None and side not in room.sides and _is_over(room):
            self._end(room, _worst(room.sides.values()))
            room = None
        if room is None:
            room = self._begin(app, _new_mailbox(), name, whose, now)
        if room.claims.get(side) is False:
            raise Refusal("reclaimed")
        self._give_place(room, side, replace=True)
        room.claims[side] = True
        self._touched(room, now)
        return room

    def release(self, app: str, name: str, side: str, now: float) -> None:
        """This side, if it claimed the nameplate, needs it no more; when neither does, it leads nowhere."""
        room = self._by_nameplate.get((app, name))
        if room is None or side not in room.claims:
            return
        room.claims[side] = False
        if not any(room.claims.values()):
            self._drop_nameplate(room)
        self._touched(room, now)

    def open(self, app: str, mailbox: str, side: str, whose: str, now: float) -> Room:
        """The mailbox, a new one where there was none; the side has a place there now.

        Raises: Refusal.
        """
        room = self._by_mailbox.get((app, mailbox)) or self._begin(app, mailbox, None, whose, now)
        self._give_place(room, side, replace=False)
        self._touched(room, now)
        return room

    def find(self, app: str, mailbox: str) -> Room | None:
        """The mailbox, where there is one."""
        return self._by_mailbox.get((app, mailbox))

    def attach(self, room: Room, member: Hashable, side: str, now: float) -> None:
        """This connection of the side's is in the room; nothing is sent to it yet."""
        room.members[member] = side
        room.touched_s = now

    def listen(self, room: Room, member: Hashable) -> tuple[Kept, ...]:
        """Let it hear what comes from now on; returns what is there."""
        room.listening.append(member)
        return tuple(room.messages)

    def detach(self, room: Room, member: Hashable, now: float) -> None:
        """This connection is no longer in the room. Its side keeps its place."""
        room.members.pop(member, None)
        if member in room.listening:
            room.listening.remove(member)
        room.touched_s = now

    def add(self, room: Room, message: Kept, now: float) -> None:
        """Keep one more message.

        Raises: Refusal.
        """
        if room.gone:
            raise Refusal("the room has ended")
        if len(room.messages) >= self._limits.room_messages or room.size + message.size > self._limits.room_bytes:
            raise Refusal("the mailbox is full")
        if self.size + message.size > self._limits.kept_bytes:
            raise Refusal("this server is full: try again later")
        if not self._resize(room, message.size):
            raise Refusal("too much is kept for this address: try again later")
        room.messages.append(message)
        room.touched_s = now
        self._changes.append(Change(room.key, room, message))

    def close(self, room: Room, side: str, mood: str, now: float) -> None:
        """This side is done. When all sides are, the room is gone."""
        if room.gone or side not in room.sides:
            return
        room.sides[side] = mood
        if None in room.sides.values():
            self._touched(room, now)
        else:
            self._end(room, _worst(room.sides.values()))

    def expire(self, now: float, most: int = 1_000) -> list[Room]:
        """End those whose time is over, of so many at most; returns those with somebody in it to be told."""
        told = []
        for room in self._agenda.due(now, most):
            if room.gone:
                continue
            if room.members:
                room.touched_s = now
            if now < (at_s := self._ends_s(room)):
                self._agenda.put(at_s, room)
                continue
            told += [room] if room.members else []
            self._end(room, "pruney")
        return told

    def restore(self, rooms: Iterable[Room], now: float) -> None:
        """Take up what was kept before a restart, as if all had been connected until now."""
        for room in rooms:
            room.born_s = room.touched_s = now
            room.size = 0
            self._by_mailbox[room.key] = room
            if room.nameplate is not None:
                self._lead(room, room.nameplate)
            self._resize(room, sum(each.size for each in room.messages))
            self._agenda.put(self._ends_s(room), room)

    def _ends_s(self, room: Room) -> float:
        return min(room.touched_s + self._limits.unattended_s, room.born_s + self._limits.room_s)

    def _count_try(self, whose: str, now: float) -> None:
        if wait_s := self._accounts.try_room(whose, now):
            raise Refusal(f"too many codes tried from this address: try again in {wait_s:.0f} s")

    def _begin(self, app: str, mailbox: str, nameplate: str | None, whose: str, now: float) -> Room:
        if len(self._by_mailbox) >= self._limits.rooms:
            raise Refusal("this server has no room left: try again later")
        if (why := self._accounts.take_room(whose)) is not None:
            raise Refusal(why)
        room = Room(app, mailbox, nameplate, whose, born_s=now, touched_s=now)
        self._by_mailbox[room.key] = room
        if nameplate is not None:
            self._lead(room, nameplate)
        self._agenda.put(self._ends_s(room), room)
        return room

    def _lead(self, room: Room, nameplate: str) -> None:
        self._by_nameplate[room.app, nameplate] = room
        self._short[room.app, len(nameplate)] += nameplate[0] != "0"

    def _drop_nameplate(self, room: Room) -> None:
        if room.nameplate is None:
            return
        del self._by_nameplate[room.app, room.nameplate]
        size = (room.app, len(room.nameplate))
        self._short[size] -= room.nameplate[0] != "0"
        if not self._short[size]:
            del self._short[size]
        room.nameplate = None

    def _give_place(self, room: Room, side: str, *, replace: bool) -> None:
        """A closed side that comes again is open again: its `close` may have been lost, and comes once more."""
        if side not in room.sides and len(room.sides) >= MOST_SIDES:
            absent = [each for each, mood in room.sides.items() if mood is None and each not in room.members.values()]
            if not (replace and absent):
                raise Refusal("crowded")
            self._drop_side(room, absent[0])
        room.sides[side] = None

    def _drop_side(self, room: Room, side: str) -> None:
        del room.sides[side]
        room.claims.pop(side, None)
        kept = [each for each in room.messages if each.side != side]
        self._resize(room, sum(each.size for each in kept) - room.size)
        room.messages = kept
        self._changes.append(Change(room.key, room, dropped=side))

    def _touched(self, room: Room, now: float) -> None:
        room.touched_s = now
        self._changed(room)

    def _changed(self, room: Room) -> None:
        self._changes.append(Change(room.key, room))

    def _resize(self, room: Room, by: int) -> bool:
        """Whether its address may have so much; nothing is changed where it may not."""
        if room.whose and not self._accounts.keep(room.whose, by):  # what was restored is nobody's
            return False
        room.size += by
        self.size += by
        return True

    def _end(self, room: Room, mood: str) -> None:
        self._drop_nameplate(room)
        self._resize(room, -room.size)
        del self._by_mailbox[room.key]
        if room.whose:  # what was restored is nobody's
            self._accounts.leave_room(room.whose)
        self.moods[mood] += 1
        room.gone = True
        room.messages = []
        self._changes.append(Change(room.key))
        if len(self._agenda) > 2 * len(self) + _FEW_GONE:
            self._agenda.keep(lambda each: not each.gone)

    def _free_nameplate(self, app: str) -> str:
        for size in _SIZES:
            first, count = 10 ** (size - 1), 9 * 10 ** (size - 1)
            if self._short[app, size] == count:
                continue
            for _ in range(_TRIES):
                if (app, name := str(first + self._random(count))) not in self._by_nameplate:
                    return name
            if size <= _DENSE:
                names = (str(first + number) for number in range(count))
                return self._pick([name for name in names if (app, name) not in self._by_nameplate])
        raise Refusal("no nameplate is free: try again later")

    def _pick(self, names: list[str]) -> str:
        return names[self._random(len(names))]


def _is_over(room: Room) -> bool:
    """Whether two had it, one has closed it, and the other has vanished without that: both are done."""
    there = set(room.members.values())
    open_ = [side for side, mood in room.sides.items() if mood is None]
    return len(open_) < len(room.sides) >= MOST_SIDES and there.isdisjoint(open_)


def _new_mailbox() -> str:
    """Nobody guesses it: who knows it may hear what is in it."""
    return secrets.token_hex(_ID_BYTES)


_FROM_BEST = ("happy", "lonely", "errory", "scary")
"""The protocol's moods. Any other is counted as `other`, so that nobody fills the accounts with words of his own."""


def _worst(moods: Iterable[str | None]) -> str:
    ranks = [_FROM_BEST.index(mood) if mood in _FROM_BEST else -1 for mood in moods if mood is not None]
    return _FROM_BEST[max(ranks)] if max(ranks, default=-1) >= 0 else "other"
