"""Clocks that are wrong by seconds, hours or weeks: nothing is decided by one that nobody has checked.

In the tests of the calls each side has a clock of its own that is wrong by something else, and time servers that are
right. The command cannot be given another clock: its time servers are wrong instead, which to it is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

import simopen
from simopen.cli.main import main
from simopen.clock import source as clock
from simopen.clock.instant import Ahead, Instant, Slot, TimeOfDay, Told, read_instant
from simopen.clock.kernel import KernelTime
from simopen.clock.source import Clock, FixedClock, LocalClock
from simopen.errors import Flaw, TicketError
from simopen.lab import Allocation, Mapping, Nat
from simopen.model.estimate import Reading, Source
from simopen.model.report import Report
from simopen.model.times import MonoNs
from simopen.ticket.codec import Ticket
from simopen.ticket.hold import holding, issued
from tests.fake_ntp import FakeNtp
from tests.fake_stun import FakeStun
from tests.loopback import HERE, THERE, ports
from tests.meeting import profiles
from tests.modelled import Model

__all__ = ["ports"]

HOUR_S, DAY_S, S = 3600, 86_400, 1_000_000_000
ERRORS_S = [sign * error_s for error_s in (3, 40, HOUR_S, DAY_S, 14 * DAY_S) for sign in (1, -1)]
SIMOPEN = [sys.executable, "-m", "simopen"]
LONG_S = 30.0
AHEAD_S = 1.5


class Wrong(LocalClock):
    """This machine's clocks, with the wall clock ahead by `error_s`. It cannot drift, nor be set."""

    def __init__(self, error_s: float) -> None:
        self.error_ns = round(error_s * S)

    def read(self) -> Reading:
        true = super().read()
        return replace(true, realtime_ns=true.realtime_ns + self.error_ns)


@asynccontextmanager
async def servers(offset_s: float = 0.0) -> AsyncIterator[list[str]]:
    async with FakeNtp(offset_s) as one, FakeNtp(offset_s) as two, FakeNtp(offset_s) as three:
        yield [each.name for each in (one, two, three)]


def wrong_by(error_s: float, asked: list[str], ask_kernel: Callable[[], KernelTime | None] = lambda: None) -> Clock:
    return Clock(asked, local=Wrong(error_s), ask_kernel=ask_kernel)


async def checked(error_s: float, asked: list[str], *kernel: Callable[[], KernelTime | None]) -> Clock:
    """One that has been asked about with all the time that takes: a near instant leaves a busy machine too little."""
    clock = wrong_by(error_s, asked, *kernel)
    await clock.refresh(LONG_S)
    return clock


async def meeting(
    at: Instant, clocks: tuple[Clock, Clock], between: tuple[str, str], ports: tuple[int, int], window: float = 5
) -> tuple[Report, Report]:
    left, right = (between[0], ports[0]), (between[1], ports[1])
    (one, first), (other, second) = await asyncio.gather(
        simopen.punch(right, local=left, at=at, clock=clocks[0], window=window),
        simopen.punch(left, local=right, at=at, clock=clocks[1], window=window),
    )
    one.close()
    other.close()
    return first, second


def ways_to_name_it(true: simopen.Estimate) -> list[Instant]:
    """All of an instant that is nearly as far ahead."""
    at_s = true.utc_ns / S + AHEAD_S
    told_ns = true.monotonic_ns
    half_ns = (true.utc_ns + S // 2) % S - S // 2  # both sides' estimates must fall into the same second
    return [
        at_s,
        datetime.fromtimestamp(at_s, UTC),
        Told(Ahead(AHEAD_S), told_ns),
        Told(TimeOfDay(at_s % DAY_S), told_ns),
        Told(Slot(1), MonoNs(told_ns - half_ns + S // 4)),
    ]


async def test_whatever_names_the_instant_it_is_by_true_time(ports: tuple[int, int]) -> None:
    """Every error against another, every way to name an instant, all side by side.

    Each wrong clock is asked about before them, once for all of its meetings: a hundred of them keep this loop, and the
    servers in it, busy for longer than a clock is asked about.
    """
    async with servers() as asked:
        wrong = {error_s: await checked(error_s, asked) for error_s in ERRORS_S}
        true = clock.plain()
        pairs = list(zip(ERRORS_S, ERRORS_S[3:] + ERRORS_S[:3], strict=True))
        calls = list(itertools.product(pairs, ways_to_name_it(true)))
        met = await asyncio.gather(
            *(
                meeting(
                    at,
                    (wrong[errors[0]], wrong[errors[1]]),
                    (f"127.1.{number}.1", f"127.1.{number}.2"),
                    ports,
                    window=20,
                )
                for number, (errors, at) in enumerate(calls)
            )
        )
    for (errors, at), reports in zip(calls, met, strict=True):
        for error_s, report in zip(errors, reports, strict=True):
            bound_ns = report.clock.bound_at(report.instant_ns)
            assert bound_ns is not None
            assert report.clock.offset_s == pytest.approx(-error_s, abs=1)
            assert report.fired_ns >= report.instant_ns
            assert any("this machine's clock is" in note for note in report.notes)
            if not (isinstance(at, Told) and isinstance(at.instant, Slot)):
                missed_ns = report.instant_ns - true.monotonic_ns - AHEAD_S * S
                assert abs(missed_ns) <= bound_ns + S // 100, (errors, at)
        apart_ns = abs(reports[0].instant_ns - reports[1].instant_ns)
        known_ns = [report.clock.bound_at(report.instant_ns) or 0 for report in reports]
        if isinstance(at, Told) and isinstance(at.instant, Slot) and max(known_ns) >= S // 4:
            apart_ns = min(apart_ns, abs(S - apart_ns))  # one side may have taken the next slot for the same
        assert apart_ns <= sum(known_ns), (errors, at)


@pytest.mark.parametrize("error_s", [HOUR_S, -HOUR_S])
async def test_an_instant_that_is_over_within_the_window_is_fired_at_once_and_that_is_told(
    error_s: float, ports: tuple[int, int]
) -> None:
    async with servers() as asked:
        wrong = await checked(error_s, asked)
        reports = await meeting(time.time() - 1, (wrong, wrong), (HERE, THERE), ports, window=20)
    for report in reports:
        assert report.late_s > 1
        assert any("after the instant" in note for note in report.notes)


@pytest.mark.parametrize("error_s", ERRORS_S)
async def test_what_is_missed_is_missed_by_true_time(error_s: float, ports: tuple[int, int]) -> None:
    async with servers() as asked:
        at = time.time() - 30
        with pytest.raises(simopen.MissedInstant, match=r"passed 3\d\.\d s ago"):
            await simopen.punch((THERE, ports[1]), local=(HERE, ports[0]), at=at, clock=wrong_by(error_s, asked))


async def test_that_the_clock_is_wrong_is_said_once_a_clock_and_stands_in_every_report(
    ports: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    async with servers() as asked:
        wrong = await checked(HOUR_S, asked)
        with caplog.at_level(logging.WARNING, "simopen"):
            reports = [
                report
                for number in range(2)
                for report in await meeting(Ahead(0.7), (wrong, wrong), (f"127.2.{number}.1", THERE), ports)
            ]
    words = "this machine's clock is 1 h ahead (3 of 3 time servers); corrected for this meeting"
    assert [record.getMessage() for record in caplog.records].count(words) == 1
    assert all(words in report.notes for report in reports)


def timesyncd() -> KernelTime:
    """A second after its sync, as the kernel tells it."""
    return KernelTime(state=0, status=0x2001, maxerror_us=500, esterror_us=0)


async def test_a_keeper_that_does_not_measure_is_not_believed(ports: tuple[int, int]) -> None:
    """The host is 390 ms off, and the kernel says 500 µs."""
    async with servers() as asked:
        wrong = await checked(0.39, asked, timesyncd)
        reports = await meeting(Ahead(0.7), (wrong, wrong), (HERE, THERE), ports)
    assert [report.clock.source for report in reports] == [Source.NTP] * 2
    assert [report.clock.offset_s for report in reports] == pytest.approx([-0.39] * 2, abs=0.05)


# --- tickets

RANDOM = Nat(Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)


def tickets(ahead_s: float) -> tuple[Ticket, Ticket]:
    """Of two NATs that leave no way: whoever takes these to be in time says so at once, and nothing is sent."""
    ours, theirs = profiles(Model([RANDOM], seed=1), Model([RANDOM], seed=2, site=1))
    return tuple(issued(each, round(time.time() + ahead_s), each.hosts[0].port, ahead_ns=0) for each in (ours, theirs))  # type: ignore[return-value]


@pytest.mark.parametrize("error_s", ERRORS_S)
async def test_tickets_are_in_time_or_expired_by_true_time(error_s: float) -> None:
    async with servers() as asked:
        mine, theirs = tickets(60)
        with pytest.raises(simopen.ImpossiblePair):
            await simopen.punch(theirs, mine=mine, clock=wrong_by(error_s, asked))
        mine, theirs = tickets(-60)
        with pytest.raises(TicketError, match=r"its instant was 1 min( \d s)? ago") as caught:
            await simopen.punch(theirs, mine=mine, clock=wrong_by(error_s, asked))
        assert caught.value.flaw is Flaw.EXPIRED


async def test_a_ticket_is_good_for_as_long_as_this_side_fires() -> None:
    mine, theirs = tickets(-60)
    with pytest.raises(simopen.ImpossiblePair):
        await simopen.punch(theirs, mine=mine, window=100, clock=clock.plain())


async def test_a_ticket_for_an_instant_that_nobody_lives_to_see_is_refused() -> None:
    mine, theirs = tickets(60)
    with pytest.raises(TicketError, match="in the year 2106; is a clock wrong") as caught:
        await simopen.punch(replace(theirs, instant=2**32 - 1), mine=mine, clock=clock.plain())
    assert caught.value.flaw is Flaw.FAR_AHEAD


@pytest.mark.parametrize("error_s", [HOUR_S, -14 * DAY_S])
async def test_a_program_s_ticket_is_for_an_instant_of_true_time(error_s: float) -> None:
    async with servers() as asked, FakeStun() as stun, holding(servers=[stun.name], timeout=LONG_S) as found:
        wrong = wrong_by(error_s, asked)
        usual, told, named = [
            await found.make_ticket(at, clock=wrong) for at in (None, read_instant("+30s"), time.time() + 50)
        ]
    now_s = time.time()
    assert [each.instant - now_s for each in (usual, told, named)] == pytest.approx([125, 30, 50], abs=LONG_S / 2)
    assert all(abs(seen.at_ns / S - now_s) < LONG_S for seen in usual.profile.observations)


async def test_a_program_s_ticket_for_no_time_is_a_value_error() -> None:
    async with FakeStun() as stun, holding(servers=[stun.name], timeout=LONG_S) as found:
        for at in (1e300, float("nan"), float("inf"), 10**400):
            with pytest.raises(ValueError, match=r"a year from|finite"):
                found.ticket(at)


# --- the command


@dataclass
class Said:
    status: int | None
    heard: bytes
    text: str


async def command(asked: list[str], *words: object, given: bytes = b"", zone: str = "UTC") -> Said:
    """One run of `simopen`, with these time servers."""
    ntp = [word for server in asked for word in ("--ntp", server)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *SIMOPEN, *map(str, words), *ntp, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, "TZ": zone}
    )
    try:
        async with asyncio.timeout(LONG_S):
            heard, text = await process.communicate(given)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return Said(process.returncode, heard, text.decode())


def time_of_day(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%H:%M:%S}"


@pytest.mark.parametrize("behind_s", [HOUR_S, -14 * DAY_S])
def test_the_command_meets_one_whose_clock_is_right(behind_s: float, ports: tuple[int, int]) -> None:
    """By each way to type an instant. The one side's clock is wrong, the other's is not."""
    asyncio.run(met_by_command(behind_s, ports))


async def met_by_command(behind_s: float, ports: tuple[int, int]) -> None:
    now_s = int(time.time())
    typed: list[Callable[[float], object]] = [
        lambda off_s: "+4s",
        lambda off_s: "next:5s",
        lambda off_s: time_of_day(now_s + 5 + off_s),
        lambda off_s: f"{time_of_day(now_s + 5 + off_s)}Z",
        lambda off_s: now_s + 5 + off_s,
    ]

    def side(asked: list[str], number: int, mine: int, at: object) -> asyncio.Task[Said]:
        addresses = (f"127.3.{number}.1", f"127.3.{number}.2")
        peer, own = addresses[1 - mine], addresses[mine]
        words = ["connect", peer, ports[1 - mine], "--local-address", own, "--local-port", ports[mine], "--at", at]
        words += ["--window", "20s"]  # one may start so late that it takes the next slot
        return asyncio.ensure_future(command(asked, *words, given=b"I love you."))

    async with servers(behind_s) as off, servers() as right:
        calls = [
            (side(off, number, 0, each(behind_s)), side(right, number, 1, each(0))) for number, each in enumerate(typed)
        ]
        ended = [(await one, await other) for one, other in calls]
    words = f"this machine's clock is {'1 h behind' if behind_s > 0 else '14 days ahead'} (3 of 3 time servers)"
    for one, other in ended:
        assert (one.status, other.status, one.heard, other.heard) == (0, 0, b"I love you.", b"I love you."), one.text
        assert one.text.count(words) == 1
        assert "this machine's clock" not in other.text
        assert not re.search(r"in 36\d\d\.?\d* s|in 1 h", one.text)


def test_the_command_says_that_a_local_time_was_typed_for_utc(ports: tuple[int, int]) -> None:
    """Five and a half hours behind UTC, as no zone is: what was typed is past."""
    zone = "<-0530>05:30"
    typed = time_of_day(time.time() - 5.5 * HOUR_S)
    ends = [THERE, ports[1], "--local-address", HERE, "--local-port", ports[0]]
    said = asyncio.run(command([], "connect", *ends, "--at", typed, "--no-ntp", zone=zone))
    assert said.status == 1
    assert "this host's time zone is 5 h 30 min behind UTC: was a local time typed for UTC?" in said.text
    said = asyncio.run(command([], "nat", "--ticket", "--at", typed, "--no-ntp", zone=zone))
    assert said.status == 2
    assert "has passed: name a later one with --at, or leave it out; this host's time zone is" in said.text


@pytest.mark.parametrize(
    "at", ["9" * 300, "1" + "0" * 14, "+" + "9" * 300, "next:" + "9" * 300, "9999-12-31T23:59:59Z"]
)
@pytest.mark.parametrize("words", [["connect", HERE, "9"], ["nat", "--ticket"]])
def test_an_instant_beyond_any_calendar_is_bad_usage(
    words: list[str], at: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--at", at, "--no-ntp"])
    assert caught.value.code == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "argument --at: " in told
    assert len(told) < 200


@pytest.mark.parametrize("at", [1e300, -1e300, 10**400, 1e15, 253_402_300_800])
async def test_a_number_that_no_calendar_holds_is_a_value_error(at: float) -> None:
    with pytest.raises(ValueError, match="a year from 2 to 9998") as caught:
        await simopen.connect((THERE, 9), local=(HERE, 9), at=at, clock=clock.plain())
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("window", [1e300, 10**400, float("inf"), float("nan"), 1e10])
async def test_a_window_that_no_clock_holds_is_a_value_error(window: float) -> None:
    with pytest.raises(ValueError, match="positive number of seconds, above zero and at most") as caught:
        await simopen.connect((THERE, 9), local=(HERE, 9), window=window, clock=clock.plain())
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("timeout", [1e300, 10**400, float("inf"), float("nan"), 0, -1, 1e10])
async def test_a_timeout_that_no_clock_holds_is_a_value_error(timeout: float) -> None:
    for call in (
        lambda: simopen.check_clock(["127.0.0.1:1"], timeout),
        lambda: Clock(["127.0.0.1:1"]).refresh(timeout),
        lambda: simopen.discover(servers=["127.0.0.1:1"], timeout=timeout),
    ):
        with pytest.raises(ValueError, match="the timeout must be a positive number of seconds") as caught:
            await call()
        assert len(str(caught.value)) < 120


async def test_the_longest_window_works(ports: tuple[int, int]) -> None:
    fixed = FixedClock(clock.plain())
    (one, first), (other, _) = await asyncio.gather(
        *(
            simopen.punch((there, port), local=(here, own), window=1e9, clock=fixed)
            for here, own, there, port in ((HERE, ports[0], THERE, ports[1]), (THERE, ports[1], HERE, ports[0]))
        )
    )
    assert first.window_s == 1e9
    one.close()
    other.close()


@pytest.mark.parametrize("command", [["connect", THERE], ["nat", "--ticket"]], ids=["connect", "nat"])
def test_the_command_says_so_before_it_waits_for_hours(command: list[str], ports: tuple[int, int]) -> None:
    """East of Greenwich a local time that was typed for UTC is still ahead."""
    typed = time_of_day(time.time() + 5.5 * HOUR_S)
    ends: dict[str, list[object]] = {
        "connect": [ports[1], "--local-address", HERE],
        "nat": ["--stun", f"{THERE}:{ports[1]}"],
    }
    words = [*command, *ends[command[0]], "--local-port", ports[0], "--at", typed, "--no-ntp"]
    pipe, zone = subprocess.PIPE, {**os.environ, "TZ": "<+0530>-05:30"}
    with subprocess.Popen([*SIMOPEN, *map(str, words)], stdin=pipe, stderr=pipe, env=zone) as process:
        assert process.stderr is not None
        told = next(line for line in map(bytes.decode, process.stderr) if "clock's offset" not in line)
        process.terminate()
    assert re.match(r"simopen: note: the instant is 5 h (29|30) min ahead; this host's time zone is 5 h 30 min", told)
