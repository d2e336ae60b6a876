"""Where files are kept until they are whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from simopen.apps.transfer import staging
from simopen.apps.transfer.names import PART
from simopen.apps.transfer.staging import Staging
from simopen.errors import TransferError


def put(into: Staging, path: str, data: bytes = b"data") -> None:
    fd = into.write(tuple(path.split("/")), 0, executable=False)
    os.write(fd, data)
    os.close(fd)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


class InSteps(Staging):
    """On a file system that cannot rename in one step."""

    def _publish(self, name: str) -> None:
        try:
            self._publish_in_steps(name)
        except FileExistsError as error:
            raise staging._taken(name) from error


@pytest.mark.parametrize("how", [Staging, InSteps])
def test_nothing_has_its_name_before_it_is_published(tmp_path: Path, how: type[Staging]) -> None:
    with how(tmp_path, ("x", "d")) as into:
        put(into, "x")
        into.make_folder(("d",))
        put(into, "d/y")
        assert names(tmp_path) == [into.path.name]
        assert into.path.name.endswith(PART)
        assert into.path.stat().st_mode & 0o777 == 0o700
        into.publish()
    assert names(tmp_path) == ["d", "x"]
    assert (tmp_path / "d" / "y").read_bytes() == b"data"


def test_here_a_name_is_final_in_one_step(tmp_path: Path) -> None:
    """Whoever is killed between two would leave an empty folder under the final name."""
    with Staging(tmp_path, ("x",)) as into:
        put(into, "x")
        assert staging._renamed("x", into._fd, into._into)
        put(into, "x", b"other")
        with pytest.raises(FileExistsError):
            staging._renamed("x", into._fd, into._into)
    assert (tmp_path / "x").read_bytes() == b"data"


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False)])
def test_a_file_that_goes_on_can_be_executed_as_the_sender_says_now(tmp_path: Path, before: bool, after: bool) -> None:
    with Staging(tmp_path, ("x",)) as into:
        os.close(into.write(("x",), 0, executable=before))
        os.truncate(into.path / "x", 3)
        os.close(into.write(("x",), 2, executable=after))
        resumed = (into.path / "x").stat().st_mode
        os.close(into.write(("x",), 0, executable=after))
        assert resumed == (into.path / "x").stat().st_mode


def test_where_nothing_came_nothing_is_left(tmp_path: Path) -> None:
    with Staging(tmp_path, ("x",)):
        pass
    assert names(tmp_path) == []


def test_what_came_is_found_again(tmp_path: Path) -> None:
    with Staging(tmp_path, ("d",)) as into:
        into.make_folder(("d",))
        put(into, "d/y")
    with Staging(tmp_path, ("d",)) as again:
        assert list(again.files()) == [("d", "y")]
        fd = again.read(("d", "y"))
        assert fd is not None
        assert os.read(fd, 9) == b"data"
        os.close(fd)
        os.close(again.write(("d", "y"), 2, executable=False))
        assert (again.path / "d" / "y").read_bytes() == b"da"
        again.prune({("d",)})
        assert list(again.files()) == []
    with Staging(tmp_path, ("other",)) as other:
        assert list(other.files()) == []


@pytest.mark.parametrize("kind", ["file", "folder", "link", "broken link"])
def test_a_name_that_is_taken_is_refused_first(tmp_path: Path, kind: str) -> None:
    taken(tmp_path / "x", kind)
    with pytest.raises(TransferError, match="exists already"):
        Staging(tmp_path, ("x",))
    assert names(tmp_path) == ["x"]


def taken(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_bytes(b"mine")
    elif kind == "folder":
        path.mkdir()
        (path / "mine").write_bytes(b"")
    else:
        path.symlink_to("/dev/null" if kind == "link" else "nowhere")


@pytest.mark.parametrize("kind", ["file", "folder", "link", "broken link"])
@pytest.mark.parametrize("sent", ["file", "folder"])
@pytest.mark.parametrize("how", [Staging, InSteps])
def test_a_name_that_is_taken_meanwhile_is_not_overwritten(
    tmp_path: Path, kind: str, sent: str, how: type[Staging]
) -> None:
    with how(tmp_path, ("x",)) as into:
        if sent == "file":
            put(into, "x")
        else:
            into.make_folder(("x",))
            put(into, "x/y")
        taken(tmp_path / "x", kind)
        before = os.lstat(tmp_path / "x").st_ino
        with pytest.raises(TransferError, match="exists already"):
            into._publish("x") if kind == "file" else into.publish()
        assert os.lstat(tmp_path / "x").st_ino == before
    assert into.path.exists()


def test_where_there_are_no_hard_links_a_name_is_taken_first(tmp_path: Path) -> None:
    with Staging(tmp_path, ("x",)) as into:
        put(into, "x")
        into._publish_without_links("x")
        assert (tmp_path / "x").read_bytes() == b"data"
        put(into, "x")
        with pytest.raises(FileExistsError):
            into._publish_without_links("x")
        os.unlink("x", dir_fd=into._fd)
        os.unlink(tmp_path / "x")
        with pytest.raises(FileNotFoundError):
            into._publish_without_links("x")
    assert names(tmp_path) == []


def test_a_second_command_is_told_of_the_first(tmp_path: Path) -> None:
    with Staging(tmp_path, ("x",)) as into:
        put(into, "x")
        with pytest.raises(TransferError, match="another command"):
            Staging(tmp_path, ("x",))
        with Staging(tmp_path, ("y",)):
            pass


def test_a_first_command_that_ends_as_the_second_begins(tmp_path: Path) -> None:
    class Late(Staging):
        def _lock(self) -> None:
            os.rmdir(self.path)
            super()._lock()

    with pytest.raises(TransferError, match="another command"):
        Late(tmp_path, ("x",))
    assert names(tmp_path) == []


@pytest.mark.parametrize("place", ["hidden", "inside"])
def test_links_that_somebody_puts_there_are_not_followed(tmp_path: Path, place: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    into = tmp_path / "into"
    into.mkdir()
    if place == "hidden":
        (into / staging._hidden(("d",))).symlink_to(elsewhere)
        with pytest.raises(TransferError, match="cannot write"):
            Staging(into, ("d",))
    else:
        with Staging(into, ("d",)) as there:
            (there.path / "d").symlink_to(elsewhere)
            with pytest.raises(TransferError, match="cannot write"):
                there.make_folder(("d",))
            with pytest.raises(TransferError, match="cannot write"):
                there.write(("d", "x"), 0, executable=False)
            (there.path / "f").symlink_to(elsewhere / "f")
            with pytest.raises(TransferError, match="cannot write"):
                there.write(("f",), 1, executable=False)
            assert there.read(("f",)) is None
    assert names(elsewhere) == []


def test_a_fifo_that_somebody_puts_there_holds_nobody_up(tmp_path: Path) -> None:
    with Staging(tmp_path, ("x",)) as into:
        os.mkfifo(into.path / "x")
        assert into.read(("x",)) is None
        put(into, "x")
        into.publish()
    assert (tmp_path / "x").read_bytes() == b"data"


@pytest.mark.parametrize("where", ["nowhere", "a file"])
def test_a_place_that_is_no_folder(tmp_path: Path, where: str) -> None:
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(TransferError, match="cannot write"):
        Staging(tmp_path / where, ("x",))


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=os.strerror(errno.ENOSPC)), staging._told(tmp_path):
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with Staging(tmp_path, ("d",)) as into:
            into.make_folder(("d",))
            into.make_folder(("d", "e"))
            put(into, "d/e/x")
            put(into, "d/y")
    assert len(os.listdir("/proc/self/fd")) == before
