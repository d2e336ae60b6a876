"""Connections over one stream: both ways, many at once, slow ones, refused ones; and peers that ask for more."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeAlias

import asyncssh
import pytest

import simopen
from simopen.apps.forward.agreement import VERSION
from simopen.apps.forward.api import forward
from simopen.apps.forward.dialling import WITHIN_S
from simopen.apps.forward.proofs import proofs
from simopen.apps.forward.targets import LONGEST_NAME, MOST_FORWARDS, Forward, Target, named
from simopen.errors import ForwardError, LocalEndpointError
from simopen.link.handover import hand_over
from simopen.net.sockets import drop
from tests.link.peers import Ends, Pair, connected, stream_pair
from tests.loopback import kept_ports

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HERE = "127.0.0.1"
LONG_S = 20
LONG_NAME = "x" * (LONGEST_NAME + 1)


@contextlib.asynccontextmanager
async def stream(ends: Ends | None = None) -> AsyncIterator[tuple[Pair, Pair]]:
    """A link's two ends, the initiator's first; they are closed by who has them."""
    both = await stream_pair(ends=ends)
    try:
        yield both
    finally:
        for _, writer in both:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def target(serve: Serve) -> AsyncIterator[tuple[str, int]]:
    """Where that is served."""
    tasks = set[asyncio.Task[None]]()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()

    def accept(*streams: Any) -> None:
        tasks.add(task := asyncio.create_task(one(*streams)))
        task.add_done_callback(tasks.discard)

    async with await asyncio.start_server(accept, HERE, 0) as server:
        try:
            yield server.sockets[0].getsockname()[:2]
        finally:
            for task in tasks:
                task.cancel()


async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers once its peer has ended, so that half-closes have to travel."""
    writer.write((await reader.read()).upper())


async def upper_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As `upper`, for a server of its own."""
    await upper(reader, writer)
    writer.close()


_kept = contextlib.ExitStack()


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    """A test's ports are nobody else's while it runs."""
    yield
    _kept.close()


def free_port() -> int:
    return _kept.enter_context(kept_ports())[0]


@contextlib.asynccontextmanager
async def carrying(
    ours: Sequence[Forward] = (), theirs: Sequence[Forward] = (), allow: Sequence[Target] = (Target(HERE),)
) -> AsyncIterator[tuple[asyncio.Task[None], asyncio.Task[None]]]:
    """Both sides, once both listen."""
    async with stream() as both:
        ready = [asyncio.Event(), asyncio.Event()]
        one = asyncio.create_task(forward(both[0], forwards=ours, allow=allow, ready=lambda _: ready[0].set()))
        other = asyncio.create_task(forward(both[1], forwards=theirs, allow=allow, ready=lambda _: ready[1].set()))
        waits = [asyncio.create_task(event.wait()) for event in ready]
        up = asyncio.ensure_future(asyncio.gather(*waits))
        futures: list[asyncio.Future[Any]] = [up, one, other]
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        try:
            yield one, other
        finally:
            for each in futures:
                each.cancel()
            await asyncio.gather(*futures, return_exceptions=True)


async def asked(port: int, words: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HERE, port)
    writer.write(words)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize("side", ["who begins", "the other", "both"])
async def test_connections_go_both_ways_and_half_closes_travel(side: str) -> None:
    async with target(upper) as to:
        ours = [Forward((HERE, free_port()), to)] if side != "the other" else []
        theirs = [Forward((HERE, free_port()), to)] if side != "who begins" else []
        async with carrying(ours, theirs):
            for wanted in ours + theirs:
                answers = await asyncio.gather(*(asked(wanted.listen[1], b"words%d" % n) for n in range(20)))
                assert answers == [b"WORDS%d" % n for n in range(20)]


SPEAKS_FIRST = """
import itertools, socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
for number in itertools.count():
    connection, _ = server.accept()
    connection.sendall(b"banner")
    if number % 2:
        connection.settimeout(9)
        connection.recv(9)
    connection.close()
"""
ANSWERS_AT_LENGTH = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    asked = connection.recv(9)
    while connection.recv(9):
        pass
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_000_000)
    connection.sendall(bytes(int(asked)))
    connection.close()
"""


@contextlib.asynccontextmanager
async def program(source: str) -> AsyncIterator[tuple[str, int]]:
    """Where a server in a process of its own is: in this one's loop it would never be the faster one."""
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", source, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    try:
        yield HERE, int(await server.stdout.readline())
    finally:
        server.kill()
        await server.communicate()


@pytest.mark.parametrize("begins", [True, False])
async def test_what_a_target_says_before_it_is_asked_is_carried(*, begins: bool) -> None:
    """All of it, also where it then ends at once: a banner, the time of day."""
    async with program(SPEAKS_FIRST) as to:
        wanted = [Forward((HERE, free_port()), to)]
        async with carrying(*((wanted, []) if begins else ([], wanted))):
            for _ in range(60):
                reader, writer = await asyncio.open_connection(*wanted[0].listen)
                assert await reader.readexactly(6) == b"banner"
                writer.close()
                await writer.wait_closed()


@pytest.mark.parametrize("size", [3_000_000, 4_000_000])
@pytest.mark.parametrize("begins", [True, False])
async def test_a_long_answer_to_one_that_has_ended_its_side_comes_whole(size: int, *, begins: bool) -> None:
    """Though it is read more slowly than it is sent, and its sender has closed long before; less than a window, too."""
    async with program(ANSWERS_AT_LENGTH) as to:
        wanted = [Forward((HERE, free_port()), to)]
        async with carrying(*((wanted, []) if begins else ([], wanted))):
            for _ in range(3):
                reader, writer = await asyncio.open_connection(*wanted[0].listen, limit=2**12)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
                writer.write(b"%d" % size)
                writer.write_eof()
                got = 0
                await asyncio.sleep(0.1)  # its sender has gone by then, and a window's worth is on the way
                while piece := await reader.read(2**16):
                    got += len(piece)
                    await asyncio.sleep(0.001)
                assert got == size
                writer.close()
                await writer.wait_closed()


@pytest.mark.parametrize("begins", [True, False])
async def test_a_host_may_be_typed_in_capitals(begins: bool) -> None:
    async with target(upper) as (_, port):
        wanted = Forward.read(f"LocalHost:{free_port()}", f"LOCALHOST:{port}")
        sides = ([wanted], []) if begins else ([], [wanted])
        async with carrying(*sides, allow=[Target.read("localhost")]):
            assert await asked(wanted.listen[1], b"words") == b"WORDS"


def is_listened_at(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HERE, port))
        except OSError:
            return True
        return False


async def until(is_so: Callable[[], bool]) -> None:
    while True:
        if is_so():
            return
        await asyncio.sleep(0)


async def asked_at_once(port: int, words: bytes) -> bytes:
    """As `asked`, once somebody listens; to connect until then would use up ports that other tests have in mind."""
    while True:
        if is_listened_at(port):
            return await asked(port, words)
        await asyncio.sleep(0)


async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All that has come in a while at once."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(2**18):
            writer.write(piece)
            for _ in range(100):
                await asyncio.sleep(0)
    writer.close()


@contextlib.asynccontextmanager
async def relayed() -> AsyncIterator[tuple[tuple[Pair, Pair], list[asyncio.StreamWriter]]]:
    """A link by way of somebody, and the two streams that he writes to."""
    (one, near), (other, far) = connected(), connected()
    between = [await asyncio.open_connection(sock=sock) for sock in (near, far)]
    relay = asyncio.gather(*(passed_on(between[n][0], between[not n][1]) for n in range(2)))
    async with stream((one, other)) as both:
        yield both, [writer for _, writer in between]
    await relay


@pytest.mark.parametrize("begins", [True, False])
async def test_connections_of_the_moment_that_a_port_is_opened_are_carried(*, begins: bool) -> None:
    """Who asked for the port hears in one moment that it is open, and of a connection to it."""
    async with target(upper) as to, relayed() as (both, _):
        ours, theirs = both if begins else both[::-1]
        wanted = [Forward((HERE, free_port()), to) for _ in range(3)]
        asking = [asyncio.ensure_future(asked_at_once(each.listen[1], b"words")) for each in wanted]
        sides = [
            asyncio.ensure_future(forward(ours, forwards=wanted)),
            asyncio.ensure_future(forward(theirs, allow=[Target(HERE)])),
        ]
        try:
            assert await asyncio.gather(*asking) == [b"WORDS"] * 3
        finally:
            for task in (*asking, sides[0]):
                task.cancel()
            await asyncio.gather(*asking, *sides, return_exceptions=True)


async def test_large_ones_come_whole_while_a_slow_reader_and_a_broken_one_are_there() -> None:
    size, digests = 2_000_000, list[bytes]()

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        what = await reader.readexactly(1)
        body = what * size
        if what in b"0123456789":
            digests.append(hashlib.sha256(body).digest())
        writer.write(body)
        await writer.drain()

    async with target(floods) as to, carrying([wanted := Forward((HERE, free_port()), to)]):
        slow_reader, slow = await asyncio.open_connection(HERE, wanted.listen[1], limit=1)
        slow.write(b"s")  # and never reads
        _, broken = await asyncio.open_connection(HERE, wanted.listen[1])
        broken.write(b"b")
        await broken.drain()
        broken.transport.abort()
        found = await asyncio.gather(*(asked(wanted.listen[1], b"%d" % n) for n in range(10)))
        assert {len(each) for each in found} == {size}
        assert {hashlib.sha256(each).digest() for each in found} == set(digests)
        slow.transport.abort()
        del slow_reader


async def test_what_is_not_allowed_is_said_to_both_before_anything_is_carried() -> None:
    wanted = Forward((HERE, free_port()), ("192.168.1.1", 22))
    async with carrying([wanted], allow=[Target(HERE), Target("192.168.1.1", 23)]) as (asks, refuses):
        with pytest.raises(ForwardError, match=r"the peer does not allow connections to '?192\.168\.1\.1:22'?"):
            await asks
        with pytest.raises(ForwardError, match=r"the peer wants connections to '?192\.168\.1\.1:22'?, which were not"):
            await refuses


@pytest.mark.parametrize("begins", [True, False])
async def test_a_port_that_is_taken_is_said(*, begins: bool) -> None:
    async with target(upper) as taken:
        wanted = [Forward(taken, (HERE, 1))]
        async with carrying(*((wanted, []) if begins else ([], wanted))) as tasks:
            with pytest.raises(LocalEndpointError, match=f"{HERE}:{taken[1]}"):
                await tasks[not begins]


async def test_no_side_is_ready_whose_peer_has_failed_before() -> None:
    told: list[object] = []
    async with target(upper) as taken, stream() as (ours, theirs):
        ends = await asyncio.gather(
            forward(ours, forwards=[Forward(taken, (HERE, 1))], allow=[Target(HERE)]),
            forward(
                theirs,
                forwards=[Forward((HERE, free_port()), (HERE, 1))],
                allow=[Target(HERE)],
                ready=told.append,
            ),
            return_exceptions=True,
        )
    assert isinstance(ends[0], LocalEndpointError)
    assert told == []


@pytest.mark.parametrize("how", ["this side is cancelled", "the target's side is cancelled", "reset by its other end"])
async def test_a_cut_looks_like_an_end_to_neither_program(how: str) -> None:
    async def sends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half")
        try:
            await reader.read()
            seen.append("an end")
        except ConnectionError:
            seen.append("a reset")
        told.set()

    seen, told = list[str](), asyncio.Event()
    async with target(sends) as to:
        wanted = Forward((HERE, free_port()), to)
        async with carrying([wanted]) as sides:
            reader, writer = await asyncio.open_connection(*wanted.listen)
            writer.write(b"half")
            assert await reader.readexactly(4) == b"half"
            if how == "reset by its other end":
                drop(writer.get_extra_info("socket"))
                writer.transport.abort()
            else:
                sides[how == "the target's side is cancelled"].cancel()
                with pytest.raises(ConnectionError):
                    await reader.read()
            await told.wait()
            writer.close()
    assert seen == ["a reset"]


async def test_a_target_that_refuses_ends_its_own_connection_alone() -> None:
    async with (
        target(upper) as to,
        carrying([dead := Forward((HERE, free_port()), (HERE, 1)), alive := Forward((HERE, free_port()), to)]),
    ):
        with contextlib.suppress(ConnectionError):
            assert await asked(dead.listen[1], b"") == b""
        assert await asked(alive.listen[1], b"words") == b"WORDS"


async def test_a_target_that_takes_a_connection_and_never_answers_holds_up_no_other() -> None:
    came, gone = asyncio.Event(), asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await reader.read()
        gone.set()

    async with target(upper) as to, target(mute) as nobody:
        silent, alive = Forward((HERE, free_port()), nobody), Forward((HERE, free_port()), to)
        async with carrying([silent, alive]):
            _, waiting = await asyncio.open_connection(HERE, silent.listen[1])
            await came.wait()
            assert await asked(alive.listen[1], b"words") == b"WORDS"
            waiting.transport.abort()  # its user gives up, and the target hears of it
            await gone.wait()


async def test_where_both_end_at_once_nothing_is_left() -> None:
    """Neither side had heard of the other's end when it sent its own."""
    theirs = asyncio.Queue[asyncio.StreamWriter]()

    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))
        theirs.put_nowait(writer)
        await reader.read()

    async with target(ends) as to:
        wanted = Forward((HERE, free_port()), to)
        async with carrying([wanted]):
            before = len(os.listdir("/dev/fd"))
            for _ in range(20):
                reader, writer = await asyncio.open_connection(*wanted.listen)
                writer.write(b"?")
                await reader.readexactly(1)
                for each in (writer, await theirs.get()):
                    each.write_eof()
                assert await reader.read() == b""
                writer.close()
            async with asyncio.timeout(LONG_S):
                await until(lambda: len(os.listdir("/dev/fd")) <= before)


def dead_end() -> tuple[str, int]:
    """A port at which SYNs are dropped until the test's end: its queue is full, and nobody takes from it."""
    server = _kept.enter_context(socket.socket())
    server.bind((HERE, 0))
    server.listen(0)
    for _ in range(3):
        sock = _kept.enter_context(socket.socket())
        sock.setblocking(False)
        sock.connect_ex(server.getsockname())
    address: tuple[str, int] = server.getsockname()
    return address


@pytest.mark.parametrize("begins", [True, False])
async def test_a_target_that_cannot_be_reached_in_time_holds_up_no_other_and_no_end(*, begins: bool) -> None:
    async with target(upper) as to:
        wanted, before = (
            [Forward((HERE, free_port()), dead_end()), Forward((HERE, free_port()), to)],
            asyncio.all_tasks(),
        )
        async with carrying(*((wanted, []) if begins else ([], wanted))):
            waiting = [await asyncio.open_connection(HERE, wanted[0].listen[1]) for _ in range(3)]
            assert await asked(wanted[1].listen[1], b"words") == b"WORDS"
        for _, writer in waiting:
            writer.transport.abort()
        async with asyncio.timeout(LONG_S):  # the kernel goes on for two minutes
            while left := asyncio.all_tasks() - before:
                await asyncio.wait(left)


@pytest.mark.parametrize("begins", [True, False])
async def test_who_resets_while_a_target_is_silent_keeps_no_descriptor(*, begins: bool) -> None:
    wanted = Forward((HERE, free_port()), dead_end())
    async with carrying(*(([wanted], []) if begins else ([], [wanted]))):
        before = len(os.listdir("/dev/fd"))
        _, writer = await asyncio.open_connection(*wanted.listen)
        writer.write(b"words")
        async with asyncio.timeout(LONG_S):
            await until(lambda: len(os.listdir("/dev/fd")) >= before + 3)  # both ends of it; the peer's to the target
        drop(writer.get_extra_info("socket"))
        writer.transport.abort()
        async with asyncio.timeout(WITHIN_S / 2):
            await until(lambda: len(os.listdir("/dev/fd")) <= before + 1)


@pytest.mark.parametrize("begins", [True, False])
async def test_a_target_that_fails_is_told_on_both_sides_once(
    *, begins: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """And once more, where it was up meanwhile."""

    async def tried() -> bytes:
        with contextlib.suppress(ConnectionError):
            return await asked(wanted.listen[1], b"words")
        return b""

    to = HERE, free_port()
    wanted = Forward((HERE, free_port()), to)
    here = f"{named(*wanted.listen)} leads nowhere: the peer cannot connect to {named(*to)}: it refused the connection"
    there = f"cannot connect to {named(*to)} for the peer: it refused the connection"
    async with carrying(*(([wanted], []) if begins else ([], [wanted]))):
        for _ in range(3):
            assert await tried() == b""
        assert sorted(each.message for each in caplog.records) == sorted([here, there])
        async with await asyncio.start_server(upper_and_close, *to):
            assert await tried() == b"WORDS"
        assert await tried() == b""
    assert sorted(each.message for each in caplog.records) == sorted([here, there] * 2)
    assert {(each.name, each.levelname) for each in caplog.records} == {("simopen.forward", "WARNING")}


async def test_a_peer_that_tries_port_after_port_has_few_of_them_told(caplog: pytest.LogCaptureFixture) -> None:
    async with stream() as (theirs, ours):
        side = asyncio.ensure_future(forward(ours, allow=[Target(HERE)]))
        ssh = await as_client(theirs)
        for port in range(1, 2 * MOST_FORWARDS):
            with contextlib.suppress(asyncssh.ChannelOpenError):
                _, writer = await ssh.open_connection(HERE, port)
                writer.close()
        ssh.close()
        await ssh.wait_closed()
        await side
    assert len([each for each in caplog.records if each.name == "simopen.forward"]) <= MOST_FORWARDS


async def agreeing(stream: Pair) -> socket.socket:
    """A peer's side until SSH begins: it wants nothing."""
    reader, writer = stream
    words: list[dict[str, Any]] = [SAYS, {"refused": []}]
    for says in words:
        writer.write(json.dumps(says).encode() + b"\n")
        await reader.readuntil(b"\n")
    return await hand_over(stream)


def secret(stream: Pair) -> bytes:
    seed: bytes = stream[1].get_extra_info("simopen_link").seed
    return seed


async def as_client(stream: Pair, password: str | None = None) -> asyncssh.SSHClientConnection:
    sock = await agreeing(stream)
    said = proofs(secret(stream))[1] if password is None else password
    return await asyncssh.run_client(
        sock, config=None, known_hosts=None, client_keys=None, username="simopen", password=said
    )


async def as_server(stream: Pair, key: asyncssh.SSHKey | None = None) -> asyncssh.SSHServerConnection:
    sock = await agreeing(stream)
    return await asyncssh.run_server(sock, server_factory=Open, server_host_keys=[key or proofs(secret(stream))[0]])


class Open(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False


@pytest.mark.parametrize("password", ["", "simopen", "0" * 64])
async def test_who_has_not_the_link_s_secret_is_no_client(password: str) -> None:
    """Whoever has taken over the connection once TLS has ended."""
    async with target(upper) as to, stream() as (theirs, ours):
        side = asyncio.ensure_future(forward(ours, allow=[Target(*to)]))
        with pytest.raises(asyncssh.PermissionDenied):
            await as_client(theirs, password)
        with pytest.raises(ForwardError, match="broke before anything") as raised:
            await side
        assert raised.value.is_broken


async def test_who_has_not_the_link_s_secret_is_no_server() -> None:
    """And hears no password."""
    async with target(upper) as to, stream() as (ours, theirs):
        side = asyncio.ensure_future(forward(ours, allow=[Target(*to)]))
        with pytest.raises(asyncssh.DisconnectError):
            await as_server(theirs, asyncssh.generate_private_key("ssh-ed25519"))
        with pytest.raises(ForwardError, match="Host key is not trusted"):
            await side


async def test_a_peer_that_asks_for_more_than_was_allowed_gets_nothing() -> None:
    async with target(upper) as to, target(upper) as other, stream() as (theirs, ours):
        side = asyncio.ensure_future(forward(ours, allow=[Target(*to)]))
        ssh = await as_client(theirs)
        reader, writer = await ssh.open_connection(*to)
        writer.write(b"words")
        writer.write_eof()
        assert await reader.read() == b"WORDS"
        for where in (other, ("localhost", to[1])):
            with pytest.raises(asyncssh.ChannelOpenError):
                await ssh.open_connection(*where)
        with pytest.raises(asyncssh.ChannelOpenError):
            await ssh.open_unix_connection("/nowhere")
        with pytest.raises(asyncssh.ChannelListenError):
            await ssh.forward_remote_port(HERE, 0, *to)
        with pytest.raises(asyncssh.ChannelOpenError):
            await ssh.create_process("id")
        ssh.close()
        await ssh.wait_closed()
        await side


async def test_a_peer_opens_nothing_at_ssh_s_client_that_was_not_asked_for() -> None:
    async with target(upper) as to, stream() as (ours, theirs):
        side = asyncio.ensure_future(forward(ours, allow=[Target(*to)]))
        ssh = await as_server(theirs)
        with pytest.raises(asyncssh.ChannelOpenError):
            await ssh.create_connection(lambda *_: asyncssh.SSHTCPSession(), *to)
        ssh.close()
        await ssh.wait_closed()
        await side


async def test_cancelled_the_other_side_ends_in_order() -> None:
    async with carrying([Forward((HERE, free_port()), (HERE, 1))]) as (one, other):
        one.cancel()
        await other
        with pytest.raises(asyncio.CancelledError):
            await one


@pytest.mark.parametrize("how", ["reset", "ended"])
async def test_a_stream_that_breaks_is_told(how: str) -> None:
    """By somebody on the way, whose FIN is no end either."""
    async with relayed() as ((ours, theirs), between):
        ready = [asyncio.Event(), asyncio.Event()]
        one = asyncio.create_task(forward(ours, ready=lambda _: ready[0].set()))
        other = asyncio.create_task(forward(theirs, ready=lambda _: ready[1].set()))
        await asyncio.gather(*(event.wait() for event in ready))
        for writer in between:
            if how == "reset":
                drop(writer.get_extra_info("socket"))
                writer.transport.abort()
            else:
                writer.write_eof()
        for task in (one, other):
            with pytest.raises(ForwardError, match="broke") as raised:
                await task
            assert raised.value.is_broken


SAYS = {"simopen forward": VERSION, "forwards": []}


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"[" * 5000 + b"\n",
        b"x" * 2**18,
        json.dumps({**SAYS, "simopen forward": VERSION + 1}).encode() + b"\n",
        json.dumps({**SAYS, "forwards": [{"listen": ["h", 1], "to": ["h", 2**40]}]}).encode() + b"\n",
        json.dumps({**SAYS, "forwards": [{"listen": ["h", 1], "to": ["", 1]}]}).encode() + b"\n",
        json.dumps({**SAYS, "forwards": [{"listen": ["h", 1], "to": ["h", 1]}] * 65}).encode() + b"\n",
        json.dumps(SAYS).encode() + b"\n" + b"{}\n",
        json.dumps(SAYS).encode() + b"\nnull\n",
    ],
)
async def test_a_peer_that_speaks_something_else_is_told_apart(said: bytes) -> None:
    async with stream() as (ours, theirs):
        theirs[1].write(said)
        with pytest.raises(ForwardError, match="speaks something else"):
            await forward(ours)


async def test_a_peer_that_ends_at_once_is_told() -> None:
    async with stream() as (ours, theirs):
        theirs[1].close()
        with pytest.raises(ForwardError, match=r"ended the stream|broke"):
            await forward(ours)


async def test_a_stream_on_which_nobody_is_proven_is_refused() -> None:
    one, _other = connected()
    with pytest.raises(ValueError, match="nobody is proven"):
        await forward(await asyncio.open_connection(sock=one))
    _other.close()


async def test_what_is_no_stream_is_refused() -> None:
    for nothing in ((1, 2), None):
        with pytest.raises(TypeError, match="a stream is a"):
            await forward(nothing)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a writer is"):
            await simopen.remember("x", nothing)  # type: ignore[arg-type]


async def test_too_many_are_refused() -> None:
    async with stream() as (ours, _):
        with pytest.raises(ValueError, match="64 at most"):
            await forward(ours, forwards=[Forward((HERE, 1), (HERE, 2))] * (MOST_FORWARDS + 1))


@pytest.mark.parametrize(
    ("listen", "to", "found"),
    [
        ("8080", "127.0.0.1:80", Forward((HERE, 8080), (HERE, 80))),
        ("0.0.0.0:8080", "nas.local:80", Forward(("0.0.0.0", 8080), ("nas.local", 80))),
        ("[::1]:8080", "[fd00::1]:80", Forward(("::1", 8080), ("fd00::1", 80))),
    ],
)
def test_what_is_typed_is_read(listen: str, to: str, found: Forward) -> None:
    assert Forward.read(listen, to) == found


@pytest.mark.parametrize(
    ("listen", "to"),
    [
        *[("0", "h:1"), ("8080", "h"), ("h", "h:1"), ("70000", "h:1"), ("", "h:1"), (":80", "h:1"), ("80", ":1")],
        *[("*:80", "h:1"), ("80", "*:1"), ("80", f"{LONG_NAME}:1"), (f"{LONG_NAME}:80", "h:1")],
    ],
)
def test_what_cannot_be_read_is_refused(listen: str, to: str) -> None:
    with pytest.raises(ValueError, match=r"port|host|address"):
        Forward.read(listen, to)


@pytest.mark.parametrize(
    ("allow", "why"),
    [
        ("", "there is no host"),
        (":80", "there is no host"),
        ("*", "there is no word for all"),
        ("*.example.org:80", "there is no word for all"),
        (LONG_NAME, "253 characters at most"),
    ],
)
def test_what_is_no_single_host_is_not_allowed(allow: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Target.read(allow)


def test_the_longest_name_there_is_may_be_named() -> None:
    assert Forward.read("80", f"{LONG_NAME[1:]}:80").to[0] == Target.read(LONG_NAME[1:]).host == LONG_NAME[1:]


def test_a_target_covers_what_it_says() -> None:
    assert Target.read("nas:80").covers("nas", 80)
    assert not Target.read("nas:80").covers("nas", 81)
    assert Target.read("nas").covers("nas", 81)
    assert not Target.read("nas").covers("nas.evil", 80)
