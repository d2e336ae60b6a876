"""How long a meeting by a code takes: from the later side's call to the first byte at the other.

    python -m benchmarks.meet [--runs 9] [--json FILE]

In the lab: two hosts behind NATs with endpoint-independent mapping, 80 ms of round trip apart, and 40 ms from the
rendezvous and the STUN servers. The earlier side is in the room already, as people are. `call` is the library's, its
modules loaded, through `simopen serve`, or through a NATS server; `command` is `simopen meet CODE` through the first,
the interpreter's start included. The steps are the later side's, in ms after its call: let into the room, the code
confirmed, clocks known, fired, up, verified.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import Process
from typing import Any

from benchmarks.common import Row, measuring, median, options_parser, rounded, save, table
from benchmarks.servers import opened, without_ipv6
from simopen import lab
from simopen.lab import Nat
from simopen.rendezvous.codes import new_code
from tests.signalling.places import NATS_SERVER

STEPS = ("in room", "peer here", "peer clock", "fired", "up", "verified")
BARS_MS = {"call": 700, "call, NATS": 600, "command": 1100}
_SIDE = "benchmarks.meet"
_NATS_PORT = 4222


async def side(code: str, via: str, servers: list[str]) -> None:
    """One side: a line when it is in the room, and one when it has heard a byte."""
    import simopen
    from simopen.nat import stun
    from simopen.rendezvous import api, pake
    from simopen.signalling import mailbox, nats  # noqa: F401

    pake.Pake(b"warm", "1")
    stun.request(bytes(stun.TRANSACTION_BYTES))
    api.load()
    events: list[simopen.Event] = []

    def tell(event: simopen.Event) -> None:
        events.append(event)
        if event.step == "in room":
            print("{}", flush=True)

    meet = simopen.meet
    began_ns = time.monotonic_ns()
    reader, writer = await meet(code, via=via, servers=servers, allow_plain=True, on_event=tell)
    writer.write(b"x")
    await reader.readexactly(1)
    heard_ns = time.monotonic_ns()
    steps = {each.step: (each.at_ns - began_ns) / 1e6 for each in reversed(events)}
    print(json.dumps({"began_ns": began_ns, "heard_ns": heard_ns, "steps": steps}), flush=True)
    writer.write_eof()
    await reader.read()
    writer.close()


async def answered(program: Process) -> dict[str, Any]:
    assert program.stdout is not None
    found: dict[str, Any] = json.loads(await program.stdout.readline())
    return found


async def one(net: lab.Network, via: str, servers: list[str], number: int, way: str) -> Row:
    """A meeting of two new hosts."""
    hosts = [await net.host(f"{name}{number}", delay_s=0.02, nat=Nat()) for name in ("early", "late")]
    for host in hosts:
        await without_ipv6(host)
    code = str(new_code(str(number)))
    words = [sys.executable, "-m", _SIDE, "--side", code, via, *servers]
    early = await hosts[0].start(words, stderr=None)
    await answered(early)
    await asyncio.sleep(1.0)  # its NATs are known by then
    if way != "command":
        late = await hosts[1].start(words, stderr=None)
        await answered(late)
        (told, heard) = await asyncio.gather(answered(late), answered(early))
        row: Row = {"first_byte_ms": (heard["heard_ns"] - told["began_ns"]) / 1e6}
        return row | {f"{step.replace(' ', '_')}_ms": told["steps"].get(step) for step in STEPS}
    asked = [word for server in servers for word in ("--stun", server)]
    command = [sys.executable, "-m", "simopen", "meet", "--allow-plain", "--via", via, *asked, code]
    began_ns = time.monotonic_ns()
    late = await hosts[1].start(command)
    assert late.stdin is not None
    late.stdin.write(b"x")
    late.stdin.close()
    heard = await answered(early)
    await late.wait()
    return {"first_byte_ms": (heard["heard_ns"] - began_ns) / 1e6}


async def measured(runs: int) -> dict[str, list[Row]]:
    async with lab.Network(seed=3) as net:
        servers = await opened(net)
        where = servers.host.address
        await servers.host.start([str(NATS_SERVER), "--addr", where, "--port", str(_NATS_PORT)], stderr=None)
        await _until_it_listens(servers.other, where)
        vias = dict.fromkeys(BARS_MS, servers.via) | {"call, NATS": f"nats://{where}:{_NATS_PORT}"}
        found: dict[str, list[Row]] = {way: [] for way in BARS_MS}
        for number in range(runs):
            for index, way in enumerate(found):
                found[way].append(await one(net, vias[way], servers.stun, len(found) * number + index + 1, way))
        return found


async def _until_it_listens(host: lab.Host, where: str) -> None:
    code = f"import socket, time\nwhile socket.socket().connect_ex(({where!r}, {_NATS_PORT})): time.sleep(0.05)"
    await host.run([sys.executable, "-c", code])


def main() -> int:
    if sys.argv[1:2] == ["--side"]:
        import uvloop

        uvloop.run(side(sys.argv[2], sys.argv[3], sys.argv[4:]))
        return 0
    parser = options_parser(__doc__)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    with measuring(runs=options.runs, rtt_ms=80, rendezvous_rtt_ms=40) as given:
        found = asyncio.run(measured(options.runs))
    rows = []
    for way, each in found.items():
        names = [f"{name.replace(' ', '_')}_ms" for name in STEPS]
        steps = {name: _median([row.get(name) for row in each]) for name in names}
        whole = median([row["first_byte_ms"] for row in each])
        rows.append({"way": way, **steps, "first_byte_ms": rounded(whole), "reached": whole <= BARS_MS[way]})
    table("from the later side's call to the first byte at the other, medians", rows)
    save(options.json, "meet", given, rows)
    return 0


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return rounded(median(known)) if known else None


if __name__ == "__main__":
    sys.exit(main())
