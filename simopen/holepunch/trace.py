"""What happens in one punch, noted as it happens: the notes, the events and the log, and in the end the report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from simopen import _logs
from simopen.clock import scheduler as threads
from simopen.clock.scheduler import Fired, Scheduler
from simopen.clock.true_time import Learnt, is_news, remark
from simopen.clock.waiting import STALLED_NS, Pulse, Wait, stalled
from simopen.holepunch.attempts import Stream
from simopen.holepunch.callback import NOBODY, Teller
from simopen.holepunch.diagnosis import ago, remarks
from simopen.holepunch.runner import Runner
from simopen.holepunch.targets import Aim, Order
from simopen.model.estimate import Reading, slept_s
from simopen.model.event import Armed, ClockKnown, Resolved
from simopen.model.report import Report
from simopen.model.times import MonoNs

if TYPE_CHECKING:  # what it imports takes 0.1 s to load
    from simopen.holepunch.verification import Verification

logger = _logs.PACKAGE
MOST_LOGGED = 20
"""Shots that are told one by one: a spray fires thousands."""


@dataclass(slots=True)
class Trace:
    """What the report will be made of; filled in as things happen."""

    order: Order
    aim: Aim
    window_s: float
    hops: int | None = None
    wait: Wait = field(init=False)
    notes: tuple[str, ...] = ()
    runner: Runner | None = field(default=None)
    verification: Verification | None = None
    stalled_ns: int = 0
    by_ticket: bool = False
    by_code: bool = False
    scheduler: Scheduler = threads.shared
    pulse: Pulse = field(default_factory=Pulse)
    watched_from: Reading | None = None
    of_clock: tuple[str, ...] = ()
    tell: Teller = NOBODY

    def __post_init__(self) -> None:
        order = self.order
        self.wait = Wait(order.when, order.clock, self.window_s, self, order.clock.now_estimate())

    def note(self, text: str) -> None:
        logger.warning("%s", text)
        self.notes += (text,)

    def note_clock(self, learnt: Learnt) -> None:
        """The latest word on the clock is the one that counts."""
        before, text = self.of_clock, remark(learnt)
        self.of_clock = (text,) if text else ()
        if text and self.of_clock != before and is_news(self.order.clock, learnt):
            logger.warning("%s", text)
        self.tell_clock(learnt)

    def tell_peers(self) -> None:
        self.tell(Resolved(MonoNs(time.monotonic_ns()), self.aim.peers))

    def tell_clock(self, learnt: Learnt) -> None:
        estimate = learnt.estimate
        self.tell(ClockKnown(MonoNs(time.monotonic_ns()), estimate, self.wait.when.utc_ns(estimate), learnt.doubt))

    def tell_armed(self) -> None:
        self.tell(Armed(MonoNs(time.monotonic_ns()), self.wait.instant_ns))

    def came_late(self, left_ns: int, fired_ns: int) -> None:
        """Note how much later the shot came than it had to, as this process did not run when it should have."""
        late_ns = fired_ns - self.wait.instant_ns + min(left_ns, 0)
        self.stalled_ns = max(self.wait.stalled_ns, late_ns if late_ns > STALLED_NS else 0)

    def note_late(self, fired: Sequence[Fired]) -> None:
        """Say so of a shot that came late, in time still for its window."""
        late_ns = fired[0].at_ns - self.wait.instant_ns if fired else 0
        if late_ns > STALLED_NS:
            why = f": {stalled(self.stalled_ns)}" if self.stalled_ns else ""
            self.note(f"this side fired {ago(late_ns)} after the instant{why}")

    def slept_s(self) -> float:
        """For how long the machine slept since the shot: CLOCK_MONOTONIC, and so the window, stood still."""
        return 0.0 if self.watched_from is None else slept_s(self.watched_from, self.order.clock.local.read())

    def report(self, stream: Stream | None = None) -> Report:
        assert self.runner is not None
        now_ns = MonoNs(time.monotonic_ns())
        if asleep_s := self.slept_s():
            self.note(f"this machine slept for {asleep_s:.1f} s within the window")
        report = Report(
            local=self.aim.local,
            peers=self.aim.peers,
            window_s=self.window_s,
            listening=self.runner.listening,
            clock=self.wait.estimate,
            instant_ns=self.wait.instant_ns,
            fired_ns=self.runner.fired_ns,
            ended_ns=now_ns,
            attempts=self.runner.attempts,
            strangers=self.runner.strangers,
            arrivals=tuple(self.runner.arrivals),
            early_ns=self.runner.lookout.early_ns,
            early_doubt_ns=self.runner.lookout.doubt_ns,
            earlier=self.runner.earlier,
            holder=self.runner.holder,
            plan=self.aim.plan,
            by_ticket=self.by_ticket,
            by_code=self.by_code,
            spray=self.aim.spray,
            stalled_s=max(self.stalled_ns / 1e9, self.pulse.stalled_ns / 1e9, asleep_s),
            notes=self.aim.notes + self.of_clock + self.notes + self.runner.notes,
        )
        if stream is None:
            log(report)
            return report
        report = replace(report, via=stream.via, remote=stream.remote, established_ns=stream.established_ns)
        log(report)
        return replace(report, notes=report.notes + remarks(report))


def log(report: Report) -> None:
    """Afterwards, what was fired when and what came of it."""
    for attempt in report.attempts[:MOST_LOGGED]:
        after_ms = (attempt.started_ns - report.instant_ns) / 1e6
        took_ms = (attempt.ended_ns - attempt.started_ns) / 1e6
        logger.info("%+.1f ms: SYN to %s: %s, %.1f ms later", after_ms, attempt.peer, attempt.result, took_ms)
    if len(report.attempts) > MOST_LOGGED:
        logger.info("and %d more", len(report.attempts) - MOST_LOGGED)
    for arrival in report.arrivals:
        logger.info("turned away: %s", arrival.remote)
    logger.info("%s; the clock: %s", report.summary(), report.clock)
