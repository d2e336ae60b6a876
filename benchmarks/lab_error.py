"""How exactly the lab delays packets: asked against delivered, at a steady rate.

Two figures. "router": from the lab's taking a packet to its handing it over, by the record, less the delay asked for.
"end to end": from the sender's clock just before `send` to the receiver's just after `recv`, less the same delay: it
holds the wake-up of the lab and of the receiver.

    python -m benchmarks.lab_error [--rate 2000] [--spin 2] [--nat] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from benchmarks.common import Row, conditions, described, options_parser, quantile, rounded, save, table
from simopen import lab

_SENDER = """
import socket, sys, time
target, rate, packets = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.connect((target, 1314))
start = time.monotonic_ns() + 50_000_000
for number in range(packets):
    wait_s = (start + number * 1e9 / rate - time.monotonic_ns()) / 1e9
    if wait_s > 0:
        time.sleep(wait_s)
    out.send(b"%d" % time.monotonic_ns())
"""

_RECEIVER = """
import socket, sys, time
packets = int(sys.argv[1])
inward = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
inward.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
inward.bind(("", 1314))
inward.settimeout(5)
print("ready", flush=True)
times = []
try:
    while len(times) < packets:
        sent = int(inward.recv(100))
        times.append(time.monotonic_ns() - sent)
except TimeoutError:
    pass
print(*times)
"""

_SPINNER = "while True: pass"


def _row(figure: str, sent: int, errors_ns: Sequence[int]) -> Row:
    cuts = {"p1": 0.01, "p50": 0.5, "p99": 0.99, "max": 1.0}
    places = {f"{name}_us": rounded(quantile(errors_ns, share) / 1e3) for name, share in cuts.items()}
    return {"figure": figure, "packets": sent, "delivered": len(errors_ns), **places}


async def _measure(options: argparse.Namespace) -> list[Row]:
    nat = lab.Nat() if options.nat else None
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(lab.Network(seed=1, link=options.link))
        left = await net.host("left", delay_s=options.delay / 2, nat=nat)
        right = await net.host("right", delay_s=options.delay / 2)
        for _ in range(options.spin):
            await left.start([sys.executable, "-c", _SPINNER])
        receiver = await right.start([sys.executable, "-c", _RECEIVER, str(options.packets)])
        assert receiver.stdout is not None
        await receiver.stdout.readline()
        arguments = [right.public_address, str(options.rate), str(options.packets)]
        await left.run([sys.executable, "-c", _SENDER, *arguments], timeout_s=600)
        output, _ = await receiver.communicate()
        record = await net.record()
    return _rows(options, record, [int(time) for time in output.split()])


def _rows(options: argparse.Namespace, record: lab.Record, times_ns: Sequence[int]) -> list[Row]:
    delay_ns = round(options.delay * 1e9)
    router_ns = [each.received_ns - each.sent_ns - delay_ns for each in record if each.received_ns is not None]
    end_to_end_ns = [time - delay_ns for time in times_ns]
    return [_row("router", len(record), router_ns), _row("end to end", options.packets, end_to_end_ns)]


def main() -> None:
    parser = options_parser(__doc__)
    parser.add_argument("--rate", type=int, default=2000, help="packets a second")
    parser.add_argument("--packets", type=int, default=10_000)
    parser.add_argument("--delay", type=float, default=0.040, help="one way, in seconds")
    parser.add_argument("--link", choices=["auto", "tun", "veth"], default="auto")
    parser.add_argument("--spin", type=int, default=0, help="programs that keep a core busy meanwhile")
    parser.add_argument("--nat", action="store_true", help="put the sender behind a NAT")
    options = parser.parse_args()
    given = conditions(packets_a_second=options.rate, delay_ms=options.delay * 1e3, busy_programs=options.spin)
    print(described(given), flush=True)
    rows = asyncio.run(_measure(options))
    table("µs by which a packet comes later than asked for", rows)
    save(options.json, "lab_error", given, rows)


if __name__ == "__main__":
    main()
