"""The public calls, `meet` and `meeting`: from a code to a stream.

Theory of operation: what is judged is judged before anything is sent. The PAKE's first half is worked out in a thread
while the rendezvous is connected to. Whoever leaves tells the peer, where there is time for it; where there is a
stream, the room is left in the background, as the stream's first byte need not wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import time
import unicodedata
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

from simopen import _logs
from simopen.clock.instant import positive_s
from simopen.clock.source import MACHINE, LocalClock
from simopen.errors import CodeError, RoomCrowded, SignallingError, WrongCode
from simopen.holepunch.options import Options
from simopen.link.session import LEAST_KEY_BYTES
from simopen.model.endpoint import Local, local_endpoint
from simopen.model.event import InRoom, OnEvent
from simopen.model.times import MonoNs
from simopen.model.wording import quoted
from simopen.nat.discovery import TIMEOUT_S
from simopen.nat.stun_tcp import DEFAULT_SERVERS, parse_servers
from simopen.net.aside import aside
from simopen.net.streams import STREAM_LIMIT, abort
from simopen.net.tcp_keepalive import KEEPALIVE_S, USER_TIMEOUT_S
from simopen.rendezvous import where
from simopen.rendezvous.codes import WORDS, Code, check_count, new_code, parse_code
from simopen.rendezvous.exchange import Exchange
from simopen.rendezvous.meeting import Meeting as _Side
from simopen.rendezvous.meeting import Nats, Settings
from simopen.rendezvous.pake import Pake
from simopen.rendezvous.recommended import recommended
from simopen.signalling.base import Mood, Signaller

logger = _logs.logger("meeting")

Via: TypeAlias = "str | Callable[[], AbstractAsyncContextManager[Signaller]] | None"
"""A rendezvous: its URL, or what opens a `Signaller` of the caller's own; None: see `where`."""
_LABEL = b"simopen room 1\0"
_ROOM_DIGITS = 15
_SLOW_NS = 900_000_000
"""A SYN to the rendezvous was lost, which the kernel sends again after 1 s: so were those to the STUN servers."""
_POLITE_S = 1.0
_LONGEST_NAME = 200
_leaving: set[asyncio.Task[None]] = set()


class Meeting:
    """What `meeting` gives. `code`: what the peer needs, `str`; with a long secret the room's name alone."""

    def __init__(self, code: str, side: _Side) -> None:
        self.code = code
        self.is_met = False
        self._side = side

    async def streams(self) -> tuple[StreamReader, StreamWriter]:
        """Wait for the peer, and give asyncio's own (reader, writer), both ends proven. Once.

        `writer.get_extra_info("simopen")` is the `Report`. What is raised is as for `meet`.
        """
        met = await self._side.streams()
        self.is_met = True
        return met


async def meet(
    code: str,
    *,
    via: Via = None,
    secret: bytes | None = None,
    side: str | None = None,
    purpose: tuple[str, str] | None = None,
    local: Local = None,
    servers: Sequence[str | tuple[str, int]] | None = None,
    timeout: float = TIMEOUT_S,
    spray: bool = False,
    allow_plain: bool = False,
    keepalive: float | None = KEEPALIVE_S,
    user_timeout: float | None = USER_TIMEOUT_S,
    on_event: OnEvent | None = None,
    limit: int = STREAM_LIMIT,
    local_clock: LocalClock = MACHINE,
) -> tuple[StreamReader, StreamWriter]:
    """Meet whoever has the same code: one direct, proven stream, on both sides.

    Waits for the peer without an end; `asyncio.timeout` sets one. `meeting` makes a new code.

    Args:
        code: as `7-croissant-zucchini`. Capitals, spaces and long dashes do not matter, and the first three letters of
            each word are enough. With a `secret`: the name of the room, on both sides the same.
        via: the rendezvous's URL, the same on both sides: `wss://…` or `ws://…` of a mailbox server, `nats://…`; or
            what opens a `Signaller` of your own. Left out: `SIMOPEN_VIA`, or what the user's configuration names.
        secret: at least 16 random bytes that both sides have, in place of a code's words: any number of times.
        side: what this side is called, where the two are never alike, as a backup's source and its store: two of one
            name, as a program that was started twice, do not take each other for the peer.
        purpose: what this side is there for, and what the peer has to be, as ("take photos", "give photos"): where both
            say it and it does not fit, both are told instead of waiting for each other.
        local: the local port or (IP address, port) to meet from; left out, a free one.
        servers: STUN servers, as for `discover`; left out, those of the rendezvous, or else the public ones.
        timeout: seconds for the STUN servers' answers.
        spray: as for `connect`, where the peer does so, too.
        allow_plain: let a rendezvous on another host be spoken to in the clear: all that matters is sealed, and who is
            on the way sees from where, when, and how much.
        keepalive, user_timeout, limit: as for `connect`.
        local_clock: this machine's clocks, whatever they say: the peer's are compared with them.
        on_event: called at each step, as for `connect`; `InRoom`, `PeerHere`, `PeerClock` and `Round` come, too.

    Raises:
        TypeError, ValueError: a bad argument; CodeError: no code. Nothing has been sent then.
        WrongCode: the peer's code is another, or somebody has guessed. This one is of no more use.
        PeerLeft: the peer ended the meeting, or is not heard of any more.
        SignallingError: these two, and whatever the rendezvous did: `RoomCrowded`, `RendezvousUnreachable`.
        StunError: no STUN server answered, and this host has no address of its own that a peer may reach.
        PunchError: three rounds brought no stream; `report` and `diagnosis` are the last one's.
    """
    with contextlib.ExitStack() as undo:
        async with meeting(
            code,
            via=via,
            secret=secret,
            side=side,
            purpose=purpose,
            local=local,
            servers=servers,
            timeout=timeout,
            spray=spray,
            allow_plain=allow_plain,
            keepalive=keepalive,
            user_timeout=user_timeout,
            on_event=on_event,
            limit=limit,
            local_clock=local_clock,
        ) as found:
            met = await found.streams()
            undo.callback(abort, met[1])
        undo.pop_all()
        return met


@contextlib.asynccontextmanager
async def meeting(
    code: str | None = None,
    *,
    words: int = WORDS,
    via: Via = None,
    secret: bytes | None = None,
    side: str | None = None,
    purpose: tuple[str, str] | None = None,
    local: Local = None,
    servers: Sequence[str | tuple[str, int]] | None = None,
    timeout: float = TIMEOUT_S,
    spray: bool = False,
    allow_plain: bool = False,
    keepalive: float | None = KEEPALIVE_S,
    user_timeout: float | None = USER_TIMEOUT_S,
    on_event: OnEvent | None = None,
    limit: int = STREAM_LIMIT,
    local_clock: LocalClock = MACHINE,
) -> AsyncIterator[Meeting]:
    """`meet` in two steps, for the side that makes the code and shows it before the peer can come.

    `async with simopen.meeting(via=…) as found: print(found.code); reader, writer = await found.streams()`. The streams
    are the caller's, and outlive it. Leaving without a stream ends the meeting, and tells a peer that is here.

    Args:
        code: left out, a new one is made, of a free room and so many `words` of 1,296 each.
        words: 1 to 24. Two are worth 20.7 bits, and there is one guess.
        via, secret, side, purpose, local, servers, timeout, spray: as for `meet`, and so is what is raised.
        allow_plain, keepalive, user_timeout, on_event, limit, local_clock: as for `meet`, too.
    """
    told = Options.told(spray=spray, local=local, keepalive=keepalive, user_timeout=user_timeout, on_event=on_event)
    if local is not None:
        local_endpoint(local, 0)
    if servers is not None:
        parse_servers(servers)
    check_count(words)
    wanted = _Wanted.judged(code, secret, side, purpose)
    timeout_s = positive_s("timeout", timeout)
    where_to = via if callable(via) else where.required(via)
    opened = _opened(where_to, allow_plain=allow_plain)
    early = asyncio.ensure_future(wanted.begun())
    loading = asyncio.ensure_future(_loaded(early))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(_put_away, loading)
        stack.push_async_callback(_put_away, early)
        nats = None if servers is None else Nats(local, servers, timeout_s)
        if nats is not None:
            stack.push_async_callback(nats.close)
        began_ns = time.monotonic_ns()
        signaller = await stack.enter_async_context(opened)
        if nats is not None and not nats.has_found and time.monotonic_ns() - began_ns > _SLOW_NS:
            await nats.again(local)  # the network was not there yet
        if nats is None:
            nats = Nats(local, recommended(signaller.welcome.stun, where_to) or DEFAULT_SERVERS, timeout_s)
            stack.push_async_callback(nats.close)
        room = wanted.room or _nameable(await signaller.allocate())
        typed = wanted.typed or (room if secret is not None else str(new_code(room, words)))
        if (pake := await early) is None:
            pake = await aside(Pake, wanted.password(typed), room)
        began_ns = time.monotonic_ns()
        said = Exchange(
            secrets.token_hex(8), pake.message, began_ns, is_long=secret is not None, side=side, purpose=purpose
        )
        await signaller.send(said.first.phase, said.first.body)  # before, so that nobody waits for it
        await _enter(signaller, room, said, is_secret=secret is not None)
        the_side = _Side(signaller, pake, said, nats, Settings(told, limit, local_clock=local_clock))
        found = Meeting(typed, the_side)
        told.tell(InRoom(MonoNs(time.monotonic_ns()), room, signaller.welcome.motd))
        try:
            yield found
        except BaseException as error:
            if not found.is_met:
                await _told_end(the_side, said, error)
            raise
        finally:
            if found.is_met:
                await _leave(the_side, stack.pop_all(), is_needed_again=secret is not None)
        if not found.is_met:
            await the_side.leave(Mood.LONELY, "it did not wait")


async def _enter(signaller: Signaller, room: str, said: Exchange, *, is_secret: bool) -> None:
    """Raises: as `Signaller.enter`. A secret's room is met in again and again: nobody is told to make a new code."""
    try:
        await signaller.enter(room)
    except RoomCrowded as error:
        if not is_secret:
            raise
        raise RoomCrowded(
            "two are in this secret's room already: another program meets by it just now, or who has left lost its "
            "network: try again; programs side by side need a room each"
        ) from error
    said.entered(time.monotonic_ns())


async def _loaded(early: asyncio.Task[Any]) -> None:
    await asyncio.wait({early})  # which is waited for first
    await aside(load)


def load() -> None:
    """Use once what is needed when the peer is there: it takes 40 ms to load, and then somebody waits."""
    import simopen.holepunch.verification
    import simopen.link.streams  # noqa: F401
    from simopen.rendezvous.sealing import Channel
    from simopen.ticket.keys import PrivateKey

    Channel(bytes(32), "", "").seal(b"")
    PrivateKey.new().public()


async def _leave(side: _Side, rest: contextlib.AsyncExitStack, *, is_needed_again: bool) -> None:
    """In a task of its own. That is waited for where the room is come to again: this program may end at once."""

    async def leave() -> None:
        async with rest:
            await side.leave(Mood.HAPPY, None)

    task = asyncio.ensure_future(leave())
    _leaving.add(task)
    task.add_done_callback(_leaving.discard)
    if is_needed_again:
        await asyncio.wait({task}, timeout=_POLITE_S)


async def _told_end(side: _Side, said: Exchange, error: BaseException) -> None:
    if isinstance(error, WrongCode):
        await side.leave(Mood.SCARED, None if said.burnt is None else str(error))
    elif isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
        await side.leave(Mood.LONELY if said.peer is None else Mood.ERRORED, "it was interrupted")
    else:
        await side.leave(Mood.ERRORED, str(error) or type(error).__name__)


async def _put_away(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """`room` and `typed` code, None where they are to be made; `secret`: a long one, in place of words."""

    code: Code | None
    room: str | None
    typed: str | None
    secret: bytes | None

    @classmethod
    def judged(
        cls, code: str | None, secret: bytes | None, side: str | None, purpose: tuple[str, str] | None
    ) -> _Wanted:
        """Raises: TypeError, ValueError, CodeError."""
        if not isinstance(side, str | None):
            raise TypeError(f"a side's name is a string, not {type(side).__name__}")
        if purpose is not None and not (len(purpose) == 2 and all(isinstance(each, str) for each in purpose)):
            raise TypeError(f"a purpose is this side's and the peer's, two strings, not {purpose!r}")
        if any(len(json.dumps(each)) > _LONGEST_NAME for each in (side, *(purpose or ()))):
            raise ValueError(f"a side's name, and what it is there for, have {_LONGEST_NAME} bytes at most, as JSON")
        if secret is None:
            if code is None:
                return cls(None, None, None, None)
            read = parse_code(code)
            return cls(read, read.room, str(read), None)
        return cls(None, None if code is None else room_named(code), code, checked_secret(secret))

    def password(self, typed: str) -> bytes:
        """What the PAKE is given, once the code is known."""
        if self.secret is not None:
            return b"secret\0" + self.secret
        return b"words\0" + (self.code or parse_code(typed)).secret

    async def begun(self) -> Pake | None:
        """The PAKE, where all is known that it needs."""
        if self.room is None or self.typed is None:
            return None
        return await aside(Pake, self.password(self.typed), self.room)


def _nameable(room: str) -> str:
    """A room that a rendezvous gave. Raises: SignallingError where no code leads there."""
    if not (room.isascii() and room.isdecimal() and room == str(int(room)) and len(room) < _ROOM_DIGITS - 2):
        raise SignallingError(f"the rendezvous gives a room that no code can name: {quoted(room)}")
    return room


def checked_secret(secret: object) -> bytes:
    """What stands in place of a code's words. Raises: TypeError; ValueError for one that can be guessed."""
    if not isinstance(secret, (bytes, bytearray, memoryview)):
        raise TypeError(f"a secret is bytes, not {type(secret).__name__}")
    if len(secret) < LEAST_KEY_BYTES:
        raise ValueError(
            f"a secret is at least {LEAST_KEY_BYTES} random bytes, not {len(secret)}: whoever comes into the room "
            f"may guess again and again; simopen.new_key() makes one"
        )
    return bytes(secret)


def room_named(name: str) -> str:
    """The room's number for the name that two sides agreed on; a number names itself.

    Never from the secret: who runs a rendezvous could try secrets on it. Capitals, spaces around and wide digits do not
    matter, nor whether an accent is a character of its own, as the names of macOS's files have it.

    Raises: TypeError; CodeError where there is no name, or one that is not UTF-8.
    """
    if not isinstance(name, str):
        raise TypeError(f"a room's name is a string, not {type(name).__name__}")
    words = unicodedata.normalize("NFKC", name).split()
    plain = unicodedata.normalize("NFC", " ".join(words).casefold())
    if not plain:
        raise CodeError("with a secret, the code is the name of a room, and it is empty")
    if any(unicodedata.category(each) == "Cs" for each in plain):  # bytes of a command line that are no text
        raise CodeError("the room's name is not UTF-8")
    if plain.isascii() and plain.isdecimal() and len(plain) < _ROOM_DIGITS:
        return str(int(plain))
    number = int.from_bytes(hashlib.sha256(_LABEL + plain.encode()).digest()) % 9 * 10 ** (_ROOM_DIGITS - 1)
    rest = int.from_bytes(hashlib.sha256(_LABEL + b"\0" + plain.encode()).digest()) % 10 ** (_ROOM_DIGITS - 1)
    return str(10 ** (_ROOM_DIGITS - 1) + number + rest)


def _opened(
    via: str | Callable[[], AbstractAsyncContextManager[Signaller]], *, allow_plain: bool
) -> AbstractAsyncContextManager[Signaller]:
    """Raises: TypeError, ValueError; RendezvousUnreachable where none is named."""
    if callable(via):
        return via()
    from simopen.signalling.via import connect, read_via

    read_via(via, allow_plain=allow_plain)
    return connect(via, allow_plain=allow_plain)
