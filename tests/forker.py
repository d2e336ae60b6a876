"""A program that waits for an instant, forks while it waits, and meets itself in the parent and in the child.

`python -m tests.forker LOOP PORT PORT`: the two ports are the parent's on 127.0.0.1 and 127.0.0.2, and the child's on
127.0.0.3 and 127.0.0.4. It prints what each of the two has heard. A program of its own, since a fork of a test would be
a second test run.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import warnings
from collections.abc import Coroutine
from typing import TypeVar

import uvloop

import simopen
from simopen.clock.scheduler import shared
from simopen.clock.source import plain
from simopen.model.times import MonoNs

T = TypeVar("T")
FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
WORDS = b"I love you."


async def meet(one: tuple[str, int], other: tuple[str, int]) -> str:
    """Two punches of one process, at an instant."""
    at = time.time() + 0.5
    left, right = await asyncio.gather(
        simopen.connect(other, local=one, at=at, window=5, clock=plain()),
        simopen.connect(one, local=other, at=at, window=5, clock=plain()),
    )
    left[1].write(WORDS)
    heard = await right[0].readexactly(len(WORDS))
    for _, writer in (left, right):
        writer.transport.abort()
    return heard.decode()


async def parent(one: int, other: int, new_loop: str) -> int:
    """Forks right before an instant that it waits for, then goes on as if nothing had happened."""
    far = asyncio.create_task(shared.at(MonoNs(time.monotonic_ns() + 10**13), bool))
    near = asyncio.create_task(shared.at(MonoNs(time.monotonic_ns() + 5_000_000), os.getpid))
    while sys.getswitchinterval() == USUAL_S and not near.done():  # noqa: ASYNC110 - close to the instant
        await asyncio.sleep(0)
    with warnings.catch_warnings():
        # Python 3.12 and later warn of any fork beside a thread; that this one does no harm is what is tested.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(child(one, other, new_loop))
    [fired] = await near
    assert fired.result == os.getpid()
    heard = await meet(("127.0.0.1", one), ("127.0.0.2", other))
    print(f"parent: {heard}\n", end="", flush=True)
    far.cancel()
    await asyncio.gather(far, return_exceptions=True)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    return os.waitstatus_to_exitcode(status)


def child(one: int, other: int, new_loop: str) -> int:
    heard = run(new_loop, meet(("127.0.0.3", one), ("127.0.0.4", other)))
    for thread in threading.enumerate():  # the child's own restores the interval on its way out
        if thread.name == "simopen-scheduler":
            thread.join()
    print(f"child: {heard} {sys.getswitchinterval() == USUAL_S}\n", end="", flush=True)
    return 0


def run(new_loop: str, main: Coroutine[object, object, T]) -> T:
    with asyncio.Runner(loop_factory=FACTORIES[new_loop]) as runner:
        return runner.run(main)


USUAL_S = sys.getswitchinterval()

if __name__ == "__main__":
    loop, *ports = sys.argv[1:]
    sys.exit(run(loop, parent(int(ports[0]), int(ports[1]), loop)))
