"""What comes on a stream, piece by piece as it comes: asyncio's reader copies each twice, and pauses for most."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from typing import Any

_MOST = 2**19
"""Bytes that wait here before the transport is told to pause."""


class Pieces(asyncio.Protocol):
    """Reads a stream in its reader's place from here on; nobody else may. Its writer stays what it was.

    It takes over as the transport's protocol, and passes on to the one before it all that concerns the writer.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._transport: Any = writer.transport
        self._before: Any = self._transport.get_protocol()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._ended = self._paused = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()
        self._take_early(reader)
        self._transport.set_protocol(self)

    def _take_early(self, reader: asyncio.StreamReader) -> None:
        """What the reader has by now."""
        while not self._ended and self._error is None:
            reading = reader.read(_MOST)
            try:
                reading.send(None)
            except StopIteration as done:
                self._ended = not done.value
                self._add(done.value)
            except OSError as error:
                self._error = error
            else:  # it would have to wait
                return
            finally:
                reading.close()

    def _take_last(self) -> None:
        """What the kernel has: who writes to a peer that has closed hears of that, and of no word that was said before.

        Of TLS, and so of a link, it has nothing that could be read here.
        """
        sock = self._transport.get_extra_info("socket")
        if sock is None or self._transport.get_extra_info("ssl_object") is not None:
            return
        with contextlib.suppress(OSError):
            while data := os.read(sock.fileno(), _MOST):
                self._add(data)

    @property
    def has_come(self) -> bool:
        """Whether there is something to read by now, or the end."""
        return bool(self._waiting) or self._ended or self._error is not None

    async def read(self, most: int) -> bytes:
        """The next piece, of so many bytes at most; nothing at the end. Raises: OSError, once all has been read."""
        while not self.has_come:
            self._changed.clear()
            await self._changed.wait()
        if not self._waiting:
            if self._error is not None:
                raise self._error
            return b""
        piece = self._waiting.popleft()
        if len(piece) > most:
            self._waiting.appendleft(piece[most:])
            piece = piece[:most]
        self._size -= len(piece)
        if self._paused and self._size <= _MOST // 2:
            self._paused = False
            self._transport.resume_reading()
        return piece

    def _add(self, data: bytes) -> None:
        if data:
            self._waiting.append(data)
            self._size += len(data)

    def data_received(self, data: bytes) -> None:
        """As asyncio's."""
        self._add(data)
        if self._size > _MOST and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._changed.set()

    def eof_received(self) -> Any:
        """As asyncio's."""
        self._ended = True
        self._changed.set()
        return self._before.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio's; both loops close the descriptor right after."""
        if isinstance(exc, OSError):
            self._take_last()
        self._ended, self._error = True, exc
        self._changed.set()
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        """As asyncio's."""
        self._before.pause_writing()

    def resume_writing(self) -> None:
        """As asyncio's."""
        self._before.resume_writing()
