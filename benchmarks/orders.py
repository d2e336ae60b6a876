"""Gives orders to a program that runs on a lab host and answers them: a JSON object per line, both ways.

Order and answer have the same "id"; answers may come in any order. `benchmarks.agent` and the rivals of
`benchmarks.peers` obey.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from asyncio.subprocess import Process
from collections.abc import Mapping
from typing import Any

from simopen import lab

Order = dict[str, Any]


class Agent:
    """One obeying program on one lab host."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Order]] = {}
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, host: lab.Host, command: list[str], *, env: Mapping[str, str] | None = None, stderr: int | None = None
    ) -> Agent:
        """Start it on this host, and wait until it has loaded what it needs."""
        agent = cls(await host.start(command, stderr=stderr, env=env))
        await agent.ask({"method": "ready"})
        return agent

    async def ask(self, order: Order) -> Order:
        """Have one order obeyed. Raises: RuntimeError where the program has ended."""
        number = next(self._numbers)
        answer: asyncio.Future[Order] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        if self._reader.done():
            raise RuntimeError("the program that should obey has ended")
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**order, "id": number}).encode() + b"\n")
        return await answer

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            self._waiting.pop(answer["id"]).set_result(answer)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(RuntimeError("the program that should obey has ended"))

    async def close(self) -> None:
        """Let it end, and see it off."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reader
