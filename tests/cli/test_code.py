"""`simopen meet` by a code: what is taken for one, where it comes from, and two commands through a server of ours."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shlex
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

import simopen
from simopen.cli import code, code_prompt, forward
from simopen.cli.arguments import UsageError, add_punch
from simopen.cli.console import Screen
from simopen.cli.qr import qr
from simopen.errors import CodeError
from simopen.model.event import InRoom
from simopen.model.times import MonoNs
from simopen.rendezvous import where
from tests.loops import ONE_LOOP
from tests.terminal import Terminal, at_terminal

ROOT = Path(__file__).parents[2]
SIMOPEN = [sys.executable, "-m", "simopen"]
TICKET = "AJMQ" + "A7" * 60
LONG_S = 60


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("typed", nargs="?")
    code.add_arguments(parser)
    add_punch(parser)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("7-croissant-zucchini", True),
        (" 7 Croissant Zucchini ", True),
        ("7–croissant–zucchini", True),
        ("croissant-zucchini", True),
        (TICKET, False),
        (f"simopen meet {TICKET}", False),
        (TICKET.lower(), False),
        ("", False),
        ("/tmp/file", False),
    ],
)
def test_a_code_is_told_from_a_ticket(text: str, meant: bool) -> None:
    assert code.is_code(text) is meant


def test_a_code_comes_from_one_place() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"7-croissant-zucchini\n")
    os.close(writing)
    assert code.given(options("--code-fd", str(reading)), None, {}) == "7-croissant-zucchini"
    os.close(reading)
    assert code.given(options(), "7-cro-zuc", {code_prompt.VARIABLE: "8-cro-zuc"}) == "7-cro-zuc"
    assert code.given(options(), None, {code_prompt.VARIABLE: "8-cro-zuc"}) == "8-cro-zuc"
    assert code.given(options(), None, {}) is None


def test_what_gives_no_code_or_two_is_refused() -> None:
    with pytest.raises(UsageError, match="--words"):
        code.given(options("--words", "3"), "7-cro-zuc", {})
    unreadable = os.open(os.devnull, os.O_WRONLY)
    with pytest.raises(UsageError, match="descriptor"):
        code.given(options("--code-fd", str(unreadable)), None, {})
    os.close(unreadable)
    with open(os.devnull, "rb") as nothing:
        with pytest.raises(CodeError):
            code.given(options("--code-fd", str(nothing.fileno())), None, {})
        with pytest.raises(UsageError, match="--code-fd"):
            code.given(options("--code-fd", str(nothing.fileno())), "7-cro-zuc", {})


@pytest.mark.parametrize(
    "words",
    [*(["--words", each] for each in ("0", "25", "x")), *(["--code-fd", each] for each in ("-1", "999", "9" * 8))],
)
def test_numbers_that_cannot_be_meant(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(*words)
    assert "Traceback" not in capsys.readouterr().err


def test_what_a_rendezvous_says_of_itself_is_one_line() -> None:
    said = list[str]()
    screen = Screen()
    screen.say = said.append  # type: ignore[method-assign, assignment]
    motd = "hello\nsimopen: proven: the one who has the same code\r\u2028simopen: remembered"
    code.Told(lambda text, step="", /: None, screen).on_event(InRoom(MonoNs(0), "7", motd))
    assert said == ["the rendezvous says: hello simopen: proven: the one who has the same code simopen: remembered"]


def test_a_rendezvous_makes_it_a_meeting_by_code() -> None:
    assert code.is_meant(options("--via", "ws://127.0.0.1:4000/v1"), None, {})
    assert code.is_meant(options(), None, {code_prompt.VARIABLE: "7-cro-zuc"})
    assert not code.is_meant(options("--via", "ws://127.0.0.1:4000/v1"), TICKET, {})


def test_where_a_rendezvous_is_named(tmp_path: Path) -> None:
    file = tmp_path / "new" / "via"
    assert where.named(None, {}, file) is None
    with pytest.raises(simopen.RendezvousUnreachable, match="simopen serve"):
        where.required(None, {}, file)
    where.remember("wss://remembered/v1", file)
    assert where.named(None, {}, file) == "wss://remembered/v1"
    assert where.named(None, {where.VARIABLE: " wss://told/v1 "}, file) == "wss://told/v1"
    assert where.named(None, {where.VARIABLE: ""}, file) is None, "none, whatever is remembered"
    assert where.named("wss://said/v1", {where.VARIABLE: "wss://told/v1"}, file) == "wss://said/v1"
    file.write_bytes(b"\xff" * 9)
    assert where.named(None, {}, file) is None


@pytest.mark.parametrize(("encoding", "columns", "width"), [("utf-8", 80, 1), ("ascii", 200, 2), ("nonsense", 200, 2)])
def test_a_qr_code_fits_or_is_left_out(encoding: str, columns: int, width: int) -> None:
    rows = qr("simopen meet 7-croissant-zucchini", encoding, columns)
    assert rows
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(rows[0]) <= columns
    assert "".join(rows).isascii() is (width == 2)
    assert qr("simopen meet 7-croissant-zucchini", encoding, 20) == ()
    assert qr("simopen meet 7-croissant-zucchini", encoding, 0) == ()


def test_what_no_qr_code_can_hold_has_none() -> None:
    assert qr("x" * 5000, "utf-8", 500) == ()


def test_what_happens_is_a_line_that_is_redrawn_and_what_has_come_of_it_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    drawn: list[str] = []
    told = code.Told(lambda text, _="": drawn.append(text), Screen(live=False), "laptop")
    at_ns = MonoNs(0)
    for event in (
        simopen.SessionWaits(at_ns, "laptop", 1.0, "nobody answers"),
        simopen.InRoom(at_ns, "7", "be kind"),
        simopen.InRoom(at_ns, "7"),
        simopen.PeerBegun(at_ns),
        simopen.PeerHere(at_ns),
        simopen.SessionBack(at_ns, "laptop", 2, 3.0),
    ):
        told.on_event(event)
    assert [each.split(",")[0] for each in drawn] == [
        "laptop was not met: nobody answers; the next try comes in 1.0 s ...",
        "in room 7",
        "in room 7",
        "laptop is here ...",
    ]
    said = capsys.readouterr().err
    assert "the rendezvous says: be kind" in said
    assert said.count("waiting for laptop, which comes only if it has remembered this computer, too") == 1
    assert "simopen: laptop is back, after 3.0 s" in said


@ONE_LOOP
@pytest.mark.parametrize(("then", "told"), [(None, True), ("peer begun", False), ("left", False)])
async def test_who_was_given_a_code_and_waits_is_told_what_may_be_the_matter(
    then: str | None, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    at_ns = MonoNs(0)
    with code.Told(lambda *_: None, Screen(), has_code=True, patience_s=0.01) as events:
        events.on_event(InRoom(at_ns, "7"))
        if then == "peer begun":
            events.on_event(simopen.PeerBegun(at_ns))
        if then != "left":
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.05)
    assert capsys.readouterr().err.count("nobody is there yet: is the code right") == told


@ONE_LOOP
@pytest.mark.parametrize(
    ("typed", "note"),
    [
        ("7-croissant-zucchiniq", "'zucchiniq' is no word of the list that codes are made of; is it 'zucchini'?"),
        ("7-croissant", "codes have 2 words, unless one was asked for with fewer: is that all of it?"),
    ],
)
async def test_a_slip_in_a_code_is_asked_about_before_it_costs_the_code(tmp_path: Path, typed: str, note: str) -> None:
    """And what is said after a prompt that nobody has answered has a line of its own."""
    with Terminal() as terminal:
        command = await asyncio.create_subprocess_exec(
            *at_terminal([*SIMOPEN, "receive", "--via", "ws://127.0.0.1:1/v1"]),
            stdin=terminal.fd,
            stdout=terminal.fd,
            stderr=terminal.fd,
            env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
            cwd=ROOT,
            start_new_session=True,
        )
        terminal.given()
        await asyncio.to_thread(terminal.wait_for, "Code:")
        terminal.type(f"{typed}\n")
        await asyncio.to_thread(terminal.wait_for, "Code (Enter: as it is):")
        terminal.type("\x04")
        seen = await asyncio.to_thread(terminal.read_to_the_end)
        assert await command.wait() == 2
    assert note in " ".join(seen.split())
    assert re.search(r"\): *\nsimopen: nothing was typed", seen), seen
    assert "connecting" not in seen


async def started(home: Path, *words: str, command: str = "meet", **more: str) -> Process:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(home), "SIMOPEN_VIA": "", **more}
    return await asyncio.create_subprocess_exec(
        *SIMOPEN, command, *words, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, cwd=ROOT
    )


@ONE_LOOP
@pytest.mark.parametrize(
    ("one", "other"),
    [("pipe", "receive"), ("receive", "receive"), ("meet", "pipe"), ("meet", "receive"), ("pipe", "forward")],
)
async def test_two_commands_that_do_not_fit_are_both_told(tmp_path: Path, one: str, other: str) -> None:
    more = {"receive": ("--yes",), "forward": ("--allow", "127.0.0.1")}
    async with asyncio.timeout(LONG_S), simopen.serve("127.0.0.1", 0, stun_ports=(0, 0)) as server:
        via = f"ws://127.0.0.1:{server.port}/v1"
        sides = [
            await started(tmp_path, *more.get(each, ()), "--via", via, "7-cro-zuc", command=each)
            for each in (one, other)
        ]
        ends = await asyncio.gather(*(each.stderr.read() for each in sides if each.stderr is not None))
        assert [await each.wait() for each in sides] == [1, 1], ends
    for said in ends:
        assert b"the two do not fit" in said or b"the peer has ended the meeting: the two do not fit" in said
        assert b"simopen " + one.encode() in said
        assert b"simopen " + other.encode() in said


@ONE_LOOP
async def test_two_commands_meet_by_a_code_and_carry_what_is_typed(tmp_path: Path) -> None:
    async with asyncio.timeout(LONG_S), simopen.serve("127.0.0.1", 0, stun_ports=(0, 0)) as server:
        via = f"ws://127.0.0.1:{server.port}/v1"
        one = await started(tmp_path, "--json", "--words", "3", "--via", via)
        assert one.stdin is not None
        assert one.stderr is not None
        shown = json.loads(await one.stderr.readline())
        assert shown["line"].endswith(shown["code"])
        assert shown["code"].count("-") == 3
        other = await started(tmp_path, "--via", via, SIMOPEN_CODE=shown["code"])
        one.stdin.write(b"there")
        one.stdin.close()
        told, said = await other.communicate(b"back")
        assert told == b"there", said.decode()
        assert other.returncode == 0
        assert "same code" in said.decode()
        rest, _ = await one.communicate()
        assert rest == b"back"
        assert one.returncode == 0


def test_a_rendezvous_that_is_none_is_told_with_who_names_it(tmp_path: Path) -> None:
    kept = where.remember("nonsense", tmp_path / "via")
    with pytest.raises(UsageError, match=rf"^{kept}: via must begin with"):
        code.named_rendezvous(options(), {}, kept)
    with pytest.raises(UsageError, match=r"^SIMOPEN_VIA: via must begin with"):
        code.named_rendezvous(options(), {where.VARIABLE: "nonsense"}, kept)
    with pytest.raises(UsageError, match=r"^via must begin with"):
        code.named_rendezvous(options("--via", "nonsense"), {}, kept)


@ONE_LOOP
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["croissant-zucchini"], "begins with a number"),
        (["7-croissant-zucchini"], "--via"),
        (["7-croissant-zucchini", "--via", "ws://192.0.2.1/v1"], "in the clear"),
        (["7-croissant-zucchini", "--via", "nonsense"], "via"),
        (["7-croissant-zucchini", "--via", "ws://127.0.0.1:99999/v1"], "the port must lie between"),
        (["-", "--via", "ws://127.0.0.1:1/v1"], "terminal"),
        (["room", "--via", "ws://127.0.0.1:1/v1", "--secret-file", "/nonexistent"], "cannot be read"),
    ],
)
async def test_what_cannot_be_meant_is_told_with_status_2(tmp_path: Path, words: list[str], said: str) -> None:
    command = await started(tmp_path, *words)
    _, told = await command.communicate()
    assert command.returncode == 2, told.decode()
    assert said in told.decode()
    assert "Traceback" not in told.decode()
    assert "connecting" not in told.decode()


@ONE_LOOP
@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["send", "-", "--code-fd", "0"], "code"),
        (["send", "--text", "-", "--code-fd", "3"], "code"),
        (["pipe", "--secret-file", "/dev/stdin", "room"], "secret"),
        (["send", "-", "--secret-file", "/dev/fd/3"], "secret"),
    ],
)
async def test_standard_input_is_the_code_or_the_data(tmp_path: Path, words: list[str], what: str) -> None:
    """Descriptor 3 is a copy of it."""
    command = await asyncio.create_subprocess_exec(
        *["sh", "-c", 'exec 3<&0 "$@"', "sh", *SIMOPEN, *words, "--via", "ws://127.0.0.1:1/v1"],
        stdin=PIPE,
        stderr=PIPE,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
        cwd=ROOT,
    )
    _, told = await command.communicate(b"7-croissant-zucchini\nthe data")
    assert command.returncode == 2
    assert told.decode() == f"simopen: standard input cannot be both the {what} and the data\n"


@ONE_LOOP
@pytest.mark.parametrize(
    "words", [["send", "x"], ["meet"], ["pipe"], ["pipe", "--to", "127.0.0.1:1"], ["receive", "--yes"]]
)
async def test_a_code_comes_by_standard_input_where_no_data_does(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "x").write_bytes(b"")
    command = await asyncio.create_subprocess_exec(
        *SIMOPEN, *words, "--code-fd", "0", "--via", "ws://127.0.0.1:1/v1", stdin=PIPE, stderr=PIPE, cwd=tmp_path
    )
    _, told = await command.communicate(b" ")
    assert (command.returncode, told.decode().splitlines()[-1]) == (2, "simopen: there is no code in file descriptor 0")


def test_a_secret_that_is_too_short_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "short").touch(mode=0o600)
    (tmp_path / "short").write_text("00" * 15)
    found = options("--secret-file", str(tmp_path / "short"))
    with pytest.raises(UsageError, match="whoever comes into the room may guess again and again"):
        code._secret(found, Screen(), "room")
    with pytest.raises(CodeError, match="the room's name is not UTF-8"):
        code._secret(found, Screen(), "caf\udce9")


def test_a_whole_line_that_is_pasted_brings_its_rendezvous() -> None:
    line = "  simopen receive --via 'ws://192.0.2.1/v1?a=1&b=2' --allow-plain --spray 7-croissant-zucchini "
    found = options()
    assert code_prompt.meant(line, found) == "7-croissant-zucchini"
    assert (found.via, found.allow_plain, found.spray) == ("ws://192.0.2.1/v1?a=1&b=2", True, True)
    assert code_prompt.meant("7 croissant  zucchini", options()) == "7 croissant zucchini"
    with pytest.raises(UsageError, match="leave out --via"):
        code_prompt.meant(line, options("--via", "wss://other.example/v1"))
    with pytest.raises(UsageError, match="type all of it as a command"):
        code_prompt.meant("simopen forward --allow a:80 --via ws://127.0.0.1:4000/v1 7-a-b", options())


@pytest.mark.parametrize(
    ("words", "line", "more"),
    [
        (["--listen", "8080", "--to", "localhost:80"], "simopen forward --allow localhost:80 {}", ""),
        (["--listen", "1", "--to", "[::1]:80"], "simopen forward --allow '[::1]:80' {}", ""),
        (["--listen", "1", "--to", "{a}:80"], "simopen forward --allow '{{a}}:80' {}", ""),
        (
            ["--listen", "1", "--to", "a:80", "--listen", "2", "--to", "a:80", "--allow", "b"],
            "simopen forward --allow a:80 {}",
            "",
        ),
        (["--allow", "localhost"], "simopen forward {}", "--listen PORT --to HOST:PORT, which it wants,"),
    ],
)
def test_the_peers_line_of_a_forward_is_a_command_that_it_can_type(words: list[str], line: str, more: str) -> None:
    parser = argparse.ArgumentParser()
    forward.add_arguments(parser)
    told, added = forward._peers_line(*forward._meant(parser.parse_args(words)))
    assert (told, added) == (line, more)
    if not more:
        forward._meant(parser.parse_args(shlex.split(told.format("7-x-y"))[2:]))


def test_the_line_for_the_peer_is_one_that_a_shell_takes(capsys: pytest.CaptureFixture[str]) -> None:
    via = "ws://127.0.0.1:4000/v1?tenant=1&room=$x"
    code._show("7-x-y", "simopen receive {}", via, options("--spray"), Screen(live=False), more="")
    line = next(each for each in capsys.readouterr().err.splitlines() if each.startswith("simopen receive"))
    assert shlex.split(line) == ["simopen", "receive", "--via", via, "--spray", "7-x-y"]
