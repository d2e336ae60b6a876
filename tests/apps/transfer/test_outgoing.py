"""What is sent, and what is not."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simopen.apps.transfer import messages, outgoing
from simopen.apps.transfer.messages import Has, Offer
from simopen.apps.transfer.names import PART
from simopen.apps.transfer.outgoing import Outgoing, batch
from simopen.errors import TransferError

DATA = bytes(range(256)) * 4096


def said(out: Outgoing, has: dict[str, Has] | None = None) -> list[object]:
    """All messages; data as how many bytes of it."""
    found: list[object] = []
    for frame, _ in out.frames(has or {}):
        if frame:
            found.append(messages.parsed(frame[5:]) if frame[:1] == b"r" else len(frame) - 5)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    (top / "docs" / "empty").mkdir(parents=True)
    (top / "docs" / "a.txt").write_bytes(b"a")
    (top / "build").mkdir()
    (top / "build" / "x.o").write_bytes(b"x")
    (top / "run").write_bytes(b"#!")
    (top / "run").chmod(0o4755)
    return top


def test_a_folder_is_walked_in_order(tree: Path) -> None:
    out = Outgoing([str(tree) + "/"])
    assert [entry.path for entry in out.entries] == [
        "top",
        "top/run",
        "top/build",
        "top/build/x.o",
        "top/docs",
        "top/docs/a.txt",
        "top/docs/empty",
    ]
    assert out.offer == Offer(messages.VERSION, ("top",), 3, 4, 4)
    assert [entry.path for entry in out.entries if entry.executable] == ["top/run"]


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc on this system")
def test_a_file_that_has_more_than_it_says_is_refused() -> None:
    with pytest.raises(TransferError, match="as files of /proc do: send it by -"):
        Outgoing(["/proc/self/status"])


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("*.o", {"top/build/x.o"}),
        *((each, {"top/build", "top/build/x.o"}) for each in ("build", "build/", "./build", "./build//")),
        ("docs/*.txt", {"top/docs/a.txt"}),
    ],
)
def test_what_is_excluded(tree: Path, pattern: str, left: set[str]) -> None:
    every = {entry.path for entry in Outgoing([str(tree)]).entries}
    assert every - {entry.path for entry in Outgoing([str(tree)], exclude=[pattern]).entries} == left


def test_links_sockets_and_pipes_inside_are_left_out_and_said_so(tree: Path) -> None:
    (tree / "link").symlink_to("/etc")
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(tree / "sock"))
    out = Outgoing([str(tree)])
    assert out.offer.files == 3
    assert len(out.left_out) == 3
    assert any("link" in note for note in out.notes())


def test_a_link_that_is_named_is_followed(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "short").symlink_to(tree)
    (tmp_path / "note").symlink_to(tree / "docs" / "a.txt")
    out = Outgoing([str(tmp_path / "short"), str(tmp_path / "note")])
    assert out.offer.names == ("short", "note")
    assert sum(each for each in said(out) if isinstance(each, int)) == 5


def test_a_folder_named_by_dots_has_its_name(tree: Path) -> None:
    assert Outgoing([str(tree / "docs" / "..")]).offer.names == ("top",)


@pytest.mark.parametrize("path", ["nothing", "fifo", "bad\n", "bad\0", "", f"x{PART}"])
def test_what_cannot_be_sent_is_said_before_anything_is(tmp_path: Path, path: str) -> None:
    if path == "fifo":
        os.mkfifo(tmp_path / path)
    if path in {"bad\n", f"x{PART}"}:
        (tmp_path / path).write_bytes(b"")
    with pytest.raises(TransferError) as caught:
        Outgoing([str(tmp_path / path) if path else path])
    assert str(caught.value).isprintable()


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="nothing to send"):
        Outgoing([])
    (tmp_path / "a").mkdir()
    assert Outgoing([str(tmp_path / "a")]).offer.folders == 1


def test_what_has_no_name_is_told() -> None:
    with pytest.raises(TransferError, match="no name that it could arrive under"):
        Outgoing(["/"])


def test_two_of_one_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(b"")
    with pytest.raises(TransferError, match="twice"):
        Outgoing([str(tmp_path / "one" / "x"), str(tmp_path / "two" / "x")])
    assert len(Outgoing([str(tmp_path / "one" / "x")] * 2).entries) == 1


def test_a_file_goes_on_from_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    out = Outgoing([str(tmp_path / "x")])
    half = len(DATA) // 2
    found = said(out, {"x": Has("x", half, hashlib.sha256(DATA[:half]).hexdigest())})
    assert found[0] == messages.File("x", len(DATA), half, executable=False)
    assert sum(each for each in found if isinstance(each, int)) == half
    assert found[-2] == messages.End(hashlib.sha256(DATA).hexdigest())
    assert out.skipped == half


@pytest.mark.parametrize(("size", "digest"), [(10, "0" * 64), (len(DATA) + 1, "0" * 64), (2**62, "0" * 64)])
def test_other_bytes_are_sent_anew(tmp_path: Path, size: int, digest: str) -> None:
    (tmp_path / "x").write_bytes(DATA)
    found = said(Outgoing([str(tmp_path / "x")]), {"x": Has("x", size, digest)})
    assert found[0] == messages.File("x", len(DATA), 0, executable=False)
    assert sum(each for each in found if isinstance(each, int)) == len(DATA)


def test_a_file_that_shrinks_or_is_replaced_is_an_error_and_one_that_grows_is_not(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(DATA)
    out = Outgoing([str(file)])
    with file.open("ab") as more:
        more.write(b"more")
    assert sum(each for each in said(out) if isinstance(each, int)) == len(DATA)
    os.truncate(file, 5)
    with pytest.raises(TransferError, match="changed"):
        said(out)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(TransferError, match="changed"):
        said(out)
    file.unlink()
    with pytest.raises(TransferError, match="cannot read"):
        said(out)


def test_a_file_that_shrinks_meanwhile(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(DATA)
    frames = Outgoing([str(file)]).frames({})
    next(frames)
    next(frames)
    os.truncate(file, 5)
    with pytest.raises(TransferError, match="shorter"):
        list(frames)


def under_way(file: Path, has: dict[str, Has] | None = None) -> Iterator[tuple[bytes, int]]:
    """The frames of a file, after the first of its data; a change to come has another time than its last one."""
    file.write_bytes(DATA)
    os.utime(file, ns=(0, 0))
    frames = Outgoing([str(file)]).frames(has or {})
    while next(frames)[1] == 0:
        pass
    return frames


def written(file: Path, at: int, what: bytes) -> None:
    with file.open("r+b") as change:
        change.seek(at)
        change.write(what)


@pytest.mark.parametrize("at", [0, len(DATA) - 1])
def test_a_file_that_is_changed_in_place_meanwhile_is_an_error(tmp_path: Path, at: int) -> None:
    file = tmp_path / "x"
    frames = under_way(file)
    written(file, 0, b"new")
    written(file, at, b"!")
    with pytest.raises(TransferError, match=r"x'? was changed while it was sent: send it again"):
        list(frames)


def test_a_change_of_what_was_not_read_yet_is_sent(tmp_path: Path) -> None:
    frames = under_way(tmp_path / "x")
    written(tmp_path / "x", len(DATA) - 3, b"new")
    frame, _ = [each for each in frames if each[0]][-2]
    assert messages.parsed(frame[5:]) == messages.End(hashlib.sha256(DATA[:-3] + b"new").hexdigest())


def test_a_file_that_is_changed_after_its_first_part_was_compared_is_an_error(tmp_path: Path) -> None:
    half = len(DATA) // 2
    frames = under_way(tmp_path / "x", {"x": Has("x", half, hashlib.sha256(DATA[:half]).hexdigest())})
    written(tmp_path / "x", 0, b"new")
    with pytest.raises(TransferError, match="was changed while it was sent"):
        list(frames)


def test_a_file_that_is_written_anew_and_longer_meanwhile_is_an_error(tmp_path: Path) -> None:
    frames = under_way(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"new" + DATA)
    with pytest.raises(TransferError, match="was changed while it was sent"):
        list(frames)


def test_a_file_that_is_cut_after_its_last_byte_was_read_is_an_error(tmp_path: Path) -> None:
    frames = under_way(tmp_path / "x")
    done = messages.PIECE
    while done < len(DATA):
        done += next(frames)[1]
    os.truncate(tmp_path / "x", 5)
    with pytest.raises(TransferError, match="shorter"):
        list(frames)


def grows(file: Path) -> None:
    with file.open("ab") as more:
        more.write(b"more")


def is_replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(bytes(len(DATA)))
    other.rename(file)


@pytest.mark.parametrize("happens", [grows, is_replaced, Path.unlink, lambda file: file.chmod(0o400)])
def test_what_changes_no_byte_of_the_open_file_is_no_error(tmp_path: Path, happens: Callable[[Path], object]) -> None:
    frames = under_way(tmp_path / "x")
    happens(tmp_path / "x")
    frame, _ = [each for each in frames if each[0]][-2]
    assert messages.parsed(frame[5:]) == messages.End(hashlib.sha256(DATA).hexdigest())


def test_a_longer_file_that_takes_anothers_place_before_its_turn_is_an_error(tmp_path: Path) -> None:
    """What has grown ends where it did; of a file that never was that short, a part would come as the whole."""
    file = tmp_path / "x"
    file.write_bytes(DATA)
    out = Outgoing([str(file)])
    (tmp_path / "other").write_bytes(DATA + b"more")
    (tmp_path / "other").rename(file)
    with pytest.raises(TransferError, match="changed"):
        said(out)


def test_a_file_that_is_written_anew_and_longer_before_its_turn_is_an_error(tmp_path: Path) -> None:
    """In place, by `>`: its inode is the same, and a part of the new one would come as the whole."""
    file = tmp_path / "x"
    file.write_bytes(DATA)
    out = Outgoing([str(file)])
    file.write_bytes(b"new" + DATA)
    with pytest.raises(TransferError, match="changed since this began: send it again"):
        said(out)


@pytest.mark.parametrize("size", [0, 1, 100])
def test_what_has_grown_is_told(tmp_path: Path, size: int) -> None:
    file = tmp_path / "x"
    file.write_bytes(DATA[:size])
    out = Outgoing([str(file)])
    assert out.notes() == ()
    grows(file)
    assert sum(each for each in said(out) if isinstance(each, int)) == size
    assert out.notes() == (f"{str(file)!r} has grown since this began: its first {size} bytes are sent",)


def test_a_link_that_takes_a_files_place_is_not_followed(tree: Path) -> None:
    out = Outgoing([str(tree)])
    (tree / "docs" / "a.txt").unlink()
    (tree / "docs" / "a.txt").symlink_to("/etc/hostname")
    with pytest.raises(TransferError, match="cannot read"):
        said(out)


def is_swapped(folder: Path, secrets: Path) -> None:
    """For a link to another one, where a file of the same name is as long."""
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(secrets)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir()
    for name in ("a.txt", "x.o"):
        (tmp_path / "secrets" / name).write_bytes(b"!")
    return tmp_path / "secrets"


@pytest.mark.parametrize("folder", ["build", "docs"])
def test_a_link_that_takes_a_folders_place_is_not_followed(tree: Path, secrets: Path, folder: str) -> None:
    out = Outgoing([str(tree)])
    is_swapped(tree / folder, secrets)
    with pytest.raises(TransferError, match=f"'top/{folder}' has changed since this began: send it again"):
        said(out)


def test_a_link_that_takes_a_folders_place_is_not_followed_while_its_files_are_sent(tree: Path, secrets: Path) -> None:
    (tree / "docs" / "b.txt").write_bytes(b"b")
    (secrets / "b.txt").write_bytes(b"!")
    frames = Outgoing([str(tree)]).frames({})
    found = b""
    while b"a.txt" not in found:
        found = next(frames)[0]
    is_swapped(tree / "docs", secrets)
    assert messages.data(b"b") in [frame for frame, _ in frames], "what is open is what it was"


class SwappedWhileWalked(Outgoing):
    """As soon as `docs` has been found to be a folder, it is a link to what `exclude` names."""

    def _is_excluded(self, path: str) -> bool:
        if path == "top/docs":
            is_swapped(Path(self._named["top"]) / "docs", Path(self._exclude[0]))
        return False


def test_a_link_that_takes_a_folders_place_is_not_followed_by_the_walk(tree: Path, secrets: Path) -> None:
    with pytest.raises(TransferError, match="'top/docs' has changed since this began"):
        SwappedWhileWalked([str(tree)], exclude=[str(secrets)])


def test_of_all_folders_one_is_open_at_a_time_and_none_in_the_end(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / "top" / "x" / f"{number}" / "y" / "z").mkdir(parents=True)
        (tmp_path / "top" / "x" / f"{number}" / "y" / "z" / "file").write_bytes(b"%d" % number)
    before = len(os.listdir("/proc/self/fd"))
    out, most, sent = Outgoing([str(tmp_path / "top")]), 0, b""
    assert len(os.listdir("/proc/self/fd")) == before
    for frame, size in out.frames({}):
        sent += frame[5:] * bool(size)
        most = max(most, len(os.listdir("/proc/self/fd")))
    assert len(os.listdir("/proc/self/fd")) == before
    assert most == before + 2, "a folder and its file"
    assert sorted(sent) == sorted(b"".join(b"%d" % number for number in range(20)))


def test_standard_input_is_a_file_of_unknown_size() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"piped")
        out = Outgoing(["-"], stdin=reading)
        assert out.offer == Offer(messages.VERSION, ("stdin",), 1, 0, None)
        frames = out.frames({})
        first = batch(frames)
        assert first is not None
        assert b"piped" in b"".join(first[0])
        os.close(writing)
        writing = -1
        rest = []
        while (more := batch(frames)) is not None:
            rest += more[0]
        assert messages.parsed(rest[-2][5:]) == messages.End(hashlib.sha256(b"piped").hexdigest())
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def test_a_text_has_its_limit() -> None:
    assert outgoing.text("hello").message == "hello"
    with pytest.raises(TransferError, match="64 KiB"):
        outgoing.text("x" * 65537)


def test_what_this_user_may_not_read_is_said_with_what_to_do() -> None:
    told = str(outgoing._unreadable("top/secret", os.strerror(errno.EACCES)))
    assert told == "cannot read 'top/secret': Permission denied; leave it out with --exclude"
    assert "--exclude" not in str(outgoing._unreadable("top/x", os.strerror(errno.EIO)))


def test_a_text_that_is_no_text() -> None:
    with pytest.raises(TransferError, match="UTF-8"):
        outgoing.text(os.fsdecode(b"\xff"))
