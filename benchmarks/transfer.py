"""A large file from one program to another on loopback: `simopen send`, `wormhole send`, and plain TLS with SHA-256.

    python -m benchmarks.transfer [--runs 3] [--mib 1024] [--small 100000] [--loop uvloop] [--json FILE]

Each way takes two processes and writes to the same disk. "plain" is what a program of 30 lines does: read, hash, write
to asyncio's TLS stream; read, hash, write to a file; one TLS 1.3 connection, AES-GCM. Seconds are from the first byte
to the receiver's word that all is there; "whole" is from the start of the receiving command to the end of both.
wormhole tells no seconds of its own. MiB are the most that one of the two processes held at any time. Last, so many
files of 100 bytes, by `simopen send` alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import ssl
import sys
import tempfile
import time
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import simopen
from benchmarks.common import Row, measuring, median, options_parser, rounded, run_on, save, table
from simopen.link.contexts import ready
from simopen.link.session import Kind, Role, Session

CHUNK = 2**18
_WORMHOLE = Path(sys.executable).with_name("wormhole")
_NOWHERE = "tcp:127.0.0.1:9"  # both are on one host: no relay is needed
_FEW = 1000  # files in a folder
_LOOK_S = 0.05


class Took(NamedTuple):
    """Seconds that the transfer took, the commands' whole time, and the most bytes that one of the two held."""

    seconds: float | None
    whole_s: float
    held_bytes: int


Way: TypeAlias = Callable[[Path, Path, str], Awaitable[Took]]


def contexts() -> dict[Role, ssl.SSLContext]:
    """Of two sides that have a key: the same for both ways, so that the same cipher is chosen."""
    both = [Session.between(Kind.TICKETS, bytes(32), *of) for of in ((b"one", b"other"), (b"other", b"one"))]
    return {side.role: ready(side).context for side in both if side.role is not None}


async def plain_sender(file: Path, port: int) -> None:
    """Prints the seconds that it took."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=contexts()[Role.INITIATOR], server_hostname=""
    )
    began_s = time.perf_counter()
    digest = hashlib.sha256()
    with file.open("rb") as source:
        writer.write(os.stat(file).st_size.to_bytes(8))
        while piece := source.read(CHUNK):
            digest.update(piece)
            writer.write(piece)
            await writer.drain()
    writer.write(digest.digest())
    assert await reader.readexactly(1) == b"k"
    print(time.perf_counter() - began_s, flush=True)
    writer.close()


async def plain_receiver(file: Path) -> None:
    """Prints the port, and takes one file."""
    done = asyncio.Event()

    async def take(reader: StreamReader, writer: StreamWriter) -> None:
        left = int.from_bytes(await reader.readexactly(8))
        digest = hashlib.sha256()
        with file.open("wb") as sink:
            while left:
                piece = await reader.read(min(left, CHUNK))
                digest.update(piece)
                sink.write(piece)
                left -= len(piece)
            sink.flush()
            os.fsync(sink.fileno())
        assert await reader.readexactly(32) == digest.digest()
        writer.write(b"k")
        await writer.drain()
        done.set()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=contexts()[Role.RESPONDER], limit=CHUNK)
    print(server.sockets[0].getsockname()[1], flush=True)
    await done.wait()


async def by_plain_tls(source: Path, into: Path, loop: str) -> Took:
    """Two processes of this module."""
    began_s = time.perf_counter()
    receiver = await _started(
        [sys.executable, "-m", "benchmarks.transfer", "--take", str(into / "plain"), "--on", loop]
    )
    port = (await _line(receiver)).strip()
    command = [sys.executable, "-m", "benchmarks.transfer", "--give", str(source), "--port", port, "--on", loop]
    sender = await _started(command)
    took_s = float(await _line(sender))
    (_, one), (_, other) = await asyncio.gather(_ended(sender), _ended(receiver))
    return Took(took_s, time.perf_counter() - began_s, max(one, other))


async def by_simopen(source: Path, into: Path, loop: str) -> Took:
    """Two commands, through a rendezvous here. They choose their loop themselves: uvloop, where that is there."""
    if loop != "uvloop":
        raise ValueError("the commands run on uvloop")
    async with simopen.serve("127.0.0.1", 0, stun_ports=(0, 0)) as server:
        via = f"ws://127.0.0.1:{server.port}/v1"
        command = [sys.executable, "-m", "simopen"]
        sender = await _started([*command, "send", "--json", "--via", via, str(source)])
        assert sender.stderr is not None
        code = json.loads(await sender.stderr.readline())["code"]
        began_s = time.perf_counter()
        receiver = await _started([*command, "receive", "--yes", "--json", "--into", str(into), "--via", via, code])
        (said, one), (_, other) = await asyncio.gather(_ended(sender), _ended(receiver))
        took_s = json.loads(said.splitlines()[-1])["seconds"]
        return Took(took_s, time.perf_counter() - began_s, max(one, other))


async def by_wormhole(source: Path, into: Path, _: str) -> Took:
    """magic-wormhole's own two commands, through the same kind of rendezvous."""
    async with simopen.serve("127.0.0.1", 0, stun_ports=None) as server:
        command = [str(_WORMHOLE), "--relay-url", server.url, "--transit-helper", _NOWHERE]
        sender = await _started([*command, "send", "--no-qr", "--hide-progress", "--code", "7-guitar-x", str(source)])
        began_s = time.perf_counter()
        receiver = await _started([*command, "receive", "--hide-progress", "--accept-file", "7-guitar-x"], into)
        (_, one), (_, other) = await asyncio.gather(_ended(sender), _ended(receiver))
        return Took(None, time.perf_counter() - began_s, max(one, other))


async def _started(command: list[str], directory: Path | None = None) -> Process:
    where = {**os.environ, "PYTHONPATH": os.getcwd()}
    return await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, cwd=directory, env=where
    )


async def _line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode()


async def _ended(process: Process) -> tuple[str, int]:
    """What it wrote to standard error, and the most bytes that it held. Raises: RuntimeError where it failed."""
    ending = asyncio.ensure_future(process.communicate())
    held_bytes = 0
    while not ending.done():
        held_bytes = max(held_bytes, _most_held_bytes(process.pid))
        await asyncio.wait([ending], timeout=_LOOK_S)
    if process.returncode:
        raise RuntimeError(ending.result()[1].decode())
    return ending.result()[1].decode(), held_bytes


def _most_held_bytes(pid: int) -> int:
    """The kernel's own maximum so far; nothing, once the process has ended."""
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


WAYS: dict[str, Way] = {"plain TLS and SHA-256": by_plain_tls, "simopen send": by_simopen}
if _WORMHOLE.exists():
    WAYS["wormhole send"] = by_wormhole


async def measured(runs: int, mib: int, small: int, loop: str) -> list[Row]:
    """Each way by turns, with one file that is in the kernel's memory; then the small ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        filled(folder / "large", mib)
        found: dict[str, list[Took]] = {way: [] for way in WAYS}
        for _ in range(runs):
            for way, call in WAYS.items():
                found[way].append(await _crossed(call, folder / "large", folder / "into", loop))
        rows = [
            _row(way, f"{mib} MiB", mib * 2**20, took, found["plain TLS and SHA-256"]) for way, took in found.items()
        ]
        if small:
            tree = folder / "tree"
            for number in range(small):
                (tree / str(number // _FEW)).mkdir(parents=True, exist_ok=True)
                (tree / str(number // _FEW) / str(number)).write_bytes(bytes(100))
            took = [await _crossed(by_simopen, tree, folder / "into", loop)]
            rows.append(_row("simopen send", f"{small:,} files of 100 B", small * 100, took, None))
        return rows


def filled(file: Path, mib: int) -> None:
    """Make a file of so many MiB that nothing compresses."""
    with file.open("wb") as large:
        for _ in range(mib):
            large.write(os.urandom(2**20))


async def _crossed(call: Way, source: Path, into: Path, loop: str) -> Took:
    os.mkdir(into)
    try:
        return await call(source, into, loop)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(into)


def _row(way: str, what: str, size: int, took: list[Took], plain: list[Took] | None) -> Row:
    seconds = [each.seconds for each in took if each.seconds is not None]
    whole = [each.whole_s for each in took]
    rate = size / 1e6 / median(seconds) if seconds else None
    plain_s = None if plain is None else median([each.seconds for each in plain if each.seconds is not None])
    return {
        "way": way,
        "what": what,
        "n": len(took),
        "p50_s": rounded(median(seconds)) if seconds else None,
        "MB_s": rounded(rate),
        "of_plain": rounded(plain_s / median(seconds)) if plain_s and seconds else None,
        "whole_p50_s": rounded(median(whole)),
        "whole_max_s": rounded(max(whole)),
        "held_MiB": rounded(max(each.held_bytes for each in took) / 2**20),
    }


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--small", type=int, default=100_000, metavar="FILES")
    parser.add_argument("--loop", choices=["uvloop"], default="uvloop")
    parser.add_argument("--take", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--give", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--on", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.on:
        run_on(options.on, plain_receiver(options.take) if options.take else plain_sender(options.give, options.port))
        return 0
    with measuring(runs=options.runs, mib=options.mib) as given:
        rows = run_on(options.loop, measured(options.runs, options.mib, options.small, options.loop))
    table("from one program to another, on loopback", rows)
    save(options.json, "transfer", given, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
