"""Endpoints that tell which threads looked at them: what is worked out beside the loop leaves the loop's out."""

from __future__ import annotations

import threading
from typing import Any

from simopen.model.endpoint import Endpoint


class Watched(tuple[Endpoint, ...]):
    """As any tuple of endpoints. `threads`: the names of those that asked for its length, for an item or for all."""

    threads: set[str]

    def __new__(cls, *ends: Endpoint) -> Watched:
        made = super().__new__(cls, ends)
        made.threads = set()
        return made

    def __len__(self) -> int:
        self.threads.add(threading.current_thread().name)
        return super().__len__()

    def __getitem__(self, index: Any) -> Any:
        self.threads.add(threading.current_thread().name)
        return super().__getitem__(index)
