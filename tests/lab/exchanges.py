"""Packet scripts: what is sent through a NAT, packet by packet, and what each host then gets to see.

Theory of operation. A script's steps are packets, made by hand: from inside (behind the NAT), from `there` or from
`elsewhere`. `Exchange.play` sends one after the other, and notes after each what arrived, where, and with which
endpoints. The hosts are kept from answering by themselves, so all that is seen was sent by a script or by the NAT.
After each step datagrams go to and fro on a flow of their own: the lab keeps packets in order, so when they are back,
whatever the step caused has arrived, and nobody sleeps. These take most of the time, so several scripts take a step
each before them. Names stand for addresses, and for public ports in the order in which they appear, so that what two
NATs did can be compared.
"""

from __future__ import annotations

import json
from asyncio.subprocess import Process
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from simopen import lab
from simopen.lab.net.wire import parse
from simopen.lab.packet import Headers, Packet, Protocol
from simopen.model.endpoint import Endpoint
from tests.lab.packets import echo, icmp_error, tcp, udp
from tests.lab.programs import PROBE, python

_KEEP_QUIET = b"table inet quiet { chain input { type filter hook input priority 0; policy drop; }; }"
_PRIVATE = 20_000
_AT_ONCE = 16  # scripts: what they cause in one step fits a socket's buffer many times over
_APART = 16  # between the scripts' ports: where one's own is taken, a model takes the next
_MARKING = 9  # the port of the datagrams that mark a step's end

_DATA = b"0123456789"
# Flags, sequence number, acknowledgment number. A conversation's first numbers: 1000 inside, 5000 outside. Connection
# tracking looks at them; a RST that answers a SYN has 0 (RFC 9293 §3.10.7.1).
_FROM_INSIDE = {
    "syn": (0x02, 1000, 0),
    "syn-ack": (0x12, 1000, 5001),
    "ack": (0x10, 1001, 5001),
    "rst": (0x04, 1001, 0),
    "rst-ack": (0x14, 0, 5001),
    "fin": (0x11, 1001, 5001),
    "data": (0x18, 1001, 5001),
    "fin after data": (0x11, 1011, 5001),
    "ack of data": (0x10, 1011, 5011),
    "ack of all": (0x10, 1012, 5012),
    "new syn": (0x02, 100_001_000, 0),
    "short-lived syn": (0x02, 50_001_000, 0),
    "new syn-ack": (0x12, 100_001_000, 100_005_001),
    "rst after data": (0x04, 1011, 0),
    "rst ahead": (0x04, 1002, 0),
    "late rst": (0x04, 901, 0),
    "stray rst": (0x04, 99_999_999, 0),
}
_FROM_OUTSIDE = {
    "syn": (0x02, 5000, 0),
    "syn-ack": (0x12, 5000, 1001),
    "ack": (0x10, 5001, 1001),
    "rst": (0x04, 5001, 0),
    "rst-ack": (0x14, 0, 1001),
    "fin": (0x11, 5001, 1001),
    "data": (0x18, 5001, 1001),
    "fin after data": (0x11, 5011, 1001),
    "ack of data": (0x10, 5011, 1011),
    "ack of all": (0x10, 5012, 1012),
    "new syn": (0x02, 100_005_000, 0),
    "new syn-ack": (0x12, 100_005_000, 100_001_001),
    "rst after data": (0x04, 5011, 0),
    "rst ahead": (0x04, 5002, 0),
    "rst far ahead": (0x04, 5001 + 100_000, 0),  # more than one window, less than two
    "late rst": (0x04, 4901, 0),
    "stray rst": (0x04, 99_999_999, 0),
}
_ICMP_ERRORS = {"port-unreachable": (3, 3), "host-unreachable": (3, 1), "time-exceeded": (11, 0)}


class Remote(NamedTuple):
    """One of the endpoints outside. Each script's ports lie elsewhere, and are told as these."""

    host: str
    port: int


PEER, OTHER_PORT, OTHER_ADDRESS = Remote("there", 7000), Remote("there", 7001), Remote("elsewhere", 7000)


@dataclass(frozen=True, slots=True)
class Out:
    """A packet from inside, from the script's private port."""

    what: str
    to: Remote = PEER


@dataclass(frozen=True, slots=True)
class In:
    """A packet to the public endpoint that this remote was addressed from, else any was, else the private port's."""

    what: str
    source: Remote = PEER


@dataclass(frozen=True, slots=True)
class ErrorIn:
    """An ICMP error from `there` about the last packet that it got; `invented`: about one that never was."""

    what: str
    invented: bool = False


@dataclass(frozen=True, slots=True)
class ErrorOut:
    """An ICMP error about the last packet that arrived inside."""

    what: str


Step = Out | In | ErrorIn | ErrorOut


class _Probe:
    """A program on a host that sends packets as they are and tells what arrives."""

    def __init__(self, host: lab.Host, process: Process) -> None:
        self.address = host.address
        self.name = host.name
        self._process = process

    @classmethod
    async def on(cls, host: lab.Host) -> _Probe:
        quiet = await host.run(["nft", "-f", "-"], stdin=_KEEP_QUIET)
        assert quiet.returncode == 0, quiet.stderr.decode()
        process = await host.start(python(PROBE))
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return cls(host, process)

    def send(self, data: bytes) -> None:
        """Send it when all that was asked for before is done."""
        self._tell("send", data)

    async def until(self, marker: bytes) -> tuple[list[Packet], Packet]:
        """What arrived before the packet with that marker, and that packet."""
        self._tell("until", marker)
        assert self._process.stdout is not None
        answer = await self._process.stdout.readline()
        assert answer, f"the probe on {self.name} has ended"
        *before, marked = [parse(bytes.fromhex(packet)) for packet in json.loads(answer)]
        return before, marked

    def _tell(self, command: str, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command} {data.hex()}\n".encode())


class Exchange:
    """Three hosts with a probe each, and the scripts played between them."""

    def __init__(self, public_address: str, inside: _Probe, there: _Probe, elsewhere: _Probe, *, random: bool) -> None:
        self._public_address = public_address
        self._random = random
        self._inside = inside
        self._outside = {probe.name: probe for probe in (there, elsewhere)}
        self._marks = 0
        self._shift = 0

    @classmethod
    async def on(cls, net: lab.Network, nat: lab.Nat | lab.LinuxRouter) -> Exchange:
        """Make the hosts in a network."""
        inside = await net.host("inside", nat=nat)
        if inside.router is not None:
            await _answer_at_any_rate(inside.router)
        outside = [await net.host(name) for name in ("there", "elsewhere")]
        probes = [await _Probe.on(host) for host in (inside, *outside)]
        random = nat.random if isinstance(nat, lab.LinuxRouter) else nat.allocation is lab.Allocation.RANDOM
        return cls(inside.public_address, *probes, random=random)

    async def play(self, scripts: Mapping[str, Sequence[Step]]) -> dict[str, list[list[str]]]:
        """What was seen after each step of each script: sorted lines of who got what.

        Every script has ports of its own, outside as well: what goes to a port that nothing is mapped to must not
        meet another script's mapping, which a NAT with random ports may have put there.
        """
        seen: dict[str, list[list[str]]] = {}
        for names in _together(scripts):
            played = [_Played(scripts[name], self._conversation()) for name in names]
            for turn in range(max(len(each.script) for each in played)):
                await self._take(turn, played)
            seen |= {name: each.seen for name, each in zip(names, played, strict=True)}
        return {name: seen[name] for name in scripts}

    def _conversation(self) -> _Conversation:
        self._shift += _APART
        private, public = Endpoint(self._inside.address, _PRIVATE + self._shift), self._public_address
        addresses = {name: probe.address for name, probe in self._outside.items()}
        return _Conversation(private, public, addresses, self._shift, random=self._random)

    async def _take(self, turn: int, played: Sequence[_Played]) -> None:
        """The next step of each that has one."""
        going_on = [each for each in played if turn < len(each.script)]
        for each in going_on:
            sender, data = each.conversation.packet(each.script[turn])
            self._outside.get(sender, self._inside).send(data)
        # The second time brings what the step's packets called forth.
        arrived = [*await self._settle(), *await self._settle()]
        for each in going_on:
            mine = [(name, packet) for name, packet in arrived if len(played) == 1 or each.conversation.has(packet)]
            arrived = [one for one in arrived if one not in mine]
            each.seen.append(sorted(each.conversation.note(name, packet) for name, packet in mine))
        assert not arrived, f"it belongs to no script's step: {arrived}"

    async def _settle(self) -> list[tuple[str, Packet]]:
        seen = []
        for name, probe in self._outside.items():
            self._marks += 1
            out, back = (f"mark {self._marks} {way}".encode() for way in ("out", "back"))
            ends = (self._inside.address, _MARKING), (probe.address, _MARKING)
            self._inside.send(udp(*ends, out))
            before, marked = await probe.until(out)
            seen += [(name, packet) for packet in before]
            probe.send(udp(ends[1], marked.source, back))
            seen += [("inside", packet) for packet in (await self._inside.until(back))[0]]
        return seen


@dataclass(frozen=True, slots=True)
class _Played:
    """A script under way, and what was seen after each step so far."""

    script: Sequence[Step]
    conversation: _Conversation
    seen: list[list[str]] = field(default_factory=list)


def _together(scripts: Mapping[str, Sequence[Step]]) -> Iterator[list[str]]:
    """The names of those that are played at once. One with echoes is alone: they have no port to know them by."""
    alone = [name for name, script in scripts.items() if any("echo" in step.what for step in script)]
    others = [name for name in scripts if name not in alone]
    yield from ([name] for name in alone)
    yield from (others[start : start + _AT_ONCE] for start in range(0, len(others), _AT_ONCE))


class _Conversation:
    """One script's endpoints: what they are called, and where the next packet goes."""

    def __init__(self, private: Endpoint, public: str, outside: dict[str, str], shift: int, *, random: bool) -> None:
        self._private, self._public = private, Endpoint(public, private.port)
        self._outside, self._shift = outside, shift
        self._remotes = {Endpoint(at, each.port + shift) for at in outside.values() for each in (PEER, OTHER_PORT)}
        names = {private.address: "inside", public: "public"}
        self._names = names | {address: name for name, address in outside.items()}
        # A random port that is by chance the private one is no kept one.
        self._ports = {private: "p"} if random else {private: "p", self._public: "p"}
        self._reached_from: dict[tuple[str, int], Endpoint] = {}
        self._last: dict[str, Packet] = {}

    def has(self, packet: Packet) -> bool:
        """Whether it is of this script: between one of its endpoints outside and whomever, or an error about that."""
        headers = packet.headers.quoted or packet.headers
        return not self._remotes.isdisjoint((headers.source, headers.destination))

    def packet(self, step: Step) -> tuple[str, bytes]:
        """Who sends it, and its bytes."""
        match step:
            case Out(what, to):
                return "inside", _packet(what, _FROM_INSIDE, self._private, self._endpoint(to))
            case In(what, source):
                return source.host, _packet(what, _FROM_OUTSIDE, self._endpoint(source), self._mapped(source))
            case ErrorIn(what, invented):
                about = tcp(Endpoint(self._public.address, 999), self._endpoint(PEER)) if invented else self._to(PEER)
                return PEER.host, icmp_error(*_ICMP_ERRORS[what], self._outside[PEER.host], about)
            case ErrorOut(what):
                about = self._last["inside"].data
                return "inside", icmp_error(*_ICMP_ERRORS[what], self._private.address, about)

    def note(self, host: str, packet: Packet) -> str:
        """What arrived there, in words; later packets go by it."""
        self._last[host] = packet
        if host != "inside" and packet.source.address == self._public.address and packet.source.port:
            self._reached_from[packet.destination.address, packet.destination.port] = packet.source
        numbers = f" {packet.seq}/{packet.ack}" if packet.protocol == Protocol.TCP else ""
        return f"{host}: {_kind(packet)}{numbers} {self._route(packet.headers)}"

    def _to(self, remote: Remote) -> bytes:
        return self._last[remote.host].data

    def _endpoint(self, remote: Remote) -> Endpoint:
        return Endpoint(self._outside[remote.host], remote.port + self._shift)

    def _mapped(self, remote: Remote) -> Endpoint:
        known = self._reached_from
        return known.get(self._endpoint(remote), next(iter(known.values()), self._public))

    def _route(self, headers: Headers) -> str:
        quoted = "" if headers.quoted is None else f" [{self._route(headers.quoted)}]"
        return f"{self._called(headers.source)} > {self._called(headers.destination)}{quoted}"

    def _called(self, endpoint: Endpoint) -> str:
        address = self._names.get(endpoint.address, endpoint.address)
        if address not in {"inside", "public"} or not endpoint.port:
            return f"{address}:{max(0, endpoint.port - self._shift)}"
        return f"{address}:{self._ports.setdefault(endpoint, f'q{len(set(self._ports.values()))}')}"


def _packet(what: str, segments: dict[str, tuple[int, int, int]], source: Endpoint, destination: Endpoint) -> bytes:
    if what == "datagram":
        return udp(source, destination)
    if what == "echo":
        return echo(8, source.address, destination.address, source.port)
    if what == "echo reply":
        return echo(0, source.address, destination.address, destination.port)
    flags, seq, ack = segments[what]
    ttl = 1 if what == "short-lived syn" else 64
    return tcp(source, destination, flags, ttl, seq=seq, ack=ack, data=_DATA if what == "data" else b"")


def _kind(packet: Packet) -> str:
    if packet.protocol == Protocol.TCP:
        return str(packet.flags.name)
    if packet.protocol == Protocol.ICMP:
        return f"icmp {packet.data[20]}/{packet.data[21]}"
    return "datagram"


async def _answer_at_any_rate(router: lab.Host) -> None:
    """Linux lets a peer have one ICMP error a second, with six at once: a script's answers must not hang on others'."""
    code = "open('/proc/sys/net/ipv4/icmp_ratelimit', 'w').write('0')"
    done = await router.run(python(code))
    assert done.returncode == 0, done.stderr.decode()
