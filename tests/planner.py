"""What the lab tests run on a host: `python planner.py LOOP JSON` discovers, and punches by both sides' profiles.

The JSON object holds `local` (address and port), `servers`, and `punch`'s further arguments. It prints its own profile,
pickled, as one line of base64; reads "PEER'S-PROFILE AT" (CLOCK_MONOTONIC ns); and prints what came of it, as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import sys
from dataclasses import replace
from typing import Any

import simopen
from simopen import clock
from simopen.discovery import holding
from simopen.nat import Profile
from tests.puncher import FACTORIES


def in_utc(profile: Profile, now: simopen.Estimate) -> Profile:
    """With the observations' times as `punch` wants them."""
    moved = tuple(replace(each, at_ns=now.utc_at(each.at_ns)) for each in profile.observations)
    return replace(profile, observations=moved)


async def meet(local: list[Any], servers: list[str], **options: Any) -> dict[str, Any]:
    now, loop = clock.plain(), asyncio.get_running_loop()
    async with holding((local[0], local[1]), servers=servers) as found:
        mine = in_utc(found.profile, now)
        print(base64.b64encode(pickle.dumps(mine)).decode(), flush=True)
        line = await loop.run_in_executor(None, sys.stdin.readline)
        theirs, at = line.split()
        peer = pickle.loads(base64.b64decode(theirs))  # the test's own
        try:
            sock, report = await simopen.punch(peer, mine=mine, at=now.utc_at(int(at)) / 1e9, clock=now, **options)
        except simopen.PunchError as error:
            diagnosis = error.diagnosis and error.diagnosis.as_dict()
            return {"error": type(error).__name__, "message": str(error), "diagnosis": diagnosis}
        with sock:
            await loop.sock_sendall(sock, b"I love you.")
            heard = b""
            while len(heard) < 11:
                heard += await loop.sock_recv(sock, 100)
        return {"heard": heard.decode(), "plan": report.plan, "via": report.via}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=FACTORIES[sys.argv[1]]) as runner:
        print(json.dumps(runner.run(meet(**json.loads(sys.argv[2])))))
