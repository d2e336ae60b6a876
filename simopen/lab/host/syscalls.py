"""The few Linux calls that Python 3.11's standard library lacks.

Theory of operation. pyroute2 enters network namespaces, but makes only such as have a name: that takes root, for the
mount below /var/run/netns, and the name outlives its maker. So `unshare` is called here, through ctypes, as are the
timers. os.unshare came with 3.12, os.timerfd_create with 3.13; these may replace what is here when 3.13 is the oldest
Python supported. Only the lab's own process uses this, and it has one thread.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time

from pyroute2 import netns

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
_PR_SET_TIMERSLACK = 29
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # timerfd.h: TFD_NONBLOCK and TFD_CLOEXEC have these values
_TFD_TIMER_ABSTIME = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> int:
    result = int(getattr(_libc, name)(*arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces of these kinds for new ones. Raises: OSError."""
    _call("unshare", flags)


def setns(fd: int) -> None:
    """Enter the network namespace that `fd` stands for. Raises: OSError."""
    netns.setns(fd, libc=_libc)  # left to itself, pyroute2 starts a program to find the C library


def set_timer_slack(slack_ns: int) -> None:
    """How much later than asked the kernel may wake this thread; 50,000 ns where never set (prctl(2))."""
    _call("prctl", _PR_SET_TIMERSLACK, ctypes.c_ulong(slack_ns), 0, 0, 0)


class Timer:
    """A timerfd on CLOCK_MONOTONIC: becomes readable at an instant, exact to the kernel's timer, unlike epoll's ms."""

    def __init__(self) -> None:
        self._fd = _call("timerfd_create", time.CLOCK_MONOTONIC, _TFD_FLAGS)

    def fileno(self) -> int:
        return self._fd

    def arm(self, at_ns: int) -> None:
        """Become readable at `at_ns`, at once where that is past. The last call counts."""
        seconds, nanoseconds = divmod(max(at_ns, 1), 10**9)
        when = struct.pack("@4l", 0, 0, seconds, nanoseconds)
        _call("timerfd_settime", self._fd, _TFD_TIMER_ABSTIME, when, None)

    def acknowledge(self) -> None:
        """Stop being readable."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self._fd)
