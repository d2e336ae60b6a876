"""A hundred HTTP requests to a peer behind another NAT, over one punched connection that is kept alive.

    one$    python keep_alive.py serve 203.0.113.7 1314 22:14:30
    other$  python keep_alive.py ask 198.51.100.9 1314 22:14:30

Each names the other's public address, the port that both fire from, and one instant, in UTC. `--no-ntp` at the end
trusts this machine's clock as it is; otherwise time servers are asked how far it is off. It needs h11, httpcore2 and
httpx2: the extra `http`.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Iterable

import h11
import httpcore2
import httpx2

import simopen

REQUESTS = 100
HTTP_ERRORS = (
    *(h11.ProtocolError, httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError),
    *(httpx2.HTTPError, httpx2.InvalidURL),
)


class PunchedStream(httpcore2.AsyncNetworkStream):
    """What httpcore reads and writes: asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                return await self.reader.read(max_bytes)
        except TimeoutError:
            raise httpcore2.ReadTimeout("the peer did not answer in time") from None
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            async with asyncio.timeout(timeout):
                self.writer.write(buffer)
                await self.writer.drain()
        except TimeoutError:
            raise httpcore2.WriteTimeout("the peer took nothing in time") from None
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    async def aclose(self) -> None:
        self.writer.close()

    def get_extra_info(self, info: str) -> object:
        if info == "is_readable":  # asked of an idle connection, which is given up where the peer has ended it
            return self.reader.at_eof()
        return self.writer.get_extra_info(info)


class Punching(httpcore2.AsyncNetworkBackend):
    """Punches where httpcore asks for a connection, and counts how often that was."""

    def __init__(self, at: simopen.Instant, clock: simopen.Estimate | None) -> None:
        self.at, self.clock, self.connections = at, clock, 0

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # not heeded: a punch has a window of its own, and waits for its instant before
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        self.connections += 1
        return PunchedStream(*await simopen.connect((host, port), at=self.at, clock=self.clock))


class Transport(httpx2.AsyncBaseTransport):
    """What httpx sends requests through: httpcore's pool, of one connection that does not expire."""

    def __init__(self, backend: httpcore2.AsyncNetworkBackend) -> None:
        self.pool = httpcore2.AsyncConnectionPool(max_connections=1, network_backend=backend)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url, headers, content = request.url, request.headers.raw, await request.aread()
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        answer = await self.pool.request(
            request.method, target, headers=headers, content=content, extensions=request.extensions
        )
        return httpx2.Response(answer.status, headers=answer.headers, content=answer.content)

    async def aclose(self) -> None:
        await self.pool.aclose()


async def ask(peer: tuple[str, int], at: simopen.Instant, clock: simopen.Estimate | None) -> None:
    backend, took_s = Punching(at, clock), []
    url = httpx2.URL(scheme="http", host=peer[0], port=peer[1])
    async with httpx2.AsyncClient(transport=Transport(backend), base_url=url) as client:
        for number in range(REQUESTS):
            begun_s = time.perf_counter()
            (await client.get(f"/{number}")).raise_for_status()
            took_s.append(time.perf_counter() - begun_s)

    # The first request waited for the instant; the others took a round trip each, as opening a connection does.
    round_trip_s = statistics.median(took_s[1:])
    more_s = (REQUESTS - backend.connections) * round_trip_s
    median = f"a round trip: {round_trip_s * 1e3:.1f} ms (median)"
    print(f"requests: {REQUESTS}, connections: {backend.connections}, {median}")
    print(
        f"{REQUESTS} connections would have cost {more_s:.2f} s more, at one round trip each (computed, not measured),"
    )
    print("and each an instant of its own that both sides agree on first")


async def serve(peer: tuple[str, int], at: simopen.Instant, clock: simopen.Estimate | None) -> None:
    reader, writer = await simopen.connect(peer, at=at, clock=clock)
    http, served = h11.Connection(h11.SERVER), 0
    method = target = ""
    while not isinstance(event := http.next_event(), h11.ConnectionClosed):
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(2**16))
        elif isinstance(event, h11.Request):
            method, target = event.method.decode(), event.target.decode()
        elif isinstance(event, h11.EndOfMessage):
            body = f"answer to {method} {target}\n".encode()
            head = h11.Response(status_code=200, headers=[("Content-Length", str(len(body)))])
            writer.writelines(http.send(each) or b"" for each in (head, h11.Data(data=body), h11.EndOfMessage()))
            await writer.drain()
            served += 1
            if http.our_state is not h11.DONE:  # the peer wanted no more than this
                break
            http.start_next_cycle()
    writer.close()
    print(f"requests: {served}, connections: 1")


async def main(what: str, host: str, port: str, instant: str, *flags: str) -> None:
    at = simopen.read_instant(instant)
    clock = simopen.unchecked_clock() if "--no-ntp" in flags else None
    await WHAT[what]((host, int(port)), at, clock)


WHAT = {"serve": serve, "ask": ask}

if __name__ == "__main__":
    if len(sys.argv) < 5 or sys.argv[1] not in WHAT:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (simopen.SimopenError, ValueError, OSError, *HTTP_ERRORS) as error:
        sys.exit(str(error))
