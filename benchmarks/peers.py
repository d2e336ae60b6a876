"""simopen beside what else there is, in the same lab and the same run: success, time, processor time, memory.

    python -m benchmarks.peers [--runs 20] [--rival NAME ...] [--answer none drop reset] [--apart 0 30 100 500]
                               [--rtt 80] [--at-once 4] [--here] [--loud] [--json FILE]

Every rival runs in a virtual environment of its own (made in benchmarks/.peers when it is missing), as one process per
host, which is given its orders one after the other. `--here`: none is made; only what needs nothing but simopen and the
standard library takes part, run by this interpreter. Each is told the peer's endpoint and the instant: nobody needs a
rendezvous, STUN, a relay or NTP. What else each was and was not given stands at the top of its module in
`benchmarks.rivals`. The clocks of both hosts are one; the instants are `apart` apart, the right side's the later one.

"usable": from the later instant until both programs have a stream that they can use, Noise, elections and all. "tcp":
until both kernels have the stream that it became, by the packets. Connected: both sides say so. Processor time and
memory are those of the worse side; the processor time is that from getting the order, one second before the instant.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import Row, measuring, median, options_parser, progress, rounded, save, shape, table
from benchmarks.orders import Agent, Order
from simopen import lab

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = Path(__file__).with_name(".peers")


@dataclass(frozen=True, slots=True)
class Rival:
    """A module of `benchmarks.rivals`, what it needs from PyPI, and how long it may try."""

    module: str
    packages: tuple[str, ...] = ()
    window_s: float = 10.0

    @property
    def is_foreign(self) -> bool:
        """Whether it needs a package that this project does without."""
        return any("==" in package for package in self.packages)


RIVALS = {
    "simopen": Rival("ours", ("--editable", str(ROOT))),
    "connect": Rival("connect"),
    "loop": Rival("loop"),
    "warpgate": Rival("by_warpgate", ("warpgate==4.0.14",)),
    "libp2p": Rival("by_libp2p", ("libp2p==0.8.1",), window_s=25.0),  # three rounds of 5 s, and 2 s after each
}
ANSWERS = {
    "none": None,
    "drop": lab.Nat(unsolicited=lab.Unsolicited.DROP),
    "reset": lab.Nat(unsolicited=lab.Unsolicited.RESET),
}
_FIRST_PORT = 2000
_LEAD_S = 1.0
_AFTERWARDS_S = 1.0  # how long each side keeps a stream that the other may not have yet


@dataclass(frozen=True, slots=True)
class Run:
    """One punch. Milliseconds after the later instant until both sides had it; None where one of them did not."""

    usable_ms: float | None
    answers: tuple[Order, Order]
    port: int
    later_ns: int

    @property
    def error(self) -> str | None:
        return next((answer["error"] for answer in self.answers if "error" in answer), None)


@dataclass(slots=True)
class Pairing:
    """Two hosts with one rival, and answers of one kind on the way."""

    rival: str
    answer: str
    hosts: tuple[lab.Host, lab.Host]
    agents: tuple[Agent, Agent]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def punch(self, apart_ms: float, port: int, turn: int) -> Run:
        at_ns = time.monotonic_ns() + round(_LEAD_S * 1e9)
        later_ns = at_ns + round(apart_ms * 1e6)
        orders = [self._order(side, each_ns, apart_ms, port, turn) for side, each_ns in enumerate((at_ns, later_ns))]
        left, right = await asyncio.gather(
            *(agent.ask(order) for agent, order in zip(self.agents, orders, strict=True))
        )
        both = "error" not in left and "error" not in right
        usable_ms = (max(left["established_ns"], right["established_ns"]) - later_ns) / 1e6 if both else None
        return Run(usable_ms, (left, right), port, later_ns)

    def _order(self, side: int, at_ns: int, apart_ms: float, port: int, turn: int) -> Order:
        host, peer = self.hosts[side], self.hosts[1 - side]
        return {
            "host": host.address,
            "public": host.public_address,
            "peer": peer.public_address,
            "port": port,
            "first": side == turn % 2,  # which side is which must not decide: they take turns
            "at_ns": at_ns,
            "window_s": RIVALS[self.rival].window_s,
            "hold_s": _AFTERWARDS_S + apart_ms / 1e3,
        }


def environment(name: str) -> Path:
    """The Python of a rival's virtual environment, which is made where it is missing or outdated. Takes a minute."""
    directory, packages = ENVIRONMENTS / name, RIVALS[name].packages
    stamp, wanted = directory / "made-of", f"{sys.version}\n{' '.join(packages)}"
    if not stamp.exists() or stamp.read_text() != wanted:
        progress(f"making {directory}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        if packages:
            subprocess.run([directory / "bin/python", "-m", "pip", "install", "--quiet", *packages], check=True)
        stamp.write_text(wanted)
    return directory / "bin/python"


@asynccontextmanager
async def pairings(net: lab.Network, options: argparse.Namespace) -> AsyncIterator[list[Pairing]]:
    """A pairing for each rival and kind of answer."""
    stderr = None if options.loud else asyncio.subprocess.DEVNULL
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    async with AsyncExitStack() as stack:

        async def start(host: lab.Host, rival: str) -> Agent:
            python = sys.executable if options.here else environment(rival)
            command = [str(python), "-m", f"benchmarks.rivals.{RIVALS[rival].module}"]
            agent = await Agent.start(host, command, env=env, stderr=stderr)
            stack.push_async_callback(agent.close)
            return agent

        found = []
        for rival, answer in itertools.product(options.rival, options.answer):
            progress(f"starting {rival}")
            names = (f"left-{rival}-{answer}", f"right-{rival}-{answer}")
            left, right = [await net.host(name, delay_s=options.rtt / 4e3, nat=ANSWERS[answer]) for name in names]
            agents = await asyncio.gather(start(left, rival), start(right, rival))
            found.append(Pairing(rival, answer, (left, right), (agents[0], agents[1])))
        yield found


async def measure(options: argparse.Namespace) -> list[Row]:
    """A row per rival, answer and difference. The rivals take turns, so that the rest of the machine hits all alike."""
    room, done = asyncio.Semaphore(options.at_once), itertools.count(1)
    async with lab.Network(seed=1) as net, pairings(net, options) as all_lanes:
        plan = list(itertools.product(range(options.runs), options.apart, all_lanes))

        async def one(number: int, turn: int, apart_ms: float, pairing: Pairing) -> Run:
            async with pairing.lock, room:
                run = await pairing.punch(apart_ms, _FIRST_PORT + number, turn)
            progress(f"{next(done)} of {len(plan)} punches: {pairing.rival}, {pairing.answer}, {apart_ms:g} ms apart")
            return run

        runs = await asyncio.gather(*(one(number, *each) for number, each in enumerate(plan)))
        packets = segments(await net.record())
    progress("")
    cells: dict[tuple[str, str, float], list[tuple[Run, float | None]]] = defaultdict(list)
    for (_, apart_ms, pairing), run in zip(plan, runs, strict=True):
        cells[pairing.rival, pairing.answer, apart_ms].append(
            (run, tcp_ms(run, [host.name for host in pairing.hosts], packets))
        )
    return [_row(place, pairs) for place, pairs in sorted(cells.items(), key=lambda item: _rank(options, item[0]))]


def _rank(options: argparse.Namespace, place: tuple[str, str, float]) -> tuple[int, float, int]:
    rival, answer, apart_ms = place
    return options.answer.index(answer), apart_ms, options.rival.index(rival)


Segments = dict[tuple[str, int], list[lab.Passage]]


def segments(record: lab.Record) -> Segments:
    """The hosts' packets, by the sending host and its port. No NAT here changes a port."""
    found: Segments = defaultdict(list)
    for passage in record:
        if passage.origin is lab.Origin.HOST:
            found[passage.source, passage.sent.source.port].append(passage)
    return found


def tcp_ms(run: Run, hosts: Sequence[str], packets: Segments) -> float | None:
    """Milliseconds after the later instant until both kernels had the stream; None where there is none."""
    if run.usable_ms is None:
        return None
    sent = [packets[host, run.port] for host in hosts]
    until = [answer["established_ns"] for answer in run.answers]
    ups = [_acknowledged_ns(sent[side], sent[1 - side], until[side]) for side in (0, 1)]
    known = [up_ns for up_ns in ups if up_ns is not None]
    return (max(known) - run.later_ns) / 1e6 if len(known) == 2 else None


def _acknowledged_ns(ours: Iterable[lab.Passage], theirs: Iterable[lab.Passage], until_ns: int) -> int | None:
    """When this side got the acknowledgement of the SYN that its stream began with: the last one before it was up."""
    syns = [each for each in ours if lab.Flags.SYN in each.sent.flags and each.sent_ns <= until_ns]
    if not syns:
        return None
    expected = (syns[-1].sent.seq + 1) % 2**32
    acks = [
        each.received_ns
        for each in theirs
        if each.received_ns is not None
        and each.sent.ack == expected
        and each.sent.flags & (lab.Flags.ACK | lab.Flags.RST) == lab.Flags.ACK
    ]
    return min(acks, default=None)


def _row(place: tuple[str, str, float], pairs: Sequence[tuple[Run, float | None]]) -> Row:
    rival, answer, apart_ms = place
    runs = [run for run, _ in pairs]
    errors = Counter(run.error for run in runs if run.error)
    return {
        "answer": answer,
        "apart_ms": apart_ms,
        "rival": rival,
        "n": len(runs),
        "connected": sum(run.usable_ms is not None for run in runs),
        **shape([run.usable_ms for run in runs if run.usable_ms is not None], "usable", "ms"),
        **shape([tcp for _, tcp in pairs if tcp is not None], "tcp", "ms"),
        "cpu_p50_ms": rounded(median([max(each["cpu_s"] for each in run.answers) * 1e3 for run in runs])),
        "peak_mib": rounded(max(each["peak_kib"] for run in runs for each in run.answers) / 1024),
        "error": errors.most_common(1)[0][0] if errors else None,
    }


def without_environments(rivals: Sequence[str]) -> list[str]:
    """Those of them that need no environment of their own; the others are told of."""
    foreign = [name for name in rivals if RIVALS[name].is_foreign]
    if foreign:
        print(f"without {' and '.join(foreign)}, which need environments of their own: python -m benchmarks peers")
    return [name for name in rivals if name not in foreign]


def main() -> None:
    parser = options_parser(__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rival", nargs="+", default=list(RIVALS), choices=RIVALS)
    parser.add_argument("--answer", nargs="+", default=list(ANSWERS), choices=ANSWERS)
    parser.add_argument("--apart", type=float, nargs="+", default=[0, 30, 100, 500], metavar="MS")
    parser.add_argument("--rtt", type=float, default=80, metavar="MS")
    parser.add_argument("--at-once", type=int, default=4, help="punches under way at any time")
    parser.add_argument("--here", action="store_true", help="make no environments, and leave out whom that leaves out")
    parser.add_argument("--loud", action="store_true", help="show what the rivals write to standard error")
    options = parser.parse_args()
    if options.here:
        options.rival = without_environments(options.rival)
    else:
        for name in options.rival:
            environment(name)
    versions = ", ".join(package for name in options.rival for package in RIVALS[name].packages if "==" in package)
    with measuring(runs=options.runs, rtt_ms=options.rtt, at_once=options.at_once, versions=versions) as given:
        rows = asyncio.run(measure(options))
    table("ms after the later instant", rows)
    save(options.json, "peers", given, rows)


if __name__ == "__main__":
    main()
