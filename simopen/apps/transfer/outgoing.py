"""The sender's files: which there are, and their bytes in the order in which they are sent.

Theory of operation. All that blocks is here, and nothing of the network: a thread takes one batch of frames after the
other. A folder is walked before anything is sent, so that what cannot be read is told then. Of a file, as many bytes
are sent as it had: what has grown since ends there, which is told, and one that has shrunk, or was replaced or written
anew with another size before its turn, is an error. (One written anew and longer is told from one that has grown by
what is where its last bytes were.) Links inside of folders are not followed, as they may lead anywhere, and neither are
sockets, pipes and devices read. That holds for what takes a folder's place meanwhile, too, so each one is opened below
the one before it, for the walk and anew for its files; what was named itself may be a link, as its user chose it.

What is sent of a file is what it was at one moment. Where its inode tells of a change meanwhile, which may be one of
its name or mode only, or more at its end, it is read once more: reads that are alike, one after the other, saw what
there was between them, and others are an error. An inode does not tell of a change within one tick of the kernel's
clock (4 to 10 ms) after the one before, nor at once of one by a memory map; what comes by `-` is not looked at.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import os
import select
import stat
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO

from simopen.apps.transfer import messages
from simopen.apps.transfer.messages import Complete, End, File, Folder, Has, Offer
from simopen.apps.transfer.names import Names
from simopen.errors import TransferError
from simopen.model.wording import first_few, quoted
from simopen.net.os_errors import reason

STDIN = "-"
_STDIN_NAME = "stdin"
_BATCH = 2**20
_BATCH_S = 0.1
"""A batch ends after so long, though nothing was read that is to be sent: whoever is interrupted waits no longer."""
_FEW = 3
_LAST = 64
"""So many of a file's last bytes are looked at: less than a line of a log, or a record, is alike in two by chance."""
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_FOLDER = {errno.ENOTDIR, errno.ELOOP}  # of a link: Linux's errno, and POSIX's


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or folder.

    `where`: its path on this host, for messages; `size` in bytes, None of a folder and of a stream; `last`: the last of
    these bytes.
    """

    path: str
    where: str
    is_folder: bool = False
    size: int | None = None
    inode: int | None = None
    last: bytes = b""
    executable: bool = False


class Outgoing:
    """What is to be sent.

    Attributes:
        offer: what the peer is told of it.
        left_out: what is no file and no folder, as sentences.
        grown: what was sent as long as it was at first, and has become longer, as sentences.
        skipped: bytes that the peer has had already.
    """

    def __init__(self, paths: Sequence[str], *, exclude: Sequence[str] = (), stdin: int = 0) -> None:
        """Walk all of them.

        Args:
            paths: files and folders, whose last names are those that the peer gets; `-` is standard input.
            exclude: patterns (fnmatch) of names, or of paths from the named folder on, that are left out.
            stdin: the descriptor that `-` is read from.

        Raises: TransferError for what cannot be read or named.
        """
        self.left_out: list[str] = []
        self.grown: list[str] = []
        self.skipped = 0
        self._exclude = [each.removeprefix("./").rstrip("/") for each in exclude]
        self._stdin = stdin
        self._names = Names()
        self._named: dict[str, str] = {}
        self.entries: list[Entry] = []
        with contextlib.closing(_Opener(self._named)) as opener:
            for each in dict.fromkeys(paths):
                self._add_named(each, opener)
        tops = tuple(entry.path for entry in self.entries if "/" not in entry.path)
        if not tops:
            raise TransferError("there is nothing to send")
        if len(tops) > messages.MOST_NAMES:
            raise TransferError(f"{len(tops)} names are too many for one transfer: send the folder that they are in")
        sizes = [entry.size for entry in self.entries if not entry.is_folder]
        folders = len(self.entries) - len(sizes)
        size = None if None in sizes else sum(each or 0 for each in sizes)
        self.offer = Offer(messages.VERSION, tops, len(sizes), folders, size)

    def _add_named(self, path: str, opener: _Opener) -> None:
        if path == STDIN:
            self._add(Entry(_STDIN_NAME, STDIN))
            return
        name = os.path.basename(os.path.abspath(path)) or os.path.basename(os.path.realpath(path))
        if not name:
            raise TransferError(f"{quoted(path)} has no name that it could arrive under: name what is in it")
        with _reading(path):
            mode = os.stat(path).st_mode
        self._named[name] = path
        if stat.S_ISDIR(mode):
            self._add_folder(path, name, opener)
        elif stat.S_ISREG(mode):
            self._add_file(path, name, opener)
        else:
            raise TransferError(f"{quoted(path)} is no file and no folder; to send what comes out of it: -")

    def _add(self, entry: Entry) -> None:
        self._names.add(entry.path, is_folder=entry.is_folder)
        self.entries.append(entry)

    def _add_file(self, where: str, path: str, opener: _Opener) -> None:
        with _reading(where):
            fd = opener.file(path)  # whoever may not read it hears of that now
            try:
                found = os.fstat(fd)
                last = _last(fd, found.st_size)
                if not found.st_size and os.read(fd, 1):
                    raise TransferError(
                        f"{quoted(where)} says that it has 0 bytes, and has more, as files of /proc do: send it by -"
                    )
            finally:
                os.close(fd)
        executable = bool(found.st_mode & stat.S_IXUSR)
        self._add(Entry(path, where, size=found.st_size, inode=found.st_ino, last=last, executable=executable))

    def _add_folder(self, where: str, path: str, opener: _Opener) -> None:
        """By a stack of its own: a deep tree is no reason to end."""
        waiting = [(where, path)]
        while waiting:
            where, path = waiting.pop()
            self._add(Entry(path, where, is_folder=True))
            with _reading(where), os.scandir(opener.folder(path)) as found:
                inside = sorted(found, key=lambda each: each.name)
            folders = []
            for each in inside:
                here, below = os.path.join(where, each.name), f"{path}/{each.name}"
                if self._is_excluded(below):
                    continue
                if each.is_dir(follow_symlinks=False):
                    folders.append((here, below))
                elif each.is_file(follow_symlinks=False):
                    self._add_file(here, below, opener)
                else:
                    kind = "a link" if each.is_symlink() else "no file"
                    self.left_out.append(f"{quoted(below)} is left out: it is {kind}")
            waiting.extend(reversed(folders))

    def _is_excluded(self, path: str) -> bool:
        name, below = path.rpartition("/")[2], path.partition("/")[2]
        return any(fnmatch.fnmatchcase(name, each) or fnmatch.fnmatchcase(below, each) for each in self._exclude)

    def notes(self) -> tuple[str, ...]:
        """What is left out or has grown so far, in a few sentences."""
        return (*first_few(self.left_out, _FEW), *first_few(self.grown, _FEW))

    def frames(self, has: Mapping[str, Has]) -> Generator[tuple[bytes, int], None, None]:
        """Each frame, and how many bytes of files are done with it. An empty one: it takes time, and goes on.

        Raises: TransferError where a file cannot be read, is another by now, or was changed meanwhile.
        """
        with contextlib.closing(_Opener(self._named)) as opener:
            for entry in self.entries:
                if entry.is_folder:
                    yield messages.record(Folder(entry.path)), 0
                else:
                    yield from self._file(entry, has.get(entry.path), opener)
        yield messages.record(Complete()), 0

    def _file(self, entry: Entry, has: Has | None, opener: _Opener) -> Iterator[tuple[bytes, int]]:
        try:
            with self._opened(entry, opener) as file:
                digest = hashlib.sha256()
                start, before = 0, _changes(file)
                if has is not None and entry.size is not None and 0 < has.start <= entry.size:
                    for piece in _pieces(file, has.start, entry):
                        digest.update(piece)
                        yield b"", 0
                    start = has.start
                    if digest.hexdigest() != has.sha256:
                        file.seek(0)
                        start, digest = 0, hashlib.sha256()
                self.skipped += start
                yield messages.record(File(entry.path, entry.size, start, entry.executable)), start
                for piece in _stream(file) if entry.size is None else _pieces(file, entry.size - start, entry):
                    digest.update(piece)
                    yield messages.data(piece) if piece else b"", len(piece)
                if entry.size is not None:
                    if (now := _changes(file)) != before:
                        yield from _read_alike(file, entry.size, entry, digest.digest())
                    if now[-1] > entry.size:
                        self.grown.append(_grown(entry.where, entry.size))
                yield messages.record(End(digest.hexdigest())), 0
        except OSError as error:
            raise TransferError(f"cannot read {quoted(entry.where)}: {reason(error)}") from error

    def _opened(self, entry: Entry, opener: _Opener) -> FileIO:
        if entry.where == STDIN:
            return FileIO(os.dup(self._stdin))
        fd = opener.file(entry.path)
        if _is_same(fd, entry):
            return FileIO(fd)
        os.close(fd)
        raise _changed(entry.where)


class _Opener:
    """Opens what is sent by the path that the peer gets; a link is followed only where it is what was named.

    `named`: where that is, by its name. The last folder stays open until another is asked for: most files lie beside
    the last one.
    """

    def __init__(self, named: Mapping[str, str]) -> None:
        self._named = named
        self._path, self._fd = "", -1

    def close(self) -> None:
        """Let go of the last folder."""
        if self._path:
            os.close(self._fd)
            self._path = ""

    def file(self, path: str) -> int:
        """A descriptor, which is the caller's. Raises: OSError; TransferError, as `folder`."""
        above, _, name = path.rpartition("/")
        if not above:
            return os.open(self._named[name], _FILE)
        return os.open(name, _FILE | os.O_NOFOLLOW, dir_fd=self.folder(above))

    def folder(self, path: str) -> int:
        """A descriptor, for now. Raises: OSError; TransferError where something else has taken its place."""
        if not f"{path}/".startswith(f"{self._path}/"):
            self.close()
            name = path.partition("/")[0]
            self._fd = self._below(self._named[name], _FOLDER)
            self._path = name
        for name in path[len(self._path) + 1 :].split("/") if path != self._path else ():
            fd = self._below(name, _FOLDER | os.O_NOFOLLOW, self._fd)
            os.close(self._fd)
            self._path, self._fd = f"{self._path}/{name}", fd
        return self._fd

    def _below(self, name: str, flags: int, above: int | None = None) -> int:
        try:
            return os.open(name, flags, dir_fd=above)
        except OSError as error:
            if error.errno not in _NO_FOLDER:
                raise
            raise _changed(os.path.join(self._path, name)) from error


def _is_same(fd: int, entry: Entry) -> bool:
    """Whether it is the file that was found: as long as it was, or longer and alike at its former end."""
    found, size = os.fstat(fd), entry.size or 0
    if not stat.S_ISREG(found.st_mode):
        return False
    if found.st_size <= size:
        return found.st_size == size
    return found.st_ino == entry.inode and _last(fd, size) == entry.last


def _last(fd: int, size: int) -> bytes:
    """The last of its first `size` bytes. It is at its beginning then."""
    os.lseek(fd, max(0, size - _LAST), os.SEEK_SET)
    try:
        return os.read(fd, min(size, _LAST))
    finally:
        os.lseek(fd, 0, os.SEEK_SET)


def _grown(where: str, size: int) -> str:
    return f"{quoted(where)} has grown since this began: its first {size:,} bytes are sent"


def _changed(where: str) -> TransferError:
    return TransferError(f"{quoted(where)} has changed since this began: send it again")


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
    try:
        yield
    except TransferError:
        raise
    except (OSError, ValueError) as error:
        raise _unreadable(where, reason(error)) from error


def _unreadable(where: str, why: str) -> TransferError:
    hint = "; leave it out with --exclude" * (why == os.strerror(errno.EACCES))
    return TransferError(f"cannot read {quoted(where)}: {why}{hint}")


def _pieces(file: FileIO, size: int, entry: Entry) -> Iterator[bytes]:
    """So many bytes of it, from where it stands."""
    while size > 0:
        piece = file.read(min(size, messages.PIECE))
        if not piece:
            raise TransferError(f"{quoted(entry.where)} has become shorter since this began")
        size -= len(piece)
        yield piece


def _changes(file: FileIO) -> tuple[int, int, int]:
    """What is another after most changes of a file; its size last."""
    found = os.fstat(file.fileno())
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _read_alike(file: FileIO, size: int, entry: Entry, sha256: bytes) -> Iterator[tuple[bytes, int]]:
    """Read it once more, which takes time. Raises: TransferError where it has other bytes by now."""
    file.seek(0)
    digest = hashlib.sha256()
    for piece in _pieces(file, size, entry):
        digest.update(piece)
        yield b"", 0
    if digest.digest() != sha256:
        raise TransferError(f"{quoted(entry.where)} was changed while it was sent: send it again")


def _stream(file: FileIO) -> Iterator[bytes]:
    """All that comes, and empty pieces where nothing does."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    while True:
        if not poll.poll(_BATCH_S * 1000):
            yield b""
        elif piece := file.read(messages.PIECE):
            yield piece
        elif piece is not None:  # None: another process was faster
            return


def batch(frames: Iterator[tuple[bytes, int]]) -> tuple[list[bytes], int] | None:
    """The next few frames, and how many bytes of files are done with them; None after the last one."""
    taken, size, done = [], 0, 0
    ends_s = time.monotonic() + _BATCH_S
    for frame, more in frames:
        if frame:
            taken.append(frame)
        size += len(frame)
        done += more
        if size >= _BATCH or time.monotonic() >= ends_s:
            return taken, done
    return (taken, done) if taken else None


def text(message: str) -> Offer:
    """The offer that a text is. Raises: TransferError where it is too long, or no UTF-8."""
    try:
        length = len(message.encode())
    except UnicodeEncodeError as error:
        raise TransferError("the text is not UTF-8; send it as a file, or by -") from error
    if length > messages.MOST_TEXT:
        raise TransferError(f"a text is {messages.MOST_TEXT // 1024} KiB at most; send it as a file, or by -")
    return Offer(messages.VERSION, (), 0, 0, 0, message)
