"""Peers that are met again: what is kept of each, and where.

Theory of operation: two sides that have a link have 32 bytes that nobody else has (`link.keys.seed_bytes`). Of these
each derives a key and the name of a room; the code, by which they may have met, is not in them. Each keeps both under a
name of its own choice, where it wants to; one that has kept them waits in vain for one that has not.

A peer is one file, `NAME.peer`, in the user's data directory (`platformdirs`), which only this user can read. It gets
its name whole, and no other program's file: of two that take one name, one is refused. A name that is known is never
given to another key: that is for a person to decide, who forgets the old one first. A file that others can read is
refused, as one of ssh's is: whoever has what is in it can be taken for either side.

The key is the same at each meeting. Advancing it would show a thief at the next meeting of the two, but would also part
them where one side is killed between its step and the other's, or put back from a backup; and it would not protect
what was said, as each meeting has a key exchange of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import stat
import tempfile
import unicodedata
from asyncio import StreamWriter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simopen.errors import PeerError
from simopen.model.wording import quoted
from simopen.signalling.via import read_via
from simopen.ticket.store import opened

AT = "@"
"""Before a name, where a code may stand."""
LONGEST_NAME = 40
KEY_BYTES = 32
_SUFFIX = ".peer"
_LABEL = b"simopen peer 1\0"
_FORMAT = "simopen peer"
_VERSION = 1
_MOST = 4096
_SINCE = re.compile(r"(\d{4}-\d{2}-\d{2})?", re.ASCII)
_NAME = re.compile(r"\w[\w.-]*")
_ANEW = "meet by a code anew, with --remember on both sides"


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """One that can be met again. Its key and its room are in no repr.

    Attributes:
        name: what it is called here; the peer may call this side something else.
        key: 32 bytes that only the two have.
        room: the name of the room to meet in, which only the two know, and the rendezvous.
        via: the rendezvous that they met by; None where they met without one. It may hold a password.
        allow_plain: whether that was allowed to be spoken to in the clear.
        since: when they met first, as `2026-03-01`.
        side: which of the two this is, another word on each side; None: kept by a version that did not ask.
    """

    name: str
    key: bytes = field(repr=False)
    room: str = field(repr=False)
    via: str | None = field(default=None, repr=False)
    allow_plain: bool = False
    since: str = ""
    side: str | None = None

    def room_for(self, channel: str) -> str:
        """The room's name, for what is said in it: two programs of one peer do not get in each other's way."""
        return f"{self.room} {channel}".strip()


def derived(
    name: str,
    seed: bytes,
    via: str | None = None,
    *,
    allow_plain: bool = False,
    since: str = "",
    side: str | None = None,
) -> KnownPeer:
    """The peer at the other end of a link whose `seed` that is, and whose role there is this `side`."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    def made(what: bytes) -> bytes:
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=_LABEL + what).derive(seed)

    return KnownPeer(checked_name(name), made(b"key"), made(b"room").hex(), via, allow_plain, since, side)


async def remember(
    name: str, writer: StreamWriter, *, via: str | None = None, allow_plain: bool = False, folder: Path | None = None
) -> KnownPeer:
    """Keep what this stream's two ends need to meet again, under a name for the peer. The peer has to do so, too.

    Afterwards `Session(name)` meets it, and so does `@name` in place of a code on the command line. Waits until the
    peer has said that it took this stream, one round trip after it came up.

    Args:
        name: up to 40 letters, digits, hyphens, dots and underscores; capitals do not matter.
        writer: of a stream whose two ends are proven: by a code, tickets, or a key.
        via: the URL of the rendezvous to meet by; left out, what is named when they meet.
        allow_plain: that rendezvous may be spoken to in the clear.
        folder: where it is kept; left out, in the user's data directory.

    Raises:
        PeerError: there is such a name already, it is none, or nothing can be written.
        LinkError: the stream was lost before the peer took it.
        TypeError: no writer.
        ValueError: nobody is proven at the other end of this stream, or that is no rendezvous's URL.
    """
    require_free(name, folder)
    if via is not None:
        read_via(via, allow_plain=True)
    if not isinstance(writer, StreamWriter):
        raise TypeError(f"a writer is a stream's, not {quoted(writer)}")
    if (link := writer.get_extra_info("simopen_link")) is None:
        raise ValueError("nobody is proven at the other end of this stream: connect by a code, tickets or a key")
    await link.answered()
    since = datetime.now(UTC).date().isoformat()
    known = derived(name, link.seed, via, allow_plain=allow_plain, since=since, side=link.role.value)
    await asyncio.to_thread(keep, known, folder)
    return known


def checked_name(name: object) -> str:
    """The name as it is kept. Raises: TypeError; PeerError for what is no name."""
    if not isinstance(name, str):
        raise TypeError(f"a peer's name is a string, not {type(name).__name__}")
    plain = unicodedata.normalize("NFKC", name.strip().removeprefix(AT)).casefold()
    if not _NAME.fullmatch(plain) or len(plain) > LONGEST_NAME:
        raise PeerError(
            f"{quoted(name)} is no name for a peer: it has up to {LONGEST_NAME} letters, digits, hyphens, dots and "
            f"underscores, and begins with a letter or a digit"
        )
    return plain


def directory() -> Path:
    """Where they are kept. It need not be there. Raises: PeerError where this user has no home."""
    from platformdirs import user_data_path

    try:
        return user_data_path("simopen", appauthor=False) / "peers"
    except RuntimeError as error:
        raise PeerError("this user has no home to keep peers in: set HOME, or XDG_DATA_HOME") from error


def _path(name: object, folder: Path | None) -> Path:
    return (directory() if folder is None else folder) / f"{checked_name(name)}{_SUFFIX}"


def require_free(name: str, folder: Path | None = None) -> None:
    """Raises: TypeError; PeerError where somebody has that name already, it is none, or the folder cannot be read."""
    path = _path(name, folder)
    with _translated(f"read {path.parent}"), contextlib.suppress(FileNotFoundError):
        path.lstat()
        raise _taken(checked_name(name))


def _taken(name: str) -> PeerError:
    return PeerError(
        f"you know a peer called {name} already, and its key is not replaced: take another name, or, if that one is "
        f"of no more use, `simopen peers --forget {name}` first"
    )


def keep(known: KnownPeer, folder: Path | None = None) -> Path:
    """Write it down, under a name that nobody has. Returns where. Raises: PeerError."""
    path = _path(known.name, folder)
    with _translated(f"write {path}"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, fresh = tempfile.mkstemp(prefix=".", dir=path.parent)  # of mode 600
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(_written(known))
                file.flush()
                os.fsync(file.fileno())
            os.link(fresh, path)  # unlike a rename, it takes nobody's name
        except FileExistsError:
            raise _taken(known.name) from None
        finally:
            os.unlink(fresh)
    return path


def known_peer(name: str, folder: Path | None = None) -> KnownPeer:
    """The peer of that name, with or without an @. Raises: TypeError; PeerError where there is none to be used."""
    path, name, others = _path(name, folder), checked_name(name), list[str]()
    try:
        with opened(path) as file:
            _require_private(name, path, os.fstat(file.fileno()))
            return _read(name, file.read(_MOST + 1))
    except FileNotFoundError:
        with contextlib.suppress(PeerError):
            others = names(folder)
        there_are = f"you know {', '.join(others[:9])}" if others else "you know none yet"
        raise PeerError(
            f"no peer is known here as {name} ({there_are}): meet it by a code, with --remember {name} here, and "
            f"--remember there as well"
        ) from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        if isinstance(error, PeerError):
            raise
        raise PeerError(
            f"what is kept of {name} is spoilt ({path}): `simopen peers --forget {name}`, and {_ANEW}"
        ) from error
    except OSError as error:
        raise PeerError(f"what is kept of {name} cannot be read ({path}): {error.strerror or error}") from error


def _require_private(name: str, path: Path, found: os.stat_result) -> None:
    if not hasattr(os, "getuid"):
        return
    if found.st_uid != os.getuid():
        raise PeerError(f"{path} is another user's file: nothing in it can be believed")
    if (mode := stat.S_IMODE(found.st_mode)) & 0o077:
        raise PeerError(
            f"others than you could read the key of {name} (the mode of {path} is {mode:o}, not 600), and whoever has "
            f"it can be taken for {name}: `simopen peers --forget {name}`, and {_ANEW}; or, if nobody has read it, "
            f"chmod 600"
        )


def names(folder: Path | None = None) -> list[str]:
    """All names, in alphabetical order. Raises: PeerError where the folder cannot be read."""
    where = directory() if folder is None else folder
    with _translated(f"read {where}"), contextlib.suppress(FileNotFoundError):
        return sorted(  # unlike `Path.glob`, `listdir` says what is wrong
            each.removesuffix(_SUFFIX) for each in os.listdir(where) if each.endswith(_SUFFIX) and each[0] != "."
        )
    return []


def forget(name: str, folder: Path | None = None) -> None:
    """Remove what is kept of a peer, whatever it is. Raises: TypeError; PeerError where there is none."""
    path = _path(name, folder)
    with _translated(f"remove {path}"):
        try:
            path.unlink()
        except FileNotFoundError:
            raise PeerError(f"no peer is known here as {checked_name(name)}") from None


def rename(old: str, new: str, folder: Path | None = None) -> None:
    """Call a peer otherwise. Raises: TypeError; PeerError where there is no such peer, or the new name is taken."""
    before, after = _path(old, folder), _path(new, folder)
    with _translated(f"rename {before}"):
        try:
            os.link(before, after)
        except FileExistsError:
            if before == after:
                raise PeerError(f"{checked_name(old)} is called that already") from None
            raise _taken(checked_name(new)) from None
        except FileNotFoundError:
            raise PeerError(f"no peer is known here as {checked_name(old)}") from None
        before.unlink()


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PeerError(f"cannot {what}: {error.strerror or error}") from error


def _written(known: KnownPeer) -> str:
    said = {"key": known.key.hex(), "room": known.room, "via": known.via, "plain": known.allow_plain}
    return json.dumps({_FORMAT: _VERSION, **said, "since": known.since, "side": known.side}) + "\n"


def _read(name: str, text: str) -> KnownPeer:
    """Raises: ValueError, LookupError, TypeError for what is none."""
    if len(text) > _MOST:
        raise ValueError
    said: dict[str, Any] = json.loads(text)
    if said[_FORMAT] != _VERSION:
        raise PeerError(
            f"what is kept of {name} is of another version of simopen: use that one, or a newer one; or `simopen peers "
            f"--forget {name}`, and {_ANEW}"
        )
    key, room, via, since = bytes.fromhex(said["key"]), said["room"], said["via"], said["since"]
    if len(key) != KEY_BYTES or not isinstance(via, str | None) or not _SINCE.fullmatch(since):
        raise ValueError
    if len(bytes.fromhex(room)) != KEY_BYTES or not isinstance(side := said.get("side"), str | None):
        raise ValueError
    if via is not None:
        read_via(via, allow_plain=True)
    return KnownPeer(name, key, room, via, said["plain"] is True, since, side)
