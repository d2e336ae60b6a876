"""Which arguments of `connect` and `punch` go together: a type checker refuses the rest, and so does the call.

Each wrong call below has to be marked for the type checker, and strict mypy complains of a mark that marks nothing: so
`mypy` itself proves that each is refused.
"""

from __future__ import annotations

import inspect
import socket
import typing
from collections.abc import Awaitable, Callable
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

import simopen
from simopen.clock import source as clock
from simopen.clock.scheduler import Fired, Scheduler
from simopen.holepunch import api
from simopen.holepunch.options import Common, Keyed, Options
from simopen.holepunch.targets import Order, planned
from simopen.model.endpoint import Endpoint
from simopen.model.shot import Plan, Shot
from simopen.model.times import MonoNs
from tests.loopback import HERE, THERE, ports
from tests.ticket.test_codec import SIMPLE

__all__ = ["ports"]  # the fixture is used by name

PEER = (THERE, 9)
TICKET = SIMPLE
PROFILE = SIMPLE.profile
NOW = clock.plain()

WRONG: list[Callable[[], Awaitable[object]]] = [
    lambda: simopen.connect(TICKET, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.connect(PROFILE, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.connect(TICKET, mine=PROFILE, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.connect(PROFILE, mine=TICKET, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.connect(PROFILE, mine=PROFILE, local=1314, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.connect(PEER, mine=TICKET, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.connect(PEER, mine=PROFILE, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.connect(PEER, spray=True, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.connect(PEER, 1314),  # type: ignore[call-overload]
    lambda: simopen.connect(PEER, wait=3),  # type: ignore[call-overload]
    lambda: simopen.connect("127.0.0.2:9", clock=NOW),  # type: ignore[arg-type]
    lambda: simopen.connect(PEER, at="soon", clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.connect(PEER, window="10s", clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.connect(PEER, first_ttl=3.5, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.connect(PEER, on_event=5, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.connect(PEER, limit="64k", clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.punch(TICKET, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.punch(PROFILE, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.punch(TICKET, mine=TICKET, local=1314, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.punch(PEER, mine=TICKET, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.punch(PEER, spray=True, clock=NOW),  # type: ignore[call-overload]
    lambda: simopen.punch(PEER, limit=2**16, clock=NOW),  # type: ignore[call-overload]
]


@pytest.mark.parametrize("call", WRONG, ids=range(len(WRONG)))
async def test_what_a_type_checker_refuses_is_refused_before_anything_is_sent(
    call: Callable[[], Awaitable[object]],
) -> None:
    with pytest.raises(TypeError):
        await call()


@pytest.mark.parametrize(("function", "shared"), [(api.connect, Keyed), (api.punch, Common)])
def test_the_call_takes_what_its_overloads_take_and_says_each_itself(
    function: Callable[..., object], shared: type
) -> None:
    taken = set(inspect.signature(function).parameters)
    said = set(typing.get_type_hints(shared))
    for overload in typing.get_overloads(function):
        said |= set(inspect.signature(overload).parameters) - {"options"}
    assert said == taken
    described = inspect.getdoc(api.connect) or ""
    assert all(f"\n    {name}: " in described for name in taken)


def test_the_options_are_one_frozen_value() -> None:
    options = Options.told(at=1_900_000_000, window=3, clock=NOW)
    assert (options.window_s, options.window_ns) == (3, 3_000_000_000)
    with pytest.raises(FrozenInstanceError):
        options.window_s = 4  # type: ignore[misc]


async def test_a_plan_that_is_made_is_not_made_again() -> None:
    """What is fired at is the plan's that was handed over, not what the two profiles would call for."""
    options = Options.told(at=NOW.utc_ns / 1e9 + 60, clock=NOW)
    order = Order(options.when, options.window_ns, options.clock)
    known = Plan((Shot(1314, Endpoint(THERE, 9)),), why="worked out before", chance=1)
    aim = await planned(PROFILE, PROFILE, order, spray=False, known=known)
    assert (aim.plan, aim.peers) == ("worked out before", (Endpoint(THERE, 9),))


class Counting(Scheduler):
    """Counts the instants that it waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    async def at(self, when_ns: int, *calls: Any, **options: Any) -> list[Fired]:
        self.waits += 1
        return await super().at(MonoNs(when_ns), *calls, **options)


async def test_the_scheduler_that_is_passed_fires(ports: tuple[int, int]) -> None:
    own, soon = Counting(), clock.plain().utc_ns / 1e9 + 0.2
    with socket.create_server((THERE, ports[1])) as server:
        options = Options.told(at=soon, local=(HERE, ports[0]), clock=clock.plain(), scheduler=own)
        _, writer = await api.connected((THERE, ports[1]), None, options)
        writer.transport.abort()
        server.accept()[0].close()
    assert own.waits == 1
