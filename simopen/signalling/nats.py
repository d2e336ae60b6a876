"""A Signaller over NATS with JetStream: no server of ours, and as many nodes as it takes.

Theory of operation. One key-value bucket holds all rooms. A room has two places, and whoever creates a place's key has
it: that is what makes two of three. A message is a key, too, so who comes late finds all that was said. Who leaves
marks his place; once nobody is in, the room is purged. What a side that vanished leaves goes after `ROOM_S`.

The server says when it has stored something, so what was not confirmed is stored again, through another node where
this one died: to store the same twice is to store it once. Reads come from the bucket's leader, never from a copy that
may be late.

Needs the extra `nats`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import (
    APIError,
    BucketNotFoundError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    ServiceUnavailableError,
)
from nats.js.errors import Error as JetStreamError
from nats.js.kv import KeyValue

from simopen import _logs
from simopen.errors import RendezvousUnreachable, RoomCrowded, SignallingError
from simopen.model.wording import human, quoted
from simopen.signalling.base import BODY_MOST, Message, Mood, Welcome, check_body, check_room

logger = _logs.logger("signalling.nats")
T = TypeVar("T")

BUCKET = "simopen_meet"
ROOM_S = 3_600.0
"""How long what is said in a room is kept."""
HEARD_MOST = 1_000
OPEN_S, STORE_S, CLOSING_S = 10.0, 30.0, 2.0
"""For the first connection; for storing one thing, a node's death included; for leaving the room."""
LOOK_S = 5.0
"""How often to look for what was not heard live."""
_ANSWER_S, _AGAIN_S = 2.0, 0.2
_PLACES = ("0", "1")
_LEFT = b"left"
_TRIES = 200


@contextlib.asynccontextmanager
async def nats_rooms(
    servers: Sequence[str], where: str, *, tls: ssl.SSLContext | None = None, credentials: str | None = None
) -> AsyncIterator[NatsRooms]:
    """A Signaller at NATS, connected. Leaving leaves the room too.

    Args:
        servers: a URL each, with the login.
        where: how errors name them all, without a password.
        tls: None: the usual authorities.
        credentials: a file of NATS credentials.

    Raises:
        SignallingError: no node answers, or lets this in, or has JetStream.
    """
    signaller = NatsRooms(where)
    try:
        await signaller._open(servers, tls, credentials)
        try:
            yield signaller
        except BaseException:
            await signaller.close(Mood.ERRORED)
            raise
        await signaller.close(Mood.LONELY)
    finally:
        await signaller._end()


class NatsRooms:
    """Made by `nats_rooms`; see `base.Signaller` for what its methods do."""

    def __init__(self, where: str) -> None:
        self.welcome = Welcome()
        self._where = where
        self._side = secrets.token_hex(5)
        self._client = Client()
        self._stream: JetStreamContext | None = None
        self._bucket: KeyValue | None = None
        self._room: str | None = None
        self._place: str | None = None
        self._is_in = False
        self._early: dict[str, bytes] = {}
        self._said: set[str] = set()
        self._heard: set[str] = set()
        self._inbox: deque[Message] = deque()
        self._news = asyncio.Event()
        self._failure: SignallingError | None = None
        self._last: str | None = None
        self._is_one = True
        self._look = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def allocate(self) -> str:
        """A free room's number."""
        self._check()
        for tries in range(_TRIES):
            room = str(random.randrange(1, 10 ** (1 + tries // 20)) if tries else random.randrange(1, 10))
            if await self._take(room, "0"):
                self._room, self._place = room, "0"
                if await self._value(room, "1") is None:
                    return room
                await self._purge(room, only=f"{room}.place.0")
        raise SignallingError(f"{self._where}: no room is free: try again later")

    async def enter(self, room: str) -> None:
        """Go into the room."""
        self._check()
        if self._is_in or (self._place is not None and room != self._room):
            raise SignallingError("one meeting has one room, and this one is in it: connect again for another")
        self._room = check_room(room)
        if self._place is None:
            self._place = await self._free_place(room)
        await _apart(self._client.subscribe(f"$KV.{BUCKET}.{room}.said.>", cb=self._hear))
        await self._stored(lambda: self._catch_up(room))
        self._looking = asyncio.create_task(self._look_again(room))
        self._is_in = True
        for phase, body in self._early.items():
            await self._store(phase, body)
        self._early.clear()

    async def send(self, phase: str, body: bytes) -> None:
        """Store a message."""
        self._check()
        if not 0 < len(phase) <= 256 or phase in self._said:
            raise ValueError(f"each message has a phase of its own: {phase!r:.60}")
        check_body(body)
        self._said.add(phase)
        if self._is_in:
            await self._store(phase, body)
        else:
            self._early[phase] = body

    async def receive(self) -> Message:
        """The peer's next message."""
        while not self._inbox:
            self._check()
            self._news.clear()
            await self._news.wait()
        return self._inbox.popleft()

    async def close(self, mood: Mood) -> None:
        """Leave the room, as long as NATS answers in time."""
        if self._client.is_closed or self._failure is not None or self._bucket is None:
            return
        self._fail(SignallingError("this meeting has left its room: connect again for another"))
        try:
            with contextlib.suppress(TimeoutError, SignallingError, NatsError):
                async with asyncio.timeout(CLOSING_S):
                    await self._leave()
        finally:
            await self._end()

    async def _open(self, servers: Sequence[str], tls: ssl.SSLContext | None, credentials: str | None) -> None:
        self._is_one = len(servers) == 1
        options: dict[str, Any] = {} if tls is None else {"tls": tls}
        if credentials is not None:
            options["user_credentials"] = credentials
        try:
            async with asyncio.timeout(OPEN_S):
                await _apart(
                    self._client.connect(
                        list(servers),
                        error_cb=self._heed,
                        closed_cb=self._lost,
                        reconnected_cb=self._found_again,
                        connect_timeout=3,
                        reconnect_time_wait=0,
                        max_reconnect_attempts=3,
                        ping_interval=10,
                        **options,
                    )
                )
        except (NatsError, OSError, ValueError, EOFError) as error:
            why = f"no answer within {human(OPEN_S)}" if type(error) is TimeoutError else self._last or _why(error)
            raise RendezvousUnreachable(
                f"{self._where}: nobody can be reached: {why}. Is this host online, and is the URL right?"
            ) from None
        self._client.options["max_reconnect_attempts"] = 60  # of a node that was there once
        self._client.options["reconnect_time_wait"] = 0.5
        self._stream = self._client.jetstream(timeout=_ANSWER_S)
        self._bucket = await self._stored(lambda: self._made(min(3, len(servers)) if len(servers) > 2 else 1))

    async def _made(self, replicas: int) -> KeyValue:
        assert self._stream is not None
        try:
            return await self._stream.key_value(BUCKET)
        except BucketNotFoundError:
            made = KeyValueConfig(
                BUCKET, ttl=ROOM_S, storage=StorageType.MEMORY, replicas=replicas, max_value_size=BODY_MOST
            )
            return await self._stream.create_key_value(made)

    async def _heed(self, error: Exception) -> None:
        if self._last is None or not isinstance(error, OSError):  # what a node has said tells more than how it hangs up
            self._last = _why(error)
        logger.info("%s: %s", self._where, _why(error))

    async def _lost(self) -> None:
        self._fail(RendezvousUnreachable(f"{self._where}: it was lost, and could not be reached again: try again"))

    def _fail(self, error: SignallingError) -> None:
        self._failure = self._failure or error
        self._news.set()

    def _check(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args)

    async def _end(self) -> None:
        """Also where this is cancelled once more: the client would stop closing half-way."""
        if self._looking is not None:
            self._looking.cancel()
        await asyncio.wait({asyncio.create_task(self._client.close())})

    async def _stored(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer, from whichever node: while one dies and another takes over, it is asked for again."""
        ends_s = asyncio.get_running_loop().time() + STORE_S
        while True:
            try:
                return await _apart(ask())
            except (KeyNotFoundError, KeyWrongLastSequenceError):
                raise
            except (NatsError, JetStreamError, TimeoutError, OSError) as error:
                if self._client.is_closed or not self._may_pass(error) or asyncio.get_running_loop().time() > ends_s:
                    raise SignallingError(f"{self._where}: {_why(error)}{_advice(error)}") from None
            await asyncio.sleep(_AGAIN_S)

    def _may_pass(self, error: Exception) -> bool:
        """Whether another try may go well: not where the server refused, or the only one has no JetStream."""
        if isinstance(error, ServiceUnavailableError):
            return not self._is_one
        return not isinstance(error, APIError) or (error.code or 0) >= 500

    async def _take(self, room: str, place: str) -> bool:
        """Whether the place is this side's now."""
        bucket, key, mine = self._bucket, f"{room}.place.{place}", self._side.encode()
        assert bucket is not None
        try:
            await self._stored(lambda: bucket.create(key, mine))
        except KeyWrongLastSequenceError:
            return await self._value(room, place) == mine  # created, and the answer was lost
        return True

    async def _free_place(self, room: str) -> str:
        for place in _PLACES:
            if await self._take(room, place):
                return place
        raise RoomCrowded(
            f"room {room} at {self._where} has two in it already: the code was used, or somebody is guessing: "
            "make a new code"
        )

    async def _value(self, room: str, place: str) -> bytes | None:
        """Who has a place; None: nobody."""
        bucket = self._bucket
        assert bucket is not None
        try:
            return (await self._stored(lambda: bucket.get(f"{room}.place.{place}"))).value
        except KeyNotFoundError:
            return None

    async def _store(self, phase: str, body: bytes) -> None:
        bucket, key = self._bucket, f"{self._room}.said.{self._side}.{phase.encode().hex()}"
        assert bucket is not None
        await self._stored(lambda: bucket.put(key, body))

    async def _catch_up(self, room: str) -> None:
        """Hear what was said before, or while no node was there."""
        assert self._stream is not None
        assert self._bucket is not None
        info = await self._stream.stream_info(f"KV_{BUCKET}", subjects_filter=f"$KV.{BUCKET}.{room}.said.>")
        for subject in info.state.subjects or {}:
            if self._is_new(subject):
                entry = await self._bucket.get(subject.removeprefix(f"$KV.{BUCKET}."))
                self._take_in(subject, entry.value or b"")

    async def _look_again(self, room: str) -> None:
        """What a node that died had on its way is stored, and found so."""
        while self._failure is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._look.wait()
            self._look.clear()
            with contextlib.suppress(KeyNotFoundError, NatsError, JetStreamError, TimeoutError, OSError):
                await self._catch_up(room)

    async def _found_again(self) -> None:
        self._look.set()

    async def _hear(self, message: Any) -> None:
        if not message.headers or "KV-Operation" not in message.headers:
            self._take_in(message.subject, message.data)

    def _is_new(self, subject: str) -> bool:
        side, _, phase = subject.rpartition(".")
        return side.rpartition(".")[2] != self._side and subject not in self._heard and bool(phase)

    def _take_in(self, subject: str, body: bytes) -> None:
        if not self._is_new(subject) or len(body) > BODY_MOST or self._failure is not None:
            return
        try:
            phase = bytes.fromhex(subject.rpartition(".")[2]).decode()
        except ValueError:
            return  # of somebody else's making
        self._heard.add(subject)
        if len(self._heard) > HEARD_MOST:
            self._fail(SignallingError(f"far more came through {self._where} than a meeting needs: make a new code"))
            return
        self._inbox.append(Message(phase, body))
        self._news.set()

    async def _leave(self) -> None:
        room, place, bucket = self._room, self._place, self._bucket
        if room is None or place is None or bucket is None:
            return
        await self._stored(lambda: bucket.put(f"{room}.place.{place}", _LEFT))
        if await self._value(room, "1" if place == "0" else "0") in (None, _LEFT):
            await self._purge(room)

    async def _purge(self, room: str, *, only: str | None = None) -> None:
        stream = self._stream
        assert stream is not None
        subject = f"$KV.{BUCKET}.{only or f'{room}.>'}"
        await self._stored(lambda: stream.purge_stream(f"KV_{BUCKET}", subject=subject))


async def _apart(asked: Coroutine[Any, Any, T]) -> T:
    """Ask in a task of its own: nats-py swallows a cancellation here and there, and this side's must not be lost."""
    task = asyncio.create_task(asked)
    try:
        await asyncio.wait({task})
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSING_S)
    return task.result()


def _advice(error: Exception) -> str:
    lacking = isinstance(error, ServiceUnavailableError)
    return ": is JetStream on (nats-server -js), and are most of its nodes up?" if lacking else ""


def _why(error: Exception) -> str:
    if isinstance(error, APIError):
        return quoted(error.description or error.code or type(error).__name__)
    return quoted(str(error) or type(error).__name__)
