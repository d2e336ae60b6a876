"""A pipe at whose end each side knows that the other one has all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Iterator

import pytest

from simopen.apps.acknowledged import Frames, carry_to_the_end
from simopen.apps.pipe import Carried
from simopen.apps.transfer import messages
from tests.apps.transfer.streams import Streams, both, stream

DATA = random.Random(3).randbytes(700_000)


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    made = [os.pipe() for _ in range(4)]
    numbers = [(fd, os.fstat(fd).st_ino) for each in made for fd in each]
    yield made
    for fd, pipe in numbers:
        with contextlib.suppress(OSError):
            if os.fstat(fd).st_ino == pipe:  # else a test has closed it, and the number is something else's
                os.close(fd)


async def carried(streams: Streams, source: int, sink: int, frames: Frames | None = None) -> Carried:
    """What was; the sink's writing end is closed once the peer has ended."""
    counted = Carried()
    await carry_to_the_end(
        frames or Frames(streams[0]),
        streams[1],
        source=source,
        sink=sink,
        carried=counted,
        peer_ended=lambda: os.close(sink),
    )
    return counted


async def given(fd: int, data: bytes) -> None:
    def write() -> None:
        with open(fd, "wb") as file:
            file.write(data)

    await asyncio.to_thread(write)


async def read(fd: int) -> bytes:
    def to_the_end() -> bytes:
        with open(fd, "rb") as file:
            return file.read()

    return await asyncio.to_thread(to_the_end)


async def test_both_directions_to_their_ends(pipes: list[tuple[int, int]]) -> None:
    (in_one, put_one), (get_one, out_one), (in_two, put_two), (get_two, out_two) = pipes
    async with stream() as (ours, theirs):
        ends = await both(
            carried(ours, in_one, out_one),
            carried(theirs, in_two, out_two),
            given(put_one, DATA),
            given(put_two, b"back"),
            read(get_one),
            read(get_two),
        )
    assert ends[:2] == [Carried(len(DATA), 4), Carried(4, len(DATA))]
    assert ends[4:] == [b"back", DATA]


async def test_one_direction_goes_on_after_the_others_end(pipes: list[tuple[int, int]]) -> None:
    (in_one, put_one), (get_one, out_one), (in_two, put_two), (get_two, out_two) = pipes
    os.close(put_one)
    async with stream() as (ours, theirs):
        sides = asyncio.gather(carried(ours, in_one, out_one), carried(theirs, in_two, out_two))
        assert await read(get_two) == b"", "the end travels while the other side says nothing"
        ends = await both(sides, given(put_two, b"late"), read(get_one))
    assert ends[0] == [Carried(0, 4), Carried(4, 0)]
    assert ends[2] == b"late"


async def test_a_peer_that_ends_without_a_word_is_an_error(pipes: list[tuple[int, int]]) -> None:
    (in_one, put_one), (_, out_one) = pipes[:2]
    os.close(put_one)
    async with stream() as (ours, theirs):
        theirs[1].write(messages.data(b"some") + messages.data(b""))
        theirs[1].write_eof()
        counted = await carried(ours, in_one, out_one)
    assert counted.error is not None
    assert counted.received == 4


async def test_a_peer_that_has_failed_says_why(pipes: list[tuple[int, int]]) -> None:
    (in_one, _), (_, out_one) = pipes[:2]
    async with stream() as (ours, theirs):
        theirs[1].write(messages.failed("cannot write to standard output: No space left on device"))
        counted = await carried(ours, in_one, out_one)
    assert counted.error is not None
    assert "No space left" in counted.error


async def test_another_talker(pipes: list[tuple[int, int]]) -> None:
    (in_one, _), (_, out_one) = pipes[:2]
    async with stream() as (ours, theirs):
        theirs[1].write(b"SSH-2.0-OpenSSH_9.6\r\n")
        counted = await carried(ours, in_one, out_one)
    assert counted.error is not None
    assert "does not speak" in counted.error


async def test_what_the_peer_says_before_anything_is_carried_is_not_lost(pipes: list[tuple[int, int]]) -> None:
    (in_one, put_one), (get_one, out_one) = pipes[:2]
    os.close(put_one)
    async with stream() as (ours, theirs):
        frames = Frames(ours[0])
        greeting = messages.data(b"a greeting")
        theirs[1].write(greeting[:7])
        connected = asyncio.Event()
        waiting = asyncio.ensure_future(frames.unless_gone(connected.wait()))
        await asyncio.sleep(0)
        connected.set()
        assert await waiting
        theirs[1].write(greeting[7:] + messages.data(b"") + messages.record(messages.Received()))
        theirs[1].write_eof()
        ends = await both(carried(ours, in_one, out_one, frames), read(get_one))
    assert ends == [Carried(0, 10), b"a greeting"]


@pytest.mark.parametrize("said", [messages.failed("it was interrupted"), b""])
async def test_a_peer_that_leaves_before_anything_is_carried(said: bytes) -> None:
    async with stream() as (ours, theirs):
        theirs[1].write(said)
        theirs[1].write_eof()
        frames = Frames(ours[0])
        with pytest.raises(ConnectionResetError, match="interrupted" if said else "left"):
            await frames.unless_gone(asyncio.Event().wait())


@pytest.mark.parametrize("said", [messages.failed("it was interrupted"), b""])
async def test_a_peer_that_greets_and_leaves_before_anything_is_carried(said: bytes) -> None:
    async with stream() as (ours, theirs):
        theirs[1].write(messages.data(b"SSH-2.0-") + messages.data(b"x") + messages.data(b""))
        theirs[1].write(said)
        theirs[1].write_eof()
        frames = Frames(ours[0])
        with pytest.raises(ConnectionResetError, match="interrupted" if said else "left"):
            await frames.unless_gone(asyncio.Event().wait())


async def test_all_that_the_peer_says_before_anything_is_carried_is_carried(pipes: list[tuple[int, int]]) -> None:
    (in_one, put_one), (get_one, out_one) = pipes[:2]
    os.close(put_one)
    async with stream() as (ours, theirs):
        frames, connected = Frames(ours[0]), asyncio.Event()
        waiting = asyncio.ensure_future(frames.unless_gone(connected.wait()))
        theirs[1].write(b"".join(map(messages.data, (b"one ", b"two ", b"three", b""))))
        while len(frames._kept) < 4:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
        connected.set()
        assert await waiting
        carrying = asyncio.ensure_future(both(carried(ours, in_one, out_one, frames), read(get_one)))
        said = [await messages.read(theirs[0]) for _ in range(2)]
        assert b"" in said, "this side's end, which may come before its word that it has all, or after it"
        assert any(isinstance(each, messages.Received) for each in said)
        theirs[1].write(messages.record(messages.Received()))
        assert await carrying == [Carried(0, 13), b"one two three"]


@pytest.mark.parametrize("piece", [b"", bytes(messages.MOST_DATA)])
async def test_what_is_kept_before_anything_is_carried_has_an_end(piece: bytes) -> None:
    frame, at_once = messages.data(piece), 1 + 2**16 * (not piece)

    async def gives(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(frame * at_once)
            await writer.drain()

    async with stream() as (ours, theirs):
        frames, connected = Frames(ours[0]), asyncio.Event()
        giving = asyncio.ensure_future(gives(theirs[1]))
        waiting = asyncio.ensure_future(frames.unless_gone(connected.wait()))
        while frames._room > 0:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
        kept = len(frames._kept)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(frames._kept) == kept
        assert kept * (len(piece) + 64) < 2**20 + len(frame) + 64
        connected.set()
        assert await waiting
        giving.cancel()


async def test_who_is_interrupted_before_anything_is_carried_reads_no_more() -> None:
    async with stream() as (ours, theirs):
        frames = Frames(ours[0])
        waiting = asyncio.ensure_future(frames.unless_gone(asyncio.Event().wait()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        theirs[1].write(b"x")
        assert await ours[0].readexactly(1) == b"x"


@pytest.mark.parametrize("steps", range(5))
async def test_who_is_interrupted_as_the_waiting_ends_reads_no_more(steps: int) -> None:
    async with stream() as (ours, theirs):
        frames, connected = Frames(ours[0]), asyncio.Event()
        waiting = asyncio.ensure_future(frames.unless_gone(connected.wait()))
        await asyncio.sleep(0)
        connected.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        if not waiting.cancelled():
            await frames.stop()
        theirs[1].write(b"x")
        assert await ours[0].readexactly(1) == b"x"


@pytest.mark.parametrize("said", [messages.failed("cannot write to standard output"), b""])
async def test_a_peer_that_goes_after_its_end_is_told_at_once_though_nothing_is_to_be_sent(
    pipes: list[tuple[int, int]], said: bytes
) -> None:
    (in_one, _), (_, out_one) = pipes[:2]
    async with stream() as (ours, theirs):
        carrying = asyncio.ensure_future(carried(ours, in_one, out_one))
        theirs[1].write(messages.data(b"some") + messages.data(b""))
        await theirs[1].drain()
        assert isinstance(await messages.read(theirs[0]), messages.Received)
        theirs[1].write(said)
        theirs[1].write_eof()
        counted = await carrying
    assert counted.error is not None
    assert ("cannot write to standard output" in counted.error) is bool(said)
    assert counted.received == 4


async def test_interrupted_after_the_peers_end_it_leaves_nothing(pipes: list[tuple[int, int]]) -> None:
    (in_one, _), (_, out_one) = pipes[:2]
    async with stream() as (ours, theirs):
        carrying = asyncio.ensure_future(carried(ours, in_one, out_one))
        theirs[1].write(messages.data(b""))
        await messages.read(theirs[0])
        carrying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await carrying
        assert asyncio.all_tasks() == {asyncio.current_task()}
