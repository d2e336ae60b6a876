from __future__ import annotations

import errno
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.holepunch.budget import MOST_SYNS, rationed
from simopen.holepunch.retry import (
    BURST,
    FAILED_PAUSE_NS,
    FIRST_NS,
    NO_ROUTE_PAUSE_NS,
    POLITE_SYNS_PER_S,
    SYNS_PER_S,
    TAKEN_PAUSE_NS,
    Fire,
    GiveUp,
    Keep,
    Wait,
    Window,
    grace_ns,
)
from simopen.model.endpoint import Endpoint
from simopen.model.outcome import Outcome, outcome_of, passes
from simopen.model.shot import Shot
from simopen.model.times import MonoNs

S = 1_000_000_000
WINDOW = Window(MonoNs(100 * S), MonoNs(110 * S))
FINAL = {
    *(errno.EACCES, errno.EPERM),
    *(errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EPROTOTYPE, errno.ESOCKTNOSUPPORT),
}


@pytest.mark.parametrize(
    ("error", "immediate", "outcome"),
    [
        (0, True, Outcome.OPEN),
        (errno.EINPROGRESS, True, Outcome.IN_FLIGHT),
        (errno.ECONNREFUSED, False, Outcome.RESET),
        (errno.ECONNREFUSED, True, Outcome.RESET),
        (errno.ECONNRESET, False, Outcome.RESET),
        (errno.EHOSTUNREACH, False, Outcome.ICMP),
        (errno.EHOSTUNREACH, True, Outcome.NO_ROUTE),
        (errno.ENETUNREACH, True, Outcome.NO_ROUTE),
        (errno.ETIMEDOUT, False, Outcome.EXHAUSTED),
        (errno.EADDRNOTAVAIL, True, Outcome.TAKEN),
        (errno.EACCES, True, Outcome.DENIED),
        (errno.EPERM, True, Outcome.DENIED),
        (errno.ENOBUFS, True, Outcome.FAILED),
        (errno.EAGAIN, True, Outcome.FAILED),
        (errno.EINTR, True, Outcome.IN_FLIGHT),
        (errno.EINVAL, True, Outcome.NO_ROUTE),
        (errno.EINVAL, False, Outcome.FAILED),
        (errno.ENETDOWN, True, Outcome.NO_ROUTE),
        (errno.EACCES, False, Outcome.ICMP),
        (errno.EAFNOSUPPORT, True, Outcome.UNSUPPORTED),
    ],
)
def test_what_an_errno_means(error: int, immediate: bool, outcome: Outcome) -> None:
    assert outcome_of(error, immediate=immediate) is outcome


@pytest.mark.parametrize(
    ("outcome", "action"),
    [
        (Outcome.OPEN, Keep()),
        (Outcome.IN_FLIGHT, Wait()),
        (Outcome.RESET, Fire(MonoNs(101 * S))),
        (Outcome.ICMP, Fire(MonoNs(101 * S))),
        (Outcome.EXHAUSTED, Fire(MonoNs(101 * S))),
        (Outcome.TAKEN, Fire(MonoNs(101 * S + TAKEN_PAUSE_NS))),
        (Outcome.NO_ROUTE, Fire(MonoNs(101 * S + NO_ROUTE_PAUSE_NS))),
        (Outcome.DENIED, GiveUp()),
        (Outcome.HELD, GiveUp()),
        (Outcome.FAILED, Fire(MonoNs(101 * S + FAILED_PAUSE_NS))),
        (Outcome.UNSUPPORTED, GiveUp()),
    ],
)
def test_what_follows_an_outcome(outcome: Outcome, action: object) -> None:
    assert WINDOW.after(outcome, MonoNs(101 * S))[0] == action


@pytest.mark.parametrize("error", sorted(errno.errorcode))
def test_only_what_is_on_the_short_list_ends_a_punch(error: int) -> None:
    """Of all that the kernel may answer, at once or later."""
    for immediate in (True, False):
        action, _ = WINDOW.after(outcome_of(error, immediate=immediate), MonoNs(101 * S))
        assert isinstance(action, GiveUp) is (immediate and error in FINAL)
    assert passes(error, had=True) is (error not in FINAL)
    slips = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENODEV}
    assert passes(error, had=False) is (error not in FINAL | slips)


def test_every_outcome_has_an_action() -> None:
    assert all(WINDOW.after(outcome, MonoNs(101 * S))[0] for outcome in Outcome)


@pytest.mark.parametrize("now_ns", [110 * S, 111 * S, 110 * S - TAKEN_PAUSE_NS])
def test_nothing_is_fired_once_the_window_has_closed(now_ns: int) -> None:
    assert WINDOW.after(Outcome.TAKEN, MonoNs(now_ns))[0] == Wait()


AGAIN = [Outcome.RESET, Outcome.ICMP, Outcome.EXHAUSTED, Outcome.TAKEN, Outcome.NO_ROUTE, Outcome.FAILED]
# How many lanes there are, and then: after how many ns the next answer comes, to which lane, and what it says.
ANSWERS = st.lists(
    st.tuples(st.integers(0, 20_000_000), st.integers(0, 99), st.sampled_from([Outcome.RESET] * 20 + AGAIN)),
    min_size=1,
    max_size=2500,
)


def fired_at(window: Window, lanes: int, answers: list[tuple[int, int, Outcome]]) -> list[int]:
    """When the lanes fire, the shots at the instant among them. Never a lane whose SYN nobody has answered."""
    now_ns, fired = window.opens_ns, [window.opens_ns] * lanes
    for _ in range(lanes):
        window = window.fired(now_ns)
    in_flight_from_ns = [now_ns] * lanes
    for wait_ns, which, outcome in answers:
        lane = which % lanes
        now_ns = MonoNs(max(now_ns + wait_ns, in_flight_from_ns[lane]))
        action, window = window.after(outcome, now_ns, sent=outcome is not Outcome.NO_ROUTE)
        if isinstance(action, Fire):
            assert action.at_ns >= now_ns
            in_flight_from_ns[lane] = action.at_ns
            fired.append(action.at_ns)
    return sorted(fired)


@given(st.integers(1, 100), ANSWERS)
def test_no_more_than_the_budget_is_fired_whoever_is_answered_when(
    lanes: int, answers: list[tuple[int, int, Outcome]]
) -> None:
    opens_ns = 7 * S
    fired = fired_at(Window(MonoNs(opens_ns), MonoNs(opens_ns + 10**13)), lanes, answers)
    again = fired[lanes:]
    early = [at_ns for at_ns in again if at_ns < opens_ns + FIRST_NS]
    if early:
        assert len(early) - 1 <= max(0, BURST - lanes) + (early[-1] - opens_ns) * SYNS_PER_S / S
    polite = again[len(early) :]
    assert all(later - before >= S / POLITE_SYNS_PER_S for before, later in pairwise(polite))


def test_a_peer_that_only_refuses_gets_fifty_a_second_after_the_first() -> None:
    answers = [(50_000, 0, Outcome.RESET)] * 5000
    fired = fired_at(Window(MonoNs(0), MonoNs(10 * S)), 1, answers)
    seconds = Counter(at_ns // S for at_ns in fired)
    assert BURST <= seconds.pop(0) <= BURST + SYNS_PER_S + 1
    assert seconds == dict.fromkeys(range(1, 10), POLITE_SYNS_PER_S)


def test_within_the_burst_a_rst_is_answered_at_once() -> None:
    window = Window(MonoNs(0), MonoNs(10**12))
    for _ in range(BURST):
        window = window.fired(MonoNs(0))
    assert window.after(Outcome.RESET, MonoNs(5))[0] == Fire(MonoNs(5))


@given(
    st.lists(st.sampled_from([None, None, 900_000_000]), min_size=1, max_size=80),
    st.lists(
        st.tuples(st.integers(0, 2 * S), st.integers(0, 99), st.sampled_from(AGAIN), st.integers(0, 9)), max_size=300
    ),
)
def test_counted_syns_are_never_more_than_the_most(
    lasting: list[int | None], answers: list[tuple[int, int, Outcome, int]]
) -> None:
    """Whatever is fired, answered, and sent again by the kernel meanwhile."""
    shots = [Shot(1, Endpoint("192.0.2.1", 1 + n), 0, bool(lasts), lasts) for n, lasts in enumerate(lasting)]
    kept, left, resends = rationed(shots)
    window = Window(MonoNs(0), MonoNs(100 * S), left=left, resends=resends)
    lanes = [0 for shot in kept if shot.lasts_ns is None]  # when the SYN in flight left; None: none is
    sent, now_ns = len(kept), 0
    in_flight: list[int | None] = [*lanes]
    for wait_ns, which, outcome, resent in answers:
        now_ns += wait_ns
        flying = [lane for lane, at_ns in enumerate(in_flight) if at_ns is not None and at_ns <= now_ns]
        if not flying:
            break
        lane = flying[which % len(flying)]
        looked = outcome in (Outcome.TAKEN, Outcome.NO_ROUTE)
        again = 0 if looked else min(resent, resends)
        sent += again - looked
        action, window = window.after(outcome, MonoNs(now_ns), sent=not looked, resent=again)
        in_flight[lane] = action.at_ns if isinstance(action, Fire) else None
        sent += isinstance(action, Fire)
    sent += resends * sum(at_ns is not None for at_ns in in_flight)
    assert sent <= MOST_SYNS


def test_the_best_shots_are_the_ones_that_are_fired() -> None:
    shots = [Shot(1, Endpoint("192.0.2.1", 1 + n)) for n in range(100)]
    kept, left, resends = rationed(shots)
    assert (kept, left, resends) == (tuple(shots[:32]), 0, 1)
    assert rationed(shots[:1]) == ((shots[0],), 54, 9)
    assert rationed([]) == ((), MOST_SYNS, 0)


@given(st.integers(0, 10**11))
def test_the_grace_is_a_quarter_and_at_least_5_ms(elapsed_ns: int) -> None:
    assert grace_ns(elapsed_ns) == max(5_000_000, elapsed_ns // 4)
