"""What a peer may call a file: a path that stays below the folder it is put into, and that reads as what it is.

Theory of operation. Pure: texts in, names out. Both sides judge by the same rules, so that the sender hears of a name
that nobody could take before anything is sent. A name is also judged against those that came before it: two that some
file system takes for one (`A` and `a`, `é` in one code point or in two) would overwrite each other there.
"""

from __future__ import annotations

import hashlib
import unicodedata

from simopen.errors import TransferError
from simopen.model.wording import quoted

LONGEST_NAME = 255
"""Bytes: NAME_MAX of every usual file system."""
LONGEST_PATH = 4095
"""Bytes: PATH_MAX without its end (limits.h)."""
DEEPEST = 128
"""Folders in folders, each of which the receiver opens by itself."""
PART = ".simopen-part"
"""What the folder of an interrupted transfer ends with."""
_RESERVED = frozenset("\N{LEFT-TO-RIGHT MARK}\N{RIGHT-TO-LEFT MARK}\N{ARABIC LETTER MARK}\u2028\u2029") | {
    chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""Marks that turn the direction of writing, so that `exe.fdp` would read as `pdf.exe`; and ends of lines."""


def parts(path: str) -> tuple[str, ...]:
    """The names that a relative path is made of, `/` between them.

    Raises: TransferError where it is absolute, leads up, has a control character in it, or is too long.
    """
    names = tuple(path.split("/"))
    wrong = _wrong(path, names)
    if wrong is not None:
        raise TransferError(f"{quoted(path)} cannot be a file's name on the other side: {wrong}")
    return names


def _wrong(path: str, names: tuple[str, ...]) -> str | None:
    try:
        lengths = [len(name.encode()) for name in names]
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if any(name in {"", ".", ".."} for name in names):
        return "it does not say which file below a folder it is"
    if names[0].endswith(PART):
        return f"{PART} is kept for what an interrupted transfer leaves"
    if any(unicodedata.category(each) == "Cc" or each in _RESERVED for each in path):
        return "it has characters in it that cannot be seen"
    if max(lengths) > LONGEST_NAME or sum(lengths) + len(names) - 1 > LONGEST_PATH or len(names) > DEEPEST:
        return f"it is too long (a name: {LONGEST_NAME} bytes, a path: {LONGEST_PATH}, {DEEPEST} folders)"
    return None


class Names:
    """The paths of one transfer, each of which comes once, and after its folder."""

    def __init__(self) -> None:
        self._taken: set[bytes] = set()
        self._folders: set[tuple[str, ...]] = {()}

    def add(self, path: str, *, is_folder: bool) -> tuple[str, ...]:
        """Its parts. Raises: TransferError, as `parts`; and for a path that is another's, or in no folder so far."""
        names = parts(path)
        if names[:-1] not in self._folders:
            raise TransferError(f"{quoted(path)} is in a folder that was not named before it")
        key = _as_one(path)
        if key in self._taken:
            raise TransferError(f"{quoted(path)} comes twice, or differs from another name in capitals or accents only")
        self._taken.add(key)
        if is_folder:
            self._folders.add(names)
        return names


def _as_one(path: str) -> bytes:
    """The same for all that a file system may take for one; a digest, as there may be a million."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
    return hashlib.blake2b(folded.encode(), digest_size=16).digest()
