"""Connecting a stream with two file descriptors, as nc does.

Theory of operation: files, pipes and terminals block each in its own way, and an event loop can watch only some of
them. So one daemon thread reads, one writes, and queues of a few chunks between them and the loop keep the pace of the
slower side. A thread waits in poll(2) until its descriptor is ready or it is told to stop, so that it neither outlives
`pipe` nor takes input that nobody will send. What poll cannot foresee is a read that another process empties first, or
a terminal that is stopped in the middle of a write: such a thread ends when that call returns, or with the process.

A process that dies closes its sockets, and the kernel would tell the peer of a clean end, though half of a file is
missing. So until the source has ended and the kernel has all of it, whoever closes the stream resets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import select
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from simopen.model.wording import human
from simopen.net import sockets
from simopen.net.os_errors import reason
from simopen.net.streams import require_open
from simopen.net.tcp_keepalive import Patience

CHUNK = 2**16
_STANDARD = {0: "standard input", 1: "standard output"}
_CHUNKS = 16
_LOOK_S = 1.0
"""How often it is looked whether the peer is still there."""
# What can be written at once to a pipe that poll calls writable, without blocking (POSIX; Windows has neither).
_PIECE = getattr(select, "PIPE_BUF", CHUNK)


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
    peer_ended: Callable[[], object] = lambda: None,
) -> Carried:
    """Carry `source` (a file descriptor) to the stream and the stream to `sink`, until both have ended.

    The source's end is passed on as the stream's EOF, and the stream goes on in the other direction. When the peer
    ends, a terminal is not read any further: whoever sits there may have nothing more to say. `carried`, where given,
    counts while it goes on; `peer_ended` is called once all that the peer has sent is in the sink, and it sends no
    more. A stream that breaks is not raised but told in `carried.error`, once all that came before
    is in the sink. The descriptors stay open, and may be non-blocking; the writer is the caller's to close: that is a
    reset, which the peer can tell from an end, where this was cancelled or failed before the source's end was sent.

    Raises:
        OSError: the source or the sink failed; `strerror` says which.
    """
    carried = carried or Carried()
    terminal = os.isatty(source)
    _when_closed(writer, sockets.drop)
    sock = writer.get_extra_info("socket")
    with _Source(source) as chunks, _Sink(sink) as pieces, Patience(sock) as patience:
        sending = asyncio.create_task(_send(writer, chunks, carried))
        receiving = asyncio.create_task(_receive(reader, pieces, carried, peer_ended))
        pending: set[asyncio.Future[None]] = {sending, receiving, pieces.ended}
        try:
            while pending and not (receiving.done() and (terminal or carried.error)):
                done, pending = await asyncio.wait(pending, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
                if receiving.done() and not sending.done():
                    carried.error = carried.error or _gone(writer)
                if patience.is_over() and not writer.is_closing():
                    carried.error = carried.error or f"nothing was acknowledged for {human(patience.timeout_s)}"
                    writer.transport.abort()
        finally:
            sending.cancel()
            receiving.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)
    if sending.cancelled() and not carried.error:  # a terminal, and the peer has ended: a clean end here, too
        with _noting(carried):
            await _hand_over(writer)
    return carried


def _gone(writer: asyncio.StreamWriter) -> str | None:
    """Why nobody is there any more, as far as that can be told without a write: a plain stream's FIN is its end."""
    if writer.is_closing():
        return "connection lost"
    link = writer.get_extra_info("simopen_link")
    return "the peer has left" if link is not None and link.peer_has_left else None


async def _send(writer: asyncio.StreamWriter, chunks: _Source, carried: Carried) -> None:
    while chunk := await chunks.next():
        with _noting(carried):
            require_open(writer)
            writer.write(chunk)
            await writer.drain()
            carried.sent += len(chunk)
        if carried.error:
            return  # the reader learns of it too, and ends
    with _noting(carried):
        await _hand_over(writer)
        writer.write_eof()


async def _hand_over(writer: asyncio.StreamWriter) -> None:
    """Wait until the kernel has all that was written; from then on it sees to it, whatever becomes of this process."""
    require_open(writer)
    writer.transport.set_write_buffer_limits(high=0)
    await writer.drain()
    _when_closed(writer, sockets.keep)


def _when_closed(writer: asyncio.StreamWriter, arrange: Callable[[socket.socket], None]) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # it is closed already
            arrange(sock)


async def _receive(
    reader: asyncio.StreamReader, pieces: _Sink, carried: Carried, peer_ended: Callable[[], object]
) -> None:
    while chunk := await _read(reader, carried):
        await pieces.put(chunk)
        carried.received += len(chunk)
    await pieces.flush()
    peer_ended()


async def _read(reader: asyncio.StreamReader, carried: Carried) -> bytes:
    with _noting(carried):
        return await reader.read(CHUNK)
    return b""


@contextlib.contextmanager
def _noting(carried: Carried) -> Iterator[None]:
    """Whatever ends a stream: a reset, but also a time-out, or a route that is gone. The first one told counts."""
    try:
        yield
    except OSError as error:
        carried.error = carried.error or reason(error)


class _Source:
    """A descriptor read by a thread, at most `_CHUNKS` ahead of whoever takes the chunks."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        self._room = threading.Semaphore(_CHUNKS)
        self._watched = _Watched(fd, "read")

    def __enter__(self) -> _Source:
        self._watched.start(self._run, "simopen-source")
        return self

    def __exit__(self, *_: object) -> None:
        self._watched.stop()
        self._room.release()

    async def next(self) -> bytes:
        """The next chunk; empty at the end."""
        chunk = await self._chunks.get()
        self._room.release()
        if isinstance(chunk, OSError):
            raise chunk
        return chunk

    def _run(self) -> None:
        chunk: bytes | OSError | None = b"-"
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody reads this any more
            while chunk and not isinstance(chunk, OSError):
                self._room.acquire()
                chunk = self._read()
                if chunk is not None:
                    self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)

    def _read(self) -> bytes | OSError | None:
        """A chunk, or why there is none; None: told to stop."""
        while self._watched.ready():
            try:
                return os.read(self._watched.fd, CHUNK)
            except BlockingIOError:  # a non-blocking descriptor that somebody else has read meanwhile
                continue
            except OSError as error:
                return _failure(error, "read", self._fd)
        return None


class _Sink:
    """A descriptor written by a thread, at most `_CHUNKS` behind whoever puts the chunks.

    `ended` is done once the thread has written all, and holds what it failed with.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._chunks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(_CHUNKS)
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._watched = _Watched(fd, "write to")
        self._piece = CHUNK if stat.S_ISREG(os.fstat(fd).st_mode) else _PIECE

    def __enter__(self) -> _Sink:
        self._watched.start(self._run, "simopen-sink")
        return self

    def __exit__(self, *_: object) -> None:
        self._watched.stop()
        self._chunks.put(b"")
        if not self.ended.cancel() and not self.ended.cancelled():
            self.ended.exception()  # it has been told, or nobody waits any more

    async def put(self, chunk: bytes) -> None:
        """Write the chunk, soon. Where an earlier one could not be written, this waits, and `ended` tells."""
        await self._room.acquire()
        self._chunks.put(chunk)

    async def flush(self) -> None:
        """Wait until all is written."""
        self._chunks.put(b"")
        await self.ended

    def _run(self) -> None:
        failure = None
        try:
            while chunk := self._chunks.get():
                self._write(chunk)
                self._tell(self._room.release)
        except OSError as error:
            failure = _failure(error, "write to", self._fd)
        self._tell(self._finish, failure)

    def _write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest and self._watched.ready():
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(self._watched.fd, rest[: self._piece]) :]

    def _tell(self, call: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(call, *args)

    def _finish(self, failure: OSError | None) -> None:
        if self.ended.done():
            return
        if failure is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(failure)


class _Watched:
    """A thread's own duplicate of a descriptor, and a way to tell the thread to stop.

    A duplicate, since the caller may close its descriptor, and the kernel give the number to something else, before
    the thread has seen that it shall stop.
    """

    def __init__(self, fd: int, what: str) -> None:
        try:
            self.fd = os.dup(fd)
        except OSError as error:
            raise _failure(error, what, fd) from error
        self._whats = what, fd
        self._stopped = False
        self._told, self._teller = os.pipe()
        self._poll = select.poll() if hasattr(select, "poll") else None  # not on Windows
        if self._poll is not None:
            self._poll.register(self.fd, select.POLLIN if what == "read" else select.POLLOUT)
            self._poll.register(self._told, select.POLLIN)

    def start(self, run: Callable[[], None], name: str) -> None:
        """Run `run` in a thread; the duplicate is closed at its end. Raises: OSError where no thread can be had."""
        try:
            threading.Thread(target=self._to_the_end, args=(run,), name=name, daemon=True).start()
        except RuntimeError as error:
            for descriptor in (self.fd, self._told, self._teller):
                os.close(descriptor)
            raise _failure(OSError(errno.EAGAIN, f"{error}; see ulimit -u"), *self._whats) from error

    def _to_the_end(self, run: Callable[[], None]) -> None:
        try:
            run()
        finally:
            os.close(self.fd)
            os.close(self._told)

    def ready(self) -> bool:
        """Wait until the descriptor can be read or written; False: stop."""
        if self._poll is not None and not self._stopped:
            self._poll.poll()
        return not self._stopped

    def stop(self) -> None:
        """Tell the thread."""
        self._stopped = True
        os.close(self._teller)


def _failure(error: OSError, what: str, fd: int) -> OSError:
    name = _STANDARD.get(fd, f"descriptor {fd}")
    with contextlib.suppress(OSError):
        if fd not in _STANDARD and stat.S_ISSOCK(os.fstat(fd).st_mode):
            name = "the local connection"
    return OSError(error.errno, f"cannot {what} {name}: {error.strerror}")
