"""One client's conversation with a mailbox server: each message that it sends, and all that this makes go out.

Theory of operation. A client binds itself to an app and a side, has one nameplate and one mailbox a connection, and
each command once (server-protocol.md). A command is acknowledged at once, by its `id`; what it makes go out, to this
client and to others in its room, is returned as `Sending`s in order. Nothing is sent here, and nothing raised: what
cannot be done is answered by `error`, with the message it is about.

Pure: bytes and times in, `Sending`s out. `now` is seconds of any clock that never steps; `at_s` is UTC, in seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from simopen.signalling import server_messages as messages
from simopen.signalling.server_limits import Accounts, Bucket, Limits
from simopen.signalling.server_messages import BadMessage, encode
from simopen.signalling.server_rooms import Kept, Refusal, Room, Rooms

DEFAULT_MOOD = "happy"
ANEW = "this side has connected anew"


@dataclass(frozen=True, slots=True)
class Sending:
    """Bytes of one message, for one client. `last`: the connection ends after it, for a reason in these words.

    `may_return`: though it may connect again. `data`: empty where there is nothing else to say.
    """

    to: Conversation
    data: bytes
    last: str | None = None
    may_return: bool = False


class House:
    """What all conversations of a server share. `counts`: what has happened, by name."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.accounts = Accounts(limits)
        self.rooms = Rooms(limits, self.accounts)
        self.counts: Counter[str] = Counter()


class Conversation:
    """One client's. `whose`: the address that its budgets are of (`server_limits.owner`)."""

    __slots__ = ("_bad", "_house", "_mailbox", "_nameplate", "_once", "_pace", "app", "room", "side", "whose")

    def __init__(self, house: House, whose: str, now: float) -> None:
        self._house = house
        self._pace = Bucket(house.limits.messages_at_once, now)
        self._once: frozenset[type] = frozenset()
        self._nameplate: str | None = None
        self._mailbox: str | None = None
        self._bad = 0
        self.whose = whose
        self.app: str | None = None
        self.side = ""
        self.room: Room | None = None

    def welcome(self, said: Mapping[str, object], at_s: float) -> Sending:
        """What a client hears first. `said`: the server's word of itself."""
        return self._tell("welcome", at_s, welcome=said)

    def hear(self, data: bytes, now: float, at_s: float) -> list[Sending]:
        """Take one message, whatever its bytes are."""
        limits = self._house.limits
        self._house.counts["messages"] += 1
        if self._pace.spend(1, now, a_second=limits.messages_a_second, most=limits.messages_at_once):
            return [self._last("too many messages", at_s)]
        try:
            heard = messages.parse(data)
        except BadMessage as error:
            return self._not_meant(error, at_s)
        return [self._tell("ack", at_s, id=heard.id), *self._answers(heard, now, at_s)]

    def leave(self, now: float) -> None:
        """The connection has ended; the side keeps its place in the room."""
        if self.room is not None:
            self._house.rooms.detach(self.room, self, now)
            self.room = None

    def end(self, why: str, at_s: float) -> Sending:
        """The last word to this client."""
        return self._last(why, at_s)

    def _answers(self, heard: messages.Heard, now: float, at_s: float) -> list[Sending]:
        command = heard.command
        try:
            self._check_turn(command)
            answers = _ANSWERS[type(command)](self, command, heard.id, now, at_s)
        except Refusal as refusal:
            self._house.counts["refused"] += 1
            return [self._tell("error", at_s, error=str(refusal), orig=heard.orig, id=heard.id)]
        self._once |= {type(command)} & _ONCE.keys()
        return answers

    def _check_turn(self, command: messages.Command) -> None:
        if self.app is None and not isinstance(command, messages.Bind | messages.Ping):
            raise Refusal("must bind first")
        if type(command) in self._once:
            raise Refusal(_ONCE[type(command)])

    def _not_meant(self, error: BadMessage, at_s: float) -> list[Sending]:
        self._bad += 1
        self._house.counts["bad"] += 1
        if self._bad >= self._house.limits.bad_messages:
            return [self._last("too many messages that cannot be understood", at_s)]
        ack = [self._tell("ack", at_s, id=error.id)] if error.id is not None else []
        return [*ack, self._tell("error", at_s, error=error.said, orig=error.orig)]

    def _tell(self, kind: str, at_s: float, **values: object) -> Sending:
        return Sending(self, encode(kind, **values, server_tx=at_s))

    def _replaced(self, now: float) -> Sending:
        """Its side has come by another connection: this one is lost, and its client does not know it yet."""
        self.leave(now)
        return Sending(self, b"", last=ANEW, may_return=True)

    def _last(self, why: str, at_s: float) -> Sending:
        return Sending(self, encode("error", error=why, orig={}, server_tx=at_s), last=why)

    def _reply(self, kind: str, number: messages.Id, at_s: float, **values: object) -> list[Sending]:
        """A direct answer bears the `id` of what it answers, and when that came."""
        return [self._tell(kind, at_s, **values, id=number, server_rx=at_s)]

    def _bind(self, command: messages.Bind, number: messages.Id, now: float, at_s: float) -> list[Sending]:
        self.app, self.side = command.app, command.side
        return []

    def _ping(self, command: messages.Ping, number: messages.Id, now: float, at_s: float) -> list[Sending]:
        return self._reply("pong", number, at_s, pong=command.number)

    def _list(self, command: messages.ListRooms, number: messages.Id, now: float, at_s: float) -> list[Sending]:
        """Empty: who may see where somebody waits can take the place of whom he waits for."""
        return self._reply("nameplates", number, at_s, nameplates=[])

    def _allocate(self, command: messages.Allocate, number: messages.Id, now: float, at_s: float) -> list[Sending]:
        name = self._house.rooms.allocate(self._app, self.side, self.whose, now)
        return self._reply("allocated", number, at_s, nameplate=name)

    def _claim(self, command: messages.Claim, number: messages.Id, now: float, at_s: float) -> list[Sending]:
        room = self._house.rooms.claim(self._app, command.nameplate, self.side, self.whose, now)
        self._nameplate = command.nameplate
        self._be_in(room, now)
        return self._reply("claimed", number, at_s, mailbox=room.mailbox)

    def _release(self, command: messages.Release, number: messages.Id, now: float, at_s: float) -> list[Sending]:
        name = command.nameplate or self._nameplate
        if name is None:
            raise Refusal("release without nameplate must follow claim")
        if self._nameplate not in (None, name):
            raise Refusal("release and claim must use same nameplate")
        self._house.rooms.release(self._app, name, self.side, now)
        return self._reply("released", number, at_s)

    def _open(self, command: messages.Open, number: messages.Id, now: float, at_s: float) -> list[Sending]:
        room = self._house.rooms.open(self._app, command.mailbox, self.side, self.whose, now)
        self._mailbox = command.mailbox
        self._be_in(room, now)
        former = [each for each, side in room.members.items() if side == self.side and isinstance(each, Conversation)]
        ended = [each._replaced(now) for each in former if each is not self]
        return [*ended, *(Sending(self, _message(kept, at_s)) for kept in self._house.rooms.listen(room, self))]

    def _add(self, command: messages.Add, number: messages.Id, now: float, at_s: float) -> list[Sending]:
        if self.room is None or self._mailbox is None:
            raise Refusal("must open mailbox before adding")
        kept = Kept(self.side, command.phase, command.body, number, at_s)
        self._house.rooms.add(self.room, kept, now)
        data = _message(kept, at_s)
        return [Sending(each, data) for each in self.room.listening if isinstance(each, Conversation)]

    def _close(self, command: messages.Close, number: messages.Id, now: float, at_s: float) -> list[Sending]:
        """One that another connection of this side's opened can be closed, too: its answer may have been lost."""
        mailbox = command.mailbox or self._mailbox
        if mailbox is None:
            raise Refusal("close without mailbox must follow open")
        if self._mailbox not in (None, mailbox):
            raise Refusal("open and close must use same mailbox")
        rooms = self._house.rooms
        if self._mailbox is None and self.room is not None and self.room.mailbox != mailbox:
            self.leave(now)
        if (room := self.room or rooms.find(self._app, mailbox)) is not None:
            rooms.close(room, self.side, command.mood or DEFAULT_MOOD, now)
            self.leave(now)
        self._mailbox = None
        return self._reply("closed", number, at_s)

    @property
    def _app(self) -> str:
        assert self.app is not None  # `_answers` has seen to that
        return self.app

    def _be_in(self, room: Room, now: float) -> None:
        """A claim comes before the opening, of the same room as a rule."""
        if self.room is not room:
            self.leave(now)
            self.room = room
            self._house.rooms.attach(room, self, self.side, now)


def _message(kept: Kept, at_s: float) -> bytes:
    return encode(
        "message",
        side=kept.side,
        phase=kept.phase,
        body=kept.body,
        id=kept.id,
        server_rx=kept.at_s,
        server_tx=at_s,
    )


_ONCE: dict[type, str] = {
    messages.Bind: "already bound",
    messages.Allocate: "you already allocated one, don't be greedy",
    messages.Claim: "only one claim per connection",
    messages.Release: "only one release per connection",
    messages.Open: "only one open per connection",
    messages.Close: "only one close per connection",
}
"""Commands that a connection gives once, and what the second one is told. One that was refused may be given again."""
_Answer: TypeAlias = Callable[..., list[Sending]]
_ANSWERS: dict[type, _Answer] = {
    messages.Bind: Conversation._bind,
    messages.Ping: Conversation._ping,
    messages.ListRooms: Conversation._list,
    messages.Allocate: Conversation._allocate,
    messages.Claim: Conversation._claim,
    messages.Release: Conversation._release,
    messages.Open: Conversation._open,
    messages.Add: Conversation._add,
    messages.Close: Conversation._close,
}
