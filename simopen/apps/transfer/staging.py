"""Where files are kept until they are whole: a hidden folder beside their final names, and the move to these.

Theory of operation. Each folder on the way is opened by itself, below the one before it and through no link, so that
nothing that somebody puts there meanwhile leads elsewhere. A name becomes final in one step, and only where it is free:
by renameat2(2), so that a process that is killed leaves nothing half-done under it. Where the file system lacks that
(NFS does), a file by link(2), a folder by rename(2) onto an empty one that was made for it. The hidden folder has a
name that follows from the names that are sent: what an interrupted transfer has left there is found by the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path

from simopen.apps.transfer.names import PART
from simopen.errors import TransferError
from simopen.model.wording import quoted
from simopen.net.os_errors import reason

_READABLE = 60  # bytes of the first name
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}  # FAT, and what phones store on
_RENAME_NOREPLACE = 1  # linux/fs.h
_NO_SUCH_RENAME = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}  # of the file system, of a kernel before 3.15


class Staging:
    """The hidden folder for these names, below `into`, for one transfer at a time.

    Attributes:
        is_new: whether no earlier transfer has left anything in it.
    """

    def __init__(self, into: Path, names: Sequence[str]) -> None:
        """Open it, or make it. Raises: TransferError."""
        self._names = names
        self.is_new = True
        self.path = into / _hidden(names)
        self._parent: tuple[tuple[str, ...], int] | None = None
        with contextlib.ExitStack() as stack:
            with _told(into):
                self._into = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, self._into)
            self._refuse_taken()
            with _told(self.path):
                try:
                    os.mkdir(self.path.name, 0o700, dir_fd=self._into)
                except FileExistsError:
                    self.is_new = False
                self._fd = os.open(self.path.name, _FOLDER, dir_fd=self._into)
            stack.callback(os.close, self._fd)
            self._lock()
            self._stack = stack.pop_all()

    def _lock(self) -> None:
        if os.fstat(self._fd).st_uid != os.geteuid():
            raise TransferError(f"{quoted(str(self.path))} is another user's: take --into another folder")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _busy() from error
        except OSError as error:
            raise TransferError(
                f"cannot lock {quoted(str(self.path))}: {reason(error)}; take --into a folder of another file system"
            ) from error
        if self._is_gone():
            raise _busy()

    def _is_gone(self) -> bool:
        """Whether a command that has ended since this opened it has removed it."""
        try:
            return not os.path.samestat(os.fstat(self._fd), os.stat(self.path.name, dir_fd=self._into))
        except FileNotFoundError:
            return True

    def _refuse_taken(self) -> None:
        for name in self._names:
            with contextlib.suppress(FileNotFoundError):
                os.stat(name, dir_fd=self._into, follow_symlinks=False)
                raise _taken(name)

    def close(self) -> None:
        """Let go of it; where nothing is in it, it goes."""
        self._forget_parent()
        with contextlib.suppress(OSError):
            os.rmdir(self.path.name, dir_fd=self._into)
        self._stack.close()

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def free(self) -> int | None:
        """Bytes that the file system has left for this user; None where it does not say, as ramfs and some of FUSE."""
        found = os.fstatvfs(self._fd)
        return found.f_bavail * found.f_frsize if found.f_blocks else None

    def files(self) -> Iterator[tuple[str, ...]]:
        """What an earlier transfer has left."""
        for folder, _, names, _fd in os.fwalk(".", dir_fd=self._fd, follow_symlinks=False):
            above = tuple(part for part in folder.split("/") if part != ".")
            yield from ((*above, name) for name in names)

    def make_folder(self, parts: tuple[str, ...]) -> None:
        """Make it, or take the one that an earlier transfer has left, whose file of that name goes.

        Raises: TransferError, as each of these does for what the file system refuses.
        """
        with _told(self.path.joinpath(*parts)):
            above = self._opened(parts[:-1])
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(os.stat(parts[-1], dir_fd=above, follow_symlinks=False).st_mode):
                    os.unlink(parts[-1], dir_fd=above)
            try:
                os.mkdir(parts[-1], 0o777, dir_fd=above)
            except FileExistsError:
                os.close(os.open(parts[-1], _FOLDER, dir_fd=above))

    def read(self, parts: tuple[str, ...]) -> int | None:
        """A descriptor of what is there of a file; None where that is none."""
        with contextlib.suppress(OSError):
            fd = os.open(parts[-1], os.O_RDONLY | _OF_FILES, dir_fd=self._opened(parts[:-1]))
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
        return None

    def write(self, parts: tuple[str, ...], start: int, *, executable: bool) -> int:
        """A descriptor of a file that is to be written from `start` on; what was there before that stays.

        A folder of that name that an earlier transfer has left goes.
        """
        with _told(self.path.joinpath(*parts)):
            above = self._opened(parts[:-1])
            if start:
                fd = os.open(parts[-1], os.O_WRONLY | _OF_FILES, dir_fd=above)
                try:
                    os.ftruncate(fd, start)
                    os.lseek(fd, start, os.SEEK_SET)
                    _set_executable(fd, executable=executable)
                except BaseException:
                    os.close(fd)
                    raise
                return fd
            try:
                os.unlink(parts[-1], dir_fd=above)
            except FileNotFoundError:
                pass
            except (IsADirectoryError, PermissionError):  # Linux's errno for it, and POSIX's
                shutil.rmtree(parts[-1], dir_fd=above)
            mode = 0o777 if executable else 0o666  # less the umask; what else the sender's may have is not taken over
            return os.open(parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OF_FILES, mode, dir_fd=above)

    def remove(self, parts: tuple[str, ...]) -> None:
        """A file that is of no use."""
        with contextlib.suppress(OSError):
            os.unlink(parts[-1], dir_fd=self._opened(parts[:-1]))

    def _opened(self, parts: tuple[str, ...]) -> int:
        """A folder's descriptor, which stays open until another is asked for: most files lie beside the last one."""
        if not parts:
            return self._fd
        if self._parent is None or self._parent[0] != parts:
            self._forget_parent()
            fd = os.dup(self._fd)
            for part in parts:
                try:
                    below = os.open(part, _FOLDER, dir_fd=fd)
                finally:
                    os.close(fd)
                fd = below
            self._parent = (parts, fd)
        return self._parent[1]

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def prune(self, keep: Set[tuple[str, ...]]) -> None:
        """Remove what an earlier transfer has left and this one has not brought."""
        self._forget_parent()
        with _told(self.path):
            for folder, folders, files, fd in os.fwalk(".", topdown=False, dir_fd=self._fd, follow_symlinks=False):
                above = tuple(part for part in folder.split("/") if part != ".")
                for name in files:
                    if (*above, name) not in keep:
                        os.unlink(name, dir_fd=fd)
                for name in folders:
                    if (*above, name) not in keep:
                        _remove_folder(name, fd)

    def publish(self, goes_on: Callable[[], bool] = lambda: True) -> None:
        """Have all on disk, and then under the final names.

        `goes_on`: asked in between, as the first may take long. Raises: TransferError, also where a name is taken by
        now.
        """
        self._forget_parent()
        with _told(self.path):
            _sync(self._fd)
            if not goes_on():
                raise TransferError("it was interrupted")
            self._refuse_taken()
            for name in self._names:
                self._publish(name)
            os.fsync(self._into)

    def _publish(self, name: str) -> None:
        try:
            if not _renamed(name, self._fd, self._into):
                self._publish_in_steps(name)
        except FileExistsError as error:
            raise _taken(name) from error

    def _publish_in_steps(self, name: str) -> None:
        if stat.S_ISDIR(os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mode):
            os.mkdir(name, dir_fd=self._into)
            self._replace(name, os.rmdir)
        else:
            self._publish_file(name)

    def _publish_file(self, name: str) -> None:
        try:
            os.link(name, name, src_dir_fd=self._fd, dst_dir_fd=self._into, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._publish_without_links(name)
        else:
            os.unlink(name, dir_fd=self._fd)

    def _publish_without_links(self, name: str) -> None:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OF_FILES, dir_fd=self._into))
        self._replace(name, os.unlink)

    def _replace(self, name: str, drop: Callable[..., None]) -> None:
        """Move it to where something empty holds its name, which goes where that fails."""
        try:
            os.rename(name, name, src_dir_fd=self._fd, dst_dir_fd=self._into)
        except OSError:
            with contextlib.suppress(OSError):
                drop(name, dir_fd=self._into)
            raise


_OF_FILES = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def _remove_folder(name: str, above: int) -> None:
    """An empty one, or a link to one, which `os.fwalk` takes for a folder."""
    try:
        os.rmdir(name, dir_fd=above)
    except NotADirectoryError:
        os.unlink(name, dir_fd=above)


def _hidden(names: Sequence[str]) -> str:
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:8]
    readable = names[0].encode()[:_READABLE].decode(errors="ignore")
    return f".{readable}.{digest}{PART}"


def _busy() -> TransferError:
    return TransferError("the same is being received here by another command: wait for its end")


def _taken(name: str) -> TransferError:
    return TransferError(f"{quoted(name)} exists already where it should go, and nothing is overwritten")


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except TransferError:
        raise
    except (OSError, UnicodeError) as error:  # a name that the file system's encoding has no word for
        raise TransferError(f"cannot write {quoted(str(path))}: {reason(error)}") from error


def _set_executable(fd: int, *, executable: bool) -> None:
    """For whoever may read it, as the umask had it when it was made."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    wanted = mode | (mode & 0o444) >> 2 if executable else mode & ~0o111
    if wanted != mode:
        os.fchmod(fd, wanted)


def _renamed(name: str, source: int, target: int) -> bool:
    """Move it from one folder to the other in one step; False: that cannot be done here. Raises: OSError."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    raw = os.fsencode(name)
    if call(source, raw, target, raw, _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_SUCH_RENAME:
        return False
    raise OSError(number, os.strerror(number))


def _sync(fd: int) -> None:
    """All that the file system has not written yet: one call for a million files, of which each would take its time."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        os.sync()
    elif call(fd):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
