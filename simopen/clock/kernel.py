"""The kernel's word on its clock: how it is kept, and whether that says how far it may be off.

Theory of operation. adjtimex(2) tells what the clock's keeper last wrote, and nothing of who that was. Keepers differ:

- ntpd, chronyd (with `rtcsync`) and ntpd-rs measure: they write the largest error (root distance) and an estimated one.
- systemd-timesyncd and BusyBox's ntpd write zero for both at each sync, linuxptp (phc2sys, ptp4l) zero for the largest
  one alone, and only so that the kernel goes on calling the clock synchronised (timesyncd-manager.c,
  clockadj.c `sysclk_set_sync`). The estimated error is then what somebody else left: 16 s since boot or since the
  clock was set.

To the largest error the kernel adds 500 µs a second (ntp.c, `second_overflow`: MAXFREQ), up to 16 s, where it stops
calling the clock synchronised. So a clock that nobody measures has a largest error of whole 500 µs, and one of a
keeper that does hardly ever (1 in 500): then somebody is asked, and no harm is done.

What must not live here: reading the clocks (`source`), and how an estimate ages (`model/estimate`).
"""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass

from simopen.model.estimate import Estimate, Reading, Source
from simopen.model.times import UtcNs


@dataclass(frozen=True, slots=True)
class KernelTime:
    """What adjtimex(2) answers.

    `state` is TIME_OK to TIME_ERROR, `status` the STA_* bits; `maxerror_us` and `esterror_us` are the largest and the
    estimated error, µs, as told by the clock's keeper. `offset_ns` is what the kernel has still to slew away.
    """

    state: int
    status: int
    maxerror_us: int
    esterror_us: int = 0
    offset_ns: int = 0


class _Timex(ctypes.Structure):
    """The beginning of `struct timex`, linux/timex.h, and room for the rest: 208 bytes on 64 bits."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 464),
    )


_STA_UNSYNC = 0x0040
_STA_NANO = 0x2000
# TIME_OK, _INS, _DEL, _WAIT; not _OOP (3: the leap second itself) nor _ERROR (5)
_TRUSTED_STATES = {0, 1, 2, 4}
_LIMIT_US = 16_000_000  # NTP_PHASE_LIMIT of linux/timex.h: never synchronised since boot, or not for 9 hours
_STEP_US = 500  # what the kernel adds a second


def adjtimex() -> KernelTime | None:
    """Ask the kernel how its clock is kept; changes nothing. None off Linux, or where a sandbox forbids it."""
    if sys.platform != "linux":
        return None
    timex = _Timex(modes=0)
    try:
        state = _libc().adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    offset_ns = timex.offset * (1 if timex.status & _STA_NANO else 1000)
    return KernelTime(state, timex.status, timex.maxerror, timex.esterror, offset_ns)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)  # opening it takes several times as long as the call


def unfit(told: KernelTime | None) -> str | None:
    """Why the kernel's word is none on how far the clock may be off; None where it is one."""
    if told is None or told.state < 0:
        return "this kernel does not tell how its clock is kept"
    if told.state not in _TRUSTED_STATES or told.status & _STA_UNSYNC or told.maxerror_us >= _LIMIT_US:
        return "nobody disciplines this clock"
    if told.maxerror_us <= 0 or told.maxerror_us % _STEP_US == 0 or not 0 < told.esterror_us <= told.maxerror_us:
        return "this clock is synchronised, but what keeps it (systemd-timesyncd? linuxptp?) does not say how well"
    return None


def kernel_estimate(told: KernelTime | None, reading: Reading, limit_s: float) -> Estimate | None:
    """The wall clock with the bound that its keeper measured; None where nobody keeps it, or measures, or so badly."""
    if told is None or unfit(told):
        return None
    bound_ns = told.maxerror_us * 1000 + abs(told.offset_ns)
    if bound_ns >= limit_s * 1e9:
        return None
    return Estimate(UtcNs(reading.realtime_ns), bound_ns, Source.KERNEL, reading)
