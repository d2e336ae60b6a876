"""Clients of a mailbox server that speak its protocol word by word, for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from simopen.signalling.server_conversation import Conversation, House, Sending

APP = "example.org/test"


class Client:
    """One connection, and the messages that came, without acknowledgements."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, kind: str, **values: object) -> None:
        """One command."""
        await self.connection.send(json.dumps({"type": kind, **values}))

    async def hear(self, kind: str | None = None) -> dict[str, Any]:
        """The next message that is no acknowledgement. `kind`: what it must be."""
        while True:
            message: dict[str, Any] = json.loads(await self.connection.recv())
            if message["type"] != "ack":
                assert kind in (None, message["type"]), message
                return message

    async def ask(self, kind: str, answer: str, **values: object) -> dict[str, Any]:
        """One command, and the answer to it."""
        await self.say(kind, **values)
        return await self.hear(answer)

    async def enter(self, nameplate: str) -> str:
        """Claim and open; returns the mailbox."""
        mailbox: str = (await self.ask("claim", "claimed", nameplate=nameplate))["mailbox"]
        await self.say("open", mailbox=mailbox)
        return mailbox


async def bound(url: str, side: str, app: str = APP, **options: Any) -> Client:
    """A client that has said who it is. `options`: of `websockets`' `connect`."""
    client = Client(await connect(url, compression=None, **options))
    await client.hear("welcome")
    await client.say("bind", appid=app, side=side)
    return client


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that came until the server hung up, by whatever means."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


class Talk:
    """A conversation without a network: what is said makes go out what it returns."""

    def __init__(self, house: House, side: str | None = None, *, app: str = APP, whose: str = "192.0.2.1") -> None:
        self.conversation = Conversation(house, whose, now=0.0)
        self.now = 0.0
        if side is not None:
            self.say("bind", appid=app, side=side)

    def hear(self, data: bytes) -> list[Sending]:
        """Whatever bytes."""
        return self.conversation.hear(data, self.now, self.now + 1e9)

    def say(self, kind: str, **values: object) -> list[tuple[Conversation, dict[str, Any]]]:
        """One command; returns to whom what went out, without acknowledgements."""
        return list(_said(self.hear(json.dumps({"type": kind, **values}).encode())))

    def ask(self, kind: str, **values: object) -> dict[str, Any]:
        """One command, and the one answer to it."""
        [(to, answer)] = self.say(kind, **values)
        assert to is self.conversation
        return answer

    def enter(self, nameplate: str) -> str:
        """Claim and open; returns the mailbox."""
        mailbox: str = self.ask("claim", nameplate=nameplate)["mailbox"]
        self.say("open", mailbox=mailbox)
        return mailbox


def _said(sendings: list[Sending]) -> Iterator[tuple[Conversation, dict[str, Any]]]:
    for each in sendings:
        message = json.loads(each.data)
        if message["type"] != "ack":
            yield each.to, message
