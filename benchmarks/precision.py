"""How long after the instant `connect` is called, and the SYN is on the wire.

    python -m benchmarks.precision [--runs 300] [--loop uvloop] [--load idle ticking blocked busy] [--json FILE]

Measured in a lab host, against a host that answers with RSTs: the call by CLOCK_MONOTONIC right before it, the wire by
the kernel's time stamp of the packet as it leaves (SO_TIMESTAMPNS on a packet socket). "ticking": 200 tasks of the same
loop wake every 10 ms. "blocked": the loop computes for 5 ms at a time, in Python. "busy": a process that never sleeps
on every core.

The rival: `asyncio.sleep` until the instant, then a non-blocking `connect`. The floor, what the machine itself allows:
a real-time process with one thread and no loop, that sleeps until 900 µs before the instant, spins and connects. A
virtual machine's cores stop for longer than any of this takes, most often while it is idle.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import simopen
from benchmarks.common import (
    LOOPS,
    Row,
    measuring,
    median,
    options_parser,
    progress,
    quantile,
    rounded,
    run_on,
    save,
    shape,
    table,
)
from simopen import lab
from simopen.clock import source as clock
from simopen.clock.instant import instant_ns
from simopen.clock.scheduler import SPIN_NS
from simopen.model.times import MonoNs, UtcNs

LOADS = ("idle", "ticking", "blocked", "busy")
AHEAD_S = 0.03
_ETH_P_ALL = 0x0003
_OUTGOING = 4  # PACKET_OUTGOING, linux/if_packet.h
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("qq")
# What is promised: (median, p99) in µs of the call, per load; of the wire, idle.
CALL_BARS_US = {"idle": (5.0, 50.0), "ticking": (5.0, 50.0), "blocked": (5.0, 50.0), "busy": (None, 100.0)}
WIRE_BAR_US = (60.0, 150.0)


@dataclass(frozen=True, slots=True)
class Shot:
    """µs after the instant."""

    call_us: float
    wire_us: float


class Wire:
    """Sees the SYNs that leave this host, with the kernel's time stamps."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._sock.setblocking(False)

    def left_ns(self, port: int) -> int:
        """CLOCK_REALTIME ns at which the first SYN from `port` left; everything seen so far is forgotten."""
        found = 0
        while True:
            try:
                data, control, _, address = self._sock.recvmsg(128, 64)
            except BlockingIOError:
                return found
            source = int.from_bytes(data[20:22], "big")
            if not found and address[2] == _OUTGOING and data[9] == socket.IPPROTO_TCP and source == port:
                seconds, nanoseconds = _TIMESPEC.unpack(control[0][2])
                found = seconds * 1_000_000_000 + nanoseconds

    def close(self) -> None:
        self._sock.close()


async def by_simopen(peer: str, port: int, at_ns: int, now: simopen.Estimate) -> int:
    """CLOCK_MONOTONIC ns of the call."""
    try:
        await simopen.punch((peer, port), at=now.utc_at(MonoNs(at_ns)) / 1e9, window=0.02, clock=now, listen=False)
    except simopen.PunchError as error:
        if error.report is None:
            raise
        if not error.report.attempts:  # it came too late for the whole window, so it is at least as late as this
            return error.report.ended_ns
        return error.report.attempts[0].started_ns
    raise RuntimeError(f"somebody answered at {peer}:{port}")


async def by_sleep(peer: str, port: int, at_ns: int, now: simopen.Estimate) -> int:
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.bind(("0.0.0.0", port))
        await asyncio.sleep((at_ns - time.monotonic_ns()) / 1e9)
        called_ns = time.monotonic_ns()
        sock.connect_ex((peer, port))
    return called_ns


async def by_itself(peer: str, port: int, at_ns: int, now: simopen.Estimate) -> int:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.bind(("0.0.0.0", port))
        time.sleep((at_ns - time.monotonic_ns() - SPIN_NS) / 1e9)  # noqa: ASYNC251 - there is nothing else to run
        while (called_ns := time.monotonic_ns()) < at_ns:
            pass
        sock.connect_ex((peer, port))
    return called_ns


METHODS: dict[str, Callable[[str, int, int, simopen.Estimate], Awaitable[int]]] = {
    "simopen": by_simopen,
    "sleep + connect": by_sleep,
    "floor": by_itself,
}


async def shoot(method: str, peer: str, runs: int, ahead_s: float = AHEAD_S) -> list[Shot]:
    """So many shots, one after the other, each from a port of its own."""
    wire, now, shots = Wire(), clock.plain(), []
    realtime_less_monotonic_ns = now.reading.realtime_ns - now.reading.monotonic_ns
    try:
        for number in range(runs):
            port = 20_000 + number
            at_ns = time.monotonic_ns() + round(ahead_s * 1e9) + number * 7919  # no beat with the timer tick
            at_ns = now.monotonic_at(
                UtcNs(instant_ns(now.utc_at(MonoNs(at_ns)) / 1e9) or 0)
            )  # as exactly as seconds in a float can say it
            called_ns = await METHODS[method](peer, port, at_ns, now)
            seen_ns = wire.left_ns(port)
            left_ns = seen_ns - realtime_less_monotonic_ns if seen_ns else called_ns
            shots.append(Shot((called_ns - at_ns) / 1e3, (left_ns - at_ns) / 1e3))
    finally:
        wire.close()
    return shots


@asynccontextmanager
async def load(kind: str) -> AsyncIterator[None]:
    """Keep this loop, or every core, busy meanwhile."""
    processes, tasks = [], []
    if kind == "busy":
        for _ in range(os.cpu_count() or 1):
            processes.append(await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass"))
    if kind == "blocked":
        tasks = [asyncio.create_task(_block())]
    if kind == "ticking":
        tasks = [asyncio.create_task(_tick()) for _ in range(200)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            await process.wait()
        for task in tasks:
            task.cancel()


async def _tick() -> None:
    while True:  # noqa: ASYNC110 - the ticking is the point
        await asyncio.sleep(0.01)


async def _block() -> None:
    while True:
        until_ns = time.monotonic_ns() + 5_000_000
        while time.monotonic_ns() < until_ns:
            pass
        await asyncio.sleep(0.001)


async def inside(peer: str, method: str, kind: str, runs: int) -> None:
    """What runs on the lab host: prints one JSON list of (call, wire)."""
    async with load(kind):
        await shoot(method, peer, 5, ahead_s=0.5)  # the first call loads code, long before anybody's instant
        shots = await shoot(method, peer, runs)
    print(json.dumps([(shot.call_us, shot.wire_us) for shot in shots]))


async def measure(options: argparse.Namespace) -> dict[tuple[str, str, str], list[Shot]]:
    found = {}
    async with lab.Network() as net:
        left, right = await net.host("left"), await net.host("right")
        for loop, kind, method in itertools.product(options.loop, options.load, METHODS):
            if method == "floor" and kind in ("ticking", "blocked"):
                continue  # it has no loop to load
            progress(f"{method} on {loop}, {kind}")
            command = [
                sys.executable,
                "-m",
                "benchmarks.precision",
                "--inside",
                right.public_address,
                loop,
                method,
                kind,
            ]
            done = await left.run([*command, str(options.runs)], timeout_s=options.runs * 0.5 + 60)
            if done.returncode:
                sys.exit(done.stderr.decode())
            found[loop, method, kind] = [Shot(*pair) for pair in json.loads(done.stdout)]
    return found


def row(loop: str, method: str, kind: str, shots: list[Shot]) -> Row:
    call, wire = [shot.call_us for shot in shots], [shot.wire_us for shot in shots]
    return {
        "loop": loop,
        "load": kind,
        "method": method,
        "n": len(shots),
        "call_min_us": rounded(min(call)),
        **shape(call, "call", "us"),
        "call_max_us": rounded(max(call)),
        **shape(wire, "wire", "us"),
        "wire_max_us": rounded(max(wire)),
        "held": _held(kind, call, wire) if method == "simopen" else None,
    }


def _held(kind: str, call: list[float], wire: list[float]) -> bool:
    middle, most = CALL_BARS_US[kind]
    held = min(call) >= 0 and quantile(call, 0.99) <= most and (middle is None or median(call) <= middle)
    if kind == "idle":
        held = held and median(wire) <= WIRE_BAR_US[0] and quantile(wire, 0.99) <= WIRE_BAR_US[1]
    return held


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        peer, loop, method, kind, runs = sys.argv[2:]
        run_on(loop, inside(peer, method, kind, int(runs)))
        return
    parser = options_parser(__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--loop", nargs="+", default=list(LOOPS), choices=LOOPS)
    parser.add_argument("--load", nargs="+", default=LOADS, choices=LOADS)
    options = parser.parse_args()
    with measuring(runs=options.runs) as given:
        found = asyncio.run(measure(options))
    rows = [row(loop, method, kind, shots) for (loop, method, kind), shots in found.items()]
    table("µs after the instant", rows)
    save(options.json, "precision", given, rows)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
