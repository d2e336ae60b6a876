"""Two players in one small world: each tells the other where it is, sixty times a second, and how late that comes.

    one$    python feed.py 203.0.113.7 1314 22:14:30
    other$  python feed.py 198.51.100.9 1314 22:14:30

Each names the other's public address, the port that both fire from, and one instant, in UTC. `--no-ntp` at the end
trusts this machine's clock as it is; otherwise time servers are asked how far it is off.
"""

import asyncio
import math
import statistics
import struct
import sys
import time

import simopen

A_SECOND, TICKS = 60, 120
# My tick and where I am then; the last tick of yours that I have seen, and for how long, in ns.
FRAME = struct.Struct("!iffiq")


class Player:
    def __init__(self) -> None:
        self.sent_ns: list[int] = []
        self.seen, self.seen_ns = -1, 0
        self.peer_at = (0.0, 0.0)
        self.round_trips_s: list[float] = []

    async def play(self, writer: asyncio.StreamWriter) -> None:
        began_s = time.perf_counter()
        for tick in range(TICKS):
            await asyncio.sleep(began_s + tick / A_SECOND - time.perf_counter())
            angle, now_ns = 2 * math.pi * tick / TICKS, time.perf_counter_ns()
            self.sent_ns.append(now_ns)
            writer.write(FRAME.pack(tick, math.cos(angle), math.sin(angle), self.seen, now_ns - self.seen_ns))
            await writer.drain()
        writer.write_eof()

    async def watch(self, reader: asyncio.StreamReader) -> None:
        for _ in range(TICKS):
            tick, x, y, mine, held_ns = FRAME.unpack(await reader.readexactly(FRAME.size))
            now_ns = time.perf_counter_ns()
            self.seen, self.seen_ns, self.peer_at = tick, now_ns, (x, y)
            if mine >= 0:
                self.round_trips_s.append((now_ns - self.sent_ns[mine] - held_ns) / 1e9)


async def main(host: str, port: str, instant: str, *flags: str) -> None:
    at = simopen.read_instant(instant)
    clock = simopen.unchecked_clock() if "--no-ntp" in flags else None
    reader, writer = await simopen.connect((host, int(port)), at=at, clock=clock)

    player = Player()
    await asyncio.gather(player.play(writer), player.watch(reader))
    writer.close()

    late_ms = [1e3 * each for each in player.round_trips_s]
    median, p99 = statistics.median(late_ms), statistics.quantiles(late_ms, n=100)[98]
    print(f"ticks: {TICKS} each way; the peer ended at ({player.peer_at[0]:.2f}, {player.peer_at[1]:.2f})")
    print(f"round trip: median {median:.1f} ms, p99 {p99:.1f} ms, of {len(late_ms)}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (simopen.SimopenError, ValueError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
