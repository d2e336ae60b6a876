"""Whose word of the kernel's is one: a table of what keepers write, and what the kernel makes of it."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from simopen.clock.kernel import KernelTime, adjtimex, kernel_estimate, unfit
from simopen.clock.source import Clock, LocalClock, kernel_says, kernel_word
from simopen.model.estimate import Source

READING = LocalClock().read()
NANO, PLL, INSERT, UNSYNC = 0x2000, 0x0001, 0x0010, 0x0040
CHRONY = KernelTime(state=0, status=NANO, maxerror_us=2_345, esterror_us=67)
NTPD = KernelTime(state=0, status=NANO | PLL, maxerror_us=23_421, esterror_us=812, offset_ns=-1_500_000)
TIMESYNCD = KernelTime(state=0, status=NANO | PLL, maxerror_us=500, esterror_us=0)
PHC2SYS = KernelTime(state=0, status=NANO, maxerror_us=500, esterror_us=16_000_000)


@pytest.mark.parametrize(
    ("told", "bound_ns"),
    [
        (CHRONY, 2_345_000),
        (replace(CHRONY, status=0), 2_345_000),
        (replace(CHRONY, state=1, status=INSERT), 2_345_000),
        (replace(CHRONY, state=2), 2_345_000),
        (replace(CHRONY, state=4), 2_345_000),
        (replace(CHRONY, esterror_us=2_345), 2_345_000),
        (NTPD, 23_421_000 + 1_500_000),  # what it still slews away is off, too
        (replace(NTPD, maxerror_us=999_999), None),  # with that it is beyond the limit
        (replace(CHRONY, maxerror_us=1_000_001), None),
    ],
)
def test_a_keeper_that_measures_is_believed_up_to_the_limit(told: KernelTime, bound_ns: int | None) -> None:
    estimate = kernel_estimate(told, READING, limit_s=1.0)
    assert (estimate and estimate.bound_ns) == bound_ns
    assert estimate is None or (estimate.source, estimate.offset_s) == (Source.KERNEL, 0.0)
    assert unfit(told) is None


@pytest.mark.parametrize("told", [TIMESYNCD, PHC2SYS, replace(TIMESYNCD, status=NANO), replace(PHC2SYS, status=INSERT)])
@pytest.mark.parametrize("since_s", [0, 1, 2, 64, 2048, 31_999])
def test_one_that_writes_zeros_is_not_however_long_ago_that_was(told: KernelTime, since_s: int) -> None:
    """The kernel adds 500 µs a second to the zero."""
    told = replace(told, maxerror_us=500 * since_s)
    assert kernel_estimate(told, READING, limit_s=100.0) is None
    assert "does not say how well" in str(unfit(told))


@pytest.mark.parametrize("since_s", [1, 7, 600])
def test_what_an_earlier_keeper_estimated_is_not_the_later_ones_word(since_s: int) -> None:
    """chronyd was stopped, and phc2sys goes on."""
    assert kernel_estimate(replace(PHC2SYS, maxerror_us=500 * since_s, esterror_us=67), READING, 100.0) is None


@pytest.mark.parametrize(
    "told",
    [
        replace(CHRONY, state=3),  # the leap second itself
        replace(CHRONY, state=5),  # TIME_ERROR
        replace(CHRONY, status=UNSYNC),  # chronyd without rtcsync
        replace(TIMESYNCD, status=NANO | PLL | UNSYNC),  # timesyncd with the hardware clock in local time
        replace(TIMESYNCD, state=5, status=NANO | PLL | UNSYNC, maxerror_us=16_000_000),  # nine hours after its end
        replace(CHRONY, maxerror_us=16_000_000, esterror_us=16_000_000),  # since boot, or since it was set
    ],
)
def test_a_clock_that_nobody_keeps_has_no_word(told: KernelTime) -> None:
    assert kernel_estimate(told, READING, limit_s=100.0) is None
    assert unfit(told) == "nobody disciplines this clock"


@pytest.mark.parametrize("told", [None, replace(CHRONY, state=-1)])
def test_a_kernel_that_does_not_tell(told: KernelTime | None) -> None:
    assert kernel_estimate(told, READING, limit_s=100.0) is None
    assert "does not tell" in str(unfit(told))


@pytest.mark.parametrize(("told", "source"), [(CHRONY, Source.KERNEL), (TIMESYNCD, Source.PLAIN), (None, Source.PLAIN)])
def test_a_clock_knows_nothing_where_the_kernels_word_is_none(told: KernelTime | None, source: Source) -> None:
    assert Clock(ask_kernel=lambda: told).now_estimate().source is source


def test_the_kernel_can_be_asked() -> None:
    told = adjtimex()
    assert (told is None) == (sys.platform != "linux")
    assert told is None or (0 <= told.state <= 5 and 0 <= told.maxerror_us <= 16_000_000 and told.esterror_us >= 0)
    assert kernel_word(limit_s=1e-9) is None
    assert kernel_says() in {"nobody disciplines this clock", str(kernel_word(limit_s=100.0)), unfit(told)}
