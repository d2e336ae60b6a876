"""When a peer's SYN came before the instant, as far as looks from time to time tell.

Theory of operation: while a side waits, each of its local ports sees early SYNs and lets nobody in (`early_syn.py`). It
is looked at some times a second, and once more before the port is listened on; what came, came between two looks.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from simopen.holepunch.listener import Listener
from simopen.model.endpoint import Endpoint
from simopen.model.times import MonoNs


class Lookout:
    """`early_ns`: when a SYN of a peer's came, to `doubt_ns` more or less; None where none was seen."""

    __slots__ = ("_looked_ns", "doubt_ns", "early_ns")

    def __init__(self) -> None:
        self.early_ns: MonoNs | None = None
        self.doubt_ns = 0
        self._looked_ns = time.monotonic_ns()

    def look(self, listeners: Iterable[Listener], peers: Collection[Endpoint]) -> bool:
        """Look at each port; returns whether there is any sense in looking again."""
        looking = False
        for listener in listeners:
            addresses = dict.fromkeys(peer.address for peer in peers if peer.family == listener.family)
            if listener.look_out(addresses):
                self._look_at(listener)
                looking = True
        self._looked_ns = time.monotonic_ns()
        return looking

    def stop(self, listeners: Iterable[Listener]) -> None:
        """A last look."""
        for listener in listeners:
            self._look_at(listener)
            listener.stop_looking()

    def _look_at(self, listener: Listener) -> None:
        if not listener.saw_early():
            return
        if self.early_ns is None:  # it came between two looks
            now_ns = time.monotonic_ns()
            self.early_ns, self.doubt_ns = MonoNs((self._looked_ns + now_ns) // 2), (now_ns - self._looked_ns) // 2
        listener.stop_looking()
