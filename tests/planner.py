"""What the lab tests run on a host: `python planner.py LOOP JSON` discovers, and punches by both sides' profiles.

The JSON object holds `local` (address and port), `servers`, and `punch`'s further arguments; and may have `ntp`, the
servers to ask for the time while the punch waits, and `twice`, a port from which to discover at the same time, and from
the next one before the punch. It prints its own ticket; reads "PEER'S-TICKET AT" (CLOCK_MONOTONIC ns); and prints what
came of it, as JSON.
"""

from __future__ import annotations

from tests import quick_start

# isort: split
import asyncio
import contextlib
import json
import sys
from typing import Any

import simopen
from simopen.clock import source as clock
from simopen.model.times import MonoNs
from simopen.ticket.hold import holding
from tests.puncher import FACTORIES


async def meet(
    local: list[Any], servers: list[str], ntp: list[str] | None = None, twice: int | None = None, **options: Any
) -> dict[str, Any]:
    now, loop = clock.plain(), asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        entered = asyncio.ensure_future(stack.enter_async_context(holding((local[0], local[1]), servers=servers)))
        if twice is not None:
            await simopen.discover((local[0], twice), servers=servers)
        found = await entered
        mine = found.ticket(now=now)
        print(mine.encode(), flush=True)
        line = await loop.run_in_executor(None, sys.stdin.readline)
        theirs, at = line.split()
        peer = simopen.parse_ticket(theirs)
        if twice is not None:
            await simopen.discover((local[0], twice + 1), servers=servers)
        try:
            at_s = now.utc_at(MonoNs(int(at))) / 1e9
            sock, report = await simopen.punch(peer, mine=mine, at=at_s, clock=ntp or now, **options)
        except simopen.PunchError as error:
            diagnosis = error.diagnosis and error.diagnosis.as_dict()
            story = {"notes": found.notes, "profile": str(found.profile)}
            return {"error": type(error).__name__, "message": str(error), "diagnosis": diagnosis, **story}
        with sock:
            await loop.sock_sendall(sock, b"I love you.")
            heard = b""
            while len(heard) < 11:
                heard += await loop.sock_recv(sock, 100)
        return {"heard": heard.decode(), "plan": report.plan, "via": report.via}


if __name__ == "__main__":
    quick_start.loaded(simopen.discover, simopen.punch)
    with asyncio.Runner(loop_factory=FACTORIES[sys.argv[1]]) as runner:
        print(json.dumps(runner.run(meet(**json.loads(sys.argv[2])))))
