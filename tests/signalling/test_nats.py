"""NATS as a rendezvous: nodes that die, peers that are gone, what was missed; all else is `test_contract`'s."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from simopen.errors import RoomCrowded, SignallingError
from simopen.signalling import connect
from simopen.signalling.base import Message, Signaller
from simopen.signalling.nats import NatsRooms, nats_rooms
from simopen.signalling.nats_hello import Hello, Word, read_hello
from tests.signalling.places import held_ports, nats_node, nats_nodes, nats_via, via_of

__all__ = ["held_ports", "nats_via"]
pytestmark = [pytest.mark.usefixtures("held_ports"), pytest.mark.real_server]


async def allocated(signaller: Signaller) -> str:
    room = await signaller.allocate()
    await signaller.enter(room)
    return room


@asynccontextmanager
async def entered(via: str, room: str) -> AsyncIterator[NatsRooms]:
    async with nats_rooms([via], via) as signaller:
        await signaller.enter(room)
        yield signaller


async def vanish(signaller: NatsRooms) -> None:
    """As a program that is killed: no word, and the kernel closes its connection."""
    await signaller._nats.client.close()


@asynccontextmanager
async def by_hand(via: str) -> AsyncIterator[Client]:
    """A client of NATS's, with which a test says what it likes."""
    client = Client()
    await client.connect(via, no_echo=True)
    try:
        yield client
    finally:
        await client.close()


async def settled(client: Client) -> None:
    """All that was said is with the node. Once is too little: nats-py's ping overtakes what it has yet to write."""
    for _ in range(2):
        await client.flush()


async def asked(client: Client, room: str, hello: Hello) -> Hello:
    answer = read_hello((await client.request(f"simopen_meet.{room}.hello", hello.encoded(), timeout=30)).data)
    assert answer is not None
    return answer


async def test_two_meet_through_the_death_of_a_node(held_ports: list[int], tmp_path: Path) -> None:
    """Of that one which one side is connected to, or both."""
    with nats_nodes(tmp_path, held_ports[:6]) as nodes:
        via = via_of(held_ports[:3])
        async with nats_rooms(via_of(held_ports[:3]).split(","), via) as one:
            room = await allocated(one)
            async with connect(via) as other:
                await other.enter(room)
                await one.send("before", b"1")
                assert await other.receive() == Message("before", b"1")
                url = one._nats.client.connected_url
                assert url is not None
                nodes[held_ports.index(url.port or 0)].close()
                await one.send("after", b"2")
                await other.send("answer", b"3")
                assert await other.receive() == Message("after", b"2")
                assert await one.receive() == Message("answer", b"3")


async def test_a_server_that_is_started_anew_is_waited_for(held_ports: list[int], tmp_path: Path) -> None:
    """It has kept nothing, and that is no loss."""
    via = f"nats://127.0.0.1:{held_ports[6]}"
    with contextlib.ExitStack() as node:
        node.enter_context(nats_node(tmp_path, held_ports[6], name="first"))
        async with entered(via, "7") as one, entered(via, "7") as other:
            node.close()
            await one.send("meanwhile", b"1")
            node.enter_context(nats_node(tmp_path, held_ports[6], name="second"))
            assert await other.receive() == Message("meanwhile", b"1")


async def test_the_place_of_a_peer_that_has_vanished_is_free_at_once(nats_via: str) -> None:
    async with entered(nats_via, "101") as one:
        await one.send("old", b"1")
        async with entered(nats_via, "101") as other:
            with pytest.raises(RoomCrowded, match=r"room 101.*make a new code"):
                async with entered(nats_via, "101"):
                    pass
            await vanish(other)
            async with entered(nats_via, "101") as again:
                assert await again.receive() == Message("old", b"1")
                await again.send("new", b"2")
                assert await one.receive() == Message("new", b"2")


async def test_a_room_whose_sides_have_all_vanished_is_free(nats_via: str) -> None:
    async with entered(nats_via, "102") as one, entered(nats_via, "102") as other:
        await vanish(one)
        await vanish(other)
        async with entered(nats_via, "102"), entered(nats_via, "102"):
            pass


async def test_two_who_have_made_the_same_number_are_both_told(nats_via: str) -> None:
    """In one moment, at two nodes that have not yet heard of each other's."""
    async with nats_rooms([nats_via], nats_via) as one, by_hand(nats_via) as other:
        room = await one.allocate()
        await settled(one._nats.client)
        assert (await asked(other, room, Hello("other", 0, Word.MAKES))).word is Word.CROWDED
        assert (await asked(other, room, Hello("peer", 0, Word.COMES))).word is Word.WELCOME


async def test_what_a_peer_has_missed_is_said_again_and_what_comes_twice_is_given_once(nats_via: str) -> None:
    async with entered(nats_via, "103") as one, by_hand(nats_via) as client:
        await one.send("first", b"1")
        await one.send("second", b"2")
        await settled(one._nats.client)  # from here on, it is said again or not at all
        said = await client.subscribe("simopen_meet.103.said.*.*")
        answer = await asked(client, "103", Hello("peer", 0, Word.COMES))
        assert (answer.heard, answer.word) == (0, Word.WELCOME)
        assert [(await said.next_msg(30)).data for _ in range(2)] == [b"1", b"2"]
        for phase, body in (("61", b"x"), ("61", b"x"), ("zz", b"no phase"), ("62", b"y")):
            await client.publish(f"simopen_meet.103.said.peer.{phase}", body)
        await settled(client)
        assert [(await one.receive()).body for _ in range(2)] == [b"x", b"y"]
        await client.publish("simopen_meet.103.hello", b"whatever", reply="simopen_meet.104")
        assert (await asked(client, "103", Hello("peer", 2, Word.COMES))).heard == 2
        assert (await asked(client, "103", Hello("peer", 1, Word.COMES))).heard == 2
        assert [(await said.next_msg(30)).data for _ in range(2)] == [b"1", b"2"]
        assert said.pending_msgs == 0


async def test_who_leaves_says_again_what_the_peer_has_missed(nats_via: str) -> None:
    said: list[bytes] = []

    async def hear(message: Msg) -> None:
        said.append(message.data)

    async def answer(message: Msg) -> None:
        hello = read_hello(message.data)
        assert hello is not None
        assert hello.word is Word.LEAVES
        await client.publish(message.reply, Hello("peer", len(said), Word.WELCOME).encoded())

    async with entered(nats_via, "105") as one, by_hand(nats_via) as client:
        await asked(client, "105", Hello("peer", 0, Word.COMES))
        await one.send("bye", b"1")
        await settled(one._nats.client)  # and nobody has heard it
        await client.subscribe("simopen_meet.105.said.*.*", cb=hear)
        await client.subscribe("simopen_meet.105.hello.peer", cb=answer)
        await settled(client)
        await one._until_heard()  # as `close`, which has a limit
        assert set(said) == {b"1"}


async def test_what_a_third_says_is_heard_by_nobody(nats_via: str) -> None:
    """It is said with the hello, before the room is known to be crowded."""
    async with entered(nats_via, "107") as one, entered(nats_via, "107") as other:
        async with nats_rooms([nats_via], nats_via) as third:
            await third.send("pake", b"guess")
            with pytest.raises(RoomCrowded):
                await third.enter("107")
        for says, hears in ((one, other), (other, one)):
            await says.send("pake", b"message")
            assert await hears.receive() == Message("pake", b"message")


async def test_what_a_successor_says_at_its_coming_is_heard(nats_via: str) -> None:
    """Its peer still believes that the one before is there, and heeds nobody else."""
    async with entered(nats_via, "108") as one:
        async with entered(nats_via, "108") as other:
            await other.send("pake", b"1")
            assert await one.receive() == Message("pake", b"1")
            await vanish(other)
        async with nats_rooms([nats_via], nats_via) as again:
            await again.send("pake", b"2")
            await again.enter("108")
            assert await one.receive() == Message("pake", b"2")


async def test_a_stranger_cannot_fill_the_memory(nats_via: str) -> None:
    async with entered(nats_via, "106") as one, by_hand(nats_via) as client:
        for number in range(1001):
            await client.publish(f"simopen_meet.106.said.peer.{str(number).encode().hex()}", b"")
        assert len([await one.receive() for _ in range(1000)]) == 1000
        with pytest.raises(SignallingError, match="far more"):
            await one.receive()
