from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.window import (
    BURST,
    NO_ROUTE_PAUSE_NS,
    SYNS_PER_S,
    TAKEN_PAUSE_NS,
    Fire,
    GiveUp,
    Keep,
    Outcome,
    Wait,
    Window,
    grace_ns,
    outcome_of,
)

S = 1_000_000_000
WINDOW = Window(100 * S, 110 * S)


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
    ],
)
def test_what_an_errno_means(error: int, immediate: bool, outcome: Outcome) -> None:
    assert outcome_of(error, immediate=immediate) is outcome


@pytest.mark.parametrize(
    ("outcome", "action"),
    [
        (Outcome.OPEN, Keep()),
        (Outcome.IN_FLIGHT, Wait()),
        (Outcome.RESET, Fire(101 * S)),
        (Outcome.ICMP, Fire(101 * S)),
        (Outcome.EXHAUSTED, Fire(101 * S)),
        (Outcome.TAKEN, Fire(101 * S + TAKEN_PAUSE_NS)),
        (Outcome.NO_ROUTE, Fire(101 * S + NO_ROUTE_PAUSE_NS)),
        (Outcome.DENIED, GiveUp()),
        (Outcome.HELD, GiveUp()),
        (Outcome.FAILED, GiveUp()),
    ],
)
def test_what_follows_an_outcome(outcome: Outcome, action: object) -> None:
    assert WINDOW.after(outcome, 101 * S) == action


def test_every_outcome_has_an_action() -> None:
    assert all(WINDOW.after(outcome, 101 * S) for outcome in Outcome)


@pytest.mark.parametrize("now_ns", [110 * S, 111 * S, 110 * S - TAKEN_PAUSE_NS])
def test_nothing_is_fired_once_the_window_has_closed(now_ns: int) -> None:
    assert WINDOW.after(Outcome.TAKEN, now_ns) == Wait()


@given(st.lists(st.integers(0, 20_000_000), min_size=1, max_size=3000))
def test_no_more_than_the_budget_is_fired(round_trips_ns: list[int]) -> None:
    """Whatever the round trips, n shots take at least (n - BURST - 1) / SYNS_PER_S seconds."""
    window, now_ns, fired = Window(0, 10**12), 0, []
    for round_trip_ns in round_trips_ns:
        fired.append(now_ns)
        window = window.fired(now_ns)
        action = window.after(Outcome.RESET, now_ns + round_trip_ns)
        assert isinstance(action, Fire)
        assert action.at_ns >= now_ns + round_trip_ns
        now_ns = action.at_ns
    assert (fired[-1] - fired[0]) / S >= (len(fired) - BURST - 1) / SYNS_PER_S


def test_within_the_burst_a_rst_is_answered_at_once() -> None:
    window = Window(0, 10**12)
    for _ in range(BURST):
        window = window.fired(0)
    assert window.after(Outcome.RESET, 5) == Fire(5)


@given(st.integers(0, 10**11))
def test_the_grace_is_a_quarter_and_at_least_5_ms(elapsed_ns: int) -> None:
    assert grace_ns(elapsed_ns) == max(5_000_000, elapsed_ns // 4)
