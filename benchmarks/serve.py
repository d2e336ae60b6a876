"""How many pairs a rendezvous server introduces a second, what a waiting peer costs it, and how long a message takes.

    python -m benchmarks.serve [--servers simopen "simopen, TLS" twisted] [--seconds 10] [--waiters 10000] [--json FILE]

The server is a process of its own, `simopen serve` or magic-wormhole-mailbox-server; the clients share the machine with
it. A pair does what a meeting does, in 26 messages both ways: bind, allocate, claim, open, five messages a side (the
first a PAKE's, computed beforehand), release, close. Pairs a second: so many are at it at a time that one core is the
server's; beside it stands the CPU time of the server alone, which is what one core of its own would allow. A message's
time is from one side's `add` to the other side's `message`, while half as many pairs a second begin. Memory is what the
resident set has grown by, a waiting peer: one that has opened its room, and is alone.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import secrets
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import Row, measuring, options_parser, progress, quantile, rounded, run_on, save, table

CERTIFICATE = Path(__file__).parents[1] / "tests" / "certificate.pem"
HERE = "127.0.0.1"
SERVERS = ("simopen", "simopen, TLS", "twisted")
AT_ONCE = 24
PAKE, SEALED = secrets.token_hex(33), secrets.token_hex(200)
MESSAGES = 5
_UNBOUNDED = ("connections", "connections_an_address", "rooms", "rooms_an_address", "rooms_tried_at_once")
_UPGRADE = (
    b"GET /v1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_numbers = itertools.count()
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass
class Peer(asyncio.Protocol):
    """A client as lean as can be: it must cost less than what it measures."""

    heard: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    data: bytes = b""
    upgraded: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(_UPGRADE)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.upgraded:
            _, end, self.data = self.data.partition(b"\r\n\r\n")
            self.upgraded = bool(end)
        while (payload := self._frame()) is not None:
            message = json.loads(payload) if payload[:1] == b"{" else {}
            if message.get("type") not in (None, "ack"):
                self.heard.put_nowait(message)

    def _frame(self) -> bytes | None:
        if len(self.data) < 4:
            return None
        size, begin = self.data[1], 2
        if size == 126:
            size, begin = struct.unpack_from("!H", self.data, 2)[0], 4
        if len(self.data) < begin + size:
            return None
        opcode, payload, self.data = self.data[0], self.data[begin : begin + size], self.data[begin + size :]
        return payload if opcode == 0x81 else b""

    def say(self, **values: object) -> None:
        """One command, masked with zeros, which leaves it as it is."""
        data = json.dumps(values).encode()
        head = (
            struct.pack("!BB", 0x81, 0x80 | len(data))
            if len(data) < 126
            else struct.pack("!BBH", 0x81, 0xFE, len(data))
        )
        self.transport.write(head + bytes(4) + data)  # type: ignore[attr-defined]

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next message of that kind."""
        while (message := await self.heard.get())["type"] != kind:
            if message["type"] == "error":
                raise RuntimeError(message["error"])
        return message

    async def from_peer(self, side: str) -> dict[str, Any]:
        """The next message of the other side's."""
        while (message := await self.hear("message"))["side"] == side:
            pass
        return message


@dataclass(frozen=True)
class Server:
    """One that runs."""

    port: int
    process: subprocess.Popen[bytes]
    tls: ssl.SSLContext | None

    async def peer(self, side: str) -> Peer:
        """A client that is bound. A hundred share an address: where ends linger, a free port is long to find."""
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        address, _ = divmod(next(_numbers), 100)
        sock.bind((f"127.0.{address // 250 % 250 + 1}.{address % 250 + 1}", 0))
        await loop.sock_connect(sock, (HERE, self.port))
        _, peer = await loop.create_connection(Peer, sock=sock, ssl=self.tls, server_hostname="" if self.tls else None)
        await peer.hear("welcome")
        peer.say(type="bind", appid="benchmark", side=side)
        return peer

    def cpu_s(self) -> float:
        """What it has computed so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def running(name: str) -> AsyncIterator[Server]:
    """The server of that name, at a free port."""
    with socket.create_server((HERE, 0)) as free:
        port = free.getsockname()[1]
    tls = None
    if name == "twisted":
        program = str(Path(sys.executable).with_name("twist"))
        command = [program, "--log-level=critical", "wormhole-mailbox", f"--port=tcp:{port}:interface={HERE}"]
        command += ["--channel-db=:memory:"]
    else:
        command = [sys.executable, "-m", "simopen", "serve", "--no-stun", "--host", HERE, "--port", str(port)]
        command += [word for limit in _UNBOUNDED for word in ("--limit", f"{limit}=1000000")]
        if name.endswith("TLS"):
            command += ["--certificate", str(CERTIFICATE)]
            tls = ssl.create_default_context(cafile=str(CERTIFICATE))
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
    process = started(command)
    try:
        await until_it_listens(port, process)
        yield Server(port, process, tls)
    finally:
        process.terminate()
        process.wait()


def started(command: list[str]) -> subprocess.Popen[bytes]:
    """A server, which says nothing here."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    """Raises: RuntimeError where it has ended instead."""
    while process.poll() is None:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(HERE, port)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise RuntimeError(f"{process.args!r} ended by {process.returncode}")


async def pair(server: Server, number: int, times: list[float]) -> None:
    """Introduce two. `times` gets how long each message took, in seconds."""
    sides = f"a{number}", f"b{number}"
    one, other = await server.peer(sides[0]), await server.peer(sides[1])
    try:
        one.say(type="allocate")
        nameplate = (await one.hear("allocated"))["nameplate"]
        for peer in (one, other):
            peer.say(type="claim", nameplate=nameplate)
            peer.say(type="open", mailbox=(await peer.hear("claimed"))["mailbox"])
        for phase in range(MESSAGES):
            body = SEALED if phase else PAKE
            begun_s = time.perf_counter()
            one.say(type="add", phase=str(phase), body=body)
            await other.from_peer(sides[1])
            between_s = time.perf_counter()
            other.say(type="add", phase=str(phase), body=body)
            await one.from_peer(sides[0])
            times += [between_s - begun_s, time.perf_counter() - between_s]
            if not phase:
                for peer in (one, other):
                    peer.say(type="release")
        for peer in (one, other):
            peer.say(type="close", mood="happy")
            await peer.hear("closed")
    finally:
        for peer in (one, other):
            peer.transport.close()


async def throughput(server: Server, seconds: float) -> Row:
    """As many pairs as go, for so long."""
    done, end_s = 0, time.monotonic() + seconds

    async def again(worker: int) -> None:
        nonlocal done
        number = worker
        while time.monotonic() < end_s:
            await pair(server, number, [])
            done += 1
            number += AT_ONCE

    begun_s, cpu_s = time.monotonic(), server.cpu_s()
    await asyncio.gather(*map(again, range(AT_ONCE)))
    took_s, cpu_s = time.monotonic() - begun_s, server.cpu_s() - cpu_s
    return {"pairs_a_second": rounded(done / took_s), "pairs_a_cpu_second": rounded(done / cpu_s)}


async def latency(server: Server, seconds: float, rate: float) -> Row:
    """How long a message takes while so many pairs a second begin."""
    times: list[float] = []
    begun_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds * rate)):
            await asyncio.sleep(max(0.0, begun_s + number / rate - time.monotonic()))
            group.create_task(pair(server, number, times))
    return {
        "at_a_second": rounded(rate),
        "message_p50_ms": rounded(quantile(times, 0.5) * 1e3),
        "message_p99_ms": rounded(quantile(times, 0.99) * 1e3),
    }


async def memory(server: Server, waiters: int) -> Row:
    """What a waiting peer costs."""
    before, peers = server.resident_bytes(), list[Peer]()
    for number in range(waiters):
        peer = await server.peer(f"w{number}")
        peer.say(type="allocate")
        peer.say(type="claim", nameplate=(await peer.hear("allocated"))["nameplate"])
        peer.say(type="open", mailbox=(await peer.hear("claimed"))["mailbox"])
        peer.say(type="add", phase="pake", body=PAKE)
        await peer.hear("message")
        peers.append(peer)
        if number % 500 == 0:
            progress(f"{number} waiting")
    each = (server.resident_bytes() - before) / waiters
    for peer in peers:
        peer.transport.close()
    return {"waiters": waiters, "kib_each": rounded(each / 1024), "mib_of_20000": rounded(each * 20_000 / 2**20)}


async def measure(name: str, seconds: float, waiters: int) -> Row:
    """One server, each measurement on a new process of it."""
    async with running(name) as server:
        progress(f"{name}: pairs")
        await pair(server, 0, [])
        found = await throughput(server, seconds)
        progress(f"{name}: a message's time")
        late = await latency(server, seconds, found["pairs_a_second"] / 2)
    async with running(name) as server:
        await pair(server, 0, [])
        kept = await memory(server, waiters)
    return {"server": name, **found, **late, **kept}


def main() -> None:
    parser = options_parser(__doc__)
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--waiters", type=int, default=10_000)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with measuring(pairs_at_a_time=AT_ONCE, seconds=options.seconds, loop="uvloop") as given:
        rows = [run_on("uvloop", measure(name, options.seconds, options.waiters)) for name in options.servers]
    table("rendezvous servers", rows)
    save(options.json, "serve", given, rows)


if __name__ == "__main__":
    main()
