"""`simopen meet`'s rounds, where a clock, a route, a mapping or a file changes between them."""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from simopen.cli.arguments import UsageError
from simopen.cli.console import Screen
from simopen.cli.meet_rounds import Meeting
from simopen.cli.ticket_prompt import ticket_in
from simopen.clock.source import LIMIT_S, MACHINE
from simopen.errors import (
    Flaw,
    ImpossiblePair,
    LinkError,
    LocalEndpointError,
    MissedInstant,
    ResolutionError,
    TicketError,
    WindowClosed,
)
from simopen.lab.nat import model as lab
from simopen.model.endpoint import Endpoint
from simopen.model.estimate import Estimate, Source
from simopen.model.nat import Allocation, Mapping, Profile
from simopen.model.times import UtcNs
from simopen.ticket.codec import Ticket, parse_ticket
from simopen.ticket.hold import issued
from tests.ticket.test_codec import SIMPLE, discovered


class Taken:
    """The writer of a link that the peer took, or did not; and whether it was aborted."""

    def __init__(self, error: LinkError | None = None) -> None:
        self.error, self.aborted = error, False

    def get_extra_info(self, name: str) -> Taken:
        assert name == "simopen_link"
        return self

    async def answered(self) -> None:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error

    @property
    def transport(self) -> Taken:
        return self

    def abort(self) -> None:
        self.aborted = True


MET = cast("tuple[asyncio.StreamReader, asyncio.StreamWriter]", ("reader", Taken()))
Step = Callable[["Rounds", float], BaseException | None]


class Moving:
    """A clock that is known well, and is moved."""

    local, limit_s = MACHINE, LIMIT_S

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_estimate(self) -> Estimate:
        read = MACHINE.read()
        return Estimate(UtcNs(read.realtime_ns + round(self.ahead_s * 1e9)), 1_000_000, Source.NTP, read)

    async def refresh(self, timeout_s: float = 3.0) -> Estimate:
        return self.now_estimate()

    def now_s(self) -> float:
        return self.now_estimate().utc_ns / 1e9


@dataclass
class FakeHeld:
    """Holds no mapping."""

    profile: Profile
    walks: bool = False
    notes: tuple[str, ...] = ()

    def ticket(self, at: float | None, now: Estimate, *, spray: bool) -> Ticket:
        return issued(self.profile, at or now.utc_ns / 1e9 + 120, 1314, ahead_ns=0, spray=spray)


class Rounds:
    """A `Meeting` whose rounds do what they are told, one step each; after the last they have met. Nothing is sent."""

    def __init__(self, *steps: Step, for_s: float = 60.0, stdio: Path | None = None) -> None:
        self.source, self.found = Moving(), FakeHeld(SIMPLE.profile)
        self.peers: list[Ticket] = []
        self.left_s: list[float] = []
        self._steps = list(steps)
        options = argparse.Namespace(for_s=for_s, stdio=stdio, json=False, spray=False)
        mine = issued(SIMPLE.profile, time.time() + 60, 1314, ahead_ns=0)
        screen = Screen(live=False)
        self.meeting = Meeting(cast("Any", self.found), self.source, screen, options, [mine], connect=self._connect)

    async def met(self, theirs: Ticket) -> None:
        async with asyncio.timeout(60):
            assert await self.meeting.meet(theirs) == MET

    async def _connect(self, theirs: Ticket, *, at: float, **_: object) -> Any:
        self.peers.append(theirs)
        self.left_s.append(at - self.source.now_s())
        if not self._steps:
            return MET
        if (error := self._steps.pop(0)(self, at)) is not None:
            raise error
        return await asyncio.get_running_loop().create_future()


def lost(error: BaseException) -> Step:
    """At the round's end."""

    def step(rounds: Rounds, at: float) -> BaseException:
        rounds.source.ahead_s += at + 1 - rounds.source.now_s()
        return error

    return step


def put_right(by_s: float, error: BaseException | None) -> Step:
    def step(rounds: Rounds, at: float) -> BaseException | None:
        rounds.source.ahead_s += by_s
        return error

    return step


def others(number: int = 9) -> Ticket:
    mapped = Endpoint(f"198.51.100.{number}", 8)
    profile = replace(SIMPLE.profile, mapped=mapped, hosts=(Endpoint("192.168.1.9", 7),))
    return parse_ticket(issued(profile, time.time() + 60, 8, ahead_ns=0).encode())


@pytest.mark.parametrize(
    "error",
    [
        WindowClosed("nobody"),
        MissedInstant("late"),
        LinkError("a stranger"),
        ResolutionError("no route"),
        LocalEndpointError("no such address"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_is_wrong_for_a_moment_costs_a_round(error: OSError) -> None:
    rounds = Rounds(lost(error), lost(error))
    await rounds.met(others())
    assert len(rounds.peers) == 3


async def test_a_link_that_the_peer_does_not_take_costs_a_round(capsys: pytest.CaptureFixture[str]) -> None:
    lonely, steps = Taken(LinkError("the peer has not taken this link")), iter([True, False])
    rounds = Rounds()

    async def connect(*_: object, at: float, **__: object) -> Any:
        rounds.source.ahead_s += at + 1 - rounds.source.now_s()
        return ("reader", lonely) if next(steps) else MET

    rounds.meeting.connect = connect
    await rounds.met(others())
    assert lonely.aborted
    assert "has not taken this link" in capsys.readouterr().err


async def test_what_no_round_can_change_ends_it() -> None:
    with pytest.raises(ImpossiblePair):
        await Rounds(lost(ImpossiblePair("no way"))).met(others())


async def test_when_its_time_is_over_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = Rounds(wait_and_lose, for_s=1e-9)
    rounds.source.ahead_s = 8 - time.time() % 10  # two seconds before a round
    with pytest.raises(WindowClosed):
        await rounds.met(others())
    assert "not met in 1 round" in capsys.readouterr().err


def wait_and_lose(rounds: Rounds, at: float) -> BaseException:
    """The whole of its time, by the clock that cannot be moved."""
    while rounds.source.now_s() < at + 0.05:
        time.sleep(0.01)
    return WindowClosed("nobody")


@pytest.mark.parametrize(
    "step",
    [put_right(1800, MissedInstant("half an hour ago")), put_right(-1800, None), put_right(1800, None)],
    ids=["behind, and told", "ahead", "behind"],
)
async def test_a_clock_that_is_put_right_costs_no_more_than_its_round(step: Step) -> None:
    rounds = Rounds(step, for_s=20)
    await rounds.met(others())
    assert len(rounds.peers) == 2
    assert 0 < rounds.left_s[1] <= 10.5


async def test_a_newer_ticket_in_the_file_is_taken(tmp_path: Path) -> None:
    path, old, new = tmp_path / "ticket", others(8), others(9)
    path.write_text(f"simopen meet {old.encode()}\n")

    def replaced(text: str) -> Step:
        def step(rounds: Rounds, at: float) -> BaseException | None:
            path.write_text(text)
            return lost(WindowClosed("nobody"))(rounds, at)

        return step

    half = f"simopen meet {new.encode()[:40]}"
    rounds = Rounds(replaced(half), replaced(f"simopen meet --spray {new.encode()}\n"), stdio=path)
    await rounds.met(old)
    assert rounds.peers == [old, old, new]


# --- a file with a ticket of an earlier day, and NATs that leave but one try, by a spray

LOST = discovered(lab.Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)).profile


def sprayed(in_s: float) -> Ticket:
    """A peer's whose instant is in so many seconds."""
    ticket = issued(LOST, time.time() + in_s, 8, ahead_ns=0, spray=True)
    return parse_ticket(ticket.encode())


class Watched(Screen):
    """Does something as it says certain words."""

    def __init__(self, words: str, act: Callable[[], object]) -> None:
        super().__init__(live=False)
        self._words, self._act = words, act

    def say(self, text: str) -> None:
        super().say(text)
        if self._words in text:
            self._act()


def of_one_try(path: Path, *steps: Step, own_in_s: float = 60.0, for_s: float = 60.0) -> Rounds:
    rounds = Rounds(*steps, stdio=path, for_s=for_s)
    rounds.meeting.tickets[:] = [issued(SIMPLE.profile, time.time() + own_in_s, 1314, ahead_ns=0, spray=True)]
    return rounds


async def test_while_yesterdays_ticket_waits_for_its_one_try_a_newer_one_is_taken(tmp_path: Path) -> None:
    path, old, new = tmp_path / "ticket", sprayed(-86_400), sprayed(60)
    path.write_text(old.encode())

    def replaced(rounds: Rounds, at: float) -> BaseException | None:
        path.write_text(new.encode())
        return None

    rounds = of_one_try(path, replaced)
    await rounds.met(old)
    assert rounds.peers == [old, new]
    assert rounds.left_s[0] > 30  # nothing was fired at yesterday's


async def test_a_newer_ticket_that_comes_through_a_fifo_is_not_lost(tmp_path: Path) -> None:
    """It can be read but once."""
    path, old, new = tmp_path / "ticket", sprayed(-86_400), sprayed(60)
    os.mkfifo(path)

    def written(rounds: Rounds, at: float) -> BaseException | None:
        asyncio.get_running_loop().run_in_executor(None, path.write_text, new.encode())
        return None

    rounds = of_one_try(path, written)
    await rounds.met(old)
    assert rounds.peers == [old, new]


@pytest.mark.parametrize("flaw", ["expired", "for an instant that nobody waits for"])
async def test_where_a_files_ticket_leaves_no_try_the_next_one_is_waited_for(flaw: str, tmp_path: Path) -> None:
    in_s = {"expired": -86_400, "for an instant that nobody waits for": 86_400}[flaw]
    path, old, new = tmp_path / "ticket", sprayed(in_s), sprayed(60)
    path.write_text(old.encode())
    rounds = of_one_try(path, own_in_s=-5)
    words = f"is {flaw}, and these two NATs leave but one try, by a spray: waiting for the peer's next ticket there"
    rounds.meeting.screen = Watched(words, lambda: path.write_text(new.encode()))
    await rounds.met(old)
    assert rounds.peers == [new]


async def test_where_the_one_try_has_brought_nothing_the_next_ticket_is_waited_for(tmp_path: Path) -> None:
    path, old, new = tmp_path / "ticket", sprayed(-86_400), sprayed(300)
    path.write_text(old.encode())
    rounds = of_one_try(path, lost(WindowClosed("nobody")))
    rounds.meeting.screen = Watched("waiting for the peer's next", lambda: path.write_text(new.encode()))
    await rounds.met(old)
    assert rounds.peers == [old, new]


class Still(Moving):
    """Stands still but where it is moved: however long this machine stalls, no instant passes."""

    def __init__(self) -> None:
        super().__init__()
        self._now_ns = time.time_ns()

    def now_estimate(self) -> Estimate:
        return replace(super().now_estimate(), utc_ns=UtcNs(self._now_ns + round(self.ahead_s * 1e9)))


@pytest.mark.parametrize(("own_in_s", "error"), [(1.0, WindowClosed), (-5.0, TicketError)])
async def test_where_none_comes_in_time_it_ends_with_what_was_the_matter(
    own_in_s: float, error: type[Exception], tmp_path: Path
) -> None:
    path, old = tmp_path / "ticket", sprayed(-86_400)
    path.write_text(old.encode())
    rounds = of_one_try(path, lost(WindowClosed("nobody")), for_s=1e-9)
    rounds.source = rounds.meeting.source = Still()
    own = issued(SIMPLE.profile, rounds.source.now_s() + own_in_s, 1314, ahead_ns=0, spray=True)
    rounds.meeting.tickets[:] = [own]
    with pytest.raises(error):
        await rounds.met(old)


async def test_without_a_file_the_one_try_that_has_brought_nothing_ends_it() -> None:
    rounds = Rounds(lost(WindowClosed("nobody")))
    rounds.meeting.tickets[:] = [issued(SIMPLE.profile, time.time() + 60, 1314, ahead_ns=0, spray=True)]
    with pytest.raises(WindowClosed):
        await rounds.met(sprayed(60))


async def test_a_mapping_that_changes_between_rounds_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    def moved(rounds: Rounds, at: float) -> BaseException | None:
        rounds.found.profile = replace(SIMPLE.profile, mapped=Endpoint("203.0.113.77", 4321))
        return lost(WindowClosed("nobody"))(rounds, at)

    await Rounds(moved, lost(WindowClosed("nobody"))).met(others())
    assert " ".join(capsys.readouterr().err.split()).count("to 203.0.113.77:4321, and your peer fires at the old") == 1


async def test_a_ticket_that_no_plan_can_be_made_of_is_told() -> None:
    theirs = others()
    nowhere = parse_ticket(replace(theirs, profile=replace(theirs.profile, mapped=None, hosts=())).encode())
    with pytest.raises((UsageError, TicketError), match="without hosts"):
        await Rounds().met(nowhere)


def test_an_old_ticket_is_taken_and_it_is_noted_how_old(capsys: pytest.CaptureFixture[str]) -> None:
    old = sprayed(-80_000)
    assert Rounds().meeting.usable(old) is old
    words = (
        r"note: your peer's ticket was for \d+-\d+-\d+ \d+:\d+:\d+ UTC, 22 h 13 min ago: it works only if that "
        "`simopen meet`"
    )
    assert re.search(words, " ".join(capsys.readouterr().err.split()))


def test_any_of_this_sides_own_is_refused_an_earlier_one_too() -> None:
    meeting = Rounds().meeting
    meeting.tickets.append(issued(SIMPLE.profile, time.time() + 120, 1314, ahead_ns=0))
    for each in meeting.tickets:
        with pytest.raises(TicketError) as caught:
            meeting.usable(parse_ticket(each.encode()))
        assert caught.value.flaw is Flaw.OWN


@pytest.mark.parametrize("spray", [False, True])
async def test_the_line_that_it_shows_can_be_pasted(spray: bool, capsys: pytest.CaptureFixture[str]) -> None:
    meeting = Rounds().meeting
    meeting.options.spray = spray
    await meeting.begin(None)
    told = capsys.readouterr().err
    [line] = [each for each in told.splitlines() if each.startswith("simopen meet ")]
    assert ("--spray" in line) == spray
    for pasted in (line, f"$ {line}\n", f"`{line}`", line.replace(" ", "\n"), told):
        assert ticket_in(pasted) == parse_ticket(meeting.mine.encode())
