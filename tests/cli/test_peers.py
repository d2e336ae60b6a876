"""`simopen peers`: who is remembered, and what becomes of a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simopen.cli.main import main
from simopen.rendezvous import peers

SEED = bytes(range(32))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path / "simopen" / "peers"


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The status, and what is on standard output and error."""
    status = main(["peers", *words])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_nobody_yet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(capsys, "--json") == (0, '{"peers": []}\n', "")
    status, out, said = typed(capsys)
    assert (status, out) == (0, "")
    assert "--remember NAME" in said


def test_who_is_known_is_shown_without_secrets(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = peers.derived("laptop", SEED, "nats://me:password@127.0.0.1", since="2026-03-01")
    peers.keep(known, folder)
    peers.keep(peers.derived("desk", SEED), folder).write_text("spoilt")
    for words in ((), ("--json",)):
        status, out, said = typed(capsys, *words)
        assert status == 0
        assert "laptop" in out
        assert "2026-03-01" in out
        for secret in ("password", known.key.hex(), known.room):
            assert secret not in out + said
    assert [each["name"] for each in json.loads(out)["peers"]] == ["desk", "laptop"]
    assert "spoilt" in json.loads(out)["peers"][0]["error"]


def test_a_peer_is_renamed_and_forgotten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peers.keep(peers.derived("laptop", SEED), folder)
    assert typed(capsys, "--rename", "laptop", "old")[0] == 0
    assert peers.names(folder) == ["old"]
    assert typed(capsys, "--forget", "@old")[0] == 0
    assert peers.names(folder) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--forget", "nobody"], "no peer is known here as nobody"),
        (["--forget", "../laptop"], "no name for a peer"),
        (["--rename", "nobody", "x"], "no peer is known here as nobody"),
        (["--rename", "laptop", "desk"], "--forget desk"),
        (["--rename", "laptop", "Laptop"], "laptop is called that already"),
        (["--rename", "laptop", "x", "--forget", "laptop"], "one at a time"),
    ],
)
def test_what_cannot_be_done_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    for name in ("laptop", "desk"):
        peers.keep(peers.derived(name, SEED), folder)
    status, _, told = typed(capsys, *words)
    assert status == 2
    assert said in told
    assert peers.names(folder) == ["desk", "laptop"]


def test_names_are_completed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("laptop", "lamp", "desk"):
        peers.keep(peers.derived(name, SEED), folder)
    assert main(["completion", "code", "@La"]) == 0
    assert capsys.readouterr().out == "@lamp\n@laptop\n"


def test_a_folder_that_cannot_be_read_is_told_and_completes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.parent.write_text("")
    status, _, said = typed(capsys)
    assert status == 2
    assert "cannot read" in said
    assert main(["completion", "code", "@La"]) == 0
    assert not "".join(capsys.readouterr()).strip()
