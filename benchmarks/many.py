"""A thousand connects of one process waiting for one instant, against a thousand of another.

    python -m benchmarks.many [--connects 1 10 100 1000] [--loop asyncio uvloop] [--rtt 80] [--json FILE]

Two lab hosts behind NATs. Each connect has a local port and a listener of its own. Memory is the resident set's growth
while all of them wait; the spread is from the first SYN's call to the last one's; descriptors are counted before and
after.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import sys
import time
from pathlib import Path

import simopen
from benchmarks.common import (
    LOOPS,
    Row,
    measuring,
    options_parser,
    progress,
    rounded,
    run_on,
    save,
    shape,
    table,
)
from simopen import lab
from simopen.clock import source as clock
from simopen.model.times import MonoNs

FIRST_PORT = 10_000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def inside(peer: str, connects: int, at_ns: int) -> None:
    """What runs on each host: fires, and prints one JSON object."""
    now = clock.plain()
    before, memory = descriptors(), resident_bytes()
    at_s = now.utc_at(MonoNs(at_ns)) / 1e9
    tasks = [
        asyncio.create_task(simopen.punch((peer, FIRST_PORT + n), at=at_s, window=20, clock=now))
        for n in range(connects)
    ]
    await asyncio.sleep(max(0.0, (at_ns - time.monotonic_ns()) / 1e9 - 0.2))
    memory, waiting = resident_bytes() - memory, descriptors() - before
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    streams = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    fired = [report.fired_ns for _, report in streams]
    await asyncio.sleep(1)  # the other side's last streams may still be coming up: a close would reset them
    for sock, _ in streams:
        sock.close()
    errors = [str(outcome) for outcome in outcomes if isinstance(outcome, BaseException)]
    print(
        json.dumps(
            {
                "connected": len(streams),
                "errors": errors[:3],
                "memory": memory / connects,
                "waiting": waiting / connects,
                "late_ms": [(each - at_ns) / 1e6 for each in fired],
                "elapsed_ms": [(report.elapsed_s or 0) * 1e3 for _, report in streams],
                "leaked": descriptors() - before,
            }
        )
    )


async def measure(connects: int, loop: str, rtt_ms: float) -> list[Row]:
    async with lab.Network() as net:
        hosts = [await net.host(name, delay_s=rtt_ms / 4e3, nat=lab.Nat()) for name in ("left", "right")]
        at_ns = time.monotonic_ns() + round((3 + connects * 0.003) * 1e9)
        ended = await asyncio.gather(
            *(
                host.run(
                    [
                        sys.executable,
                        "-m",
                        "benchmarks.many",
                        "--inside",
                        peer.public_address,
                        loop,
                        str(connects),
                        str(at_ns),
                    ],
                    timeout_s=120,
                )
                for host, peer in zip(hosts, reversed(hosts), strict=True)
            )
        )
    failed = [done.stderr.decode() for done in ended if done.returncode]
    if failed:
        sys.exit("\n".join(failed))
    return [json.loads(done.stdout) for done in ended]


def row(connects: int, loop: str, sides: list[Row]) -> Row:
    """Both sides in one row: of each figure the worse one."""
    late = [value for side in sides for value in side["late_ms"]]
    elapsed = [value for side in sides for value in side["elapsed_ms"]]
    spread = [max(side["late_ms"]) - min(side["late_ms"]) for side in sides if side["late_ms"]]
    return {
        "connects": connects,
        "loop": loop,
        "connected": min(side["connected"] for side in sides),
        "kib_each": rounded(max(side["memory"] for side in sides) / 1024),
        "descriptors_each": rounded(max(side["waiting"] for side in sides)),
        "first_late_ms": rounded(min(late, default=None)),
        "spread_ms": rounded(max(spread, default=None)),
        **shape(elapsed, "up", "ms"),
        "descriptors_left": max(side["leaked"] for side in sides),
        "held": all(side["connected"] == connects and side["leaked"] == 0 for side in sides),
    }


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        peer, loop, connects, at_ns = sys.argv[2:]
        run_on(loop, inside(peer, int(connects), int(at_ns)))
        return
    parser = options_parser(__doc__)
    parser.add_argument("--connects", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--loop", nargs="+", default=list(LOOPS), choices=LOOPS)
    parser.add_argument("--rtt", type=float, default=80, metavar="MS")
    options = parser.parse_args()
    with measuring(rtt_ms=options.rtt) as given:
        rows = []
        for connects, loop in itertools.product(options.connects, options.loop):
            progress(f"{connects} connects on {loop}")
            rows.append(row(connects, loop, asyncio.run(measure(connects, loop, options.rtt))))
    table("two processes, left and right", rows)
    save(options.json, "many", given, rows)


if __name__ == "__main__":
    main()
