"""The memory that much data passes through: blocks that are freed are kept, and used again.

Theory of operation: asyncio reads into a new block of up to 256 KiB each time, and whoever unseals, cuts or joins what
came makes more of that size. glibc gives free memory back to the kernel as soon as twice its largest block lies at the
heap's end, and the kernel clears each page of it that is used again: that took half of the time of all, by the luck
of how the heap lay. What glibc calls large it takes from the largest block of its own that was ever freed
(mallopt(3), M_MMAP_THRESHOLD; 32 MiB at most). So one is, once.
"""

from __future__ import annotations

import functools

_LARGE = 2**24
"""Bytes; up to twice as many may lie unused at the heap's end from then on."""


@functools.cache
def keep_blocks() -> None:
    """Have this process keep what it frees; where its C library is another one, this does nothing."""
    bytes(_LARGE)  # from the kernel and back: no page of it is touched
