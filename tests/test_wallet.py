"""Where this side's ticket lies, who may read it, and how long the mapping is wanted."""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from simopen import wallet
from simopen.errors import SimopenError
from tests.test_ticket import SIMPLE

OTHER = replace(SIMPLE, local_port=7)


def test_only_this_user_can_read_it_and_it_is_gone_at_the_end(tmp_path: Path) -> None:
    where = wallet.directory({"XDG_RUNTIME_DIR": str(tmp_path)})
    with wallet.left(SIMPLE, where):
        (file,) = where.iterdir()
        assert file.read_text() == SIMPLE.encode()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(where.stat().st_mode) == 0o700
    assert where == tmp_path / "simopen"
    assert list(where.iterdir()) == []


@pytest.mark.parametrize("environment", [{}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "/nowhere/at/all"}])
def test_without_a_runtime_directory_it_is_one_of_this_user_alone(environment: dict[str, str]) -> None:
    where = wallet.directory(environment)
    assert where == Path(tempfile.gettempdir(), f"simopen-{os.getuid()}")
    assert stat.S_IMODE(where.stat().st_mode) == 0o700


def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "simopen").mkdir(mode=0o755)
    with pytest.raises(SimopenError, match="no directory of this user's alone"):
        wallet.directory({"XDG_RUNTIME_DIR": str(tmp_path)})


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "simopen").mkdir(mode=0o700)
    os.chown(tmp_path / "simopen", 12345, 12345)
    with pytest.raises(SimopenError, match="no directory of this user's alone"):
        wallet.directory({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_a_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "simopen").symlink_to("elsewhere")
    with pytest.raises(SimopenError, match="no directory of this user's alone"):
        wallet.directory({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "simopen").write_text("")
    with pytest.raises(SimopenError, match=r"cannot make .*: File exists; set XDG_RUNTIME_DIR"):
        wallet.directory({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_where_nothing_can_be_written_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(SimopenError, match=r"cannot write .*: No such file"), wallet.left(SIMPLE, tmp_path / "gone"):
        pass


def test_what_is_held_is_found_and_the_holder_knows_while_it_is_used(tmp_path: Path) -> None:
    with wallet.left(SIMPLE, tmp_path) as wanted:
        assert not wanted()
        with wallet.in_use(tmp_path) as one, wallet.in_use(tmp_path) as other:
            assert one == other == [SIMPLE]
            assert wanted()
            assert wanted()  # asking has not given up the lock
        assert not wanted()
        with wallet.in_use(tmp_path) as again:
            assert again == [SIMPLE]


def test_only_the_one_that_is_named_is_used(tmp_path: Path) -> None:
    with wallet.left(SIMPLE, tmp_path) as wanted:
        with wallet.in_use(tmp_path, OTHER) as found:
            assert found == []
            assert not wanted()
        with wallet.in_use(tmp_path, SIMPLE) as found:
            assert found == [SIMPLE]
            assert wanted()


def test_what_a_killed_program_left_is_swept_away(tmp_path: Path) -> None:
    """Nobody has a lock on it."""
    (tmp_path / "99999.ticket").write_text(SIMPLE.encode())
    with wallet.left(OTHER, tmp_path), wallet.in_use(tmp_path) as found:
        assert found == [OTHER]
        assert [each.name for each in tmp_path.iterdir()] == [f"{os.getpid()}.ticket"]


def test_where_nothing_lies_nothing_is_found(tmp_path: Path) -> None:
    with wallet.in_use(tmp_path) as found:
        assert found == []
