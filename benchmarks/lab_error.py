"""How exactly the lab delays packets: the delay asked for against the delay given, at a steady rate, one way.

Two figures. "lab": from the lab's taking a packet to its handing it over, by the record. "end to end": from the
sender's clock just before `send` to the receiver's just after `recv`; it holds the wake-up of the receiver too. Both
less the delay asked for. Each kind of link that can be had here, and each path: without a NAT, from behind one, and
between two homes behind a carrier's NAT each.

    python -m benchmarks.lab_error [--rate 2000] [--packets 10000] [--delay 0.040] [--links tun veth] [--spin 2]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
from collections.abc import Iterable, Sequence

from benchmarks.common import Row, measuring, median, options_parser, quantile, rounded, save, table
from simopen import lab

BAR_US = 200.0  # either way from the delay asked for, at the median
LINKS = ("tun", "veth")
CARRIED = (lab.Nat(), lab.Nat(lab.Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=lab.Allocation.RANDOM))
LAX = (lab.Nat(filtering=lab.Filtering.ENDPOINT_INDEPENDENT),) * 2  # whoever sends gets in, once something has gone out
PATHS: dict[str, tuple[tuple[lab.Nat, ...], tuple[lab.Nat, ...]]] = {
    "no NAT": ((), ()),
    "one NAT": ((lab.Nat(),), ()),
    "two rows of two NATs": (CARRIED, LAX),
}

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
inward.sendto(b"opens a NAT", ("192.0.2.1", 9))
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


async def measure(options: argparse.Namespace, link: str, path: str) -> list[Row]:
    left_nats, right_nats = PATHS[path]
    async with lab.Network(seed=1, link=link) as net:
        left = await net.host("left", delay_s=options.delay / 2, nat=left_nats)
        right = await net.host("right", delay_s=options.delay / 2, nat=right_nats)
        for _ in range(options.spin):
            await left.start([sys.executable, "-c", _SPINNER])
        receiver = await right.start([sys.executable, "-c", _RECEIVER, str(options.packets)])
        assert receiver.stdout is not None
        await receiver.stdout.readline()
        arguments = [right.public_address, str(options.rate), str(options.packets)]
        await left.run([sys.executable, "-c", _SENDER, *arguments], timeout_s=600)
        output, _ = await receiver.communicate()
        record = (await net.record()).between("left", "right")
    passed_ns = [each.received_ns - each.sent_ns for each in record if each.received_ns is not None]
    found = {"lab": _late_us(passed_ns, options), "end to end": _late_us(map(int, output.split()), options)}
    return [
        {"link": link, "path": path, "figure": figure, "packets": options.packets, **_row(late_us)}
        for figure, late_us in found.items()
    ]


def _late_us(times_ns: Iterable[int], options: argparse.Namespace) -> list[float]:
    return [time_ns / 1e3 - options.delay * 1e6 for time_ns in times_ns]


def _row(late_us: Sequence[float]) -> Row:
    cuts = {"p1": 0.01, "p50": 0.5, "p99": 0.99, "max": 1.0}
    places = {f"{name}_us": rounded(quantile(late_us, share)) if late_us else None for name, share in cuts.items()}
    return {"delivered": len(late_us), **places, "in_bar": bool(late_us) and abs(median(late_us)) <= BAR_US}


def links(wanted: Sequence[str]) -> list[str]:
    """Those that can be had here; the others are told of."""
    reasons = {link: lab.available(link) for link in wanted}
    for link, reason in reasons.items():
        if reason:
            print(f"no {link} here: {reason}", flush=True)
    return [link for link, reason in reasons.items() if not reason]


def main() -> None:
    parser = options_parser(__doc__)
    parser.add_argument("--rate", type=int, default=2000, help="packets a second")
    parser.add_argument("--packets", type=int, default=10_000)
    parser.add_argument("--delay", type=float, default=0.040, help="one way, in seconds")
    parser.add_argument("--links", nargs="+", choices=LINKS, default=LINKS)
    parser.add_argument("--spin", type=int, default=0, help="programs that keep a core busy meanwhile")
    options = parser.parse_args()
    with measuring(packets_a_second=options.rate, delay_ms=options.delay * 1e3, busy_programs=options.spin) as given:
        each = [asyncio.run(measure(options, *place)) for place in itertools.product(links(options.links), PATHS)]
    rows = [row for of_place in each for row in of_place]
    table(f"µs later than asked for, one way; the bar is {BAR_US:g} at p50", rows)
    save(options.json, "lab_error", given, rows)


if __name__ == "__main__":
    main()
