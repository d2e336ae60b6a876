"""A mailbox server's rooms on disk, so that a restart loses none: SQLite, one writer.

Theory of operation: the rooms in memory are what counts, and each change of theirs is written before it is answered. So
it is read once, at the start. The journal is not forced to the disk at each commit (`synchronous=NORMAL`): a crash of
this program loses nothing, one of the machine's the last moments. No address of anybody is written.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from simopen.errors import SimopenError
from simopen.net.os_errors import reason
from simopen.signalling.server_rooms import Change, Kept, Room

_VERSION = 1
_TABLES = """
CREATE TABLE rooms (app TEXT, mailbox TEXT, nameplate TEXT, sides TEXT, claims TEXT, PRIMARY KEY (app, mailbox))
    WITHOUT ROWID;
CREATE TABLE messages (serial INTEGER PRIMARY KEY, app TEXT, mailbox TEXT, side TEXT, phase TEXT, body TEXT, id TEXT,
    at_s REAL);
CREATE INDEX of_room ON messages (app, mailbox);
"""


class Store:
    """One file. Close it.

    Raises: SimopenError where it cannot be had: the message names it, and says what to do.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # who knows a mailbox hears it
            self._db = sqlite3.connect(path, timeout=0.0, isolation_level=None)
        except (sqlite3.Error, OSError) as error:
            raise self._refused(reason(error)) from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            raise self._refused(_reason(error)) from error
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(sqlite3.Error):  # the disk is full, say: what was written is kept
            self._db.close()

    def rooms(self) -> list[Room]:
        """What was there when it was last written. Raises: SimopenError for a file that is damaged."""
        try:
            return self._read()
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise self._refused(f"it is damaged ({error})") from error

    def _read(self) -> list[Room]:
        found = {}
        for app, mailbox, nameplate, sides, claims in self._db.execute("SELECT * FROM rooms"):
            room = Room(app, mailbox, nameplate, "", born_s=0.0, touched_s=0.0)
            room.sides, room.claims = dict(json.loads(sides)), dict(json.loads(claims))
            found[app, mailbox] = room
        told = "SELECT app, mailbox, side, phase, body, id, at_s FROM messages ORDER BY serial"
        for app, mailbox, side, phase, body, number, at_s in self._db.execute(told):
            if (kept_in := found.get((app, mailbox))) is not None:
                kept_in.messages.append(Kept(side, phase, body, json.loads(number), at_s))
        return list(found.values())

    def write_anew(self, changes: Iterable[Change]) -> None:
        """As `write`, with nothing there that was before."""
        self._write_all(changes, first=("DELETE FROM rooms", "DELETE FROM messages"))

    def write(self, changes: Iterable[Change]) -> None:
        """Write what has changed, all of it or nothing.

        Raises: sqlite3.Error.
        """
        self._write_all(changes)

    def _write_all(self, changes: Iterable[Change], first: Iterable[str] = ()) -> None:
        self._db.execute("BEGIN")
        try:
            for statement in first:
                self._db.execute(statement)
            for change in changes:
                self._write(change)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _write(self, change: Change) -> None:
        run, key = self._db.execute, change.key
        if change.room is None:
            run("DELETE FROM rooms WHERE app = ? AND mailbox = ?", key)
            run("DELETE FROM messages WHERE app = ? AND mailbox = ?", key)
        elif change.message is not None:
            kept = change.message
            told = (*key, kept.side, kept.phase, kept.body, json.dumps(kept.id), kept.at_s)
            run("INSERT INTO messages (app, mailbox, side, phase, body, id, at_s) VALUES (?, ?, ?, ?, ?, ?, ?)", told)
        elif change.dropped is not None:
            run("DELETE FROM messages WHERE app = ? AND mailbox = ? AND side = ?", (*key, change.dropped))
        else:
            room = change.room
            state = (*key, room.nameplate, json.dumps(room.sides), json.dumps(room.claims))
            run("INSERT OR REPLACE INTO rooms VALUES (?, ?, ?, ?, ?)", state)

    def _prepare(self) -> None:
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("BEGIN EXCLUSIVE")  # who else has it is noticed now, and not at the first room
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self._db.execute("COMMIT")
        if version != _VERSION and (version or tables):
            raise self._refused("it is another program's, or another version's")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if not version:
            self._db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")

    def _refused(self, why: str) -> SimopenError:
        return SimopenError(f"rooms cannot be kept in {str(self._path)!r}: {why}; name another file")


def _reason(error: sqlite3.Error) -> str:
    return "another server has it" if "locked" in str(error) else str(error)
