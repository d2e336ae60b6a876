"""The mailbox protocol's words as a server reads and writes them: JSON bytes in, a command out; and back.

Theory of operation. The protocol is magic-wormhole's (server-protocol.md in github.com/magic-wormhole/magic-wormhole-
protocols): each WebSocket message is one JSON object with a `type`. A command that lacks a key, or has a value that
cannot be meant, is `BadMessage`, and nothing else comes out of here, whatever the bytes. Keys that are not known are
ignored. What goes on to another client is what was checked here: strings that are proper Unicode, and no NaN.

Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

LONGEST_NAME = 256
"""Of an app's id, a side, a phase or a mailbox's id, in characters: wormhole's own have 10 to 40."""
LONGEST_NAMEPLATE = 40
"""As in magic-wormhole's server."""
LONGEST_ID = 64
"""Of a message's `id`, which is for its sender's own tracing: four hex digits in wormhole's."""
_HEX = "0123456789abcdefABCDEF"
_QUOTED_MOST = 200

Id: TypeAlias = "str | int | None"


class BadMessage(Exception):  # noqa: N818 - of the protocol, not of this program: it becomes an answer
    """A message that cannot be meant so. `said`: what its sender is told; `orig`: the message as far as it was read."""

    def __init__(self, said: str, orig: object = None, id: Id = None) -> None:
        super().__init__(said)
        self.said = said
        self.orig = orig
        self.id = id


@dataclass(frozen=True, slots=True)
class Bind:
    """Whose rooms, and who: first of all, once a connection."""

    app: str
    side: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Say the same number again."""

    number: int | float | str


@dataclass(frozen=True, slots=True)
class ListRooms:
    """Which nameplates are taken."""


@dataclass(frozen=True, slots=True)
class Allocate:
    """Take a free nameplate."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Which mailbox belongs to this nameplate; the nameplate is taken where it was free."""

    nameplate: str


@dataclass(frozen=True, slots=True)
class Release:
    """The nameplate is no longer needed; None: the one that this connection claimed."""

    nameplate: str | None


@dataclass(frozen=True, slots=True)
class Open:
    """Hear what is in the mailbox, and what comes."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Add:
    """A message to the other side. `body`: in hex."""

    phase: str
    body: str


@dataclass(frozen=True, slots=True)
class Close:
    """This side is done with the mailbox; None: the one that this connection opened."""

    mailbox: str | None
    mood: str | None


Command: TypeAlias = Bind | Ping | ListRooms | Allocate | Claim | Release | Open | Add | Close


@dataclass(frozen=True, slots=True)
class Heard:
    """One command, the `id` that its answers bear, and the whole message as it came."""

    command: Command
    id: Id
    orig: dict[str, object]


def parse(data: bytes) -> Heard:
    """Read one message.

    Raises:
        BadMessage: with the reason. Nothing else, whatever the bytes.
    """
    message = _object(data)
    number = _id(message)
    kind = message.get("type")
    if kind is None:
        raise BadMessage("missing 'type'", message, number)
    read = _COMMANDS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise BadMessage("unknown type", message, number)
    try:
        return Heard(read(message), number, message)
    except _Unmeant as error:
        raise BadMessage(str(error), message, number) from None


def encode(kind: str, **values: object) -> bytes:
    """One message to a client, ASCII alone."""
    try:
        return json.dumps({"type": kind, **values}, separators=(",", ":")).encode("ascii")
    except RecursionError:  # `orig` again: what is nested so deep that it could just be read
        return json.dumps({"type": kind, **values, "orig": None}, separators=(",", ":")).encode("ascii")


class _Unmeant(ValueError):  # noqa: N818
    """A key that is missing, or its value."""


def _object(data: bytes) -> dict[str, object]:
    try:
        message = json.loads(data.decode("utf-8"), parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError, too
        raise BadMessage(f"not JSON in UTF-8: {str(error)[:_QUOTED_MOST]}") from None
    if not isinstance(message, dict):
        raise BadMessage("not a JSON object")
    return message


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    """1e999 would be said again as Infinity, which is no JSON."""
    return _no_number(digits) if math.isinf(number := float(digits)) else number


def _id(message: dict[str, object]) -> Id:
    """None as well for what no client of ours or wormhole's sends: it is not said again to others."""
    number = message.get("id")
    if isinstance(number, str):
        return number if len(number) <= LONGEST_ID and _is_unicode(number) else None
    return number if isinstance(number, int) and number.bit_length() <= 64 else None


def _is_unicode(text: str) -> bool:
    """Half of a surrogate pair is not: JSON's escapes can write it, and nobody can pass it on in UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _text(message: dict[str, object], key: str, *, longest: int = LONGEST_NAME) -> str:
    if key not in message:
        raise _Unmeant(f"{message['type']} requires {key!r}")
    return _checked(message[key], key, longest)


def _checked(value: object, key: str, longest: int) -> str:
    if not isinstance(value, str):
        raise _Unmeant(f"{key!r} must be a string")
    if len(value) > longest or not _is_unicode(value):
        raise _Unmeant(f"{key!r} must be at most {longest} characters of Unicode")
    return value


def _optional(message: dict[str, object], key: str) -> str | None:
    value = message.get(key)
    return None if value is None else _checked(value, key, LONGEST_NAME)


def _bind(message: dict[str, object]) -> Bind:
    return Bind(_text(message, "appid"), _text(message, "side"))


def _ping(message: dict[str, object]) -> Ping:
    number = message.get("ping")
    if isinstance(number, str):
        number = _checked(number, "ping", LONGEST_NAME)
    if not isinstance(number, int | float | str) or (isinstance(number, int) and number.bit_length() > 64):
        raise _Unmeant("ping requires 'ping', a number")
    return Ping(number)


def _nameplate(name: str) -> str:
    if not name or len(name) > LONGEST_NAMEPLATE or not (name.isascii() and name.isdecimal()):
        raise _Unmeant(f"a nameplate is a number of at most {LONGEST_NAMEPLATE} digits")
    return name


def _claim(message: dict[str, object]) -> Claim:
    return Claim(_nameplate(_text(message, "nameplate")))


def _release(message: dict[str, object]) -> Release:
    name = _optional(message, "nameplate")
    return Release(None if name is None else _nameplate(name))


def _add(message: dict[str, object]) -> Add:
    if "body" not in message:
        raise _Unmeant("add requires 'body'")
    body = message["body"]
    if not isinstance(body, str) or len(body) % 2 or body.strip(_HEX):
        raise _Unmeant("'body' must be in hex")
    return Add(_text(message, "phase"), body)


_COMMANDS: dict[str, Callable[[dict[str, object]], Command]] = {
    "bind": _bind,
    "ping": _ping,
    "list": lambda _: ListRooms(),
    "allocate": lambda _: Allocate(),
    "claim": _claim,
    "release": _release,
    "open": lambda message: Open(_text(message, "mailbox")),
    "add": _add,
    "close": lambda message: Close(_optional(message, "mailbox"), _optional(message, "mood")),
}
