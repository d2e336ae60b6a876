"""`simopen nat --ticket`: what is printed, what is held, and until when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from simopen.cli.console import Screen
from simopen.cli.nat_ticket import Invitation, learn_the_time
from simopen.clock import source as clock
from simopen.clock.source import Clock, TimeSource
from simopen.errors import ClockError, SimopenError
from simopen.model.endpoint import Endpoint
from simopen.model.estimate import Estimate, Source
from simopen.model.nat import Mapping
from simopen.model.times import MonoNs, UtcNs
from simopen.ticket import store
from simopen.ticket.agreement import LATE_S
from simopen.ticket.codec import Ticket, parse_ticket
from simopen.ticket.hold import LEAD_S, Held, holding
from tests.fake_ntp import FakeNtp
from tests.fake_stun import FakeStun, full_server
from tests.loopback import HERE, THERE, ports
from tests.loops import ONE_LOOP

__all__ = ["ports"]
LONG_S = 30.0
HOUR_NS = 3_600_000_000_000


class Hands:
    """A clock whose hands a test moves. It cannot represent one that is not known well, unless `word` says so."""

    local = clock.MACHINE
    limit_s = clock.LIMIT_S

    def __init__(self, word: ClockError | None = None) -> None:
        self._base = clock.plain()
        self._word = word
        self.ahead_ns = HOUR_NS
        self.waited_s = 0.0

    def now_estimate(self) -> Estimate:
        reading = self.local.read()
        utc_ns = self._base.utc_at(MonoNs(reading.monotonic_ns)) + self.ahead_ns
        return Estimate(UtcNs(utc_ns), None if self._word else 0, Source.NTP, reading)

    def now_s(self) -> float:
        return self.now_estimate().utc_ns / 1e9

    async def refresh(self, timeout_s: float = 1.0) -> Estimate:
        self.waited_s = timeout_s
        if self._word:
            raise self._word
        return self.now_estimate()


class Holding:
    """`hold` under way: the tickets that it showed, in a task of its own."""

    def __init__(self, found: Held, hands: TimeSource, where: Path, at: float | None) -> None:
        self.found = found
        self.shown = 0
        self._shown: asyncio.Queue[Ticket] = asyncio.Queue()
        self._invitation = Invitation(found, hands, Screen(), self._show, where)
        self.task = asyncio.create_task(self._hold(at))

    async def _hold(self, at: float | None) -> None:
        await learn_the_time(self._invitation.source, self._invitation.screen, at)
        await self._invitation.hold(at)

    def _show(self, ticket: Ticket) -> None:
        self.shown += 1
        self._shown.put_nowait(ticket)

    async def next(self) -> Ticket:
        """The next ticket that it shows; raises what `hold` does, where that comes first."""
        ticket = asyncio.ensure_future(self._shown.get())
        try:
            await asyncio.wait({ticket, self.task}, timeout=LONG_S, return_when=asyncio.FIRST_COMPLETED)
            return ticket.result() if ticket.done() else self.task.result() or pytest.fail("no ticket was shown")
        finally:
            ticket.cancel()

    async def end(self) -> None:
        """Wait until it ends by itself."""
        async with asyncio.timeout(LONG_S):
            await self.task


@contextlib.asynccontextmanager
async def held(found: Held, hands: TimeSource, where: Path, at: float | None = None) -> AsyncIterator[Holding]:
    under_way = Holding(found, hands, where, at)
    try:
        yield under_way
    finally:
        under_way.task.cancel()
        await asyncio.gather(under_way.task, return_exceptions=True)


@contextlib.asynccontextmanager
async def invited(hands: TimeSource, where: Path, at: float | None = None) -> AsyncIterator[Holding]:
    async with (
        FakeStun() as server,
        holding(servers=[server.name], timeout=LONG_S) as found,
        held(found, hands, where, at) as under_way,
    ):
        yield under_way


def lying(where: Path) -> list[Path]:
    return list(where.iterdir())


async def test_the_ticket_says_what_was_found_and_when_by_the_true_time(tmp_path: Path) -> None:
    hands = Hands()
    async with invited(hands, tmp_path) as under_way:
        ticket = await under_way.next()
    assert ticket.instant % 10 == 0
    assert LEAD_S - 5 < ticket.instant - hands.now_s() < LEAD_S + 10
    assert ticket.local_port == under_way.found.port
    assert ticket.profile.mapped == under_way.found.profile.mapped
    seen_s = [each.at_ns / 1e9 for each in ticket.profile.observations]
    assert seen_s
    assert all(hands.now_s() - LONG_S < each_s < hands.now_s() for each_s in seen_s)


async def test_it_is_held_until_its_window_is_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hands = Hands()
    async with invited(hands, tmp_path) as under_way:
        ticket = await under_way.next()
        with store.in_use(tmp_path) as there:
            assert [each.encode() for each in there] == [ticket.encode()]
        hands.ahead_ns += round((ticket.instant + LATE_S - hands.now_s()) * 1e9)
        await under_way.end()
    assert lying(tmp_path) == []
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "1. Send this ticket to your peer; leave this running."
    assert re.fullmatch(r"2\. .* before \d\d:\d\d:\d\d UTC.*: simopen connect PEERS-TICKET", said[1])
    assert re.fullmatch(r"both fire in \d+ s \(\d\d:\d\d:\d\d UTC.*\) at the earliest; .* held", said[2])
    assert said[-1].startswith("no `simopen connect` was seen here in time, and the mapping is let go")


async def test_it_is_held_while_a_connect_waits_for_the_peers_later_instant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hands = Hands()
    async with invited(hands, tmp_path) as under_way:
        await under_way.next()
        with store.in_use(tmp_path):
            hands.ahead_ns += HOUR_NS
            done, _ = await asyncio.wait({under_way.task}, timeout=2.5)  # it looks every second
            assert not done
        await under_way.end()
    assert capsys.readouterr().err.endswith(
        "`simopen connect` was run here and is done with the mapping; it is let go\n"
    )


async def test_where_the_mapping_changes_there_is_a_new_ticket(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server hangs up after each answer, so that it is asked anew every second. The second time, it ends."""
    public = ["198.51.100.1"]
    hands = Hands()

    def told(seen: Endpoint, server: Endpoint) -> Endpoint:
        return Endpoint(public[0], 2314)

    async with (
        FakeStun(told=told, answers=1) as server,
        holding(servers=[server.name], timeout=LONG_S) as found,
        held(found, hands, tmp_path, hands.now_s() + 40.2) as under_way,
    ):
        first = await under_way.next()
        public[0] = "198.51.100.2"
        second = await under_way.next()
        with store.in_use(tmp_path) as there:
            assert [each.encode() for each in there] == [second.encode()]
        public[0] = "198.51.100.3"
        with pytest.raises(SimopenError, match=r"changed again, after \d+ s: .* simopen nat --ticket --at \+20s"):
            await under_way.next()
    assert lying(tmp_path) == []
    assert (first.profile.mapped, second.profile.mapped) == (("198.51.100.1", 2314), ("198.51.100.2", 2314))
    assert first.instant == pytest.approx(hands.now_s() + 40, abs=LONG_S)
    assert second.instant > first.instant
    said = capsys.readouterr().err
    assert "from 198.51.100.1:2314 to 198.51.100.2:2314" in said
    assert "run `simopen connect` anew on both sides" in said


async def test_where_it_changes_after_the_instant_no_new_ticket_is_made(tmp_path: Path) -> None:
    public = ["198.51.100.1"]
    hands = Hands()
    async with (
        FakeStun(told=lambda seen, server: Endpoint(public[0], 2314), answers=1) as server,
        holding(servers=[server.name], timeout=LONG_S) as found,
        held(found, hands, tmp_path) as under_way,
    ):
        ticket = await under_way.next()
        with store.in_use(tmp_path) as there:
            hands.ahead_ns += HOUR_NS
            public[0] = "198.51.100.2"
            assert (await found.refresh()).mapped != ticket.profile.mapped
            done, _ = await asyncio.wait({under_way.task}, timeout=2.5)  # it looks every second
            assert not done
            assert [each.encode() for each in there] == [ticket.encode()]
        await under_way.end()
        assert under_way.shown == 1


@pytest.mark.parametrize(("timeout_s", "waited_s"), [(0.4, 0.4), (60.0, 3.0)])
async def test_time_servers_are_waited_for_no_longer_than_any_server(timeout_s: float, waited_s: float) -> None:
    hands = Hands(ClockError("nobody answers"))
    await learn_the_time(hands, Screen(quiet=True), None, timeout_s)
    assert hands.waited_s == waited_s


@pytest.mark.parametrize("learning", [True, False])
async def test_an_instant_that_has_passed_is_refused(learning: bool, tmp_path: Path) -> None:
    """Before any server is asked, and after, which may take a while."""
    hands = Hands()
    at = hands.now_s() - 1
    async with FakeStun() as server, holding(servers=[server.name], timeout=LONG_S) as found:
        invitation = Invitation(found, hands, Screen(), lambda ticket: None, tmp_path)
        with pytest.raises(ValueError, match="has passed: name a later one with --at"):
            await (learn_the_time(hands, Screen(), at) if learning else invitation.hold(at))


@ONE_LOOP
async def test_the_command_refuses_it_before_it_asks(tmp_path: Path) -> None:
    async with inviting(tmp_path, "--at", "2001-09-09T01:46:40Z", "--stun", "127.0.0.9:9") as process:
        _, said = await process.communicate()
    assert process.returncode == 2
    assert said.startswith(b"simopen: the ticket's instant has passed")


async def test_time_servers_are_asked(tmp_path: Path) -> None:
    async with (
        FakeNtp(1000.0) as one,
        FakeNtp(1000.0) as other,
        FakeStun() as server,
        holding(servers=[server.name], timeout=LONG_S) as found,
        held(found, Clock([one.name, other.name], ask_kernel=lambda: None), tmp_path) as under_way,
    ):
        ticket = await under_way.next()
    assert ticket.instant - time.time() == pytest.approx(1000 + LEAD_S + 10 / 2, abs=LONG_S)
    assert ticket.profile.observations[-1].at_ns / 1e9 - time.time() == pytest.approx(1000, abs=LONG_S)


async def test_where_no_time_server_answers_that_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with invited(Hands(ClockError("silence everywhere")), tmp_path) as under_way:
        await under_way.next()
    assert "simopen: note: the clock's offset is not known well" in capsys.readouterr().err


# --- the command


@contextlib.asynccontextmanager
async def inviting(where: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [sys.executable, "-m", "simopen", "nat", "--ticket", "--no-ntp", *words]
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(where)}
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(LONG_S):
        return (await process.stdout.readline()).decode()


def behind_a_nat(seen: Endpoint, server: Endpoint) -> Endpoint:
    return Endpoint("198.51.100.1", 1024 + (seen.port * 7919) % 60_000)


def told_of(pid: int) -> str:
    """What every user of the host can read, or this one."""
    return "".join(Path(f"/proc/{pid}/{name}").read_bytes().decode() for name in ("cmdline", "environ"))


@ONE_LOOP
async def test_the_ticket_stands_alone_on_standard_output_while_the_mapping_is_held(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    async with full_server((HERE, THERE), ports, told=behind_a_nat) as servers:
        asked = next(iter(servers))
        async with inviting(tmp_path, "--stun", str(asked), "--timeout", "20s") as process:
            text = await line_of(process)
            ticket = parse_ticket(text)
            (file,) = lying(tmp_path / "simopen")
            assert file.read_text().splitlines()[0] == text.strip()
            secret = file.read_text().splitlines()[1]
            assert len(secret) == 64
            assert secret not in told_of(process.pid)
            ours = {each for server in servers.values() for each in server.clients if each.port == ticket.local_port}
            assert ours
            assert not [each for server in servers.values() for each in server.ended if each in ours]
            process.send_signal(signal.SIGINT)
            out, said = await process.communicate()
    assert (process.returncode, out) == (130, b"")
    assert not file.exists()
    assert ticket.profile.mapping is Mapping.ENDPOINT_INDEPENDENT
    assert secret not in said.decode()
    told = said.decode().splitlines()
    assert told[0] == "asking the STUN servers ..."
    assert told[1].startswith(f"public endpoint {ticket.profile.mapped}: every peer sees the same public endpoint")
    assert told[2].startswith("1. Send this ticket")  # and no table
    assert told[-2:] == ["the mapping is let go, and the ticket is void", "simopen: interrupted; everything is closed"]


@ONE_LOOP
async def test_the_whole_table_is_there_for_who_asks(tmp_path: Path) -> None:
    async with FakeStun() as server, inviting(tmp_path, "--stun", server.name, "--timeout", "20s", "-v") as process:
        parse_ticket(await line_of(process))
        process.send_signal(signal.SIGINT)
        _, said = await process.communicate()
    assert "the NATs in front of this host" in said.decode()


@ONE_LOOP
async def test_as_json_the_ticket_is_among_the_rest(tmp_path: Path) -> None:
    async with FakeStun() as server:
        words = ["--stun", server.name, "--timeout", "20s", "--json", "--at", str(time.time() + 100)]
        async with inviting(tmp_path, *words) as process:
            told = json.loads(await line_of(process))
    ticket = parse_ticket(told["ticket"])
    assert told["instant"] == ticket.instant == pytest.approx(time.time() + 100, abs=LONG_S)
    assert told["servers"] == [server.name]


async def test_consent_to_a_spray_is_in_the_ticket(tmp_path: Path) -> None:
    async with FakeStun() as server, holding(servers=[server.name]) as found:
        assert [found.ticket(spray=each).spray for each in (False, True)] == [False, True]
        assert not found.ticket().spray
        async with inviting(tmp_path, "--stun", server.name, "--timeout", "20s", "--spray") as process:
            assert parse_ticket(await line_of(process)).spray


@ONE_LOOP
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--at", "+1m"], b"simopen: --at goes with --ticket: a ticket carries an instant\n"),
        (["--spray"], b"simopen: --spray goes with --ticket: a ticket carries your consent to it\n"),
    ],
)
async def test_what_a_ticket_carries_is_bad_usage_without_one(words: list[str], complaint: bytes) -> None:
    command = [sys.executable, "-m", "simopen", "nat", *words]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert (process.returncode, said) == (2, complaint)
