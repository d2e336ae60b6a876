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
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from benchmarks.common import conditions, median, quantile, save, table, verdict
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


@dataclass(frozen=True, slots=True)
class Measured:
    """One run's errors in µs, late is positive."""

    link: str
    path: str
    lab: list[float]
    end_to_end: list[float]


async def measure(options: argparse.Namespace, link: str, path: str) -> Measured:
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
    return Measured(link, path, _late_us(passed_ns, options), _late_us(map(int, output.split()), options))


def _late_us(times_ns: Iterable[int], options: argparse.Namespace) -> list[float]:
    return [time_ns / 1e3 - options.delay * 1e6 for time_ns in times_ns]


def report(options: argparse.Namespace, found: Sequence[Measured]) -> None:
    rows = []
    for run in found:
        for figure, late_us in (("lab", run.lab), ("end to end", run.end_to_end)):
            held = verdict(bool(late_us) and abs(median(late_us)) <= BAR_US)
            shape = [f"{quantile(late_us, share):.1f}" for share in (0.01, 0.5, 0.99, 1.0)] if late_us else ["-"] * 4
            rows.append([run.link, run.path, figure, f"{len(late_us)} of {options.packets}", *shape, held])
    columns = ("link", "path", "figure", "arrived", "p1", "p50", "p99", "max", "in bar")
    asked_ms = options.delay * 1e3
    table(f"µs later than the {asked_ms:g} ms asked for, one way; the bar is {BAR_US:g} at p50", columns, rows)


def links(wanted: Sequence[str]) -> list[str]:
    """Those that can be had here; the others are told of."""
    reasons = {link: lab.available(link) for link in wanted}
    for link, reason in reasons.items():
        if reason:
            print(f"no {link} here: {reason}", flush=True)
    return [link for link, reason in reasons.items() if not reason]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=2000, help="packets a second")
    parser.add_argument("--packets", type=int, default=10_000)
    parser.add_argument("--delay", type=float, default=0.040, help="one way, in seconds")
    parser.add_argument("--links", nargs="+", choices=LINKS, default=LINKS)
    parser.add_argument("--spin", type=int, default=0, help="programs that keep a core busy meanwhile")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    n = f"{options.packets} packets per row, {options.rate} a second"
    print(conditions(n=n, spinning=options.spin), flush=True)
    found = [asyncio.run(measure(options, link, path)) for link in links(options.links) for path in PATHS]
    report(options, found)
    save(options.json, [asdict(run) for run in found])


if __name__ == "__main__":
    main()
