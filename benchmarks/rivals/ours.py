"""simopen: `punch`, told the instant, and that the local clock is right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from benchmarks.rivals.obeying import Answer, Order, established, obey
from simopen import punch as fire  # by name: loaded now, as the rivals' packages are
from simopen.clock import source as clock


def punch(order: Order) -> tuple[Answer, Callable[[], object]]:
    return asyncio.run(_punch(order))


async def _punch(order: Order) -> tuple[Answer, Callable[[], object]]:
    now = clock.plain()
    sock, _ = await fire(
        (order["peer"], order["port"]), at=now.utc_at(order["at_ns"]) / 1e9, window=order["window_s"], clock=now
    )
    return established(), sock.close


if __name__ == "__main__":
    obey(punch)
