"""One side's session with a mailbox server: what is said on each connection, and what comes of each answer.

Theory of operation. The protocol is magic-wormhole's (server-protocol.md in github.com/magic-wormhole/magic-wormhole-
protocols): JSON objects over WebSocket. A session outlives its connections, as the server knows it by its side. What
the user wants is state (a room, the messages, the end), and what is said follows from the state, on each connection
anew. The room is always claimed again: a server that has lost its memory gives both sides the same new mailbox so.

After a repeated `open` comes a `ping`: the server answers in order, so at its `pong` all that the mailbox holds has
come. What of this side's messages was not among it is added then; so a new connection repeats and loses no message.

The room keeps its number until both sides have left, so that a third is told that it is crowded.

A server is not trusted: whatever it says, this raises `SignallingError` or nothing, and keeps a bounded amount.

Pure.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable

from simopen.errors import RendezvousUnreachable, RoomCrowded, SignallingError
from simopen.model.server import Server, read_server
from simopen.model.wording import quoted
from simopen.signalling.base import BODY_MOST, Message, Mood, Welcome, check_body, check_room
from simopen.signalling.hashcash import Challenge

STUN_PORT = 3478
STUN_MOST = 8
HEARD_MOST = 1_000
HEARD_BYTES_MOST = 4_194_304
"""What a peer, or whoever speaks for him, may send in one meeting, which needs some ten messages."""
_NAME_MOST = 256


class Session:
    """`where`: the server, as errors name it. `to_say` is what goes out next; `inbox` what the peer has said."""

    def __init__(self, where: str, app: str, side: str) -> None:
        self.where = where
        self.side = side
        self.welcome = Welcome()
        self.challenge: Challenge | None = None
        self.room: str | None = None
        self.inbox: deque[Message] = deque()
        self.to_say: deque[str] = deque()
        self.welcomes = 0
        self.answers = 0
        self.is_open = False
        self.is_closed = False
        self.last_words: str | None = None
        self._app = app
        self._is_bound = False
        self._wants_number = False
        self._is_entering = False
        self._mailbox: str | None = None
        self._was_open = False
        self._has_all = False
        self._sent: dict[str, bytes] = {}
        self._echoed: set[str] = set()
        self._heard: set[tuple[str, str]] = set()
        self._heard_bytes = 0
        self._mood: Mood | None = None

    # what the user wants

    def allocate(self) -> None:
        """Have the server choose a free room: `room` is its number."""
        self._wants_number = True
        self._say_if_bound("allocate")

    def enter(self, room: str) -> None:
        """Go into a room; `is_open` once that is done."""
        if self._is_entering or (self.room is not None and room != self.room):
            raise SignallingError("one meeting has one room, and this one is in it: connect again for another")
        self.room = check_room(room)
        self._is_entering = True
        self._say_if_bound("claim", nameplate=room)

    def send(self, phase: str, body: bytes) -> None:
        """Give a message to the server as soon as the room is open."""
        if not 0 < len(phase) <= _NAME_MOST or phase in self._sent:
            raise ValueError(f"each message has a phase of its own: {phase!r:.60}")
        self._sent[phase] = check_body(body)
        if self._has_all:
            self._add(phase)

    def close(self, mood: Mood) -> None:
        """Leave the room; `is_closed` once that is done."""
        self._mood = mood
        if self.room is None:
            self.is_closed = not self._wants_number
        elif self._mailbox is not None:
            self._leave()
        else:
            self._say_if_bound("claim", nameplate=self.room)

    # what the network does

    def connected(self) -> None:
        """There is a new connection, on which nothing has been said."""
        self.to_say.clear()
        self._is_bound = self._has_all = self.is_open = False
        self._mailbox = self.challenge = self.last_words = None
        self._echoed.clear()

    def permit(self, stamp: str) -> None:
        """Hand in what `challenge` asks for."""
        self.challenge = None
        self._say("submit-permissions", method="hashcash", stamp=stamp)
        self._begin()

    @property
    def expects(self) -> bool:
        """Whether the server owes an answer, so that its silence is a fault."""
        if not self._is_bound:
            return self.challenge is None
        if self._mood is not None:
            return not self.is_closed
        wants_room = self._is_entering and not self._has_all
        return self._wants_number or wants_room or (self._has_all and len(self._echoed) < len(self._sent))

    @property
    def owes_nothing(self) -> bool:
        """Whether the server has answered all that was asked of it on this connection, as far as anything was."""
        return self._is_bound and not self.expects

    def hear(self, data: str | bytes) -> None:
        """Take one message.

        Raises:
            SignallingError: the server refuses, or what it says is none of the protocol.
        """
        said = self._object(data)
        kind = said.get("type")
        if not isinstance(kind, str):
            raise self._stranger("a message without a type")
        if kind != "welcome" and not self._is_bound and self.challenge is None and kind not in ("ack", "error"):
            raise self._stranger(f"{quoted(kind)} before any welcome")
        if (take := _TAKEN.get(kind)) is not None:
            take(self, said)

    def _object(self, data: str | bytes) -> dict[str, object]:
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            if data[:6] == b"INFO {":
                raise RendezvousUnreachable(
                    f"{self.where} is no mailbox server but NATS: write nats+{self.where}"
                ) from None
            raise self._stranger("what is no JSON") from None
        if not isinstance(said, dict):
            raise self._stranger("what is no JSON object")
        return said

    def _stranger(self, what: str) -> RendezvousUnreachable:
        return RendezvousUnreachable(f"{self.where} is no rendezvous: it sent {what}. Is the URL right?")

    def _text(self, said: dict[str, object], key: str, most: int = _NAME_MOST) -> str:
        value = said.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= most:
            raise self._stranger(f"a {quoted(said['type'])} without a proper {key!r}")
        return value

    def _take_welcome(self, said: dict[str, object]) -> None:
        if self._is_bound or self.challenge is not None:
            raise self._stranger("a second welcome")
        if not isinstance(about := said.get("welcome"), dict):
            raise self._stranger("a welcome that says nothing")
        if (error := about.get("error")) is not None:
            raise SignallingError(f"{self.where} turns everybody away: it says {words_of(error)}")
        motd = about.get("motd")
        self.welcome = Welcome(motd[:2_000] if isinstance(motd, str) else None, _servers(about.get("stun")))
        self.welcomes += 1
        self.challenge = self._asked(about.get("permission-required"))
        if self.challenge is None:
            self._begin()

    def _asked(self, required: object) -> Challenge | None:
        if not isinstance(required, dict) or not required or "none" in required:
            return None
        if not isinstance(asked := required.get("hashcash"), dict):
            ways = ", ".join(map(quoted, list(required)[:4]))
            raise SignallingError(f"{self.where} asks for a permission that simopen has none of: {ways}")
        try:
            return Challenge(asked.get("bits"), asked.get("resource"))  # type: ignore[arg-type]  # looked at there
        except ValueError as error:
            raise SignallingError(f"{self.where} asks for {error}: try another rendezvous") from None

    def _begin(self) -> None:
        """Say who this is, and all that the state asks for."""
        self._is_bound = True
        self._say("bind", appid=self._app, side=self.side)
        if self._wants_number:
            self._say("allocate")
        if self._is_entering or (self._mood is not None and self.room is not None):
            self._say("claim", nameplate=self.room)

    def _take_allocated(self, said: dict[str, object]) -> None:
        room = self._text(said, "nameplate")
        if not self._wants_number:
            return
        try:
            self.room = check_room(room)
        except ValueError:
            raise self._stranger(f"{quoted(room)} as a room's number") from None
        self._wants_number = False
        self.answers += 1
        if self._mood is not None:
            self._say("claim", nameplate=room)

    def _take_claimed(self, said: dict[str, object]) -> None:
        mailbox = self._text(said, "mailbox")
        if self._mailbox is not None or self.room is None:
            return
        self._mailbox = mailbox
        self.answers += 1
        if self._mood is not None:
            self._leave()
            return
        self._say("open", mailbox=mailbox)
        if self._was_open:
            self._say("ping", ping=self.welcomes)
        else:
            self._add_missing()
        self.is_open = self._was_open = True

    def _leave(self) -> None:
        assert self._mood is not None
        self._say_if_bound("release", nameplate=self.room)
        self._say_if_bound("close", mailbox=self._mailbox, mood=self._mood.value)

    def _take_pong(self, said: dict[str, object]) -> None:
        if self.is_open and not self._has_all:
            self.answers += 1
            self._add_missing()

    def _add_missing(self) -> None:
        self._has_all = True
        for phase in self._sent:
            if phase not in self._echoed:
                self._add(phase)

    def _add(self, phase: str) -> None:
        self._say("add", phase=phase, body=self._sent[phase].hex())

    def _take_message(self, said: dict[str, object]) -> None:
        side, phase = self._text(said, "side"), self._text(said, "phase")
        if not self.is_open:
            return
        if side == self.side:
            self._echoed |= {phase} & self._sent.keys()
            self.answers += 1
            return
        if (side, phase) in self._heard:
            return
        self._heard.add((side, phase))
        body = self._body(said)
        self._heard_bytes += len(body)
        if len(self._heard) > HEARD_MOST or self._heard_bytes > HEARD_BYTES_MOST:
            raise SignallingError(f"far more came through {self.where} than a meeting needs: make a new code")
        self.inbox.append(Message(phase, body))

    def _body(self, said: dict[str, object]) -> bytes:
        text = said.get("body")
        if not isinstance(text, str) or len(text) > 2 * BODY_MOST:
            raise self._stranger("a message without a proper 'body'")
        try:
            return bytes.fromhex(text)
        except ValueError:
            raise self._stranger("a message whose body is not in hex") from None

    def _take_closed(self, said: dict[str, object]) -> None:
        if self._mood is not None:
            self.is_closed = True
            self.answers += 1

    def _take_error(self, said: dict[str, object]) -> None:
        why, orig = said.get("error"), said.get("orig")
        asked = orig.get("type") if isinstance(orig, dict) else None
        if self._mood is not None:
            self.is_closed = True
        elif asked is None:
            self.last_words = words_of(why)
        elif asked == "ping":
            self._take_pong(said)
        elif why == "crowded":
            raise RoomCrowded(
                f"room {self.room} at {self.where} has two in it already: the code was used, or somebody "
                "is guessing: make a new code"
            )
        elif asked != "submit-permissions":  # a server need not know it
            raise SignallingError(f"{self.where} refuses {quoted(asked)}: it says {words_of(why)}")

    def _say_if_bound(self, kind: str, **values: object) -> None:
        """Else it is said once the connection is there."""
        if self._is_bound:
            self._say(kind, **values)

    def _say(self, kind: str, **values: object) -> None:
        self.to_say.append(json.dumps({"type": kind, **values}))


def words_of(why: object) -> str:
    """A server's reason, as errors tell it: it may be missing, or no text."""
    return quoted(why) if isinstance(why, str) and why.strip() else "no reason"


def _servers(said: object) -> tuple[Server, ...]:
    found = []
    for name in said[:STUN_MOST] if isinstance(said, list) else ():
        try:
            found.append(read_server(name, STUN_PORT, "a STUN server"))
        except (TypeError, ValueError):
            continue  # a word of advice, which this does not understand
    return tuple(found)


_TAKEN: dict[str, Callable[[Session, dict[str, object]], None]] = {
    "welcome": Session._take_welcome,
    "allocated": Session._take_allocated,
    "claimed": Session._take_claimed,
    "pong": Session._take_pong,
    "message": Session._take_message,
    "closed": Session._take_closed,
    "error": Session._take_error,
}
"""All other kinds are ignored, as the protocol asks."""
