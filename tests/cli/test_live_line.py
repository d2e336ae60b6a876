"""The live line: what it says is made of a punch's events, and it counts down between them, at a terminal, too."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from simopen.cli.console import Screen
from simopen.cli.live_line import Waiting, drawn
from simopen.clock import source as clock
from simopen.model.endpoint import Endpoint
from simopen.model.estimate import Estimate, Reading, Source
from simopen.model.event import ClockKnown, Fired
from simopen.model.times import MonoNs, UtcNs
from tests.cli.processes import NO_RICH, Ports, a_terminal, connecting, read_until, running, simopen_run
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]

BEGAN_S = 1_000_000_000  # 2001-09-09 01:46:40 UTC
BEGAN_NS = MonoNs(7_000_000_000)
PEER = Endpoint("203.0.113.7", 1314)
UNCHECKED = Estimate(UtcNs(BEGAN_S * 10**9), None, Source.PLAIN, Reading(BEGAN_NS, BEGAN_S * 10**9, BEGAN_NS))
CHECKED = Estimate(UtcNs((BEGAN_S + 3) * 10**9), 2_000_000, Source.NTP, Reading(BEGAN_NS, BEGAN_S * 10**9, BEGAN_NS))


def waiting(at_s: float | None = BEGAN_S + 60) -> Waiting:
    return Waiting(str(PEER), 10, at_s, BEGAN_S, UNCHECKED)


def after_s(seconds: float) -> int:
    return BEGAN_NS + round(seconds * 1e9)


def known(instant_s: float) -> ClockKnown:
    return ClockKnown(BEGAN_NS, CHECKED, UtcNs(round(instant_s * 1e9)))


@pytest.mark.parametrize(
    ("line", "passed_s", "text"),
    [
        (waiting(), 0, f"{PEER} at 01:47:40 UTC, in 60.0 s; clock unchecked"),
        (waiting(BEGAN_S + 86_400), 0, f"{PEER} at 2001-09-10 01:46:40 UTC, in 86400 s; clock unchecked"),
        (waiting().after(known(BEGAN_S + 60)), 0, f"{PEER} at 01:47:40 UTC, in 57.0 s; clock ± 2.0 ms"),
        (waiting().after(known(BEGAN_S + 70)), 0, f"{PEER} at 01:47:50 UTC, in 67.0 s; clock ± 2.0 ms"),
        (waiting().after(Fired(BEGAN_NS, PEER)), 61, f"trying {PEER} until 01:47:50 UTC"),
        (waiting(), 71, f"{PEER}: the window ended at 01:47:50 UTC"),
        (waiting(None), 0, f"trying {PEER} until 01:46:50 UTC"),
        (waiting(None).after(known(BEGAN_S + 3)), 0, f"trying {PEER} until 01:46:50 UTC"),
    ],
)
def test_what_it_says(line: Waiting, passed_s: float, text: str) -> None:
    said = re.sub(r" \(\d\d:\d\d here\)", "", line.text(MonoNs(after_s(passed_s))))  # where the machine is not on UTC
    assert said == text


def test_between_events_it_is_redrawn_only_where_it_changes() -> None:
    pauses = [waiting().pause_s(MonoNs(after_s(passed_s))) for passed_s in (0, 59, 61, 70)]
    assert pauses == [0.1, 0.1, 9.0, None]


class Drawn(Screen):
    """Keeps what is drawn on it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.is_drawn = asyncio.Event()

    @contextmanager
    def line(self, text: str) -> Iterator[Callable[..., None]]:
        yield self._draw

    def _draw(self, text: str, _: str = "") -> None:
        self.lines.append(text)
        self.is_drawn.set()

    async def next_line(self) -> str:
        self.is_drawn.clear()
        await self.is_drawn.wait()
        return self.lines[-1]


async def test_an_event_is_drawn_at_once_and_the_seconds_by_a_timer_that_ends_with_it() -> None:
    screen, estimate = Drawn(), clock.plain()
    utc_s = estimate.utc_ns / 1e9
    with drawn(Waiting(str(PEER), 10, utc_s + 3600, utc_s, estimate), screen) as on_event:
        (first,) = screen.lines
        await screen.next_line()
        count = len(screen.lines)
        on_event(ClockKnown(MonoNs(0), estimate, UtcNs(estimate.utc_ns + 10**12)))
        assert len(screen.lines) == count + 1
        assert screen.lines[-1].partition(",")[0] != first.partition(",")[0]  # the time of day
        on_event(Fired(MonoNs(0), PEER))
        assert len(screen.lines) == count + 1


def test_the_live_line_counts_down(ports: Ports) -> None:
    with a_terminal() as (screen, terminal), running(*connecting(ports, "--at", "+1h"), stderr=terminal) as it:
        seen = read_until(screen, b"s; clock ")
        first = re.findall(rb"in (\d+) s; clock ", seen)[-1]
        while (now := re.findall(rb"in (\d+) s; clock ", seen)[-1]) == first:
            seen += os.read(screen, 65536)
        assert float(now) < float(first) <= 3600
        assert f"{THERE}:{ports[1]} at ".encode() in seen
        it.process.send_signal(signal.SIGTERM)
        seen = read_until(screen, b"terminated; everything is closed", seen)
        assert it.end()[0] == 143
    hidden, shown = seen.rfind(b"\x1b[?25l"), seen.rfind(b"\x1b[?25h")
    assert -1 < hidden < shown  # the cursor is back


def test_without_rich_a_terminal_gets_plain_lines(ports: Ports) -> None:
    waiting = connecting(ports, "--at", "+1h")
    with a_terminal() as (screen, terminal), running(*waiting, program=NO_RICH, stderr=terminal) as it:
        seen = read_until(screen, b"s; clock ")
        it.process.send_signal(signal.SIGINT)
        seen = read_until(screen, b"everything is closed", seen)
        assert it.end()[0] == 130
    assert b"\x1b" not in seen


def test_an_unchecked_clock_is_noted(ports: Ports) -> None:
    """On success and on failure. The machine's own kernel may know better: then nobody is asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((HERE, 0))
        server = "{}:{}".format(*silent.getsockname())
        arguments = [word for word in connecting(ports, "--window", "100ms", "--ntp", server) if word != "--no-ntp"]
        status, _, said = simopen_run(*arguments, "--at", time.time() + 8)  # the program must have started by then
    assert status == 1
    assert clock.kernel_word() or "simopen: note: the clock's offset is not known well" in said
