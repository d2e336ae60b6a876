"""Work that would keep the event loop, done in a thread of its own.

Not in the loop's own threads: whoever leaves these waits for them, and so does a loop at its end, which moreover fails
where this process can have no thread (a limit, `ulimit -u`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(name: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the call returns; when cancelled, this lets go at once, and nobody hears what comes of it.

    Nor does the program's end wait for it. `name`: the thread's. Raises: what the call does; RuntimeError where no
    thread can be had.
    """
    answer, work = _answered(partial(call, *args, **kwargs))
    threading.Thread(target=work, name=name, daemon=True).start()
    return await asyncio.wrap_future(answer)


async def aside(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `in_thread`, for what takes a moment, which the program's end may wait for; and where no thread can be had, it
    is done here: late is better than not at all.
    """
    answer, work = _answered(partial(call, *args, **kwargs))
    try:
        threading.Thread(target=work, daemon=False).start()
    except RuntimeError:
        return call(*args, **kwargs)
    return await asyncio.wrap_future(answer)


def _answered(call: Callable[[], T]) -> tuple[concurrent.futures.Future[T], Callable[[], None]]:
    """What tells what comes of the call, and the thread's work."""
    answer: concurrent.futures.Future[T] = concurrent.futures.Future()
    answer.set_running_or_notify_cancel()

    def work() -> None:
        try:
            answer.set_result(call())
        except Exception as error:
            answer.set_exception(error)

    return answer, work
