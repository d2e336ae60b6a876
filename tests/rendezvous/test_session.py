"""Sessions on loopback, through rooms in memory: a known peer is met again, whatever becomes of the streams."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import simopen
from simopen.clock.source import LocalClock
from simopen.errors import (
    ForwardError,
    LinkBroken,
    PeerChanged,
    PeerError,
    RendezvousUnreachable,
    RoomCrowded,
    WrongCode,
)
from simopen.model.estimate import Reading
from simopen.model.event import Event, SessionBack, SessionDown, SessionUp, SessionWaits
from simopen.model.times import MonoNs
from simopen.rendezvous import peers
from simopen.rendezvous.api import room_named
from simopen.rendezvous.backoff import Backoff
from simopen.rendezvous.pake import Pake
from simopen.rendezvous.sealing import pake_phase
from simopen.rendezvous.session import Place, suspended_s
from simopen.signalling.base import Mood
from tests.fake_stun import FakeStun
from tests.rendezvous.rooms import Rooms
from tests.signalling.places import held_ports, nats_via

__all__ = ["held_ports", "nats_via"]
pytestmark = pytest.mark.usefixtures("held_ports")
Streams = tuple[StreamReader, StreamWriter]
LONG_S = 30
SEED = bytes(range(32))


class Quick(simopen.Session):
    """Looks often whether the machine was suspended."""

    LOOK_S = 0.005
    ROOM_S = BEGUN_S = 60.0


@dataclass
class Site:
    """Two people's folders, rooms and STUN servers, and what each session tells."""

    folder: Path
    rooms: Rooms
    servers: list[str]
    told: dict[str, list[Event]] = field(default_factory=dict)
    pauses: list[float] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def session(self, name: str, **more: Any) -> simopen.Session:
        """Of one who calls the other by that name."""
        events = self.told.setdefault(name, [])

        def tell(event: Event) -> None:
            events.append(event)
            self.news.set()

        options: dict[str, Any] = {"via": self.rooms.side, "servers": self.servers, "folder": self.folder / name}
        backoff = Backoff(uniform=lambda low, high: high)
        kind: type[simopen.Session] = more.pop("kind", Quick)
        return kind(name, **{**options, "backoff": backoff, "sleep": self.sleep, "on_event": tell, **more})

    async def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        await asyncio.sleep(0)

    def heard(self, name: str, kind: type[Event]) -> list[Any]:
        return [each for each in self.told.get(name, ()) if isinstance(each, kind)]

    async def until(self, name: str, kind: type[Event], count: int = 1) -> None:
        while len(self.heard(name, kind)) < count:
            self.news.clear()
            await self.news.wait()

    async def left(self, count: int) -> None:
        while len(self.rooms.moods) < count:
            self.rooms.changed.clear()
            await self.rooms.changed.wait()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    for name in ("laptop", "desk"):
        peers.keep(peers.derived(name, SEED), tmp_path / name)
    async with asyncio.timeout(LONG_S), FakeStun() as one, FakeStun() as other:
        yield Site(tmp_path, Rooms(), [one.name, other.name])


async def crossed(one: Streams, other: Streams) -> None:
    one[1].write(b"there")
    other[1].write(b"back")
    assert await other[0].readexactly(5) == b"there"
    assert await one[0].readexactly(4) == b"back"


async def both(*sessions: simopen.Session) -> list[Streams]:
    return await asyncio.gather(*(each.connect() for each in sessions))


async def test_a_stream_that_breaks_is_followed_by_another(site: Site) -> None:
    async with site.session("laptop") as one, site.session("desk") as other:
        for number in range(1, 3):
            streams = await both(one, other)
            await crossed(*streams)
            assert one.streams == other.streams == number
            streams[number % 2][1].transport.abort()
            await asyncio.gather(*(site.until(name, SessionDown, number) for name in ("laptop", "desk")))
    for name in ("laptop", "desk"):
        kinds = [type(each) for each in site.told[name] if isinstance(each, (SessionUp, SessionDown, SessionBack))]
        assert kinds == [SessionUp, SessionDown, SessionBack, SessionDown]
        assert [each.number for each in site.heard(name, SessionBack)] == [2]
        assert all(each.away_s >= 0 and each.peer == name for each in site.heard(name, SessionBack))
    assert all(
        each.why is not None for each in (site.heard("desk", SessionDown)[1], site.heard("laptop", SessionDown)[0])
    )
    await site.left(4)
    assert site.rooms.moods == [Mood.HAPPY] * 4


async def test_a_loop_over_a_session_gives_the_next_stream_once_one_is_over(site: Site) -> None:
    """All that was written arrives, also what was written last; and the other side sees an end, not a break."""
    read = []

    async def writes() -> None:
        async with site.session("laptop") as session:
            async for _, writer in session:
                writer.write(b"%d" % session.streams)
                writer.close()
                if session.streams == 2:
                    break

    async def reads() -> None:
        async with site.session("desk") as session:
            async for reader, writer in session:
                read.append(await reader.read())
                writer.close()
                if session.streams == 2:
                    break

    await asyncio.gather(writes(), reads())
    assert read == [b"1", b"2"]
    assert {each.why for name in site.told for each in site.heard(name, SessionDown)} == {None}


async def test_what_fails_is_tried_again_after_ever_longer_pauses_and_told(site: Site) -> None:
    refused = 5

    def via() -> Any:
        nonlocal refused
        refused -= 1
        if refused >= 0:
            raise RendezvousUnreachable("nobody is there")
        return site.rooms.side()

    async with site.session("laptop", via=via) as one, site.session("desk") as other:
        await both(one, other)
    waits = site.heard("laptop", SessionWaits)
    assert [each.pause_s for each in waits] == site.pauses == [0.5, 1.0, 2.0, 4.0, 4.0]
    assert all("nobody is there" in str(each) and "laptop" in str(each) for each in waits)


GONE_S = 300.0


async def test_after_five_minutes_without_a_network_the_two_are_back_within_one_step_of_the_backoff(site: Site) -> None:
    """On a clock of its own, which only the pauses move: each try fails at once, as without a route."""
    now_s = 0.0

    async def sleep(pause_s: float) -> None:
        nonlocal now_s
        now_s += pause_s
        await site.sleep(pause_s)

    def via() -> Any:
        if now_s < GONE_S:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        return site.rooms.side()

    backoff = Backoff(uniform=random.Random(1).uniform)
    async with site.session("laptop", via=via, sleep=sleep, backoff=backoff) as one, site.session("desk") as other:
        await crossed(*await both(one, other))
    assert GONE_S <= now_s <= GONE_S + backoff.most_s
    assert max(site.pauses) <= backoff.most_s
    assert site.heard("laptop", SessionWaits)[-1].why == "Network is unreachable"


async def test_a_rendezvous_that_says_nothing_is_tried_anew(site: Site) -> None:
    class Impatient(Quick):
        ROOM_S = 0.005

    @contextlib.asynccontextmanager
    async def via() -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    async with site.session("laptop", via=via, kind=Impatient) as session:
        waiting = asyncio.ensure_future(session.connect())
        await site.until("laptop", SessionWaits, 2)
        assert "the rendezvous was not reached within 5.0 ms" in site.heard("laptop", SessionWaits)[0].why
        waiting.cancel()
        await asyncio.wait({waiting})


async def test_streams_that_do_not_last_are_met_for_after_pauses_too(site: Site) -> None:
    """Two programs that do not get on shall not meet without end and pause."""
    async with site.session("laptop") as one, site.session("desk") as other:
        for number in range(1, 3):
            for _, writer in await both(one, other):
                writer.transport.abort()
            await asyncio.gather(*(site.until(name, SessionDown, number) for name in ("laptop", "desk")))
            for each in (one, other):  # whatever time it took on this machine
                each._backoff.over(0.0)
    assert site.pauses == [1.0, 1.0]


async def test_a_key_that_was_lost_on_one_side_is_told_there_and_waited_for_here(site: Site) -> None:
    peers.forget("desk", site.folder / "desk")
    with pytest.raises(PeerError, match=r"no peer is known here as desk.*meet it by a code"):
        site.session("desk")
    async with site.session("laptop") as session:
        waiting = asyncio.ensure_future(session.connect())
        await site.until("laptop", simopen.InRoom)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
    assert site.rooms.moods == [Mood.LONELY]


async def test_a_peer_of_another_key_is_told_loudly_to_both_and_ends_it(site: Site) -> None:
    known = peers.known_peer("desk", site.folder / "desk")
    peers.forget("desk", site.folder / "desk")
    peers.keep(replace(known, key=bytes(32)), site.folder / "desk")
    async with site.session("laptop") as one, site.session("desk") as other:
        ended = await asyncio.gather(one.connect(), other.connect(), return_exceptions=True)
    for name, error in zip(("laptop", "desk"), ended, strict=True):
        assert isinstance(error, PeerChanged)
        assert isinstance(error, WrongCode)
        assert f"THE KEY OF {name} IS NOT WHAT IT WAS" in str(error)
        assert f"peers --forget {name}" in str(error)
        assert not site.heard(name, SessionUp)
    assert site.pauses == []
    assert site.rooms.moods == [Mood.SCARED] * 2


async def test_a_thief_of_the_key_is_no_peer_any_more_once_the_two_have_met_anew(site: Site) -> None:
    """Until then it can be met in the peer's place, and is seen only where both come."""
    peers.keep(peers.derived("laptop", SEED), site.folder / "thief")
    for name in ("laptop", "desk"):
        peers.forget(name, site.folder / name)
        peers.keep(peers.derived(name, bytes(32)), site.folder / name)
    async with site.session("laptop", folder=site.folder / "thief") as thief:
        alone = asyncio.ensure_future(thief.connect())
        async with site.session("laptop") as one, site.session("desk") as other:
            await crossed(*await both(one, other))
        assert not alone.done()
        await thief.aclose()
        await asyncio.wait({alone})
        assert alone.cancelled()
    assert len(site.rooms.rooms) == 2


async def test_a_third_one_in_the_room_is_told_and_waited_out(site: Site) -> None:
    """A program that runs twice, one whose network has just gone, or a thief."""
    gone, second = asyncio.Event(), asyncio.Event()

    async def sleep(pause_s: float) -> None:
        second.set()
        await gone.wait()

    room = room_named(peers.derived("laptop", SEED).room_for(""))
    async with contextlib.AsyncExitStack() as ghosts:
        for _ in range(2):
            await (await ghosts.enter_async_context(site.rooms.side())).enter(room)
        async with site.session("laptop", sleep=sleep) as one, site.session("desk") as other:
            waiting = asyncio.ensure_future(one.connect())
            await second.wait()
            assert "stolen" in site.heard("laptop", SessionWaits)[0].why
            await ghosts.aclose()
            gone.set()
            await crossed(*await asyncio.gather(waiting, other.connect()))


async def test_one_that_begins_and_leaves_without_a_word_does_not_keep_the_room(site: Site) -> None:
    """It would not be let in again before both have left."""

    class Impatient(Quick):
        BEGUN_S = 0.005

    room = room_named(peers.derived("laptop", SEED).room_for(""))
    async with site.session("desk", kind=Impatient) as session:
        waiting = asyncio.ensure_future(session.connect())
        await site.until("desk", simopen.InRoom)
        async with site.rooms.side() as signaller:
            await signaller.enter(room)
            begun = Pake(b"secret\0" + session.peer.key, room)
            await signaller.send(pake_phase("d" * 16), begun.message)
            await site.until("desk", SessionWaits)
        assert "left it without a word" in site.heard("desk", SessionWaits)[0].why
        waiting.cancel()
        await asyncio.wait({waiting})


async def test_channels_of_one_peer_do_not_get_in_each_others_way(site: Site) -> None:
    async with contextlib.AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(site.session(name, channel=channel))
            for channel in ("files", "talk")
            for name in ("laptop", "desk")
        ]
        one, two, three, four = await both(*sessions)
        await crossed(one, two)
        await crossed(three, four)
    assert len(site.rooms.rooms) == 2


@pytest.mark.parametrize("step", ["peer here", "verified"])
async def test_who_stops_waiting_leaves_nothing_and_may_wait_again(site: Site, step: str) -> None:
    async with site.session("laptop") as one, site.session("desk") as other:
        waiting, theirs = (asyncio.ensure_future(each.connect()) for each in (one, other))
        while not any(each.step == step for each in site.told["laptop"]):
            site.news.clear()
            await site.news.wait()
        waiting.cancel()
        await asyncio.wait({waiting})
        streams = [await one.connect(), await theirs] if not theirs.done() else None
        if streams is not None and not streams[1][1].is_closing():
            await crossed(*streams)


async def test_closing_ends_who_waits_and_nothing_is_given_afterwards(site: Site) -> None:
    session = site.session("laptop")
    waiting = asyncio.ensure_future(session.connect())
    await site.until("laptop", simopen.InRoom)
    with pytest.raises(RuntimeError, match="one stream at a time"):
        await session.connect()
    await session.aclose()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        await session.connect()
    assert [each async for each in session] == []


class Suspended(LocalClock):
    """As this machine's, but that it has been suspended for so long by now."""

    suspended_s = 0.0

    def read(self) -> Reading:
        true = super().read()
        return replace(true, boottime_ns=true.boottime_ns + round(self.suspended_s * 1e9))


async def test_a_machine_that_was_suspended_for_longer_than_a_peer_waits_comes_back_at_once(site: Site) -> None:
    clock = Suspended()
    async with site.session("laptop", local_clock=clock) as one, site.session("desk") as other:
        (reader, _), _ = await both(one, other)
        clock.suspended_s = one._patience_s + 1.0  # type: ignore[operator]
        with pytest.raises(LinkBroken, match="slept for longer"):
            await reader.read()  # half a file shall not look like all of it
        await asyncio.gather(*(site.until(name, SessionDown) for name in ("laptop", "desk")))
        await crossed(*await both(one, other))
        clock.suspended_s += 1.0
        for _ in range(5):
            await asyncio.sleep(Quick.LOOK_S)
        assert len(site.heard("laptop", SessionDown)) == 1


def _set(event: asyncio.Event, _: object) -> None:
    event.set()


async def test_a_stream_that_is_handed_over_is_the_sessions_until_its_new_owner_ends_it(site: Site) -> None:
    """`simopen.forward` takes the socket: it is up for as long as that, and closing the session ends it."""
    async with site.session("laptop") as one, site.session("desk") as other:
        up = [asyncio.Event(), asyncio.Event()]
        forwarding = [
            asyncio.ensure_future(simopen.forward(each, ready=partial(_set, is_up)))
            for each, is_up in zip(await both(one, other), up, strict=True)
        ]
        await asyncio.gather(*(each.wait() for each in up))
        assert not site.heard("laptop", SessionDown) + site.heard("desk", SessionDown)
        await one.aclose()
        await asyncio.wait(forwarding)
        await asyncio.gather(*(site.until(name, SessionDown) for name in ("laptop", "desk")))
        for each in forwarding:
            with contextlib.suppress(ForwardError):
                each.result()


async def test_why_a_stream_was_given_up_that_is_handed_over_is_told(site: Site) -> None:
    clock = Suspended()
    async with site.session("laptop", local_clock=clock) as one, site.session("desk") as other:
        up = [asyncio.Event(), asyncio.Event()]
        forwarding = [
            asyncio.ensure_future(simopen.forward(each, ready=partial(_set, is_up)))
            for each, is_up in zip(await both(one, other), up, strict=True)
        ]
        await asyncio.gather(*(each.wait() for each in up))
        clock.suspended_s = one._patience_s + 1.0  # type: ignore[operator]
        await site.until("laptop", SessionDown)
        await asyncio.gather(*forwarding, return_exceptions=True)
    assert site.heard("laptop", SessionDown)[0].why == "this computer slept for longer than the peer waits"


async def test_a_peer_that_takes_nothing_for_longer_than_the_time_out_is_not_gone(site: Site) -> None:
    """A film that was paused: its host acknowledges, and the kernel's own user time-out would cut it off."""
    film = bytes(24 * 2**20)  # more than two sockets and two transports hold
    async with site.session("laptop", user_timeout=0.4) as one, site.session("desk", user_timeout=0.4) as other:
        (_, writer), (reader, _) = await both(one, other)
        writer.write(film)
        await asyncio.sleep(1.6)  # the pause
        writer.write_eof()
        assert len(await reader.read()) == len(film)
        assert one.streams == other.streams == 1


@pytest.mark.real_server
async def test_two_who_met_at_nats_meet_there_again_and_are_told_at_once_that_the_other_is_not_there(
    nats_via: str, tmp_path: Path
) -> None:
    async with asyncio.timeout(LONG_S), FakeStun() as server, FakeStun() as another:
        site = Site(tmp_path, Rooms(), [server.name, another.name])
        async with simopen.meeting(via=nats_via, servers=site.servers) as found:
            met = await asyncio.gather(found.streams(), simopen.meet(found.code, via=nats_via, servers=site.servers))
        names = "laptop", "desk"
        await asyncio.gather(
            *(
                simopen.remember(name, writer, via=nats_via, folder=tmp_path / name)
                for name, (_, writer) in zip(names, met, strict=True)
            )
        )
        for _, writer in met:
            writer.transport.abort()
        async with site.session("laptop", via=None) as one, site.session("desk", via=None) as other:
            waiting = asyncio.ensure_future(one.connect())
            await site.until("laptop", simopen.InRoom)
            assert [each.step for each in site.told["laptop"]] == ["in room"]
            assert "waiting for the peer" in str(site.told["laptop"][0])
            await crossed(*await asyncio.gather(waiting, other.connect()))
            for number in range(1, 3):
                one_stream = one._stream
                assert one_stream is not None
                one_stream.writer.transport.abort()
                await asyncio.gather(*(site.until(name, SessionDown, number) for name in names))
                await crossed(*await both(one, other))
        assert [each.number for each in site.heard("desk", SessionBack)] == [2, 3]


def test_how_long_a_machine_was_suspended() -> None:
    before = Reading(MonoNs(10), 0, 20)
    assert suspended_s(before, Reading(MonoNs(1_000_000_010), 0, 1_000_000_020)) == 0.0
    assert suspended_s(before, Reading(MonoNs(10), 0, 60_000_000_020)) == 60.0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"via": ""}, ValueError),
        ({"via": "http://x"}, ValueError),
        ({"via": "ws://192.0.2.1/v1"}, ValueError),
        ({"channel": 7}, TypeError),
        ({"keepalive": -1}, ValueError),
        ({"on_event": 7}, TypeError),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception]
) -> None:
    peers.keep(peers.derived("laptop", SEED), tmp_path)
    with pytest.raises(error):
        simopen.Session("laptop", folder=tmp_path, **{"via": "ws://127.0.0.1/v1", **arguments})


def test_the_rendezvous_of_the_first_meeting_is_the_one(tmp_path: Path) -> None:
    known = peers.derived("laptop", SEED, "ws://192.0.2.1/v1", allow_plain=True)
    assert Place.of(known, "").via == "ws://192.0.2.1/v1"
    assert Place.of(known, "", "wss://other/v1").via == "wss://other/v1"
    with pytest.raises(ValueError, match="in the clear"):
        Place.of(known, "", allow_plain=False)


async def test_who_is_turned_away_is_told_of_a_peer_and_not_of_a_code() -> None:
    place = Place(peers.derived("laptop", SEED), "", "ws://127.0.0.1/v1", False)
    with pytest.raises(RoomCrowded, match="room of laptop"), place.told():
        raise RoomCrowded("make a new code")
