"""Which stream is kept, and that nobody is left with two or none. The races themselves are in test_planning.py."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from simopen.holepunch.attempts import Stream
from simopen.holepunch.nomination import MOST_OFFERED, Choice
from simopen.model.endpoint import Endpoint
from simopen.model.report import Via
from simopen.net.sockets import drop
from tests.loopback import HERE


@contextlib.contextmanager
def connected() -> Iterator[tuple[Stream, socket.socket]]:
    """A stream, and the peer's end of it."""
    with socket.create_server((HERE, 0)) as server, socket.create_connection(server.getsockname()) as peer:
        sock, _ = server.accept()
        sock.setblocking(False)
        with sock:
            yield Stream(sock, Endpoint(*peer.getsockname()), Via.ACCEPT, 0, 20_000_000), peer


@pytest.fixture
def stream() -> Iterator[Stream]:
    with connected() as (stream, _):
        yield stream


def choosing(*, chooses: bool | None) -> Choice:
    """Something better may always come."""
    loop = asyncio.get_running_loop()
    return Choice(loop, chooses=chooses, coming=lambda _: True, lost=lambda: None)


@pytest.mark.parametrize("chooses", [None, True, False])
@pytest.mark.parametrize("failed", [False, True])
async def test_what_is_to_be_kept_in_the_moment_when_nobody_waits_any_more_is_closed(
    stream: Stream, *, chooses: bool | None, failed: bool
) -> None:
    choice = choosing(chooses=chooses)
    choice.offer(stream, 1, 0)
    choice.fail(ConnectionError()) if failed else choice.won.cancel()
    timer = choice._timer
    assert timer is not None
    while timer.when() > asyncio.get_running_loop().time():  # noqa: ASYNC110 - the timer's own call is awaited
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.001)
    choice.end()
    assert stream.sock.fileno() == -1


@pytest.mark.parametrize("chooses", [None, True, False])
async def test_what_waits_for_a_better_one_as_the_time_is_up_is_taken(stream: Stream, *, chooses: bool | None) -> None:
    choice = choosing(chooses=chooses)
    choice.offer(stream, 1, 2**60)
    choice.won.cancel()
    assert choice.last() is stream
    choice.end()
    assert stream.sock.fileno() != -1


async def test_what_was_kept_in_the_moment_when_the_time_is_up_is_taken(stream: Stream) -> None:
    choice = choosing(chooses=None)
    waiter = asyncio.create_task(choice.stream())
    await asyncio.sleep(0)
    choice.offer(stream, 0, 0)
    choice._keep_best()
    waiter.cancel()
    await asyncio.wait({waiter})
    assert choice.last() is stream
    choice.end()
    assert stream.sock.fileno() != -1


@pytest.mark.parametrize("speaks", [False, True], ids=["resets the other", "speaks"])
async def test_who_follows_keeps_what_the_peer_keeps_however_late_that_shows(*, speaks: bool) -> None:
    """The first one's round trip is long over, and the peer's loop has been busy elsewhere."""
    choice = choosing(chooses=False)
    with connected() as (first, its_peer), connected() as (second, other_peer):
        for stream in (first, second):
            choice.offer(stream, 0, 0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.shield(choice.won)
        if speaks:
            other_peer.send(b"hello")
        else:
            drop(its_peer)
            its_peer.close()
        assert await choice.stream() is second
        assert first.sock.fileno() == -1
    choice.end()


async def test_who_follows_and_is_told_nothing_takes_one_in_the_end() -> None:
    """The RST may have been lost on the way."""
    choice = choosing(chooses=False)
    with connected() as (first, _), connected() as (second, _):
        for stream in (first, second):
            choice.offer(stream, 0, 0)
        assert await choice.stream() is first
    choice.end()


@pytest.mark.parametrize("chooses", [None, True, False])
async def test_of_thousands_only_a_few_wait_and_the_better_one_wins(*, chooses: bool | None) -> None:
    """Somebody else at the peer's address, behind the same NAT, before and after the peer itself."""
    choice = choosing(chooses=chooses)
    # Nobody is reset: as a stranger's are not by the peer.
    strangers = [Faked(number) for number in range(3000)]
    for stranger in strangers[:1500]:
        choice.offer(stranger.stream, 1, 2**30, named=False)
    with connected() as (peer, _):
        choice.offer(peer, 1, 2**30)
        for stranger in strangers[1500:]:
            choice.offer(stranger.stream, 1, 2**30, named=False)
        assert len(choice._offered) <= MOST_OFFERED
        assert sum(not stranger.closed for stranger in strangers) < MOST_OFFERED
        assert await choice.stream() is peer
    assert all(stranger.closed for stranger in strangers)
    choice.end()


class Faked:
    """A stream that is up and on which nobody speaks. It cannot be used."""

    def __init__(self, number: int) -> None:
        self.closed = False
        remote = Endpoint(HERE, 1024 + number)
        self.stream = Stream(self, remote, Via.ACCEPT, 0, 20_000_000)  # type: ignore[arg-type]

    def close(self) -> None:
        self.closed = True

    def recv(self, count: int, flags: int) -> bytes:
        raise BlockingIOError

    def getsockopt(self, level: int, name: int) -> int:
        return 0
