"""An ASGI application that ends no connection: what it fails at is an answer, 500, as a named server's would be.

Theory of operation: uvicorn ends the connection after an answer of its own to what an application raised, or did not
answer at all; and where an application asks for that, by `Connection: close`. Over a punched stream that is too dear.
Half an answer cannot be told otherwise: then it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

Application: TypeAlias = Callable[..., Coroutine[Any, Any, None]]

_FAILED = b"Internal Server Error"
logger = logging.getLogger(__name__)


def keeping(application: Application) -> Application:
    """The same, but that no connection ends by it."""

    async def kept(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await _answer(application, scope, receive, send)
        else:
            await application(scope, receive, send)

    return kept


async def _answer(application: Application, scope: dict[str, Any], receive: Any, send: Any) -> None:
    begun = whole = False

    async def sending(message: dict[str, Any]) -> None:
        nonlocal begun, whole
        if message["type"] == "http.response.start":
            headers = [each for each in message.get("headers", ()) if bytes(each[0]).lower() != b"connection"]
            message = {**message, "headers": headers}
            begun = True
        await send(message)
        whole = whole or (message["type"] == "http.response.body" and not message.get("more_body", False))

    try:
        await application(scope, receive, sending)
    except (Exception, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            raise
        if begun and not whole:
            raise
        logger.exception("the application failed at %s %s", scope["method"], scope["path"])
    else:
        if not begun:
            logger.error("the application did not answer %s %s", scope["method"], scope["path"])
    if not begun:
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(_FAILED))]
        await send({"type": "http.response.start", "status": 500, "headers": headers})
        await send({"type": "http.response.body", "body": _FAILED})


def _is_cancelled() -> bool:
    """Whether this very task is to end, and not only what it has waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
