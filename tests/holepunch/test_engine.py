"""What the engine answers to what it is told: by hand, and for any order of events that a kernel may bring about."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from simopen.errors import LocalEndpointError, SelfConnection
from simopen.holepunch.budget import MOST_SYNS, rationed
from simopen.holepunch.engine import Engine
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
    Time,
    TimeUp,
    Unproven,
    Verified,
    WaitUntil,
)
from simopen.holepunch.nomination import Condition
from simopen.holepunch.pair import Pair, State
from simopen.holepunch.retry import FAILED_PAUSE_NS, TAKEN_PAUSE_NS, Window
from simopen.model.endpoint import Endpoint
from simopen.model.outcome import Outcome
from simopen.model.shot import Shot
from simopen.model.times import MonoNs

S, MS = 1_000_000_000, 1_000_000
PEER, OTHER, STRANGER = (Endpoint(f"192.0.2.{number}", 1314) for number in (1, 2, 3))
LASTS_NS = 900 * MS
AT_NS, CLOSES_NS = MonoNs(100 * S), MonoNs(110 * S)


def shot(remote: Endpoint = PEER, after_ns: int = 0) -> Shot:
    return Shot(1314, remote, after_ns)


def guess(remote: Endpoint = PEER, after_ns: int = 0) -> Shot:
    return Shot(1314, remote, after_ns, once=True, lasts_ns=LASTS_NS)


@dataclass
class Told:
    """An engine, and what it has answered so far. Its clock is set by hand."""

    engine: Engine
    now_ns: int = AT_NS
    actions: list[Action] = field(default_factory=list)

    def __call__(self, event: Event, after_ns: int = 0) -> list[Action]:
        self.now_ns += after_ns
        told = self.engine.handle(event, MonoNs(self.now_ns))
        self.actions += told
        return told

    @property
    def pairs(self) -> tuple[Pair, ...]:
        return self.engine.pairs

    def wait(self) -> list[Action]:
        """Let the time come that it waits for."""
        *_, last = (action for action in self.actions if isinstance(action, WaitUntil))
        self.now_ns = max(self.now_ns, last.at_ns)
        return self(Time())

    def check(self, *found: Condition) -> list[Action]:
        """Answer its look at the streams, in their order."""
        *_, last = (action for action in self.actions if isinstance(action, Check))
        return self(Checked(dict(zip(last.streams, found, strict=True))))


def begun(
    *shots: Shot, chooses: bool | None = None, fires: bool = True, left: int | None = None, resends: int = 0
) -> Told:
    """The shots of the instant are out, each in SYN-SENT."""
    told = Told(Engine((Pair(each, rank) for rank, each in enumerate(shots)), chooses=chooses))
    told(Begun(Window(AT_NS, CLOSES_NS, left=left, resends=resends), AT_NS, AT_NS))
    for pair in told.pairs:
        if fires and not pair.shot.after_ns:
            told(Fired(pair, AT_NS, errno.EINPROGRESS))
    return told


def only(actions: list[Action], kind: type[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, kind)]


def test_a_refused_syn_is_followed_by_one_from_a_new_socket() -> None:
    told = begun(shot())
    [pair] = told.pairs
    assert told(Answered(pair, errno.ECONNREFUSED), 80 * MS) == [Close(pair), WaitUntil(MonoNs(told.now_ns))]
    assert told(Time()) == [Fire(pair)]
    told(Fired(pair, MonoNs(told.now_ns), errno.EINPROGRESS))
    assert pair.state is State.SYN_SENT
    assert [attempt.errno for attempt in told.engine.attempts] == [errno.ECONNREFUSED]


def test_an_unanswered_syn_is_left_alone_until_the_end() -> None:
    told = begun(shot())
    [pair] = told.pairs
    assert told(Time(), 9 * S) == []
    assert told(TimeUp(), S) == []
    assert told(Ended()) == [Close(pair)]
    assert [attempt.errno for attempt in told.engine.attempts] == [None]
    assert told(Ended()) == []


def test_a_stream_that_nothing_can_better_is_kept_at_once_and_all_else_closed() -> None:
    told = begun(shot(), shot(OTHER))
    first, second = told.pairs
    assert told(CameUp(first, "stream", AT_NS)) == [Check(("stream",))]
    assert told.check(Condition.SILENT) == [Keep("stream"), Close(second)]
    assert (told.engine.kept, told.engine.over) == ("stream", True)
    assert told(Accepted("late", PEER, AT_NS, MS)) == [Reset("late")]
    assert {pair.state for pair in told.pairs} == {State.CLOSED}


@pytest.mark.parametrize("came_of_a_syn", [True, False])
def test_a_verified_stream_is_kept_at_once_though_a_better_one_might_come(*, came_of_a_syn: bool) -> None:
    told = begun(shot(), shot(OTHER))
    if came_of_a_syn:
        assert told(BeingVerified(told.pairs[1], MonoNs(AT_NS + MS)), MS) == []
    assert told(Verified("stream"), MS)[0] == Keep("stream")
    assert [each.errno for each in told.engine.attempts] == ([0, None] if came_of_a_syn else [None, None])
    assert told.engine.over
    assert told(Accepted("late", PEER, AT_NS, MS)) == [Reset("late")]


def test_where_nobody_was_proven_the_syn_was_answered_all_the_same_and_the_next_one_has_its_turn() -> None:
    told = begun(shot(), guess(OTHER))
    for pair in told.pairs:
        told(BeingVerified(pair, MonoNs(AT_NS + MS)))
        told(Unproven(pair), S)
    assert [attempt.outcome for attempt in told.engine.attempts] == [Outcome.OPEN] * 2
    assert told.wait() == [Fire(told.pairs[0])]
    assert told.pairs[1].state is State.IDLE, "a guess has had its only shot"
    assert told(Unproven(told.pairs[0])) == [], "it has been fired again since"


def test_what_is_being_verified_as_all_ends_was_answered() -> None:
    told = begun(shot())
    told(BeingVerified(told.pairs[0], MonoNs(AT_NS + MS)))
    assert told(Ended(), S) == []
    assert [attempt.outcome for attempt in told.engine.attempts] == [Outcome.OPEN]


def test_a_worse_stream_waits_for_a_better_one_that_may_come() -> None:
    told = begun(shot(), shot(OTHER))
    first, second = told.pairs
    told(CameUp(second, "worse", MonoNs(AT_NS + 80 * MS)), 80 * MS)
    assert told.actions[-1] == WaitUntil(MonoNs(AT_NS + 100 * MS))  # a quarter of the time that it took
    told(CameUp(first, "better", MonoNs(told.now_ns)))
    assert told.check(Condition.SILENT, Condition.SILENT) == [Keep("better"), Reset("worse")]


def test_a_worse_stream_is_kept_where_the_better_can_come_no_more() -> None:
    told = begun(shot(), shot(OTHER))
    first, second = told.pairs
    told(Answered(first, errno.ECONNREFUSED))
    told(Time())
    told(Fired(first, MonoNs(told.now_ns), errno.EACCES))
    told(CameUp(second, "worse", MonoNs(told.now_ns)))
    assert only(told.check(Condition.SILENT), Keep) == [Keep("worse")]


def test_who_has_nothing_in_flight_fires_again_once_every_stream_is_lost() -> None:
    told = begun(shot(), shot(OTHER, after_ns=S))
    pair, _ = told.pairs
    told(CameUp(pair, "stream", AT_NS))
    assert told.check(Condition.RESET) == [Reset("stream"), WaitUntil(MonoNs(told.now_ns))]
    assert only(told(Time()), Fire) == [Fire(pair)]


@pytest.mark.parametrize("chooses", [None, True])
def test_from_the_only_pair_a_stream_that_the_peer_has_ended_already_is_the_stream(*, chooses: bool | None) -> None:
    told = begun(shot(), chooses=chooses)
    [pair] = told.pairs
    told(Accepted("somebody else", PEER._replace(port=7), AT_NS, 20 * MS))
    assert told.check(Condition.RESET) == [Reset("somebody else")]
    told(CameUp(pair, "stream", AT_NS))
    assert told.check(Condition.RESET) == [Keep("stream")]


def test_a_lost_stream_leaves_what_is_in_flight_and_what_has_no_second_shot() -> None:
    told = begun(shot(), guess(OTHER))
    first, _ = told.pairs
    told(Accepted("stream", PEER, AT_NS, MS))
    assert told.check(Condition.RESET) == [Reset("stream")]
    assert [pair.state for pair in told.pairs] == [State.SYN_SENT] * 2
    told(CameUp(first, "another", AT_NS))
    assert only(told.check(Condition.SPOKEN), Keep) == [Keep("another")]


def test_what_the_listener_lets_in_ranks_by_its_endpoint_or_else_by_its_address() -> None:
    told = begun(shot(), shot(OTHER))
    told(Accepted("by address", OTHER._replace(port=9), AT_NS, 20 * MS))
    told(Accepted("by endpoint", OTHER, AT_NS, 20 * MS))
    told(TimeUp())
    told.check(Condition.SILENT, Condition.SILENT)
    assert told.engine.kept == "by endpoint"


def test_a_stranger_s_stream_is_no_candidate() -> None:
    assert begun(shot())(Accepted("stranger", STRANGER, AT_NS, MS)) == [Reset("stranger")]


def test_a_socket_that_is_connected_to_itself_ends_it() -> None:
    told = begun(shot(), shot(OTHER))
    first, second = told.pairs
    close, fail, other = told(SelfConnected(first))
    assert (close, other) == (Close(first), Close(second))
    assert isinstance(fail, Fail)
    assert isinstance(fail.error, SelfConnection)


@pytest.mark.parametrize(
    ("states", "held"),
    [
        (["ESTABLISHED", "ESTABLISHED"], True),
        (["SYN-SENT", "ESTABLISHED"], True),
        (["ESTABLISHED", None], False),
        (["SYN-RECEIVED", "ESTABLISHED"], False),
        (["ESTABLISHED", "TIME-WAIT"], False),
        (["ESTABLISHED", None, "CLOSE-WAIT"], False),
        (["TIME-WAIT", "ESTABLISHED", "ESTABLISHED"], True),
        (["ESTABLISHED"], False),
        (["SYN-RECEIVED", "ESTABLISHED", "ESTABLISHED"], True),
        ([None, "ESTABLISHED"], False),
        (["TIME-WAIT", "TIME-WAIT"], False),
    ],
)
def test_two_looks_in_a_row_tell_that_a_5_tuple_is_another_s(states: list[str | None], held: bool) -> None:
    """A busy loop looks at a taken 5-tuple before it accepts: one look alone may have seen our own stream."""
    told = begun(shot(), fires=False)
    [pair] = told.pairs
    for state in states:
        assert told(Fired(pair, MonoNs(told.now_ns), errno.EADDRNOTAVAIL)) == [Close(pair), Look(pair)]
        answer = told(Seen(pair, state))
        if told.engine.over:
            break
        assert answer == [WaitUntil(MonoNs(told.now_ns + TAKEN_PAUSE_NS))]
        assert told.wait() == [Fire(pair)]
    assert told.engine.over is held
    assert told.engine.holder == states[-1]
    if held:
        [fail] = only(told.actions, Fail)
        assert isinstance(fail, Fail)
        assert f"already has a connection to {PEER} ({states[-1]})" in str(fail.error)


def test_a_stream_of_our_own_that_is_about_to_end_is_waited_for() -> None:
    told = begun(shot(), fires=False)
    [pair] = told.pairs
    for _ in range(5):
        told(Fired(pair, MonoNs(told.now_ns), errno.EADDRNOTAVAIL))
        told(Seen(pair, "ESTABLISHED", passing=True))
        assert told.wait() == [Fire(pair)]


def test_another_outcome_in_between_makes_the_next_look_the_first_one() -> None:
    told = begun(shot(), fires=False)
    [pair] = told.pairs
    for error in (errno.EADDRNOTAVAIL, errno.ECONNREFUSED, errno.EADDRNOTAVAIL):
        told(Fired(pair, MonoNs(told.now_ns), error))
        if error == errno.EADDRNOTAVAIL:
            told(Seen(pair, "ESTABLISHED"))
        assert told.wait() == [Fire(pair)]


@pytest.mark.parametrize(
    ("error", "words"), [(errno.EACCES, "does not permit a connection to"), (errno.EAFNOSUPPORT, "cannot connect to")]
)
def test_what_cannot_pass_ends_it_once_no_pair_is_left(error: int, words: str) -> None:
    told = begun(shot(), shot(OTHER), fires=False)
    first, second = told.pairs
    assert told(Fired(first, AT_NS, error)) == [Close(first)]
    close, fail = told(Fired(second, AT_NS, error))
    assert close == Close(second)
    assert isinstance(fail, Fail)
    assert f"{words} {OTHER}" in str(fail.error)


def test_a_stream_on_offer_outlives_the_last_pair_s_end_and_its_loss_does_not() -> None:
    told = begun(shot(), chooses=False)
    [pair] = told.pairs
    told(Accepted("stream", PEER, AT_NS, 20 * MS))
    told(Answered(pair, errno.ECONNREFUSED))
    told(Time())
    assert told(Fired(pair, MonoNs(told.now_ns), errno.EPERM)) == [Close(pair)]
    told.wait()
    reset, fail = told.check(Condition.RESET)
    assert reset == Reset("stream")
    assert isinstance(fail, Fail)
    assert "does not permit" in str(fail.error)


def refused(error: int) -> LocalEndpointError:
    found = LocalEndpointError("no socket")
    found.errno = error
    return found


def test_no_socket_for_a_moment_is_outlived_and_told() -> None:
    told = begun(shot(), fires=False)
    [pair] = told.pairs
    assert told(NoSocket(pair, refused(errno.EMFILE))) == [WaitUntil(MonoNs(AT_NS + FAILED_PAUSE_NS))]
    assert told.wait() == [Fire(pair)]
    assert told(NoSocket(pair, refused(errno.ENFILE))) == [WaitUntil(MonoNs(told.now_ns + FAILED_PAUSE_NS))]
    assert told.engine.hindrance is not None
    assert told.engine.hindrance.errno == errno.ENFILE


@pytest.mark.parametrize(("error", "ends"), [(errno.EADDRINUSE, True), (errno.EMFILE, False)])
def test_a_port_that_was_never_had_is_a_slip(error: int, ends: bool) -> None:
    told = begun(shot(after_ns=S))
    [pair] = told.pairs
    assert told.wait() == [Fire(pair)]
    told(NoSocket(pair, refused(error)))
    assert told.engine.over is ends


def test_a_guess_without_a_socket_leaves_the_others() -> None:
    told = begun(guess(after_ns=MS), guess(OTHER, after_ns=2 * MS))
    first, second = told.pairs
    assert told.wait() == [Fire(first), WaitUntil(MonoNs(AT_NS + 2 * MS))]
    assert told(NoSocket(first, refused(errno.EMFILE))) == []
    assert first.state is State.DEAD
    assert told.wait() == [Fire(second)]


@pytest.mark.parametrize(("state", "given_up"), [("SYN-SENT", True), (None, True), ("SYN-RECEIVED", False)])
def test_a_guess_is_given_up_when_its_time_is_over_unless_the_peer_s_syn_has_come(
    state: str | None, given_up: bool
) -> None:
    told = begun(guess())
    [pair] = told.pairs
    assert told(Seen(pair, state), LASTS_NS - 1) == []
    assert told(Time(), 1) == [Look(pair)]
    assert told(Seen(pair, state)) == ([Close(pair)] if given_up else [])
    assert pair.state is (State.IDLE if given_up else State.SYN_SENT)
    assert told(Ended()) == ([] if given_up else [Close(pair)])


def test_who_follows_looks_again_where_nothing_tells_what_the_peer_keeps() -> None:
    told = begun(shot(), chooses=False)
    for name in ("one", "other"):
        told(Accepted(name, PEER, AT_NS, 20 * MS))
    told.wait()
    assert told.check(Condition.SILENT, Condition.SILENT) == [WaitUntil(MonoNs(told.now_ns + 10 * MS))]


def test_a_guess_that_is_refused_has_had_its_only_shot() -> None:
    told = begun(guess())
    [pair] = told.pairs
    assert told(Answered(pair, errno.ECONNREFUSED)) == [Close(pair)]
    assert told(Time(), S) == []
    assert pair.state is State.IDLE


def test_later_shots_leave_one_at_a_time_and_a_delay_puts_the_rest_off() -> None:
    told = begun(*(guess(PEER._replace(port=number), number * 2 * MS) for number in range(1, 9)))
    assert told(Time(), 15 * MS) == [Fire(told.pairs[0]), WaitUntil(MonoNs(AT_NS + 4 * MS))]
    assert told(Time()) == [Fire(told.pairs[1]), WaitUntil(MonoNs(AT_NS + 6 * MS))]
    assert told(Time(), 85 * MS) == [Fire(told.pairs[2]), WaitUntil(MonoNs(AT_NS + 102 * MS))]  # 94 ms late: all are
    assert told.pairs[2].planned_ns == AT_NS + 100 * MS
    assert told(Time()) == [WaitUntil(MonoNs(AT_NS + 102 * MS))]


def test_nothing_leaves_once_the_window_is_over() -> None:
    told = begun(shot(), shot(OTHER, after_ns=MS))
    first, second = told.pairs
    told(Answered(first, errno.ECONNREFUSED))
    assert told(Time(), 10 * S) == []
    assert (first.state, second.state) == (State.IDLE, State.IDLE)


def test_a_later_shot_that_is_repeated_counts_against_the_budget() -> None:
    told = begun(shot(after_ns=MS))
    [pair] = told.pairs
    assert told.wait() == [Fire(pair)]
    told(Fired(pair, MonoNs(told.now_ns), errno.ECONNREFUSED))
    assert told.wait() == [Fire(pair)]


def test_who_has_no_turn_left_waits_for_the_listener() -> None:
    told = begun(shot(), left=0)
    [pair] = told.pairs
    assert told(Answered(pair, errno.ECONNREFUSED)) == [Close(pair)]
    told(Accepted("stream", PEER, MonoNs(told.now_ns), MS))
    assert only(told.check(Condition.SILENT), Keep) == [Keep("stream")]


def test_lost_streams_give_back_no_syns_that_were_never_set_aside() -> None:
    """Of four, each unanswered one may be sent again once: three leave, however many streams come and go."""
    shots, left, resends = rationed([shot()], 4)
    assert (left, resends) == (2, 1)
    told = begun(*shots, left=2, resends=1)
    [pair] = told.pairs
    for _ in range(3):
        told(Answered(pair, errno.ECONNREFUSED))
        if pair.state is State.WAITING:
            assert told.wait() == [Fire(pair)]
            told(Fired(pair, MonoNs(told.now_ns), errno.EINPROGRESS))
    for number in range(5):
        told(Accepted(number, PEER._replace(port=7), MonoNs(told.now_ns), MS))
        assert told.check(Condition.RESET) == [Reset(number)]
    assert pair.state is State.IDLE


def test_where_the_time_is_up_the_best_that_waits_is_kept() -> None:
    told = begun(shot(), shot(OTHER))
    told(CameUp(told.pairs[1], "worse", AT_NS))
    assert told(TimeUp()) == [Check(("worse",))]
    assert told(TimeUp()) == [], "the look is under way"
    assert only(told.check(Condition.SILENT), Keep) == [Keep("worse")]


def test_of_thousands_that_the_peer_s_address_brings_a_few_wait() -> None:
    told = begun(shot(), shot(OTHER), chooses=False)
    told(CameUp(told.pairs[1], "ours", AT_NS))
    for number in range(1000):
        told(Accepted(number, PEER._replace(port=number), AT_NS, 20 * MS))
    closed = {action.stream for action in told.actions if isinstance(action, Reset)}
    assert len(closed) == 1000 - 63
    told(Accepted("peer", PEER, AT_NS, 20 * MS))
    told(TimeUp())
    told.check(*[Condition.SILENT] * 64)
    assert told.engine.kept == "peer"


def test_a_stream_of_ours_that_is_crowded_out_leaves_its_pair_idle() -> None:
    told = begun(shot(), shot(OTHER), chooses=False)
    worst = told.pairs[1]
    told(CameUp(worst, "worst", AT_NS))
    for number in range(64):
        told(Accepted(number, PEER._replace(port=number), AT_NS, 20 * MS))
    assert Reset("worst") in told.actions
    assert worst.state is State.IDLE


def test_what_is_told_too_late_is_closed() -> None:
    told = begun(shot())
    [pair] = told.pairs
    told(Ended())
    assert told(Fired(pair, AT_NS, errno.EINPROGRESS)) == [Close(pair)]
    assert [attempt.errno for attempt in told.engine.attempts] == [None, None]
    assert told(CameUp(pair, "stream", AT_NS)) == [Reset("stream")]
    assert told(Answered(pair, errno.ECONNREFUSED)) == []
    assert told(Time()) == []


def test_what_has_been_overtaken_changes_nothing() -> None:
    told = begun(shot(), shot(OTHER, after_ns=S))
    first, second = told.pairs
    assert told(Checked({})) == []
    assert told(Fired(first, AT_NS, errno.EINPROGRESS)) == []
    assert told(Answered(second, errno.ECONNREFUSED)) == []
    assert told(CameUp(second, "stream", AT_NS)) == [Reset("stream")]
    assert told(Fired(second, AT_NS, errno.EINPROGRESS)) == []
    assert told(Time(), S) == []


# ---- any order of events -------------------------------------------------------------------------------------------

REFUSALS = [errno.ECONNREFUSED] * 4 + [errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENOBUFS]
AT_ONCE = [errno.EINPROGRESS] * 8 + [errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EPERM, 0]
STATES = st.sampled_from([None, "SYN-SENT", "SYN-RECEIVED", "ESTABLISHED", "TIME-WAIT"])
CONDITIONS = st.sampled_from([Condition.SILENT] * 3 + [Condition.SPOKEN, Condition.RESET])
KINDS: dict[str, Callable[[Endpoint], Shot]] = {
    "shot": shot,
    "guess": guess,
    "later guess": lambda remote: guess(remote, 3 * MS),
    "later shot": lambda remote: shot(remote, 2 * MS),
}


class AnyOrder(RuleBasedStateMachine):
    """A host whose kernel, peer and clock do what hypothesis likes, and that tells it when hypothesis likes.

    `asked`: the actions that are to be answered; `unsaid`: calls of `connect` that the engine has not been told of.
    `syns`: how many have left, those that the kernel sent again among them.
    """

    engine: Engine | None = None

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = AT_NS
        self.names = itertools.count()
        self.sockets: set[Pair] = set()
        self.answered: set[Pair] = set()
        self.in_flight: dict[Pair, int] = {}
        self.streams: set[int] = set()
        self.asked: list[Fire | Look | Check] = []
        self.unsaid: dict[Pair, Fired] = {}
        self.kept: list[int] = []
        self.most: int | None = None
        self.syns = self.resends = 0

    @initialize(
        kinds=st.lists(st.sampled_from(["shot", "shot", "guess", "later guess", "later shot"]), min_size=1, max_size=5),
        chooses=st.sampled_from([None, True, False]),
        most=st.sampled_from([None, 4, 9, MOST_SYNS]),
        errors=st.lists(st.sampled_from(AT_ONCE), min_size=5, max_size=5),
    )
    def begin(self, kinds: list[str], chooses: bool | None, most: int | None, errors: list[int]) -> None:
        shots = tuple(KINDS[kind](PEER._replace(port=number)) for number, kind in enumerate(kinds, 1))
        left, self.most = None, most
        if most is not None:
            shots, left, self.resends = rationed(shots, most)
        self.engine = Engine((Pair(each, rank) for rank, each in enumerate(shots)), chooses=chooses)
        self.tell(Begun(Window(AT_NS, CLOSES_NS, left=left, resends=self.resends), AT_NS, AT_NS))
        for pair, error in zip(self.engine.pairs, errors, strict=False):
            if not pair.shot.after_ns:
                self.connect(pair, error)

    def connect(self, pair: Pair, error: int) -> None:
        assert pair not in self.sockets, "one socket at a time"
        self.sockets.add(pair)
        self.unsaid[pair] = Fired(pair, MonoNs(self.now_ns), error)
        if error in (errno.EINPROGRESS, 0):
            self.in_flight[pair] = self.now_ns
        else:
            self.answered.add(pair)
        self.syns += error in (errno.EINPROGRESS, errno.ECONNREFUSED, 0)

    def tell(self, event: Event) -> None:
        assert self.engine is not None
        for action in self.engine.handle(event, MonoNs(self.now_ns)):
            self.carry_out(action, over=self.engine.over)

    def carry_out(self, action: Action, *, over: bool) -> None:
        match action:
            case Fire():
                assert not over
                assert self.now_ns < CLOSES_NS
                self.asked.append(action)
            case Look() | Check():
                self.asked.append(action)
            case Close(pair):
                self.close(pair, over=over)
            case Keep(stream):
                assert stream in self.streams
                self.kept.append(stream)
            case Reset(stream):
                assert stream not in self.kept
                self.streams.remove(stream)

    def close(self, pair: Pair, *, over: bool) -> None:
        self.sockets.remove(pair)
        if pair in self.answered:
            self.answered.remove(pair)
            return
        since_ns = self.in_flight.pop(pair)
        has_had_its_time = pair.shot.lasts_ns is not None and self.now_ns >= since_ns + pair.shot.lasts_ns
        assert over or has_had_its_time, "a live SYN-SENT is closed before its time"

    @precondition(lambda self: self.unsaid)
    @rule(number=st.integers(0, 4))
    def connect_is_told(self, number: int) -> None:
        pair = list(self.unsaid)[number % len(self.unsaid)]
        self.tell(self.unsaid.pop(pair))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def a_question_is_answered(self, data: st.DataObject) -> None:
        """Whichever."""
        match self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1))):
            case Fire(pair):
                if (refusal := data.draw(st.sampled_from([0] * 9 + [errno.EMFILE, errno.EACCES]))) != 0:
                    self.tell(NoSocket(pair, refused(refusal)))
                else:
                    self.connect(pair, data.draw(st.sampled_from(AT_ONCE)))
            case Look(pair):
                self.tell(Seen(pair, data.draw(STATES), data.draw(st.booleans())))
            case Check(streams):
                self.tell(Checked({stream: data.draw(CONDITIONS) for stream in streams}))

    @rule(pass_ns=st.sampled_from([0, MS, 20 * MS, 200 * MS, S, 4 * S]))
    def time_passes(self, pass_ns: int) -> None:
        self.now_ns = MonoNs(max(self.now_ns, min(self.now_ns + pass_ns, CLOSES_NS + S)))
        self.tell(Time())

    def settled(self, number: int, resent: int) -> tuple[Pair, int]:
        """Something has come of one that is in flight: after it was told that this is so."""
        pair = list(self.in_flight)[number % len(self.in_flight)]
        if pair in self.unsaid:
            self.tell(self.unsaid.pop(pair))
        if pair not in self.in_flight:  # it was too late, and has been closed
            return pair, -1
        del self.in_flight[pair]
        resent = 0 if pair.shot.lasts_ns is not None else min(resent, self.resends)
        self.syns += resent
        return pair, resent

    @precondition(lambda self: self.in_flight)
    @rule(number=st.integers(0, 4), resent=st.integers(0, 9), error=st.sampled_from(REFUSALS))
    def a_refusal_comes(self, number: int, resent: int, error: int) -> None:
        pair, resent = self.settled(number, resent)
        if resent >= 0:
            self.answered.add(pair)
            self.tell(Answered(pair, error, resent))

    @precondition(lambda self: self.in_flight)
    @rule(number=st.integers(0, 4), resent=st.integers(0, 9))
    def a_stream_comes_up(self, number: int, resent: int) -> None:
        pair, resent = self.settled(number, resent)
        if resent >= 0:
            self.sockets.remove(pair)
            self.streams.add(name := next(self.names))
            self.tell(CameUp(pair, name, MonoNs(self.now_ns), resent))

    @precondition(lambda self: self.in_flight)
    @rule(number=st.integers(0, 4), resent=st.integers(0, 9), refused=st.booleans())
    def a_stream_is_verified(self, number: int, resent: int, *, refused: bool) -> None:
        pair, resent = self.settled(number, resent)
        if resent >= 0:
            self.sockets.remove(pair)
            self.tell(BeingVerified(pair, MonoNs(self.now_ns), resent))
            if refused:
                self.tell(Unproven(pair))

    @rule(remote=st.sampled_from([PEER, PEER, OTHER]), port=st.integers(1, 9))
    def a_stream_is_accepted(self, remote: Endpoint, port: int) -> None:
        self.streams.add(name := next(self.names))
        self.tell(Accepted(name, remote._replace(port=port), MonoNs(self.now_ns), 20 * MS))

    @precondition(lambda self: self.now_ns > CLOSES_NS)
    @rule()
    def the_window_is_over(self) -> None:
        self.tell(TimeUp())

    @rule(chance=st.integers(0, 19))
    def nobody_waits(self, chance: int) -> None:
        if not chance:
            self.tell(Ended())

    @invariant()
    def one_stream_at_most_is_kept(self) -> None:
        assert len(self.kept) <= 1

    @invariant()
    def the_budget_holds(self) -> None:
        if self.most is not None:
            waiting = sum(pair.shot.lasts_ns is None for pair in self.in_flight)
            assert self.syns + self.resends * waiting <= self.most

    def teardown(self) -> None:
        """What was under way is told yet; and then nothing is open but what was kept."""
        if self.engine is None:
            return
        self.tell(Ended())
        for event in self.unsaid.values():
            self.tell(event)
        assert not self.sockets
        assert self.streams == set(self.kept)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
