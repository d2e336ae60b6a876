"""How soon a session is back after its network is, and what becomes of HTTP's requests over it.

    python -m benchmarks.session [--cuts 100] [--away 0.1 12] [--gone 30 300] [--asleep 30] [--json FILE]

In the lab: two hosts behind NATs with endpoint-independent mapping, 80 ms of round trip apart. One asks the other by
HTTP, GET and POST in turn, over `simopen.http.Transport` and one session. The network of one is cut, both ways and
without a word, at random moments and for random times; a peer counts as gone after 2 s. A short cut the stream may
outlive; after a longer one the two meet again, by a rendezvous 40 ms away. Times are from the network's return to a
request's arrival there and an answer's here. Then the network is gone for so many seconds, and one side is asleep: its
process is stopped and its network gone, which is all of a suspend but that its clock goes on.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.common import Row, measuring, options_parser, progress, rounded, save, shape, table
from simopen import lab
from tests.rendezvous.cuts import Side, cut, mend, two_sessions

BAR_S = 2.0
PATIENCE_S = 2.0
"""A peer that has acknowledged nothing for so long is gone."""
_APART_S = (0.5, 2.0)
_LONG_S = 3600.0
Told: TypeAlias = Iterable[Mapping[str, Any]]


async def measured(cuts: int, away_s: tuple[float, float], gone_s: list[float], asleep_s: list[float]) -> list[Row]:
    """The rows of three tables."""
    drawn = random.Random(1)
    found: list[tuple[str, float]] = []
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        sessions = two_sessions(Path(folder), "tests.asker", limit_s=_LONG_S, keepalive=1.0, user_timeout=PATIENCE_S)
        async with sessions as (host, sides):
            await asyncio.gather(*(side.until("heard") for side in sides))
            for number in range(1, cuts + 1):
                await asyncio.sleep(drawn.uniform(*_APART_S))
                found.append(await _away(host, sides, drawn.uniform(*away_s)))
                progress(f"{number} of {cuts}: {found[-1][0]}, {found[-1][1]:.2f} s")
            for what, stops, times in (("network gone", False, gone_s), ("asleep", True, asleep_s)):
                for away in times:
                    came, back_s = await _away(host, sides, away, stops=stops)
                    rows.append(
                        {"table": "long", "what": what, "away_s": away, "came": came, "back_s": rounded(back_s)}
                    )
                    progress(f"{what} for {away:g} s: {came}, {back_s:.2f} s")
            await asyncio.sleep(_APART_S[0])
            counts = counted(sides[0].told, sides[1].told)
    return [*_cuts(found), *({"table": "requests", **row} for row in counts), *rows]


async def _away(host: lab.Host, sides: tuple[Side, Side], away_s: float, *, stops: bool = False) -> tuple[str, float]:
    """What came of the stream, and after how many seconds there was a request, and its answer."""
    before = [len(side.steps()) for side in sides]
    await cut(host)
    if stops:
        sides[0].stop()
    await asyncio.sleep(away_s)
    if stops:
        sides[0].go_on()
    mended_ns = await mend(host)
    heard = await asyncio.gather(*(side.until("heard", mended_ns) for side in sides))
    met = any(len(side.steps()) > count for side, count in zip(sides, before, strict=True))
    return "met again" if met else "outlived", (max(each["at_ns"] for each in heard) - mended_ns) / 1e9


def _cuts(found: list[tuple[str, float]]) -> list[Row]:
    rows: list[Row] = []
    for what in ("met again", "outlived", "all"):
        if took := [each_s for each, each_s in found if what in (each, "all")]:
            row = {"table": "cuts", "what": what, "n": len(took), **shape(took, "back", "s")}
            rows.append({**row, "reached": row["back_p50_s"] <= BAR_S})
    return rows


def counted(asked: Told, served: Told) -> list[Row]:
    """Of each method: answers and errors of who asks, and how often who serves was asked for the same.

    A request that is under way at the end is served, maybe, and has come to nothing yet.
    """
    answers = {(each["method"], each["number"]): each["step"] for each in asked if "number" in each}
    times = Counter((each["method"], each["number"]) for each in served if "number" in each)
    rows: list[Row] = []
    for method in ("GET", "POST"):
        ends = [(end, times[key]) for key, end in answers.items() if key[0] == method]
        row = {
            "method": method,
            "n": len(ends),
            "answered": sum(end == "heard" for end, _ in ends),
            "told_as_error": sum(end == "failed" for end, _ in ends),
            "served_again": sum(many > 1 for _, many in ends),
        }
        unserved = any(end == "heard" and not many for end, many in ends)
        wrong = row["told_as_error"] if method == "GET" else row["served_again"]
        rows.append({**row, "held": not (unserved or wrong)})
    return rows


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--away", type=float, nargs=2, default=(0.1, 12.0), metavar="S", help="from and to, seconds")
    parser.add_argument("--gone", type=float, nargs="*", default=[30.0, 300.0], metavar="S")
    parser.add_argument("--asleep", type=float, nargs="*", default=[30.0], metavar="S")
    options = parser.parse_args()
    low_s, high_s = options.away
    with measuring(cuts=options.cuts, away_from_s=low_s, away_to_s=high_s, gone_after_s=PATIENCE_S) as given:
        rows = asyncio.run(measured(options.cuts, (low_s, high_s), options.gone, options.asleep))
    for name in dict.fromkeys(row["table"] for row in rows):
        table(name, [{field: row[field] for field in row if field != "table"} for row in rows if row["table"] == name])
    save(options.json, "session", given, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
