"""The command line as people and scripts use it: processes of its own, their output, their exit status."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import simopen
from simopen import lab
from simopen.cli.main import _FAILURES, main
from simopen.clock import source as clock
from simopen.model.endpoint import Endpoint
from tests.connection_table import connections
from tests.fake_ntp import MISBEHAVIOURS, FakeNtp
from tests.fake_stun import FakeStun
from tests.loopback import HERE, THERE, ports
from tests.loops import ONE_LOOP
from tests.stalls import ALONE_S

__all__ = ["ports"]
SIMOPEN = [sys.executable, "-m", "simopen"]
NO_RICH = [
    sys.executable,
    "-c",
    "import sys; sys.modules['rich'] = None; from simopen.cli.main import main; sys.exit(main(sys.argv[1:]))",
]
LIMIT_S = 30
Ports = tuple[int, int]


class Running:
    """A `simopen` under way, in a session of its own. Standard input stays open until `end_of_input`."""

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        program: Sequence[str] = SIMOPEN,
        stdin: int = subprocess.PIPE,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> None:
        self.process = subprocess.Popen(
            [*program, *map(str, arguments)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        )
        self.said = b""

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end_of_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None

    def wait_for(self, words: str) -> None:
        """Read standard error until these words were said."""
        assert self.process.stderr is not None
        self.said = read_until(self.process.stderr.fileno(), words.encode(), self.said)

    def end(self) -> tuple[int, bytes, str]:
        """Wait until it ends by itself: the exit status, what it wrote and what it said."""
        stdin, self.process.stdin = self.process.stdin, None  # else `communicate` would close it
        stdout, stderr = self.process.communicate(timeout=LIMIT_S)
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
        return self.process.returncode, stdout or b"", (self.said + (stderr or b"")).decode()


def read_until(fd: int, words: bytes, said: bytes = b"") -> bytes:
    deadline_s = time.monotonic() + LIMIT_S
    while words not in said:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline_s - time.monotonic()))
        more = os.read(fd, 65536) if ready else b""
        assert more, f"never said {words!r}, but {said!r}"
        said += more
    return said


@contextlib.contextmanager
def running(*arguments: object, **options: Any) -> Iterator[Running]:
    """Killed at the end, if it still runs. `options`: as `Running` takes them."""
    it = Running(arguments, **options)
    try:
        yield it
    finally:
        it.process.kill()
        it.process.wait()
        for stream in (it.process.stdin, it.process.stdout, it.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def connecting(ports: Ports, *options: object) -> list[object]:
    """From HERE to THERE."""
    return ["connect", THERE, ports[1], "--local-address", HERE, "--local-port", ports[0], "--no-ntp", *options]


def answering(ports: Ports, *options: object) -> list[object]:
    """From THERE to HERE."""
    return ["connect", HERE, ports[0], "--local-address", THERE, "--local-port", ports[1], "--no-ntp", *options]


def simopen_run(
    *arguments: object, program: Sequence[str] = SIMOPEN, given: bytes = b"", env: Mapping[str, str] | None = None
) -> tuple[int, bytes, str]:
    command = [*program, *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, timeout=LIMIT_S, check=False, env=env)
    return done.returncode, done.stdout, done.stderr.decode()


def last_json(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return found


# --- usage


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["connect", "clock", "self", "demo", "lab", "exit status", "130 interrupted"]),
        (
            ["connect", "--help"],
            ["--at T", "22:14:30", "--no-listen", "one$", "default: 10 s", "--mine TICKET"],
        ),
        (["clock", "--help"], ["--ntp HOST", "default: 3 s"]),
        (["self", "--help"], ["default: 1314"]),
        (["demo", "--help"], ["--loopback", "default: 40ms"]),
        (["lab", "--help"], ["--left SPEC", "default: 40ms", "as 2%", "simopen lab --list", "--plot FILE"]),
        (["--version"], [simopen.__version__]),
    ],
)
def test_help(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize("command", sorted(_FAILURES))
def test_help_fits_a_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if len(line) > 80] == []
    assert "\nexit status: 0 done, 1 " in said
    assert said.count("S: seconds, or 250ms") == (" S " in said or " S\n" in said)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["connect", HERE, "0"], "argument PORT: a port must lie between 1 and 65535, not 0"),
        (["connect", HERE, "65536"], "argument PORT: a port must lie between 1 and 65535, not 65536"),
        (["connect", HERE, "abc"], "argument PORT: a port is a number between 1 and 65535, not 'abc'"),
        (["connect", HERE, "²"], "a port is a number"),
        (["connect", HERE, "9", "--local-port", "0"], "argument --local-port: a port must lie between 1 and 65535"),
        (["connect", HERE, "9", "--local-address", "here"], "must be an IP address of this host, not 'here'"),
        (["connect", HERE, "9", "--at", "soon"], "argument --at: 'soon' is no instant: write 22:14:30"),
        (["connect", HERE, "9", "--at", "2026-01-01"], "argument --at: '2026-01-01' is no instant: write 22:14:30"),
        (["connect", "AEPARZDLA4GDNNNZZAAP", "6AYAZMAHCAIAYCUA"], "(a ticket with spaces in it goes in quotes)"),
        (["connect", HERE, "9", "--at", "2026-01-01T00:00:00"], "has no time zone"),
        (["connect", HERE, "9", "--at", "25:00"], "no time of day"),
        (["connect", HERE, "9", "--window", "0"], "argument --window: it must be longer than zero"),
        (["connect", HERE, "9", "--window", "long"], "'long' is no duration"),
        (["connect", HERE, "9", "--ntp", HERE, "--no-ntp"], "not allowed with"),
        (["clock", "--timeout", "0s"], "argument --timeout: it must be longer than zero"),
        (["self", "99999"], "argument PORT: a port must lie"),
        (["demo", "--delay", "-1s"], "argument --delay"),
        (["lab", "--plot", "/nope/x.svg"], "argument --plot: there is no directory /nope to write to"),
    ],
)
def test_bad_usage_is_told_in_one_clear_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert words in err.splitlines()[-1]


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


# --- no stream


def test_a_name_without_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    """One that no resolver would be asked for: it has an empty label."""
    assert main(["connect", "no..name", "9", "--no-ntp"]) == 1
    assert "simopen: the name 'no..name' has no address" in capsys.readouterr().err


def test_a_missed_instant(ports: Ports, capsys: pytest.CaptureFixture[str]) -> None:
    past = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    assert main([*map(str, connecting(ports, "--at", past))]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{THERE}:{ports[1]}: the window ended at ")
    assert "nothing was sent to 127.0.0.2" in said
    assert "Agree on a later instant" in said


def test_what_was_missed_long_ago_is_told_with_its_date(ports: Ports, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*map(str, connecting(ports, "--at", "2001-09-09T01:46:40Z", "--window", "10s"))]) == 1
    assert "the window ended at 2001-09-09 01:46:50 UTC\n" in capsys.readouterr().err


def test_a_window_that_closes(ports: Ports, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*map(str, connecting(ports, "--window", f"{ALONE_S}s"))]) == 1
    said = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"trying {THERE}:{ports[1]} until \d\d:\d\d:\d\d UTC", said[0])
    assert said[1].startswith("simopen: no stream: only refusals came back")
    assert any(line.startswith("  seen: ") and f"to {THERE}:{ports[1]}" in line for line in said)
    assert said[-1].startswith("  to do: Either the peer never fired: was it run")


def test_an_ipv6_peer_is_written_as_one(ports: Ports, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["connect", "[::1]", str(ports[1]), "--local-port", str(ports[0]), "--window", "100ms"]
    assert main([*arguments, "--local-address", "::1"]) == 1
    assert f"trying [::1]:{ports[1]} until" in capsys.readouterr().err


def test_failure_as_json(ports: Ports, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*map(str, connecting(ports, "--window", f"{ALONE_S}s", "--json"))]) == 1
    out, err = capsys.readouterr()
    assert not out
    (line,) = err.splitlines()
    told = json.loads(line)
    assert told["error"] == "WindowClosed"
    assert told["message"].startswith("no stream to")
    assert told["report"]["peers"] == [f"{THERE}:{ports[1]}"]
    assert told["report"]["attempts"][0]["result"] == "answered by RST"
    assert told["diagnosis"]["cause"] == "refused"


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as holder:
        holder.bind((HERE, 0))
        port = holder.getsockname()[1]
        assert main(["connect", THERE, str(port), "--no-ntp"]) == 1
    assert f":{port} on this host: another program has it" in capsys.readouterr().err


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


# --- a stream


def test_two_processes_exchange_what_they_are_given(ports: Ports) -> None:
    with running(*connecting(ports)) as left, running(*answering(ports)) as right:
        left.write(b"I love you.")
        right.write(b"\0\xff I know.")
        left.end_of_input()
        right.end_of_input()
        ends = left.end(), right.end()
    assert [status for status, *_ in ends] == [0, 0]
    assert [heard for _, heard, _ in ends] == [b"\0\xff I know.", b"I love you."]
    for (_, _, said), counts in zip(ends, ("11 bytes sent, 10 received", "10 bytes sent, 11 received"), strict=True):
        assert "connected to 127.0.0." in said
        assert re.search(r" in \d+\.\d ms \((by our own SYN|through the listener)\)", said)
        assert "the clock: " in said
        assert said.count("\nsimopen: plain: not encrypted, and whoever answers there is taken for your peer") == 1
        assert said.endswith(f"{counts}\n")


def key_in(path: Path, key: bytes) -> list[object]:
    path.touch(mode=0o600)
    path.write_bytes(key)
    return ["--key-file", path]


def test_two_processes_with_one_key_prove_it(ports: Ports, tmp_path: Path) -> None:
    """One has it in a file as bytes, the other its digits on the command line, and is told who can read that."""
    key = bytes(range(32))
    left_words, right_words = key_in(tmp_path / "key", key), ["--key", key.hex()]
    with running(*connecting(ports, *left_words)) as left, running(*answering(ports, *right_words)) as right:
        left.write(b"I love you.")
        left.end_of_input()
        right.end_of_input()
        ends = left.end(), right.end()
    assert [(status, heard) for status, heard, _ in ends] == [(0, b""), (0, b"I love you.")]
    for _, _, said in ends:
        assert "and both ends proven in " in said
        assert "simopen: proven: who has the key, too\n" in said
        assert "plain: " not in said
        assert key.hex() not in said
    assert ["on the command line" in said for *_, said in ends] == [False, True]


def test_two_processes_with_two_keys_exchange_nothing(ports: Ports, tmp_path: Path) -> None:
    words = [key_in(tmp_path / name, name.encode() * 16) for name in ("one", "two")]
    with (
        running(*connecting(ports, "--window", "3s", *words[0])) as left,
        running(*answering(ports, "--window", "3s", *words[1])) as right,
    ):
        left.write(b"a secret")
        left.end_of_input()
        right.end_of_input()
        ends = left.end(), right.end()
    assert [(status, heard) for status, heard, _ in ends] == [(1, b""), (1, b"")]
    for _, _, said in ends:
        assert "simopen: no stream: " in said
        assert "proven: " not in said


def test_files_cross_both_ways_intact(ports: Ports, tmp_path: Any) -> None:
    data = [os.urandom(2_000_000), os.urandom(3_000_000)]
    for name, content in zip("ab", data, strict=True):
        (tmp_path / name).write_bytes(content)
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context((tmp_path / name).open("rb")).fileno() for name in "ab"]
        sinks = [stack.enter_context((tmp_path / name).open("wb")).fileno() for name in "cd"]
        left = stack.enter_context(running(*connecting(ports), stdin=sources[0], stdout=sinks[0]))
        right = stack.enter_context(running(*answering(ports), stdin=sources[1], stdout=sinks[1]))
        assert (left.end()[0], right.end()[0]) == (0, 0)
    assert (tmp_path / "c").read_bytes() == data[1]
    assert (tmp_path / "d").read_bytes() == data[0]


def test_success_as_json(ports: Ports) -> None:
    at = time.time() + 1.5
    with running(*connecting(ports, "--json", "--at", at)) as left, running(*answering(ports, "--at", at)) as right:
        left.write(b"I love you.")
        left.end_of_input()
        right.end_of_input()
        status, heard, said = left.end()
        assert right.end()[:2] == (0, b"I love you.")
    assert (status, heard) == (0, b"")
    (line,) = said.splitlines()
    told = json.loads(line)
    assert (told["sent"], told["received"], told["error"]) == (11, 0, None)
    assert told["report"]["remote"] == f"{THERE}:{ports[1]}"
    assert told["report"]["via"] in ("connect", "accept")
    assert told["report"]["instant"] == pytest.approx(at, abs=1e-3)


@pytest.mark.lab
def test_without_a_listener_the_syns_must_cross() -> None:
    asyncio.run(_without_a_listener())


async def _without_a_listener() -> None:
    async with lab.Network() as net:
        left = await net.host("left", delay_s=0.02, nat=lab.Nat())
        right = await net.host("right", delay_s=0.02, nat=lab.Nat())
        options = ["1314", "--at", str(time.time() + 1.5), "--no-ntp", "--no-listen", "--json"]
        ended = await asyncio.gather(
            left.run([*SIMOPEN, "connect", right.public_address, *options], stdin=b"I love you."),
            right.run([*SIMOPEN, "connect", left.public_address, *options], stdin=b"I love you."),
        )
        record = await net.record()
    for done in ended:
        assert (done.returncode, done.stdout) == (0, b"I love you.")
        assert last_json(done.stderr.decode())["report"]["listening"] is False
    assert record.opened_simultaneously("left", "right")


def test_a_peer_that_breaks_the_stream(ports: Ports) -> None:
    """It has unread data when it is killed, so that its kernel resets."""
    with running(*connecting(ports)) as left, running(*answering(ports)) as right:
        left.wait_for("connected to")
        right.wait_for("connected to")
        right.process.send_signal(signal.SIGSTOP)
        left.write(bytes(1000))
        while not received_unread(Endpoint(THERE, ports[1])):
            time.sleep(0.001)
        right.process.kill()
        status, _, said = left.end()
    assert status == 1
    assert "simopen: the stream broke (Connection reset by peer)" in said


def received_unread(local: Endpoint) -> bool:
    """Whether the kernel holds data for this socket that nobody has read (/proc/net/tcp's rx_queue)."""
    raw = socket.inet_aton(local.address)[::-1].hex().upper()
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [row.split() for row in table]
    return any(row[1] == f"{raw}:{local.port:04X}" and int(row[4].split(":")[1], 16) for row in rows[1:])


# --- standard streams


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
        assert (encoding, status, said) == (encoding, 0, "")
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


def test_self_gives_back_what_it_is_given(ports: Ports) -> None:
    status, heard, said = simopen_run("self", ports[0], given=b"I love me.")
    assert (status, heard) == (0, b"I love me.")
    me = f"127.0.0.1:{ports[0]}"
    assert said == f"{me} is connected to {me}: itself. What you type comes back\n10 bytes sent, 10 received\n"


def test_self_as_json(ports: Ports) -> None:
    status, heard, said = simopen_run("self", ports[0], "--json", given=b"I love me.")
    assert (status, heard) == (0, b"I love me.")
    me = f"127.0.0.1:{ports[0]}"
    assert json.loads(said) == {"local": me, "remote": me, "sent": 10, "received": 10, "error": None}


def test_self_on_a_port_that_is_in_use(ports: Ports) -> None:
    with running("self", ports[0]) as it:
        it.wait_for("itself")
        status, _, said = simopen_run("self", ports[0])
    assert (status, said) == (1, f"simopen: port {ports[0]} is in use: name another (simopen self {ports[0] + 1})\n")


def test_self_where_something_listens(ports: Ports) -> None:
    with socket.create_server((HERE, 0)) as server:
        status, _, said = simopen_run("self", server.getsockname()[1])
    assert status == 1
    assert said.startswith("simopen: ")


# --- few descriptors


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


# --- interrupted


@contextlib.contextmanager
def a_terminal() -> Iterator[tuple[int, int]]:
    """(the screen's and keyboard's side, the program's side), 200 columns wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def interrupted(it: Running, signal_number: int = signal.SIGINT) -> str:
    it.process.send_signal(signal_number)
    status, _, said = it.end()
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[signal.Signals(signal_number)]
    assert status == 128 + signal_number
    assert said.endswith(f"simopen: {word}; everything is closed\n")
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_before_the_instant(ports: Ports, signal_number: int) -> None:
    with running(*connecting(ports, "--at", "+1h")) as it:
        it.wait_for("; clock ")
        said = interrupted(it, signal_number)
    waiting, _ = said.splitlines()  # the line is said once, unless one waits for long
    assert re.match(rf"{THERE}:{ports[1]} at \d\d:\d\d:\d\d UTC.*, in 3[56]\d\d s; clock (± .*s|unchecked)", waiting)
    assert len(waiting) < 80


def test_interrupted_in_the_window(ports: Ports) -> None:
    with running(*connecting(ports, "--window", "1m")) as it:
        while not any(row.local == Endpoint(HERE, ports[0]) for row in connections(socket.AF_INET)):
            time.sleep(0.001)
        interrupted(it)


def test_interrupted_while_connected(ports: Ports) -> None:
    with running(*connecting(ports)) as left, running(*answering(ports)) as right:
        right.end_of_input()
        left.write(b"hello")
        left.wait_for("connected to")
        assert right.process.stdout is not None
        assert os.read(right.process.stdout.fileno(), 5) == b"hello"
        assert "\n5 bytes sent, 0 received\n" in interrupted(left)
        assert right.end()[0] == 1


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_peer_that_is_ended_in_the_middle_of_its_input(ports: Ports, signal_number: int) -> None:
    """What has come is no whole file, and must not look like one."""
    with running(*connecting(ports)) as left, running(*answering(ports)) as right:
        right.end_of_input()
        left.write(b"half a file")
        assert right.process.stdout is not None
        assert os.read(right.process.stdout.fileno(), 11) == b"half a file"
        left.process.send_signal(signal_number)
        status, _, said = right.end()
    assert status == 1
    assert "simopen: the stream broke (Connection reset by peer)" in said


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_peer_that_is_ended_after_its_input(ports: Ports, signal_number: int) -> None:
    with running(*connecting(ports)) as left, running(*answering(ports)) as right:
        left.write(b"a whole file")
        left.end_of_input()
        left.wait_for("connected to")
        while not sent_its_end(Endpoint(HERE, ports[0])):
            time.sleep(0.001)
        left.process.send_signal(signal_number)
        assert left.process.wait(LIMIT_S)
        right.end_of_input()
        status, heard, said = right.end()
    assert (status, heard) == (0, b"a whole file"), said


def sent_its_end(local: Endpoint) -> bool:
    rows = [row for row in connections(socket.AF_INET) if row.local == local]
    return any(row.state in ("FIN-WAIT-1", "FIN-WAIT-2") for row in rows)


def test_interrupted_while_the_peer_takes_nothing(ports: Ports) -> None:
    """What is still unsent must not hold up the end."""
    zeros = os.open("/dev/zero", os.O_RDONLY)
    with running(*connecting(ports), stdin=zeros) as left, running(*answering(ports)) as right:
        os.close(zeros)
        left.wait_for("connected to")
        right.wait_for("connected to")
        right.process.send_signal(signal.SIGSTOP)
        while not received_unread(Endpoint(THERE, ports[1])):
            time.sleep(0.001)
        interrupted(left)


def test_interrupted_at_a_terminal_while_connected(ports: Ports) -> None:
    with a_terminal() as (keyboard, terminal), running(*answering(ports)) as right:
        with running(*connecting(ports), stdin=terminal, stdout=terminal) as left:
            left.wait_for("connected to")
            os.write(keyboard, b"hello\n")
            assert right.process.stdout is not None
            assert os.read(right.process.stdout.fileno(), 6) == b"hello\n"
            interrupted(left)
        right.end_of_input()
        assert right.end()[0] == 1


def test_a_terminal_is_let_go_when_the_peer_ends(ports: Ports) -> None:
    with a_terminal() as (_, terminal), running(*answering(ports)) as right:
        right.write(b"Bye.")
        right.end_of_input()
        with running(*connecting(ports), stdin=terminal) as left:
            assert left.end()[:2] == (0, b"Bye.")
        assert right.end()[0] == 0


def test_interrupted_as_json(ports: Ports) -> None:
    with running(*connecting(ports, "--json")) as left, running(*answering(ports)) as right:
        right.wait_for("connected to")
        left.process.send_signal(signal.SIGINT)
        status, _, said = left.end()
    assert status == 130
    told = json.loads(said)
    ended = {"error": "KeyboardInterrupt", "message": "interrupted; everything is closed"}
    assert told == {**ended, "report": None, "diagnosis": None}


@pytest.mark.lab
def test_the_demo_terminated_leaves_no_process() -> None:
    with running("demo", program=[sys.executable, "-u", "-m", "simopen"]) as it:
        assert it.process.stdout is not None
        read_until(it.process.stdout.fileno(), b"Both fire")
        it.process.send_signal(signal.SIGTERM)
        status, _, said = it.end()
        assert (status, said) == (143, "simopen: terminated; everything is closed\n")


# --- what is seen while it waits


def test_the_live_line_counts_down(ports: Ports) -> None:
    with a_terminal() as (screen, terminal), running(*connecting(ports, "--at", "+1h"), stderr=terminal) as it:
        seen = read_until(screen, b"s; clock ")
        first = re.findall(rb"in (\d+) s; clock ", seen)[-1]
        while (now := re.findall(rb"in (\d+) s; clock ", seen)[-1]) == first:
            seen += os.read(screen, 65536)
        assert float(now) < float(first) <= 3600
        assert f"{THERE}:{ports[1]} at ".encode() in seen
        it.process.send_signal(signal.SIGTERM)
        seen = read_until(screen, b"terminated; everything is closed", seen)
        assert it.end()[0] == 143
    hidden, shown = seen.rfind(b"\x1b[?25l"), seen.rfind(b"\x1b[?25h")
    assert -1 < hidden < shown  # the cursor is back


def test_without_rich_a_terminal_gets_plain_lines(ports: Ports) -> None:
    waiting = connecting(ports, "--at", "+1h")
    with a_terminal() as (screen, terminal), running(*waiting, program=NO_RICH, stderr=terminal) as it:
        seen = read_until(screen, b"s; clock ")
        it.process.send_signal(signal.SIGINT)
        seen = read_until(screen, b"everything is closed", seen)
        assert it.end()[0] == 130
    assert b"\x1b" not in seen


def test_an_unchecked_clock_is_noted(ports: Ports) -> None:
    """On success and on failure. The machine's own kernel may know better: then nobody is asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((HERE, 0))
        server = "{}:{}".format(*silent.getsockname())
        arguments = [word for word in connecting(ports, "--window", "100ms", "--ntp", server) if word != "--no-ntp"]
        status, _, said = simopen_run(*arguments, "--at", time.time() + 4)  # the program must have started by then
    assert status == 1
    assert clock.kernel_word() or "simopen: note: the clock's offset is not known well" in said


# --- the clock


async def clock_command(*arguments: str, program: Sequence[str] = SIMOPEN) -> tuple[int, str, str]:
    """While fake servers answer on this loop."""
    process = await asyncio.create_subprocess_exec(
        *program, "clock", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


def asking(*servers: FakeNtp) -> list[str]:
    return [word for server in servers for word in ("--ntp", server.name)]


@ONE_LOOP
async def test_the_clocks_table() -> None:
    async with FakeNtp(3.5) as one, FakeNtp(3.5) as other, FakeNtp(50.0) as liar:
        status, out, err = await clock_command(*asking(one, other, liar))
    assert status == 0
    assert err == "asking the time servers\n"
    assert "server" in out.splitlines()[1]
    rows = {line.split()[0]: line for line in out.splitlines()[2:]}
    assert "+3." in rows[one.name]
    assert rows[other.name].endswith("agrees")
    assert rows[liar.name].endswith("disagrees with the others")
    assert "add +3." in out
    assert "to this machine's clock to get true time" in out
    assert "the kernel says: " in out


@ONE_LOOP
async def test_the_clock_as_json() -> None:
    async with FakeNtp(-1.5) as one, FakeNtp(-1.5) as other:
        status, out, err = await clock_command("--json", *asking(one, other))
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["offset_s"] == pytest.approx(-1.5, abs=0.5)
    assert {server["name"] for server in told["servers"]} == {one.name, other.name}


@ONE_LOOP
@pytest.mark.parametrize("program", [SIMOPEN, NO_RICH], ids=["rich", "plain"])
async def test_a_clock_that_nobody_can_tell(program: list[str]) -> None:
    async with (
        FakeNtp(wrong=MISBEHAVIOURS["stratum 16"][0]) as one,
        FakeNtp(wrong=MISBEHAVIOURS["kiss RATE"][0]) as two,
    ):
        status, out, err = await clock_command(*asking(one, two), "--timeout", "1s", program=program)
    assert (status, out) == (1, "")
    assert f"{one.name}: stratum 16" in err
    assert f"{two.name}: kiss-o'-death RATE" in err
    assert "--ntp" in err.splitlines()[-1]
    assert "firewall" not in err  # which would let none of this through


@ONE_LOOP
async def test_time_servers_that_are_silent_may_be_behind_a_firewall() -> None:
    async with FakeNtp(answers=0) as one, FakeNtp(answers=0) as two:
        status, _, err = await clock_command(*asking(one, two), "--timeout", "300ms")
    assert status == 1
    assert f"{one.name}, {two.name}: no answer to " in err
    assert "does a firewall drop UDP port 123?" in err.splitlines()[-1]


@ONE_LOOP
async def test_a_time_out_that_is_too_short_is_not_blamed_on_the_network() -> None:
    async with FakeNtp(answers=0) as one, FakeStun(silent=True) as other:
        for command, option, server in (("clock", "--ntp", one.name), ("nat", "--stun", other.name)):
            told = await asyncio.to_thread(simopen_run, command, option, server, "--timeout", "1ms")
            status, _, said = told
            assert status == 1
            assert "server answered within 1.0 ms, which is too short for an answer from afar" in said
            assert not re.search("firewall|online|can reach", said)


@ONE_LOOP
async def test_a_clock_that_nobody_can_tell_as_json() -> None:
    async with FakeNtp(wrong=MISBEHAVIOURS["stratum 16"][0]) as one:
        status, out, err = await clock_command(*asking(one), "--timeout", "1s", "--json")
    assert (status, out) == (1, "")
    assert json.loads(err)["error"] == "ClockError"


@ONE_LOOP
@pytest.mark.lab
async def test_names_that_all_fail_are_told_once() -> None:
    async with lab.Network() as net:
        host = await net.host("left")
        told = await asyncio.gather(*(unknown(host, *words) for words in ASKING.values()))
        for kind, (brief, verbose) in zip(ASKING, told, strict=True):
            sentence = f"simopen: none of the 2 {kind} servers' names can be looked up: is this host online?"
            assert brief.stderr.decode().splitlines()[1:] == [sentence]
            assert verbose.stderr.count(b"other.example") == 1
        await host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
        for asked in await asyncio.gather(
            *(host.run([*SIMOPEN, *words, "2001:db8::5", "--timeout", "2s"]) for words in ASKING.values())
        ):
            assert b"this host has no route to it" in asked.stderr


ASKING = {"time": ("clock", "--ntp"), "STUN": ("nat", "--stun")}


async def unknown(host: lab.Host, command: str, option: str) -> Sequence[lab.Completed]:
    """In brief, and with -v."""
    named = [*SIMOPEN, command, option, "one.example", option, "other.example", "--timeout", "2s"]
    return await asyncio.gather(host.run(named), host.run([*named, "-v"]))


# --- the demo


@pytest.mark.lab
def test_the_demo() -> None:
    status, out, said = simopen_run("demo")
    assert (status, said) == (0, "")
    assert out.decode().count("I love you.") == 2
    assert "SYN-RECEIVED" in out.decode()
    assert len({line.index("simopen connect") for line in out.decode().splitlines() if "$ " in line}) == 1
    assert "The SYNs crossed" in out.decode()


def test_the_demo_on_loopback() -> None:
    status, out, said = simopen_run("demo", "--loopback")
    assert (status, said) == (0, "")
    assert out.decode().count("I love you.") == 2


def test_the_demo_as_json() -> None:
    status, out, _ = simopen_run("demo", "--loopback", "--json")
    assert status == 0
    told = json.loads(out)
    assert told["heard"] == {"left": "I love you.", "right": "I love you."}
    assert told["left"]["report"]["remote"].startswith("127.0.0.1:")
