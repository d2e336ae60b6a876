"""A connection to NATS, as long as any node can be reached: what nats-py does, and what it needs care for.

Theory of operation. It knows subjects and bytes, and nothing of rooms. Where it is lost for good, or NATS forbids what
is needed, that is a failure: it is told to who opened it, and raised by whatever is asked of it afterwards. nats-py
swallows a cancellation here and there, so all is asked in tasks of their own.

Needs the extra `nats`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeAlias, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import ProtocolError
from nats.protocol.parser import CRLF_SIZE, Parser

from simopen import _logs
from simopen.errors import RendezvousUnreachable, SignallingError
from simopen.model.wording import human, quoted

logger = _logs.logger("signalling.nats")
T = TypeVar("T")
Heed: TypeAlias = Callable[[Msg], Awaitable[None]]

_MOST_BYTES = 2**20
"""Of one message, which is NATS' own limit where nobody has set another; a meeting's have a thousand."""
LEAST_BYTES = 2_048
"""What a node must let through: a meeting's message, with what names it."""
OPEN_S, AGAIN_S = 10.0, 30.0
"""For the first connection; to be connected anew after a node's death."""
_CANCELLED_S = 2.0
_NOBODY_LISTENS = "503"


class NatsConnection:
    """`where`: how errors name it. `needs`: the subjects, for who forbids them.

    `failed` and `returned` are called when it fails, and whenever it is there again. `client` is nats-py's.
    """

    def __init__(self, where: str, needs: str, failed: Callable[[], None], returned: Callable[[], None]) -> None:
        self.client = _Client()
        self.client._ps = _BoundedParser(self.client, self._flooded)
        self.failure: SignallingError | None = None
        self._where, self._needs = where, needs
        self._failed, self._returned = failed, returned
        self._ended: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._online = asyncio.Event()
        self._inbox = f"_INBOX.{secrets.token_hex(8)}"
        self._tokens = itertools.count()
        self._answers: dict[str, asyncio.Future[bytes | None]] = {}
        self._said: str | None = None
        self._is_alone = False

    async def open(
        self, servers: Sequence[str], *, tls: ssl.SSLContext | None, credentials: str | None, proxied: bool
    ) -> None:
        """Connect to one of them. Raises: RendezvousUnreachable."""
        if servers[0].startswith("ws"):
            from simopen.signalling.nats_websocket import WebSocket

            self.client._transport = WebSocket(proxied=proxied)  # the client would take aiohttp's
        options: dict[str, Any] = {} if tls is None else {"tls": tls}
        if credentials is not None:
            options["user_credentials"] = credentials
        self._is_alone = len(servers) == 1  # else another may do
        connecting = asyncio.create_task(
            self.client.connect(
                list(servers),
                error_cb=self._heed,
                closed_cb=self._lost,
                disconnected_cb=self._cut_off,
                reconnected_cb=self._found_again,
                connect_timeout=3,
                reconnect_time_wait=0,
                max_reconnect_attempts=3,
                ping_interval=10,
                no_echo=True,
                **options,
            )
        )
        try:
            await _apart(self._first_of(connecting))
        except SignallingError:
            raise
        except (NatsError, OSError, ValueError, EOFError) as error:
            silent = f"no answer within {human(OPEN_S)}"
            why = self._said or (silent if type(error) is TimeoutError else _why(error))
            if "authorization" in why.lower():
                raise RendezvousUnreachable(
                    f"{self._where}: it does not let this user in ({why}): are the user and the password right?"
                ) from None
            raise RendezvousUnreachable(
                f"{self._where}: nobody can be reached: {why}. Is this host online, and is the URL right?"
            ) from None
        if self.client.max_payload < LEAST_BYTES:
            raise RendezvousUnreachable(
                f"{self._where}: it takes messages of {self.client.max_payload} bytes (max_payload), and some of a "
                f"meeting's have more: {LEAST_BYTES} are enough"
            )
        await _apart(self.client.subscribe(f"{self._inbox}.*", cb=self._answered))
        self._is_alone = False  # it was there once, and may be again
        self._online.set()
        self.client.options["max_reconnect_attempts"] = 60  # of a node that was there once
        self.client.options["reconnect_time_wait"] = 0.5

    async def _first_of(self, connecting: asyncio.Task[None]) -> None:
        """Until it is connected, or has failed for good, where nats-py would go on. Raises: as that; TimeoutError."""
        try:
            async with asyncio.timeout(OPEN_S):
                either: set[asyncio.Future[Any]] = {connecting, self._ended}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            self.check()
            connecting.result()
        finally:
            connecting.cancel()
            await asyncio.wait({connecting}, timeout=_CANCELLED_S)
            connecting.cancelled() or (connecting.done() and connecting.exception())  # met above, or of no interest

    @property
    def has_nodes(self) -> bool:
        """Whether there are several, as far as is known."""
        return len(self.client.servers) > 1

    def check(self) -> None:
        """Raises: SignallingError where it has failed."""
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args)

    def fail(self, error: SignallingError) -> None:
        """Nothing can be asked of it any more. The first time counts."""
        self.failure = self.failure or error
        if not self._ended.done():
            self._ended.set_result(None)
        self._online.set()
        self._failed()

    async def request(self, subject: str, data: bytes, limits_s: Sequence[float]) -> bytes | None:
        """The first answer; None: nobody listens. `limits_s`: how long to wait, each time it is asked.

        Unlike with nats-py's own, an answer counts, too, that comes when it has been asked for again.

        Raises:
            TimeoutError: who listens has not answered.
            SignallingError: it has failed.
        """
        token = str(next(self._tokens))
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._answers[token] = answer
        try:
            for limit_s in limits_s:
                await self._connected()
                await self.publish(subject, data, reply=f"{self._inbox}.{token}")
                await asyncio.wait({answer, self._ended}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
                self.check()
                if answer.done():
                    return answer.result()
        finally:
            del self._answers[token]
        raise TimeoutError

    async def _answered(self, message: Msg) -> None:
        answer = self._answers.get(message.subject.rpartition(".")[2])
        if answer is not None and not answer.done():
            nobody = message.headers is not None and message.headers.get("Status") == _NOBODY_LISTENS
            answer.set_result(None if nobody else message.data)

    async def publish(self, subject: str, data: bytes, *, reply: str = "") -> None:
        """To whoever listens. What a connection takes with it when it is lost, is lost."""
        with contextlib.suppress(NatsError, OSError):
            await _apart(self.client.publish(subject, data, reply))

    async def subscribe(self, subject: str, heed: Heed, *, group: str = "") -> Subscription:
        """Listen, and at each node that it comes to. `group`: one of its members hears each message.

        Raises: SignallingError.
        """
        self.check()
        return await _apart(self.client.subscribe(subject, group, cb=heed))

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Listen no more."""
        with contextlib.suppress(NatsError, OSError):
            await _apart(subscription.unsubscribe())

    async def close(self) -> None:
        """Also where this is cancelled once more: the client would stop closing half-way."""
        await asyncio.wait({asyncio.create_task(self._closed())})

    async def _closed(self) -> None:
        """What is left to be sent would be written to a connection that is lost: then the client stops there, too.

        What that raises is each loop's own: OSError, uvloop's RuntimeError, since Python 3.12 asyncio's TypeError.
        """
        try:
            await self.client.close()
        except Exception:
            self.client._pending_data_size = 0
            self.client._status = Client.DISCONNECTED
            await self.client.close()
        if (task := self.client._reconnection_task) is not None and not task.done():  # it has swallowed that
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCELLED_S)

    async def _connected(self) -> None:
        try:
            async with asyncio.timeout(AGAIN_S):
                await self._online.wait()
        except TimeoutError:
            raise SignallingError(f"{self._where}: no node could be reached for {human(AGAIN_S)}: try again") from None
        self.check()

    async def _heed(self, error: Exception) -> None:
        why = _why(error)
        if self._said is None or not isinstance(error, OSError):  # what a node has said tells more than how it hangs up
            self._said = why
        logger.info("%s: %s", self._where, why)
        if isinstance(error, ssl.SSLError) and self._is_alone:
            no_tls = f"it speaks no TLS that this host does ({error.reason or why})"
            if isinstance(error, ssl.SSLCertVerificationError):
                no_tls = f"its certificate cannot be believed ({error.verify_message})"
            self.fail(RendezvousUnreachable(f"{self._where}: nobody can be reached: {no_tls}. Is the URL right?"))
        if "permissions violation" in why.lower():
            needed = f"{self._needs} are what it has to allow"
            self.fail(SignallingError(f"{self._where} does not let this user meet: it says {why}: {needed}"))

    def _flooded(self) -> None:
        self.fail(RendezvousUnreachable(f"{self._where} is no rendezvous: it sent more than a message can have"))

    async def _lost(self) -> None:
        self.fail(RendezvousUnreachable(f"{self._where}: it was lost, and could not be reached again: try again"))

    async def _cut_off(self) -> None:
        self._online.clear()

    async def _found_again(self) -> None:
        self._online.set()
        self._returned()


class _Client(Client):
    """nats-py's begins TLS where the node asks for it, in the clear: anybody on the way could leave that out."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """What a URL says is what is done: before anything is said to the node."""
        if self._current_server is not None and self._current_server.uri.scheme == "tls":
            self._server_info["tls_required"] = True
        await super()._process_info(info, initial_connection)


class _BoundedParser(Parser):
    """nats-py's would keep whatever a node announces, and a line of any length. `flooded` is called in its place."""

    def __init__(self, client: Client, flooded: Callable[[], None]) -> None:
        super().__init__(client)
        self._flooded = flooded

    async def parse(self, data: bytes = b"") -> None:
        """As its. Raises: ProtocolError for more than a message can have."""
        await super().parse(data)
        if max(self.needed, len(self.buf)) > _MOST_BYTES + CRLF_SIZE:
            self._flooded()
            raise ProtocolError("nats: more than a message can have")


async def _apart(asked: Coroutine[Any, Any, T]) -> T:
    """In a task of its own."""
    task = asyncio.create_task(asked)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # met here, or of no interest any more
    try:
        await asyncio.wait({task})
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCELLED_S)
    return task.result()


def _why(error: Exception) -> str:
    return quoted(str(error) or type(error).__name__)
