"""A hundred HTTP requests to a peer behind another NAT, over one punched connection that is kept alive.

    one$    python keep_alive.py serve 203.0.113.7 1314 22:14:30
    other$  python keep_alive.py ask 198.51.100.9 1314 22:14:30

Each names the other's public address, the port that both fire from, and one instant, in UTC. `--no-ntp` at the end
trusts this machine's clock as it is; otherwise time servers are asked how far it is off. It needs the extra `http`.
"""

import asyncio
import statistics
import sys
import time
from functools import partial
from typing import Any

import simopen

try:
    import httpx2

    import simopen.http
except ImportError as missing:
    sys.exit(f"{missing}; this example needs what HTTP takes: pip install '.[http]'")

REQUESTS = 100


async def ask(meet: simopen.http.Meet) -> None:
    transport, took_s = simopen.http.Transport(meet), []
    async with httpx2.AsyncClient(transport=transport, base_url="http://peer") as client:
        for number in range(REQUESTS):
            begun_s = time.perf_counter()
            (await client.get(f"/{number}")).raise_for_status()
            took_s.append(time.perf_counter() - begun_s)
    assert transport.connections == 1

    # The first request waited for the instant; the others took a round trip each, as opening a connection does.
    round_trip_s = statistics.median(took_s[1:])
    more_s = (REQUESTS - transport.connections) * round_trip_s
    median = f"a round trip: {round_trip_s * 1e3:.1f} ms (median)"
    print(f"requests: {REQUESTS}, connections: {transport.connections}, {median}")
    print(
        f"{REQUESTS} connections would have cost {more_s:.2f} s more, at one round trip each (computed, not measured),"
    )
    print("and each an instant of its own that both sides agree on first")


class Application:
    """An ASGI application, as any framework makes them. It counts its requests."""

    served = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":  # no lifespan, no WebSocket
            raise NotImplementedError
        self.served += 1
        body = f"answer to {scope['method']} {scope['path']}\n".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


async def serve(meet: simopen.http.Meet) -> None:
    application = Application()
    await simopen.http.serve(application, await meet())
    print(f"requests: {application.served}, connections: 1")


async def main(what: str, host: str, port: str, instant: str, *flags: str) -> None:
    at = simopen.read_instant(instant)
    clock = simopen.unchecked_clock() if "--no-ntp" in flags else None
    await WHAT[what](partial(simopen.connect, (host, int(port)), at=at, clock=clock))


WHAT = {"serve": serve, "ask": ask}

if __name__ == "__main__":
    if len(sys.argv) < 5 or sys.argv[1] not in WHAT:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (simopen.SimopenError, ValueError, OSError, httpx2.HTTPError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
