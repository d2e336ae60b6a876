"""`simopen completion`: what bash makes of its script, and that the others name every command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from simopen.cli import completion
from simopen.cli.main import main
from simopen.rendezvous import peers


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["completion", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["simopen", "mee"], {"meet"}),
        (["simopen", "meet", "--vi"], {"--via"}),
        (["simopen", "meet", "7-croissant-zu"], {"7-croissant-zucchini"}),
        (["simopen", "meet", "7-qqq"], set()),
        (["simopen", "receive", "@", "bo"], {"@bob"}),  # as bash takes it apart; it replaces the @, too
        (["shopt -u hostcomplete", "simopen", "receive", "@", "bo"], {"bob"}),  # then it does not
        (["simopen", "receive", "@"], {"@bob"}),
        (["simopen", "receive", "@bo"], {"@bob"}),  # as zsh does not
        (["simopen", "connect", "--ti"], set()),  # of which its help speaks, as nat's
        (["simopen", "serve", "--vi"], set()),
    ],
)
def test_bash_completes(
    typed: list[str],
    offered: set[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    peers.keep(peers.derived("bob", bytes(32)))
    script = printed(capsys, "bash")
    how = typed.pop(0) if typed[0].startswith("shopt") else "true"
    words = " ".join(f"'{word}'" for word in typed)
    asks = f'simopen() {{ {sys.executable} -m simopen "$@"; }}'
    ends = f'COMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}; _simopen; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "-c", f"{how}\n{asks}\n{script}\n{ends}"], capture_output=True, check=True, text=True
    )
    assert set(done.stdout.split()) == offered, done.stderr


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_each_shells_script_names_every_command_and_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = printed(capsys, shell)
    for name in ("meet", "connect", "doctor", "allow-plain", "code-fd"):
        assert name in script


def test_codes_are_completed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "code", "7-cro") == "7-croissant\n"
    assert printed(capsys, "code", "") == ""


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "tcsh"])
    assert "tcsh" in capsys.readouterr().err
