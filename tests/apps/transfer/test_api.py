"""Transfers over a stream: whole ones, refused ones, and those that end at any moment and go on from there."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from simopen.apps.transfer import messages, staging
from simopen.apps.transfer.api import ending, offered, receive, refuse, send, telling, unless_gone
from simopen.apps.transfer.incoming import Incoming
from simopen.apps.transfer.messages import Accepted, Complete, Has, Message, Offer, Received
from simopen.apps.transfer.outgoing import Outgoing, text
from simopen.errors import TransferError
from tests.apps.transfer.streams import Streams, both, stream

DATA = random.Random(1).randbytes(3_000_001)


async def take(streams: Streams, into: Path, told: list[int] | None = None) -> int:
    what = await offered(streams[0])
    with Incoming(what, into) as incoming:
        return await receive(*streams, incoming, (told if told is not None else []).append)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "from" / "top"
    (top / "empty").mkdir(parents=True)
    (top / "many").mkdir()
    (top / "big").write_bytes(DATA)
    for number in range(300):
        (top / "many" / f"{number}.txt").write_bytes(str(number).encode() * number)
    (tmp_path / "into").mkdir()
    return top


def same(one: Path, other: Path) -> bool:
    def all_of(top: Path) -> dict[str, bytes | None]:
        return {
            str(each.relative_to(top)): each.read_bytes() if each.is_file() else None for each in sorted(top.rglob("*"))
        }

    return all_of(one) == all_of(other)


async def test_a_folder_crosses_and_both_hear_how_far_it_is(tree: Path, tmp_path: Path) -> None:
    sent: list[int] = []
    came: list[int] = []
    out = Outgoing([str(tree)])
    async with stream() as (ours, theirs):
        assert await both(send(*ours, out, sent.append), take(theirs, tmp_path / "into", came)) == [
            None,
            out.offer.size,
        ]
    assert same(tree, tmp_path / "into" / "top")
    for told in (sent, came):
        assert told == sorted(told)
        assert told[-1] == out.offer.size
    assert os.listdir(tmp_path / "into") == ["top"]


async def test_a_text_crosses() -> None:
    async with stream() as (ours, theirs):

        async def read() -> str | None:
            what = await offered(theirs[0])
            await receive(*theirs, None)
            return what.message

        assert await both(send(*ours, text("a text")), read()) == [None, "a text"]


async def test_who_refuses_says_why(tree: Path) -> None:
    async with stream() as (ours, theirs):

        async def decline() -> None:
            await offered(theirs[0])
            await refuse(theirs[1], "not\x1b today")

        failed, _ = await both(send(*ours, Outgoing([str(tree)])), decline())
        assert isinstance(failed, TransferError)
        assert "does not take it: not\\x1b today" in str(failed)


async def test_a_receiver_that_cannot_write_tells_the_sender(tree: Path, tmp_path: Path) -> None:
    class Full(Incoming):
        def take(self, batch: Any) -> int:
            del batch
            raise TransferError("cannot write x: No space left on device")

    async with stream() as (ours, theirs):

        async def full() -> None:
            with Full(await offered(theirs[0]), tmp_path / "into") as incoming:
                await receive(*theirs, incoming)

        told = await both(send(*ours, Outgoing([str(tree)])), full())
        assert all(isinstance(each, TransferError) and "No space left" in str(each) for each in told), told


async def test_a_receiver_that_cannot_write_tells_a_sender_that_has_nothing_to_say_meanwhile(tmp_path: Path) -> None:
    class Full(Incoming):
        def take(self, batch: Any) -> int:
            del batch
            raise TransferError("cannot write x: No space left on device")

    reading, writing = os.pipe()
    try:
        os.write(writing, b"some, and nothing more for now")
        async with stream() as (ours, theirs):

            async def full() -> None:
                with Full(await offered(theirs[0]), tmp_path) as incoming:
                    await receive(*theirs, incoming)

            told = await both(send(*ours, Outgoing(["-"], stdin=reading)), full())
            assert all(isinstance(each, TransferError) and "No space left" in str(each) for each in told), told
    finally:
        os.close(reading)
        os.close(writing)


async def test_a_sender_that_cannot_read_tells_the_receiver(tree: Path, tmp_path: Path) -> None:
    out = Outgoing([str(tree)])
    (tree / "many" / "7.txt").unlink()
    async with stream() as (ours, theirs):
        told = await both(send(*ours, out), take(theirs, tmp_path / "into"))
        assert all(isinstance(each, TransferError) and "7.txt" in str(each) for each in told), told
    assert not (tmp_path / "into" / "top").exists()


class Edited(Outgoing):
    """Whose file is written to, in place, once a part of it is on its way."""

    def frames(self, has: Mapping[str, Has]) -> Generator[tuple[bytes, int], None, None]:
        file = Path(self.entries[0].where)
        os.utime(file, ns=(0, 0))  # else the two changes may have the same time
        original = file.read_bytes()
        for frame, done in super().frames(has):
            yield frame, done
            if done and file.read_bytes() == original:
                file.write_bytes(bytes(len(original)))


async def test_a_file_that_is_changed_while_it_is_sent_is_not_published_and_both_are_told(
    tree: Path, tmp_path: Path
) -> None:
    file, into = tree / "big", tmp_path / "into"
    async with stream() as (ours, theirs):
        told = await both(send(*ours, Edited([str(file)])), take(theirs, into))
        why = "was changed while it was sent: send it again"
        assert all(isinstance(each, TransferError) and f"big' {why}" in str(each) for each in told), told
    assert not (into / "big").exists()
    async with stream() as (ours, theirs):
        assert await both(send(*ours, Outgoing([str(file)])), take(theirs, into)) == [None, len(DATA)]
    assert (into / "big").read_bytes() == file.read_bytes()


async def relayed(ours: Streams, theirs: Streams, most: int) -> None:
    """Pass on so many bytes from the one to the other, and whatever comes back; then cut both."""

    async def back() -> None:
        while piece := await theirs[0].read(2**16):
            ours[1].write(piece)

    backwards = asyncio.create_task(back())
    try:
        while most > 0 and (piece := await ours[0].read(min(most, 2**16))):
            theirs[1].write(piece)
            await theirs[1].drain()
            most -= len(piece)
    finally:
        backwards.cancel()
        await asyncio.gather(backwards, return_exceptions=True)
        for each in (ours, theirs):
            each[1].close()


async def test_what_is_cut_at_any_byte_goes_on_from_there_and_is_right(tree: Path, tmp_path: Path) -> None:
    """The path may die at each byte; each next transfer brings some more."""
    moments = random.Random(2)
    sizes = [1, 5, 200, 300, *(moments.randrange(400, 1_500_000) for _ in range(8)), 2**40]
    into = tmp_path / "into"
    skipped = 0
    for size in sizes:
        out = Outgoing([str(tree)])
        async with stream() as (one, near), stream() as (far, other):
            ends = await both(send(*one, out), take(other, into), relayed(near, far, size))
        assert (ends[0] is None) == (size == sizes[-1])
        assert (into / "top").exists() == (size == sizes[-1])
        assert out.skipped >= skipped, "nothing that came is sent twice"
        skipped = out.skipped
    assert skipped > 1_000_000
    assert same(tree, into / "top")
    assert os.listdir(into) == ["top"]


@pytest.mark.parametrize("who", [0, 1])
async def test_who_is_interrupted_at_any_moment_tells_the_other(tree: Path, tmp_path: Path, who: int) -> None:
    moments = random.Random(who)
    into = tmp_path / "into"
    async with stream():
        pass  # uvloop's own descriptors come with the first one
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        async with stream() as (ours, theirs):
            tasks = [
                asyncio.ensure_future(send(*ours, Outgoing([str(tree)]))),
                asyncio.ensure_future(take(theirs, into)),
            ]
            for _ in range(moments.randrange(200)):
                await asyncio.sleep(0)
            tasks[who].cancel()
            ends = await both(*tasks)
            if (into / "top").exists():
                break  # all was there already
            assert isinstance(ends[who], asyncio.CancelledError)
            assert isinstance(ends[1 - who], (TransferError, ConnectionError)), ends
        assert not (into / "top").exists()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("is_late", [False, True])
async def test_who_is_interrupted_as_all_is_put_on_disk_knows_whether_it_is_there(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_late: bool
) -> None:
    """The disk may take long, and a name is given after that or not at all; the sender is told which."""
    at, goes_on = asyncio.Event(), threading.Event()
    loop, where = asyncio.get_running_loop(), "_renamed" if is_late else "_sync"
    before = getattr(staging, where)

    def slow(*arguments: Any) -> Any:
        loop.call_soon_threadsafe(at.set)
        assert goes_on.wait(10)
        return before(*arguments)

    monkeypatch.setattr(staging, where, slow)
    async with stream() as (ours, theirs):
        sending = asyncio.ensure_future(send(*ours, Outgoing([str(tree)])))
        taking = asyncio.ensure_future(take(theirs, tmp_path / "into"))
        await at.wait()
        taking.cancel()
        await asyncio.sleep(0)
        goes_on.set()
        ended = await asyncio.gather(sending, taking, return_exceptions=True)
    assert isinstance(ended[1], asyncio.CancelledError)
    assert (ended[0] is None) is is_late is (tmp_path / "into" / "top").exists()
    if not is_late:
        assert "interrupted" in str(ended[0])


async def test_a_sender_that_leaves_while_the_person_thinks(tree: Path) -> None:
    async with stream() as (ours, theirs):
        sending = asyncio.ensure_future(send(*ours, Outgoing([str(tree)])))
        await offered(theirs[0])
        asking = asyncio.ensure_future(unless_gone(*theirs, asyncio.Event().wait()))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(TransferError, match="interrupted"):
            await asking
        await both(sending)


async def test_a_person_who_interrupts_the_question_is_told_of(tree: Path) -> None:
    async with stream() as (ours, theirs):
        sending = asyncio.ensure_future(send(*ours, Outgoing([str(tree)])))
        await offered(theirs[0])
        asking = asyncio.ensure_future(unless_gone(*theirs, asyncio.Event().wait()))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(TransferError, match="interrupted"):
            await sending
        await both(asking)


async def test_who_fails_reads_on_so_that_the_peer_hears_why() -> None:
    """A socket that is closed with something unread is reset, and what was said last is lost."""
    async with stream() as (ours, theirs):

        async def fail() -> None:
            async with ending(*theirs):
                raise TransferError("the disk is full")

        async def push() -> object:
            ours[1].write(bytes(16_000_000))
            await ours[1].drain()
            said = await messages.read(ours[0])
            ours[1].close()
            return said

        assert (await both(push(), fail()))[0] == messages.Failed("the disk is full")


class Slow(Outgoing):
    """Whose files take until `done` is set."""

    def __init__(self, path: Path) -> None:
        super().__init__([str(path)])
        self.begun, self.done = threading.Event(), threading.Event()
        self.has: Mapping[str, Has] = {}

    def frames(self, has: Mapping[str, Has]) -> Generator[tuple[bytes, int], None, None]:
        self.has = has
        self.begun.set()
        self.done.wait()
        yield from super().frames(has)


async def test_who_is_interrupted_twice_waits_for_what_has_files_open(tree: Path) -> None:
    out = Slow(tree)
    async with stream() as (ours, theirs):
        sending = asyncio.ensure_future(send(*ours, out))
        theirs[1].write(messages.record(Accepted()))
        await asyncio.to_thread(out.begun.wait)
        for _ in range(3):
            sending.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
        assert not sending.done()
        theirs[1].close()
        out.done.set()
        with pytest.raises(asyncio.CancelledError):
            await sending


async def test_of_what_the_receiver_has_the_senders_own_files_are_kept(tree: Path) -> None:
    out = Slow(tree)
    out.done.set()
    known = Has("top/big", 1, "0" * 64)
    async with stream() as (ours, theirs):
        sending = asyncio.ensure_future(send(*ours, out))
        others = (Has(f"top/{number}", 1, "0" * 64) for number in range(1000))
        answers: list[Message] = [*others, known, known, Accepted()]
        for each in answers:
            theirs[1].write(messages.record(each))
        await asyncio.to_thread(out.begun.wait)
        sending.cancel()
        theirs[1].close()
        await both(sending)
    assert out.has == {"top/big": known}


X = Offer(messages.VERSION, ("x",), 1, 0, 4)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([Received()], "out of turn"),
        ([X], "out of turn"),
        ([Accepted(), Received()], "has not been sent it"),
        ([Accepted(), Accepted()], "has not been sent it"),
        ([Has("x", 1, "0" * 64), Complete()], "out of turn"),
    ],
)
async def test_a_receiver_that_says_something_else(tree: Path, answers: list[Message], why: str) -> None:
    async with stream() as (ours, theirs):
        for each in answers:
            theirs[1].write(messages.record(each))
        theirs[1].write_eof()
        with pytest.raises(TransferError, match=why):
            await send(*ours, Outgoing([str(tree)]))


@pytest.mark.parametrize("first", [Accepted(), Complete(), b"data"])
async def test_a_sender_that_begins_with_something_else_is_told(first: Message | bytes) -> None:
    async with stream() as (ours, theirs):
        ours[1].write(messages.data(first) if isinstance(first, bytes) else messages.record(first))
        ours[1].write_eof()
        with pytest.raises(TransferError, match="something else"):
            async with telling(*theirs):
                await offered(theirs[0])
        said = await messages.read(ours[0])
        assert isinstance(said, messages.Failed)
        assert "something else" in said.reason
