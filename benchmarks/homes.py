"""A large file from one home to another, in the lab: `simopen send`, and `wormhole send` by way of its relay.

    python -m benchmarks.homes [--runs 3] [--mib 1024] [--mbit 100] [--json FILE]

Two hosts behind real Linux routers, 80 ms of round trip apart, both 40 ms from the one host of the rendezvous and of
magic-wormhole's own transit relay. magic-wormhole tries the homes' own addresses first, where nothing gets in, and
takes the relay 2 s later. Seconds are from the start of the receiving command, whose sender is there already, to the
end of both.

Once without a limit of any line: what is measured then is how many packets a second the lab's one process passes on,
and by the relay each byte passes it twice. Then, with an eighth of the file, with that many Mbit/s each way for each
home, and no limit for the relay: there the line decides, and both commands should fill it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

from benchmarks.common import Row, measuring, median, options_parser, rounded, save, table
from benchmarks.servers import Servers, started, without_ipv6
from benchmarks.servers import opened as servers_of
from benchmarks.transfer import filled
from simopen import lab

_BIN = Path(sys.executable).parent
_DELAY_S = 0.02
_RELAY_PORT = 4001
_THERE_S = 3.0  # until a sender's command has started, and is in its room


class Homes(NamedTuple):
    """Two hosts behind routers, and the host of the rendezvous and of the relay."""

    sender: lab.Host
    receiver: lab.Host
    servers: Servers


Way: TypeAlias = Callable[[Homes, Path, Path, str], Awaitable[float]]


async def by_simopen(homes: Homes, file: Path, into: Path, _: str) -> float:
    """Seconds of the two commands. Raises: RuntimeError where one failed, or the file went another way."""
    asked = [word for server in homes.servers.stun for word in ("--stun", server)]
    words = ["--json", "--allow-plain", "--via", homes.servers.via, *asked]
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
    command = [str(_BIN / "wormhole"), "--relay-url", homes.servers.via]
    command += ["--transit-helper", f"tcp:{homes.servers.host.address}:{_RELAY_PORT}"]
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


async def opened(net: lab.Network, mbit: float | None) -> Homes:
    """The hosts, with the servers running."""
    servers = await servers_of(net)
    where = f"tcp:{_RELAY_PORT}:interface={servers.host.address}"
    await started(servers.host, [str(_BIN / "twist"), "transitrelay", f"--port={where}"], "starting on")
    line = None if mbit is None else mbit * 1e6
    access = partial(net.host, delay_s=_DELAY_S, nat=lab.LinuxRouter(), bandwidth_bps=line)
    sender, receiver = await access("sender"), await access("receiver")
    for host in (sender, receiver):
        await without_ipv6(host)
    return Homes(sender, receiver, servers)


async def measured(runs: int, mib: int, mbit: float | None) -> list[Row]:
    """Each way by turns."""
    with tempfile.TemporaryDirectory() as name:
        file, into = Path(name, "large"), Path(name, "into")
        filled(file, mib)
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        async with lab.Network(seed=3) as net:
            homes = await opened(net, mbit)
            for number in range(runs):
                for way, call in WAYS.items():
                    os.mkdir(into)
                    found[way].append(await call(homes, file, into, f"{number + 1}-guitar-x"))
                    shutil.rmtree(into)
                    await net.clear_record()
    theirs = median(found["wormhole send, by its relay"])
    return [
        {
            "way": way,
            "line_Mbit_s": mbit,
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
        rows = asyncio.run(measured(options.runs, options.mib, None))
        rows += asyncio.run(measured(options.runs, max(1, options.mib // 8), options.mbit))
    table("from one home to another, in the lab", rows)
    save(options.json, "homes", given, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
