"""What time it really is: the machine's word, the kernel's, the servers', and those who wait for it."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from simopen.clock.kernel import KernelTime
from simopen.clock.source import Clock, Clocks, FixedClock, LocalClock, as_clock, check_clock, plain
from simopen.errors import ClockError
from simopen.model.estimate import Estimate, Reading, Source
from simopen.model.times import MonoNs, UtcNs
from tests.fake_ntp import FakeNtp

S, HOUR_S = 1_000_000_000, 3600
READING_NS = 20_000  # what reading two clocks one after the other may take
LONG_S = 30.0


class ScriptedClock(LocalClock):
    """This machine's clocks, but somebody steps the wall clock, or the machine sleeps, when told.

    `after`: how many readings are still true. CLOCK_MONOTONIC itself is always the machine's own.
    """

    def __init__(self, *, step_s: float = 0.0, asleep_s: float = 0.0, after: int = 0) -> None:
        self.step_s, self.asleep_s, self.after = step_s, asleep_s, after

    def read(self) -> Reading:
        true = super().read()
        self.after -= 1
        if self.after >= 0:
            return true
        return Reading(
            true.monotonic_ns,
            true.realtime_ns + round((self.step_s + self.asleep_s) * S),
            true.boottime_ns + round(self.asleep_s * S),
        )


def error_ns(estimate: Estimate, offset_s: float) -> int:
    """How far the estimate is from the fake servers' time, which is this machine's plus `offset_s`,
    exactly."""
    now = LocalClock().read()
    return estimate.utc_at(MonoNs(now.monotonic_ns)) - now.realtime_ns - round(offset_s * S)


def inside(estimate: Estimate, offset_s: float) -> bool:
    bound_ns = estimate.bound_at(LocalClock().read().monotonic_ns)
    return bound_ns is not None and abs(error_ns(estimate, offset_s)) <= bound_ns + READING_NS


def no_kernel() -> None:
    return None


@asynccontextmanager
async def three(offset_s: float = 0.0) -> AsyncIterator[list[FakeNtp]]:
    async with (
        FakeNtp(offset_s) as a,
        FakeNtp(offset_s, up_s=0.004) as b,
        FakeNtp(offset_s, down_s=0.004) as c,
    ):
        yield [a, b, c]


def names(fakes: list[FakeNtp]) -> list[str]:
    return [fake.name for fake in fakes]


def test_reading_the_clocks() -> None:
    first, second = LocalClock().read(), LocalClock().read()
    assert first.monotonic_ns < second.monotonic_ns
    assert Estimate(UtcNs(0), 0, Source.PLAIN, first).valid(second)


def test_the_plain_clock_knows_no_bound() -> None:
    estimate = plain()
    assert (estimate.source, estimate.bound_ns, estimate.offset_s) == (Source.PLAIN, None, 0.0)


SYNCHRONISED = KernelTime(state=0, status=0x2000, maxerror_us=2_345, esterror_us=67)


async def test_the_truth_is_inside_the_bound_and_the_liar_is_told() -> None:
    async with three(1.5) as fakes, FakeNtp(-2.0) as liar:
        estimate = await check_clock([*names(fakes), liar.name], LONG_S)
    assert inside(estimate, 1.5)
    assert estimate.offset_s == pytest.approx(1.5, abs=0.01)
    assert [each.accepted for each in estimate.servers] == [True, True, True, False]
    assert estimate.servers[3].refused == "disagrees with the others"


async def test_a_server_that_is_ahead_gives_a_positive_offset() -> None:
    async with FakeNtp(2.0) as ahead:
        assert (await check_clock([ahead.name])).offset_s > 1.9


@pytest.mark.parametrize(("up_s", "down_s"), [(0.02, 0.0), (0.0, 0.02), (0.015, 0.005)])
async def test_an_asymmetric_path_is_an_error_inside_the_bound(up_s: float, down_s: float) -> None:
    async with FakeNtp(0.0, up_s, down_s) as fake:
        estimate = await check_clock([("127.0.0.1", fake.port)])
    assert inside(estimate, 0.0)
    assert error_ns(estimate, 0.0) == pytest.approx((up_s - down_s) / 2 * S, abs=5e6)


@pytest.mark.parametrize("after", range(12))
@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S])
async def test_a_step_of_the_wall_clock_in_the_middle_of_a_check_does_not_hurt(step_s: int, after: int) -> None:
    local = ScriptedClock(step_s=step_s, after=after)
    async with three(0.5) as fakes:
        estimate = await check_clock(names(fakes), LONG_S, local=local)
    assert inside(estimate, 0.5)
    assert estimate.offset_s == pytest.approx(0.5 - step_s, abs=0.1)


async def test_a_suspend_in_the_middle_of_a_check_voids_it() -> None:
    async with three() as fakes:
        with pytest.raises(ClockError, match=r"slept for 5\.0 s"):
            await check_clock(names(fakes), LONG_S, local=ScriptedClock(asleep_s=5, after=4))


async def test_no_majority_names_every_server_and_its_answer() -> None:
    async with FakeNtp(1.0) as a, FakeNtp(3.0) as b, FakeNtp(wrong={"leap": 3}) as c:
        with pytest.raises(ClockError) as caught:
            await check_clock(names([a, b, c]), LONG_S)
    for words in ("disagree", f"{a.name}: +1.0", f"{b.name}: +3.0", f"{c.name}: leap alarm"):
        assert words in str(caught.value)


async def test_a_server_that_contradicts_itself_is_believed_nothing() -> None:
    """Now and an hour later, in turn: each answer on its own looks good to some µs."""
    async with FakeNtp(in_turn_s=[0, HOUR_S]) as fickle:
        with pytest.raises(ClockError, match=r"no time server could be believed \(1 of 1 answered\): .* apart"):
            await check_clock([fickle.name], LONG_S)
        async with three(0.5) as fakes:
            estimate = await check_clock([*names(fakes), fickle.name], LONG_S)
    assert inside(estimate, 0.5)
    assert [each.accepted for each in estimate.servers] == [True, True, True, False]
    assert str(estimate.servers[3].refused).startswith("contradicts itself: its own answers are ")


@pytest.mark.parametrize("both_s", [[0, HOUR_S], [HOUR_S, 0], [-3.0, 0, 0]])
async def test_a_query_that_has_two_answers_has_none(both_s: list[float]) -> None:
    """The first that comes may be that of whoever is on the way."""
    async with FakeNtp(both_s=both_s) as doubted:
        with pytest.raises(ClockError, match="contradicts itself"):
            await check_clock([doubted.name], LONG_S)
        async with three(0.5) as fakes:
            assert inside(await check_clock([*names(fakes), doubted.name], LONG_S), 0.5)


async def test_an_answer_that_comes_twice_is_believed() -> None:
    async with FakeNtp(both_s=[0.5, 0.5]) as doubled:
        assert inside(await check_clock([doubled.name], LONG_S), 0.5)


async def test_two_that_contradict_themselves_alike_have_no_vote() -> None:
    async with FakeNtp(in_turn_s=[0, 0.5]) as one, FakeNtp(in_turn_s=[0, 0.5]) as two, three(-1.0) as fakes:
        estimate = await check_clock([one.name, two.name, *names(fakes)], LONG_S)
    assert inside(estimate, -1.0)


async def test_one_alone_proves_nothing() -> None:
    async with FakeNtp() as a, FakeNtp(wrong={"stratum": 16}) as b:
        with pytest.raises(ClockError, match="one alone proves nothing"):
            await check_clock(names([a, b]), LONG_S)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
async def test_a_timeout_that_is_none_is_a_value_error(timeout: float) -> None:
    with pytest.raises(ValueError, match="above zero"):
        await check_clock(["127.0.0.1"], timeout)
    with pytest.raises(ValueError, match="above zero"):
        await Clock(["127.0.0.1"]).refresh(timeout)


async def test_bad_servers_are_refused_before_anything_is_sent() -> None:
    for servers in ([], ["a b"], ["time.google.com", "time.cloudflare.com"]):
        with pytest.raises(ValueError, match=r"."):
            await check_clock(servers)
        with pytest.raises(ValueError, match=r"."):
            Clock(servers)


def test_without_a_check_the_kernels_word_is_the_best_at_once() -> None:
    clock = Clock(ask_kernel=lambda: SYNCHRONISED)
    assert clock.now_estimate().source is Source.KERNEL
    assert Clock(ask_kernel=no_kernel).now_estimate().source is Source.PLAIN


async def test_a_check_is_kept_aged_and_better_than_the_kernels_word() -> None:
    async with three(1.0) as fakes:
        clock = Clock(names(fakes), ask_kernel=lambda: SYNCHRONISED)
        checked = await clock.refresh(LONG_S)
    now = clock.now_estimate()
    assert now.source is Source.NTP
    assert now.monotonic_ns > checked.monotonic_ns
    assert now.bound_ns == checked.bound_at(now.monotonic_ns)
    assert inside(now, 1.0)


async def test_a_check_wider_than_the_limit_yields_to_the_kernel_but_not_to_the_plain_clock() -> None:
    async with three() as fakes:
        clock = Clock(names(fakes), limit_s=1e-9, ask_kernel=lambda: SYNCHRONISED)
        await clock.refresh(LONG_S)
        assert clock.now_estimate().source is Source.KERNEL
        clock = Clock(names(fakes), limit_s=1e-9, ask_kernel=no_kernel)
        await clock.refresh(LONG_S)
        assert clock.now_estimate().source is Source.NTP


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S])
async def test_a_step_of_the_wall_clock_after_a_check_moves_no_instant(step_s: int) -> None:
    local = ScriptedClock()
    async with three(1.0) as fakes:
        clock = Clock(names(fakes), local=local, ask_kernel=no_kernel)
        before = await clock.refresh(LONG_S)
        instant_ns = before.utc_ns + 10 * S
        local.step_s = step_s
        after = clock.now_estimate()
    assert after.source is Source.NTP
    assert after.monotonic_at(UtcNs(instant_ns)) == before.monotonic_at(UtcNs(instant_ns))
    assert after.offset_s == pytest.approx(1.0 - step_s, abs=0.1)


async def test_a_suspend_after_a_check_voids_it_and_the_next_refresh_asks_again() -> None:
    local = ScriptedClock()
    async with three() as fakes:
        clock = Clock(names(fakes), local=local, ask_kernel=no_kernel)
        before = await clock.refresh(LONG_S)
        asked = fakes[0].queries
        local.asleep_s = 30.0
        assert not before.valid(local.read())
        assert before.suspended(local.read()) == pytest.approx(30.0, abs=0.1)
        assert clock.now_estimate().source is Source.PLAIN
        after = await clock.refresh(LONG_S)
        assert fakes[0].queries > asked
    assert after.valid(local.read())


async def test_a_thousand_waiters_share_one_exchange_and_the_next_reuses_it() -> None:
    async with three() as fakes:
        clock = Clock(names(fakes))
        estimates = await asyncio.gather(*(clock.refresh(LONG_S) for _ in range(1000)))
        asked = [fake.queries for fake in fakes]
        assert (await clock.refresh(LONG_S)).source is Source.NTP
        assert [fake.queries for fake in fakes] == asked
    assert max(asked) <= 8
    assert [len(fake.clients) for fake in fakes] == [1, 1, 1]
    assert len({estimate.utc_ns for estimate in estimates}) == 1


async def test_two_loops_in_two_threads_may_use_one_clock() -> None:
    async with three() as fakes:
        clock = Clock(names(fakes))
        elsewhere = asyncio.to_thread(lambda: asyncio.run(clock.refresh(LONG_S)))
        both = await asyncio.gather(clock.refresh(LONG_S), elsewhere)
    assert [estimate.source for estimate in both] == [Source.NTP, Source.NTP]
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_a_wide_answer_is_not_reused() -> None:
    async with three() as fakes:
        clock = Clock(names(fakes), limit_s=1e-9)
        await clock.refresh(LONG_S)
        asked = fakes[0].queries
        await clock.refresh(LONG_S)
        assert fakes[0].queries > asked


async def test_a_failed_check_is_told_to_every_waiter_and_then_asked_anew() -> None:
    async with FakeNtp(wrong={"leap": 3}) as fake:
        clock = Clock([fake.name])
        outcomes = await asyncio.gather(*(clock.refresh(1.0) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in outcomes] == [ClockError] * 3
        assert len({id(each) for each in outcomes}) == 3
        asked = fake.queries
        with pytest.raises(ClockError, match="leap alarm"):
            await clock.refresh(1.0)
        assert fake.queries > asked


async def test_who_has_more_time_than_the_check_it_joined_asks_again() -> None:
    async with FakeNtp(up_s=0.1, down_s=0.1) as slow:
        clock = Clock([slow.name])
        hasty = asyncio.create_task(clock.refresh(0.05))
        await slow.queried.wait()
        patient = asyncio.create_task(clock.refresh(LONG_S))
        assert (await patient).source is Source.NTP
        with pytest.raises(ClockError):
            await hasty


async def cancelled(task: asyncio.Task[Estimate]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_one_waiter_does_not_disturb_the_others() -> None:
    async with three() as fakes:
        clock = Clock(names(fakes))
        waiters = [asyncio.create_task(clock.refresh(LONG_S)) for _ in range(3)]
        await fakes[0].queried.wait()
        await cancelled(waiters[0])
        estimates = [await waiter for waiter in waiters[1:]]
        assert len(fakes[0].clients) == 1
    assert estimates[0] == estimates[1]


@pytest.mark.parametrize("turns", range(12))
async def test_when_the_last_waiter_is_cancelled_the_check_is_too(turns: int) -> None:
    before = asyncio.all_tasks()
    async with FakeNtp(answers=0) as silent:
        clock = Clock([silent.name])
        waiters = [asyncio.create_task(clock.refresh(LONG_S)) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for waiter in waiters:
            await cancelled(waiter)
        assert asyncio.all_tasks() == before


async def test_a_clock_works_again_after_its_check_was_cancelled() -> None:
    async with three() as fakes:
        clock = Clock(names(fakes))
        waiter = asyncio.create_task(clock.refresh(LONG_S))
        await fakes[0].queried.wait()
        waiter.cancel()
        again = asyncio.create_task(clock.refresh(LONG_S))
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert (await again).source is Source.NTP


async def test_cut_off_by_wait_for_nothing_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with FakeNtp(answers=0) as silent:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Clock([silent.name]).refresh(LONG_S), 0.05)
        assert asyncio.all_tasks() == before


async def test_an_estimate_is_a_clock_too() -> None:
    local = ScriptedClock()
    estimate = replace(plain(local), bound_ns=5, source=Source.PEER)
    clock = FixedClock(estimate, local)
    assert clock.now_estimate().source is Source.PEER
    assert (await clock.refresh()).monotonic_at(UtcNs(0)) == estimate.monotonic_at(UtcNs(0))
    local.asleep_s = 2.0
    assert clock.now_estimate().source is Source.PLAIN
    with pytest.raises(ClockError, match=r"slept for 2\.0 s"):
        await clock.refresh()


def test_what_can_be_meant_by_a_clock() -> None:
    assert as_clock(None) is as_clock(None)
    own = Clock()
    assert as_clock(own) is own
    fixed = as_clock(plain())
    assert isinstance(fixed, FixedClock)
    assert as_clock(fixed) is fixed
    assert as_clock(["127.0.0.1:5"]) is as_clock((("127.0.0.1", 5),))
    assert as_clock(["127.0.0.1:5"]) is not as_clock(["127.0.0.1:6"])
    with pytest.raises(TypeError):
        as_clock("time.cloudflare.com")
    with pytest.raises(ValueError, match="no time servers"):
        as_clock([])


@pytest.mark.parametrize("bad", [False, 0, 1.5, object(), datetime.now, {"127.0.0.1"}])
def test_what_is_no_clock_is_told_so(bad: object) -> None:
    with pytest.raises(TypeError, match="a clock is an estimate, a sequence of time servers, or None, not"):
        as_clock(bad)  # type: ignore[arg-type]


CHRONYD = shutil.which("chronyd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@asynccontextmanager
async def chronyd(directory: Path) -> AsyncIterator[int]:
    """A real server that takes this machine's clock for the truth, and leaves it alone (-x)."""
    assert CHRONYD is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    config = directory / "chrony.conf"
    config.write_text(
        f"port {port}\nbindaddress 127.0.0.1\nallow 127.0.0.1\nlocal stratum 8\ncmdport 0\n"
        f"bindcmdaddress /\npidfile {directory}/chronyd.pid\nuser {getpass.getuser()}\n"
    )
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        CHRONYD, "-x", "-U", "-d", "-f", str(config), stdout=quiet, stderr=quiet
    )
    try:
        yield port
    finally:
        process.terminate()
        await process.wait()


async def until_it_answers(check: Callable[[], Awaitable[Estimate]]) -> Estimate:
    while True:
        try:
            return await check()
        except ClockError:  # not listening yet
            await asyncio.sleep(0)


@pytest.mark.real_server
@pytest.mark.skipif(CHRONYD is None, reason="no chronyd here: apt install chrony")
async def test_a_real_chronyd_is_believed(tmp_path: Path) -> None:
    async with asyncio.timeout(LONG_S), chronyd(tmp_path) as port:
        estimate = await until_it_answers(lambda: check_clock([("127.0.0.1", port)]))
    assert inside(estimate, 0.0)
    assert estimate.servers[0].stratum == 8
    assert estimate.servers[0].answers >= 4


def test_the_clocks_of_a_process_are_an_object_that_can_be_passed() -> None:
    clocks = Clocks(most=2)
    one = as_clock(["127.0.0.1:5"], clocks)
    assert as_clock([("127.0.0.1", 5)], clocks) is one
    assert as_clock(["127.0.0.1:5"], Clocks()) is not one
    assert as_clock(["127.0.0.1:5"]) is not one
    for port in (6, 7):
        as_clock([("127.0.0.1", port)], clocks)
    assert as_clock(["127.0.0.1:5"], clocks) is not one  # only so many are kept


def test_threads_that_ask_the_same_servers_share_one_clock() -> None:
    clocks = Clocks()
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: clocks.asking(["127.0.0.1:5"]), range(200)))
    assert len(set(made)) == 1
