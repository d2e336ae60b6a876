"""A transfer from its first word to its last, over asyncio's streams; the parts that block run in a thread.

Theory of operation. Each side listens while its work goes on: the sender reads and sends files while the receiver may
say that it has failed; the receiver reads the stream while a thread writes what came before. A side that ends for a
reason of its own says so to the other, and does not wait long for that. An end of the link that the peer has not sent
is an error, as for every link, so that no half of a file is taken for the whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator, Set
from typing import Any, NoReturn, TypeAlias, TypeVar

from simopen.apps.transfer import messages
from simopen.apps.transfer.incoming import Incoming
from simopen.apps.transfer.messages import Accepted, Complete, Failed, Has, Message, Offer, Received, Refused
from simopen.apps.transfer.outgoing import Outgoing, batch
from simopen.errors import TransferError
from simopen.model.wording import shown
from simopen.net.os_errors import reason
from simopen.net.streams import abort

LIMIT = 2**20
"""Of the reader: as much as goes to the thread at once."""
_LAST_WORD_S = 2.0
_MOMENT_S = 0.1
_RECORD_SIZE = 256  # about

_T = TypeVar("_T")
OnProgress: TypeAlias = Callable[[int], object]
"""Called with how many bytes of files are done; a sender's first with 0, once the receiver takes them."""


async def send(
    reader: StreamReader, writer: StreamWriter, outgoing: Outgoing | Offer, on_progress: OnProgress = lambda done: None
) -> None:
    """Send files, or the text that an offer is, and wait until the receiver has all of it on disk.

    The streams are closed then, or broken off.

    Raises: TransferError, where the receiver refuses, either side fails, or the peer leaves; OSError where the stream
    breaks.
    """
    async with ending(reader, writer):
        offer = outgoing if isinstance(outgoing, Offer) else outgoing.offer
        _say(writer, messages.record(offer))
        entries = () if isinstance(outgoing, Offer) else outgoing.entries
        has = await _answer(reader, {entry.path for entry in entries if not entry.is_folder})
        on_progress(0)
        heard = asyncio.ensure_future(_said(reader))
        frames = _nothing_more() if isinstance(outgoing, Offer) else outgoing.frames(has)
        all_sent = asyncio.Event()
        pushing = asyncio.ensure_future(_push(writer, frames, on_progress, all_sent))
        try:
            await asyncio.wait({heard, pushing}, return_when=asyncio.FIRST_COMPLETED)
            if pushing.done():
                pushing.result()
            if not isinstance(await heard, Received) or not all_sent.is_set():
                raise TransferError("the receiver says that it has all, and has not been sent it")
            await pushing
        finally:
            await _stopped(heard, pushing)
            frames.close()


def _nothing_more() -> Generator[tuple[bytes, int], None, None]:
    """After an offer that is all there is to send."""
    yield messages.record(Complete()), 0


async def _answer(reader: StreamReader, files: Set[str]) -> dict[str, Has]:
    """What the receiver has of these files; of others, which it may have from before, nothing is kept."""
    has: dict[str, Has] = {}
    count = 0
    while not isinstance(said := await _said(reader), Accepted):
        if isinstance(said, Refused):
            raise TransferError(f"the receiver does not take it: {shown(said.reason)}")
        count += 1
        if not isinstance(said, Has) or count > messages.MOST_FILES:
            raise TransferError("the receiver answers out of turn")
        if said.path in files:
            has[said.path] = said
    return has


async def _said(reader: StreamReader) -> Message | bytes:
    """Raises: TransferError for the peer's `Failed`."""
    said = await messages.read(reader)
    if isinstance(said, Failed):
        raise TransferError(f"the other side has failed: {shown(said.reason, 500)}")
    return said


def _say(writer: StreamWriter, frame: bytes) -> None:
    """Of a stream that is closed, the next read or `drain` tells."""
    if not writer.is_closing():  # uvloop's transport would raise a RuntimeError
        writer.write(frame)


async def _push(
    writer: StreamWriter, frames: Iterator[tuple[bytes, int]], on_progress: OnProgress, all_sent: asyncio.Event
) -> None:
    done, last = 0, messages.record(Complete())
    ahead = asyncio.ensure_future(_in_thread(batch, frames))
    try:
        while (taken := await ahead) is not None:
            ahead = asyncio.ensure_future(_in_thread(batch, frames))
            for frame in taken[0]:
                _say(writer, frame)
            if taken[0] and taken[0][-1] == last:
                all_sent.set()
            await writer.drain()
            done += taken[1]
            on_progress(done)
    finally:
        await _stopped(ahead)


async def offered(reader: StreamReader) -> Offer:
    """What the sender has, first of all. Raises: as `send`."""
    said = await _said(reader)
    if not isinstance(said, Offer):
        raise TransferError("the sender has begun with something else than an offer")
    return said


async def refuse(writer: StreamWriter, why: str) -> None:
    """Tell the sender that this is not wanted, and why, and close the streams."""
    _say(writer, messages.record(Refused(why)))
    await _closed(writer)


async def unless_gone(reader: StreamReader, writer: StreamWriter, waiting: Coroutine[Any, Any, _T]) -> _T:
    """What is waited for before anything is accepted; it ends where the sender leaves meanwhile, and the streams do.

    Raises: as `send`.
    """
    heard = asyncio.ensure_future(_said(reader))
    task = asyncio.ensure_future(waiting)
    try:
        await asyncio.wait({heard, task}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else _out_of_turn(heard.result())
    except BaseException:
        await _stopped(heard, task)
        await _failed(reader, writer, "it was interrupted")
        raise
    finally:
        await _stopped(heard, task)


def _out_of_turn(said: object) -> NoReturn:
    raise TransferError(f"the peer says `{type(said).__name__.lower()}` out of turn")


async def receive(
    reader: StreamReader,
    writer: StreamWriter,
    incoming: Incoming | None,
    on_progress: OnProgress = lambda done: None,
) -> int:
    """Take what was offered, and tell the sender once it is on disk under its names; None: a text, which is here.

    Returns its size in bytes. The streams are closed then, or broken off.

    Raises: as `send`.
    """
    async with ending(reader, writer):
        if incoming is not None:
            with contextlib.closing(incoming.has()) as left:
                while (some := await _in_thread(_some, left)) is not None:
                    for has in some:
                        _say(writer, messages.record(has))
                    await writer.drain()
        _say(writer, messages.record(Accepted()))
        done = 0
        if incoming is not None:
            try:
                done = await _pull(reader, incoming, on_progress)
            except asyncio.CancelledError:
                if incoming.is_complete:  # it was too late to stop
                    _say(writer, messages.record(Received()))
                raise
        elif not isinstance(await _said(reader), Complete):
            raise TransferError("the sender has sent something else than a text")
        _say(writer, messages.record(Received()))
    return done


def _some(left: Iterator[Has | None]) -> list[Has] | None:
    """What there is within a moment; None at the end."""
    found, ends_s = [], time.monotonic() + _MOMENT_S
    for has in left:
        if has is not None:
            found.append(has)
        if time.monotonic() >= ends_s:
            return found
    return found or None


async def _pull(reader: StreamReader, incoming: Incoming, on_progress: OnProgress) -> int:
    done = 0
    async with contextlib.aclosing(_batches(reader)) as batches:
        taken = await anext(batches, None)
        while taken is not None:
            ahead = asyncio.ensure_future(anext(batches, None))
            try:
                done += await _in_thread(incoming.take, taken, stop=incoming.stop)
                on_progress(done)
                taken = await ahead
            finally:
                await _stopped(ahead)
    return done


async def _batches(reader: StreamReader) -> AsyncGenerator[list[Message | bytes], None]:
    """What comes, up to `Complete`, as much at once as comes in a moment; all of it, where the stream breaks."""
    taken: list[Message | bytes] = []
    size, ends_s = 0, time.monotonic() + _MOMENT_S
    said: Message | bytes = b""
    while not isinstance(said, Complete):
        try:
            said = await _said(reader)
        except (OSError, TransferError):
            yield taken
            raise
        taken.append(said)
        size += len(said) if isinstance(said, bytes) else _RECORD_SIZE
        if size >= LIMIT or time.monotonic() >= ends_s:
            yield taken
            taken, size, ends_s = [], 0, time.monotonic() + _MOMENT_S
    yield taken


async def _in_thread(call: Callable[..., _T], *args: object, stop: Callable[[], None] = lambda: None) -> _T:
    """As `asyncio.to_thread`, but who is cancelled, however often, waits for the thread's end: it has files open.

    `stop`: has it end sooner.
    """
    task = asyncio.ensure_future(asyncio.to_thread(call, *args))
    try:
        return await asyncio.shield(task)
    finally:
        if not task.done():
            stop()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):  # the first one is on its way out already
                await asyncio.wait([task])
                task.exception()


async def _stopped(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def ending(reader: StreamReader, writer: StreamWriter) -> AsyncIterator[None]:
    """Close the streams at the end; where something of this side fails, tell a peer that reads `messages`."""
    async with telling(reader, writer):
        yield
    await _closed(writer)


@contextlib.asynccontextmanager
async def telling(reader: StreamReader, writer: StreamWriter) -> AsyncIterator[None]:
    """Where something of this side fails, tell a peer that reads `messages`, and close the streams."""
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, (asyncio.CancelledError, KeyboardInterrupt))
        await _failed(reader, writer, "it was interrupted" if interrupted else reason(error))
        raise


async def _failed(reader: StreamReader, writer: StreamWriter, why: str) -> None:
    if writer.is_closing():
        await _closed(writer)
        return
    writer.write(messages.failed(why))
    await _closed(writer, reader)


async def _closed(writer: StreamWriter, unread: StreamReader | None = None) -> None:
    """Close the streams, after what is `unread` has come to its end: a kernel that closes a socket with something
    unread resets it, and the peer may lose what was said to it last.
    """
    try:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(_LAST_WORD_S):
                if unread is not None:
                    writer.write_eof()
                    while await unread.read(LIMIT):
                        pass
                writer.close()
                await writer.wait_closed()
    finally:
        writer.close()
        abort(writer)
