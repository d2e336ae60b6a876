"""A connection to a target, whichever of its addresses answers first.

Theory of operation: RFC 8305 §5. The addresses are tried in the resolver's order, the next one where the one before has
failed, or has been silent for a moment; and what is up first is taken. uvloop's `create_connection` has no word for it,
and asyncio's leaves an address that is silent to the kernel, which goes on for two minutes.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T", bound=asyncio.BaseProtocol)

AFTER_S = 0.25
"""How long an address may be silent before the next one is tried: RFC 8305 §8 recommends it."""
WITHIN_S = 10.0
"""Each address answers within this: SYNs are sent at 0, 1, 3 and 7 s, or at 0, 1, 2, 3, 4 and 6 s (Linux 6.5)."""


async def connected(
    addresses: Sequence[str],
    port: int,
    make: Callable[[], T],
    *,
    after_s: float = AFTER_S,
    within_s: float = WITHIN_S,
) -> T:
    """The protocol of the connection that is up first. `make`: makes one for each try.

    Raises: OSError of the address that was the last to fail.
    """
    waiting, pending = list(addresses), set[asyncio.Task[tuple[asyncio.Transport, T]]]()
    error = OSError("it has no address")
    try:
        while waiting or pending:
            if waiting:
                pending.add(asyncio.create_task(_tried(waiting.pop(0), port, make, within_s)))
            limit_s = after_s if waiting else None
            done, _ = await asyncio.wait(pending, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                pending.discard(each)
                try:
                    return each.result()[1]
                except OSError as failed:
                    error = failed
    finally:
        for each in pending:
            each.cancel()
            each.add_done_callback(_let_go)
    raise error


async def _tried(address: str, port: int, make: Callable[[], T], within_s: float) -> tuple[asyncio.Transport, T]:
    """Raises: OSError, which has an `errno` where it took too long, too."""
    try:
        async with asyncio.timeout(within_s):
            return await asyncio.get_running_loop().create_connection(make, address, port)
    except TimeoutError:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


def _let_go(tried: asyncio.Task[Any]) -> None:
    """Close what came up as another one was taken."""
    if not tried.cancelled() and tried.exception() is None:
        tried.result()[0].abort()
