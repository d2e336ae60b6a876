"""`Session`: a peer that one meets again and again, whatever becomes of each stream.

Theory of operation: `peers` has the key and the room of a first meeting; each further one is `meet` in that room, with
the key for its secret, through the same rendezvous. One stream is up at a time. Where it breaks, both sides come to the
room; who cannot, tries again, ever later (`backoff`); who is there, waits. A dead peer is noticed by the kernel's
probes, which are quicker here than on other streams; and a host that was suspended for longer than its peer waits does
not wait for that: its stream is given up as it wakes.

What a stale peer looks like. One whose side of the key is lost does not come: whoever waits in the room is told that,
and cannot know why. One who comes and does not hold the key is `PeerChanged`, which ends the session, as a host's
changed key ends ssh: it may be the peer, with what it kept altered, or somebody who has found the room. A key that was
stolen cannot be told from the peer's: who has it can be met in the peer's place, and is seen only where both come at
once, by `RoomCrowded`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from simopen.clock.source import MACHINE, LocalClock
from simopen.errors import PeerChanged, PeerLeft, RendezvousUnreachable, RoomCrowded, SimopenError, WrongCode
from simopen.holepunch.callback import NOBODY, Teller
from simopen.holepunch.options import Options
from simopen.model.endpoint import Local
from simopen.model.estimate import Reading
from simopen.model.event import (
    Event,
    InRoom,
    OnEvent,
    PeerBegun,
    PeerHere,
    SessionBack,
    SessionDown,
    SessionUp,
    SessionWaits,
)
from simopen.model.times import MonoNs
from simopen.model.wording import human
from simopen.nat.discovery import TIMEOUT_S
from simopen.net.os_errors import reason
from simopen.net.streams import STREAM_LIMIT
from simopen.net.tcp_keepalive import Patience
from simopen.rendezvous import api, where
from simopen.rendezvous.api import Via
from simopen.rendezvous.backoff import Backoff
from simopen.rendezvous.peers import KnownPeer, known_peer

if TYPE_CHECKING:
    from simopen.link.transport import LinkTransport

Streams: TypeAlias = tuple[StreamReader, StreamWriter]

KEEPALIVE_S = 5.0
USER_TIMEOUT_S = 20.0
"""A peer that has acknowledged nothing for so long is gone. One whose program takes nothing is not: its host
acknowledges (`net.tcp_keepalive.Patience`)."""
_CLOSE_S = 2.0
_CROWDED = 8
"""A room that is full stays so for a while, and a rendezvous counts the tries: pauses are so many times as long."""


class Session:
    """Streams to a peer that is known by a name, one after the other: `async for reader, writer in session`.

    Both sides run one. `async with` it, or `aclose` it at the end. Each turn of the loop gives a stream to the peer,
    proven, as soon as there is one; the next turn waits until that is over, closed on this side or broken, and meets
    again. So close the writer, and catch `OSError`: what a body lets out ends the loop. A program that would rather
    ask calls `await session.connect()`: it closes the stream that there is, and gives the next.

    `simopen.http.serve(app, session)` and `simopen.http.Transport(session.connect)` take either.

    Args:
        peer: the name that `remember`, or `--remember` on the command line, gave it.
        channel: what the streams are for, the same on both sides: sessions of one peer that go on side by side, in one
            program or several, have one each.
        via: the rendezvous; left out, the one that the two met by first, or what is named otherwise.
        allow_plain: as for `meet`; left out, as at the first meeting.
        keepalive, user_timeout: as for `connect`, and shorter: the stream of a peer that is gone ends within 30 s.
        on_event: called with `SessionUp`, `SessionDown`, `SessionBack`, `SessionWaits`, and what `meet` tells.
        local, servers, timeout, spray, limit: as for `meet`.
        folder: where the peer is kept, as for `remember`.
        backoff, sleep: what the pauses between tries are, and how they pass.
        local_clock: this machine's clocks.

    Raises:
        PeerError: no such peer is known here, or what is kept of it cannot be used.
        RendezvousUnreachable: no rendezvous is named. TypeError, ValueError: a bad argument.
    """

    LOOK_S = 2.0
    """How often it is looked whether the machine was suspended."""
    ROOM_S = 6.0
    """The rendezvous is reached within this, or tried anew: a SYN is sent each second at first, later more rarely."""
    BEGUN_S = 5.0
    """Who has begun confirms within this: it takes a round trip and some ms."""

    def __init__(
        self,
        peer: str,
        *,
        channel: str = "",
        via: Via = None,
        allow_plain: bool | None = None,
        local: Local = None,
        servers: Sequence[str | tuple[str, int]] | None = None,
        timeout: float = TIMEOUT_S,
        spray: bool = False,
        keepalive: float | None = KEEPALIVE_S,
        user_timeout: float | None = USER_TIMEOUT_S,
        on_event: OnEvent | None = None,
        limit: int = STREAM_LIMIT,
        folder: Path | None = None,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        local_clock: LocalClock = MACHINE,
    ) -> None:
        Options.told(keepalive=keepalive, user_timeout=user_timeout, spray=spray, local=local)
        self.peer = known_peer(peer, folder)
        self.streams = 0
        """How many there have been."""
        self._place = Place.of(self.peer, channel, via, allow_plain)
        self._tell = NOBODY if on_event is None else Teller(on_event)
        self._options: dict[str, Any] = {
            "local": local,
            "servers": servers,
            "timeout": timeout,
            "spray": spray,
            "keepalive": keepalive,
            "user_timeout": user_timeout,
            "limit": limit,
            "local_clock": local_clock,
        }
        self._patience_s = user_timeout
        self._backoff = Backoff() if backoff is None else backoff
        self._sleep = sleep
        self._clock = local_clock
        self._stream: _Stream | None = None
        self._meeting: asyncio.Task[Any] | None = None
        self._closed = False
        self._idle = asyncio.Event()

    async def connect(self) -> Streams:
        """Close the stream that there is, and wait for the next one, however often that has to be tried.

        Raises:
            PeerChanged: who came does not hold the peer's key.
            TypeError, ValueError: a bad argument of `meet`'s.
            RuntimeError: it is waited for already, or the session is closed.
        """
        if self._closed:
            raise RuntimeError("this session is closed")
        if self._meeting is not None:
            raise RuntimeError("a session has one stream at a time, and it is being waited for already")
        self._meeting = asyncio.current_task()
        self._idle.clear()
        try:
            await self._end()
            return self._begun(await self._met())
        finally:
            self._meeting = None
            self._idle.set()

    async def _met(self) -> Streams:
        if self._backoff.tries:
            await self._sleep(self._backoff.pause_s())
        while True:
            try:
                return await self._try()
            except PeerChanged:
                raise
            except (SimopenError, OSError) as error:
                pause_s = self._backoff.pause_s() * (_CROWDED if isinstance(error, RoomCrowded) else 1)
                why = reason(error) if isinstance(error, OSError) else str(error)
                self._tell(SessionWaits(_now_ns(), self.peer.name, pause_s, why))
            await self._sleep(pause_s)

    async def _try(self) -> Streams:
        """Meet; but leave where somebody begins and says no more: it is let in again only once both have left."""
        loop, last = asyncio.get_running_loop(), None
        try:
            async with asyncio.timeout(self.ROOM_S) as patience:

                def on_event(event: Event) -> None:
                    nonlocal last
                    self._tell(event)
                    if patience.expired():
                        return
                    if isinstance(event, (InRoom, PeerHere)):
                        patience.reschedule(None)
                        last = event
                    elif isinstance(event, PeerBegun) and isinstance(last, InRoom):
                        patience.reschedule(loop.time() + self.BEGUN_S)

                return await self._place.meet(**self._options, on_event=on_event)
        except TimeoutError as error:
            if not patience.expired():
                raise
            if last is None:
                raise RendezvousUnreachable(f"the rendezvous was not reached within {human(self.ROOM_S)}") from error
            raise PeerLeft(f"{self.peer.name} was in the room, and has left it without a word") from error

    def _begun(self, streams: Streams) -> Streams:
        now_ns, before = _now_ns(), self._stream
        self.streams += 1
        self._stream = _Stream(streams[1], now_ns, now_ns)
        self._stream.watching = asyncio.ensure_future(self._watch(self._stream))
        if before is None:
            self._tell(SessionUp(now_ns, self.peer.name))
        else:
            self._tell(SessionBack(now_ns, self.peer.name, self.streams, (now_ns - before.down_ns) / 1e9))
        return streams

    async def _watch(self, stream: _Stream) -> None:
        """Until it is closed. Told at once, though its user may notice later."""
        # Not awaited here: whoever cancels that cancels it for all.
        lost = asyncio.ensure_future(stream.writer.wait_closed())
        link: LinkTransport = stream.writer.get_extra_info("simopen_link")
        with Patience(stream.writer.get_extra_info("socket")) as patience:
            given_up = await self._look_after(lost, patience, link.give_up)
            if (sock := link.handed_over) is not None:
                patience.sock = sock
                given_up = await self._look_after(sock.closed, patience, partial(_shut_down, sock))
        error = None if lost.cancelled() else lost.exception()
        stream.down_ns = _now_ns()
        self._backoff.over((stream.down_ns - stream.up_ns) / 1e9)
        why = given_up if error is None else reason(error) if isinstance(error, OSError) else str(error)
        self._tell(SessionDown(stream.down_ns, self.peer.name, why))

    async def _look_after(
        self, over: asyncio.Future[None], patience: Patience, give_up: Callable[[str], object]
    ) -> str | None:
        """Until it is over; which it is, too, where the peer cannot be there any more. Why, then."""
        before, why = self._clock.read(), None
        while not (await asyncio.wait({over}, timeout=self.LOOK_S))[0]:
            now = self._clock.read()
            if self._patience_s is not None and suspended_s(before, now) > self._patience_s:
                why = "this computer slept for longer than the peer waits"
                give_up(why)
            elif patience.is_over():
                why = f"nothing was acknowledged for {human(patience.timeout_s)}"
                give_up(why)
            before = now
        return why

    async def _end(self) -> None:
        """Close the stream that there is, and see that off."""
        if (stream := self._stream) is None or stream.watching is None:
            return
        stream.writer.close()
        if (sock := stream.writer.get_extra_info("simopen_link").handed_over) is not None:
            _shut_down(sock)
        try:
            await asyncio.wait({stream.watching}, timeout=_CLOSE_S)
        finally:
            if not stream.watching.done():
                stream.writer.transport.abort()
        await asyncio.wait({stream.watching})

    async def aclose(self) -> None:
        """Close the stream, and meet no more. Who waits in `connect` meanwhile is cancelled."""
        self._closed = True
        if self._meeting is not None and self._meeting is not asyncio.current_task():
            self._meeting.cancel()
            await self._idle.wait()
        await self._end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Streams:
        if self._stream is not None and self._stream.watching is not None:
            await asyncio.wait({self._stream.watching})
        if self._closed:
            raise StopAsyncIteration
        return await self.connect()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


@dataclass(slots=True)
class _Stream:
    writer: StreamWriter
    up_ns: MonoNs
    down_ns: MonoNs
    watching: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a known peer is met."""

    peer: KnownPeer
    channel: str
    via: Via
    allow_plain: bool

    @classmethod
    def of(cls, peer: KnownPeer, channel: str, via: Via = None, allow_plain: bool | None = None) -> Place:
        """What was said, and else what was kept. Raises: TypeError, ValueError; RendezvousUnreachable."""
        if not isinstance(channel, str):
            raise TypeError(f"a channel is a string, not {type(channel).__name__}")
        plain = peer.allow_plain if allow_plain is None else allow_plain
        if not callable(via):
            from simopen.signalling.via import read_via

            via = where.required(peer.via if via is None else via)
            read_via(via, allow_plain=plain)
        return cls(peer, channel, via, plain)

    async def meet(self, **options: Any) -> Streams:
        """As `simopen.meet`. Raises: PeerChanged in WrongCode's place; and as that."""
        with self.told():
            room = self.peer.room_for(self.channel)
            key, side = self.peer.key, self.peer.side
            return await api.meet(room, secret=key, side=side, via=self.via, allow_plain=self.allow_plain, **options)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """While inside: what goes wrong is told of a known peer, and not of a code."""
        name = self.peer.name
        try:
            yield
        except WrongCode as error:
            raise PeerChanged(changed(name)) from error
        except RoomCrowded as error:
            raise RoomCrowded(
                f"two are in the room of {name} already: another program of yours, or of the peer's, for the same; or "
                f"one whose network has just gone; or somebody who has stolen the key"
            ) from error


def changed(name: str) -> str:
    """What to say, loudly, of who does not hold a known peer's key."""
    return (
        f"THE KEY OF {name} IS NOT WHAT IT WAS: whoever came in its place does not hold the key that you both kept. "
        f"Either what {name} kept of this computer was altered, or somebody else has come into the room, which whoever "
        f"runs the rendezvous can. Nothing was said to it. Ask {name}; for a new key, on both sides, `simopen peers "
        f"--forget {name}`, and meet by a code anew, with --remember"
    )


def suspended_s(before: Reading, now: Reading) -> float:
    """For how long the machine was suspended between two readings: only one of the two clocks goes on meanwhile."""
    return ((now.boottime_ns - before.boottime_ns) - (now.monotonic_ns - before.monotonic_ns)) / 1e9


def _shut_down(sock: socket.socket, _: str = "") -> None:
    """End a stream in somebody else's hands, who then meets its end."""
    with contextlib.suppress(OSError):  # it has ended already
        sock.shutdown(socket.SHUT_RDWR)


def _now_ns() -> MonoNs:
    return MonoNs(time.monotonic_ns())
