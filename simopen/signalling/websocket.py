"""A WebSocket to the host that was named, and to no other."""

from __future__ import annotations

from websockets.asyncio.client import connect


class OpenWebSocket(connect):
    """As `websockets`' own `connect`, which would go wherever the server's redirect says: to a host of this one's own
    network, say, or on in the clear."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """As its: the error, in any case."""
        return exc
