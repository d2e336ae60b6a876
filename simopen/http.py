"""HTTP over punched streams: `Transport` for httpx's clients, `serve` for their peers. The extra `http`."""

from __future__ import annotations

from simopen.apps.http.client import MOST_DRAINED, Meet, Transport
from simopen.apps.http.server import serve

__all__ = ["MOST_DRAINED", "Meet", "Transport", "serve"]
