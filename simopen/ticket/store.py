"""This side's own ticket, left by `simopen nat --ticket` where `simopen connect` finds it.

Theory of operation: one file a ticket, in a directory that only this user can enter. Whoever holds the mapping, and
whoever means to punch with it, has a shared lock (flock) on the file. So a file that nobody has locked was left by a
program that was killed, and a holder that is not alone knows that the mapping is still wanted.

Of two terminals one may be without XDG_RUNTIME_DIR (su, cron, some of ssh and tmux). So a ticket is left in its
directory and in one below the system's temporary directory, and looked for in both, in that order; the first that has
any counts. What else lies there is nobody's ticket: a FIFO, a link or a file of any size is neither waited for,
followed nor read to its end.

Below the ticket the file has the private half of its key, so only this user can read it, and one that others can is
refused. Once a meeting is proven it is spent: the file goes, in each of the two directories.

Windows has no flock: nothing is left there, and nothing is found.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TypeAlias

from simopen import _logs
from simopen.errors import SimopenError
from simopen.ticket.codec import KEY_BYTES, LONGEST, Ticket, parse_ticket
from simopen.ticket.keys import PrivateKey

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".ticket"
_LONGEST = LONGEST + 2 * KEY_BYTES + 2
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
Places: TypeAlias = "Path | Sequence[Path]"
logger = _logs.logger("ticket")


def directories(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Where tickets lie, those of this session first; there is at least one.

    Raises: SimopenError where none can be made, or others can enter each.
    """
    found, refused = [], []
    for path in _candidates(environment):
        try:
            found.append(_own(path))
        except SimopenError as error:
            logger.info("%s", error)
            refused.append(error)
    if not found:
        raise refused[0]
    return tuple(found)


def directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where tickets of this session lie: `$XDG_RUNTIME_DIR/simopen`, or one of this user's own below the system's
    temporary directory.

    Raises: SimopenError where that cannot be made, or others can enter it.
    """
    return _own(_candidates(environment)[0])


def _candidates(environment: Mapping[str, str]) -> list[Path]:
    with _translated("find a directory for temporary files"):
        shared = Path(tempfile.gettempdir(), f"simopen-{os.getuid() if fcntl else 'user'}")
    runtime = environment.get("XDG_RUNTIME_DIR")
    return [Path(runtime, "simopen"), shared] if runtime and _is_ours(Path(runtime)) else [shared]


def _is_ours(path: Path) -> bool:
    """Whether it is a directory of this user's: `su` may leave that of another one in the environment."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(found.st_mode) and (not fcntl or found.st_uid == os.getuid())


def _own(path: Path) -> Path:
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
def left(ticket: Ticket, places: Places) -> Iterator[Callable[[], bool]]:
    """Leave the ticket there while inside. What this yields tells whether somebody is about to punch with it.

    Raises: SimopenError where it can be written to no place: a disk may be full, or read-only, where others are not.
    """
    if not fcntl:
        yield lambda: False
        return
    with contextlib.ExitStack() as stack:
        files, refused = [], []
        for where in _each(places):
            try:
                files.append(stack.enter_context(_left(ticket, where)))
            except SimopenError as error:
                logger.info("%s", error)
                refused.append(error)
        if not files:
            raise refused[0]
        yield lambda: any(_shared(file) for file in files)


def _each(places: Places) -> Sequence[Path]:
    return (places,) if isinstance(places, Path) else places


@contextlib.contextmanager
def _left(ticket: Ticket, where: Path) -> Iterator[TextIOWrapper]:
    path = where / f"{os.getpid()}{_SUFFIX}"
    new = path.with_suffix(".new")
    with contextlib.ExitStack() as stack:
        stack.callback(_remove, new)  # what did not get its name
        with _translated(f"write {path}"):
            file = stack.enter_context(_locked(new, _written(ticket)))
            new.rename(path)  # whole and locked from the first moment
        stack.callback(_remove, path)
        yield file


def _written(ticket: Ticket) -> str:
    private = b"" if ticket.private is None else ticket.private.raw()
    return f"{ticket.encode()}\n{private.hex()}\n"


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # it is gone, or the disk is read-only by now
        path.unlink()


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
def in_use(places: Places, only: Ticket | None = None) -> Iterator[list[Ticket]]:
    """The tickets that are held on this host, or that one alone, each with its private half.

    Their mappings stay held while inside. Raises: SimopenError where others than this user can read a private half.
    """
    with contextlib.ExitStack() as stack:
        found: list[Ticket] = []
        for where in _each(places):
            found = found or [ticket for path in _files(where) for ticket in _used(path, only, stack, places)]
        yield found


def _files(where: Path) -> list[Path]:
    return sorted(where.glob(f"*{_SUFFIX}")) if fcntl else []


def _used(path: Path, only: Ticket | None, stack: contextlib.ExitStack, places: Places) -> Iterator[Ticket]:
    """The file's ticket, if it is held and the one that is wanted; locked until `stack` ends."""
    try:
        with contextlib.ExitStack() as closing:
            file = closing.enter_context(opened(path))
            if not _shared(file):
                _remove(path)
                return
            ticket = _read(file, places)
            if only is None or only == ticket:
                if ticket.private is not None:
                    _check_mode(file, path)
                stack.enter_context(closing.pop_all())
                yield ticket
    except FileNotFoundError:
        return  # let go in this moment
    except (OSError, ValueError) as error:  # no text, no ticket, no key
        logger.info("%s is nobody's ticket: %s", path, error)


def _read(file: TextIOWrapper, places: Places) -> Ticket:
    """With its private half, if that is there; once that is spent, its files go.

    Raises: ValueError, UnicodeDecodeError and TicketError among them.
    """
    text, _, rest = file.read(_LONGEST).partition("\n")
    ticket, private = parse_ticket(text), bytes.fromhex(rest.strip())
    return ticket.owned(PrivateKey.stored(private, partial(_forget, ticket, places))) if private else ticket


def _check_mode(file: TextIOWrapper, path: Path) -> None:
    mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    if mode & 0o077:
        raise SimopenError(
            f"others than its owner can read {path} (its mode is {mode:o}, not 600), and the ticket's private key is "
            f"there: run `simopen nat --ticket` anew, and give your peer the new ticket"
        )


def _forget(ticket: Ticket, places: Places) -> None:
    for path in [path for where in _each(places) for path in _files(where)]:
        with contextlib.suppress(OSError, ValueError), opened(path) as file:
            if _read(file, places) == ticket:
                _remove(path)


def opened(path: Path) -> TextIOWrapper:
    """A regular file, to be read. Raises: OSError for whatever else it is."""
    fd = os.open(path, os.O_RDONLY | _WITHOUT_WAITING)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("it is no regular file")
    return open(fd, encoding="ascii")


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
