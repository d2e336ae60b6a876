"""A WebSocket to the host that was named, and to no other; and by which proxy."""

from __future__ import annotations

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidProxy
from websockets.proxy import get_proxy, parse_proxy
from websockets.uri import parse_uri


def through(url: str) -> str:
    """Words on the proxy that the environment names for this URL, without its password; nothing where it names none."""
    if (named := get_proxy(parse_uri(url))) is None:
        return ""
    try:
        proxy = parse_proxy(named)
    except InvalidProxy:
        return " through a proxy, which the environment names and which is none"
    return f" through the proxy {proxy.scheme}://{proxy.host}:{proxy.port}, which the environment names"


class OpenWebSocket(connect):
    """As `websockets`' own `connect`, which would go wherever the server's redirect says: to a host of this one's own
    network, say, or on in the clear."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """As its: the error, in any case."""
        return exc
