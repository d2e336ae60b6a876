"""Meetings on loopback, through rooms in memory: from a code to a stream, and whatever goes wrong on that way."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import simopen
from simopen.clock.source import LocalClock
from simopen.errors import PeerLeft, RoomCrowded, StunError, WrongCode
from simopen.model.endpoint import Endpoint
from simopen.model.estimate import Reading
from simopen.model.event import Event
from simopen.model.nat import Profile
from simopen.model.server import Server
from simopen.rendezvous import api, exchange
from simopen.rendezvous.agreed import parsed
from simopen.rendezvous.exchange import Exchange, Send
from simopen.rendezvous.meeting import Nats, Settings
from simopen.rendezvous.pake import Pake
from simopen.rendezvous.recommended import recommended
from simopen.rendezvous.sealing import SEALED_BYTES
from simopen.signalling.base import Message, Mood
from simopen.ticket.hold import issued
from tests.fake_stun import FakeStun
from tests.loopback import kept_ports
from tests.rendezvous.rooms import Rooms, Side

Streams = tuple[StreamReader, StreamWriter]
CODE = "7-croissant-zucchini"
LONG_S = 30


@dataclass
class Place:
    """Rooms and STUN servers, and what the sides are told."""

    rooms: Rooms
    servers: list[str]
    events: list[Event] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def options(self, **more: Any) -> dict[str, Any]:
        return {"via": self.rooms.side, "servers": self.servers, "on_event": self.tell, **more}

    async def meet(self, code: str = CODE, **more: Any) -> Streams:
        return await simopen.meet(code, **self.options(**more))

    async def until(self, *steps: str) -> None:
        """Until each step has been told, as often as it is named."""
        while any([each.step for each in self.events].count(step) < steps.count(step) for step in steps):
            self.told.clear()
            await self.told.wait()

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self.told.set()

    async def left(self, count: int) -> None:
        while len(self.rooms.moods) < count:
            self.rooms.changed.clear()
            await self.rooms.changed.wait()


@contextlib.asynccontextmanager
async def placed(rooms: Rooms) -> AsyncIterator[Place]:
    async with asyncio.timeout(LONG_S), FakeStun() as one, FakeStun() as other:
        yield Place(rooms, [one.name, other.name])


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with placed(Rooms()) as made:
        yield made


async def close(*streams: Streams) -> None:
    for _, writer in streams:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def crossed(one: Streams, other: Streams) -> None:
    """What each writes, the other reads."""
    one[1].write(b"there")
    other[1].write(b"back")
    assert await other[0].readexactly(5) == b"there"
    assert await one[0].readexactly(4) == b"back"


async def test_two_meet_by_a_code_that_one_has_made(place: Place) -> None:
    async with simopen.meeting(**place.options(words=3)) as made:
        assert made.code.count("-") == 3
        streams = await asyncio.gather(made.streams(), place.meet(made.code.upper().replace("-", " ")))
    await crossed(*streams)
    report = streams[0][1].get_extra_info("simopen")
    assert any("peer's clock" in note for note in report.notes)
    assert report.proof is not None
    await close(*streams)
    await place.left(2)
    assert place.rooms.moods == [Mood.HAPPY] * 2
    assert [each.step for each in place.events].count("peer clock") == 2


async def test_all_that_is_said_after_the_first_message_has_one_length(place: Place) -> None:
    streams = await asyncio.gather(place.meet(), place.meet())
    await close(*streams)
    await place.left(2)
    assert {len(each.body) for each in place.rooms.passed} == {33, SEALED_BYTES}


async def test_a_long_secret_meets_again_and_again_in_a_named_room(place: Place) -> None:
    secret = simopen.new_key()
    for name in ("backup of  Anna", "BACKUP of anna"):
        streams = await asyncio.gather(*(place.meet(each, secret=secret) for each in (name, "backup of anna")))
        await crossed(*streams)
        await close(*streams)
    await place.left(4)
    assert len(place.rooms.rooms) == 1
    assert next(iter(place.rooms.rooms)).isdecimal()


async def test_a_room_of_a_secret_is_left_before_its_stream_is_given(place: Place) -> None:
    """Its program may end at once, and the next one find the room taken."""
    secret = simopen.new_key()

    async def met() -> Streams:
        streams = await place.meet("nightly", secret=secret)
        assert Mood.HAPPY in place.rooms.moods
        return streams

    await close(*await asyncio.gather(met(), met()))


async def test_who_is_interrupted_as_the_room_is_left_has_no_stream(place: Place) -> None:
    secret, leaving = simopen.new_key(), asyncio.Event()

    class Stays(Side):
        async def close(self, mood: Mood) -> None:
            leaving.set()
            await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def side() -> AsyncIterator[Side]:
        yield Stays(place.rooms)

    interrupted = asyncio.ensure_future(place.meet("nightly", secret=secret, via=side))
    reader, writer = await place.meet("nightly", secret=secret)
    await leaving.wait()
    interrupted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await interrupted
    with pytest.raises(ConnectionError):
        await reader.read()
    writer.close()


async def test_two_of_one_side_do_not_take_each_other_for_the_peer(place: Place) -> None:
    both = (place.meet("nightly", secret=bytes(range(32)), side="source") for _ in "12")
    ended = await asyncio.gather(*both, return_exceptions=True)
    assert all(isinstance(each, simopen.SignallingError) for each in ended), ended
    assert any("it is this side, once more" in str(each) for each in ended)
    named = (place.meet("nightly", secret=bytes(range(32)), side=each) for each in ("source", "store"))
    streams = await asyncio.gather(*named)
    await crossed(*streams)
    await close(*streams)


async def test_a_wrong_code_is_told_to_both_and_burns_the_room(place: Place) -> None:
    ended = await asyncio.gather(place.meet(), place.meet("7-croissant-zoology"), return_exceptions=True)
    for error in ended:
        assert isinstance(error, WrongCode)
        assert "new code" in str(error)
        assert "zucchini" not in str(error)
    assert place.rooms.moods == [Mood.SCARED] * 2


async def test_a_third_one_is_turned_away_and_harms_nobody(place: Place) -> None:
    first = asyncio.ensure_future(place.meet())
    await place.until("in room")
    async with place.rooms.side() as lurker:
        await lurker.enter("7")
        with pytest.raises(RoomCrowded):
            await place.meet()
    streams = await asyncio.gather(first, place.meet())
    await crossed(*streams)
    await close(*streams)


@pytest.mark.parametrize("step", ["in room", "peer here", "round", "peer clock"])
async def test_who_is_interrupted_leaves_nothing_and_the_peer_hears_of_it(place: Place, step: str) -> None:
    seen = asyncio.Event()

    def watch(event: Event) -> None:
        if event.step == step:
            seen.set()

    stays = asyncio.ensure_future(place.meet())
    goes = asyncio.ensure_future(place.meet(on_event=watch))
    await seen.wait()
    goes.cancel()
    await asyncio.wait({goes})
    if goes.cancelled() and step != "in room":
        with pytest.raises(PeerLeft, match="interrupted"):
            await stays
    else:  # nobody had come yet, or all was over before
        stays.cancel()
        await asyncio.wait({stays})


async def test_who_sets_the_instant_begins(place: Place) -> None:
    """It has come later; who begins has its first byte at the other half a round trip sooner."""
    async with simopen.meeting(CODE, **place.options()) as one, simopen.meeting(CODE, **place.options()) as other:
        streams = await asyncio.gather(one.streams(), other.streams())
        peers = [side._side._said.peer for side in (one, other)]
    roles = [writer.get_extra_info("simopen").proof.role for _, writer in streams]
    await close(*streams)
    assert [role == "initiator" for role in roles] == [peer is not None and peer.asks for peer in peers]
    assert set(roles) == {"initiator", "responder"}


async def test_a_peer_that_comes_anew_is_met(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its program was killed after it had confirmed: it said no bye."""
    monkeypatch.setattr(exchange, "_SLACK_NS", 10**10)  # it was there before: however long this machine stalls
    stays = asyncio.ensure_future(place.meet())
    async with killed(place):
        await place.until("peer here")
    streams = await asyncio.gather(stays, place.meet())
    await crossed(*streams)
    await close(*streams)


@contextlib.asynccontextmanager
async def killed(place: Place) -> AsyncIterator[None]:
    """A side that hears nothing after `hi`, and goes without a word."""
    async with place.rooms.side() as signaller:
        pake = Pake(b"words\0croissant-zucchini", "7")
        said = Exchange("d" * 16, pake.message, 0)
        await signaller.enter("7")
        await signaller.send(said.first.phase, said.first.body)
        while said.peer is None:
            heard = await signaller.receive()
            for action in said.hear(heard.phase, heard.body, 0, 0):
                if isinstance(action, Send):
                    await signaller.send(action.phase, action.body)
                    continue
                for sent in said.keyed(action.theirs, pake.finish(action.message), 0, 0):
                    assert isinstance(sent, Send)
                    await signaller.send(sent.phase, sent.body)
        yield


async def test_one_that_guesses_and_leaves_without_a_word_burns_the_code(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rule in ("_ROUND_TRIPS", "_SLACK_NS"):  # nobody was there before: however long this machine stalls
        monkeypatch.setattr(exchange, rule, 0)
    stays = asyncio.ensure_future(place.meet())
    await place.until("in room")
    async with place.rooms.side() as stranger:
        await stranger.enter("7")
        await stranger.send(f"{'d' * 16}-pake", Pake(b"words\0a-guess", "7").message)
        await place.until("peer begun")
    with pytest.raises(PeerLeft, match="guessed, or the peer's own program"):
        await place.meet()
    with pytest.raises(WrongCode, match="make a new code"):
        await stays


@contextlib.asynccontextmanager
async def lying(place: Place, monkeypatch: pytest.MonkeyPatch, name: str, lie: Any) -> AsyncIterator[None]:
    """A peer of whose words the one of that kind are `lie(said)`'s."""
    sealed = exchange._sealed

    def lies(peer: exchange.Peer, **said: Any) -> Send:
        return sealed(peer, **(lie(said) if said["kind"] == name else said))

    stays = asyncio.ensure_future(place.meet())
    await place.until("in room")
    monkeypatch.setattr(exchange, "_sealed", lies)
    other = asyncio.ensure_future(place.meet())
    try:
        yield
    finally:
        ended = await asyncio.gather(stays, other, return_exceptions=True)
        assert all(isinstance(each, PeerLeft) for each in ended), ended


async def test_an_instant_far_ahead_is_no_instant(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    hour = 3600 * 10**9
    async with lying(place, monkeypatch, "go", lambda said: {**said, "at": said["at"] + hour}):
        await place.until("peer here")


async def test_time_stamps_that_cannot_be_are_the_peers_fault(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lying(place, monkeypatch, "answer", lambda said: {**said, "came": 2**63 - 1, "left": 2**63 - 1}):
        await place.until("peer here")


async def test_a_peers_last_words_are_one_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "evil \x1b[2J\nsimopen: all is well"
    stays = asyncio.ensure_future(place.meet())
    await place.until("in room")
    monkeypatch.setattr(exchange, "bye", lambda peer, _: exchange._sealed(peer, kind="bye", why=words))
    leaves = asyncio.ensure_future(place.meet())
    await place.until("peer here", "peer here")
    leaves.cancel()
    with pytest.raises(PeerLeft) as told:
        await stays
    assert str(told.value).isprintable()


def doubled(message: Message) -> Iterator[Message]:
    yield message
    yield message


class Reversed:
    """Keeps each second message back until the next one."""

    def __init__(self) -> None:
        self._kept: dict[str, Message] = {}

    def __call__(self, message: Message) -> Iterator[Message]:
        who = message.phase[:16]
        if (kept := self._kept.pop(who, None)) is not None:
            yield message
            yield kept
        elif message.phase.endswith(("-1", "-3", "-5")):
            self._kept[who] = message
        else:
            yield message


def garbled(message: Message) -> Iterator[Message]:
    """With others' words in between."""
    yield message
    yield Message(message.phase[:-1] + "7", bytes(SEALED_BYTES))
    yield Message("nonsense", b"\xff" * 10_000)


@pytest.mark.parametrize("meddle", [doubled, Reversed(), garbled], ids=["doubled", "reordered", "garbled"])
async def test_a_rendezvous_that_meddles_changes_nothing(meddle: Any) -> None:
    rooms = Rooms(meddle)
    rooms.strict = False
    async with placed(rooms) as place:
        streams = await asyncio.gather(place.meet(), place.meet())
        await crossed(*streams)
        await close(*streams)


def swapped(message: Message) -> Iterator[Message]:
    """The PAKE's message of its own: somebody in between."""
    if message.phase.endswith("-pake"):
        yield Message(message.phase, Pake(b"words\0guess", "7").message)
    else:
        yield message


async def test_who_sits_in_between_is_found_out_on_both_sides() -> None:
    async with placed(Rooms(swapped)) as place:
        ended = await asyncio.gather(place.meet(), place.meet(), return_exceptions=True)
    assert all(isinstance(error, WrongCode) for error in ended)


def test_a_peer_with_link_local_addresses_only_is_told_to_be_one() -> None:
    """None of them is in its ticket."""
    scoped = Profile(mapped=Endpoint("fe80::1", 9), hosts=(Endpoint("fe80::1%2", 9),))
    with pytest.raises(PeerLeft, match="of a host that nobody can reach"):
        parsed(issued(scoped, 1.0, 9, ahead_ns=0).encode())


@pytest.mark.parametrize(
    ("via", "kept"),
    [
        ("ws://127.0.0.1:4000/v1", ["127.0.0.1:1", "192.168.1.1:1", "198.51.100.1:1"]),
        ("ws://[::1]:4000", ["127.0.0.1:1", "192.168.1.1:1", "198.51.100.1:1"]),
        ("wss://192.168.1.1/v1", ["192.168.1.1:1", "198.51.100.1:1"]),
        ("wss://rendezvous.example.org/v1", ["198.51.100.1:1"]),
        ("wss://stun.example.org/v1", ["198.51.100.1:1", "STUN.example.org:1"]),
        (Rooms().side, ["198.51.100.1:1"]),
    ],
)
def test_of_stun_servers_that_are_recommended_those_nearer_than_the_rendezvous_are_left_out(
    via: object, kept: list[str]
) -> None:
    """A name could lead to any of them: only the rendezvous' own is no news."""
    hosts = "127.0.0.1", "192.168.1.1", "198.51.100.1", "STUN.example.org", "localhost."
    told = tuple(Server(host, 1, 1) for host in hosts)
    assert recommended(told, via) == tuple(kept)


async def test_no_stun_server_and_no_address_that_a_peer_can_reach_ends_it_and_the_peer_hears_why(place: Place) -> None:
    with kept_ports() as (port, _):
        await ended_unseen(place, port)


async def ended_unseen(place: Place, port: int) -> None:
    async with FakeStun(silent=True, udp=False) as mute:
        lost = place.meet(servers=[mute.name], timeout=0.3, local=("127.0.0.1", port))
        stays = asyncio.ensure_future(place.meet())
        with pytest.raises(StunError):
            await lost
        if any(each.step == "peer here" for each in place.events):
            with pytest.raises(PeerLeft):
                await stays
        stays.cancel()
        await asyncio.wait({stays})


class WrongClock(LocalClock):
    """Off by so many seconds."""

    def __init__(self, off_s: float) -> None:
        self._off_ns = round(off_s * 1e9)

    def read(self) -> Reading:
        true = super().read()
        return Reading(true.monotonic_ns, true.realtime_ns + self._off_ns, true.boottime_ns)


@pytest.mark.parametrize("off_s", [-3600.0, 3600.0])
async def test_clocks_an_hour_apart_change_nothing_and_are_told(place: Place, off_s: float) -> None:
    streams = await asyncio.gather(place.meet(), place.meet(local_clock=WrongClock(off_s)))
    told = [each for each in place.events if isinstance(each, simopen.PeerClock)]
    assert sorted(round(each.difference_s) for each in told) == [-3600, 3600]
    await crossed(*streams)
    await close(*streams)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"code": "croissant-zucchini"}, simopen.CodeError),
        ({"code": 7}, TypeError),
        ({"code": CODE, "secret": b"short"}, ValueError),
        ({"code": CODE, "secret": "text" * 8}, TypeError),
        ({"code": " ", "secret": bytes(32)}, simopen.CodeError),
        ({"code": "caf\udce9", "secret": bytes(32)}, simopen.CodeError),
        ({"code": CODE, "via": ""}, ValueError),
        ({"code": CODE, "via": 7}, TypeError),
        ({"code": CODE, "timeout": 0}, ValueError),
        ({"code": CODE, "servers": "stun.example.org"}, TypeError),
        ({"code": CODE, "on_event": 7}, TypeError),
        ({"code": CODE, "local": 70_000}, ValueError),
    ],
)
async def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    opened: list[object] = []

    def via() -> Any:
        opened.append(None)
        raise AssertionError("it was opened")

    with pytest.raises(error):
        await simopen.meet(**{"via": via, **arguments})
    assert not opened


def test_a_rooms_number_is_never_made_of_a_secret_and_has_at_most_forty_digits() -> None:
    names = {api.room_named(name) for name in ("7", "backup", "other", "ß", "x" * 1000)}
    assert len(names) == 5
    assert all(each.isdecimal() and len(each) <= 40 for each in names)
    assert api.room_named("007") == "7"


@pytest.mark.parametrize(
    "spellings",
    [
        ("Ren\u00e9", "Rene\u0301", "REN\u00c9", "  rene\u0301 "),
        ("12", "\uff11\uff12", "012"),
        ("a b", "A\u00a0 B"),
        ("stra\u00dfe", "STRASSE"),
    ],
)
def test_a_rooms_name_is_one_however_a_keyboard_or_a_file_system_spells_it(spellings: tuple[str, ...]) -> None:
    assert len({api.room_named(each) for each in spellings}) == 1


def test_a_plain_room_is_the_one_that_it_was_in_earlier_versions() -> None:
    assert api.room_named("Backup  of Anna") == "129678354273927"


def test_how_to_meet_is_one_value() -> None:
    assert Settings.__dataclass_params__.frozen  # type: ignore[attr-defined]


async def test_nats_that_nobody_could_be_asked_about_are_asked_about_anew() -> None:
    """The network was not there yet."""
    async with FakeStun(hangs_up=True) as server, FakeStun() as other:
        nats = Nats(None, [server.name], 4.0)
        await asyncio.wait({nats.finding})
        assert not nats.has_found
        nats._servers = [other.name]  # as if that one answered now
        await nats.again(None)
        assert not nats.has_found
        await asyncio.wait({nats.finding})
        assert nats.has_found
        await nats.close()


@pytest.mark.parametrize("room", ["007", "9" * 40, "seven", "٧", ""])
async def test_a_room_that_no_code_can_name_is_the_rendezvous_fault(place: Place, room: str) -> None:
    place.rooms.number = lambda: room  # type: ignore[method-assign]
    with pytest.raises(simopen.SignallingError, match="gives a room that no code can name"):
        async with simopen.meeting(**place.options()):
            pass


@pytest.mark.parametrize(
    "given",
    [{"side": 7}, {"side": "x" * 201}, {"purpose": ("a",)}, {"purpose": ("a", 7)}, {"purpose": ("a", "x" * 201)}],
)
async def test_names_that_are_none_are_refused(place: Place, given: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="side"):
        await place.meet(**given)


async def test_the_longest_names_are_told(place: Place) -> None:
    one, other = "\U0001f600" * 16 + "x" * 5, "\u00e4" * 33
    named = [{"side": one, "purpose": (one, other)}, {"side": other, "purpose": (other, one)}]
    streams = await asyncio.gather(*(place.meet(**each) for each in named))  # type: ignore[arg-type]
    await close(*streams)
