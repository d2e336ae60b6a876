from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from functools import partial

import pytest

from simopen.clock.scheduler import HURRIED_INTERVAL_S, Scheduler
from simopen.errors import PunchError
from simopen.model.times import MonoNs
from tests.loopback import ports

__all__ = ["ports"]

MS = 1_000_000


async def test_an_action_runs_at_its_instant_and_never_before() -> None:
    scheduler = Scheduler()
    for ahead_ns in (0, 100, 50_000, 700_000, 5 * MS, 30 * MS):
        when_ns = time.monotonic_ns() + ahead_ns
        [fired] = await scheduler.at(MonoNs(when_ns), time.monotonic_ns)
        assert fired.at_ns >= when_ns
        assert isinstance(fired.result, int)
        assert fired.result >= fired.at_ns


async def test_an_instant_that_has_passed_fires_at_once() -> None:
    [fired] = await Scheduler().at(MonoNs(time.monotonic_ns() - 10**12), lambda: "done")
    assert fired.result == "done"


@contextlib.asynccontextmanager
async def held(scheduler: Scheduler) -> AsyncIterator[None]:
    """Until the end of this its thread makes no other call, however long what is in it takes."""
    begun, go_on = threading.Event(), threading.Event()
    holding = asyncio.create_task(scheduler.at(MonoNs(0), begun.set, go_on.wait))
    await asyncio.to_thread(begun.wait)
    try:
        yield
    finally:
        go_on.set()
        await holding


async def test_actions_run_in_the_order_of_their_instants() -> None:
    scheduler, now_ns = Scheduler(), time.monotonic_ns()
    order: list[int] = []
    offsets = [30, 5, 20, 5, 40, 1]
    async with held(scheduler):
        calls = (scheduler.at(MonoNs(now_ns + each * MS), partial(order.append, each)) for each in offsets)
        waiting = asyncio.gather(*calls)
        await asyncio.sleep(0)
    await waiting
    assert order == sorted(offsets)


async def test_a_thousand_waits_share_one_thread() -> None:
    scheduler, when_ns = Scheduler(), time.monotonic_ns() + 50 * MS
    async with held(scheduler):
        waiting = asyncio.gather(*(scheduler.at(MonoNs(when_ns), threading.get_ident) for _ in range(1000)))
        await asyncio.sleep(0)
    fired = await waiting
    assert len({each.result for [each] in fired}) == 1
    assert all(each.at_ns >= when_ns for [each] in fired)


async def test_an_earlier_instant_overtakes_a_later_one_that_is_waited_for() -> None:
    scheduler = Scheduler()
    later = asyncio.create_task(scheduler.at(MonoNs(time.monotonic_ns() + 10**13), lambda: None))
    await asyncio.sleep(0)
    await scheduler.at(MonoNs(time.monotonic_ns() + 5 * MS), lambda: None)
    later.cancel()
    with pytest.raises(asyncio.CancelledError):
        await later


async def test_the_calls_of_one_instant_are_made_in_their_order() -> None:
    when_ns = time.monotonic_ns() + 5 * MS
    made: list[str] = []
    fired = await Scheduler().at(MonoNs(when_ns), partial(made.append, "connect"), partial(made.append, "listen"))
    assert made == ["connect", "listen"]
    assert when_ns <= fired[0].at_ns <= fired[1].at_ns


async def test_the_calls_after_one_that_raises_are_not_made() -> None:
    made: list[int] = []
    with pytest.raises(ZeroDivisionError):
        await Scheduler().at(MonoNs(0), partial(divmod, 1, 0), partial(made.append, 1))
    assert not made


async def test_a_rehearsal_that_fails_costs_nobody_the_shot() -> None:
    rehearsed: list[int] = []

    def rehearsal() -> None:
        rehearsed.append(1)
        raise OSError("no more descriptors")

    while not rehearsed:  # a thread that wakes late has no time to rehearse
        [fired] = await Scheduler().at(MonoNs(time.monotonic_ns() + 50 * MS), lambda: "fired", rehearsal=rehearsal)
        assert fired.result == "fired"


async def test_the_switch_interval_is_short_at_the_instant_and_restored_by_the_last_scheduler_in_a_hurry() -> None:
    usual_s = sys.getswitchinterval()
    found: list[object] = []
    for _ in range(20):  # a thread that wakes no sooner than the instant, on a busy machine, has none to hurry for
        when_ns = time.monotonic_ns() + 50 * MS
        fired = await asyncio.gather(*(Scheduler().at(MonoNs(when_ns), sys.getswitchinterval) for _ in range(3)))
        found = [each.result for [each] in fired]
        if found == pytest.approx([HURRIED_INTERVAL_S] * 3):
            break
    assert found == pytest.approx([HURRIED_INTERVAL_S] * 3)
    for thread in threading.enumerate():  # each restores on its way out
        if thread.name == "simopen-scheduler":
            await asyncio.to_thread(thread.join)
    assert sys.getswitchinterval() == usual_s


async def test_nobody_is_hurried_for_an_instant_that_is_far() -> None:
    scheduler, usual_s = Scheduler(), sys.getswitchinterval()
    later = asyncio.create_task(scheduler.at(MonoNs(time.monotonic_ns() + 10**13), lambda: None))
    await scheduler.at(MonoNs(time.monotonic_ns() + 5 * MS), lambda: None)
    while sys.getswitchinterval() != usual_s:  # noqa: ASYNC110 - nothing tells of it; the test's time-out ends it
        await asyncio.sleep(0)
    later.cancel()
    await asyncio.gather(later, return_exceptions=True)


async def test_what_an_action_raises_is_raised_to_its_waiter() -> None:
    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await Scheduler().at(MonoNs(0), fail)


@pytest.mark.parametrize("ahead_ns", [10**13, 30 * MS, 2 * MS, 600_000, 300_000, 50_000, 0])
async def test_once_cancelled_an_action_never_runs(ahead_ns: int) -> None:
    """In every phase: asleep, spinning, about to fire. It may have run before the cancellation came out, not after."""
    scheduler = Scheduler()
    for _ in range(20):
        ran: list[int] = []
        when_ns = time.monotonic_ns() + ahead_ns
        waiter = asyncio.create_task(scheduler.at(MonoNs(when_ns), partial(ran.append, 1)))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        count = len(ran)
        await scheduler.at(MonoNs(time.monotonic_ns() + (ahead_ns if ahead_ns < 10 * MS else 0) + MS), lambda: None)
        assert len(ran) == count


async def test_an_action_under_way_is_waited_for_by_whoever_cancels() -> None:
    scheduler, begun = Scheduler(), threading.Event()
    ended: list[int] = []

    def slow() -> None:
        begun.set()
        time.sleep(0.02)  # stands for a system call that takes its time
        ended.append(1)

    waiter = asyncio.create_task(scheduler.at(MonoNs(0), slow))
    await asyncio.to_thread(begun.wait)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert ended


def test_a_loop_that_is_gone_does_not_stop_the_others() -> None:
    scheduler = Scheduler()

    async def leave() -> None:
        waiter = asyncio.ensure_future(scheduler.at(MonoNs(time.monotonic_ns() + 20 * MS), lambda: None))
        await asyncio.sleep(0)
        waiter.cancel()

    async def stay() -> None:
        await scheduler.at(MonoNs(time.monotonic_ns() + 30 * MS), lambda: None)

    asyncio.run(leave())
    asyncio.run(stay())


@pytest.mark.parametrize("new_loop", ["asyncio", "uvloop"])
def test_parent_and_child_of_a_fork_each_keep_their_instants(new_loop: str, ports: tuple[int, int]) -> None:
    """The child has none of the parent's threads; the parent waits for two instants as it forks."""
    forked = [sys.executable, "-m", "tests.forker", new_loop, *map(str, ports)]
    done = subprocess.run(forked, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["child: I love you. True", "parent: I love you."]


UNDER_WAY = """
import asyncio, os, threading
from simopen.errors import PunchError
from simopen.clock.scheduler import Scheduler

scheduler, begun, go_on = Scheduler(), threading.Event(), threading.Event()

def under_way():
    begun.set()
    go_on.wait()

async def forks():
    waiter = asyncio.ensure_future(scheduler.at(0, under_way))
    await asyncio.to_thread(begun.wait)
    if (pid := os.fork()) == 0:
        waiter.get_coro().close()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    go_on.set()
    await waiter
    return os.waitstatus_to_exitcode(status)

raise SystemExit(asyncio.run(forks()))
"""


def test_a_child_does_not_wait_for_calls_that_are_under_way_in_its_parent() -> None:
    """It would, as it unwinds what it was forked in."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", UNDER_WAY], capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


class Until(int):
    """A time that is over after so many looks at the clock, whatever that says."""

    def __ge__(self, now_ns: int) -> bool:
        self.looks = getattr(self, "looks", 0) + 1
        return self.looks <= int(self)


async def test_what_comes_too_late_is_not_done() -> None:
    """As after a process was stopped: the calls that are left are not made, and nobody raises."""
    made: list[str] = []
    now_ns = time.monotonic_ns()
    late = await Scheduler().at(MonoNs(now_ns - 2 * MS), partial(made.append, "late"), until_ns=MonoNs(now_ns - MS))
    assert late == []
    assert made == []
    calls = [partial(made.append, each) for each in ("first", "second", "too late")]
    fired = await Scheduler().at(MonoNs(time.monotonic_ns()), *calls, until_ns=MonoNs(Until(2)))
    assert (made, len(fired)) == (["first", "second"], 2)
    now_ns = time.monotonic_ns()
    assert len(await Scheduler().at(MonoNs(now_ns), *calls, until_ns=MonoNs(now_ns + 10**12))) == 3


async def test_one_that_is_too_late_does_not_hold_up_others() -> None:
    scheduler, when_ns = Scheduler(), time.monotonic_ns() + 5 * MS
    late, right = await asyncio.gather(
        scheduler.at(MonoNs(when_ns), lambda: "late", until_ns=MonoNs(when_ns - 1)),
        scheduler.at(MonoNs(when_ns), lambda: "right"),
    )
    assert (late, [each.result for each in right]) == ([], ["right"])


async def test_without_a_thread_there_is_an_error_and_the_next_instant_is_kept() -> None:
    scheduler = Scheduler()
    before = threading.stack_size(2**47)  # the address space has no room for it
    try:
        with pytest.raises(PunchError, match="no thread"):
            await scheduler.at(MonoNs(0), pytest.fail)
    finally:
        threading.stack_size(before)
    [fired] = await scheduler.at(MonoNs(0), lambda: "done")
    assert fired.result == "done"
