"""Work that would keep the event loop, done in a thread of its own.

Not in the loop's own threads: whoever leaves these waits for them, and so does a loop at its end, which moreover fails
where this process can have no thread (a limit, `ulimit -u`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(name: str | None, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the call returns; when cancelled, this lets go at once, and nobody hears what comes of it.

    `name`: the thread's. Raises: what the call does; RuntimeError where no thread can be had.
    """
    answer: concurrent.futures.Future[T] = concurrent.futures.Future()

    def work() -> None:
        try:
            answer.set_result(call(*args, **kwargs))
        except Exception as error:
            answer.set_exception(error)

    answer.set_running_or_notify_cancel()
    threading.Thread(target=work, name=name, daemon=True).start()
    return await asyncio.wrap_future(answer)


async def aside(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `in_thread`, for what takes a moment; here, where no thread can be had: late is better than not at all."""
    begun = False

    def work() -> T:
        nonlocal begun
        begun = True
        return call(*args, **kwargs)

    try:
        return await in_thread(None, work)
    except RuntimeError:
        if begun:
            raise
        return call(*args, **kwargs)
