"""A pipe at whose end each side knows that the other one has all of what it sent.

Theory of operation. A stream's end tells that the peer has no more to say, and not that it has taken what was said to
it. So the data goes in frames, an empty one is the end, and whoever has written all of it to its sink says so.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from simopen.apps.pipe import Carried, pipe
from simopen.apps.transfer import messages
from simopen.apps.transfer.messages import Failed, Received
from simopen.errors import TransferError
from simopen.model.wording import shown
from simopen.net.os_errors import reason

_MOST_AHEAD = 2**20
"""Bytes that are read before anything is carried; with more unread, a peer that leaves is not noticed before that."""
_OF_A_FRAME = 64
"""Bytes that a frame takes beside its data, so that there is an end of small ones, too."""

_T = TypeVar("_T")


async def carry_to_the_end(
    frames: Frames,
    writer: StreamWriter,
    *,
    source: int,
    sink: int,
    carried: Carried,
    peer_ended: Callable[[], object],
) -> None:
    """As `apps.pipe.pipe`, with a peer that runs this, too; and wait until that has all. The writer stays open.

    What broke is in `carried.error`; none there means that both sides have all of it.
    """
    giving = _Writer(writer)
    listening = list[asyncio.Future[None]]()

    def all_taken() -> None:
        peer_ended()
        if carried.error:
            return
        if not writer.is_closing():
            writer.write(messages.record(Received()))
        listening.append(asyncio.ensure_future(frames.acknowledged()))
        listening[0].add_done_callback(heard)

    def heard(listened: asyncio.Future[None]) -> None:
        if not listened.cancelled() and listened.exception() is not None:
            carrying.cancel()  # the peer takes nothing any more, though there may be nothing to send for hours

    carrying = asyncio.ensure_future(
        pipe(frames, giving, source=source, sink=sink, carried=carried, peer_ended=all_taken)  # type: ignore[arg-type]
    )
    try:
        await asyncio.wait({carrying})
        if not carrying.cancelled():
            carrying.result()
            if carried.error:
                return
            giving.write_eof()
        try:
            await writer.drain()
            await listening[0]
        except OSError as error:
            told = listening[0].exception() if listening[0].done() else None
            carried.error = reason(told or error)
    finally:
        await frames.stop()
        await _stopped(carrying, *listening)


class Frames:
    """What `pipe` wants of a reader."""

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader
        self._is_acknowledged = False
        self._ahead: asyncio.Future[object] | None = None
        self._kept: deque[bytes] = deque()
        self._room = _MOST_AHEAD

    async def unless_gone(self, waiting: Coroutine[Any, Any, _T]) -> _T:
        """What is waited for before anything is carried; what the peer says meanwhile is kept for `read`.

        Raises: OSError where the peer leaves first.
        """
        task = asyncio.ensure_future(waiting)
        try:
            while not task.done() and self._room > 0:
                self._ahead = asyncio.ensure_future(self._next())
                await asyncio.wait({self._ahead, task}, return_when=asyncio.FIRST_COMPLETED)
                if not task.done():
                    self._keep(self._ahead.result())
                    self._ahead = None
            return await task
        except BaseException:
            await self.stop()
            await _stopped(task)
            raise

    async def stop(self) -> None:
        """Read nothing any more."""
        if self._ahead is not None:
            await _stopped(self._ahead)

    def _keep(self, said: object) -> None:
        if isinstance(said, bytes):
            self._kept.append(said)
            self._room -= len(said) + _OF_A_FRAME

    async def read(self, _: int) -> bytes:
        while True:
            said = await self._following()
            if isinstance(said, bytes):
                return said

    async def acknowledged(self) -> None:
        """Wait until the peer has all. Raises: OSError."""
        while not self._is_acknowledged:
            await self._following()

    async def _following(self) -> object:
        if self._kept:
            return self._kept.popleft()
        ahead, self._ahead = self._ahead, None
        return await (ahead or self._next())

    async def _next(self) -> object:
        try:
            said = await messages.read(self._reader)
        except TransferError as error:
            raise ConnectionResetError(str(error)) from error
        if isinstance(said, Failed):
            raise ConnectionResetError(f"the other side has failed: {shown(said.reason)}")
        self._is_acknowledged |= isinstance(said, Received)
        return said


async def _stopped(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Writer:
    """What `pipe` wants of a writer; the end is a frame, once."""

    def __init__(self, writer: StreamWriter) -> None:
        self._writer = writer
        self._has_ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def write(self, piece: bytes) -> None:
        self._writer.write(messages.data(piece))

    def write_eof(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._writer.write(messages.data(b""))
