"""A rendezvous server's numbers, for Prometheus to fetch: on a port of their own, which is loopback's by default.

Theory of operation: the server counts in plain numbers all the time; they take their form when somebody asks. Only then
is `prometheus-client` needed (the extra `serve`).
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from simopen.errors import SimopenError
from simopen.model.endpoint import Endpoint, normalise
from simopen.net.streams import require_open
from simopen.signalling.server_door import listeners

REQUEST_S = 5.0
_MOST_BYTES = 8192
_AT_ONCE = 16
_NEEDED = "numbers for Prometheus need a package that is not installed: pip install prometheus-client"


class Number(NamedTuple):
    """One value. `total`: it only grows; `by`: what its parts are told apart by, and then `value` has them."""

    name: str
    says: str
    value: float | Mapping[str, float]
    total: bool = False
    by: str = ""


class Source(Protocol):
    """Who knows them."""

    def numbers(self) -> Iterable[Number]:
        """All of them, as they are now."""


class Metrics:
    """Answers `GET /metrics`. Enter `open`, and `close` it."""

    def __init__(self, source: Source, at: tuple[str, int]) -> None:
        """Raises: SimopenError without prometheus-client."""
        if importlib.util.find_spec("prometheus_client") is None:
            raise SimopenError(_NEEDED)
        self._source = source
        self._at = at
        self._server: asyncio.Server | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self.address: Endpoint | None = None

    async def open(self) -> None:
        """Listen. Raises: LocalEndpointError."""
        [sock] = listeners([self._at[0]], self._at[1])
        self.address = normalise(sock.getsockname())
        self._server = await asyncio.start_server(self._come, sock=sock, limit=_MOST_BYTES)

    async def close(self) -> None:
        """End it, and whoever asks now."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._asking):
            task.cancel()
        if self._asking:
            await asyncio.wait(self._asking)

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._asking.add(task)
        try:
            if len(self._asking) <= _AT_ONCE:
                await self._answer(reader, writer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # nobody is left to be told
        finally:
            self._asking.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(REQUEST_S):
            asked = await reader.readuntil(b"\r\n\r\n")
            found = asked.startswith(b"GET /metrics ")
            status, body = ("200 OK", exposition(self._source)) if found else ("404 Not Found", b"see /metrics\n")
            kind = "text/plain; version=0.0.4; charset=utf-8"
            head = (
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            require_open(writer)
            writer.write(head.encode() + body)
            await writer.drain()


def exposition(source: Source) -> bytes:
    """All numbers in Prometheus' text format."""
    import prometheus_client as client

    registry = client.CollectorRegistry(auto_describe=False)
    registry.register(_Collector(source))
    return client.generate_latest(registry)


class _Collector:
    def __init__(self, source: Source) -> None:
        self._source = source

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for each in self._source.numbers():
            kind = CounterMetricFamily if each.total else GaugeMetricFamily
            family = kind(f"simopen_{each.name}", each.says, labels=[each.by] if each.by else None)
            values = each.value if isinstance(each.value, Mapping) else {"": each.value}
            for label, value in values.items():
                family.add_metric([label] if each.by else [], value)
            yield family
