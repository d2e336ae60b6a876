"""Whom `simopen connect` fires at, ticket or host, what goes with which, and what is told where nobody is met."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from simopen.cli import call as calls
from simopen.cli import connect
from simopen.cli.main import main
from simopen.clock import source as clock
from simopen.clock.source import FixedClock
from simopen.errors import Flaw, TicketError
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Mapping
from simopen.model.times import UtcNs
from simopen.ticket import store
from simopen.ticket.codec import Ticket, parse_ticket
from simopen.ticket.keys import PrivateKey
from tests.cli.processes import Ports, connecting
from tests.loopback import HERE, THERE, ports
from tests.stalls import ALONE_S
from tests.ticket.test_codec import SIMPLE, sealed

__all__ = ["ports"]

DAY_S = 86_400
# In most of a year, at 07:06:40 UTC: nothing here waits for it.
MINE = replace(SIMPLE, instant=(int(time.time()) // DAY_S + 300) * DAY_S + 25_600)
THEIRS = replace(
    MINE,
    instant=MINE.instant + 20,
    local_port=7,
    key=bytes(range(32)),
    profile=replace(SIMPLE.profile, mapped=Endpoint("198.51.100.9", 8), hosts=(Endpoint("192.168.1.9", 7),)),
)
TEXT = THEIRS.encode()


def lost(ticket: Ticket) -> Ticket:
    """As if its NAT chose a new random port for each destination."""
    profile = replace(ticket.profile, mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)
    return replace(ticket, profile=replace(profile, hosts=ticket.profile.hosts[:1]))


def typed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    connect.add_arguments(parser)
    return parser.parse_args(words)


def called(*words: str, where: Path, now_s: float | None = None) -> calls.Call:
    """As if `simopen nat --ticket` held the ticket that follows `--mine`."""
    now = clock.plain()
    now = now if now_s is None else replace(now, utc_ns=UtcNs(round(now_s * 1e9)))
    with ExitStack() as stack:
        for word in words[words.index("--mine") + 1 :][:1] if "--mine" in words else ():
            stack.enter_context(store.left(parse_ticket(word).owned(PrivateKey.new()), where))
        return stack.enter_context(calls.called(typed(*words), FixedClock(now), where))


@pytest.mark.parametrize(
    ("words", "whom"),
    [
        (["203.0.113.7", "9"], "203.0.113.7:9"),
        (["2001:db8::7", "9"], "[2001:db8::7]:9"),
        (["[2001:db8::7]", "9"], "[2001:db8::7]:9"),
        (["a", "9"], "a:9"),
        (["a-computer-that-is-called-so", "9"], "a-computer-that-is-called-so:9"),
        (["peer.example.org", "9"], "peer.example.org:9"),
        (["203.0.113.7:9"], "203.0.113.7:9"),
        (["203.0.113.7:9", "9"], "203.0.113.7:9"),
        (["[2001:db8::7]:9"], "[2001:db8::7]:9"),
        (["peer.example.org:9"], "peer.example.org:9"),
        (["::ffff:203.0.113.7", "9"], "203.0.113.7:9"),
        (["\x1b[31mx\u202e", "9"], "\\x1b[31mx:9"),
    ],
)
def test_a_host(words: list[str], whom: str, tmp_path: Path) -> None:
    call = called(*words, "--at", "1900000000", where=tmp_path)
    assert (call.whom, call.at) == (whom, 1_900_000_000)


@pytest.mark.parametrize(
    "text",
    [TEXT, TEXT.lower(), f"`{TEXT}`\n", f"> {TEXT[:20]}\n> {TEXT[20:]}", f"{TEXT}.", f" {TEXT} , ", f"“{TEXT}”!"],
)
def test_a_ticket(text: str, tmp_path: Path) -> None:
    call = called(text, "--mine", MINE.encode(), where=tmp_path)
    assert (call.whom, call.at) == ("198.51.100.9:8", MINE.instant + 20)


@pytest.mark.parametrize(("at", "moved_s"), [("+100s", 3600), ("1900000000", 0), (None, None)])
def test_a_time_that_becomes_known_while_the_call_waits_moves_what_was_told_by_it(
    at: str | None, moved_s: float | None, tmp_path: Path
) -> None:
    """By a clock an hour behind, what is 100 s ahead must not be told to be over."""
    call, plain = called("203.0.113.7", "9", *(["--at", at] if at else []), where=tmp_path), clock.plain()
    known = replace(plain, utc_ns=UtcNs(plain.utc_ns + 3600 * 10**9), bound_ns=1000)
    by_then = call.by_time(known)
    assert (by_then is None) == (call.at is None) == (moved_s is None)
    if by_then is not None and call.at is not None:
        assert by_then - call.at == pytest.approx(moved_s, abs=1)


def test_whoever_has_the_other_ticket_comes_to_the_same_instant(tmp_path: Path) -> None:
    assert called(MINE.encode(), "--mine", TEXT, where=tmp_path).at == MINE.instant + 20


def test_the_own_ticket_is_the_one_that_is_held_here(tmp_path: Path) -> None:
    with store.left(MINE, tmp_path) as wanted:
        with calls.called(typed(TEXT), FixedClock(clock.plain()), tmp_path) as call:
            assert call.at == MINE.instant + 20
            assert wanted()
        assert not wanted()


def test_one_of_a_host_that_nobody_can_reach_is_told(tmp_path: Path) -> None:
    """Link-local addresses alone: none of them is in the ticket."""
    scoped = replace(THEIRS.profile, mapped=Endpoint("fe80::9", 8), hosts=(Endpoint("fe80::9%2", 8),))
    with pytest.raises(TicketError, match="it names no endpoint of its maker's") as caught:
        called(replace(THEIRS, profile=scoped).encode(), "--mine", MINE.encode(), where=tmp_path)
    assert caught.value.flaw is Flaw.UNREACHABLE


def test_one_that_is_named_stays_held_as_well(tmp_path: Path) -> None:
    with store.left(MINE, tmp_path) as wanted:
        with calls.called(typed(TEXT, "--mine", MINE.encode()), FixedClock(clock.plain()), tmp_path):
            assert wanted()
        assert not wanted()


def test_where_none_is_held_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no ticket is held on this host.* run `simopen nat --ticket` in another"):
        called(TEXT, where=tmp_path)


def test_where_several_are_held_one_must_be_named(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(store.left(MINE, tmp_path))
        (file,) = tmp_path.iterdir()
        file.rename(tmp_path / "1.ticket")  # as if another program had left it
        stack.enter_context(store.left(replace(MINE, local_port=8), tmp_path))
        with pytest.raises(ValueError, match=r"2 tickets are held on this host: name the one .* with --mine"):
            called(TEXT, where=tmp_path)
        source = FixedClock(clock.plain())
        with calls.called(typed(TEXT, "--mine", MINE.encode()), source, tmp_path) as call:
            assert call.at == THEIRS.instant


def test_one_that_is_named_and_held_no_more_is_refused(tmp_path: Path) -> None:
    """Its private half went with who held it, and without that nothing is proven."""
    source = FixedClock(clock.plain())
    with (
        pytest.raises(TicketError, match=r"without its private half: .* does not run here any more; make a new one"),
        calls.called(typed(TEXT, "--mine", MINE.encode()), source, tmp_path),
    ):
        pass


OLD = replace(THEIRS, instant=1_000_000_000)


@pytest.mark.parametrize(
    ("text", "mine", "flaw"),
    [
        (TEXT[:-7], MINE, Flaw.CUT_SHORT),
        (TEXT[:8], MINE, Flaw.CUT_SHORT),
        (TEXT[:20] + ("B" if TEXT[20] == "A" else "A") + TEXT[21:], MINE, Flaw.ALTERED),
        (TEXT + TEXT, MINE, Flaw.ALTERED),
        (TEXT[:20] + "0" + TEXT[21:], MINE, Flaw.NO_TICKET),
        (sealed(bytes([1, 26]) + bytes(20)).rstrip("="), MINE, Flaw.OTHER_VERSION),
        (sealed(bytes([3, 26]) + bytes(20)).rstrip("="), MINE, Flaw.OTHER_VERSION),
        (OLD.encode(), replace(MINE, instant=OLD.instant), Flaw.EXPIRED),
        (MINE.encode(), MINE, Flaw.OWN),
    ],
)
def test_what_is_wrong_with_a_ticket_is_told_and_no_name_is_looked_up(
    text: str, mine: Ticket, flaw: Flaw, tmp_path: Path
) -> None:
    with pytest.raises(TicketError) as caught:
        called(text, "--mine", mine.encode(), where=tmp_path)
    assert caught.value.flaw is flaw


def test_a_ticket_whose_own_instant_is_over_is_good_as_long_as_the_later_one(tmp_path: Path) -> None:
    """Its owner waits for that one, too."""
    assert called(OLD.encode(), "--mine", MINE.encode(), where=tmp_path).at == MINE.instant


@pytest.mark.parametrize(("now_s", "words"), [(8, None), (12.3, "was for 07:06:40 UTC, 12.3 s ago: it works only if")])
def test_a_peers_ticket_whose_own_instant_is_over_is_worth_a_note(
    now_s: float, words: str | None, tmp_path: Path
) -> None:
    theirs, mine = replace(THEIRS, instant=MINE.instant), replace(MINE, instant=MINE.instant + 60)
    call = called(theirs.encode(), "--mine", mine.encode(), where=tmp_path, now_s=MINE.instant + now_s)
    notes = [each for each in call.told if "peer's ticket" in each]
    assert len(notes) == (words is not None)
    assert all(words and words in note for note in notes)


@pytest.mark.parametrize(
    ("theirs", "words", "told"),
    [
        (THEIRS, [], ["plan: both public endpoints are known, so the SYNs cross"]),
        (THEIRS, ["--spray"], ["plan: both public endpoints are known, so the SYNs cross"]),
        (lost(THEIRS), [], ["plan: one side's public port cannot be told", "note: this way fails where that NAT asks"]),
        (lost(THEIRS), ["--spray"], ["plan: one side's public port cannot be told"]),
    ],
)
def test_the_plan_is_told_before_the_call(theirs: Ticket, words: list[str], told: list[str], tmp_path: Path) -> None:
    ours = called(theirs.encode(), "--mine", MINE.encode(), *words, where=tmp_path).told
    its = called(MINE.encode(), "--mine", theirs.encode(), *words, where=tmp_path).told
    assert ours == its  # it is true on either side
    assert len(ours) == len(told)
    assert all(said.startswith(words) for said, words in zip(ours, told, strict=True))


@pytest.mark.parametrize(
    ("mine", "theirs", "flag", "words"),
    [
        (False, False, False, "but neither ticket allows it: run this with --spray on both sides"),
        (True, False, False, "but your peer's ticket does not allow it: run"),
        (False, True, False, "but your own ticket does not allow it: run"),
        (True, True, False, None),
        (True, True, True, None),
        (False, False, True, "if your peer runs with --spray, too: neither ticket allows it"),
        (True, False, True, "if your peer runs with --spray, too: your peer's ticket does not allow it"),
        (False, True, True, "if your peer runs with --spray, too: your own ticket does not allow it"),
    ],
)
def test_whether_it_sprays_is_in_the_tickets(
    mine: bool, theirs: bool, flag: bool, words: str | None, tmp_path: Path
) -> None:
    text, own = replace(lost(THEIRS), spray=theirs).encode(), replace(MINE, spray=mine).encode()
    told = "\n".join(called(text, "--mine", own, *["--spray"] * flag, where=tmp_path).told)
    assert ("2048 shots at random ports" in told) == (flag or (mine and theirs))
    assert (words or "2048") in told
    assert ("not allow" in told or "neither" in told) == (words is not None)


@pytest.mark.parametrize("host", ["localhost", "203.0.113.7", "::1", "peer.example.org", "x", ""])
def test_a_host_without_a_port_is_told_so(host: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PORT is missing"):
        called(host, where=tmp_path)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([TEXT, "9"], "leave out PORT: the tickets say that"),
        ([TEXT, "--at", "+1m"], "leave out --at: the"),
        (
            [TEXT, "--local-port", "9", "--local-address", "127.0.0.1"],
            "leave out --local-port and --local-address",
        ),
        ([TEXT, "--key-file", "F"], "leave out --key-file: the"),
        ([TEXT, "--key"], "leave out --key: the"),
        (["203.0.113.7", "9", "--mine", TEXT], "leave out --mine: they go with"),
        (["203.0.113.7", "9", "--spray"], "leave out --spray: they go with"),
        (["203.0.113.7:9", "8"], "two ports are named, 9 and 8: leave one out"),
        (["--key", "203.0.113.7", "9"], "HOST is missing: what follows --key is taken for the key"),
        (["010.0.0.1", "8"], "no IPv4 address: write four numbers"),
        (["fe80::1", "8"], "name the interface of this host"),
    ],
)
def test_what_does_not_go_together_is_refused(words: list[str], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=complaint):
        called(*words, where=tmp_path)


def test_a_damaged_ticket_of_ones_own_is_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["connect", TEXT, "--mine", MINE.encode()[:-9]])
    assert "argument --mine: the ticket is cut short: " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        ([TEXT[:-7]], 2, "the ticket is cut short: "),
        ([TEXT], 2, "no ticket is held on this host"),
        (["localhost"], 2, "PORT is missing"),
        (
            [lost(THEIRS).encode(), "--mine", lost(MINE).encode()],
            1,
            "no stream: these two NATs leave no way: both sides' public ports",
        ),
    ],
)
def test_the_command_ends_at_once_and_says_why(words: list[str], status: int, complaint: str, tmp_path: Path) -> None:
    """The instant is most of a year away."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "simopen", "connect", "--no-ntp", *words]
    (tmp_path / "simopen").mkdir(mode=0o700)
    with ExitStack() as stack:
        if words[1:]:
            stack.enter_context(store.left(lost(MINE).owned(PrivateKey.new()), tmp_path / "simopen"))
        done = subprocess.run(command, env=environment, input=b"", capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (status, b"")
    assert done.stderr.decode().startswith(f"simopen: {complaint}")  # no countdown before that


@pytest.mark.parametrize(
    ("words", "keepalive", "user_timeout"),
    [
        ([], 45, 300),
        (["--keepalive", "1m", "--user-timeout", "off"], 60, None),
        (["--keepalive", "off", "--user-timeout", "20"], None, 20),
    ],
)
def test_how_long_a_silent_stream_lives(words: list[str], keepalive: float | None, user_timeout: float | None) -> None:
    options = typed("peer.example.org", "9", *words)
    assert (options.keepalive, options.user_timeout) == (keepalive, user_timeout)


@pytest.mark.parametrize("option", ["--keepalive", "--user-timeout"])
@pytest.mark.parametrize("value", ["0", "-1s", "never", "1e300", "nan", "400d"])
def test_a_life_that_no_stream_can_have_is_bad_usage(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        typed("peer.example.org", "9", f"{option}={value}")
    assert option in capsys.readouterr().err


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
