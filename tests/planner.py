"""What the lab tests run on a host: `python planner.py LOOP JSON` discovers, and punches by both sides' profiles.

The JSON object holds `local` (address and port), `servers`, and `punch`'s further arguments. It prints its own ticket;
reads "PEER'S-TICKET AT" (CLOCK_MONOTONIC ns); and prints what came of it, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import simopen
from simopen import clock
from simopen.discovery import holding
from tests.puncher import FACTORIES


async def meet(local: list[Any], servers: list[str], **options: Any) -> dict[str, Any]:
    now, loop = clock.plain(), asyncio.get_running_loop()
    async with holding((local[0], local[1]), servers=servers) as found:
        mine = found.ticket(now=now)
        print(mine.encode(), flush=True)
        line = await loop.run_in_executor(None, sys.stdin.readline)
        theirs, at = line.split()
        peer = simopen.parse_ticket(theirs)
        try:
            sock, report = await simopen.punch(peer, mine=mine, at=now.utc_at(int(at)) / 1e9, clock=now, **options)
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
    with asyncio.Runner(loop_factory=FACTORIES[sys.argv[1]]) as runner:
        print(json.dumps(runner.run(meet(**json.loads(sys.argv[2])))))
