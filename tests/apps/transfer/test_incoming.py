"""What a peer sends, and what becomes of it here."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from simopen.apps.transfer.incoming import Incoming, check
from simopen.apps.transfer.messages import VERSION, Accepted, Complete, End, File, Folder, Has, Message, Offer
from simopen.apps.transfer.names import PART
from simopen.errors import TransferError

SHA = {data: hashlib.sha256(data).hexdigest() for data in (b"data", b"da", b"", b"other")}


def offer(*names: str, files: int = 1, folders: int = 0, size: int | None = 4) -> Offer:
    return Offer(VERSION, names, files, folders, size)


def file(path: str, size: int | None = 4, start: int = 0, *, executable: bool = False) -> File:
    return File(path, size, start, executable)


X = offer("x")
GOOD: list[Message | bytes] = [file("x"), b"da", b"ta", End(SHA[b"data"]), Complete()]


def taken(into: Path, what: Offer, said: list[Message | bytes]) -> int:
    with Incoming(what, into) as incoming:
        list(incoming.has())
        return incoming.take(said)


def test_a_file_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    with Incoming(X, tmp_path) as incoming:
        assert list(incoming.has()) == []
        for each in GOOD:
            assert not (tmp_path / "x").exists()
            incoming.take([each])
        assert incoming.is_complete
    assert incoming.kept is None
    assert (tmp_path / "x").read_bytes() == b"data"
    assert os.listdir(tmp_path) == ["x"]


def test_a_folder_with_all_that_is_in_it(tmp_path: Path) -> None:
    what = offer("d", files=2, folders=3)
    said: list[Message | bytes] = [
        Folder("d"),
        file("d/run", executable=True),
        b"data",
        End(SHA[b"data"]),
        Folder("d/empty"),
        Folder("d/sub"),
    ]
    said += [file("d/sub/x", 0), End(SHA[b""]), Complete()]
    assert taken(tmp_path, what, said) == 4
    assert (tmp_path / "d/run").stat().st_mode & 0o7777 == 0o777 & ~umask()
    assert (tmp_path / "d/sub/x").stat().st_mode & 0o7777 == 0o666 & ~umask()
    assert (tmp_path / "d/empty").is_dir()


def umask() -> int:
    old = os.umask(0)
    os.umask(old)
    return old


def test_what_ends_early_is_kept_and_goes_on(tmp_path: Path) -> None:
    with Incoming(X, tmp_path) as incoming:
        list(incoming.has())
        incoming.take(GOOD[:2])
    assert incoming.kept is not None
    assert [each.name for each in tmp_path.iterdir()] == [incoming.kept.name]
    with Incoming(X, tmp_path) as incoming:
        assert [each for each in incoming.has() if each] == [Has("x", 2, SHA[b"da"])]
        incoming.take([file("x", start=2), b"ta", End(SHA[b"data"]), Complete()])
        assert incoming.skipped == 2
    assert (tmp_path / "x").read_bytes() == b"data"
    assert incoming.kept is None


def test_what_an_earlier_transfer_left_and_this_one_lacks_goes(tmp_path: Path) -> None:
    with Incoming(offer("d", files=2, folders=2, size=8), tmp_path) as incoming:
        list(incoming.has())
        incoming.take([Folder("d"), Folder("d/old"), file("d/old/x"), b"data", End(SHA[b"data"])])
    what = offer("d", folders=1)
    assert taken(tmp_path, what, [Folder("d"), file("d/y"), b"data", End(SHA[b"data"]), Complete()]) == 4
    assert os.listdir(tmp_path / "d") == ["y"]


def test_what_others_put_beside_what_was_left_goes_too(tmp_path: Path) -> None:
    """Names that are no UTF-8, of which no peer can be told, and links, which nobody follows."""
    with Incoming(X, tmp_path) as incoming:
        incoming.take(GOOD[:2])
        left = incoming.kept
    assert left is not None
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_bytes(b"")
    (left / os.fsdecode(b"\xff")).write_bytes(b"other")
    (left / "folder").symlink_to(tmp_path / "elsewhere")
    (left / "file").symlink_to(tmp_path / "elsewhere" / "mine")
    with Incoming(X, tmp_path) as again:
        assert [each for each in again.has() if each] == [Has("x", 2, SHA[b"da"])]
        again.take([file("x", start=2), b"ta", End(SHA[b"data"]), Complete()])
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "x"]
    assert os.listdir(tmp_path / "elsewhere") == ["mine"]


def test_an_empty_folder_that_an_earlier_transfer_left_and_this_one_lacks_goes(tmp_path: Path) -> None:
    with Incoming(offer("d", folders=2), tmp_path) as incoming:
        list(incoming.has())
        incoming.take([Folder("d"), Folder("d/old")])
    taken(tmp_path, offer("d", folders=1), [Folder("d"), file("d/y"), b"data", End(SHA[b"data"]), Complete()])
    assert os.listdir(tmp_path / "d") == ["y"]


D = offer("d", folders=2)
AS_FOLDER: list[Message | bytes] = [Folder("d"), Folder("d/x"), file("d/x/y"), b"data", End(SHA[b"data"])]
AS_FILE: list[Message | bytes] = [Folder("d"), file("d/x"), b"data", End(SHA[b"data"])]


@pytest.mark.parametrize(("before", "after"), [(AS_FILE, AS_FOLDER), (AS_FOLDER, AS_FILE)])
def test_what_was_a_file_and_is_a_folder_by_now(
    tmp_path: Path, before: list[Message | bytes], after: list[Message | bytes]
) -> None:
    with Incoming(D, tmp_path) as incoming:
        list(incoming.has())
        incoming.take(before)
    what = offer("d", folders=sum(isinstance(each, Folder) for each in after))
    assert taken(tmp_path, what, [*after, Complete()]) == 4
    assert (tmp_path / "d" / "x").is_dir() == (after is AS_FOLDER)
    assert os.listdir(tmp_path) == ["d"]


@pytest.mark.parametrize(
    ("names", "files"),
    [
        ((), 0),
        (("..",), 1),
        (("a/b",), 1),
        (("/etc",), 1),
        (("a", "A"), 2),
        (("a", "b"), 1),
        (("a\n",), 1),
        (("",), 1),
        ((f".x.2d711642{PART}",), 1),
    ],
)
def test_an_offer_of_evil_names_is_refused(names: tuple[str, ...], files: int) -> None:
    with pytest.raises(TransferError):
        check(offer(*names, files=files))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([b"data"], "out of turn"),
        ([End(SHA[b"data"])], "out of turn"),
        ([Accepted()], "out of turn"),
        ([file("x"), file("x")], "out of turn"),
        ([file("x"), Complete()], "out of turn"),
        ([*GOOD, file("x")], "out of turn"),
        ([*GOOD, b"more"], "out of turn"),
        ([Complete()], "less"),
        ([file("x", 2), b"da", End(SHA[b"da"]), Complete()], "less"),
        ([file("x"), b"data+"], "more bytes"),
        ([file("x", 2), b"data"], "more of"),
        ([file("x"), b"data", End(SHA[b"other"])], "other bytes"),
        ([file("x"), b"da", End(SHA[b"da"])], "other bytes"),
        ([file("x", start=2)], "out of turn"),
        ([file("y")], "has not offered"),
        ([file("../x")], "cannot be"),
        ([file("x/y")], "not named before"),
        ([Folder("x")], "more folders"),
        ([file("x"), b"data", End(SHA[b"data"]), file("x")], "twice"),
        ([file("x"), b"data", End(SHA[b"data"]), file("X")], "twice"),
    ],
)
def test_a_peer_that_sends_something_else_gets_no_name(tmp_path: Path, said: list[Message | bytes], why: str) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(TransferError, match=why):
        taken(tmp_path, X, said)
    if said[: len(GOOD)] != GOOD:
        assert not (tmp_path / "x").exists()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_stream_of_unknown_size_ends_when_it_ends(tmp_path: Path) -> None:
    said: list[Message | bytes] = [file("x", None), b"da", b"ta", End(SHA[b"data"]), Complete()]
    assert taken(tmp_path, offer("x", size=None), said) == 4


def test_a_file_system_that_does_not_say_what_is_free_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ramfs, a tmpfs without a limit, and what libfuse answers for who has no answer."""
    says = os.statvfs_result((4096, 4096, *(0,) * 8))
    monkeypatch.setattr(os, "fstatvfs", lambda _: says)
    assert taken(tmp_path, X, GOOD) == 4
    assert (tmp_path / "x").read_bytes() == b"data"


def test_what_has_no_room_is_refused_before_it_comes(tmp_path: Path) -> None:
    with Incoming(offer("x", size=2**62), tmp_path) as incoming, pytest.raises(TransferError, match="no room"):
        list(incoming.has())
    assert os.listdir(tmp_path) == []


def test_a_file_with_other_bytes_is_not_kept(tmp_path: Path) -> None:
    with Incoming(X, tmp_path) as incoming, pytest.raises(TransferError, match="other bytes"):
        incoming.take([file("x"), b"data", End(SHA[b"other"])])
    assert os.listdir(tmp_path) == []
