"""What time it really is, for those who wait for an instant.

Theory of operation. The local wall clock is never trusted and never set. Three may say what time it is: the
machine itself (`plain`, which knows no bound), the kernel (`kernel_word`, where something disciplines the
wall clock and measured how well: `kernel`), and time servers (`check_clock`). A `Clock` keeps the best that is
known and lets everybody who waits on one loop share one check.

What must not live here: how an estimate ages (`model/estimate`) and is made of servers' answers (`selection`), packets
and sockets (`ntp`, `ntp_client`), and waiting for an instant (`waiting`, `scheduler`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from simopen import _logs
from simopen.clock import ntp, ntp_client
from simopen.clock.instant import positive_s
from simopen.clock.kernel import KernelTime, adjtimex, kernel_estimate, unfit
from simopen.clock.ntp_client import DEFAULT_SERVERS
from simopen.clock.selection import agreed, judge
from simopen.errors import ClockError, too_short
from simopen.model.estimate import Estimate, Reading, Source
from simopen.model.server import Heard, Server
from simopen.model.times import MonoNs, UtcNs
from simopen.model.wording import quoted

logger = _logs.logger("clock")

Servers = Sequence[str | tuple[str, int]]

CHECK_TIMEOUT_S = 3.0
"""Six round trips to the far side of the world; a good network needs 0.2 s."""
LIMIT_S = 0.1
"""A bound as wide as that says little: two peers could be 0.2 s apart, beyond most one-way delays."""
FRESH_S = 60.0
"""A check this young is used again: 15 ppm make less than 1 ms of it."""


class LocalClock:
    """Reads this machine's clocks. Tests pass a subclass that steps the wall clock, or sleeps."""

    def read(self) -> Reading:
        """All clocks, as close together as the best of three tries gets."""
        return min((self._try() for _ in range(3)), key=lambda each: each[0])[1]

    def asleep_ns(self) -> int:
        """For how long it has slept in all, by one quick look: too much where something comes in between."""
        before_ns = time.monotonic_ns()
        return _boottime_ns(before_ns) - before_ns

    @staticmethod
    def _try() -> tuple[int, Reading]:
        before_ns = time.monotonic_ns()
        realtime_ns, boottime_ns = time.time_ns(), _boottime_ns(before_ns)
        gap_ns = time.monotonic_ns() - before_ns
        return gap_ns, Reading(MonoNs(before_ns + gap_ns // 2), realtime_ns, boottime_ns)


def _boottime_ns(otherwise: int) -> int:
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return otherwise


MACHINE = LocalClock()
"""This machine's clocks."""


def unchecked_clock(local: LocalClock = MACHINE) -> Estimate:
    """The wall clock as it is, with an unknown bound: as `clock=` it keeps `connect` from asking time servers."""
    reading = local.read()
    return Estimate(UtcNs(reading.realtime_ns), None, Source.PLAIN, reading)


plain = unchecked_clock


def kernel_word(
    local: LocalClock = MACHINE,
    *,
    limit_s: float = ntp.MAX_DISTANCE_S,
    ask: Callable[[], KernelTime | None] = adjtimex,
) -> Estimate | None:
    """The wall clock with the bound that its keeper told the kernel; None where that is no word at all.

    Unprivileged, microseconds, no I/O. `limit_s`: a bound as wide as that does not count.
    """
    told = ask()
    return kernel_estimate(told, local.read(), limit_s)


def kernel_says() -> str:
    """The kernel's word for people, or why there is none."""
    told = adjtimex()
    word = kernel_estimate(told, MACHINE.read(), math.inf)
    return str(word) if word else str(unfit(told))


async def check_clock(
    servers: Servers = DEFAULT_SERVERS, timeout: float = CHECK_TIMEOUT_S, *, local: LocalClock = MACHINE
) -> Estimate:
    """Ask NTP servers what time it is: four to eight queries each, side by side, 0.2 s on a good network.

    `servers`: "host", "host:port", "v6", "[v6]:port" or (host, port) each. `timeout`: seconds, names
    included. More than half of those that answer must agree, and at least two, unless only one was named.

    Raises:
        ClockError: no majority; the message has each server's own answer, or why it was refused.
        ValueError: bad servers or timeout, or servers that smear leap seconds beside others that don't.
    """
    asked = ntp_client.parse_servers(servers)
    positive_s("timeout", timeout)
    return await _check(asked, timeout, local)


async def _check(asked: tuple[Server, ...], timeout: float, local: LocalClock) -> Estimate:
    before = local.read()

    def enough(answers: Sequence[ntp.Answers]) -> bool:
        heard = [each for each in answers if each.best]
        return len(heard) > len(answers) // 2 and agreed(answers, local.read().monotonic_ns) is not None

    logger.info("asking time servers: %d, for at most %.1f s", len(asked), timeout)
    answers = await ntp_client.ask(asked, local, timeout, enough)
    try:
        estimate = judge(answers, before, local.read())
    except ClockError as error:
        late = [each for each in answers if not each.reasons or each.unnamed is Heard.NO_NAME_YET]
        if late and not any(each.best for each in answers) and (words := too_short(timeout, "time server")):
            raise ClockError(words, has_advice=True) from error
        raise
    for each in estimate.servers:
        logger.info("%s", each)
    logger.info("add %s to this machine's clock to get true time", estimate)
    return estimate


@runtime_checkable
class TimeSource(Protocol):
    """What a wait for an instant needs: `Clock`, or `FixedClock`."""

    @property
    def local(self) -> LocalClock: ...
    @property
    def limit_s(self) -> float: ...
    def now_estimate(self) -> Estimate: ...
    async def refresh(self, timeout_s: float = ...) -> Estimate: ...


class Clock:
    """What time it really is, for those who wait: any number of them, on any number of loops and threads."""

    def __init__(
        self,
        servers: Servers = DEFAULT_SERVERS,
        *,
        local: LocalClock = MACHINE,
        limit_s: float = LIMIT_S,
        ask_kernel: Callable[[], KernelTime | None] = adjtimex,
    ) -> None:
        self.local = local
        self.limit_s = limit_s
        self.servers = ntp_client.parse_servers(servers)
        self._ask_kernel = ask_kernel
        self.in_vain: tuple[MonoNs, str] | None = None
        """When a check last failed, CLOCK_MONOTONIC ns, and why; None where none did."""
        self.told: set[str] = set()
        """What people have been told of this clock: once is enough."""
        self._last: Estimate | None = None
        self._checks: dict[asyncio.AbstractEventLoop, _Check] = {}

    def now_estimate(self) -> Estimate:
        """The best that is known at once, anchored now; no I/O, never raises.

        An earlier check while its bound is below `limit_s` (bounds age, a suspend voids them), else the
        kernel's word, else the wider check, else the wall clock with an unknown bound.
        """
        now = self.local.read()
        checked = self._last.at(now) if self._last and self._last.valid(now) else None
        if checked and _below(checked, self.limit_s):
            return checked
        return kernel_word(self.local, ask=self._ask_kernel) or checked or plain(self.local)

    async def refresh(self, timeout_s: float = CHECK_TIMEOUT_S) -> Estimate:
        """Ask the time servers, unless a good check is less than a minute old.

        All who call this on one loop meanwhile share one exchange. It goes on while one of them waits.

        Raises:
            ClockError: no majority, or no time left.
            ValueError: `timeout_s` is not above zero, or above 10^9.
        """
        positive_s("timeout", timeout_s)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while (fresh := self._fresh()) is None:
            joined = loop in self._checks
            outcome = await self._share(loop, deadline_s - loop.time())
            if isinstance(outcome, Estimate):
                return outcome
            if not joined or loop.time() >= deadline_s:  # else: it had less time than we still have
                raise ClockError(str(outcome)) from outcome
        return fresh

    def _fresh(self) -> Estimate | None:
        last, now = self._last, self.local.read()
        if last is None or not last.valid(now) or not _below(aged := last.at(now), self.limit_s):
            return None
        return aged if now.monotonic_ns - last.monotonic_ns < FRESH_S * 1e9 else None

    async def _share(self, loop: asyncio.AbstractEventLoop, left_s: float) -> Estimate | ClockError:
        check = self._checks.get(loop)
        if check is None:
            # A tenth is kept for the judging: whoever cuts us off at `left_s` still gets what was heard.
            check = self._checks[loop] = _Check(loop.create_task(self._check(0.9 * left_s)))
        check.waiters += 1
        try:
            await asyncio.wait({check.task}, timeout=left_s)
            return check.outcome()
        finally:
            check.waiters -= 1
            await self._leave(loop, check)

    async def _leave(self, loop: asyncio.AbstractEventLoop, check: _Check) -> None:
        """Whoever sees it done, or leaves as the last, puts the check away: later callers start a new one."""
        if not (check.task.done() or check.waiters == 0):
            return
        if self._checks.get(loop) is check:
            del self._checks[loop]
        if not check.task.done():
            check.task.cancel()
            await asyncio.wait({check.task})

    async def _check(self, timeout_s: float) -> Estimate | ClockError:
        try:
            self._last = await _check(self.servers, timeout_s, self.local)
        except ClockError as error:  # handed over as a value: a thousand waiters must not share one traceback
            return error
        return self._last


@dataclass(slots=True)
class _Check:
    """One exchange under way on one loop, and how many wait for it."""

    task: asyncio.Task[Estimate | ClockError]
    waiters: int = 0

    def outcome(self) -> Estimate | ClockError:
        if self.task.done() and not self.task.cancelled():
            return self.task.result()
        return ClockError("no time was left for the time servers' answers")


@dataclass(frozen=True, slots=True)
class FixedClock:
    """An estimate that the caller already has, as a `TimeSource`. Nothing is asked; a suspend voids it."""

    estimate: Estimate
    local: LocalClock = MACHINE
    limit_s: float = LIMIT_S

    @property
    def is_good(self) -> bool:
        """Whether the machine has not slept since."""
        return self.estimate.valid(self.local.read())

    def now_estimate(self) -> Estimate:
        """The estimate with its bound aged to now; after a suspend, the wall clock with an unknown bound."""
        now = self.local.read()
        return self.estimate.at(now) if self.estimate.valid(now) else plain(self.local)

    async def refresh(self, timeout_s: float = CHECK_TIMEOUT_S) -> Estimate:
        """The same again: there is nobody to ask.

        Raises:
            ClockError: the machine has slept since, so the estimate is void.
        """
        if asleep_s := self.estimate.suspended(self.local.read()):
            raise ClockError(f"the machine has slept for {asleep_s:.1f} s since this estimate was made: make another")
        return self.now_estimate()


ClockArgument: TypeAlias = TimeSource | Estimate | Servers | None
"""What callers may mean by a clock: see `as_clock`."""


class Clocks:
    """The clocks of a process, by the servers that they ask: so all who wait share one check, on whichever thread.

    `most`: so many are kept, the youngest.
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._clocks: dict[tuple[Server, ...], Clock] = {}

    def asking(self, servers: Servers) -> Clock:
        """The one that asks these servers, in this order. Raises: TypeError, ValueError as `check_clock` does."""
        made = Clock(servers)
        clock = self._clocks.setdefault(made.servers, made)
        for old in list(self._clocks)[: -self._most]:
            self._clocks.pop(old, None)
        return clock


shared = Clocks()
"""The process's own."""


def as_clock(what: ClockArgument, clocks: Clocks = shared) -> TimeSource:
    """The clock that a caller means: its own, an estimate, time servers to ask, or (None) the usual ones.

    The same servers mean the same `Clock`, of those that the process has.

    Raises:
        TypeError, ValueError: not servers, as `check_clock` says.
    """
    if what is None:
        return clocks.asking(DEFAULT_SERVERS)
    if isinstance(what, Estimate):
        return FixedClock(what)
    if isinstance(what, Sequence):
        return clocks.asking(what)
    if not isinstance(what, TimeSource):
        raise TypeError(f"a clock is an estimate, a sequence of time servers, or None, not {quoted(what)}")
    return what


def chosen(servers: Servers | None, *, ask: bool) -> TimeSource:
    """The clock that a command was told to use: these servers, the usual ones, or (`ask` false) what is known at once.

    Raises:
        TypeError, ValueError: not servers, as `check_clock` says.
    """
    return as_clock(servers) if ask else FixedClock(kernel_word() or plain())


def _below(estimate: Estimate, limit_s: float) -> bool:
    return estimate.bound_s is not None and estimate.bound_s < limit_s
