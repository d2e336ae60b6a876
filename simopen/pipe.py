"""Connecting a stream with two file descriptors, as nc does.

Theory of operation: files, pipes and terminals block each in its own way, and an event loop can watch only some of
them. So one daemon thread reads, one writes, and queues of a few chunks between them and the loop keep the pace of the
slower side. A thread that is stuck in a read ends with the process, not before: nothing can interrupt it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

CHUNK = 2**16
_CHUNKS = 16


@dataclass(slots=True)
class Carried:
    """Bytes carried so far, each way. `error`: why the stream ended, where it was not by the peer's EOF."""

    sent: int = 0
    received: int = 0
    error: str | None = None


async def pipe(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    source: int,
    sink: int,
    carried: Carried | None = None,
) -> Carried:
    """Carry `source` (a file descriptor) to the stream and the stream to `sink`, until both have ended.

    The source's end is passed on as the stream's EOF, and the stream goes on in the other direction. When the peer
    ends, a terminal is not read any further: whoever sits there may have nothing more to say. `carried`, where given,
    counts while it goes on. A stream that breaks is not raised but told in `carried.error`.

    Raises:
        OSError: the source or the sink failed.
    """
    carried = carried or Carried()
    sending = asyncio.create_task(_send(writer, source, carried))
    receiving = asyncio.create_task(_receive(reader, sink, carried))
    pending = {sending, receiving}
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if receiving in done and os.isatty(source):
                break
    except ConnectionError as error:
        carried.error = error.strerror or str(error)
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)
    return carried


async def _send(writer: asyncio.StreamWriter, source: int, carried: Carried) -> None:
    with _Source(source) as chunks:
        while chunk := await chunks.next():
            writer.write(chunk)
            await writer.drain()
            carried.sent += len(chunk)
    writer.write_eof()


async def _receive(reader: asyncio.StreamReader, sink: int, carried: Carried) -> None:
    with _Sink(sink) as chunks:
        while chunk := await reader.read(CHUNK):
            await chunks.put(chunk)
            carried.received += len(chunk)
        await chunks.flush()


class _Source:
    """A descriptor read by a thread, at most `_CHUNKS` ahead of whoever takes the chunks."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        self._room = threading.Semaphore(_CHUNKS)
        self._closed = False
        threading.Thread(target=self._run, name="simopen-source", daemon=True).start()

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._room.release()

    async def next(self) -> bytes:
        """The next chunk; empty at the end."""
        chunk = await self._chunks.get()
        self._room.release()
        if isinstance(chunk, OSError):
            raise chunk
        return chunk

    def _run(self) -> None:
        chunk: bytes | OSError = b"-"
        while chunk and not isinstance(chunk, OSError):
            self._room.acquire()
            if self._closed:
                return
            try:
                chunk = os.read(self._fd, CHUNK)
            except OSError as error:
                chunk = error
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody reads this any more
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)


class _Sink:
    """A descriptor written by a thread, at most `_CHUNKS` behind whoever puts the chunks."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._chunks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(_CHUNKS)
        self._ended: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._run, name="simopen-sink", daemon=True).start()

    def __enter__(self) -> _Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self._chunks.put(b"")
        if not self._ended.cancel() and not self._ended.cancelled():
            self._ended.exception()  # it has been told by `put` or `flush`, or nobody waits any more

    async def put(self, chunk: bytes) -> None:
        """Write the chunk, soon. Raises what an earlier write has raised."""
        await self._room.acquire()
        if self._ended.done():
            self._ended.result()
        self._chunks.put(chunk)

    async def flush(self) -> None:
        """Wait until all is written."""
        self._chunks.put(b"")
        await self._ended

    def _run(self) -> None:
        failure = None
        try:
            while chunk := self._chunks.get():
                _write_all(self._fd, chunk)
                self._tell(self._room.release)
        except OSError as error:
            failure = error
        self._tell(self._finish, failure)

    def _tell(self, call: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(call, *args)

    def _finish(self, failure: OSError | None) -> None:
        self._room.release()  # whoever waits to put one more shall see that there is no use
        if self._ended.done():
            return
        if failure is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(failure)


def _write_all(fd: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(fd, rest) :]
