"""HTTP over punched streams: `Transport` for httpx's clients, `serve` for their peers. The extra `http`."""

from __future__ import annotations

try:
    from simopen.apps.http.client import MOST_DRAINED, Meet, Transport
    from simopen.apps.http.server import serve
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] == "simopen":
        raise
    raise ModuleNotFoundError(
        f"{error.name} is missing, for HTTP over punched streams: pip install h11 httpcore2 httpx2 uvicorn",
        name=error.name,
    ) from error

__all__ = ["MOST_DRAINED", "Meet", "Transport", "serve"]
