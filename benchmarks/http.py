"""HTTP over one punched connection: small requests and a large download, beside httpx's own Keep-Alive.

    python -m benchmarks.http [--runs 10] [--requests 1000] [--mib 1024] [--rtt 80] [--loop uvloop] [--json FILE]

On loopback the server is another process; `simopen.http.Transport` over a plain TCP stream and httpx's own transport
ask it by turns, for small answers one after the other and for one large one. The large one is asked for over a link,
too, as a punched stream with a key is, beside a bare TLS socket that is read without HTTP; as the wall clock counts
where the kernel lets two processes run, and other programs, the client's CPU time is told beside it. In the lab two
hosts behind NATs are that far apart: requests over one punched connection; over a connection punched for each, of
which a few are measured, from the first SYN on; over a meeting by a code for each, from the call on, as both sides
have to agree on an instant before there is a SYN; and over plain TCP to a host that anybody can reach, by httpx's own
Keep-Alive. The rendezvous is half of the round trip away.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import httpx2

import simopen
import simopen.http
from benchmarks.agent import serve as obeying
from benchmarks.common import LOOPS, Row, measuring, median, options_parser, rounded, run_on, save, shape, table
from benchmarks.keyed import HERE, download_s, link_server, link_to, process, tls_server, tls_to
from benchmarks.orders import Agent, Order
from benchmarks.servers import Servers, opened, without_ipv6
from simopen import lab
from simopen.model.times import MonoNs
from simopen.rendezvous.codes import new_code

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

PORT = 1314
_SMALL = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"
_PIECE = bytes(2**18)
_EACH = 12  # connections that are punched for one request
_LEAD_S = 0.3


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As small a server as there can be: `/` is answered by three bytes, `/N` by N MiB."""
    with contextlib.suppress(asyncio.IncompleteReadError, OSError, asyncio.CancelledError):  # the program ends
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            mib = int(head.split()[1][1:] or 0)
            if not mib:
                writer.write(_SMALL)
                continue
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (mib * 2**20))
            for _ in range(mib * 4):
                writer.write(_PIECE)
                await writer.drain()
    writer.close()


Speed: TypeAlias = tuple[float, float]
"""MB/s by the wall clock, and CPU seconds of the client's for a GB."""


async def download(transport: httpx2.AsyncBaseTransport | None, base: str, mib: int) -> Speed:
    """By HTTP."""
    cpu_s = time.process_time()
    return _speed(mib, await _ask(transport, base, 1, f"/{mib}"), time.process_time() - cpu_s)


async def bare_download(port: int, mib: int) -> Speed:
    """From a TLS socket."""
    reader, writer = await tls_to(port)
    cpu_s = time.process_time()
    took_s = await download_s(reader, writer, b"GET /%d HTTP/1.1\r\n\r\n" % mib, mib * 2**20)
    writer.transport.abort()
    return _speed(mib, took_s, time.process_time() - cpu_s)


def _speed(mib: int, took_s: float, cpu_s: float) -> Speed:
    return mib * 2**20 / 1e6 / took_s, cpu_s / (mib * 2**20 / 1e9)


async def listening(_: Order, __: simopen.Estimate) -> Order:
    """Serve on every address; the answer has the port."""
    server = await asyncio.start_server(answer, "0.0.0.0", 0)
    _servers.append(server)
    return {"port": server.sockets[0].getsockname()[1]}


async def answering(order: Order, now: simopen.Estimate) -> Order:
    """Answer on one punched stream after the other, until the peer ends each."""
    for at_ns in order["at_ns"]:
        await answer(*await _connected(order, at_ns, now))
    return {}


async def asking(order: Order, now: simopen.Estimate) -> Order:
    """So many requests over each punched stream: seconds, from its first SYN and from when it was up."""
    since_syn, since_up = [], []
    for at_ns in order["at_ns"]:
        reader, writer = await _connected(order, at_ns, now)
        report: simopen.Report = writer.get_extra_info("simopen")
        took_s = await _ask(simopen.http.Transport.over(reader, writer), "http://peer", order["requests"])
        since_up.append(took_s)
        since_syn.append((report.elapsed_s or 0.0) + took_s)
    return {"since_syn_s": since_syn, "since_up_s": since_up}


async def answering_met(order: Order, _: simopen.Estimate) -> Order:
    """Answer on one stream after the other, each met by a code of its own."""
    for code in order["codes"]:
        await answer(*await _met(order, code))
    return {}


async def asking_met(order: Order, _: simopen.Estimate) -> Order:
    """One request over each stream: seconds, from the call of `meet` on."""
    took = []
    for code in order["codes"]:
        begun_s = time.perf_counter()
        transport = simopen.http.Transport.over(*await _met(order, code))
        async with httpx2.AsyncClient(transport=transport, base_url="http://peer", timeout=None) as client:
            await client.get("/")
        took.append(time.perf_counter() - begun_s)
    return {"since_call_s": took}


async def asking_plainly(order: Order, _: simopen.Estimate) -> Order:
    """The same over httpx's own connection, once that is open."""
    return {"since_up_s": [await _ask(None, order["url"], order["requests"])]}


METHODS = {
    "listen": listening,
    "answer": answering,
    "ask": asking,
    "answer, met": answering_met,
    "ask, met": asking_met,
    "ask plainly": asking_plainly,
}
_servers: list[asyncio.Server] = []


async def _connected(order: Order, at_ns: int, now: simopen.Estimate) -> Streams:
    return await simopen.connect((order["peer"], PORT), at=now.utc_at(MonoNs(at_ns)) / 1e9, local=PORT, clock=now)


async def _met(order: Order, code: str) -> Streams:
    return await simopen.meet(code, via=order["via"], servers=order["servers"], allow_plain=True)


async def _ask(transport: httpx2.AsyncBaseTransport | None, base: str, requests: int, path: str = "/") -> float:
    """Seconds, after a first request that opens the connection."""
    async with httpx2.AsyncClient(transport=transport, base_url=base, timeout=None) as client:
        await client.get("/")
        begun_s = time.perf_counter()
        for _ in range(requests):
            async with client.stream("GET", path) as response:
                async for _piece in response.aiter_raw():
                    pass
        return time.perf_counter() - begun_s


async def in_the_lab(rtt_ms: float, requests: int, loop: str) -> Row:
    """Three ways of asking, between the same two hosts' programs."""
    async with lab.Network(seed=1) as net:
        way_s = rtt_ms / 4e3
        left, right = [await net.host(name, delay_s=way_s, nat=lab.Nat()) for name in ("left", "right")]
        for host in (left, right):
            await without_ipv6(host)
        public = await net.host("public", delay_s=way_s)
        command = [sys.executable, "-m", "benchmarks.http", "--obey", loop]
        asks, answers, serves = [await Agent.start(host, command) for host in (left, right, public)]
        try:
            port = (await serves.ask({"method": "listen"}))["port"]
            one = await _both(asks, answers, (left, right), 1, requests)
            each = await _both(asks, answers, (left, right), _EACH, 1)
            met = await _both_met(asks, answers, await opened(net))
            url = f"http://{public.public_address}:{port}"
            plain = await asks.ask({"method": "ask plainly", "url": url, "requests": requests})
        finally:
            await asyncio.gather(*(agent.close() for agent in (asks, answers, serves)))
    punched_s, plain_s = one["since_up_s"][0], plain["since_up_s"][0]
    return {
        "loop": loop,
        "requests": requests,
        "one_punched_s": rounded(punched_s),
        "plain_s": rounded(plain_s),
        "of_plain": rounded(punched_s / plain_s),
        "ms_each": rounded(punched_s / requests * 1e3),
        **shape([took_s * 1e3 for took_s in each["since_syn_s"]], "punched_for_each", "ms"),
        **shape([took_s * 1e3 for took_s in met["since_call_s"][1:]], "met_for_each", "ms"),
    }


async def _both(asks: Agent, answers: Agent, hosts: tuple[lab.Host, lab.Host], streams: int, requests: int) -> Order:
    """So many streams in a row, at instants that leave time for what is asked over each."""
    apart_ns = round((_LEAD_S + 1.0) * 1e9)
    at_ns = [time.monotonic_ns() + round(_LEAD_S * 1e9) + number * apart_ns for number in range(streams)]
    order = {"at_ns": at_ns, "requests": requests}
    told, other = await asyncio.gather(
        asks.ask({"method": "ask", "peer": hosts[1].public_address, **order}),
        answers.ask({"method": "answer", "peer": hosts[0].public_address, **order}),
    )
    if error := told.get("error") or other.get("error"):
        raise RuntimeError(error)
    return told


async def _both_met(asks: Agent, answers: Agent, servers: Servers) -> Order:
    """So many meetings in a row. The first is to load what they take, and is not counted."""
    order: Order = {"via": servers.via, "servers": servers.stun}
    order["codes"] = [str(new_code(str(number))) for number in range(1, _EACH + 2)]
    told, other = await asyncio.gather(
        asks.ask({"method": "ask, met", **order}), answers.ask({"method": "answer, met", **order})
    )
    if error := told.get("error") or other.get("error"):
        raise RuntimeError(error)
    return told


async def on_loopback(runs: int, requests: int, mib: int, loop: str) -> Row:
    """Punched and plain by turns, against one server in a process of its own."""
    async with process("benchmarks.http", "--serve", loop) as (_, (port, link, tls)):
        base, meet = f"http://{HERE}:{port}", partial(asyncio.open_connection, HERE, port)
        ways: dict[str, Callable[[], httpx2.AsyncBaseTransport | None]]
        ways = {name: partial(_transport, name, meet) for name in ("simopen", "httpx")}
        ways["linked"] = lambda: simopen.http.Transport(partial(link_to, link))
        small: dict[str, list[float]] = {"simopen": [], "httpx": []}
        large: dict[str, list[Speed]] = {"simopen": [], "httpx": [], "linked": [], "TLS": []}
        for _ in range(runs):
            for name, rates in small.items():
                rates.append(requests / await _ask(ways[name](), base, requests))
        for _ in range(max(1, runs // 2)):
            for name, speeds in large.items():
                by_http = name in ways
                speeds.append(await (download(ways[name](), base, mib) if by_http else bare_download(tls, mib)))
    row: Row = {"loop": loop}
    row |= {f"{name}_gets_s": rounded(median(rates)) for name, rates in small.items()}
    row["gets_s_share"] = _share(small["simopen"], small["httpx"])
    for number, what in enumerate(("MB_s", "cpu_s_GB")):
        row |= {f"{name}_{what}": rounded(median([each[number] for each in large[name]])) for name in large}
    rate = {name: [each[0] for each in speeds] for name, speeds in large.items()}
    row["MB_s_share"], row["linked_of_TLS"] = (
        _share(rate["simopen"], rate["httpx"]),
        _share(rate["linked"], rate["TLS"]),
    )
    return row


def _share(ours: list[float], theirs: list[float]) -> float | None:
    """Each time of what came right after it: other programs come and go."""
    return rounded(median([one / other for one, other in zip(ours, theirs, strict=True)]))


def _transport(name: str, meet: simopen.http.Meet) -> httpx2.AsyncBaseTransport | None:
    return simopen.http.Transport(meet) if name == "simopen" else None


async def _serving() -> None:
    server = await asyncio.start_server(answer, HERE, 0)
    print(server.sockets[0].getsockname()[1], await link_server(answer), await tls_server(answer), flush=True)
    async with server:
        await server.serve_forever()


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--mib", type=int, default=1024, help="of the large answer")
    parser.add_argument("--rtt", type=float, default=80, metavar="MS")
    parser.add_argument("--loop", nargs="*", default=list(LOOPS))
    parser.add_argument("--serve", metavar="LOOP", help=argparse.SUPPRESS)
    parser.add_argument("--obey", metavar="LOOP", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve or options.obey:
        run_on(options.serve or options.obey, _serving() if options.serve else obeying(METHODS))
        return 0
    with measuring(requests=options.requests, runs=options.runs, mib=options.mib, rtt_ms=options.rtt) as given:
        near = [run_on(loop, on_loopback(options.runs, options.requests, options.mib, loop)) for loop in options.loop]
        far = [run_on("asyncio", in_the_lab(options.rtt, options.requests, loop)) for loop in options.loop]
    table("on loopback, beside httpx's own transport", near)
    table("in the lab, beside a connection for each request and plain TCP", far)
    save(
        options.json,
        "http",
        given,
        [{"where": "loopback", **row} for row in near] + [{"where": "lab", **row} for row in far],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
