"""`--remember NAME` at a first meeting and `@NAME` at the next ones, of two commands through a server of ours."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import pytest

from simopen.cli import code, known
from simopen.cli.arguments import UsageError
from simopen.errors import PeerError
from simopen.rendezvous import peers
from tests.cli.test_send import code_of, ended, rendezvous, started, typed
from tests.loops import ONE_LOOP

SEED = bytes(range(32))


def home(tmp_path: Path, who: str) -> dict[str, str]:
    """What makes a command hers or his."""
    return {"XDG_DATA_HOME": str(tmp_path / who)}


def folder(tmp_path: Path, who: str) -> Path:
    return tmp_path / who / "simopen" / "peers"


@ONE_LOOP
async def test_two_remember_each_other_and_meet_again_without_a_code_or_a_rendezvous_named(tmp_path: Path) -> None:
    alice, bob = home(tmp_path, "alice"), home(tmp_path, "bob")
    (tmp_path / "letter").write_bytes(b"I love you.")
    (tmp_path / "into").mkdir()
    async with rendezvous() as via:
        one = await started(tmp_path, "pipe", "--json", "--remember", "Laptop", "--via", via, **alice)
        words = ["pipe", "--remember", "desk", "--via", via, await code_of(one)]
        other = await started(tmp_path, *words, **bob)
        ends = await asyncio.gather(ended(one, b"there"), ended(other, b"back"))
        assert [each[:2] for each in ends] == [(0, b"back"), (0, b"there")], ends
        assert "remembered: @desk" in ends[1][2]
        assert peers.names(folder(tmp_path, "alice")) == ["laptop"]
        one = await started(tmp_path, "send", "letter", "@laptop", **alice)
        other = await started(tmp_path, "receive", "--yes", "--into", "into", "@desk", **bob)
        ends = await asyncio.gather(ended(one), ended(other))
        assert [each[0] for each in ends] == [0, 0], ends
        assert "proven: laptop, by the key that you both have kept" in ends[0][2]
    assert (tmp_path / "into" / "letter").read_bytes() == b"I love you."


@ONE_LOOP
async def test_two_programs_of_one_side_are_no_peers(tmp_path: Path) -> None:
    """A service that still runs, and a second start; or who sends to a peer, and receives from it, on one computer."""
    (tmp_path / "letter").write_bytes(b"I love you.")
    (tmp_path / "into").mkdir()
    alice = home(tmp_path, "alice")
    async with rendezvous() as via:
        peers.keep(peers.derived("laptop", SEED, via, side="initiator"), folder(tmp_path, "alice"))
        one = await started(tmp_path, "send", "letter", "@laptop", **alice)
        other = await started(tmp_path, "receive", "--yes", "--into", "into", "@laptop", **alice)
        ends = await asyncio.gather(ended(one), ended(other))
    assert [each[0] for each in ends] == [1, 1], ends
    assert any("it is this side, once more" in each[2] for each in ends), ends
    assert not list((tmp_path / "into").iterdir())


@ONE_LOOP
async def test_a_key_that_was_changed_is_told_loudly_to_both(tmp_path: Path) -> None:
    async with rendezvous() as via:
        mine = peers.derived("laptop", SEED, via)
        peers.keep(mine, folder(tmp_path, "alice"))
        theirs = peers.KnownPeer("desk", bytes(32), mine.room, via)
        peers.keep(theirs, folder(tmp_path, "bob"))
        one = await started(tmp_path, "pipe", "@laptop", **home(tmp_path, "alice"))
        other = await started(tmp_path, "pipe", "@desk", **home(tmp_path, "bob"))
        ends = await asyncio.gather(ended(one, b""), ended(other, b""))
    assert [each[0] for each in ends] == [1, 1], ends
    for each, name in zip(ends, ("laptop", "desk"), strict=True):
        assert f"THE KEY OF {name} IS NOT WHAT IT WAS" in each[2]
        assert f"simopen peers --forget {name}" in each[2]


@ONE_LOOP
async def test_who_waits_for_one_that_does_not_come_is_told_why_that_may_be(tmp_path: Path) -> None:
    async with rendezvous() as via:
        peers.keep(peers.derived("laptop", SEED, via), folder(tmp_path, "alice"))
        command = await started(tmp_path, "pipe", "@laptop", **home(tmp_path, "alice"))
        assert command.stderr is not None
        waits = b"waiting for laptop, which comes only if it has remembered this computer, too"
        while waits not in (line := await command.stderr.readline()):
            assert line
        command.terminate()
        assert (await ended(command, b""))[0] == 143


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pipe", "@nobody"], "no peer is known here as nobody (you know laptop)"),
        (["pipe", "@../laptop"], "no name for a peer"),
        (["pipe", "@laptop", "--remember", "x"], "remembered already"),
        (["pipe", "--remember", "laptop", "--via", "ws://127.0.0.1:1/v1"], "already"),
        (["meet", "--remember", "a/b", "--via", "ws://127.0.0.1:1/v1"], "no name for a peer"),
        (["send", "/dev/null", "@laptop", "@desk"], "one peer at a time"),
        (["receive", "--yes", "@laptop"], "others than you could read"),
    ],
)
def test_what_cannot_be_meant_is_told_and_nothing_sent(
    tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "alice"))
    kept = peers.keep(peers.derived("laptop", SEED, "ws://127.0.0.1:1/v1"), folder(tmp_path, "alice"))
    if words[0] == "receive":
        kept.chmod(0o644)
    status, told = typed(words, capsys, monkeypatch)
    assert status == 2, told
    assert said in told


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    code.add_arguments(parser)
    return parser.parse_args(words)


def test_only_what_has_an_at_is_a_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "alice"))
    kept = peers.derived("laptop", SEED, "wss://rendezvous.example.org/v1")
    peers.keep(kept, folder(tmp_path, "alice"))
    assert known.named(options(), None) is known.named(options(), "7-cro-zuc") is None
    assert known.named(options(), " @Laptop ") == kept
    with pytest.raises(UsageError, match="--secret-file"):
        known.named(options("--secret-file", "f"), "@laptop")
    with pytest.raises(PeerError):
        known.require_name(options("--remember", "laptop"))
    assert code.is_code("@laptop")


def test_a_rendezvous_that_is_named_comes_before_the_one_that_was_kept() -> None:
    kept = peers.derived("laptop", SEED, "wss://rendezvous.example.org/v1")
    assert known.place(options(), kept, "pipe").via == kept.via
    assert known.place(options("--via", "wss://other/v1"), kept, "pipe").via == "wss://other/v1"
    with pytest.raises(UsageError, match="in the clear"):
        known.place(options("--via", "ws://192.0.2.1/v1"), kept, "pipe")
    assert known.place(options("--via", "ws://192.0.2.1/v1", "--allow-plain"), kept, "pipe").allow_plain
