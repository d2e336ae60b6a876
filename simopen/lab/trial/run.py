"""`simopen lab`'s work: two hosts behind the named NATs punch, once or often, and what came of it is told as values.

Theory of operation: four hosts in one network, of which two are a STUN server with two addresses. Each side runs
`agent.py`, one process for all runs. For each run both find out what their NATs do, get the other's ticket passed
on by this module (which is what people do with a chat), and fire at one instant, as their plan says. The instant is
chosen when both have said that they are ready, so the lead need only cover the way of an order down a pipe, and the
making of the plan. Each run has ports of its own, so none meets another's mappings. All of it over IPv4, since a plan
would go by IPv6, past the NATs that somebody asked about.
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
from typing import Any

from simopen import lab
from simopen.errors import LabError
from simopen.lab.nat.presets import Nats, format_nats
from simopen.lab.trial import stun_server
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Mapping, Profile
from simopen.ticket.codec import parse_ticket

LEFT, RIGHT = "left", "right"
# Each run has so many local ports, as a spray may use 512 of them. They lie below those that a kernel picks for itself,
# and when all had their turn, the next turn's first ones lie elsewhere (521 is prime): every run has its own.
_PORTS, PORTS_A_RUN = range(1314, 32_000), 521
# From the order to the instant: a line down a pipe, sockets made and bound, a thread that wakes. A loaded machine may
# need longer; the shot is then late, and the report says so. Where ports are foreseen, none should be: a row moves on.
_LEAD_S, _LEAD_TO_FORESEE_S = 0.1, 2.0
_OF_OWN = {Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT}
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
    spray: bool = False
    seed: int = 0

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        names = ("delay_s", "jitter_s", "loss", "apart_s", "window_s", "spray", "seed")
        nats = {"left": format_nats(self.left), "right": format_nats(self.right)}
        return {**nats, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True)
class Learnt:
    """What one side found out: the profile as its ticket has it, and where the servers saw the punch port."""

    profile: Profile
    seen: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One punch. `learnt` and `answers` are by side; where one learnt nothing, `answers` is what that one said."""

    learnt: dict[str, Learnt]
    answers: dict[str, Answer]
    record: lab.Record

    @property
    def connected(self) -> bool:
        """Whether both sides have the stream, and a byte went there and back."""
        return len(self.learnt) == len(self.answers) == 2 and not self.errors

    @property
    def refused(self) -> bool:
        """Whether a side would not fire at all, since the two NATs leave no way."""
        return any(answer.get("refused") for answer in self.answers.values())

    @property
    def plan(self) -> str | None:
        """What the sides' plan says of itself; None where there was none."""
        return next((answer["plan"] for answer in self.answers.values() if answer.get("plan")), None)

    @property
    def late_ms(self) -> dict[str, float]:
        """How long after the instant each side's first shot left, or all ended without one; none where refused."""
        told = {name: answer["report"] for name, answer in self.answers.items() if answer.get("report")}
        return {name: report["late_s"] * 1e3 for name, report in told.items()}

    @property
    def story(self) -> lab.Record:
        """The packets of the stream that came up; all of them where none did."""
        if not self.connected:
            return self.record
        ends = {name: [tuple(self.answers[name][end]) for end in ("local", "remote")] for name in self.answers}
        return self.record.where(
            lambda passage: (
                passage.origin is not lab.Origin.HOST
                or [passage.sent.source, passage.sent.destination] == ends.get(passage.source)
            )
        )

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
        seen = {name: [f"{end.address}:{end.port}" for end in each.seen] for name, each in self.learnt.items()}
        nats = {name: str(each.profile) for name, each in self.learnt.items()}
        common: dict[str, object] = {"connected": self.connected, "refused": self.refused, "plan": self.plan}
        common |= {"seen": seen, "learnt": nats, "late_ms": self.late_ms, "errors": self.errors}
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
            runs.append(await site.run(_port(number)))
    return runs


def _port(number: int) -> int:
    return _PORTS[number * PORTS_A_RUN % len(_PORTS)]


class _Program:
    """One `agent.py` on a host: orders to it, and its answers."""

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
    addresses: dict[str, str]
    servers: tuple[str, ...]

    async def run(self, port: int) -> Run:
        """One punch from this port, on both sides."""
        local = {name: {"local": (address, port)} for name, address in self.addresses.items()}
        said = await self._ask_both({"do": "discover", "servers": self.servers}, local)
        learnt = {name: _learnt(answer) for name, answer in said.items() if "error" not in answer}
        if len(learnt) < len(said):
            return Run(learnt, said, await self.net.record())
        await self.net.clear_record()
        return Run(learnt, await self._punch(said, _lead_s(learnt)), await self._record(port))

    async def _punch(self, said: dict[str, Answer], lead_s: float) -> dict[str, Answer]:
        at_ns = time.monotonic_ns() + round(lead_s * 1e9)
        common = {"do": "punch", "at_ns": at_ns, "window_s": self.setting.window_s, "spray": self.setting.spray}
        ours = {LEFT: {"theirs": said[RIGHT]["ticket"], "late_ns": 0, "asks": True}}
        late_ns = round(self.setting.apart_s * 1e9)
        theirs = {RIGHT: {"theirs": said[LEFT]["ticket"], "late_ns": late_ns, "asks": False}}
        return await self._ask_both(common, ours | theirs)

    async def _ask_both(self, common: dict[str, Any], own: dict[str, dict[str, Any]]) -> dict[str, Answer]:
        answers = await asyncio.gather(*(self.sides[name].ask(common | own[name]) for name in self.sides))
        return dict(zip(self.sides, answers, strict=True))

    async def _record(self, port: int) -> lab.Record:
        """What went from this run's ports; an earlier one's connection may still be closing."""
        record, ports = await self.net.record(), range(port, port + PORTS_A_RUN)
        return record.where(lambda passage: passage.origin is not lab.Origin.HOST or passage.sent.source.port in ports)


def _learnt(answer: Answer) -> Learnt:
    return Learnt(parse_ticket(answer["ticket"]).profile, tuple(Endpoint(*end) for end in answer["seen"]))


def _lead_s(learnt: dict[str, Learnt]) -> float:
    profiles = [each.profile for each in learnt.values()]
    foresees = any(each.mapping in _OF_OWN and each.allocation is Allocation.SEQUENTIAL for each in profiles)
    return _LEAD_TO_FORESEE_S if foresees else _LEAD_S


async def _site(net: lab.Network, setting: Setting) -> _Site:
    """The hosts, with a program ready on each; all are started side by side."""
    hosts = {name: await _host(net, name, setting) for name in (LEFT, RIGHT)}
    servers = [await net.host(name) for name in ("stun", "stun-other")]
    one, other = (server.address for server in servers)
    # Standard error is ours: whatever a program complains of is for whoever sits there.
    command = [sys.executable, "-m", "simopen.lab.trial.agent"]
    programs, _ = await asyncio.gather(
        asyncio.gather(*(_started(name, host, command) for name, host in hosts.items())),
        asyncio.gather(stun_server.start(servers[0], one, other), stun_server.start(servers[1], other, one)),
    )
    sides = dict(zip(hosts, programs, strict=True))
    return _Site(net, setting, sides, {name: host.address for name, host in hosts.items()}, (one, other))


async def _started(name: str, host: lab.Host, command: list[str]) -> _Program:
    program = _Program(name, await host.start(command, stderr=None))
    await program.answer()
    return program


async def _host(net: lab.Network, name: str, setting: Setting) -> lab.Host:
    """One of the two: the way between them is half in each one's access."""
    nats = setting.left if name == LEFT else setting.right
    loss = 1 - math.sqrt(1 - setting.loss)
    return await net.host(name, delay_s=setting.delay_s / 2, jitter_s=setting.jitter_s / 2, loss=loss, nat=nats or None)
