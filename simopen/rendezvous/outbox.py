"""What one side says in a room: whoever is cancelled meanwhile, it is said.

Theory of operation: a side's messages are numbered as they are sealed, and the peer reads them in that order. If one
that has its number were never sent, the peer could read none of those that follow, the last words among them. So each
has a task of its own, which only the end of the meeting cancels.
"""

from __future__ import annotations

import asyncio

from simopen.rendezvous.exchange import Send
from simopen.signalling.base import Signaller


class Outbox:
    """Of one side. Say in the order of sealing; `close` at the end."""

    def __init__(self, signaller: Signaller) -> None:
        self._signaller = signaller
        self._saying: set[asyncio.Task[None]] = set()

    async def say(self, said: Send) -> None:
        """Give it to the rendezvous. Raises: as `Signaller.send`."""
        await asyncio.shield(self.post(said))

    def post(self, said: Send) -> asyncio.Task[None]:
        """Have it given to the rendezvous: whoever does not wait for that is not told what comes of it."""
        saying = asyncio.ensure_future(self._signaller.send(said.phase, said.body))
        self._saying.add(saying)
        saying.add_done_callback(self._said)
        return saying

    def _said(self, saying: asyncio.Task[None]) -> None:
        self._saying.discard(saying)
        if not saying.cancelled():
            saying.exception()  # whoever waited has met it

    async def emptied(self) -> None:
        """Wait until all is said, or cannot be."""
        if self._saying:
            await asyncio.wait(self._saying)

    def close(self) -> None:
        """What is not said by now never will be."""
        for saying in self._saying:
            saying.cancel()
