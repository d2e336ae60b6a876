"""How a stream travels inside TLS: in frames, so that its end is a word of the peer's.

Theory of operation. Pure: bytes in, bytes out. TLS has no half-close, and to a reader a bare FIN, which anybody on the
way can send, looks like its end. So each direction is a row of frames: `data`, and as the last one `end`. What stops
without it was cut.

A frame is a byte for its kind, three bytes for the length of what follows (big-endian), and that: 1 byte or more of
data, nothing after an end. No frame follows an end. Data is handed on as it comes: nothing waits for a frame's rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from simopen.errors import LinkBroken

Bytes: TypeAlias = bytes | bytearray | memoryview

DATA, END = 0, 1
MOST_DATA = 2**24 - 1
_HEAD = 4
END_FRAME = bytes([END, 0, 0, 0])
# So much data and its head are one TLS record (RFC 8446 §5.1); of more, the head goes before, and nothing is copied.
_JOINED = 2**14 - _HEAD


def data_frames(data: Bytes) -> Iterator[Bytes]:
    """The pieces that carry this data, in order; none for none."""
    for start in range(0, len(data), MOST_DATA):
        part = memoryview(data)[start : start + MOST_DATA] if len(data) > MOST_DATA else data
        head = bytes([DATA]) + len(part).to_bytes(3, "big")
        if len(part) <= _JOINED:
            yield head + part
        else:
            yield head
            yield part


class Decoder:
    """One direction's frames, as they come in pieces of any size. It holds three bytes at most.

    Attributes:
        ended: whether the peer has ended this direction.
    """

    def __init__(self) -> None:
        self.ended = False
        self._head = b""
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """What of the stream is in the next bytes.

        Raises:
            LinkBroken: these are no frames.
        """
        if (left := self._left - len(data)) >= 0:  # most of a long frame's pieces
            self._left = left
            return data
        if len(data) == _HEAD and not (self._left or self._head or self.ended):  # a long frame's, alone in a record
            self._begin(data[0], int.from_bytes(data[1:], "big"))
            return b""
        return b"".join(self._pieces(data))

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            if not self._left:
                at = self._read_head(data, at)
                continue
            piece = data[at : at + self._left]
            self._left -= len(piece)
            at += len(piece)
            yield piece

    def _read_head(self, data: bytes, at: int) -> int:
        if self.ended:
            raise LinkBroken("the peer went on after the end of its stream: it is no simopen, or another version")
        missing = _HEAD - len(self._head)
        self._head += data[at : at + missing]
        if len(self._head) == _HEAD:
            kind, length = self._head[0], int.from_bytes(self._head[1:], "big")
            self._head = b""
            self._begin(kind, length)
        return at + missing

    def _begin(self, kind: int, length: int) -> None:
        if (kind, length) == (END, 0):
            self.ended = True
        elif kind == DATA and length:
            self._left = length
        else:
            raise LinkBroken(
                f"the peer sent a frame that there is none of (kind {kind}, {length} bytes): it is no simopen, or "
                f"another version"
            )
