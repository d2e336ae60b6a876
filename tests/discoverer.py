"""What the lab tests run on a host: `python discoverer.py LOOP JSON` discovers and prints the profile, or the error.

The JSON object holds `discover`'s arguments. It prints a JSON object of the profile's fields.
"""

from __future__ import annotations

from tests import quick_start

# isort: split
import asyncio
import json
import sys
from typing import Any

import simopen
from tests.puncher import FACTORIES


async def discover(local: int, servers: list[str], **options: Any) -> dict[str, Any]:
    try:
        profile = await simopen.discover(local, servers=servers, **options)
    except simopen.SimopenError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {
        "mapping": profile.mapping.value,
        "allocation": profile.allocation.value,
        "filtering": profile.filtering.value,
        "pooling": profile.pooling.value,
        "hairpinning": profile.hairpinning,
        "layers": profile.layers,
        "mapped": profile.mapped,
        "hosts": profile.hosts,
        "step": profile.step,
        "delta": profile.delta,
        "observations": len(profile.observations),
    }


if __name__ == "__main__":
    quick_start.loaded(simopen.discover)
    with asyncio.Runner(loop_factory=FACTORIES[sys.argv[1]]) as runner:
        print(json.dumps(runner.run(discover(**json.loads(sys.argv[2])))))
