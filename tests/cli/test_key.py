"""Where the key of `simopen connect` comes from, and where it is not seen."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simopen.cli import key
from simopen.cli.arguments import UsageError
from simopen.cli.console import Screen
from tests.terminal import Terminal, at_terminal

KEY = bytes(range(0xE0, 0x100))


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    key.add_arguments(parser)
    return parser.parse_args(words)


def told(*words: str, **environment: str) -> bytes | None:
    return key.told(options(*words), Screen(), environment)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (KEY, KEY),
        (KEY[:-1] + b"\n", KEY[:-1] + b"\n"),  # a random byte, not an editor's
        (KEY.hex().encode(), KEY),
        (KEY.hex().upper().encode() + b"\r\n", KEY),
        (b"0123456789abcdeg\n", b"0123456789abcdeg"),
        (b"0123456789abcdef0", b"0123456789abcdef0"),  # an odd number of digits stands for no bytes
        ("schlüssel, geheim\n".encode(), "schlüssel, geheim".encode()),
    ],
)
def test_a_file_s_key_is_its_bytes_or_what_its_digits_stand_for(given: bytes, meant: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(given)
    assert told("--key-file", str(path)) == meant


def test_the_same_key_by_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(KEY.hex() + "\n")
    assert told("--key-file", str(path)) == told("--key-env", "SHARED", SHARED=KEY.hex()) == KEY
    assert capsys.readouterr().err == ""
    assert told("--key", KEY.hex()) == KEY
    said = capsys.readouterr().err
    assert "on the command line, where every user of this host can read it" in said
    assert KEY.hex() not in said


def test_without_a_key_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert told() is None
    assert capsys.readouterr().err == ""


def test_a_file_that_others_can_read_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(0o640)
    assert told("--key-file", str(path)) == KEY
    assert "(mode 640): chmod 600" in capsys.readouterr().err


def test_a_pipe_is_read_as_well() -> None:
    """As bash's `--key-file <(pass show peer)` gives it."""
    reader, writer = os.pipe()
    os.write(writer, KEY.hex().encode())
    os.close(writer)
    try:
        assert told("--key-file", f"/dev/fd/{reader}") == KEY
    finally:
        os.close(reader)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--key-file", "/nowhere/key"], "'/nowhere/key' cannot be read: No such file or directory"),
        (["--key-file", "/"], "'/' cannot be read: Is a directory"),
        (["--key-file", "a\0b"], "cannot be read: embedded null byte"),
        (["--key-file", "/dev/zero"], "'/dev/zero' holds more than 4096 bytes: that is no key"),
        (["--key-file", "/dev/null"], "at least 16 random bytes, not 0"),
        (["--key-env", "UNSET"], "'UNSET' is not set, or empty"),
        (["--key-env", "A=B"], "'A=B' is not set, or empty"),
        (["--key-env", "SHORT"], "at least 16 random bytes, not 8: whoever"),
        (["--key", "hunter2"], "at least 16 random bytes, not 7: whoever"),
    ],
)
def test_what_is_no_key_is_told_and_not_shown(words: list[str], complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        told(*words, SHORT="0123456789abcdef")
    assert complaint in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)


@pytest.mark.parametrize("words", [["--key-file", "a", "--key-env", "B"], ["--key", "--key-file", "a"]])
def test_one_way_at_a_time(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(*words)
    assert "not allowed with" in capsys.readouterr().err


ASKING = """
import argparse, os, sys
from simopen.cli import key
from simopen.cli.console import Screen
parser = argparse.ArgumentParser()
key.add_arguments(parser)
print(key.told(parser.parse_args(["--key"]), Screen()).hex())
"""


def test_typed_at_a_terminal_it_is_not_shown() -> None:
    with Terminal() as terminal:
        command, end = at_terminal([sys.executable, "-c", ASKING]), terminal.fd
        with subprocess.Popen(command, stdin=end, stdout=end, stderr=end, start_new_session=True) as process:
            terminal.given()
            terminal.wait_for("not shown")
            terminal.type("a key that I type\n")
            seen = terminal.read_to_the_end()
    assert process.returncode == 0
    assert "a key that I type" not in seen
    assert b"a key that I type".hex() in seen


def test_without_a_terminal_nobody_is_asked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKING], input=b"no\n", capture_output=True, start_new_session=True, check=False
    )
    assert b"UsageError: there is no terminal to ask for the key at: use --key-file or --key-env" in done.stderr


def test_standard_input_is_the_key_or_the_data() -> None:
    command = [sys.executable, "-m", "simopen", "connect", "127.0.0.2", "9", "--key-file", "/dev/stdin"]
    done = subprocess.run(command, input=KEY + b"the data", capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (2, b"simopen: standard input cannot be both the key and the data\n")
