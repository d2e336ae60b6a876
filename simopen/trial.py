"""`simopen lab`'s work: two hosts behind the named NATs punch, once or often, and what came of it is told as values.

Theory of operation: three hosts in one network. Each side runs `simopen.side`, one process for all runs. For each run
both learn their public endpoint from the observer, get the other's passed on by this module (which is what a
rendezvous does), and fire at one instant. The instant is chosen when both have said that they are ready, so the lead
need only cover the way of an order down a pipe. Each run has a port of its own, so none meets another's mappings.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simopen import lab
from simopen.errors import LabError
from simopen.lab.packet import Endpoint
from simopen.lab.presets import Nats, format_nats

LEFT, RIGHT = "left", "right"
_OBSERVER = str(Path(lab.__file__).with_name("observer.py"))
_OBSERVER_PORT = 443
_FIRST_PORT = 1314
MOST_RUNS = 60_000  # each has a port
# From the order to the instant: a line down a pipe, sockets made and bound, a thread that wakes. A loaded machine may
# need longer; the shot is then late, and the report says so.
_LEAD_S = 0.1
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is tried. Delay, jitter and loss are one way between the two hosts; `apart_s`: right fires that later."""

    left: Nats
    right: Nats
    delay_s: float = 0.04
    jitter_s: float = 0.0
    loss: float = 0.0
    apart_s: float = 0.0
    window_s: float = 10.0
    seed: int = 0

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        names = ("delay_s", "jitter_s", "loss", "apart_s", "window_s", "seed")
        nats = {"left": format_nats(self.left), "right": format_nats(self.right)}
        return {**nats, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True)
class Run:
    """One punch. `seen`: each side's public endpoint as the observer saw it, which the other side fired at."""

    seen: dict[str, Endpoint]
    answers: dict[str, Answer]
    record: lab.Record

    @property
    def connected(self) -> bool:
        """Whether both sides have the stream, and a byte went there and back."""
        return len(self.answers) == 2 and not any("error" in answer for answer in self.answers.values())

    @property
    def errors(self) -> dict[str, str]:
        """What went wrong, by side, in the side's own words."""
        return {name: answer["error"] for name, answer in self.answers.items() if "error" in answer}

    @property
    def later(self) -> str:
        """The side whose first SYN left later."""
        return max(self.answers, key=lambda name: self.answers[name]["fired_ns"])

    def established_ms(self, name: str) -> float:
        """From the later side's first SYN until this side had the stream."""
        return float(self.answers[name]["established_ns"] - self.answers[self.later]["fired_ns"]) / 1e6

    @property
    def rtt_ms(self) -> float:
        """A byte there and back, through the stream."""
        return float(self.answers[LEFT]["rtt_s"]) * 1e3

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        seen = {name: f"{end.address}:{end.port}" for name, end in self.seen.items()}
        common: dict[str, object] = {"connected": self.connected, "seen": seen, "errors": self.errors}
        if not self.connected:
            return common
        established = {name: self.established_ms(name) for name in (LEFT, RIGHT)}
        via = {name: self.answers[name]["via"] for name in (LEFT, RIGHT)}
        crossed = self.record.syns_crossed(LEFT, RIGHT)
        rtt = {"rtt_ms": self.rtt_ms, "syns_crossed": crossed}
        return common | {"later": self.later, "established_ms": established, "via": via, **rtt}


@dataclass(frozen=True, slots=True)
class Summary:
    """Several runs. Times in ms, from the later side's first SYN to established there; None without any success."""

    runs: int
    connected: int
    median_ms: float | None
    p99_ms: float | None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        share = self.connected / self.runs
        counts = {"runs": self.runs, "connected": self.connected, "share": share}
        return {**counts, "median_ms": self.median_ms, "p99_ms": self.p99_ms}


def summed_up(runs: Sequence[Run]) -> Summary:
    """The share that connected, and how fast."""
    times = sorted(run.established_ms(run.later) for run in runs if run.connected)
    if not times:
        return Summary(len(runs), 0, None, None)
    p99 = times[math.ceil(0.99 * len(times)) - 1]
    return Summary(len(runs), len(times), statistics.median(times), p99)


async def trials(setting: Setting, count: int, told: Callable[[int], None]) -> list[Run]:
    """Punch `count` times, one after the other; `told` is called with how many are done.

    Raises: LabError where no lab can be had, or a program of it failed.
    """
    runs: list[Run] = []
    async with lab.Network(seed=setting.seed) as net:
        site = await _site(net, setting)
        for number in range(count):
            told(number)
            runs.append(await site.run(_FIRST_PORT + number))
    return runs


class _Program:
    """One `simopen.side`, and the conversation with it."""

    def __init__(self, name: str, process: Process) -> None:
        self._name = name
        self._process = process

    async def ask(self, order: dict[str, object]) -> Answer:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> Answer:
        """Raises: LabError where the program has ended."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise LabError(f"the program on host {self._name!r} ended; what it said is on standard error")
        return dict(json.loads(line))


@dataclass(frozen=True, slots=True)
class _Site:
    net: lab.Network
    setting: Setting
    sides: dict[str, _Program]
    observer: tuple[str, int]

    async def run(self, port: int) -> Run:
        """One punch from this port, on both sides."""
        learnt = await self._ask_both({"do": "observe", "port": port, "observer": self.observer})
        if any("error" in answer for answer in learnt.values()):
            return Run({}, learnt, await self.net.record())
        seen = {name: Endpoint(*answer["seen"]) for name, answer in learnt.items()}
        await self.net.clear_record()
        answers = await self._punch(port, seen)
        return Run(seen, answers, await self._record(port))

    async def _punch(self, port: int, seen: dict[str, Endpoint]) -> dict[str, Answer]:
        at_ns = time.monotonic_ns() + round(_LEAD_S * 1e9)
        common = {"do": "punch", "port": port, "window_s": self.setting.window_s}
        ours = {LEFT: {"peer": seen[RIGHT], "at_ns": at_ns, "asks": True}}
        theirs = {RIGHT: {"peer": seen[LEFT], "at_ns": at_ns + round(self.setting.apart_s * 1e9), "asks": False}}
        return await self._ask_both(common, ours | theirs)

    async def _ask_both(self, common: dict[str, Any], own: dict[str, Any] | None = None) -> dict[str, Answer]:
        orders = {name: common | (own or {}).get(name, {}) for name in self.sides}
        answers = await asyncio.gather(*(self.sides[name].ask(order) for name, order in orders.items()))
        return dict(zip(orders, answers, strict=True))

    async def _record(self, port: int) -> lab.Record:
        """What went from and to this port; an earlier run's connection may still be saying goodbye."""
        record = await self.net.record()
        return record.where(lambda passage: passage.origin is not lab.Origin.HOST or passage.sent.source.port == port)


async def _site(net: lab.Network, setting: Setting) -> _Site:
    """The three hosts, with a program ready on each; all are started side by side."""
    hosts = {name: await _host(net, name, setting) for name in (LEFT, RIGHT)}
    observer = await net.host("observer")
    # Standard error is ours: whatever a program complains of is for whoever sits there.
    command = [sys.executable, "-m", "simopen.side"]
    starts = [host.start(command, stderr=None) for host in hosts.values()]
    watching = observer.start([sys.executable, "-I", "-S", _OBSERVER, str(_OBSERVER_PORT)], stdin=None, stderr=None)
    *started, watcher = await asyncio.gather(*starts, watching)
    sides = {name: _Program(name, process) for name, process in zip(hosts, started, strict=True)}
    assert watcher.stdout is not None
    await asyncio.gather(watcher.stdout.readline(), *(side.answer() for side in sides.values()))
    return _Site(net, setting, sides, (observer.public_address, _OBSERVER_PORT))


async def _host(net: lab.Network, name: str, setting: Setting) -> lab.Host:
    """One of the two: the way between them is half in each one's access."""
    nats = setting.left if name == LEFT else setting.right
    loss = 1 - math.sqrt(1 - setting.loss)
    return await net.host(name, delay_s=setting.delay_s / 2, jitter_s=setting.jitter_s / 2, loss=loss, nat=nats or None)
