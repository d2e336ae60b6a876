"""The wait for an instant: who is asked when, and what is noticed meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace

import pytest

from simopen.clock import source as clock
from simopen.clock.instant import Ahead, Instant
from simopen.clock.source import FixedClock, LocalClock
from simopen.clock.true_time import Learnt, When
from simopen.clock.waiting import HANDOVER_NS, Wait
from simopen.errors import ClockError
from simopen.model.estimate import Estimate, Reading, Source
from simopen.model.times import MonoNs, UtcNs
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]
S = 1_000_000_000
LONG_S, HOUR_S = 30.0, 3600


@dataclass
class Said:
    """What a wait notes."""

    notes: list[str] = field(default_factory=list)
    learnt: list[Learnt] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def note_clock(self, learnt: Learnt) -> None:
        self.learnt.append(learnt)


class Oracle:
    """A time source that says what it is told to say. It cannot age, but through `age_s`."""

    limit_s = clock.LIMIT_S

    def __init__(self, answers: list[Estimate | ClockError], now: Estimate, local: LocalClock = clock.MACHINE) -> None:
        self.local = local
        self.answers, self.now, self.asked = answers, now, 0

    def now_estimate(self) -> Estimate:
        return self.now

    async def refresh(self, timeout_s: float = 1.0) -> Estimate:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ClockError):
            raise answer
        self.now = answer
        return answer


def known(ahead_s: float = 0.0, bound_s: float = 0.001) -> Estimate:
    """True time where this machine's clock is behind by that."""
    plain = clock.plain()
    return replace(
        plain, utc_ns=UtcNs(plain.utc_ns + round(ahead_s * S)), bound_ns=round(bound_s * S), source=Source.NTP
    )


def waiting(at: Instant, source: clock.TimeSource, said: Said) -> Wait:
    return Wait(When.told(at, source), source, 10.0, said, source.now_estimate())


def nobody() -> bool:
    return False


async def test_a_check_that_is_old_does_not_keep_the_loop_from_turning() -> None:
    """Within half a minute of the instant an old one is repeated, but there is nobody to ask here."""
    old = replace(known(), reading=replace(clock.plain().reading))
    moved = round(700 * S)
    reading = Reading(
        MonoNs(old.reading.monotonic_ns - moved), old.reading.realtime_ns - moved, old.reading.boottime_ns - moved
    )
    source = FixedClock(replace(old, utc_ns=UtcNs(old.utc_ns - moved), reading=reading))
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    other = asyncio.create_task(turn())
    left_ns = await waiting(time.time() + 2.3, source, Said()).until_handover(nobody)
    other.cancel()
    assert 0 < left_ns <= HANDOVER_NS
    assert turns > 1


async def test_what_was_told_relative_does_not_move_when_the_time_becomes_known() -> None:
    """The clock is an hour behind; the first to be asked is silent, a later one knows."""
    source = Oracle([ClockError("silence"), known(3600)], clock.plain())
    said = Said()
    wait = waiting(Ahead(1.5), source, said)
    await wait.until_handover(nobody)
    before_ns, utc_ns = wait.instant_ns, wait.when.utc_ns(wait.estimate)
    await wait._learn(0.1)
    await wait.until_handover(nobody)
    assert wait.instant_ns == pytest.approx(before_ns, abs=S // 100)
    assert wait.when.utc_ns(wait.estimate) - utc_ns == pytest.approx(3600 * S, abs=S // 100)
    assert [each.doubt for each in said.learnt][:2] == ["silence", None]


class Asleep(LocalClock):
    """A machine that has slept for so long once `asleep_s` is set. The wall clock goes on meanwhile, as it does."""

    asleep_s = 0.0

    def read(self) -> Reading:
        now, slept_ns = super().read(), round(self.asleep_s * S)
        return Reading(now.monotonic_ns, now.realtime_ns + slept_ns, now.boottime_ns + slept_ns)


async def test_what_was_told_relative_does_not_move_while_the_machine_sleeps() -> None:
    local = Asleep()
    source = Oracle([clock.plain(local)], replace(clock.plain(local), bound_ns=1000, source=Source.NTP), local)
    said = Said()
    wait = waiting(Ahead(3600), source, said)
    task = asyncio.create_task(wait.until_handover(nobody))
    await asyncio.sleep(0)
    assert said.learnt
    utc_ns = wait.when.utc_ns(wait.estimate)
    local.asleep_s = 3599.5
    source.now = replace(clock.plain(local), bound_ns=1000, source=Source.NTP)
    async with asyncio.timeout(LONG_S):
        await task
    assert wait.when.utc_ns(wait.estimate) == utc_ns
    assert said.notes == ["this machine slept for 3599.5 s while waiting, so its clock is checked again"]


async def test_an_estimate_of_the_callers_own_that_a_suspend_has_voided_is_doubted_aloud() -> None:
    local = Asleep()
    source = FixedClock(replace(clock.plain(local), bound_ns=1000, source=Source.NTP), local)
    said = Said()
    task = asyncio.create_task(waiting(Ahead(3600), source, said).until_handover(nobody))
    await asyncio.sleep(0)
    local.asleep_s = 3599.5
    async with asyncio.timeout(LONG_S):
        await task
    first, second = said.learnt
    assert (first.doubt, second.estimate.source) == (None, Source.PLAIN)
    assert second.doubt == "the machine has slept for 3599.5 s since this estimate was made: make another"


@pytest.mark.parametrize(
    ("asked_after_s", "again_after_s"), [(0.01, 3.1), (3, 3.1), (9, 9.1), (25, 25.1), (3600, 30.1)]
)
def test_who_did_not_tell_the_time_is_soon_asked_again_and_then_more_and_more_seldom(
    asked_after_s: float, again_after_s: float
) -> None:
    """What seems an hour ahead may be 10 s ahead, where the clock is wrong, and a network may come up by then."""
    wait = waiting(time.time() + HOUR_S, Oracle([ClockError("silence")], clock.plain()), Said())
    wait._began_ns, wait._doubtful = MonoNs(S), True
    wait._asked_ns = MonoNs(wait._began_ns + round(asked_after_s * S))
    just_ns = wait._asked_ns + round(again_after_s * S)
    assert wait._wanted_s(HOUR_S * S, MonoNs(just_ns - S // 5)) is None
    assert wait._wanted_s(HOUR_S * S, MonoNs(just_ns)) == 0.1


async def test_an_instant_that_seems_over_is_asked_about_all_the_same() -> None:
    source = Oracle([known(-3600)], clock.plain())
    wait = waiting(time.time() - 3600 + 1, source, Said())
    assert await wait.until_handover(nobody) > 0
    assert source.asked == 1


async def test_a_loop_that_was_blocked_is_noticed() -> None:
    wait = waiting(time.time() + 2.5, FixedClock(clock.plain()), Said())
    task = asyncio.create_task(wait.until_handover(nobody))
    asyncio.get_running_loop().call_later(0.1, time.sleep, 1.3)
    await task
    assert wait.stalled_ns > S // 2


PROGRAM = """
import asyncio, sys, time, simopen
from simopen.clock import source as clock

class Telling(clock.LocalClock):
    # Says so once whoever reads it waits.
    reads = 0
    def read(self):
        self.reads += 1
        if self.reads == 4:
            asyncio.get_running_loop().call_soon(lambda: print("waits", flush=True))
        return super().read()

async def main(here, there, mine, port, ahead):
    at, own = time.time() + float(ahead), clock.FixedClock(clock.plain(), Telling())
    try:
        await simopen.punch((there, int(port)), local=(here, int(mine)), at=at, window=0.5, clock=own)
    except simopen.PunchError as error:
        print(type(error).__name__, len(error.report.attempts), error.report.fired_ns, error.diagnosis.cause)
        print(error.diagnosis)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("ahead_s", [3.0, 1.0])  # with the loop waiting, and with the scheduler's thread
def test_a_process_that_is_stopped_over_its_instant_fires_nothing_and_blames_nobody(
    ahead_s: float, ports: tuple[int, int]
) -> None:
    words = [sys.executable, "-c", PROGRAM, HERE, THERE, *map(str, ports), str(ahead_s)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(ahead_s + 1.5)  # past the window; a stopped process tells nothing
        os.kill(process.pid, signal.SIGCONT)
        told, _ = process.communicate(timeout=LONG_S)
    first, second = told.splitlines()
    assert first == "MissedInstant 0 0 not fired"
    assert "this process was stopped, or too busy, for" in second
    assert "peer" not in second
