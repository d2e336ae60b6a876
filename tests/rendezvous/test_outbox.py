"""What is said although whoever said it was cancelled, and in which order."""

from __future__ import annotations

import asyncio

import pytest

from simopen.errors import SignallingError
from simopen.rendezvous.exchange import Send
from simopen.rendezvous.outbox import Outbox
from simopen.signalling.base import Message, Mood, Welcome


class Gated:
    """A rendezvous that takes messages once it is open, or refuses them. Nothing is ever heard there."""

    def __init__(self, error: SignallingError | None = None) -> None:
        self.welcome, self.error = Welcome(), error
        self.open, self.waits = asyncio.Event(), asyncio.Event()
        self.taken: list[str] = []

    async def send(self, phase: str, body: bytes) -> None:
        self.waits.set()
        await self.open.wait()
        if self.error is not None:
            raise self.error
        self.taken.append(phase)

    async def allocate(self) -> str:
        raise NotImplementedError

    async def enter(self, room: str) -> None:
        raise NotImplementedError

    async def receive(self) -> Message:
        raise NotImplementedError

    async def close(self, mood: Mood) -> None:
        raise NotImplementedError


async def cancelled_while_it_says(outbox: Outbox, gate: Gated, phase: str) -> None:
    gate.waits.clear()
    saying = asyncio.ensure_future(outbox.say(Send(phase, b"")))
    await gate.waits.wait()
    saying.cancel()
    await asyncio.wait({saying})
    assert saying.cancelled()


async def test_what_a_cancelled_one_was_saying_is_said_before_the_last_words() -> None:
    gate = Gated()
    outbox = Outbox(gate)
    for phase in ("0", "1"):
        await cancelled_while_it_says(outbox, gate, phase)
    last = asyncio.ensure_future(outbox.say(Send("bye", b"")))
    gate.open.set()
    await last
    await outbox.emptied()
    assert gate.taken == ["0", "1", "bye"]


async def test_a_rendezvous_that_takes_nothing_is_told_to_whoever_speaks_and_holds_up_nobody_else() -> None:
    gate = Gated(SignallingError("it is full"))
    outbox = Outbox(gate)
    await cancelled_while_it_says(outbox, gate, "0")
    outbox.post(Send("posted", b""))
    gate.open.set()
    await outbox.emptied()
    with pytest.raises(SignallingError, match="full"):
        await outbox.say(Send("1", b""))


async def test_what_is_not_said_at_the_end_leaves_nothing_behind() -> None:
    gate = Gated()
    outbox = Outbox(gate)
    await cancelled_while_it_says(outbox, gate, "0")
    outbox.close()
    await outbox.emptied()
    assert gate.taken == []
