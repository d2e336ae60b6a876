"""What one side of a punch does next: events in, actions out.

Theory of operation: pure. No socket, no event loop, no clock of its own: whoever runs an `Engine` tells it what has
happened and when, and carries out the actions that `handle` returns, in their order; what comes of an action is told
as an event. `runner.py` does so with sockets, the simulator with modelled ones. Times are CLOCK_MONOTONIC ns.

    event          after the action    means
    Begun                              the shots of the instant have been made; what came of each follows
    Fired          Fire                `connect` was called, and returned this errno
    NoSocket       Fire                there is no socket to be had to fire with
    Answered                           the kernel has told the errno that ends the attempt
    CameUp                             a SYN of ours has become a stream
    BeingVerified                      ... on which the peer is to prove itself
    Unproven                           ... and nobody has
    Verified                           a stream, from wherever, is proven by both sides to be theirs
    SelfConnected                      ... of which both ends are the same socket
    Accepted                           the listener has let one in
    Seen           Look                the state that the 5-tuple is in, by the kernel's table
    Checked        Check               what is to be read on the streams on offer
    Time           WaitUntil           it is that time
    TimeUp                             the window is over: what is on offer will do
    Ended                              nobody waits any more

`Close`, `Reset`, `Keep` and `Fail` bring no event. `pair.py` has the states of an attempt.

- A socket that got an answer is closed, and the next SYN is a new one's: BSD's are dead after a RST.
- A socket that got no answer is left alone: a new one has a new ISN, and the peer's answer to the old a RST. Only a
  guess among thousands is given up, before the kernel sends it again.
- When the next SYN is due, and whether there is one, `retry.py` says; which of several streams is kept,
  `nomination.py`. From then on, or once trying on is useless, all else is closed, and what comes yet is, too.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any

from simopen.errors import LocalEndpointError, PunchError
from simopen.holepunch import retry
from simopen.holepunch.engine_events import (
    Accepted,
    Action,
    Answered,
    Begun,
    BeingVerified,
    CameUp,
    Check,
    Checked,
    Close,
    Ended,
    Event,
    Fail,
    Fire,
    Fired,
    Keep,
    Look,
    NoSocket,
    Reset,
    Seen,
    SelfConnected,
    Stream,
    Time,
    TimeUp,
    Unproven,
    Verified,
    WaitUntil,
)
from simopen.holepunch.nomination import Nomination, Offer
from simopen.holepunch.pair import Pair, State, Step, hopeless, ranks, self_connection
from simopen.holepunch.retry import Fire as Turn
from simopen.holepunch.retry import GiveUp, Window
from simopen.model.outcome import UNDER_WAY, Outcome, outcome_of, passes
from simopen.model.report import Attempt
from simopen.model.times import NEVER, MonoNs

_UNANSWERED = {"SYN-SENT", None}  # None: the kernel does not tell
_MADE_UP_NS = 20_000_000  # a delay that later shots make up for: as few as are due meanwhile


class Engine:
    """One side of a punch at these pairs, best first. `chooses`: as in `plan.Plan`."""

    def __init__(self, pairs: Iterable[Pair], *, chooses: bool | None = None) -> None:
        self.pairs = tuple(pairs)
        self.attempts: list[Attempt] = []
        self.kept: Stream | None = None
        self.holder: str | None = None
        self.hindrance: LocalEndpointError | None = None  # what last kept this host from having a socket
        self.over = False
        self._window = Window(NEVER, NEVER)
        self._fired_ns = NEVER
        self._behind_ns = 0
        self._later: list[Pair] = []  # those that are planned for after the instant, the next one last
        self._due: list[tuple[MonoNs, int, Pair]] = []  # a heap; what a pair does not name any more is void
        self._order = count()
        self._dead = 0
        self._doom: PunchError | None = None  # why all pairs are dead
        alone = len(self.pairs) == 1
        self._nomination = Nomination(chooses=chooses, coming=self._better_may_come, alone=alone)
        self._came_from: dict[Stream, Pair] = {}
        self._checking = False
        self._waits_until_ns: MonoNs | None = None
        self._actions: list[Action] = []
        self._ranks = ranks(self.pairs)
        self._addresses = {pair.shot.remote.address for pair in self.pairs}

    def handle(self, event: Event, now_ns: MonoNs) -> list[Action]:
        """What to do, in this order, now that this has happened. What cannot happen any more changes nothing."""
        self._actions = []
        pair: Pair | None = getattr(event, "pair", None)
        if self.over or (pair is not None and pair.state not in _EXPECTED[type(event)]):
            self._too_late(event, now_ns)
        else:
            _HANDLERS[type(event)](self, event, now_ns)
        if not self.over:
            self._look_ahead(now_ns)
        return self._actions

    def _do(self, action: Action) -> None:
        self._actions.append(action)

    def _begun(self, event: Begun, now_ns: MonoNs) -> None:
        self._window, self._fired_ns = event.window, event.fired_ns
        for pair in self.pairs:
            pair.planned_ns = MonoNs(event.instant_ns + pair.shot.after_ns)
        later = (pair for pair in self.pairs if pair.shot.after_ns and pair.state is State.PLANNED)
        self._later = sorted(later, key=lambda pair: pair.planned_ns, reverse=True)

    def _time(self, event: Time, now_ns: MonoNs) -> None:
        self._waits_until_ns = None
        self._fire_later(now_ns)
        while (due_ns := self._next_due_ns()) is not None and due_ns <= now_ns:
            pair = heapq.heappop(self._due)[-1]
            pair.due_ns = None
            if pair.state is State.WAITING:
                self._fire(pair, due_ns, now_ns)
            else:  # a guess has had its time: has the peer's SYN come meanwhile?
                self._do(Look(pair))

    def _next_due_ns(self) -> MonoNs | None:
        while self._due and self._due[0][-1].due_ns != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def _fire_later(self, now_ns: MonoNs) -> None:
        """One at a time, and none to make up for a long delay: the rest is put off by that, and never many at once."""
        if not self._later or (late_ns := now_ns - self._later[-1].planned_ns - self._behind_ns) < 0:
            return
        pair = self._later.pop()
        if late_ns > _MADE_UP_NS:
            self._behind_ns += late_ns
        if pair.state is not State.PLANNED:  # whoever runs this has fired it by itself
            return
        if not pair.shot.once:
            self._window = self._window.fired(now_ns)
        self._fire(pair, MonoNs(pair.planned_ns + self._behind_ns), now_ns)

    def _fire(self, pair: Pair, planned_ns: MonoNs, now_ns: MonoNs) -> None:
        if now_ns >= self._window.closes_ns:
            pair.step(Step.NO_TURN)
            return
        pair.step(Step.FIRE)
        pair.planned_ns = planned_ns
        self._do(Fire(pair))

    def _call_at(self, at_ns: MonoNs, pair: Pair) -> None:
        pair.due_ns = at_ns
        heapq.heappush(self._due, (at_ns, next(self._order), pair))

    def _fired(self, event: Fired, now_ns: MonoNs) -> None:
        pair, outcome = event.pair, outcome_of(event.error, immediate=True)
        if pair.state is State.PLANNED and not pair.shot.once:  # the others had a turn
            self._window = self._window.fired(event.at_ns)
        pair.started_ns = event.at_ns
        if outcome not in UNDER_WAY:
            self._failed(pair, event.error, now_ns, immediate=True)
            return
        pair.step(Step.SENT)
        if pair.shot.lasts_ns is not None:
            self._call_at(MonoNs(event.at_ns + pair.shot.lasts_ns), pair)

    def _answered(self, event: Answered, now_ns: MonoNs) -> None:
        self._failed(event.pair, event.error, now_ns, resent=event.resent)

    def _failed(self, pair: Pair, error: int, now_ns: MonoNs, *, immediate: bool = False, resent: int = 0) -> None:
        attempt = self._record(pair, error, now_ns, immediate=immediate)
        pair.due_ns = None
        self._do(Close(pair))
        if attempt.outcome is Outcome.TAKEN:  # by what? An accept under way may be the very stream that we want
            pair.step(Step.TAKEN)
            self._do(Look(pair))
            return
        pair.holder = None
        self._again(pair, attempt.outcome, now_ns, error=error, sent=attempt.sent, resent=resent)

    def _record(self, pair: Pair, error: int | None, now_ns: MonoNs, *, immediate: bool = False) -> Attempt:
        attempt = Attempt(pair.shot.remote, pair.planned_ns, pair.started_ns, now_ns, error, immediate)
        self.attempts.append(attempt)
        return attempt

    def _no_socket(self, event: NoSocket, now_ns: MonoNs) -> None:
        pair, refused = event.pair, event.error
        at_the_instant = pair.state is State.PLANNED  # it was to be had before, or might pass
        if at_the_instant or (not pair.shot.once and passes(refused.errno or 0, had=pair.started_ns > 0)):
            self.hindrance = refused
            self._again(pair, Outcome.FAILED, now_ns, sent=False)
        else:
            self._give_up(pair, refused, now_ns)

    def _seen(self, event: Seen, now_ns: MonoNs) -> None:
        pair = event.pair
        if pair.state is State.TAKEN:
            self.holder = event.state
            self._again(pair, pair.taken_by(event.state, passing=event.passing), now_ns, sent=False)
        elif pair.has_had_its_time(now_ns) and event.state in _UNANSWERED:
            self._record(pair, None, now_ns)
            self._do(Close(pair))
            pair.step(Step.NO_TURN)

    def _again(
        self, pair: Pair, outcome: Outcome, now_ns: MonoNs, *, error: int = 0, sent: bool = True, resent: int = 0
    ) -> None:
        """What is fired again has its turn here, whatever became of it. A guess has had its only one."""
        answer, window = self._window.after(outcome, now_ns, sent=sent, resent=resent)
        if isinstance(answer, GiveUp):
            self._give_up(pair, hopeless(pair, outcome, error), now_ns)
        elif pair.shot.once:
            pair.step(Step.NO_TURN)
        else:
            self._take_turn(pair, answer, window)

    def _take_turn(self, pair: Pair, answer: retry.Action, window: Window) -> None:
        self._window = window
        if isinstance(answer, Turn):
            pair.step(Step.TURN)
            self._call_at(answer.at_ns, pair)
        else:
            pair.step(Step.NO_TURN)

    def _give_up(self, pair: Pair, error: PunchError, now_ns: MonoNs) -> None:
        pair.step(Step.HOPELESS)
        self._dead += 1
        if self._dead == len(self.pairs):
            self._doom = error
            if not self._nomination.streams:
                self._fail(error, now_ns)

    def _came_up(self, event: CameUp, now_ns: MonoNs) -> None:
        pair = event.pair
        self._up(event, now_ns)
        self._came_from[event.stream] = pair
        took_ns = now_ns - pair.started_ns  # by when it is told: rather too long than too short
        self._offer(event.stream, Offer(pair.rank, took_ns, event.at_ns - self._fired_ns), now_ns)

    def _up(self, event: CameUp | BeingVerified, now_ns: MonoNs) -> None:
        pair = event.pair
        self._record(pair, 0, event.at_ns)
        pair.step(Step.UP)
        pair.due_ns = pair.holder = None
        if not pair.shot.once:
            _, self._window = self._window.after(Outcome.OPEN, now_ns, resent=event.resent)

    def _unproven(self, event: Unproven, now_ns: MonoNs) -> None:
        event.pair.step(Step.NO_TURN)
        self._fire_again(event.pair, now_ns)

    def _self_connected(self, event: SelfConnected, now_ns: MonoNs) -> None:
        self._record(event.pair, 0, now_ns)
        self._do(Close(event.pair))
        event.pair.step(Step.NO_TURN)
        self._fail(self_connection(event.pair.shot.remote), now_ns)

    def _accepted(self, event: Accepted, now_ns: MonoNs) -> None:
        remote = event.remote
        if remote.address not in self._addresses:
            self._do(Reset(event.stream))
            return
        # Another port than the one named: the peer's NAT chose it, and then nothing comes from the one named.
        rank = self._ranks.get(remote, self._ranks.get(remote.address, 0))
        waited_ns = event.at_ns - self._fired_ns
        self._offer(event.stream, Offer(rank, event.took_ns, waited_ns, named=remote in self._ranks), now_ns)

    def _offer(self, stream: Stream, offer: Offer, now_ns: MonoNs) -> None:
        crowded_out = self._nomination.offer(stream, offer, now_ns)
        if crowded_out is not None:
            self._withdraw(crowded_out)

    def _withdraw(self, stream: Stream) -> None:
        self._do(Reset(stream))
        if (pair := self._came_from.pop(stream, None)) is not None:
            pair.step(Step.NO_TURN)

    def _better_may_come(self, rank: int) -> bool:
        return any(pair.rank < rank and pair.state is not State.DEAD for pair in self.pairs if not pair.shot.after_ns)

    def _checked(self, event: Checked, now_ns: MonoNs) -> None:
        if not self._checking:
            return
        self._checking = False
        verdict = self._nomination.judge(event.found, now_ns)
        for stream in verdict.gone:
            self._withdraw(stream)
        if verdict.kept is not None:
            self._keep(verdict.kept, now_ns)
        elif verdict.gone and not self._nomination.streams:
            self._lost(now_ns)

    def _keep(self, stream: Stream, now_ns: MonoNs) -> None:
        self.kept = stream
        self._do(Keep(stream))
        self._end(now_ns)

    def _lost(self, now_ns: MonoNs) -> None:
        """All that was on offer has been reset: whoever has nothing in flight fires again."""
        if self._doom is not None:
            self._fail(self._doom, now_ns)
            return
        for pair in self.pairs:
            if pair.state is State.IDLE:
                self._fire_again(pair, now_ns)

    def _fire_again(self, pair: Pair, now_ns: MonoNs) -> None:
        if not pair.shot.once:
            self._take_turn(pair, *self._window.turn(now_ns))

    def _fail(self, error: PunchError, now_ns: MonoNs) -> None:
        self._do(Fail(error))
        self._end(now_ns)

    def _end(self, now_ns: MonoNs) -> None:
        """Close all but what is kept."""
        self.over = True
        for stream in self._nomination.streams:
            if stream != self.kept:
                self._do(Reset(stream))
        for pair in self.pairs:
            if pair.state is State.SYN_SENT:
                self._record(pair, None, now_ns)
                self._do(Close(pair))
            pair.step(Step.END)

    def _too_late(self, event: Event, now_ns: MonoNs) -> None:
        """What was under way when all was over, or has been overtaken, is closed."""
        if isinstance(event, CameUp | Accepted):
            self._do(Reset(event.stream))
        elif isinstance(event, Fired) and event.pair.state is State.CLOSED:
            pair, under_way = event.pair, outcome_of(event.error, immediate=True) in UNDER_WAY
            pair.started_ns = event.at_ns
            self._record(pair, None if under_way else event.error, now_ns, immediate=not under_way)
            self._do(Close(pair))

    def _look_ahead(self, now_ns: MonoNs) -> None:
        """Look at the streams on offer, if it is time, and say when something is due next."""
        look_ns = self._nomination.due_ns
        if look_ns is not None and look_ns <= now_ns and not self._checking:
            self._checking = True
            self._do(Check(self._nomination.streams))
        look_ns = None if self._checking else look_ns  # what comes of it says when to look again
        first_ns = MonoNs(self._later[-1].planned_ns + self._behind_ns) if self._later else None
        due_ns = min((each for each in (look_ns, first_ns, self._next_due_ns()) if each is not None), default=None)
        if due_ns is not None and due_ns != self._waits_until_ns:
            self._waits_until_ns = due_ns
            self._do(WaitUntil(self._waits_until_ns))


# What is told of a pair in another state has been overtaken.
_EXPECTED: Mapping[type[Any], frozenset[State]] = {
    Fired: frozenset({State.PLANNED, State.FIRING}),
    NoSocket: frozenset({State.PLANNED, State.FIRING}),
    Answered: frozenset({State.SYN_SENT}),
    CameUp: frozenset({State.SYN_SENT}),
    BeingVerified: frozenset({State.SYN_SENT}),
    Unproven: frozenset({State.UP}),
    SelfConnected: frozenset({State.SYN_SENT}),
    Seen: frozenset({State.SYN_SENT, State.TAKEN}),
}
_HANDLERS: Mapping[type[Any], Callable[[Engine, Any, MonoNs], None]] = {
    Begun: Engine._begun,
    Fired: Engine._fired,
    NoSocket: Engine._no_socket,
    Answered: Engine._answered,
    CameUp: Engine._came_up,
    BeingVerified: Engine._up,
    Unproven: Engine._unproven,
    Verified: lambda engine, event, now_ns: engine._keep(event.stream, now_ns),
    SelfConnected: Engine._self_connected,
    Accepted: Engine._accepted,
    Seen: Engine._seen,
    Checked: Engine._checked,
    Time: Engine._time,
    TimeUp: lambda engine, _, now_ns: engine._nomination.hurry(now_ns),
    Ended: lambda engine, _, now_ns: engine._end(now_ns),
}
