"""A large file from one home to another: `simopen send`, and `wormhole send` by way of its relay.

    python -m benchmarks.homes [--runs 3] [--mib 1024] [--mbit 100] [--json FILE]

Two hosts behind real Linux routers, and a third with the rendezvous and magic-wormhole's own transit relay.
magic-wormhole tries the homes' own addresses first, where nothing gets in, and takes the relay 2 s later. Seconds are
from the start of the receiving command, whose sender is there already, to the end of both.

On three kinds of wires. The kernel's, without delay (`benchmarks.wires`): there the two commands, and the relay, are
what takes time. The lab's, with 80 ms of round trip between the homes and 40 ms to the third host, without a limit:
what is measured then is how many packets a second the lab's one process passes on, and by the relay each byte passes
it twice. The lab's with that many Mbit/s each way for each home, with an eighth of the file, and no limit for the
relay: there the line decides, and both commands should fill it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

from benchmarks import wires
from benchmarks.common import Row, measuring, median, options_parser, rounded, save, table
from benchmarks.servers import opened as servers_of
from benchmarks.servers import started, without_ipv6
from benchmarks.transfer import filled
from simopen import lab

_BIN = Path(sys.executable).parent
_DELAY_S = 0.02
_RELAY_PORT = 4001
_THERE_S = 3.0  # until a sender's command has started, and is in its room


class Homes(NamedTuple):
    """Two hosts behind routers, where the rendezvous and the relay are, and STUN servers that it does not tell of."""

    sender: lab.Host | wires.Host
    receiver: lab.Host | wires.Host
    server: str
    stun: list[str]
    forget: Callable[[], Awaitable[None]]  # what is on record of a run

    @property
    def via(self) -> str:
        """The rendezvous' URL."""
        return f"ws://{self.server}:4000/v1"


Way: TypeAlias = Callable[[Homes, Path, Path, str], Awaitable[float]]


async def by_simopen(homes: Homes, file: Path, into: Path, _: str) -> float:
    """Seconds of the two commands. Raises: RuntimeError where one failed, or the file went another way."""
    asked = [word for server in homes.stun for word in ("--stun", server)]
    words = ["--json", "--allow-plain", "--via", homes.via, *asked]
    command = [sys.executable, "-m", "simopen"]
    sender = await homes.sender.start([*command, "send", *words, str(file)], stdin=DEVNULL, stdout=DEVNULL)
    assert sender.stderr is not None
    code = json.loads(await sender.stderr.readline())["code"]
    await asyncio.sleep(_THERE_S)
    took_s, told = await _received(
        homes, sender, [*command, "receive", "--yes", "--into", str(into), *words, code], into
    )
    remote = json.loads(told.splitlines()[-1])["report"]["remote"]
    if not remote.startswith(homes.receiver.public_address):
        raise RuntimeError(f"the file went to {remote}, not to {homes.receiver.public_address}")
    return took_s


async def by_wormhole(homes: Homes, file: Path, into: Path, code: str) -> float:
    """The same for magic-wormhole's commands."""
    command = [str(_BIN / "wormhole"), "--relay-url", homes.via]
    command += ["--transit-helper", f"tcp:{homes.server}:{_RELAY_PORT}"]
    options = ["send", "--no-qr", "--hide-progress", "--code", code]
    sender = await homes.sender.start([*command, *options, str(file)], stdin=DEVNULL, stdout=DEVNULL)
    await asyncio.sleep(_THERE_S)
    took_s, _ = await _received(homes, sender, [*command, "receive", "--hide-progress", "--accept-file", code], into)
    return took_s


WAYS: dict[str, Way] = {"simopen send": by_simopen, "wormhole send, by its relay": by_wormhole}


async def _received(homes: Homes, sender: Process, command: list[str], into: Path) -> tuple[float, str]:
    """How long it took, and what the sender wrote to standard error."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    receiver = await homes.receiver.start(command, stdin=DEVNULL, stdout=DEVNULL, cwd=into)
    (_, told), (_, other) = await asyncio.gather(sender.communicate(), receiver.communicate())
    took_s = loop.time() - began_s
    for process, said in ((sender, told), (receiver, other)):
        if process.returncode:
            raise RuntimeError(said.decode())
    return took_s, told.decode()


@asynccontextmanager
async def in_the_lab(mbit: float | None) -> AsyncIterator[Homes]:
    """Homes at a distance, each on a line of so many Mbit/s; None: of any number."""
    async with lab.Network(seed=3) as net:
        servers = await servers_of(net)
        await _relay(servers.host)
        line = None if mbit is None else mbit * 1e6
        access = partial(net.host, delay_s=_DELAY_S, nat=lab.LinuxRouter(), bandwidth_bps=line)
        sender, receiver = await access("sender"), await access("receiver")
        for host in (sender, receiver):
            await without_ipv6(host)
        yield Homes(sender, receiver, servers.host.address, servers.stun, net.clear_record)


@asynccontextmanager
async def on_wires() -> AsyncIterator[Homes]:
    """Homes next to each other, on the kernel's own wires."""
    with wires.joined() as (sender, receiver, server):
        serving = [sys.executable, "-m", "simopen", "serve", "--host", server.address]
        async with _running(await started(server, serving, "ws:")), _running(await _relay(server)):
            yield Homes(sender, receiver, server.address, [], _nothing)


async def _relay(host: lab.Host | wires.Host) -> Process:
    where = f"tcp:{_RELAY_PORT}:interface={host.address}"
    return await started(host, [str(_BIN / "twist"), "transitrelay", f"--port={where}"], "starting on")


@asynccontextmanager
async def _running(server: Process) -> AsyncIterator[None]:
    try:
        yield
    finally:
        server.terminate()
        await server.communicate()


async def _nothing() -> None:
    """The kernel keeps no record."""


async def measured(opened: AbstractAsyncContextManager[Homes], wires_of: str, runs: int, mib: int) -> list[Row]:
    """Each way by turns. `wires_of`: what the rows are to say of the wires."""
    with tempfile.TemporaryDirectory() as name:
        file, into = Path(name, "large"), Path(name, "into")
        filled(file, mib)
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        async with opened as homes:
            for number in range(runs):
                for way, call in WAYS.items():
                    os.mkdir(into)
                    found[way].append(await call(homes, file, into, f"{number + 1}-guitar-x"))
                    shutil.rmtree(into)
                    await homes.forget()
    theirs = median(found["wormhole send, by its relay"])
    return [
        {
            "way": way,
            "wires": wires_of,
            "MiB": mib,
            "n": runs,
            "whole_p50_s": rounded(median(took)),
            "whole_max_s": rounded(max(took)),
            "MB_s": rounded(mib * 2**20 / 1e6 / median(took)),
            "of_wormhole": rounded(theirs / median(took)),
        }
        for way, took in found.items()
    ]


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--mbit", type=float, default=100)
    options = parser.parse_args()
    with measuring(runs=options.runs, rtt_ms=round(4e3 * _DELAY_S), relay_rtt_ms=round(2e3 * _DELAY_S)) as given:
        limited = f"the lab's, {options.mbit:g} Mbit/s each"
        rows = asyncio.run(measured(on_wires(), "the kernel's", options.runs, options.mib))
        rows += asyncio.run(measured(in_the_lab(None), "the lab's", options.runs, options.mib))
        rows += asyncio.run(measured(in_the_lab(options.mbit), limited, options.runs, max(1, options.mib // 8)))
    table("from one home to another", rows)
    save(options.json, "homes", given, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
