"""A link's socket in somebody else's hands, of which whoever had the link still wants to know when it is over."""

from __future__ import annotations

import asyncio

from simopen.net.delayed_close import PunchedSocket


class HandedOver(PunchedSocket):
    """A link's socket, which somebody else has now. `closed`: done once it is closed, in the loop of the link."""

    closed: asyncio.Future[None]

    def close(self) -> None:
        """As a socket's."""
        super().close()
        if self.fileno() < 0 and not self.closed.done() and not self.closed.get_loop().is_closed():
            self.closed.set_result(None)
