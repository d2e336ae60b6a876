"""What is decided of the time before anything else is: how long to ask, what is said of a clock that is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simopen.clock import true_time
from simopen.clock.instant import Ahead, Slot, Told
from simopen.clock.source import CHECK_TIMEOUT_S, Clock, FixedClock, plain
from simopen.clock.true_time import LEAST_S, Learnt, When, correction, is_news, learn, patience_s, remark
from simopen.errors import ClockError
from simopen.model.estimate import Estimate, Evidence, Reading, Source
from simopen.model.times import MonoNs, UtcNs

S = 1_000_000_000
READING = Reading(MonoNs(50 * S), 1_000_000 * S, 50 * S)


def told(offset_s: float, bound_s: float | None = 0.01, source: Source = Source.NTP) -> Estimate:
    """What four servers say of a clock that is behind by `offset_s`; one of them lies."""
    servers = tuple(Evidence(str(each), refused="disagrees" if each == 3 else None) for each in range(4))
    bound_ns = None if bound_s is None else round(bound_s * S)
    return Estimate(UtcNs(READING.realtime_ns + round(offset_s * S)), bound_ns, source, READING, servers)


@pytest.mark.parametrize(
    ("left_s", "window_s", "asked_s"),
    [
        (3600, 10, CHECK_TIMEOUT_S),
        (3.1, 10, CHECK_TIMEOUT_S),
        (2.02, 10, 2.0),  # until it is time to get ready
        (0.3, 10, LEAST_S),
        (0.001, 10, LEAST_S),
        (0, 10, CHECK_TIMEOUT_S),
        (-3, 10, CHECK_TIMEOUT_S),
        (-8, 10, 1.0),  # half of what is left, so that something can be fired
        (0, 1, 0.5),
        (-10, 10, CHECK_TIMEOUT_S),  # by this clock it is over anyway
        (-14 * 86_400, 10, CHECK_TIMEOUT_S),
    ],
)
def test_there_is_always_time_to_ask(left_s: float, window_s: float, asked_s: float) -> None:
    assert patience_s(left_s, window_s) == pytest.approx(asked_s)


@pytest.mark.parametrize(
    ("offset_s", "words"),
    [
        (-3600, "this machine's clock is 1 h ahead (3 of 4 time servers); corrected for this meeting"),
        (3592, "this machine's clock is 59 min 52 s behind (3 of 4"),
        (3, "is 3 s behind"),
        (-40, "is 40 s ahead"),
        (86_400, "is 1 day behind"),
        (-14 * 86_400, "is 14 days ahead"),
    ],
)
def test_a_clock_that_is_wrong_is_told(offset_s: float, words: str) -> None:
    assert words in str(correction(told(offset_s)))
    assert remark(Learnt(told(offset_s))) == correction(told(offset_s))


@pytest.mark.parametrize(
    "estimate", [told(0.9), told(0), told(3600, bound_s=None, source=Source.PLAIN), told(3, bound_s=2)]
)
def test_nothing_is_told_of_one_that_is_right_or_unknown(estimate: Estimate) -> None:
    assert correction(estimate) is None


def test_whoever_could_not_be_asked_is_told() -> None:
    words = remark(Learnt(told(0, None, Source.PLAIN), "silence"))
    assert words == (
        "the clock's offset is not known well, so the local clock, unchecked, decides when to fire: silence"
    )


def test_once_a_clock_is_enough() -> None:
    clock, other = Clock(), Clock()
    wrong, doubt = Learnt(told(3600)), Learnt(told(0, None), "silence")
    assert [is_news(clock, each) for each in (wrong, wrong, doubt, doubt)] == [True, False, True, False]
    assert is_news(other, wrong)
    assert not is_news(FixedClock(told(3600)), wrong)  # its owner knows


def test_what_was_told_relative_goes_by_true_time_when_it_was_told() -> None:
    later = replace(READING, monotonic_ns=MonoNs(52 * S))
    estimate = replace(told(-3600), reading=later)  # the answers came 2 s after it was told
    assert When(Ahead(10), MonoNs(50 * S)).utc_ns(estimate) == estimate.utc_ns + 8 * S
    assert When(Slot(10), MonoNs(50 * S)).utc_ns(estimate) % (10 * S) == 0
    assert When(UtcNs(7), MonoNs(50 * S)).utc_ns(estimate) == 7
    assert When(Ahead(10), MonoNs(50 * S)).fixed(estimate) == When(UtcNs(estimate.utc_ns + 8 * S), MonoNs(50 * S))


def test_whoever_told_it_earlier_says_when() -> None:
    source = FixedClock(plain())
    assert When.told(Told(Ahead(1), MonoNs(17)), source) == When(Ahead(1), MonoNs(17))
    assert When.told(None, source).is_now
    assert When.told(2e9, source).as_told == 2e9
    assert When(Ahead(1), MonoNs(17)).as_told == Told(Ahead(1), MonoNs(17))


class Mute(Clock):
    """Nobody answers it. It cannot answer later."""

    def __init__(self) -> None:
        super().__init__(ask_kernel=lambda: None)
        self.asked = 0

    async def refresh(self, timeout_s: float = CHECK_TIMEOUT_S) -> Estimate:
        self.asked += 1
        raise ClockError("silence")


async def test_one_that_was_just_asked_in_vain_is_not_asked_again() -> None:
    """Or a command and then the call itself would each wait for nothing."""
    mute = Mute()
    learnt = [await learn(mute, 0.1, 1.0) for _ in range(3)]
    assert mute.asked == 1
    assert [each.doubt for each in learnt] == ["silence"] * 3
    assert {each.estimate.source for each in learnt} == {Source.PLAIN}
    mute.in_vain = (MonoNs(mute.local.read().monotonic_ns - round((true_time.VAIN_S + 1) * S)), "silence")
    await learn(mute, 0.1, 1.0)
    assert mute.asked == 2


async def test_who_brings_an_estimate_has_nobody_to_ask() -> None:
    assert (await learn(FixedClock(plain()), 0.1, 1.0)).doubt is None
