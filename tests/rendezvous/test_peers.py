"""What is kept of a peer: who can read it, what names it can have, and whatever becomes of its file."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simopen
from simopen.errors import PeerError
from simopen.rendezvous import peers
from simopen.rendezvous.api import room_named
from simopen.rendezvous.peers import KnownPeer, derived
from tests.rendezvous.rooms import Rooms
from tests.rendezvous.test_meeting import close, placed

SEED = bytes(range(32))
PEER = derived("laptop", SEED, "nats://me:secret@127.0.0.1", allow_plain=True, since="2026-03-01", side="initiator")


def kept(folder: Path, known: KnownPeer = PEER) -> Path:
    return peers.keep(known, folder)


def test_what_is_kept_comes_back_and_only_this_user_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = kept(tmp_path / "new" / "peers")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["laptop.peer"]
    assert peers.known_peer("@Laptop", path.parent) == PEER


def test_key_and_room_say_nothing_of_each_other_or_of_the_seed() -> None:
    assert derived("other", SEED).key == PEER.key
    assert derived("laptop", bytes(32)).key != PEER.key
    assert len({SEED.hex(), PEER.key.hex(), PEER.room}) == 3
    assert len({room_named(PEER.room_for(each)) for each in ("", "forward", "pipe")}) == 3
    for secret in (PEER.key.hex(), repr(PEER.key)[2:-1], PEER.room, "secret"):
        assert secret not in repr(PEER)


def test_derived_by_the_words_of_the_protocol() -> None:
    """RFC 5869 for 32 bytes without a salt, written out."""
    import hmac

    extracted = hmac.digest(b"\0" * 32, SEED, "sha256")
    assert PEER.key == hmac.digest(extracted, b"simopen peer 1\0key\x01", "sha256")
    assert PEER.room == hmac.digest(extracted, b"simopen peer 1\0room\x01", "sha256").hex()


@pytest.mark.parametrize(
    "name",
    ["", "@", ".", "..", "../x", "a/b", "a\\b", "a b", "-x", ".x", "x\0y", "x\ny", "\x1b[2J", "x" * 41, "a:b", "~"],
)
def test_what_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    for call in (peers.known_peer, peers.forget, peers.require_free):
        with pytest.raises(PeerError, match="no name for a peer"):
            call(name, tmp_path)
    assert peers.names(tmp_path) == []


@settings(max_examples=50)
@given(st.text(max_size=60))
def test_whatever_is_a_name_is_one_file_of_the_folder(name: str) -> None:
    try:
        path = peers._path(name, Path("/folder"))
    except PeerError:
        return
    assert path.parent == Path("/folder")
    assert os.path.normpath(path) == str(path)
    assert 0 < len(path.name.encode()) < 255
    assert not path.name.startswith((".", "-"))


def test_a_name_that_is_no_string() -> None:
    with pytest.raises(TypeError, match="string"):
        peers.checked_name(7)


def test_an_unknown_name_is_told_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"no peer is known here as desk \(you know none yet\).*--remember"):
        peers.known_peer("desk", tmp_path)
    kept(tmp_path)
    with pytest.raises(PeerError, match="you know laptop"):
        peers.known_peer("desk", tmp_path)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    kept(tmp_path).chmod(mode)
    with pytest.raises(PeerError, match=rf"is {mode:o}, not 600.*forget laptop"):
        peers.known_peer("laptop", tmp_path)


def spoil(path: Path, what: str) -> None:
    text = path.read_text()
    path.write_bytes(
        {
            "nothing": b"",
            "half": text[: len(text) // 2].encode(),
            "no text": b"\xff\xfe" * 50,
            "no object": b"[1, 2]",
            "a short key": text.replace(PEER.key.hex(), "ab").encode(),
            "a key of no bytes": text.replace(PEER.key.hex(), "xy" * 32).encode(),
            "no room": text.replace(PEER.room, "").encode(),
            "a room of another kind": text.replace(f'"{PEER.room}"', "7").encode(),
            "a side of another kind": text.replace('"initiator"', "7").encode(),
            "no rendezvous": text.replace("nats://", "gopher://").encode(),
            "deep": b"[" * 4000,
            "long": text.encode() + b" " * 10_000 + b"x",
        }[what]
    )


@pytest.mark.parametrize(
    "what",
    [
        *("nothing", "half", "no text", "no object", "a short key", "a key of no bytes", "no room"),
        *("a room of another kind", "a side of another kind", "no rendezvous", "deep", "long"),
    ],
)
def test_a_spoilt_file_is_told_with_what_to_do(tmp_path: Path, what: str) -> None:
    path = kept(tmp_path)
    spoil(path, what)
    with pytest.raises(PeerError, match=r"spoilt.*peers --forget laptop") as told:
        peers.known_peer("laptop", tmp_path)
    assert PEER.key.hex() not in str(told.value)
    peers.forget("laptop", tmp_path)
    kept(tmp_path)


def test_one_that_was_kept_before_sides_had_names_is_read(tmp_path: Path) -> None:
    path = kept(tmp_path)
    path.write_text(path.read_text().replace(', "side": "initiator"', ""))
    assert peers.known_peer("laptop", tmp_path).side is None


def test_another_versions_file_is_told_to_be_one(tmp_path: Path) -> None:
    path = kept(tmp_path)
    path.write_text(path.read_text().replace('"simopen peer": 1', '"simopen peer": 2'))
    with pytest.raises(PeerError, match=r"another version.* a newer one; or `simopen peers --forget laptop`"):
        peers.known_peer("laptop", tmp_path)


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)], ids=["FIFO", "folder", "link"]
)
def test_what_is_no_file_is_neither_waited_for_nor_followed(tmp_path: Path, make: object) -> None:
    make(tmp_path / "laptop.peer")  # type: ignore[operator]
    with pytest.raises(PeerError, match="cannot be read"):
        peers.known_peer("laptop", tmp_path)
    with pytest.raises(PeerError, match="already"):
        kept(tmp_path)


def test_a_name_that_is_known_is_never_given_to_another_key(tmp_path: Path) -> None:
    kept(tmp_path)
    with pytest.raises(PeerError, match=r"already.*peers --forget laptop"):
        kept(tmp_path, derived("LAPTOP", bytes(32)))
    assert peers.known_peer("laptop", tmp_path) == PEER
    kept(tmp_path, derived("desk", bytes(32)))
    with pytest.raises(PeerError, match="already"):
        peers.rename("desk", "laptop", tmp_path)
    assert peers.names(tmp_path) == ["desk", "laptop"]


def test_names_are_changed_and_forgotten(tmp_path: Path) -> None:
    kept(tmp_path)
    peers.rename("@laptop", "Old-Laptop", tmp_path)
    assert peers.names(tmp_path) == ["old-laptop"]
    assert peers.known_peer("old-laptop", tmp_path).key == PEER.key
    with pytest.raises(PeerError, match="old-laptop is called that already"):
        peers.rename("old-laptop", "Old-Laptop", tmp_path)
    peers.forget("old-laptop", tmp_path)
    assert peers.names(tmp_path) == []
    for call in (peers.forget, lambda name, folder: peers.rename(name, "x", folder)):
        with pytest.raises(PeerError, match="no peer is known"):
            call("old-laptop", tmp_path)


def test_two_programs_at_once_take_one_name_once_and_two_names_both(tmp_path: Path) -> None:
    together = Barrier(8)

    def program(number: int) -> str | None:
        known = derived("laptop", bytes([number]) * 32)
        together.wait()
        try:
            kept(tmp_path, known)
        except PeerError as error:
            return str(error)
        kept(tmp_path, derived(f"peer{number}", SEED))
        return None

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(program, range(8)))
    assert told.count(None) == 1
    winner = told.index(None)
    assert peers.known_peer("laptop", tmp_path).key == derived("x", bytes([winner]) * 32).key
    assert peers.names(tmp_path) == ["laptop", f"peer{winner}"]
    assert not [each for each in tmp_path.iterdir() if each.suffix != ".peer"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PeerError, match="cannot write"):
        kept(tmp_path / "file" / "peers")


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "file" / "peers"
    (tmp_path / "file").write_text("")
    for call in (peers.names, lambda folder: peers.require_free("laptop", folder)):
        with pytest.raises(PeerError, match=r"cannot read .*file/peers: Not a directory"):
            call(folder)
    with pytest.raises(PeerError, match=r"cannot be read .*Not a directory"):
        peers.known_peer("laptop", folder)
    assert peers.names(tmp_path / "none") == []


WITHOUT_A_HOME = """
import os
import platformdirs
from simopen.rendezvous import peers, where
for name in ("HOME", "SIMOPEN_VIA", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
    os.environ.pop(name, None)
os.setresuid(12345, 12345, 12345)
assert where.named() is None
calls = (peers.names,), (peers.require_free, "laptop"), (peers.known_peer, "laptop"), (where.remember, "wss://host")
for call, *words in calls:
    try:
        call(*words)
    except (peers.PeerError, OSError) as error:
        print(getattr(error, "strerror", error))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_user_without_a_home_is_told_what_to_set() -> None:
    """One that the system does not know, as a container's may be."""
    process = subprocess.run([sys.executable, "-c", WITHOUT_A_HOME], capture_output=True, text=True, check=True)
    told = process.stdout.splitlines()
    assert told[:3] == ["this user has no home to keep peers in: set HOME, or XDG_DATA_HOME"] * 3
    assert told[3:] == ["this user has no home: set HOME, or XDG_CONFIG_HOME"]


async def test_both_ends_of_a_stream_remember_the_same(tmp_path: Path) -> None:
    async with placed(Rooms()) as place:
        streams = await asyncio.gather(place.meet(), place.meet())
        folders = tmp_path / "one", tmp_path / "other"
        one, other = await asyncio.gather(
            *(simopen.remember("peer", writer, folder=each) for (_, writer), each in zip(streams, folders, strict=True))
        )
        assert (one.key, one.room) == (other.key, other.room)
        assert {one.side, other.side} == {"initiator", "responder"}
        assert peers.known_peer("peer", folders[0]) == one
        with pytest.raises(PeerError, match="already"):
            await simopen.remember("peer", streams[0][1], folder=folders[0])
        await close(*streams)
        again = await asyncio.gather(place.meet("8-cro-zuc"), place.meet("8-cro-zuc"))
        assert (await simopen.remember("again", again[0][1], folder=folders[0])).key != one.key
        await close(*again)


async def test_a_stream_of_anybodys_is_not_remembered(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        with pytest.raises(ValueError, match="nobody is proven"):
            await simopen.remember("peer", writer, folder=tmp_path)
        with pytest.raises(ValueError, match="via must begin with"):
            await simopen.remember("peer", writer, folder=tmp_path, via="gopher://example.org")
        writer.close()
        await writer.wait_closed()
    assert peers.names(tmp_path) == []
