"""What a meeting may rely on, whichever rendezvous it is: the same tests for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from simopen.errors import RoomCrowded, SignallingError
from simopen.signalling import connect
from simopen.signalling.base import BODY_MOST, Message, Mood, Signaller, Welcome
from simopen.signalling.server import serve
from tests.signalling.places import held_ports, nats_cluster_via, nats_via, wormhole_via

__all__ = ["held_ports", "nats_cluster_via", "nats_via", "wormhole_via"]
pytestmark = pytest.mark.usefixtures("held_ports")
TURNS = 60


@pytest.fixture(
    params=[
        "ours",
        pytest.param("wormhole_via", marks=pytest.mark.real_server),
        pytest.param("nats_via", marks=pytest.mark.real_server),
        pytest.param("nats_cluster_via", marks=pytest.mark.real_server),
    ]
)
async def via(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Each rendezvous."""
    if request.param != "ours":
        yield request.getfixturevalue(request.param)
        return
    async with serve("127.0.0.1", 0, stun_ports=None) as server:
        yield server.url


async def entered(signaller: Signaller) -> str:
    room = await signaller.allocate()
    await signaller.enter(room)
    return room


async def test_two_hear_each_other(via: str) -> None:
    async with connect(via) as one, connect(via) as other:
        await other.enter(await entered(one))
        await one.send("pake", b"of one")
        await other.send("pake", b"of the other")
        assert await one.receive() == Message("pake", b"of the other")
        assert await other.receive() == Message("pake", b"of one")
        assert isinstance(one.welcome, Welcome)


async def test_who_comes_late_misses_nothing(via: str) -> None:
    said = [Message(str(number), bytes([number])) for number in range(5)]
    async with connect(via) as one:
        room = await entered(one)
        for message in said:
            await one.send(message.phase, message.body)
        async with connect(via) as other:
            await other.enter(room)
            heard = [await other.receive() for _ in said]
    assert sorted(heard, key=lambda each: each.phase) == said


async def test_what_is_sent_before_the_room_is_entered_is_kept_for_it(via: str) -> None:
    async with connect(via) as one, connect(via) as other:
        room = await one.allocate()
        await one.send("early", b"!")
        await one.enter(room)
        await other.enter(room)
        assert await other.receive() == Message("early", b"!")


async def test_messages_are_given_once_and_own_ones_never(via: str) -> None:
    async with connect(via) as one, connect(via) as other:
        await other.enter(await entered(one))
        for number in range(20):
            await one.send(str(number), b"")
            await other.send(f"answer {number}", b"")
        of_one = {(await other.receive()).phase for _ in range(20)}
        of_other = {(await one.receive()).phase for _ in range(20)}
        assert of_one == {str(number) for number in range(20)}
        assert of_other == {f"answer {number}" for number in range(20)}


@pytest.mark.parametrize("body", [b"", bytes(range(256)), b"x" * BODY_MOST], ids=["empty", "any bytes", "longest"])
async def test_bodies_arrive_as_they_are(via: str, body: bytes) -> None:
    async with connect(via) as one, connect(via) as other:
        await other.enter(await entered(one))
        await one.send("body", body)
        assert await other.receive() == Message("body", body)


async def test_a_third_is_told_that_it_is_crowded(via: str) -> None:
    async with connect(via) as one, connect(via) as other:
        room = await entered(one)
        await other.enter(room)
        async with connect(via) as third:
            with pytest.raises(RoomCrowded, match=f"room {room}.*make a new code"):
                await third.enter(room)
        await one.send("still", b"here")
        assert await other.receive() == Message("still", b"here")


async def test_free_rooms_are_of_one_each(via: str) -> None:
    async with connect(via) as one, connect(via) as other:
        rooms = {await one.allocate(), await other.allocate()}
    assert len(rooms) == 2
    assert all(room.isdecimal() for room in rooms)


async def test_a_room_that_both_have_left_is_free_and_empty(via: str) -> None:
    async with connect(via) as one, connect(via) as other:
        room = await entered(one)
        await other.enter(room)
        await one.send("old", b"old")
        await other.receive()
        await one.close(Mood.HAPPY)
        await other.close(Mood.HAPPY)
    async with connect(via) as one, connect(via) as other:
        await one.enter(room)
        await other.enter(room)
        await one.send("new", b"new")
        assert await other.receive() == Message("new", b"new")


async def test_waiting_may_be_cancelled_and_loses_nothing(via: str) -> None:
    async with connect(via) as one, connect(via) as other:
        await other.enter(await entered(one))
        for turns in range(5):
            waiting = asyncio.create_task(other.receive())
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
        await one.send("late", b"!")
        assert await other.receive() == Message("late", b"!")


async def test_after_the_end_there_is_nothing(via: str) -> None:
    async with connect(via) as one:
        await entered(one)
        waiting = asyncio.create_task(one.receive())
        await asyncio.sleep(0)
        await one.close(Mood.LONELY)
        await one.close(Mood.HAPPY)
        with pytest.raises(SignallingError):
            await waiting
        with pytest.raises(SignallingError):
            await one.send("x", b"")
        with pytest.raises(SignallingError):
            await one.allocate()


async def test_what_cannot_be_meant_is_refused_here(via: str) -> None:
    async with connect(via) as one:
        for room in ("", "seven", "7-crossover", "1" * 41, "٧", " 7"):
            with pytest.raises(ValueError, match="number"):
                await one.enter(room)
        room = await entered(one)
        await one.send("once", b"")
        with pytest.raises(ValueError, match="phase"):
            await one.send("once", b"")
        with pytest.raises(ValueError, match="phase"):
            await one.send("", b"")
        with pytest.raises(ValueError, match="bytes"):
            await one.send("long", b"x" * (BODY_MOST + 1))
        with pytest.raises(SignallingError, match="one room"):
            await one.enter(room + "0")


async def meet(via: str) -> None:
    async with connect(via) as one, connect(via) as other:
        await other.enter(await entered(one))
        await one.send("x", b"")
        await other.receive()
        await asyncio.Event().wait()


@pytest.mark.parametrize("part", range(4))
async def test_a_meeting_cancelled_anywhere_leaves_nothing(via: str, part: int) -> None:
    """That nothing is left, a guard of all tests sees."""
    for turns in range(part, TURNS, 4):
        meeting = asyncio.create_task(meet(via))
        for _ in range(turns):
            await asyncio.sleep(0)
        meeting.cancel()
        await asyncio.wait({meeting})
        assert meeting.cancelled()
