"""Errors that come out of another process, or are copied, are whole."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

import pytest

import simopen
from simopen import errors
from simopen.clock.source import plain
from simopen.errors import Flaw, PunchError, SimopenError, TicketError
from simopen.model.server import Heard
from tests.loopback import HERE, THERE, ports
from tests.ticket.test_codec import SIMPLE

T = TypeVar("T")
__all__ = ["ports"]


def pickled(value: T, protocol: int) -> T:
    return pickle.loads(pickle.dumps(value, protocol))  # type: ignore[no-any-return]


WAYS: dict[str, Callable[[SimopenError], SimopenError]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {number}": partial(pickled, protocol=number) for number in range(pickle.HIGHEST_PROTOCOL + 1)},
}


def failed(ports: tuple[int, int]) -> PunchError:
    """An error as a punch raises it, with a report and a diagnosis."""
    here, there = (HERE, ports[0]), (THERE, ports[1])
    try:
        asyncio.run(simopen.connect(there, local=here, window=0.05, clock=plain()))
    except PunchError as error:
        error.add_note("looked up in vain")
        return error
    raise AssertionError("somebody was there")


def kinds(base: type[SimopenError] = SimopenError) -> list[type[SimopenError]]:
    public = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, base)]
    return [each for each in public if each is not TicketError]


@pytest.mark.parametrize("way", WAYS)
def test_an_error_of_a_punch_is_whole(way: str, ports: tuple[int, int]) -> None:
    error = failed(ports)
    again = WAYS[way](error)
    assert type(again) is simopen.WindowClosed
    assert (str(again), repr(again), again.args) == (str(error), repr(error), error.args)
    assert again.report is not None
    assert again.report == error.report
    assert again.diagnosis is not None
    assert again.diagnosis == error.diagnosis
    assert again.__notes__ == ["looked up in vain"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_is_whole(kind: type[SimopenError], way: str) -> None:
    again = WAYS[way](kind("what happened"))
    assert type(again) is kind
    assert (str(again), again.__dict__) == ("what happened", kind("what happened").__dict__)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("flaw", Flaw)
def test_a_tickets_error_is_whole(flaw: Flaw, way: str) -> None:
    error = TicketError(flaw, "ask for a new one")
    error.add_note("seen")
    again = WAYS[way](error)
    assert isinstance(again, TicketError)
    assert (again.flaw, str(again), again.__notes__) == (flaw, str(error), ["seen"])


@pytest.mark.parametrize("value", [SIMPLE, SIMPLE.profile, plain()], ids=lambda value: type(value).__name__)
def test_what_a_call_is_given_or_returns_can_be_pickled(value: object) -> None:
    assert copy.deepcopy(value) == pickled(value, pickle.HIGHEST_PROTOCOL) == value


def refuse() -> None:
    raise TicketError(Flaw.EXPIRED, "ask for a new one")


def test_an_error_comes_whole_out_of_a_pool_of_processes() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(TicketError, match="expired: ask") as caught,
    ):
        pool.submit(refuse).result(timeout=30)
    assert caught.value.flaw is Flaw.EXPIRED


@pytest.mark.parametrize(
    "error",
    [simopen.StunError("nobody", (Heard.NO_WAY,)), simopen.ClockError("nobody", (Heard.NOTHING,), has_advice=True)],
)
def test_what_was_heard_goes_along_into_another_process(error: simopen.StunError | simopen.ClockError) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert (str(other), vars(other)) == (str(error), vars(error))
