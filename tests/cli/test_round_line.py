"""The line of a round of `simopen meet`'s: how long until it, then what has happened."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from simopen.cli.console import Screen, Update
from simopen.cli.round_line import Line
from simopen.model.endpoint import Endpoint
from simopen.model.event import Answered, Armed, Event, Fired, Resolved, Up, Verified
from simopen.model.report import Attempt, Via
from simopen.model.times import MonoNs

PEER = Endpoint("203.0.113.7", 1314)
UNTIL = "round 2, until 01:46:40 UTC"


class Collecting(Screen):
    """What a line has said, one after the other, and by which step. It draws nothing."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[tuple[str, str]] = []

    @contextmanager
    def line(self, text: str) -> Iterator[Update]:
        self.said.append((text, "begun"))
        yield lambda new, step="", /: self.said.append((new, step))


def test_it_counts_down_and_then_says_each_step_once() -> None:
    screen = Collecting()
    with Line(screen, str(PEER), UNTIL, 12.2) as line:
        for left_s in (12.2, 12.1, 9.9, 4.1, 0.4, 0.2, -0.1):
            line.count_down(left_s)
        for event in (
            Resolved(MonoNs(1), (PEER,)),
            Armed(MonoNs(2), MonoNs(9)),
            Fired(MonoNs(3), PEER),
            Fired(MonoNs(4), PEER),
            Up(MonoNs(5), PEER, Via.CONNECT),
        ):
            line.on_event(event)
        line.on_event(Verified(MonoNs(6), PEER))
    assert screen.said == [
        (f"meeting {PEER} in 12 s ({UNTIL})", "begun"),
        (f"meeting {PEER} in 12 s ({UNTIL})", "ahead"),
        (f"meeting {PEER} in 10 s ({UNTIL})", "soon"),
        (f"meeting {PEER} in 4 s ({UNTIL})", "soon"),
        (f"meeting {PEER} in 0 s ({UNTIL})", "soon"),
        (f"SYN out to {PEER} ({UNTIL})", "fired"),
        (f"{PEER} answered ({UNTIL})", "up"),
        (f"{PEER} is proven ({UNTIL})", "verified"),
    ]


def answered(error: int) -> Event:
    return Answered(MonoNs(5), Attempt(PEER, MonoNs(3), MonoNs(3), MonoNs(5), error))


def test_a_stream_is_told_as_it_comes_up_before_anything_is_proven_and_a_refusal_is_not() -> None:
    screen = Collecting()
    with Line(screen, str(PEER), UNTIL, 0.0) as line:
        for event in (Fired(MonoNs(3), PEER), answered(errno.ECONNREFUSED), answered(0), Fired(MonoNs(6), PEER)):
            line.on_event(event)
    assert [step for _, step in screen.said] == ["begun", "fired", "up", "fired"]


def test_whether_its_shots_have_left_is_known() -> None:
    with Line(Collecting(), str(PEER), UNTIL, 1.0) as line:
        line.on_event(Armed(MonoNs(2), MonoNs(9)))
        assert not line.has_fired
        line.on_event(Fired(MonoNs(3), PEER))
        assert line.has_fired
