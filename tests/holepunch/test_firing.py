"""A name that is looked up again before the instant: what is fired at then."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from simopen.clock import source as clock
from simopen.clock.source import FixedClock
from simopen.clock.true_time import When
from simopen.holepunch.firing import in_window, renew
from simopen.holepunch.runner import Runner
from simopen.holepunch.targets import Aim, Order
from simopen.holepunch.trace import Trace
from simopen.model.endpoint import Endpoint
from simopen.model.shot import Shot
from simopen.model.times import MonoNs
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]  # the fixture is used by name


def waiting(ports: tuple[int, int], answers: list[str], left_s: float, asked_s: float = 60) -> Trace:
    """A punch at a name that meant THERE when it was looked up, so many seconds ago; `answers`: what it means now."""

    def look_up(host: str, port: int, **_: object) -> list[Any]:
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, 1, 6, "", (each, port)) for each in answers]

    source = FixedClock(clock.plain())
    at_ns = source.now_estimate().utc_ns + round(left_s * 1e9)
    aim = Aim(
        (HERE, ports[0]),
        (Shot(ports[0], Endpoint(THERE, ports[1])),),
        names=(("home.example", ports[1]),),
        asked_ns=MonoNs(time.monotonic_ns() - round(asked_s * 1e9)),
        look_up=look_up,
    )
    return Trace(Order(When.told(at_ns / 1e9, source), 5_000_000_000, source), aim, 5.0)


async def test_a_name_that_changes_while_waiting_is_fired_at_where_it_is_now(ports: tuple[int, int]) -> None:
    trace = waiting(ports, ["127.0.0.3"], left_s=3.5)  # of which 1.5 s are for asking, on a busy machine
    (shot,) = trace.aim.shots
    with (
        socket.create_server(("127.0.0.3", ports[1])) as server,
        Runner.opened(HERE, [shot], left=9, resends=1) as runner,
    ):
        trace.runner = runner
        stream = await in_window(runner, trace)
        with stream.sock, server.accept()[0]:
            assert stream.remote == Endpoint("127.0.0.3", ports[1])
        report = trace.report(stream)
    assert report.peers == (Endpoint("127.0.0.3", ports[1]),)
    assert [note for note in report.notes if f"has changed from {THERE}:{ports[1]} to 127.0.0.3:{ports[1]}" in note]


@pytest.mark.parametrize(
    ("answers", "asked_s", "note"),
    [
        ([THERE], 60, ""),
        (["127.0.0.3"], 5, ""),
        ([], 60, "home.example' has no address"),
        (["0.0.0.0"], 60, "no single"),
    ],
)
async def test_a_name_that_has_not_changed_or_cannot_be_looked_up_again_is_fired_at_as_before(
    ports: tuple[int, int], answers: list[str], asked_s: float, note: str
) -> None:
    trace = waiting(ports, answers, left_s=6, asked_s=asked_s)
    with Runner.opened(HERE, trace.aim.shots) as runner:
        await renew(runner, trace)
        assert runner.peers == (Endpoint(THERE, ports[1]),)
    assert all(note and note in told for told in trace.notes)
    assert len(trace.notes) == bool(note)
