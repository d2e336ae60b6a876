"""What two sides of a transfer say: records of JSON, and a file's data between them.

Theory of operation. Pure: values in, bytes out, and back. Over a link, which proves who speaks and tells every cut:

    sender                              receiver
    Offer
                                        Refused, or what it has already: Has ..., Accepted
    Folder, File, data ..., End ...
    Complete
                                        Received, once all of it is on disk under its own name

Either may say Failed, instead of anything, and that is the last. Each is one frame: a byte that says which kind, the
length in four, the bytes. Records are small, and all that is in them is judged here.
"""

from __future__ import annotations

import dataclasses
import json
import re
import struct
from asyncio import IncompleteReadError, StreamReader
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from simopen.errors import TransferError
from simopen.model.wording import quoted, shortened

VERSION = 1
MOST_DATA = 2**18
_MOST_RECORD = 2**20
_HEAD = struct.Struct(">cI")
PIECE = MOST_DATA - _HEAD.size
"""Of a file, at once: with its head as much as a link takes at once, which seals no record for the last few bytes."""
_RECORD, _DATA = b"r", b"d"
MOST_NAMES = 500
MOST_TEXT = 2**16
_MOST_BYTES = 2**63 - 1
MOST_FILES = 10**7
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Offer:
    """What is to be sent: how many files, and bytes of them, under which names; or a text.

    `size` is None for a stream that ends when it ends.
    """

    version: int
    names: tuple[str, ...]
    files: int
    folders: int
    size: int | None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The receiver does not want it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Has:
    """The first bytes of a file that an earlier transfer has left at the receiver."""

    path: str
    start: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """Send it."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder, which may stay empty; before what is in it."""

    path: str


@dataclass(frozen=True, slots=True)
class File:
    """A file, whose data follows from `start` on."""

    path: str
    size: int | None
    start: int
    executable: bool


@dataclass(frozen=True, slots=True)
class End:
    """The file's data has ended; what all of it is."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Complete:
    """All files have been sent."""


@dataclass(frozen=True, slots=True)
class Received:
    """All files are on disk."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there will be no more."""

    reason: str


Message: TypeAlias = Offer | Refused | Has | Accepted | Folder | File | End | Complete | Received | Failed
_KINDS: dict[str, type[Message]] = {
    kind.__name__.lower(): kind
    for kind in (Offer, Refused, Has, Accepted, Folder, File, End, Complete, Received, Failed)
}


def record(message: Message) -> bytes:
    """A message as its frame."""
    told = {"is": type(message).__name__.lower(), **dataclasses.asdict(message)}
    raw = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
    return _HEAD.pack(_RECORD, len(raw)) + raw


def data(piece: bytes) -> bytes:
    """A piece of the file that was named last, `MOST_DATA` at most, as its frame."""
    return _HEAD.pack(_DATA, len(piece)) + piece


def failed(reason: str) -> bytes:
    """`Failed`, in what fits."""
    return record(Failed(shortened(reason, 1000)))


async def read(reader: StreamReader) -> Message | bytes:
    """The next message, or piece of data.

    Raises: TransferError for what is neither, and where the stream ends; OSError where it breaks.
    """
    try:
        kind, length = _HEAD.unpack(await reader.readexactly(_HEAD.size))
        if kind not in (_RECORD, _DATA) or length > (_MOST_RECORD if kind == _RECORD else MOST_DATA):
            raise TransferError("the peer does not speak as `simopen send` and `receive` do; is it another command?")
        raw = await reader.readexactly(length)
    except IncompleteReadError as error:
        raise TransferError("the peer left before all was done") from error
    return raw if kind == _DATA else parsed(raw)


def parsed(raw: bytes) -> Message:
    """A record's bytes as what they say. Raises: TransferError."""
    try:
        told = json.loads(raw)
        kind = _KINDS[told.pop("is")]
        fields = {field.name: _FIELDS[field.name](told[field.name]) for field in dataclasses.fields(kind)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TransferError(f"the peer said what nobody can read: {quoted(raw)}") from error
    return kind(**fields)


def _version(value: Any) -> int:
    if value != VERSION:
        raise TransferError("the peer speaks another version of this; install the same simopen on both sides")
    return VERSION


def _count(most: int) -> Callable[[Any], int]:
    def judged(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise ValueError
        return value

    return judged


def _or_none(judge: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else judge(value)


def _text(most: int) -> Callable[[Any], str]:
    def judged(value: Any) -> str:
        if type(value) is not str or len(value.encode()) > most:
            raise ValueError
        return value

    return judged


def _names(value: Any) -> tuple[str, ...]:
    if type(value) is not list or len(value) > MOST_NAMES:
        raise ValueError
    return tuple(map(_text(MOST_TEXT), value))


def _sha256(value: Any) -> str:
    if not _SHA256.fullmatch(value):
        raise ValueError
    return str(value)


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "version": _version,
    "names": _names,
    "files": _count(MOST_FILES),
    "folders": _count(MOST_FILES),
    "size": _or_none(_count(_MOST_BYTES)),
    "message": _or_none(_text(MOST_TEXT)),
    "reason": _text(MOST_TEXT),
    "path": _text(MOST_TEXT),
    "start": _count(_MOST_BYTES),
    "sha256": _sha256,
    "executable": _bool,
}
