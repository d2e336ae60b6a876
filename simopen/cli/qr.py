"""QR codes of lines that are to be typed on another device, as text."""

from __future__ import annotations

import os
import sys

_QUIET = 4  # of a QR code's border, ISO/IEC 18004


def columns() -> int:
    """Of the terminal; 0 where standard error is none."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns if sys.stderr.isatty() else 0
    except (OSError, ValueError):
        return 0


def qr(text: str, encoding: str, columns: int) -> tuple[str, ...]:
    """The text as a QR code's lines, dark on light where the terminal's letters are light.

    Two rows a line in half blocks, or two `#` for each module where the encoding has none. Nothing without the extra
    `cli`, or where the terminal is too narrow.
    """
    try:
        import segno
    except ImportError:
        return ()
    if not columns:
        return ()
    try:
        made = segno.make(text, micro=False)
    except segno.DataOverflowError:
        return ()
    rows = [list(row) for row in made.matrix_iter(scale=1, border=_QUIET)]
    try:
        "█▀▄".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return (
            tuple("".join("  " if dark else "##" for dark in row) for row in rows) if 2 * len(rows) <= columns else ()
        )
    if len(rows) > columns:
        return ()
    rows += [[1] * len(rows[0])] * (len(rows) % 2)
    return tuple(
        "".join(_HALVES[not upper, not lower] for upper, lower in zip(*pair, strict=True))
        for pair in zip(rows[::2], rows[1::2], strict=True)
    )


_HALVES = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}
