"""A Signaller over a mailbox server, magic-wormhole's or ours: its connections, one after another.

Theory of operation. What is said and what it means is `mailbox_session`'s. Here is one task a session: it connects,
says what the session wants said, hands over what comes, and connects again after a loss, ever later and at random, so
that the clients of a server that comes back do not come all at once. A server that owes an answer for too long, or no
longer answers pings, is as good as gone. What it says cannot take more memory than some messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import random
import secrets
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import CloseCode

from simopen import _logs
from simopen.errors import RendezvousUnreachable, SignallingError
from simopen.model.wording import human, quoted
from simopen.signalling.base import APP_ID, BODY_MOST, Message, Mood, Welcome, visiting
from simopen.signalling.hashcash import stamps
from simopen.signalling.mailbox_session import Session, words_of
from simopen.signalling.websocket import OpenWebSocket, through

logger = _logs.logger("signalling.mailbox")

_MESSAGE_MOST = 8 * BODY_MOST
"""Bytes of one message, its body in hex: more is none of the protocol's."""
_REFUSED = {CloseCode.POLICY_VIOLATION, CloseCode.MESSAGE_TOO_BIG}
"""What a server closes a connection for, and would again."""
_MEANT = {CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG}
"""What this side closes a connection for is no accident: there is no sense in connecting again."""
_STALLED = (
    "short messages may pass here, and long ones not, as where the path's MTU is less than a VPN on it takes it to be"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait, in seconds. `gone_s`: without a connection, after the first; `delay_s`: before the second try.

    Delays grow by half each, to `delay_most_s`. `closing_s`: for the room to be left properly.
    """

    open_s: float = 10.0
    answer_s: float = 20.0
    ping_s: float = 20.0
    gone_s: float = 60.0
    delay_s: float = 0.5
    delay_most_s: float = 10.0
    closing_s: float = 2.0

    def delay(self, tries: int) -> float:
        """Seconds until the next try: half to all of what has grown."""
        return min(self.delay_most_s, self.delay_s * 1.5 ** min(tries, 20)) * random.uniform(0.5, 1.0)


PATIENCE = Patience()


def mailbox(
    url: str, where: str, *, tls: ssl.SSLContext | None = None, proxied: bool = True, patience: Patience = PATIENCE
) -> AbstractAsyncContextManager[Mailbox]:
    """A Signaller at a mailbox server, connected. Leaving leaves the room too.

    Args:
        url: ws or wss, whole.
        where: how errors name it, without a password.
        tls: None: the usual authorities.
        proxied: through the proxy that the environment names, if any.
        patience: how long to wait for what.

    Raises:
        SignallingError: nobody answers there, or what answers is no rendezvous, or turns this away.
    """
    return visiting(Mailbox(url, where, tls=tls, proxied=proxied, patience=patience))


class Mailbox:
    """Made by `mailbox`; see `base.Signaller` for what its methods do."""

    def __init__(self, url: str, where: str, *, tls: ssl.SSLContext | None, proxied: bool, patience: Patience) -> None:
        self._tls = (tls or True) if url.startswith("wss:") else None
        self._proxy: Literal[True] | None = True if proxied else None
        self._url = url
        self._patience = patience
        self._session = Session(where, APP_ID, secrets.token_hex(5))
        self._failure: SignallingError | None = None
        self._news = asyncio.Event()
        self._written = asyncio.Event()
        self._limit: asyncio.Timeout | None = None
        self._answers = -1
        self._was_of_use = False  # of this connection, whether all that was asked on it was answered at some time
        self._task: asyncio.Task[None]

    async def begin(self) -> None:
        """Connect."""
        self._task = asyncio.create_task(self._keep())
        await self._until(lambda: self._session.welcomes > 0)

    @property
    def welcome(self) -> Welcome:
        """What the server has said of itself."""
        return self._session.welcome

    async def allocate(self) -> str:
        """A free room's number."""
        self._check()
        self._session.allocate()
        self._tell()
        await self._until(lambda: self._session.room is not None)
        assert self._session.room is not None
        return self._session.room

    async def enter(self, room: str) -> None:
        """Go into the room."""
        self._check()
        self._session.enter(room)
        self._tell()
        await self._until(lambda: self._session.is_open)

    async def send(self, phase: str, body: bytes) -> None:
        """Give a message to the server."""
        self._check()
        self._session.send(phase, body)
        self._tell()

    async def receive(self) -> Message:
        """The peer's next message."""
        await self._until(lambda: bool(self._session.inbox))
        return self._session.inbox.popleft()

    async def close(self, mood: Mood) -> None:
        """Leave the room, as long as the server answers in time."""
        if self._task.done() or self._session.is_closed:
            return
        self._session.close(mood)
        self._tell()
        try:
            with contextlib.suppress(TimeoutError, SignallingError):
                async with asyncio.timeout(self._patience.closing_s):
                    await self._until(lambda: self._session.is_closed)
        finally:
            await self.end()

    async def end(self) -> None:
        """Let go of the connection."""
        self._task.cancel()
        await asyncio.wait({self._task})

    def _check(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args) from self._failure.__cause__
        if self._task.done():
            if not self._task.cancelled() and (fault := self._task.exception()) is not None:
                raise fault
            raise SignallingError("this meeting has left its room: connect again for another")

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._check()
            await self._news.wait()

    def _told(self) -> None:
        """Wake all who wait for something to have come."""
        self._news.set()
        self._news = asyncio.Event()

    def _tell(self) -> None:
        """Wake the writer."""
        self._written.set()

    async def _keep(self) -> None:
        try:
            await self._connections()
        except SignallingError as error:
            self._failure = error
        finally:
            asyncio.get_running_loop().call_soon(self._told)  # by then, this task is done

    async def _connections(self) -> None:
        loop, patience, session = asyncio.get_running_loop(), self._patience, self._session
        lost_s, tries = loop.time(), 0
        while not session.is_closed:
            began_s = loop.time()
            self._was_of_use = False
            why = await self._one_connection()
            now = loop.time()
            if self._was_of_use:
                lost_s = now
            tries = 0 if self._was_of_use and now - began_s >= patience.delay_most_s else tries + 1
            delay_s = patience.delay(tries - 1) if tries else 0.0
            if not session.welcomes or now + delay_s - lost_s > patience.gone_s:
                raise RendezvousUnreachable(_gone(session, why, through(self._url) if self._proxy else ""))
            logger.info("%s: %s; connecting again in %s", session.where, why, human(delay_s))
            await asyncio.sleep(delay_s)

    async def _one_connection(self) -> str:
        """Talk for as long as there is a connection; returns why there is none any more."""
        try:
            connection = await self._opened()
        except InvalidStatus as error:
            status = error.response.status_code
            return f"HTTP status {status} came instead of a WebSocket: does the URL lack a path, as in /v1?"
        except TimeoutError:
            return f"no answer within {human(self._patience.open_s)}"
        except AssertionError:  # of websockets' own, now and then, where the other one speaks first
            return "something else came instead of a WebSocket"
        except (OSError, EOFError, WebSocketException, ImportError, ValueError) as error:
            return _why(error)
        writer = asyncio.create_task(self._write(connection))
        try:
            self._session.connected()
            return await self._read(connection)
        finally:
            writer.cancel()
            connection.transport.abort()
            await asyncio.wait({writer})

    async def _opened(self) -> ClientConnection:
        patience = self._patience
        async with asyncio.timeout(patience.open_s):
            return await OpenWebSocket(
                self._url,
                compression=None,
                open_timeout=None,
                ping_interval=patience.ping_s,
                ping_timeout=patience.ping_s,
                max_size=_MESSAGE_MOST,
                proxy=self._proxy,
                logger=_QUIET,
                ssl=self._tls,
            )

    async def _read(self, connection: ClientConnection) -> str:
        answer_s = self._patience.answer_s
        try:
            async with asyncio.timeout(answer_s) as self._limit:
                while not self._session.is_closed:
                    await self._hear(await connection.recv())
        except TimeoutError:
            return f"no answer within {human(answer_s)}, though something was asked ({_STALLED})"
        except ConnectionClosed as closed:
            return self._closed(closed)
        finally:
            self._limit = None
        return "the room was left"

    async def _hear(self, data: str | bytes) -> None:
        session = self._session
        session.hear(data)
        if session.challenge is not None:
            session.permit(await self._stamp())
        self._was_of_use = self._was_of_use or session.owes_nothing
        self._wait_for_answer()
        self._told()
        self._tell()

    async def _stamp(self) -> str:
        assert self._session.challenge is not None
        self._wait_for_answer()
        date = datetime.datetime.now(datetime.UTC).strftime("%y%m%d")
        for stamp in stamps(self._session.challenge, date, secrets.token_urlsafe(12)):
            if stamp is not None:
                return stamp
            await asyncio.sleep(0)
        raise AssertionError("there is a stamp for each challenge")

    def _wait_for_answer(self) -> None:
        """Give the server its time anew with each answer that it gives, and no limit while it owes none."""
        if self._limit is None or self._limit.expired():
            return
        if not self._session.expects:
            self._limit.reschedule(None)
        elif self._limit.when() is None or self._answers != self._session.answers:
            self._limit.reschedule(asyncio.get_running_loop().time() + self._patience.answer_s)
        self._answers = self._session.answers

    def _closed(self, closed: ConnectionClosed) -> str:
        sent, received = closed.sent, closed.rcvd
        where, words = self._session.where, self._session.last_words
        if sent is not None and sent.code in _MEANT and not closed.rcvd_then_sent:
            what = "more than a message can have" if sent.code == CloseCode.MESSAGE_TOO_BIG else "garbage"
            raise RendezvousUnreachable(f"{where} is no rendezvous: it sent {what}. Is the URL right?")
        if received is not None and received.code in _REFUSED:
            raise SignallingError(f"{where} ended the connection: it says {words or words_of(received.reason)}")
        return f"the connection was lost{'' if words is None else f' after it said {words}'}"

    async def _write(self, connection: ClientConnection) -> None:
        to_say = self._session.to_say
        with contextlib.suppress(ConnectionClosed):  # the reader sees it, too
            while True:
                while to_say:
                    await connection.send(to_say.popleft())
                self._wait_for_answer()
                self._written.clear()
                if not to_say:
                    await self._written.wait()


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be believed ({error.verify_message})"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:  # below: of the resolver
        return os.strerror(error.errno)
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return quoted(text) if text else type(error).__name__


def _gone(session: Session, why: str, through: str) -> str:
    said = "nobody can be reached" if not session.welcomes else "it was lost, and could not be reached again"
    return f"{session.where}{through}: {said}: {why}. Is this host online, and is the URL right?"


_QUIET = _logs.logger("signalling.websocket")
