"""The instant: wait for it, fire, and watch until there is a stream or the window is over.

Theory of operation: what decides lives elsewhere (`engine`, `retry`, `clock`); this puts it in order, and turns every
way to fail into one error that says what happened, to which endpoint, what was tried and what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

from simopen import _logs
from simopen.clock.scheduler import spin
from simopen.clock.true_time import Learnt, zone_hint
from simopen.clock.waiting import HANDOVER_NS, STALLED_NS, stalled
from simopen.errors import LinkError, MissedInstant, PunchError, WindowClosed
from simopen.holepunch.attempts import Stream
from simopen.holepunch.budget import FIRST_NS
from simopen.holepunch.diagnosis import ago, diagnose, stopped
from simopen.holepunch.retry import Window
from simopen.holepunch.runner import Runner
from simopen.holepunch.targets import budgeted, looked_up, reachable
from simopen.holepunch.trace import Trace
from simopen.holepunch.unproven import unproven
from simopen.model.estimate import Estimate
from simopen.model.nat import Profile
from simopen.model.report import Report
from simopen.model.shot import Shot
from simopen.model.times import NEVER, MonoNs, UtcNs
from simopen.model.wording import FEW, listed
from simopen.nat.own_ports import taken_since
from simopen.net.own_flows import Flows

logger = _logs.PACKAGE
# A name that was looked up this long before the instant is looked up again, and so shortly before it.
_LASTING_NS, _RENEWAL_NS = 30_000_000_000, 8_000_000_000
_TICK_S = 1.0
# What goes out again so soon has the mapping that it had: Linux forgets none sooner, and RFC 5382 wants 4 min.
_REMEMBERED_NS = 10_000_000_000
# A row of ports is counted on as late as this, and armed in time all the same.
_COUNTING_NS = 200_000_000
# uvloop's timers fire up to 1.3 ms early, and a window must not close before its end.
_EARLY_TIMER_S = 0.002
_NOTHING = contextlib.nullcontext()


def _utc(utc_ns: int) -> str:
    return f"{datetime.fromtimestamp(utc_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S.%f}"


async def in_window(runner: Runner, trace: Trace) -> Stream:
    """Fire at the instant and return the stream, or raise with the report and the diagnosis in hand."""
    order = trace.order
    try:
        await _fire(runner, trace)
        opens_ns = runner.fired_ns if order.when.is_now else trace.wait.instant_ns
        closes_ns = MonoNs(opens_ns + order.window_ns)
        trace.watched_from = order.clock.local.read()
        runner.watch(Window(runner.fired_ns, closes_ns))
        with trace.pulse.taken():
            async with asyncio.timeout(max(0.0, (closes_ns - time.monotonic_ns()) / 1e9 + _EARLY_TIMER_S)):
                return await runner.stream()
    except TimeoutError:
        over_ns = time.monotonic_ns() - closes_ns
        try:
            stream = runner.last() or await runner.last_verified()
        except PunchError as error:
            runner.end()
            raise stopped_by(error, trace.report()) from None
        if stream is not None:
            return stream
        trace.stalled_ns = max(trace.stalled_ns, over_ns) if over_ns > STALLED_NS else trace.stalled_ns
        runner.end()
        report = trace.report()
        if runner.hindrance is not None and not report.attempts:
            raise stopped_by(runner.hindrance, report) from None
        if trace.verification is not None and (unproven := trace.verification.error) is not None:
            raise stopped_by(unproven, report) from None
        diagnosis = diagnose(report)
        what = f"no stream to {listed(report.peers, ', ', FEW)} within {report.window_s:g} s: {diagnosis}"
        raise WindowClosed(what, report, diagnosis) from None
    except PunchError as error:
        runner.end()
        stopped_by(error, trace.report())
        raise


def stopped_by(error: PunchError, report: Report) -> PunchError:
    error.report = report
    if isinstance(error, MissedInstant):
        error.diagnosis = diagnose(report)
    elif isinstance(error, LinkError):
        error.diagnosis = unproven(report, error)
    else:
        error.diagnosis = stopped(report, str(error))
    return error


async def _fire(runner: Runner, trace: Trace) -> None:
    wait = trace.wait
    if wait.when.is_now:
        trace.tell_clock(Learnt(wait.estimate))
        wait.instant_ns = MonoNs(time.monotonic_ns())
        trace.tell_armed()
        runner.look_back(wait.instant_ns)
        runner.fired(spin(NEVER, runner.aim(wait.instant_ns)))
        return
    logger.info("the sockets are bound; the instant is %s UTC", _utc(wait.when.utc_ns(wait.estimate)))
    async with _renewed(runner, trace) if trace.aim.names else _NOTHING:
        left_ns = await wait.until_handover(runner.look_out)
    _require_open(trace)
    trace.tell_armed()
    runner.stop_looking()
    runner.look_back(wait.instant_ns)
    if trace.aim.mine is not None and trace.aim.mine.step is not None:
        lead_ns = _COUNTING_NS + FIRST_NS * runner.prepared.opens_the_way
        await asyncio.sleep(max(0, wait.instant_ns - lead_ns - time.monotonic_ns()) / 1e9)
        runner.prepared.leave_out(_own_since(trace.aim.mine, wait.estimate, runner.prepared.ours.flows))
    await runner.prepared.open_the_way(wait.instant_ns)
    while not await _fired_awake(runner, trace, left_ns):
        left_ns = await wait.on_until_handover(runner.look_out)
        _require_open(trace)


def _require_open(trace: Trace) -> None:
    """Raises: MissedInstant where the window is over."""
    if time.monotonic_ns() >= trace.wait.instant_ns + trace.order.window_ns:
        trace.stalled_ns = trace.wait.stalled_ns
        raise MissedInstant(_missed(trace))


async def _fired_awake(runner: Runner, trace: Trace, left_ns: int) -> bool:
    """Fire at the instant; False, and nothing is fired, where the machine slept since the time was last known.

    Raises: MissedInstant.
    """
    wait = trace.wait
    closes_ns = MonoNs(wait.instant_ns + trace.order.window_ns)
    calls = runner.aim(wait.instant_ns)
    fired = await trace.scheduler.at(
        wait.instant_ns, *calls, until_ns=closes_ns, rehearsal=runner.prepared.rehearse, unless=wait.has_slept
    )
    if not fired and wait.has_slept():
        return False
    trace.came_late(left_ns, fired[0].at_ns if fired else time.monotonic_ns())
    if len(fired) < len(calls):
        raise MissedInstant(_missed(trace))
    trace.note_late(fired)
    runner.fired(fired)
    return True


def _own_since(mine: Profile, estimate: Estimate, own: Flows) -> int:
    """How many ports of this side's row other flows of this process have taken since the profile, NTP's for example."""
    until_ns = own.judged_until(mine.hosts[0].port)
    if until_ns is None:  # another process's ticket: all here came later, as far as the two clocks agree
        seen_ns = max((each.at_ns for each in mine.observations), default=0)
        until_ns = estimate.monotonic_at(UtcNs(seen_ns)) if mine.observations else MonoNs(time.monotonic_ns())
    recent = own.since(MonoNs(until_ns - _REMEMBERED_NS))
    known = {flow[:-1] for flow in recent if flow.at_ns <= until_ns}
    return taken_since(mine, [flow for flow in recent if flow.at_ns > until_ns and flow[:-1] not in known])


def _missed(trace: Trace) -> str:
    late_ns = time.monotonic_ns() - trace.wait.instant_ns
    instant_s = trace.wait.when.utc_ns(trace.wait.estimate) / 1e9
    if hint := zone_hint(instant_s, late_ns / 1e9):
        trace.note(hint)
    why = f" ({stalled(trace.stalled_ns)} over it)" if trace.stalled_ns else ""
    return (
        f"the instant passed {ago(late_ns)} ago{why} and the window is {trace.window_s:g} s, so nothing was sent to "
        f"{listed(trace.aim.peers, ', ', FEW)}; agree on a later instant (the clock: {trace.wait.estimate})"
        f"{'; ' * bool(hint)}{hint}"
    )


async def renew(runner: Runner, trace: Trace) -> None:
    """Shortly before the instant, look names up again that were looked up long before: a home's address may change."""
    while (left_ns := trace.wait.left_ns()) > _RENEWAL_NS:  # noqa: ASYNC110 - what is known of the clock may change
        await asyncio.sleep(min(_TICK_S, (left_ns - _RENEWAL_NS) / 1e9))
    aim = trace.aim
    if time.monotonic_ns() - aim.asked_ns < _LASTING_NS or left_ns <= HANDOVER_NS:
        return
    try:
        found = await looked_up(aim.names, (left_ns - HANDOVER_NS) / 1e9, aim.look_up)
        shots, notes = reachable([Shot(aim.local[1], each) for each in found.endpoints], aim.local[0])
    except PunchError as error:
        trace.note(f"the peer's address of {ago(time.monotonic_ns() - aim.asked_ns)} ago is fired at: {error}")
        return
    if shots != aim.shots:
        before = listed(aim.peers, ", ", FEW)
        trace.aim = replace(aim, shots=shots, notes=found.notes + notes)
        runner.fire_at(*budgeted(trace.aim, trace.hops))
        trace.tell_peers()
        trace.note(f"the peer's name has changed from {before} to {listed(trace.aim.peers, ', ', FEW)}")


@contextlib.asynccontextmanager
async def _renewed(runner: Runner, trace: Trace) -> AsyncIterator[None]:
    """While inside, names are looked up again in time."""
    renewal = asyncio.ensure_future(renew(runner, trace))
    try:
        yield
    finally:
        renewal.cancel()
        await asyncio.wait({renewal})
        failed = None if renewal.cancelled() else renewal.exception()
    if failed is not None:
        raise failed
