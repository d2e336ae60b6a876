"""What httpcore reads and writes: one punched stream, which knows what has ended it.

Theory of operation: httpcore closes a stream without waiting for its end. What was written before may never leave, as
where the peer does not read before it is read: so it is seen off by a task, for some seconds, and then cut.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import httpcore2

from simopen.apps.http.pieces import Pieces
from simopen.net.os_errors import reason
from simopen.net.streams import close

DRAINED_S = 2.0
"""For how long a body that nobody wants is read, and what was written may take to leave a stream that is closed."""
UNASKED = "what the peer says as an answer was there before the request"
FAILURES = (
    *(httpcore2.TimeoutException, httpcore2.NetworkError),
    *(httpcore2.ProtocolError, httpcore2.UnsupportedProtocol),
)
_PIECE = 2**18
"""Bytes that the time-out for writing holds for: of all of a large body nobody could tell."""
_NAMES = {"client_addr": "sockname", "server_addr": "peername"}  # httpcore's, and asyncio's


class NetworkStream(httpcore2.AsyncNetworkStream):
    """What httpcore reads and writes. `broken`: it has ended, in order or not; `answered`: something has come.

    `why`: what has ended it, where that is known. `ending`: where the task is kept meanwhile that sees it off.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ending: set[asyncio.Task[None]]
    ) -> None:
        self._pieces, self._writer, self._ending = Pieces(reader, writer), writer, ending
        self.broken = self.answered = self._is_closed = False
        self.why = ""

    def note(self, why: str) -> None:
        """What has ended it: the first that is said counts."""
        self.why = self.why or why

    async def look(self) -> None:
        """Note what has ended it between two requests: it has been lost by now, or there is something to read."""
        with contextlib.suppress(*FAILURES):
            if await self.read(1, DRAINED_S):
                self.note(UNASKED)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._noting(httpcore2.ReadError):
            try:
                async with asyncio.timeout(timeout):
                    data = await self._pieces.read(max_bytes)
            except TimeoutError as error:
                if error.errno is None:  # ours; the kernel's ETIMEDOUT is a stream that has broken
                    raise httpcore2.ReadTimeout(f"the peer sent nothing for {timeout:g} s") from None
                raise
        self.answered = self.answered or bool(data)
        if not data:
            self.broken = True
            self.note("the peer has ended it")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with self._noting(httpcore2.WriteError):
            for begin in range(0, len(buffer), _PIECE):
                await self._write(memoryview(buffer)[begin : begin + _PIECE], timeout)

    async def _write(self, piece: memoryview, timeout: float | None) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError("the stream has ended")
        try:
            async with asyncio.timeout(timeout):
                self._writer.write(piece)
                await self._writer.drain()
        except TimeoutError as error:
            if error.errno is None:
                raise httpcore2.WriteTimeout(f"the peer took nothing for {timeout:g} s") from None
            raise

    @contextlib.contextmanager
    def _noting(self, kind: type[Exception]) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.broken = True
            self.note(words(error))
            raise kind(words(error)) from error
        except httpcore2.TimeoutException as error:
            self.note(str(error))
            raise
        except asyncio.CancelledError:
            self.note("a request was cancelled before its answer was whole")
            raise

    async def aclose(self) -> None:
        """Close it; and at once where what was written does not leave, as a peer that waits to be read takes none."""
        if self._is_closed:
            return
        self._is_closed = True
        self._writer.close()
        task = asyncio.ensure_future(close(self._writer, DRAINED_S))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # asked of an idle connection: the peer has ended it, or said what nobody has asked
            return self._writer.is_closing() or self._pieces.has_come
        return self._writer.get_extra_info(_NAMES.get(info, info))


def words(error: Exception) -> str:
    """What went wrong, in some words."""
    return reason(error) or type(error).__name__  # a time-out may have no words
