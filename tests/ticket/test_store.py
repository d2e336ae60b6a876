"""Where this side's ticket lies, who may read it, and how long the mapping is wanted."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from simopen.errors import SimopenError
from simopen.ticket import store
from tests.ticket.test_codec import SIMPLE, sealed

OTHER = replace(SIMPLE, local_port=7)


def test_only_this_user_can_read_it_and_it_is_gone_at_the_end(tmp_path: Path) -> None:
    where = store.directory({"XDG_RUNTIME_DIR": str(tmp_path)})
    with store.left(SIMPLE, where):
        (file,) = where.iterdir()
        assert file.read_text() == SIMPLE.encode()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(where.stat().st_mode) == 0o700
    assert where == tmp_path / "simopen"
    assert list(where.iterdir()) == []


@pytest.mark.parametrize("environment", [{}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "/nowhere/at/all"}])
def test_without_a_runtime_directory_it_is_one_of_this_user_alone(environment: dict[str, str]) -> None:
    where = store.directory(environment)
    assert where == Path(tempfile.gettempdir(), f"simopen-{os.getuid()}")
    assert stat.S_IMODE(where.stat().st_mode) == 0o700


def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "simopen").mkdir(mode=0o755)
    with pytest.raises(SimopenError, match="no directory of this user's alone"):
        store.directory({"XDG_RUNTIME_DIR": str(tmp_path)})


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "simopen").mkdir(mode=0o700)
    os.chown(tmp_path / "simopen", 12345, 12345)
    with pytest.raises(SimopenError, match="no directory of this user's alone"):
        store.directory({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_a_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "simopen").symlink_to("elsewhere")
    with pytest.raises(SimopenError, match="no directory of this user's alone"):
        store.directory({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "simopen").write_text("")
    with pytest.raises(SimopenError, match=r"cannot make .*: File exists; set XDG_RUNTIME_DIR"):
        store.directory({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_where_nothing_can_be_written_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(SimopenError, match=r"cannot write .*: No such file"), store.left(SIMPLE, tmp_path / "gone"):
        pass


def test_what_is_held_is_found_and_the_holder_knows_while_it_is_used(tmp_path: Path) -> None:
    with store.left(SIMPLE, tmp_path) as wanted:
        assert not wanted()
        with store.in_use(tmp_path) as one, store.in_use(tmp_path) as other:
            assert one == other == [SIMPLE]
            assert wanted()
            assert wanted()  # asking has not given up the lock
        assert not wanted()
        with store.in_use(tmp_path) as again:
            assert again == [SIMPLE]


def test_only_the_one_that_is_named_is_used(tmp_path: Path) -> None:
    with store.left(SIMPLE, tmp_path) as wanted:
        with store.in_use(tmp_path, OTHER) as found:
            assert found == []
            assert not wanted()
        with store.in_use(tmp_path, SIMPLE) as found:
            assert found == [SIMPLE]
            assert wanted()


def test_what_a_killed_program_left_is_swept_away(tmp_path: Path) -> None:
    """Nobody has a lock on it."""
    (tmp_path / "99999.ticket").write_text(SIMPLE.encode())
    with store.left(OTHER, tmp_path), store.in_use(tmp_path) as found:
        assert found == [OTHER]
        assert [each.name for each in tmp_path.iterdir()] == [f"{os.getpid()}.ticket"]


def test_where_nothing_lies_nothing_is_found(tmp_path: Path) -> None:
    with store.in_use(tmp_path) as found:
        assert found == []


# --- two terminals, of which one has no XDG_RUNTIME_DIR


def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a session; the system's temporary directory is one of this test's own."""
    for name in ("run", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return {"XDG_RUNTIME_DIR": str(tmp_path / "run")}


def test_what_is_left_in_one_terminal_is_found_in_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, bare = store.directories(session(tmp_path, monkeypatch)), store.directories({})
    assert full == (tmp_path / "run" / "simopen", *bare)
    for here, there in ((full, bare), (bare, full), (full, full), (bare, bare)):
        with store.left(SIMPLE, here) as wanted:
            assert not wanted()
            with store.in_use(there) as found:
                assert found == [SIMPLE]
                assert wanted()
            assert not wanted()
            with store.in_use(there, OTHER) as found:
                assert found == []
        assert [list(where.iterdir()) for where in full] == [[], []]


def test_what_this_session_holds_counts_before_what_others_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = store.directories(session(tmp_path, monkeypatch))
    with store.left(SIMPLE, full[0]):
        (file,) = full[0].iterdir()
        file.rename(full[0] / "1.ticket")  # as if another program had left it
        with store.left(OTHER, full[1]):
            with store.in_use(full) as found:
                assert found == [SIMPLE]
            with store.in_use(full, OTHER) as found:
                assert found == [OTHER]


@pytest.mark.parametrize("bad", ["run", "tmp"])
def test_one_directory_that_others_can_enter_leaves_the_other(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = session(tmp_path, monkeypatch)
    good, evil = {"run": (f"simopen-{os.getuid()}", "simopen"), "tmp": ("simopen", f"simopen-{os.getuid()}")}[bad]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / bad / evil).symlink_to(tmp_path / "elsewhere")
    (only,) = store.directories(environment)
    assert only.name == good
    with store.left(SIMPLE, only), store.in_use(store.directories(environment)) as found:
        assert found == [SIMPLE]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_where_every_directory_is_bad_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = session(tmp_path, monkeypatch)
    (tmp_path / "run" / "simopen").mkdir(mode=0o755)
    (tmp_path / "tmp" / f"simopen-{os.getuid()}").write_text("")
    with pytest.raises(SimopenError, match="no directory of this user's alone"):
        store.directories(environment)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_runtime_directory_of_somebody_else_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`su` may leave it in the environment, and root would make a directory there that its owner cannot enter."""
    environment = session(tmp_path, monkeypatch)
    os.chown(tmp_path / "run", 12345, 12345)
    assert store.directories(environment) == (tmp_path / "tmp" / f"simopen-{os.getuid()}",)
    assert list((tmp_path / "run").iterdir()) == []


# --- what else lies there


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def huge(path: Path) -> None:
    path.write_text("x")
    os.truncate(path, 2**40)


THINGS: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a directory": Path.mkdir,
    "a socket": socket_at,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a huge file": huge,
    "nothing": Path.touch,
    "no text": lambda path: path.write_bytes(b"\xff\0" * 999),
    "a ticket of another version": lambda path: path.write_text(sealed(bytes([9, 26]) + bytes(20))),
    "half a ticket": lambda path: path.write_text(SIMPLE.encode()[:-9]),
    "unreadable": lambda path: path.touch(mode=0),
}


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("locked", [False, True])
def test_what_is_no_ticket_is_left_alone(thing: str, locked: bool, tmp_path: Path) -> None:
    """Not waited for, not read to its end; not even where somebody has a lock on it, as on a ticket."""
    path = tmp_path / "1.ticket"
    THINGS[thing](path)
    with ExitStack() as stack:
        if locked and path.is_file() and not path.is_symlink():
            fcntl.flock(stack.enter_context(path.open("rb")), fcntl.LOCK_SH)
        with store.left(SIMPLE, tmp_path), store.in_use(tmp_path) as found:
            assert found == [SIMPLE]


def test_a_directory_in_the_new_tickets_place_is_told(tmp_path: Path) -> None:
    (tmp_path / f"{os.getpid()}.new").mkdir()
    with pytest.raises(SimopenError, match=r"cannot write .*: Is a directory"), store.left(SIMPLE, tmp_path):
        pass


def test_a_place_that_takes_no_ticket_leaves_the_other(tmp_path: Path) -> None:
    full, other = tmp_path / "full", tmp_path / "other"
    for place in (full, other):
        place.mkdir(mode=0o700)
    (full / f"{os.getpid()}.new").mkdir()
    with store.left(SIMPLE, (full, other)) as is_in_use, store.in_use((full, other)) as found:
        assert found == [SIMPLE]
        assert is_in_use()
    assert list(other.iterdir()) == []


def test_a_ticket_that_gets_no_name_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / f"{os.getpid()}.ticket"
    path.mkdir()
    with pytest.raises(SimopenError, match="cannot write"), store.left(SIMPLE, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == [path]
