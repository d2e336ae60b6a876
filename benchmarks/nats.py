"""Pairs that meet at NATS: how many a second, and whether each meets where a node dies meanwhile.

    python -m benchmarks.nats [--seconds 10] [--pairs 500] [--json FILE]

A pair is two of simopen's own clients, each with a connection of its own, and does what a meeting does: a number is
allocated, both enter, five messages a side by turns (the first a PAKE's, computed beforehand), both leave. It is whole
where each side has heard all five as they were. First one node, and as many pairs as one process, which has all the
clients, gets through; then clients that say the same and are as lean as can be, so that the node has more to do than
they have. Beside it stands the processor time of the node alone, which is what one core of its own would allow. Last,
three nodes that are one, and all pairs at once: as half of them talk, one node is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import secrets
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import Row, measuring, options_parser, progress, rounded, run_on, save, shape, table
from benchmarks.serve import HERE, MESSAGES, PAKE, SEALED, Server, started, until_it_listens
from simopen.errors import SimopenError
from simopen.signalling.base import Message, Mood
from simopen.signalling.nats import SUBJECTS, NatsRooms, nats_rooms
from simopen.signalling.nats_hello import Hello, Word
from tests.loopback import kept_ports
from tests.signalling.places import NATS_SERVER, nats_nodes

AT_ONCE = 24
SIMOPENS, LEAN = "simopen's clients", "lean clients"
BODIES = [bytes.fromhex(SEALED if number else PAKE) for number in range(MESSAGES)]


@dataclass
class Tally:
    """What became of the pairs. `talk`: those that have heard each other; `cut_off`: clients that lost their node."""

    times_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    talk: int = 0
    cut_off: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def row(self, what: str, took_s: float, node_cpu_s: float | None = None) -> Row:
        """As it is kept."""
        whole = len(self.times_s)
        return {
            "what": what,
            "pairs": whole + len(self.errors),
            "whole": whole,
            "cut_off": self.cut_off,
            "pairs_a_second": rounded(whole / took_s),
            "pairs_a_node_cpu_second": None if node_cpu_s is None else rounded(whole / node_cpu_s),
            **shape([each * 1e3 for each in self.times_s], "took", "ms"),
            "error": self.errors[0] if self.errors else None,
        }


async def pair(servers: list[str], tally: Tally) -> None:
    """Introduce two."""
    begun_s = time.perf_counter()
    try:
        async with nats_rooms(servers, "NATS") as one, nats_rooms(servers, "NATS") as other:
            room = await one.allocate()
            await one.enter(room)
            await other.enter(room)
            for number, body in enumerate(BODIES):
                for says, hears in ((one, other), (other, one)):
                    await says.send(str(number), body)
                    assert await hears.receive() == Message(str(number), body)
                if not number:
                    tally.talk += 1
                    tally.news.set()
            tally.times_s.append(time.perf_counter() - begun_s)
            for each in (one, other):
                tally.cut_off += was_cut_off(each)
                await each.close(Mood.HAPPY)
    except (SimopenError, AssertionError) as error:
        tally.errors.append(f"{type(error).__name__}: {error}")


def was_cut_off(signaller: NatsRooms) -> bool:
    """Whether it has lost its node. Nobody but nats-py counts that."""
    return signaller._nats.client.stats["reconnects"] > 0


class Lean(asyncio.Protocol):
    """One side, which says what simopen's client says, and knows that nothing goes wrong."""

    SAID, INBOX = b"3", b"1"

    def __init__(self) -> None:
        self.name, self.heard = secrets.token_hex(8), 0
        self.answers: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.said: asyncio.Queue[bytes] = asyncio.Queue()
        self.ready = asyncio.Event()
        self._data = b""

    @classmethod
    async def connected(cls, port: int) -> Lean:
        _, side = await asyncio.get_running_loop().create_connection(cls, HERE, port)
        await side.ready.wait()
        return side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true,"echo":false}\r\nPING\r\n')

    def data_received(self, data: bytes) -> None:
        self._data += data
        while b"\r\n" in self._data:
            line, _, rest = self._data.partition(b"\r\n")
            words, size = line.split(b" "), 0
            if words[0] in (b"MSG", b"HMSG"):
                size = int(words[-1]) + 2
                if len(rest) < size:
                    return
            self._heed(words, rest[: max(0, size - 2)])
            self._data = rest[size:]

    def _heed(self, words: list[bytes], body: bytes) -> None:
        if words[0] == b"PONG":
            self.ready.set()
        elif words[0] == b"HMSG":  # only "no responders" has a header
            self.answers.put_nowait(None)
        elif words[0] == b"MSG" and words[2] == self.INBOX:
            self.answers.put_nowait(body)
        elif words[0] == b"MSG" and words[2] == self.SAID:
            self.heard += 1
            self.said.put_nowait(body)
        elif words[0] == b"MSG":
            self._publish(words[3].decode(), Hello(self.name, self.heard, Word.WELCOME).encoded())

    def _publish(self, subject: str, body: bytes, reply: str = "") -> None:
        self.transport.write(f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n")

    def listen(self, room: str, *whats: tuple[bytes, str]) -> None:
        """To what is said there, by the number of each subscription."""
        subjects = "".join(f"SUB {SUBJECTS}.{room}.{what} {number.decode()}\r\n" for number, what in whats)
        self.transport.write(subjects.encode())

    async def ask(self, to: str, word: Word) -> bytes | None:
        """One answer; None: nobody listens."""
        self._publish(f"{SUBJECTS}.{to}", Hello(self.name, self.heard, word).encoded(), f"_INBOX.{self.name}")
        return await self.answers.get()

    async def make(self, room: str) -> None:
        """Allocate and enter."""
        self.transport.write(f"SUB _INBOX.{self.name} {self.INBOX.decode()}\r\n".encode())
        assert await self.ask(f"{room}.try", Word.TRIES) is None
        self.listen(room, (b"any 2", "try"))
        assert await self.ask(f"{room}.try", Word.TRIES) is None
        self._listen_for_all(room)
        assert await self.ask(f"{room}.hello", Word.MAKES) is None

    async def come(self, room: str) -> None:
        """Enter."""
        self.transport.write(f"SUB _INBOX.{self.name} {self.INBOX.decode()}\r\n".encode())
        self.listen(room, (b"any 2", "try"))
        self._listen_for_all(room)
        assert await self.ask(f"{room}.hello", Word.COMES) is not None

    def _listen_for_all(self, room: str) -> None:
        self.listen(room, (self.SAID, "said.*.*"), (b"4", "hello"), (b"5", f"hello.{self.name}"))

    def say(self, room: str, phase: str, body: bytes) -> None:
        """One message."""
        self._publish(f"{SUBJECTS}.{room}.said.{self.name}.{phase.encode().hex()}", body)


async def lean_pair(port: int, room: str, tally: Tally) -> None:
    """Introduce two, with the same messages."""
    begun_s = time.perf_counter()
    one, other = await Lean.connected(port), await Lean.connected(port)
    try:
        await one.make(room)
        await other.come(room)
        for number, body in enumerate(BODIES):
            for says, hears in ((one, other), (other, one)):
                says.say(room, str(number), body)
                assert await hears.said.get() == body
        tally.times_s.append(time.perf_counter() - begun_s)
        await one.ask(f"{room}.hello.{other.name}", Word.LEAVES)
    finally:
        one.transport.close()
        other.transport.close()


async def throughput(seconds: float, clients: str) -> Row:
    """As many pairs as go, for so long, at one node."""
    with socket.create_server((HERE, 0)) as free:
        port = free.getsockname()[1]
    process = started([str(NATS_SERVER), "-a", HERE, "-p", str(port)])
    try:
        await until_it_listens(port, process)
        node, servers, rooms = Server(port, process, None), [f"nats://{HERE}:{port}"], itertools.count(1)

        async def once(tally: Tally) -> None:
            await (pair(servers, tally) if clients == SIMOPENS else lean_pair(port, str(next(rooms)), tally))

        async def again() -> None:
            while time.monotonic() < end_s:
                await once(tally)

        await once(Tally())
        tally, end_s = Tally(), time.monotonic() + seconds
        begun_s, cpu_s = time.monotonic(), node.cpu_s()
        await asyncio.gather(*(again() for _ in range(AT_ONCE)))
        return tally.row(f"one node, {clients}", time.monotonic() - begun_s, node.cpu_s() - cpu_s)
    finally:
        process.terminate()
        process.wait()


async def death(pairs: int) -> Row:
    """All pairs at once, at three nodes of which one is killed as half of them talk."""
    with contextlib.ExitStack() as stack:
        ports = [port for _ in range(3) for port in stack.enter_context(kept_ports())]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nodes = stack.enter_context(nats_nodes(folder, ports))
        servers, tally = [f"nats://{HERE}:{port}" for port in ports[:3]], Tally()
        begun_s = time.monotonic()
        meeting = asyncio.gather(*(pair(servers, tally) for _ in range(pairs)))
        while tally.talk < pairs / 2 and not meeting.done():
            tally.news.clear()
            await tally.news.wait()
        progress(f"{tally.talk} of {pairs} pairs talk, and {len(tally.times_s)} have done so: one node is killed")
        nodes[0].close()
        await meeting
        return tally.row("three nodes, all pairs at once, one node killed", time.monotonic() - begun_s)


def main() -> None:
    parser = options_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--pairs", type=int, default=500)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with measuring(pairs_at_a_time=AT_ONCE, seconds=options.seconds, loop="uvloop") as given:
        rows = [run_on("uvloop", throughput(options.seconds, clients)) for clients in (SIMOPENS, LEAN)]
        rows.append(run_on("uvloop", death(options.pairs)))
    table("pairs at NATS", rows)
    save(options.json, "nats", given, rows)


if __name__ == "__main__":
    main()
