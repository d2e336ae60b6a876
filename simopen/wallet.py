"""This side's own ticket, left by `simopen nat --ticket` where `simopen connect` finds it.

Theory of operation: one file a ticket, in a directory that only this user can enter. Whoever holds the mapping, and
whoever means to punch with it, has a shared lock (flock) on the file. So a file that nobody has locked was left by a
program that was killed, and a holder that is not alone knows that the mapping is still wanted.

Windows has no flock: nothing is left there, and nothing is found.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import TextIOWrapper
from pathlib import Path

from simopen.errors import SimopenError
from simopen.ticket import Ticket, parse_ticket

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".ticket"


def directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where tickets lie: `$XDG_RUNTIME_DIR/simopen`, or one of this user's own below the system's temporary directory.

    Raises: SimopenError where that cannot be made, or others can enter it.
    """
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        path = Path(runtime, "simopen")
    else:
        path = Path(tempfile.gettempdir(), f"simopen-{os.getuid() if fcntl else 'user'}")
    with _translated(f"make {path}"):
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    if fcntl and not (stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077):
        raise SimopenError(
            f"{path} is no directory of this user's alone, so no ticket can be left there: remove it, or set "
            f"XDG_RUNTIME_DIR to one that is"
        )
    return path


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SimopenError(f"cannot {what}: {error.strerror}; set XDG_RUNTIME_DIR to another directory") from error


@contextlib.contextmanager
def left(ticket: Ticket, where: Path) -> Iterator[Callable[[], bool]]:
    """Leave the ticket there while inside. What this yields tells whether somebody is about to punch with it.

    Raises: SimopenError where it cannot be written.
    """
    if not fcntl:
        yield lambda: False
        return
    path = where / f"{os.getpid()}{_SUFFIX}"
    with contextlib.ExitStack() as stack:
        with _translated(f"write {path}"):
            file = stack.enter_context(_locked(path.with_suffix(".new"), ticket.encode()))
            path.with_suffix(".new").rename(path)  # whole and locked from the first moment
        stack.callback(path.unlink, missing_ok=True)
        yield partial(_shared, file)


def _locked(path: Path, text: str) -> TextIOWrapper:
    """A new file with this text, locked, which only this user can read, whatever the umask is."""
    path.unlink(missing_ok=True)
    file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+", encoding="ascii")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        file.write(text)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file


@contextlib.contextmanager
def in_use(where: Path, only: Ticket | None = None) -> Iterator[list[Ticket]]:
    """The tickets that are held on this host, or that one alone; their mappings stay held while inside."""
    with contextlib.ExitStack() as stack:
        yield [ticket for path in _files(where) for ticket in _used(path, only, stack)]


def _files(where: Path) -> list[Path]:
    return sorted(where.glob(f"*{_SUFFIX}")) if fcntl else []


def _used(path: Path, only: Ticket | None, stack: contextlib.ExitStack) -> Iterator[Ticket]:
    """The file's ticket, if it is held and the one that is wanted; locked until `stack` ends."""
    with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as closing:  # let go in this moment
        file = closing.enter_context(path.open(encoding="ascii"))
        if not _shared(file):
            path.unlink(missing_ok=True)
            return
        ticket = parse_ticket(file.read())
        if only is None or only == ticket:
            stack.enter_context(closing.pop_all())
            yield ticket


def _shared(file: TextIOWrapper) -> bool:
    """Whether somebody else has it locked, too. Asking gives up one's own lock (flock(2)): it is taken anew."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        fcntl.flock(file, fcntl.LOCK_SH)
