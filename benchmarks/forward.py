"""Connections through `simopen.forward`: many large ones at once, short ones, and one large download.

    python -m benchmarks.forward [--connections 200] [--each 10] [--short 1000] [--mib 256] [--runs 3]
        [--loop asyncio uvloop] [--json FILE]

Five processes on loopback: a service, the side that allows it, the side that listens, with a link between the two, and
who connects. Of so many connections at once, MiB each, one is reset in the middle, and one is not read on until all
others are whole; each of those is compared with what was sent. A side's memory is the most that it had resident. Short
connections carry some bytes each way, in a row and 20 at a time. The download is compared with plain TLS between two
processes, and with one channel of asyncssh's between two.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import socket
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import asyncssh

from benchmarks.common import LOOPS, Row, measuring, median, options_parser, progress, rounded, run_on, save, table
from benchmarks.keyed import CHUNK, HERE, download_s, link_server, link_to, process, tls_server, tls_to
from simopen.apps.forward.api import forward
from simopen.apps.forward.targets import Forward, Target

MOST_MIB, LEAST_SHARE, LEAST_A_SECOND = 512, 0.3, 200
"""What is aimed at: a side's memory; the download, of plain TLS's; short connections."""
_AT_ONCE = 20
_PIECE = bytes(range(256)) * (CHUNK // 256)
_ASK = 8  # bytes: how many are wanted
_CIPHER = "aes128-gcm@openssh.com"


async def give(reader: StreamReader, writer: StreamWriter) -> None:
    """As many bytes as are asked for."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        left = int.from_bytes(await reader.readexactly(_ASK))
        while left:
            writer.write(_PIECE[:left])
            left -= min(left, CHUNK)
            await writer.drain()
        await reader.read()
    writer.close()


async def service() -> None:
    """Says where it is: in the clear, by TLS."""
    server = await asyncio.start_server(give, HERE, 0)
    print(server.sockets[0].getsockname()[1], await tls_server(give), flush=True)
    await asyncio.Event().wait()


async def far(port: int) -> None:
    """The side that allows the service. Says where it takes a link."""

    async def side(*stream: Any) -> None:
        await forward(stream, allow=[Target(HERE, port)])

    print(await link_server(side), flush=True)
    await asyncio.Event().wait()


async def near(link: int, port: int) -> None:
    """The side that listens. Says where."""
    with socket.create_server((HERE, 0)) as free:
        listen = free.getsockname()
    wanted = Forward(listen, (HERE, port))
    await forward(await link_to(link), forwards=[wanted], ready=lambda _: print(listen[1], flush=True))


class _Gives(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False

    def connection_requested(self, *_: Any) -> Any:
        return give


async def ssh_service() -> None:
    """asyncssh alone. Says where."""
    keys = [asyncssh.generate_private_key("ssh-ed25519")]
    server = await asyncssh.listen(
        HERE, 0, server_factory=_Gives, server_host_keys=keys, encryption_algs=[_CIPHER], compression_algs=None
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


async def measured(options: argparse.Namespace, loop: str) -> Row:
    """All of it, on that loop."""
    row: Row = {"loop": loop}
    async with process("benchmarks.forward", "--on", loop, "--be", "service") as (_, (port, tls)):
        async with (
            process("benchmarks.forward", "--on", loop, "--be", "far", str(port)) as (one, (link,)),
            process("benchmarks.forward", "--on", loop, "--be", "near", str(link), str(port)) as (other, (listen,)),
        ):
            through = await _downloads(lambda: asyncio.open_connection(HERE, listen), options)
            row |= await _short(listen, options.short)
            row |= await _at_once(listen, options.connections, options.each)
            row["MiB_most"] = rounded(max(_most_mib(each.pid) for each in (one, other)))
        plain = await _downloads(lambda: tls_to(tls), options)
    async with process("benchmarks.forward", "--on", loop, "--be", "ssh_service") as (_, (port,)):
        alone = await _by_ssh(port, options)
    row |= {"MB_s": rounded(through), "TLS_MB_s": rounded(plain), "asyncssh_MB_s": rounded(alone)}
    row |= {"of_TLS": rounded(through / plain), "asyncssh_of_TLS": rounded(alone / plain)}
    row["reached"] = (
        row["whole"] == options.connections - 2
        and row["MiB_most"] <= MOST_MIB
        and row["of_TLS"] >= LEAST_SHARE
        and max(row["in_a_row_s"], row["abreast_s"]) >= LEAST_A_SECOND
    )
    return row


async def _downloads(connect: Any, options: argparse.Namespace) -> float:
    """MB/s, the median."""
    size, found = options.mib * 2**20, []
    for _ in range(options.runs):
        reader, writer = await connect()
        found.append(size / 1e6 / await download_s(reader, writer, size.to_bytes(_ASK), size))
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return median(found)


async def _by_ssh(port: int, options: argparse.Namespace) -> float:
    async with asyncssh.connect(
        *(HERE, port), config=None, known_hosts=None, client_keys=None, username="x", encryption_algs=[_CIPHER]
    ) as ssh:
        return await _downloads(lambda: ssh.open_connection("service", 1, encoding=None), options)


async def _short(port: int, count: int) -> Row:
    """A second, in a row and abreast."""

    async def one() -> None:
        reader, writer = await asyncio.open_connection(HERE, port)
        writer.write((3).to_bytes(_ASK))
        await reader.readexactly(3)
        writer.close()
        await writer.wait_closed()

    async def row() -> None:
        for _ in range(count // _AT_ONCE):
            await one()

    begun_s = time.perf_counter()
    for _ in range(count):
        await one()
    between_s = time.perf_counter()
    await asyncio.gather(*(row() for _ in range(_AT_ONCE)))
    ended_s = time.perf_counter()
    return {
        "in_a_row": count,
        "in_a_row_s": rounded(count / (between_s - begun_s)),
        "abreast_s": rounded(count // _AT_ONCE * _AT_ONCE / (ended_s - between_s)),
    }


async def _at_once(port: int, connections: int, mib: int) -> Row:
    """How many come whole, and how fast all together; one is reset, and one waits for the others."""
    size, done, whole = mib * 2**20, asyncio.Event(), 0
    pieces = size // CHUNK
    right = hashlib.sha256(_PIECE * pieces).digest()

    async def one(number: int) -> None:
        nonlocal whole
        reader, writer = await asyncio.open_connection(HERE, port)
        writer.write(size.to_bytes(_ASK))
        found, left = hashlib.sha256(), size
        while left and (piece := await reader.read(CHUNK)):
            found.update(piece)
            left -= len(piece)
            if number == 0 and left < size // 2:
                writer.transport.abort()
                return
            if number == 1 and not done.is_set():
                await done.wait()
        if number > 1:
            whole += found.digest() == right
            progress(f"{whole} of {connections}")
        writer.close()

    begun_s = time.perf_counter()
    slow = asyncio.ensure_future(one(1))
    await asyncio.gather(*(one(number) for number in range(connections) if number != 1))
    took_s = time.perf_counter() - begun_s
    done.set()
    await slow
    return {
        "connections": connections,
        "whole": whole,
        "together_MB_s": rounded((connections - 2) * size / 1e6 / took_s),
    }


def _most_mib(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


ROLES: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "service": service,
    "far": far,
    "near": near,
    "ssh_service": ssh_service,
}


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--each", type=int, default=10, metavar="MIB")
    parser.add_argument("--short", type=int, default=1000, metavar="CONNECTIONS")
    parser.add_argument("--mib", type=int, default=256, help="of the download")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--loop", nargs="*", default=list(LOOPS))
    parser.add_argument("--on", metavar="LOOP", help=argparse.SUPPRESS)
    parser.add_argument("--be", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.on:
        role, *ports = options.be
        run_on(options.on, ROLES[role](*map(int, ports)))
        return 0
    asked = ("connections", "each", "short", "mib", "runs")
    with measuring(**{name: getattr(options, name) for name in asked}) as given:
        rows = [run_on(loop, measured(options, loop)) for loop in options.loop]
    table("through simopen.forward, on loopback", rows)
    save(options.json, "forward", given, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
