"""The command line as people and scripts use it: processes of its own, their output, their exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from simopen.cli.main import main
from tests.cli.processes import LIMIT_S, SIMOPEN, Ports, connecting, last_json, running, simopen_run
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["224.0.0.1", "9"], "no single host"),
        (["", "9"], "the peer's host is empty"),
        ([HERE], "PORT is missing: `simopen connect HOST PORT`, or a ticket; and '127.0.0.1' is no ticket"),
        ([THERE, "9", "--at", "+1h", "--ntp", "a:b:c:d"], "a:b:c:d"),
    ],
)
def test_what_only_the_call_can_judge_is_bad_usage_too(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["connect", *arguments]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("simopen: ")
    assert words in line


BROKEN = """
import contextlib, io, json, sys
from simopen.holepunch import api
from simopen.cli.main import main

def looked_up(error):
    exec(5 * "\\n" + "raise " + error)

for error in sys.argv[2:]:
    async def broken(*_, **__):
        looked_up(error)

    api.connect = api.connect_self = broken
    for extra in ("", "-vv", "--json"):
        with contextlib.redirect_stderr(io.StringIO()) as said:
            status = main([*json.loads(sys.argv[1]), *filter(None, [extra])])
        print(json.dumps([error, extra, status, said.getvalue()]))
"""
ERRORS = {
    "TypeError('no len()')": "TypeError",
    "ValueError('bad')": "ValueError",
    "KeyError(5)": "KeyError",
    "AssertionError": "AssertionError",
    "Unlikely": "NameError",
}


@pytest.mark.parametrize("words", [["self", "9"], ["connect", HERE, "9", "--no-ntp"]], ids=["self", "connect"])
def test_an_error_of_this_program_is_not_blamed_on_the_user(words: list[str]) -> None:
    """By one program, in which each error is raised in turn."""
    status, out, complaint = simopen_run(json.dumps(words), *ERRORS, program=[sys.executable, "-c", BROKEN])
    assert (status, complaint) == (0, "")
    told = [json.loads(line) for line in out.splitlines()]
    assert [each[:3] for each in told] == [[error, extra, 1] for error in ERRORS for extra in ("", "-vv", "--json")]
    for error, extra, _, said in told:
        if extra == "--json":
            assert last_json(said)["error"] == ERRORS[error], error
            continue
        assert f"simopen: this is a bug in simopen, not in what you typed: {ERRORS[error]}" in said, (error, extra)
        assert "(<string>, line 6); please report it" in said, (error, extra)
        assert ("Traceback" in said) is bool(extra), (error, extra)


@pytest.mark.parametrize(
    "words",
    [
        ["connect", "", "9"],
        ["connect", "224.0.0.1", "9"],
        ["connect", HERE, "9", "--ntp", "a:b:c:d"],
        ["connect", HERE, "9", "--first-ttl", "3"],
        ["connect", HERE],
        ["connect", HERE, "9", "--spray"],
        ["clock", "--ntp", "a b"],
        ["clock", "--ntp", ""],
        ["nat", "--at", "+10s"],
        ["nat", "--spray"],
        ["nat", "--stun", "a:b:c:d"],
        ["nat", "--ntp", "a:b:c:d"],
        ["nat", "--ticket", "--no-ntp", "--at", "2001-01-01T00:00:00Z"],
        ["doctor", "--stun", "a:b:c:d"],
        ["doctor", "--ntp", "a:b:c:d"],
    ],
)
def test_what_only_the_command_can_judge_is_bad_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert not out
    assert re.fullmatch(r"simopen: (?!this is a bug).{20,400}", err.splitlines()[-1])


@pytest.mark.parametrize(("flag", "tells"), [("-v", False), ("-vv", True)])
def test_very_verbose_says_where_an_error_came_from(ports: Ports, flag: str, tells: bool) -> None:
    status, _, said = simopen_run(*connecting(ports, "--window", "100ms", flag))
    assert status == 1
    assert ("Traceback" in said) is tells
    assert said.splitlines()[-1].startswith("  to do: ")


def test_verbose_tells_the_story_with_the_time(ports: Ports) -> None:
    status, _, said = simopen_run(*connecting(ports, "--window", "100ms", "-v"))
    assert status == 1
    story = [line for line in said.splitlines() if re.match(r"\d\d:\d\d:\d\d\.\d\d\d simopen: ", line)]
    assert "to fire at" in story[0]
    assert "SYN to" in story[1]
    assert "no stream: " in story[-1]
    assert len(story) <= 25


def test_standard_output_that_nobody_reads(ports: Ports) -> None:
    taken, given = os.pipe()
    os.close(taken)
    with running("self", ports[0], stdout=given) as it:
        os.close(given)
        it.wait_for("itself")
        it.write(b"hello")
        status, _, said = it.end()
    assert status == 1
    assert "simopen: standard output is closed: nobody reads it any more" in said
    assert "Traceback" not in said
    assert "Exception" not in said


def test_an_answer_that_nobody_reads() -> None:
    taken, given = os.pipe()
    os.close(taken)
    with running("demo", "--loopback", stdout=given) as it:
        os.close(given)
        status, _, said = it.end()
    assert status == 1
    assert said == "simopen: standard output is closed: nobody reads it any more\n"


def test_a_full_disk(ports: Ports) -> None:
    with open("/dev/full", "wb") as full, running("self", ports[0], stdout=full.fileno()) as it:
        it.write(b"hello")
        status, _, said = it.end()
    assert status == 1
    assert "simopen: cannot write to standard output: No space left on device\n" in said


def test_a_full_disk_behind_an_answer() -> None:
    with open("/dev/full", "wb") as full, running("demo", "--loopback", stdout=full.fileno()) as it:
        status, _, said = it.end()
    assert status == 1
    assert said == "simopen: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("typed", ["--version", "--help", "nat --help"])
def test_a_full_disk_behind_a_help(typed: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*SIMOPEN, *typed.split()], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"simopen: cannot write to standard output: No space left on device\n")


@pytest.mark.parametrize("typed", ["--version", "lab --help"])
def test_a_help_that_nobody_reads(typed: str) -> None:
    """As from a pager that has been left: whoever reads it has seen enough."""
    taken, given = os.pipe()
    os.close(taken)
    done = subprocess.run([*SIMOPEN, *typed.split()], stdout=given, stderr=subprocess.PIPE, check=False)
    os.close(given)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "2>&-"])
def test_streams_that_are_closed_from_the_start(ports: Ports, closed: str) -> None:
    """Else the next socket would get number 0 or 1, and the stream its own data."""
    command = f"exec {sys.executable} -m simopen self {ports[0]} {closed}"
    done = subprocess.run(["sh", "-c", command], input=b"hello", capture_output=True, timeout=LIMIT_S, check=False)
    carried = 0 if "<" in closed else 5
    assert done.returncode == 0
    assert done.stdout == (b"" if closed != "2>&-" else b"hello")
    assert ("2>" in closed) or f"{carried} bytes sent, {carried} received" in done.stderr.decode()


MICRO = {"ascii": b"u", "koi8-r": b"u", "latin-1": "µ".encode("latin-1"), "utf-8": "µ".encode()}


def encoded(encoding: str, *words: object, given: bytes = b"") -> tuple[int, bytes, str]:
    return simopen_run(*words, given=given, env={**os.environ, "PYTHONIOENCODING": encoding})


def test_in_any_encoding_the_answer_and_the_data_are_whole(ports: Ports) -> None:
    """Standard output has strict errors, unlike standard error; what a stream carries is bytes."""
    with ThreadPoolExecutor(len(MICRO)) as pool:  # all at once, as each demo waits for an instant of its own
        demos = pool.map(lambda encoding: encoded(encoding, "demo", "--loopback"), MICRO)
    for (encoding, micro), (status, out, said) in zip(MICRO.items(), demos, strict=True):
        assert (encoding, status, said) == (encoding, 0, ""), out
        assert (encoding, out.count(micro + b"s after the instant)")) == (encoding, 2)
    data = bytes(range(256))
    for encoding in MICRO:
        status, carried, _ = encoded(encoding, "self", ports[0], given=data)
        assert (encoding, status, carried) == (encoding, 0, data)


def test_a_name_that_is_no_text_is_written_out(capfd: pytest.CaptureFixture[str]) -> None:
    """Bytes that are not of the locale's encoding come as surrogates; and a terminal must not obey a name."""
    assert main(["connect", "\udcff\x1b[2J", "9", "--no-ntp"]) in (1, 2)
    said = capfd.readouterr().err
    assert "udcff" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("limit", [14, 20, 27])
@pytest.mark.parametrize(
    "words",
    [
        ["lab"],
        ["demo"],
        ["demo", "--loopback"],
        ["self", "9"],
        ["doctor", "--no-ntp", "--stun", f"{HERE}:9"],
        ["nat", "--stun", f"{HERE}:9", "--timeout", "1s"],
        ["nat", "--ticket", "--no-ntp", "--stun", f"{HERE}:9", "--timeout", "1s"],
        ["clock", "--ntp", f"{HERE}:9", "--timeout", "500ms"],
        ["connect", "127.0.0.2", "9", "--no-ntp", "--window", "100ms", "--local-port", "1"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_with_few_descriptors_it_ends_in_words(limit: int, words: list[str]) -> None:
    command = f"ulimit -n {limit}; exec {sys.executable} -m simopen {' '.join(words)}"
    done = subprocess.run(["sh", "-c", command], input=b"", capture_output=True, timeout=LIMIT_S, check=False)
    said = done.stderr.decode()
    assert done.returncode in (0, 1)
    assert not re.search("Traceback|Exception|Warning|Unknown error", said)
    if words[0] in ("lab", "demo"):
        assert done.returncode == 1
        assert re.fullmatch(
            rf"simopen: this takes \d+ open files at once, and this process may have {limit}: raise .*\n", said
        )
