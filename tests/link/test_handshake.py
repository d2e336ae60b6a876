"""Several sockets side by side: both keep the same one, strangers cost nothing, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections import Counter
from functools import partial
from random import Random
from typing import Any

import pytest

from simopen.errors import LinkBroken, LinkError
from simopen.link.channel import Channel, State
from simopen.link.contexts import Ready, ready
from simopen.link.handshake import Handshake, Link
from simopen.link.own_nonces import OwnNonces
from simopen.link.session import Role, Session
from simopen.link.streams import streams
from simopen.model.proof import Reason
from tests.docs.blocks import ROOT
from tests.link.peers import KEY, OTHER_KEY, bare, channel, connected, handshakes, sessions

WAYS: dict[str, Any] = {"session": sessions, "bare": bare}


def set_it(event: asyncio.Event, _: socket.socket) -> None:
    event.set()


async def talk(one: Link, other: Link) -> None:
    """Prove that it is one stream, and close it."""
    (one_reads, one_writes), (other_reads, other_writes) = streams(one), streams(other)
    one_writes.write(b"?")
    assert await other_reads.readexactly(1) == b"?"
    other_writes.write(b"!")
    assert await one_reads.readexactly(1) == b"!"
    for writer in (one_writes, other_writes):
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("way", WAYS)
async def test_of_several_sockets_both_keep_the_same_and_the_rest_are_closed(way: str) -> None:
    async with handshakes(*WAYS[way]()) as (one, other):
        pairs = [connected() for _ in range(5)]
        for number, (mine, theirs) in enumerate(pairs):
            (other if number % 2 else one).offer(mine)
            (one if number % 2 else other).offer(theirs)
        ours, theirs_link = await asyncio.gather(one.link(), other.link())
        assert ours.sock.getsockname() == theirs_link.sock.getpeername()
        assert not one.pending
        assert not other.pending
        await talk(ours, theirs_link)


@pytest.mark.parametrize("way", WAYS)
async def test_how_it_came_is_told(way: str) -> None:
    async with handshakes(*WAYS[way]()) as (one, other):
        for each, sock in zip((one, other), connected(), strict=True):
            each.offer(sock)
        links = await asyncio.gather(one.link(), other.link())
        assert {link.proof.role for link in links} == set(Role)
        for link in links:
            told = link.proof.as_dict()
            assert told["cipher"] in (
                "TLS_AES_256_GCM_SHA384",
                "TLS_AES_128_GCM_SHA256",
                "TLS_CHACHA20_POLY1305_SHA256",
            )
            assert (link.proof.nonce_s is None) is (way == "session")
            assert link.proof.proof_s > 0
            assert link.proof.choice_s >= 0
            assert KEY.hex() not in repr(told)
        await talk(*links)


@pytest.mark.parametrize("way", WAYS)
async def test_another_key_ends_both_at_once_where_the_peers_own_endpoint_says_so_twice(way: str) -> None:
    ours, theirs = WAYS[way](KEY)[0], WAYS[way](OTHER_KEY)[1]
    async with handshakes(ours, theirs) as (one, other):
        for _ in range(2):
            for each, sock in zip((one, other), connected(), strict=True):
                each.offer(sock)
        for each in (one, other):
            with pytest.raises(LinkError, match="another key, or means another session") as told:
                await each.link()
            assert KEY.hex() not in str(told.value)


async def test_who_holds_another_key_elsewhere_ends_nothing() -> None:
    """It is somebody else, at the peer's address; the peer is still to come."""
    stranger = sessions(OTHER_KEY)[1]
    async with handshakes(sessions()[0], stranger, sessions()[1]) as (mine, strangers, peer):
        gone: list[socket.socket] = []
        mine._refused = gone.append
        for _ in range(5):
            one, other = connected()
            mine.offer(one, named=False)
            strangers.offer(other)
            while mine.pending:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
        assert mine.reasons == {Reason.OTHER_KEY: 5}
        assert len(gone) == 5
        one, other = connected()
        mine.offer(one)
        peer.offer(other)
        await talk(*await asyncio.gather(mine.link(), peer.link()))


@pytest.mark.parametrize("words", [b"", b"GET / HTTP/1.1\r\n\r\n" * 99, b"\0" * 100_000])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", [0, 1])
async def test_a_hundred_strangers_at_once_cost_the_peer_nothing(words: bytes, way: str, side: int) -> None:
    """Mute ones, and those that talk of something else: before the peer comes, and after it."""
    async with handshakes(*WAYS[way]()) as both:
        mine, peer = both[side], both[1 - side]
        strangers = []
        for number in range(100):
            if number == 60:
                one, other = connected()
                mine.offer(one)
                peer.offer(other)
            sock, stranger = connected()
            strangers.append(stranger)
            with contextlib.suppress(BlockingIOError):
                stranger.send(words)
            mine.offer(sock, named=False)
        await talk(*await asyncio.gather(mine.link(), peer.link()))
        for stranger in strangers:
            stranger.close()


async def test_of_too_many_the_mute_ones_that_came_first_are_closed_and_the_peer_is_not() -> None:
    mine, theirs = sessions()
    one, other = Handshake(mine, most=8), Handshake(theirs)
    with contextlib.ExitStack() as stack:
        stack.callback(one.end)
        stack.callback(other.end)
        here, there = connected()
        one.offer(here)
        strangers = []
        for _ in range(50):
            sock, stranger = connected()
            strangers.append(stack.enter_context(stranger))
            one.offer(sock, named=False)
            assert len(one._open) <= 8
        assert one.reasons == {Reason.SILENT: 43}
        other.offer(there)
        await talk(*await asyncio.gather(one.link(), other.link()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", [0, 1])
async def test_a_mute_peer_is_refused_when_its_time_is_up(way: str, side: int) -> None:
    async with handshakes(WAYS[way]()[side], limit_s=0.05) as (mine,):
        refused = asyncio.Event()
        mine._refused = lambda _: refused.set()
        sock, mute = connected()
        mine.offer(sock)
        await refused.wait()
        assert mine.reasons == {Reason.SILENT: 1}
        assert "proved nothing in time" in str(mine.error())
        mute.close()


async def passes(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while said := await loop.sock_recv(source, 65536):
        await loop.sock_sendall(sink, said)


async def test_a_proof_that_the_path_delays_is_waited_for() -> None:
    """The initiator takes it that the link is up. More time is given once."""
    loop = asyncio.get_running_loop()
    async with handshakes(*sessions()) as (one, other):
        (ours, near), (far, theirs) = connected(), connected()
        one.offer(ours)
        other.offer(theirs)
        with near, far:
            (candidate,) = other._open
            while not candidate.channel.has_begun:
                await loop.sock_sendall(far, await loop.sock_recv(near, 1))
                await asyncio.sleep(0)
            candidate.time_is_up()
            assert other.pending
            path = asyncio.gather(passes(near, far), passes(far, near))
            links = await asyncio.gather(one.link(), other.link())
            path.cancel()
            await asyncio.wait({path})
        for link in links:
            link.transport.abort()


async def test_who_begins_and_goes_on_saying_nothing_is_refused() -> None:
    loop = asyncio.get_running_loop()
    async with handshakes(sessions()[1]) as (mine,):
        sock, mute = connected()
        mine.offer(sock)
        (candidate,) = mine._open
        await loop.sock_sendall(mute, b"\x16\x03\x01")
        while not candidate.channel.has_begun:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
        for is_pending in (True, False):
            candidate.time_is_up()
            assert mine.pending is is_pending
        assert mine.reasons == {Reason.SILENT: 1}
        mute.close()


async def test_two_responders_are_refused_when_their_time_is_up() -> None:
    both = sessions()[1], sessions()[1]
    async with handshakes(*both, limit_s=0.05) as made:
        told = [asyncio.Event(), asyncio.Event()]
        for each, event, sock in zip(made, told, connected(), strict=True):
            each._refused = partial(set_it, event)
            each.offer(sock)
        for event in told:
            await event.wait()
        assert {reason for each in made for reason in each.reasons} <= {Reason.SILENT, Reason.GONE}


async def test_two_initiators_are_told_so() -> None:
    both = sessions()[0], sessions()[0]
    async with handshakes(*both) as made:
        for _ in range(2):
            for each, sock in zip(made, connected(), strict=True):
                each.offer(sock)
        for each in made:
            with pytest.raises(LinkError, match=r"begins, as this side does|closed the stream"):
                async with asyncio.timeout(5):
                    await each.link()


@pytest.mark.parametrize("way", WAYS)
async def test_a_sides_own_two_sockets_spliced_are_refused(way: str) -> None:
    """By one who knows nothing, and connects them."""
    for session in WAYS[way]():
        async with handshakes(session, limit_s=0.05) as (mine,):
            for sock in connected():
                mine.offer(sock, named=False)
            while mine.pending:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
            assert not mine.won.done()
            assert sum(mine.reasons.values()) == 2


@pytest.mark.parametrize("way", WAYS)
async def test_a_peer_that_dies_in_the_middle_is_refused(way: str) -> None:
    for side in (0, 1):
        async with handshakes(WAYS[way]()[side]) as (mine,):
            refused = asyncio.Event()
            mine._refused = partial(set_it, refused)
            sock, peer = connected()
            mine.offer(sock)
            peer.close()
            await refused.wait()
            assert set(mine.reasons) <= {Reason.GONE, Reason.NO_LINK}


async def test_what_comes_after_the_link_is_closed() -> None:
    async with handshakes(*sessions()) as (one, other):
        for each, sock in zip((one, other), connected(), strict=True):
            each.offer(sock)
        links = await asyncio.gather(one.link(), other.link())
        late, peer = connected()
        one.offer(late)
        assert late.fileno() == -1
        peer.close()
        await talk(*links)


async def test_a_socket_that_is_dead_already_is_refused() -> None:
    async with handshakes(sessions()[0]) as (mine,):
        sock, peer = connected()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        mine.offer(sock)
        while not mine.reasons:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        assert mine.reasons == {Reason.GONE: 1}


@pytest.mark.parametrize("number", range(10))
async def test_whenever_it_is_cancelled_nothing_is_left(number: int) -> None:
    """The guard of every test looks for sockets and tasks."""
    chance = Random(number)
    way = WAYS[chance.choice(list(WAYS))]
    async with handshakes(*way()) as made:
        for _ in range(chance.randint(1, 4)):
            for each, sock in zip(made, connected(), strict=True):
                each.offer(sock)
        tasks = [asyncio.create_task(each.link()) for each in made]
        for _ in range(chance.randint(0, 30)):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        for got in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(got, Link):
                got.transport.abort()


async def test_a_link_that_nobody_took_is_closed() -> None:
    async with handshakes(*sessions()) as made:
        for each, sock in zip(made, connected(), strict=True):
            each.offer(sock)
        await asyncio.gather(*(each.won for each in made))


def test_the_message_counts_what_came() -> None:
    async def told() -> str:
        handshake = Handshake(sessions()[0])
        handshake.reasons.update({Reason.NO_LINK: 3, Reason.SILENT: 1})
        handshake.end()
        return str(handshake.error())

    assert asyncio.run(told()) == (
        "4 streams came up, and nobody proved the key; of who was there: it does not speak this protocol (3 times); it "
        "proved nothing in time"
    )


async def test_one_that_comes_where_all_the_others_are_nearer_is_closed() -> None:
    mine = Handshake(sessions()[0], most=2)
    with contextlib.ExitStack() as stack:
        stack.callback(mine.end)
        for named in (True, True, False):
            sock, peer = connected()
            stack.enter_context(peer)
            mine.offer(sock, named=named)
        assert sock.fileno() == -1
        assert mine.reasons == {Reason.SILENT: 1}


async def test_where_anybody_may_be_at_the_endpoint_another_key_there_ends_nothing() -> None:
    mine, stranger = [Handshake(each, ends_early=False) for each in (sessions()[0], sessions(OTHER_KEY)[1])]
    try:
        for count in range(1, 4):
            one, other = connected()
            mine.offer(one)
            stranger.offer(other)
            await asyncio.wait_for(mine.settled(), 10)
            mine._takes_no_more = False
            assert mine.reasons == {Reason.OTHER_KEY: count}
        assert not mine.won.done()
    finally:
        mine.end()
        stranger.end()


async def test_what_this_host_cannot_verify_is_waited_for_no_longer() -> None:
    def unable(_: Session) -> Ready:
        raise LinkError("no descriptor for the key")

    mine = Handshake(bare()[0], make=unable)
    one, other = connected()
    try:
        mine.offer(one)
        other.send(bytes(16))
        await asyncio.wait_for(mine.settled(), 10)
        with pytest.raises(LinkError, match="no descriptor"):
            await mine.link()
    finally:
        other.close()
        mine.end()


async def settled(*made: Handshake) -> None:
    """Nothing is under way any more at either, and further streams are taken."""
    for each in made:
        await asyncio.wait_for(each.settled(), 20)
        each._takes_no_more = False


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_a_host_that_is_short_of_something_refuses_that_stream_and_takes_the_next(code: int) -> None:
    """For a moment; the same peer comes again."""

    def short(context: Session) -> Ready:
        if not mine.reasons:
            raise LinkError("no link can be made") from OSError(code, os.strerror(code))
        return ready(context)

    mine, peer = Handshake(bare()[0], make=short), Handshake(bare()[1])
    try:
        for _ in range(2):
            for each, sock in zip((mine, peer), connected(), strict=True):
                each.offer(sock)
            if not mine.reasons:
                await settled(mine)
        assert mine.reasons == {Reason.NO_ROOM: 1}
        assert "no memory or no descriptor" in str(mine.error())
        await talk(*await asyncio.gather(mine.link(), peer.link()))
    finally:
        mine.end()
        peer.end()


async def choose_and_reset(sock: socket.socket, initiator: Channel) -> None:
    """The peer as initiator, which resets its stream as it sends the choice: both come before the other side reads."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, initiator.outgoing())
    while initiator.state is State.HELLO:
        initiator.receive(await loop.sock_recv(sock, 2**16))
    initiator.choose()
    sock.send(initiator.outgoing())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


async def test_a_stream_that_is_reset_as_it_is_chosen_is_no_link_and_the_next_one_is() -> None:
    both = sessions()
    async with handshakes(*both) as (peer, mine):
        one, other = connected()
        mine.offer(one)
        await choose_and_reset(other, channel(both[0]))
        await settled(mine)
        assert mine.reasons == {Reason.NOT_CHOSEN: 1}
        assert not mine.won.done()
        for each, sock in zip((peer, mine), connected(), strict=True):
            each.offer(sock)
        await talk(*await asyncio.gather(peer.link(), mine.link()))


async def test_a_stream_that_is_reset_as_its_peer_is_proven_is_not_chosen() -> None:
    both = sessions()
    async with handshakes(*both) as (mine, peer):
        one, other = connected()
        mine.offer(one)
        responder, loop = channel(both[1]), asyncio.get_running_loop()
        responder.receive(await loop.sock_recv(other, 2**16))
        other.send(responder.outgoing())
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        other.close()
        await settled(mine)
        assert mine.reasons == {Reason.NOT_CHOSEN: 1}
        for each, sock in zip((mine, peer), connected(), strict=True):
            each.offer(sock)
        await talk(*await asyncio.gather(mine.link(), peer.link()))


async def test_of_many_that_send_nonces_one_context_is_made_in_a_turn_of_the_loop_and_the_named_ones_first() -> None:
    """A context costs a ms: a hundred strangers' in a row would keep all else waiting."""
    turns, made_in, turn = 0, list[int](), asyncio.get_running_loop().call_soon

    def count() -> None:
        nonlocal turns
        turns += 1
        turn(count) if turns < 10_000 else None

    def noted(session: Session) -> Ready:
        made_in.append(turns)
        return ready(session)

    mine, peer = Handshake(bare()[0], make=noted), Handshake(bare()[1])
    with contextlib.ExitStack() as stack:
        stack.callback(mine.end)
        stack.callback(peer.end)
        for number in range(20):
            sock, stranger = connected()
            stack.enter_context(stranger)
            stranger.send(bytes([number]) * 16)
            mine.offer(sock, named=False)
        for each, sock in zip((mine, peer), connected(), strict=True):
            each.offer(sock)
        turn(count)
        link, other = await asyncio.gather(mine.link(), peer.link())
        turns = 10_000
        assert len(set(made_in)) == len(made_in)
        await talk(link, other)


class Splice:
    """One who knows nothing, and passes on what comes between two sockets that it holds."""

    def __init__(self, *socks: socket.socket) -> None:
        self._tasks = [asyncio.create_task(self._pass(*each)) for each in (socks, socks[::-1])]
        self._socks = socks

    async def _pass(self, source: socket.socket, to: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(source, 2**16):
                await loop.sock_sendall(to, data)
            to.shutdown(socket.SHUT_WR)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for sock in self._socks:
            sock.close()


async def spliced(one: Handshake, other: Handshake) -> Splice:
    """A socket of each, and somebody who holds their other ends."""
    (mine, near), (far, theirs) = connected(), connected()
    one.offer(mine)
    other.offer(theirs)
    return Splice(near, far)


async def test_two_calls_of_one_program_with_one_key_spliced_are_refused_by_both() -> None:
    """Each waits for a peer of its own; one who knows nothing has both of them prove the key to each other."""
    async with handshakes(*bare()) as (one, other):
        splice = await spliced(one, other)
        await settled(one, other)
        await splice.end()
        reasons = one.reasons + other.reasons
        assert not one.won.done()
        assert not other.won.done()
        assert Reason.OWN in reasons
        assert set(reasons) <= {Reason.OWN, Reason.GONE}


async def test_between_two_programs_somebody_who_only_passes_on_is_the_way() -> None:
    one, other = (Handshake(session, own=OwnNonces()) for session in bare())
    try:
        splice = await spliced(one, other)
        await talk(*await asyncio.gather(one.link(), other.link()))
        await splice.end()
    finally:
        one.end()
        other.end()


async def test_calls_of_two_threads_spliced_are_refused() -> None:
    """Each has a loop of its own."""
    (mine, near), (far, theirs) = connected(), connected()

    async def call(sock: socket.socket) -> Counter[Reason]:
        async with handshakes(bare()[0]) as (one,):
            one.offer(sock)
            await settled(one)
            assert not one.won.done()
            return one.reasons

    splice = Splice(near, far)
    calls = (asyncio.to_thread(asyncio.run, call(sock)) for sock in (mine, theirs))
    first, second = await asyncio.gather(*calls)
    await splice.end()
    assert Reason.OWN in first + second


STEPS = 5
"""Sendings of either side by nonces, at most: the nonce, a hello, a proof, and the choice or its answer."""
ENDS: dict[str, bytes] = {"FIN": b"\0" * 8, "RST": b"\1\0\0\0\0\0\0\0"}


async def peer_until(step: int, sock: socket.socket, peer: Channel) -> None:
    """Take part, and stop before the so-manieth sending."""
    loop, sent = asyncio.get_running_loop(), 0
    while True:
        if peer.state is State.PROVEN and peer.role is Role.INITIATOR:
            peer.choose()
        if said := peer.outgoing():
            if sent == step:
                return
            await loop.sock_sendall(sock, said)
            sent += 1
        if peer.answered or not (data := await loop.sock_recv(sock, 2**16)):
            return
        peer.receive(data)
        peer.answered = peer.state is State.UP and (peer.answered or peer.take_answer())


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("step", range(STEPS))
async def test_a_peer_that_is_killed_in_any_step_is_no_link_or_a_broken_one(
    how: str, way: str, side: int, step: int
) -> None:
    """Said at once, and not when its time is up."""
    both = WAYS[way]()
    nonces = [b"\xff" * 16, b"\0" * 16]  # greater or less than any other
    async with handshakes(both[side]) as (mine,):
        sock, theirs = connected()
        mine.offer(sock)
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ENDS[how])
            await asyncio.wait_for(peer_until(step, theirs, channel(both[1 - side], nonces[1 - side])), 20)
        await settled(mine)
        if not mine.won.done():
            assert set(mine.reasons) <= {Reason.GONE, Reason.NOT_CHOSEN}
            return
        reader, writer = streams(await mine.link())
        with pytest.raises((LinkError, LinkBroken)):
            await asyncio.wait_for(reader.read(), 20)
        writer.transport.abort()


async def test_a_hundred_links_at_once_come_up_and_talk() -> None:
    """A thousand, with what they cost: `benchmarks/link.py`."""
    async with contextlib.AsyncExitStack() as stack:
        made = [await stack.enter_async_context(handshakes(*sessions(), answer_s=60)) for _ in range(100)]
        for both in made:
            for each, sock in zip(both, connected(), strict=True):
                each.offer(sock)
        links = await asyncio.gather(*(each.link() for both in made for each in both))
        await asyncio.gather(*(talk(*pair) for pair in zip(links[::2], links[1::2], strict=True)))


def test_nothing_of_it_is_left_out_where_python_optimises() -> None:
    """Without a single `assert`: a peer with the key is met, and one with another is refused, both ways."""
    code = """
import asyncio
from simopen.link.streams import streams
from tests.link import test_handshake as here
def require(told):
    if not told:
        raise SystemExit("not so")
async def refused(one, other, reason):
    async with here.handshakes(one, other) as both:
        for each, sock in zip(both, here.connected()):
            each.offer(sock)
        await here.settled(*both)
        require(not any(each.won.done() for each in both))
        require(reason in both[0].reasons + both[1].reasons)
async def main():
    for way in here.WAYS.values():
        await refused(way(here.KEY)[0], way(here.OTHER_KEY)[1], here.Reason.OTHER_KEY)
        async with here.handshakes(*way()) as both:
            sock, stranger = here.connected()
            both[1].offer(sock, named=False)
            stranger.send(bytes(10**5))
            for each, sock in zip(both, here.connected()):
                each.offer(sock)
            (_, writer), (reader, other) = [streams(await each.link()) for each in both]
            writer.write(b"hello")
            require(await reader.readexactly(5) == b"hello")
            for each in (writer, other):
                each.transport.abort()
            stranger.close()
    await refused(here.sessions()[0], here.sessions()[0], here.Reason.SAME_ROLE)
    async with here.handshakes(*here.bare()) as (one, other):
        splice = await here.spliced(one, other)
        await here.settled(one, other)
        await splice.end()
        require(not one.won.done() and not other.won.done() and here.Reason.OWN in one.reasons + other.reasons)
asyncio.run(main())
assert not print("asserts are not left out")
"""
    command = [sys.executable, "-OO", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
