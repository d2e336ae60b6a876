"""Where this side's ticket lies, who may read it, and how long the mapping is wanted."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from simopen.errors import SimopenError, TicketError
from simopen.ticket import store
from simopen.ticket.keys import PrivateKey
from tests.ticket.test_codec import SIMPLE, sealed

OTHER = replace(SIMPLE, local_port=7)
PRIVATE = bytes(range(1, 33))
OWN = SIMPLE.owned(PrivateKey.stored(PRIVATE))


def test_only_this_user_can_read_it_and_it_is_gone_at_the_end(tmp_path: Path) -> None:
    where = store.directory({"XDG_RUNTIME_DIR": str(tmp_path)})
    with store.left(OWN, where):
        (file,) = where.iterdir()
        assert file.read_text() == f"{SIMPLE.encode()}\n{PRIVATE.hex()}\n"
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


# --- the private half


def test_whoever_uses_it_has_the_private_half(tmp_path: Path) -> None:
    with store.left(OWN, tmp_path), store.in_use(tmp_path) as found:
        (ticket,) = found
        assert ticket == SIMPLE
        assert ticket.private is not None
        assert ticket.private.raw() == PRIVATE


def test_once_spent_nobody_finds_it_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In neither directory; what else lies there stays."""
    places = store.directories(session(tmp_path, monkeypatch))
    others = places[0] / "1.ticket"
    with store.left(SIMPLE.owned(PrivateKey.stored(PRIVATE)), places) as wanted:
        others.write_text(OTHER.encode())
        with others.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            with store.in_use(places, SIMPLE) as (ticket,):
                assert ticket.private is not None
                ticket.private.spend()
                assert wanted()  # the stream goes on
                with pytest.raises(TicketError, match="used up: a ticket is good for one meeting; make a new one"):
                    ticket.private.raw()
            assert [list(where.iterdir()) for where in places] == [[others], []]
            with store.in_use(places) as found:
                assert found == [OTHER]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o677])
def test_a_private_half_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    with store.left(OWN, tmp_path):
        (file,) = tmp_path.iterdir()
        file.chmod(mode)
        words = rf"others than its owner can read {file} .*{mode:o}, not 600.*: run `simopen nat --ticket` anew"
        with pytest.raises(SimopenError, match=words), store.in_use(tmp_path):
            pass


@pytest.mark.parametrize("umask", [0, 0o777])
def test_whatever_the_umask_is_only_this_user_can_read_it(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with store.left(OWN, tmp_path):
            (file,) = tmp_path.iterdir()
            assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    finally:
        os.umask(before)


def test_where_the_file_is_gone_there_is_no_ticket(tmp_path: Path) -> None:
    with store.left(OWN, tmp_path) as wanted:
        (file,) = tmp_path.iterdir()
        file.unlink()
        with store.in_use(tmp_path, SIMPLE) as found:
            assert found == []
        assert not wanted()


@pytest.mark.parametrize("text", ["zz", "00", "00" * 31, "00" * 33, "\0", "é"])
def test_a_private_half_that_is_none_makes_it_nobodys_ticket(text: str, tmp_path: Path) -> None:
    with store.left(OWN, tmp_path):
        (file,) = tmp_path.iterdir()
        file.write_text(f"{SIMPLE.encode()}\n{text}\n")
        with store.in_use(tmp_path) as found:
            assert found == []


WRITER = """
import resource, sys
from pathlib import Path
from simopen.ticket import store
from simopen.ticket.keys import PrivateKey
from simopen.ticket.codec import parse_ticket
from simopen.ticket.keys import PrivateKey
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
with store.left(parse_ticket(sys.argv[1]).owned(PrivateKey.new()), Path(sys.argv[2])):
    pass
"""


def test_where_no_byte_can_be_written_that_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    """A file's size is limited, which to a writer is what a full disk is: the first byte fails."""
    command = [sys.executable, "-c", WRITER, SIMPLE.encode(), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert re.search(r"SimopenError: cannot write \S+: File too large; set XDG_RUNTIME_DIR to", done.stderr), (
        done.stderr
    )
    assert list(tmp_path.iterdir()) == []


ON_OWN_DISK = """
import sys
from pathlib import Path
from simopen.ticket import store
from simopen.ticket.codec import parse_ticket
from simopen.ticket.keys import PrivateKey
where = Path(sys.argv[2])
try:
    with store.left(parse_ticket(sys.argv[1]).owned(PrivateKey.new()), where):
        pass
except Exception as error:
    print(f"{type(error).__name__}: {error}")
print(*(each.name for each in where.iterdir()))
"""


@pytest.mark.lab
@pytest.mark.parametrize(
    ("mounted", "words"),
    [
        ('mount -t tmpfs -o size=4k none "$1" && head -c 4096 /dev/zero > "$1/full"', "No space left on device"),
        ('mount -t tmpfs none "$1" && touch "$1/full" && mount -o remount,ro none "$1"', "Read-only file system"),
    ],
    ids=["full", "read-only"],
)
def test_on_a_disk_that_takes_nothing_that_is_told_and_nothing_is_left(
    mounted: str, words: str, tmp_path: Path
) -> None:
    """A disk of the program's own, in a namespace of mounts."""
    script = f'{mounted} && exec "$2" -c "$3" "$4" "$1"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, ON_OWN_DISK, SIMPLE.encode()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    told, left = done.stdout.splitlines() or pytest.fail(done.stderr)
    assert re.match(rf"SimopenError: cannot write \S+: {words}; set XDG_RUNTIME_DIR to another directory", told), told
    assert left == "full"


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
