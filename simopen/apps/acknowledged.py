"""A pipe at whose end each side knows that the other one has all of what it sent.

Theory of operation. A stream's end tells that the peer has no more to say, and not that it has taken what was said to
it. So the data goes in frames, an empty one is the end, and whoever has written all of it to its sink says so.
"""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from typing import Any

from simopen.apps.pipe import Carried, pipe
from simopen.apps.transfer import messages
from simopen.apps.transfer.messages import Failed, Received
from simopen.errors import TransferError
from simopen.model.wording import shown
from simopen.net.os_errors import reason


async def carry_to_the_end(
    reader: StreamReader,
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
    taking, giving = _Reader(reader), _Writer(writer)

    def all_taken() -> None:
        peer_ended()
        if not writer.is_closing():
            writer.write(messages.record(Received()))

    await pipe(taking, giving, source=source, sink=sink, carried=carried, peer_ended=all_taken)  # type: ignore[arg-type]
    if carried.error:
        return
    try:
        giving.write_eof()
        await writer.drain()
        await taking.acknowledged()
    except OSError as error:
        carried.error = reason(error)


class _Reader:
    """What `pipe` wants of a reader."""

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader
        self._is_acknowledged = False

    async def read(self, _: int) -> bytes:
        while not isinstance(said := await self._next(), bytes):
            pass
        return said

    async def acknowledged(self) -> None:
        """Wait until the peer has all. Raises: OSError."""
        while not self._is_acknowledged:
            await self._next()

    async def _next(self) -> object:
        try:
            said = await messages.read(self._reader)
        except TransferError as error:
            raise ConnectionResetError(str(error)) from error
        if isinstance(said, Failed):
            raise ConnectionResetError(f"the other side has failed: {shown(said.reason)}")
        self._is_acknowledged |= isinstance(said, Received)
        return said


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
