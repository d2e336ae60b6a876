"""How soon a session is back after its network is: from the first packet that may pass to bytes both ways.

    python -m benchmarks.session [--cuts 100] [--away 0.1 12] [--json FILE]

In the lab: two hosts behind NATs with endpoint-independent mapping, 80 ms of round trip apart. The network of one is
cut, both ways and without a word, at random moments and for random times; a peer counts as gone after 2 s. A short cut
the stream may outlive; after a longer one the two meet again, by a rendezvous 40 ms away.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from pathlib import Path

from benchmarks.common import Row, measuring, options_parser, progress, save, shape, table
from tests.rendezvous.cuts import Side, cut, mend, two_sessions

BAR_S = 2.0
PATIENCE_S = 2.0
"""A peer that has acknowledged nothing for so long is gone."""
_APART_S = (0.5, 2.0)
_LONG_S = 3600.0


async def measured(cuts: int, away_s: tuple[float, float]) -> list[tuple[str, float]]:
    """Of each cut what came of it, and how long after it there were bytes both ways, seconds."""
    drawn = random.Random(1)
    liveness = {"keepalive": 1.0, "user_timeout": PATIENCE_S}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        async with two_sessions(Path(folder), limit_s=_LONG_S, **liveness) as (host, sides):
            await asyncio.gather(*(side.until("heard") for side in sides))
            for number in range(1, cuts + 1):
                await asyncio.sleep(drawn.uniform(*_APART_S))
                before = [len(side.steps()) for side in sides]
                await cut(host)
                await asyncio.sleep(drawn.uniform(*away_s))
                found.append(await _back(host, sides, before))
                progress(f"{number} of {cuts}: {found[-1][0]}, {found[-1][1]:.2f} s")
    return found


async def _back(host: object, sides: tuple[Side, Side], before: list[int]) -> tuple[str, float]:
    mended_ns = await mend(host)  # type: ignore[arg-type]
    heard = await asyncio.gather(*(side.until("heard", mended_ns) for side in sides))
    met = any(len(side.steps()) > count for side, count in zip(sides, before, strict=True))
    return "met again" if met else "outlived", (max(each["at_ns"] for each in heard) - mended_ns) / 1e9


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--away", type=float, nargs=2, default=(0.1, 12.0), metavar="S", help="from and to, seconds")
    options = parser.parse_args()
    low_s, high_s = options.away
    with measuring(cuts=options.cuts, away_from_s=low_s, away_to_s=high_s, gone_after_s=PATIENCE_S) as given:
        found = asyncio.run(measured(options.cuts, (low_s, high_s)))
    rows: list[Row] = []
    for what in ("met again", "outlived", "all"):
        if took := [each_s for each, each_s in found if what in (each, "all")]:
            row = {"what": what, "n": len(took), **shape(took, "back", "s")}
            rows.append({**row, "reached": row["back_p50_s"] <= BAR_S})
    table("from the network's return to bytes both ways", rows)
    save(options.json, "session", given, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
