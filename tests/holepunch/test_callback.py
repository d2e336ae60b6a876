"""A punch tells its steps as they come, and nothing that is done with them harms it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

import simopen
from simopen.clock import source as clock
from simopen.holepunch.callback import Teller
from simopen.model.report import Via
from simopen.model.times import MonoNs
from tests.loopback import HERE, THERE, ports
from tests.stalls import ALONE_S

__all__ = ["ports"]  # the fixture is used by name

STEPS = ["resolved", "clock known", "armed", "fired", "answered", "up"]


def steps(events: list[simopen.Event]) -> list[str]:
    """Each step once, in the order of coming."""
    return list(dict.fromkeys(event.step for event in events))


async def punched(ports: tuple[int, int], on_event: Callable[[simopen.Event], object], **options: Any) -> None:
    """Connect to somebody who listens."""
    with socket.create_server((THERE, ports[1])) as server:
        options = {"local": (HERE, ports[0]), "clock": clock.plain(), "on_event": on_event, **options}
        reader, writer = await simopen.connect((THERE, ports[1]), **options)
        with server.accept()[0] as other:
            other.sendall(b"x")
            assert await reader.read(1) == b"x"
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize("ahead_s", [None, 0.3, 2.5])
async def test_each_step_is_told_in_order_and_in_the_loop(ports: tuple[int, int], ahead_s: float | None) -> None:
    events: list[simopen.Event] = []

    def on_event(event: simopen.Event) -> None:
        assert asyncio.get_running_loop()
        events.append(event)

    at = None if ahead_s is None else clock.plain().utc_ns / 1e9 + ahead_s
    await punched(ports, on_event, at=at)
    assert steps(events) == STEPS
    resolved, known, armed, fired, *_, answered, up = events
    peer = simopen.Endpoint(THERE, ports[1])
    assert isinstance(resolved, simopen.Resolved)
    assert resolved.peers == (peer,)
    assert isinstance(known, simopen.ClockKnown)
    assert at is None or known.instant_utc_ns == round(at * 1e9)
    assert isinstance(armed, simopen.Armed)
    assert isinstance(fired, simopen.Fired)
    assert armed.instant_ns <= fired.at_ns
    assert isinstance(answered, simopen.Answered)
    assert answered.attempt.errno == 0
    assert up == simopen.Up(answered.at_ns, peer, Via.CONNECT)


async def test_every_syn_and_every_rst_is_told(ports: tuple[int, int]) -> None:
    events: list[simopen.Event] = []
    with pytest.raises(simopen.WindowClosed) as caught:
        await simopen.punch(
            (THERE, ports[1]), local=(HERE, ports[0]), window=ALONE_S, clock=clock.plain(), on_event=events.append
        )
    assert caught.value.report
    attempts = caught.value.report.attempts
    assert [event.attempt for event in events if isinstance(event, simopen.Answered)] == [
        attempt for attempt in attempts if attempt.answered
    ]
    assert [event.at_ns for event in events if isinstance(event, simopen.Fired)] == [
        attempt.started_ns for attempt in attempts if attempt.sent
    ]
    assert steps(events) == STEPS[:-1]


@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError()])
async def test_what_it_raises_is_logged_and_harms_nothing(
    ports: tuple[int, int], error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    told = []

    def on_event(event: simopen.Event) -> None:
        told.append(event)
        raise error

    with caplog.at_level(logging.ERROR, "simopen"):
        await punched(ports, on_event)
    assert steps(told) == STEPS
    (record,) = caplog.records
    assert "on_event failed at 'resolved'" in record.message
    assert record.exc_info
    assert record.exc_info[1] is error


async def test_a_callback_may_cancel_its_punch(ports: tuple[int, int]) -> None:
    soon = clock.plain().utc_ns / 1e9 + 0.5
    task = asyncio.ensure_future(punched(ports, lambda event: event.step == "armed" and task.cancel(), at=soon))
    with pytest.raises(asyncio.CancelledError):
        await task


async def tell_later(_: simopen.Event) -> None: ...


@pytest.mark.parametrize(("wrong", "words"), [(5, "callable"), (tell_later, "coroutine")])
async def test_what_cannot_be_called_is_refused_before_anything_happens(wrong: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        await simopen.punch((THERE, 9), on_event=wrong)


def test_ctrl_c_is_not_kept_from_whoever_waits_for_it() -> None:
    def interrupted(_: simopen.Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Teller(interrupted)(simopen.Fired(MonoNs(0), simopen.Endpoint(THERE, 9)))
