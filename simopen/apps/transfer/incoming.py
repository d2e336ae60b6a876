"""The receiver's files: what a peer sends is judged, written where it cannot do harm, and named once it is whole.

Theory of operation. All that blocks is here, and nothing of the network: a thread takes one batch of messages after the
other. Nothing is believed of a peer: names are judged (`names.py`), files are written into a hidden folder
(`staging.py`), there is no more of anything than was announced, and of a file's mode nothing counts but whether it can
be executed. Of a transfer that ends early all that came is kept; what the sender has the same bytes of, by SHA-256, is
not sent again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from simopen.apps.transfer import messages
from simopen.apps.transfer.messages import Complete, End, File, Folder, Has, Message, Offer
from simopen.apps.transfer.names import Names
from simopen.apps.transfer.staging import Staging
from simopen.errors import TransferError
from simopen.model.wording import quoted
from simopen.net.os_errors import reason

if TYPE_CHECKING:
    from hashlib import _Hash


def check(offer: Offer) -> None:
    """Raises: TransferError for names that no file here shall have."""
    names = Names()
    for name in offer.names:
        if len(names.add(name, is_folder=False)) > 1:
            raise TransferError(f"{quoted(name)} is not the name of one file or folder")
    if not offer.names or len(offer.names) > offer.files + offer.folders:
        raise TransferError("the peer offers nothing")


def _is_text(path: str) -> bool:
    """Whether a peer could have sent it: names that are no UTF-8, which others put there, come with surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Open:
    """The file that is being written."""

    def __init__(self, fd: int, names: tuple[str, ...], size: int | None, digest: _Hash, start: int) -> None:
        self.fd, self.names, self.size, self.digest, self.at = fd, names, size, digest, start


class Incoming:
    """Files on their way to `into`. Use with `with`: what came is kept where it ends early."""

    def __init__(self, offer: Offer, into: Path) -> None:
        """Raises: TransferError where a name is taken, there is no room, or nothing can be written."""
        check(offer)
        self.offer = offer
        self._names = Names()
        self._staging = Staging(into, offer.names)
        self._digests: dict[tuple[str, ...], tuple[int, _Hash]] = {}
        self._files = self._folders = self._size = self._tops = 0
        self._came: set[tuple[str, ...]] | None = None if self._staging.is_new else set()
        self._open: _Open | None = None
        self._is_stopped = False
        self.is_complete = False
        """Whether all of it has its final names."""
        self.skipped = 0
        """Bytes that an earlier transfer has left, and that were of use."""

    @property
    def kept(self) -> Path | None:
        """Where what came so far is, where that is anything."""
        return self._staging.path if not self.is_complete and self._staging.path.exists() else None

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._digests.clear()
        self._staging.close()

    def has(self) -> Generator[Has | None, None, None]:
        """What an earlier transfer has left; None after each piece that was read, as that takes time.

        Raises: TransferError where the rest finds no room.
        """
        found = 0
        for names in self._staging.files():
            path = "/".join(names)
            if not _is_text(path) or (fd := self._staging.read(names)) is None:
                continue
            try:
                size, digest = 0, hashlib.sha256()
                while piece := os.read(fd, messages.MOST_DATA):
                    size += len(piece)
                    digest.update(piece)
                    yield None
            finally:
                os.close(fd)
            if size:
                found += size
                self._digests[names] = (size, digest)
                yield Has(path, size, digest.hexdigest())
        needed, free = (self.offer.size or 0) - found, self._staging.free()
        if free is not None and needed > free:
            raise TransferError(f"there is no room for it: {needed:,} bytes are to come, and {free:,} are free")

    def stop(self) -> None:
        """From another thread: what has no final name by now gets none."""
        self._is_stopped = True

    def take(self, batch: Iterable[Message | bytes]) -> int:
        """Write them. Returns how many bytes of files are done with it. Raises: TransferError."""
        before = self._size
        try:
            for each in batch:
                self._take(each)
        except (OSError, UnicodeError) as error:  # a name that the file system's encoding has no word for
            raise TransferError(f"cannot write {quoted(str(self._staging.path))}: {reason(error)}") from error
        return self._size - before

    def _take(self, said: Message | bytes) -> None:
        if isinstance(said, bytes):
            self._write(said)
        elif isinstance(said, End):
            self._end(said)
        elif self._open is not None or self.is_complete:
            raise _unexpected(said)
        elif isinstance(said, File):
            self._begin(said)
        elif isinstance(said, Folder):
            names = self._name(said.path, is_folder=True)
            self._folders = self._counted(self._folders + 1, self.offer.folders, "folders")
            self._staging.make_folder(names)
        elif isinstance(said, Complete):
            self._finish()
        else:
            raise _unexpected(said)

    def _name(self, path: str, *, is_folder: bool) -> tuple[str, ...]:
        names = self._names.add(path, is_folder=is_folder)
        if names[0] not in self.offer.names:
            raise TransferError(f"the peer sends {quoted(path)}, and has not offered that")
        self._tops += len(names) == 1
        if self._came is not None:
            self._came.add(names)
        return names

    def _counted(self, count: int, most: int | None, what: str) -> int:
        if most is not None and count > most:
            raise TransferError(f"the peer sends more {what} than it has offered ({most:,})")
        return count

    def _begin(self, said: File) -> None:
        names = self._name(said.path, is_folder=False)
        self._files = self._counted(self._files + 1, self.offer.files, "files")
        digest, had = hashlib.sha256(), self._digests.pop(names, None)
        if said.start:
            if had is None or had[0] != said.start:
                raise _unexpected(said)
            digest = had[1]
            self.skipped += said.start
        self._size = self._counted(self._size + said.start, self.offer.size, "bytes")
        fd = self._staging.write(names, said.start, executable=said.executable)
        self._open = _Open(fd, names, said.size, digest, said.start)

    def _write(self, piece: bytes) -> None:
        file = self._open
        if file is None:
            raise _unexpected(piece)
        self._size = self._counted(self._size + len(piece), self.offer.size, "bytes")
        file.at += len(piece)
        self._counted(file.at, file.size, f"of {quoted('/'.join(file.names))}")
        file.digest.update(piece)
        left = memoryview(piece)
        while left:
            left = left[os.write(file.fd, left) :]

    def _end(self, said: End) -> None:
        file = self._open
        if file is None:
            raise _unexpected(said)
        self._close()
        if file.size not in (None, file.at) or file.digest.hexdigest() != said.sha256:
            self._staging.remove(file.names)
            raise TransferError(f"{quoted('/'.join(file.names))} came with other bytes than it was sent with")

    def _close(self) -> None:
        if self._open is not None:
            fd, self._open = self._open.fd, None
            os.close(fd)

    def _finish(self) -> None:
        offer = self.offer
        came = (self._files, self._folders, self._tops, self._size)
        if came != (offer.files, offer.folders, len(offer.names), self._size if offer.size is None else offer.size):
            raise TransferError("the peer has sent less than it has offered")
        if self._came is not None:
            self._staging.prune(self._came)
        self._staging.publish(lambda: not self._is_stopped)
        self.is_complete = True


def _unexpected(said: Message | bytes) -> TransferError:
    what = "data" if isinstance(said, bytes) else f"`{type(said).__name__.lower()}`"
    return TransferError(f"the peer sends {what} out of turn")
