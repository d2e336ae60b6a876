"""What a link costs: round trips, CPU, memory and throughput, against bare TLS streams of asyncio's.

    python -m benchmarks.link [--runs 7] [--links 1000] [--mib 128] [--loop asyncio uvloop] [--json FILE]

All of it is in one process, on loopback. Throughput is one way, in writes of 64 KiB, link and bare TLS by turns; as the
wall clock counts other programs' work too, the CPU time of both is told beside it. Round trips are from established to
the first byte at the other side, over a relay that holds each piece for 50 ms. Memory is the resident set's growth. A
hundred strangers that send a nonce at once cost a context each: `held_ms` is how long they keep the loop at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeAlias, cast

from benchmarks.common import LOOPS, Row, measuring, median, options_parser, rounded, run_on, save, table
from benchmarks.many import resident_bytes
from simopen.link.contexts import ready
from simopen.link.handshake import Handshake
from simopen.link.nonces import new_nonce
from simopen.link.own_nonces import OwnNonces
from simopen.link.session import Kind, Role, Session, new_key
from simopen.link.streams import streams
from simopen.net.sockets import make_room

Pair: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Ends: TypeAlias = tuple[socket.socket, socket.socket]

WRITE = bytes(2**16)
WAY_S = 0.05
_CONTEXTS = 20
_STRANGERS, _WATCHED_S = 100, 1.0


def sessions(kind: str) -> tuple[Session, Session]:
    """The two sides', the initiator's first where they know that before."""
    key = new_key()
    if kind == "bare key":
        return Session.bare(key), Session.bare(key)
    return Session.between(Kind.TICKETS, key, b"b", b"a"), Session.between(Kind.TICKETS, key, b"a", b"b")


def connected() -> Ends:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    for sock in (one, other):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other


async def linked(ends: Ends, both: tuple[Session, Session]) -> tuple[Pair, Pair]:
    handshakes = [Handshake(session, limit_s=60) for session in both]
    for handshake, sock in zip(handshakes, ends, strict=True):
        handshake.offer(sock)
    one, other = [streams(link) for link in await asyncio.gather(*(each.link() for each in handshakes))]
    return one, other


async def bare_tls(ends: Ends, both: tuple[Session, Session]) -> tuple[Pair, Pair]:
    one, other = await asyncio.gather(*(_tls(*each) for each in zip(ends, both, strict=True)))
    return one, other


async def _tls(sock: socket.socket, session: Session) -> Pair:
    context, loop = ready(session).context, asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport: asyncio.BaseTransport
    if session.role is Role.RESPONDER:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=context)
    else:
        transport, _ = await loop.create_connection(lambda: protocol, sock=sock, ssl=context, server_hostname="")
    return reader, asyncio.StreamWriter(cast("asyncio.WriteTransport", transport), protocol, reader, loop)


Make: TypeAlias = Callable[[Ends, tuple[Session, Session]], Awaitable[tuple[Pair, Pair]]]
MAKES: dict[str, Make] = {"link": linked, "TLS": bare_tls}


async def throughput(make: Make, mib: int) -> tuple[float, float]:
    """MB/s by the wall clock, and CPU seconds for a GB, both sides' together."""
    (_, writer), (reader, back) = await make(connected(), sessions("tickets"))
    left = mib * 2**20

    async def send() -> None:
        for _ in range(left // len(WRITE)):
            writer.write(WRITE)
            await writer.drain()

    sending = asyncio.ensure_future(send())
    begun, cpu = time.perf_counter(), time.process_time()
    while left:
        left -= len(await reader.read(2**18))
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    await sending
    for each in (writer, back):
        each.transport.abort()
    return mib * 2**20 / took / 1e6, cpu / (mib * 2**20 / 1e9)


async def at_once(make: Make, count: int) -> tuple[float, float, int]:
    """CPU ms a link and side; KiB a link and side; how many came up."""
    ends = [connected() for _ in range(count)]
    both = [sessions("tickets") for _ in range(count)]
    before, cpu = resident_bytes(), time.process_time()
    pairs = await asyncio.gather(*(make(*each) for each in zip(ends, both, strict=True)))
    cpu, memory = time.process_time() - cpu, resident_bytes() - before
    for pair in pairs:
        for _, writer in pair:
            writer.transport.abort()
    await asyncio.sleep(0.1)
    return cpu / count / 2 * 1e3, memory / count / 2 / 1024, len(pairs)


def context_ms() -> float:
    """CPU ms to make one."""
    ready(sessions("tickets")[0])
    cpu = time.process_time()
    for _ in range(_CONTEXTS):
        ready(sessions("tickets")[0])
    return (time.process_time() - cpu) / _CONTEXTS * 1e3


@contextlib.asynccontextmanager
async def far() -> AsyncIterator[Ends]:
    """Two sockets with a way of 50 ms between them."""
    (one, near), (there, other) = connected(), connected()
    loop = asyncio.get_running_loop()

    async def carry(source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(source, 2**16):
                loop.call_later(WAY_S, to.send, data)

    tasks = [asyncio.create_task(carry(near, there)), asyncio.create_task(carry(there, near))]
    try:
        yield one, other
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        near.close()
        there.close()


async def first_bytes(kind: str) -> tuple[float, float]:
    """Round trips from established to the initiator's first byte at the responder, and the other way round."""
    async with far() as ends:
        begun_s = asyncio.get_running_loop().time()

        async def side(sock: socket.socket, session: Session) -> tuple[str, float]:
            handshake = Handshake(session, own=OwnNonces())  # as in two programs
            handshake.offer(sock)
            link = await handshake.link()
            reader, writer = streams(link)
            writer.write(b"!")
            await reader.readexactly(1)
            took_s = asyncio.get_running_loop().time() - begun_s
            await asyncio.sleep(2 * WAY_S)
            writer.transport.abort()
            return link.proof.role, took_s / (2 * WAY_S)

        told = dict(await asyncio.gather(*(side(*each) for each in zip(ends, sessions(kind), strict=True))))
        return told["responder"], told["initiator"]


async def held_ms() -> float:
    """The longest time between two turns of the loop."""
    handshake, others = Handshake(Session.bare(new_key())), []
    for _ in range(_STRANGERS):
        sock, stranger = connected()
        stranger.send(new_nonce())
        handshake.offer(sock, named=False)
        others.append(stranger)
    longest_s, begun_s = 0.0, time.perf_counter()
    last_s = begun_s
    while last_s < begun_s + _WATCHED_S:
        await asyncio.sleep(0)
        now_s = time.perf_counter()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
    handshake.end()
    for stranger in others:
        stranger.close()
    return longest_s * 1e3


async def measure(runs: int, links: int, mib: int) -> Row:
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in MAKES}
    for _ in range(runs):
        for name, make in MAKES.items():
            speeds[name].append(await throughput(make, mib))
    many = {name: await at_once(make, links) for name, make in MAKES.items()}
    row: Row = {}
    for name in MAKES:
        row[f"{name}_MB_s"] = rounded(median([speed for speed, _ in speeds[name]]))
        row[f"{name}_cpu_s_GB"] = rounded(median([cpu for _, cpu in speeds[name]]))
        row[f"{name}_cpu_ms"], row[f"{name}_KiB"] = map(rounded, many[name][:2])
    row["throughput_share"] = rounded(median([a / b for (a, _), (b, _) in zip(*speeds.values(), strict=True)]))
    row["memory_share"] = rounded(many["link"][1] / max(1e-9, many["TLS"][1]))
    row["up"] = many["link"][2]
    row["held_ms"] = rounded(median([await held_ms() for _ in range(runs)]))
    for kind, name in (("tickets", "session"), ("bare key", "bare_key")):
        found = [await first_bytes(kind) for _ in range(runs)]
        row[f"{name}_initiators_RTT"] = rounded(median([first for first, _ in found]))
        row[f"{name}_responders_RTT"] = rounded(median([second for _, second in found]))
    return row


def _row(loop: str, runs: int, links: int, mib: int) -> Row:
    make_room(4 * links + 200)
    return {"loop": loop, **run_on(loop, measure(runs, links, mib))}


def _in_a_process_of_its_own(loop: str, runs: int, links: int, mib: int) -> Row:
    """What another loop's links have left would hide what this one's take."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_row, loop, runs, links, mib).result()


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--links", type=int, default=1000)
    parser.add_argument("--mib", type=int, default=128)
    parser.add_argument("--loop", nargs="*", default=list(LOOPS))
    options = parser.parse_args()
    rows = []
    with measuring(links=options.links, runs=options.runs) as given:
        given["context_ms"] = rounded(context_ms())
        for loop in options.loop:
            rows.append(_in_a_process_of_its_own(loop, options.runs, options.links, options.mib))
    table(f"a link against bare TLS; a context takes {given['context_ms']} ms", rows)
    save(options.json, "link", given, rows)
    return 0 if all(row["up"] == options.links for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
