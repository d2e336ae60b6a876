"""An ASGI application that ends no connection: what it fails at is an answer, 500, as a named server's would be.

Theory of operation: uvicorn ends the connection after an answer of its own to what an application raised, or did not
answer at all; after a start of an answer that h11 refuses, or a body where none may be; and where an application asks
for that, by `Connection: close`. Over a punched stream that is too dear. Half an answer cannot be told otherwise: then
it ends, and not as if that were the answer's end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import h11

Application: TypeAlias = Callable[..., Coroutine[Any, Any, None]]
Address: TypeAlias = tuple[str, int]

_FAILED = b"Internal Server Error"
_WITHOUT_BODY = {204, 304}  # RFC 9112 §6.3
_STATUSES = range(200, 600)  # uvicorn has words for these, and fails at others
logger = logging.getLogger(__name__)


class Lived:
    """The application, whose lifespan can be ended."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._lifespan: asyncio.Task[Any] | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """As ASGI's."""
        if scope["type"] == "lifespan":
            self._lifespan = asyncio.current_task()
        await self._application(scope, receive, send)

    def end(self) -> None:
        """Cancel its lifespan: whether that was at its start or at its end, uvicorn goes on."""
        if self._lifespan is not None and not self._lifespan.done():
            logger.warning("the application's lifespan does not end, and is cancelled")
            self._lifespan.cancel()


class Kept:
    """The application over one connection, which does not end by it. `client`, `server`: the two ends of the stream."""

    def __init__(self, application: Application, client: Address | None, server: Address | None) -> None:
        self._application = application
        self._ends = {"client": client, "server": server}
        self._answer: _Answer | None = None
        self._broke_off: bool | None = None

    @property
    def is_in_an_answer(self) -> bool:
        """Whether the peer has half an answer: where the connection ends now, or has ended, that has broken off."""
        if self._broke_off is not None:
            return self._broke_off
        return self._answer is not None and self._answer.is_half

    def lost(self) -> None:
        """The connection has ended: uvicorn drops what the application says from now on."""
        self._broke_off = self.is_in_an_answer

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """As ASGI's."""
        scope.update(self._ends)
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        self._answer = _Answer(scope["method"], send)
        await self._keep(scope, receive, self._answer)

    async def _keep(self, scope: dict[str, Any], receive: Any, answer: _Answer) -> None:
        try:
            await self._application(scope, receive, answer.take)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            if answer.is_half:
                raise
            logger.exception("the application failed at %s %s", scope["method"], scope["path"])
        else:
            if not answer.begun:
                logger.error("the application did not answer %s %s", scope["method"], scope["path"])
        await answer.complete()


class _Answer:
    """What an application says to one request, on its way to uvicorn."""

    def __init__(self, method: str, send: Any) -> None:
        self.begun = False
        self._send = send
        self._has_no_body = method == "HEAD"
        self._whole = False

    @property
    def is_half(self) -> bool:
        """Whether the peer has a part of it, and cannot do without the rest."""
        return self.begun and not (self._whole or self._has_no_body)

    async def take(self, message: dict[str, Any]) -> None:
        """As ASGI's `send`. Raises: what is wrong with the message."""
        if message["type"] == "http.response.start" and not self.begun:
            message = _judged(message)
            self._has_no_body = self._has_no_body or message["status"] in _WITHOUT_BODY
            self.begun = True
        elif message["type"] == "http.response.body" and self._has_no_body:
            message = {**message, "body": b""}
        await self._send(message)
        self._whole = self._whole or (message["type"] == "http.response.body" and not message.get("more_body", False))

    async def complete(self) -> None:
        """Say what is left to be said, where that can be told."""
        if not self.begun:
            headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(_FAILED))]
            await self._send({"type": "http.response.start", "status": 500, "headers": headers})
            await self._send({"type": "http.response.body", "body": _FAILED})
        elif self._has_no_body and not self._whole:
            await self._send({"type": "http.response.body"})


def _judged(message: dict[str, Any]) -> dict[str, Any]:
    """A start of an answer, without `Connection`. Raises: what uvicorn would, once it takes the answer for begun."""
    headers = [each for each in message.get("headers", ()) if bytes(each[0]).lower() != b"connection"]
    if message["status"] not in _STATUSES:
        raise ValueError(f"{message['status']} is no status of an answer")
    h11.Response(status_code=message["status"], headers=headers)
    return {**message, "headers": headers}


def _is_cancelled() -> bool:
    """Whether this very task is to end, and not only what it has waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
