"""One side of a meeting by a code, on a host of the lab: what happened, as a line of JSON.

`python -m tests.meeter LOOP JSON`: {"code", "via", "servers", "off_s": what its wall clock is off by}. All hosts
of a lab share CLOCK_MONOTONIC, so `began_ns` and `heard_ns` of two sides are compared as they are. With "tells", each
step is a line of JSON, too, as it happens, and what came of it all is the step "end".
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

import simopen
from simopen.clock.source import LocalClock
from simopen.model.estimate import Reading

PATIENCE_S = 40


class WrongClock(LocalClock):
    """Off by so many seconds."""

    def __init__(self, off_s: float) -> None:
        self._off_ns = round(off_s * 1e9)

    def read(self) -> Reading:
        true = super().read()
        return Reading(true.monotonic_ns, true.realtime_ns + self._off_ns, true.boottime_ns)


async def met(order: dict[str, Any]) -> dict[str, Any]:
    """What came of it."""
    events: list[simopen.Event] = []

    def tell(event: simopen.Event) -> None:
        events.append(event)
        if order.get("tells"):
            print(json.dumps({"step": event.step, "at_ns": event.at_ns, "said": str(event)}), flush=True)

    began_ns = time.monotonic_ns()
    told: dict[str, Any] = {"began_ns": began_ns}
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await simopen.meet(
                order["code"],
                via=order["via"],
                servers=order["servers"],
                allow_plain=True,
                on_event=tell,
                local_clock=WrongClock(order.get("off_s", 0.0)),
            )
            writer.write(b"x")
            told["notes"] = writer.get_extra_info("simopen").notes
            told["heard"] = (await reader.readexactly(1)).decode()
            told["heard_ns"] = time.monotonic_ns()
            writer.write_eof()
            await reader.read()
            writer.close()
    except (simopen.SimopenError, TimeoutError) as error:
        told |= {"error": type(error).__name__, "message": str(error)}
    steps: dict[str, int] = {}
    for event in events:
        steps.setdefault(event.step, event.at_ns - began_ns)
    clocks = [each.difference_s for each in events if isinstance(each, simopen.PeerClock)]
    told |= {"step": "end", "at_ns": time.monotonic_ns()}
    return {**told, "steps": steps, "rounds": sum(each.step == "round" for each in events), "clock": clocks}


def main(loop: str, order: str) -> None:
    run = uvloop.run if loop == "uvloop" else asyncio.run
    print(json.dumps(run(met(json.loads(order)))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
