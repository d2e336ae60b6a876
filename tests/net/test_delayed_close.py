"""A stream's end leaves when routers can follow it, whoever ends it and however; so the same two can meet again."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pickle
import resource
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, cast

import pytest

import simopen
from benchmarks import again
from simopen import lab
from simopen.lab import Flags, LinuxRouter
from simopen.model.endpoint import Endpoint
from simopen.model.times import MonoNs
from simopen.net import early_syn
from simopen.net.delayed_close import Endings, PunchedSocket, shared
from tests.holepunch.test_punching import LEAD_NS, PORT
from tests.loopback import ports
from tests.loops import this_loop
from tests.stalls import ALONE_S

__all__ = ["ports"]
_LOAD_HALF = 0x28  # linux/bpf_common.h
ENDER = str(Path(__file__).parents[1].joinpath("ender.py"))
WAYS = ("close", "end of file", "reset", "punch, close", "punch, shutdown", "punch, reset")
LONG_NS = 700_000_000
LONG_S = 30.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
OWN_PORT = ("127.0.0.1", 0)
"""Bound as a punch's is. A port that `connect` chooses may be another program's, too, which then keeps it."""


async def end_both(
    hosts: list[lab.Host], ways: tuple[str, ...], first: int = PORT, **options: Any
) -> list[list[dict[str, Any] | None]]:
    """Both sides end each stream in that way as soon as it is up; each has a port of its own, from `first` on."""
    at_ns = time.monotonic_ns() + LEAD_NS

    async def one(host: lab.Host, peer: lab.Host) -> list[dict[str, Any] | None]:
        orders = [
            {"peer": [peer.public_address, first + number], "port": first + number, "at": at_ns, "way": way, **options}
            for number, way in enumerate(ways)
        ]
        done = await host.run([sys.executable, ENDER, this_loop(), json.dumps(orders)])
        assert (done.returncode, done.stderr) == (0, b"")
        found: list[dict[str, Any] | None] = json.loads(done.stdout)
        return found

    return list(await asyncio.gather(one(hosts[0], hosts[1]), one(hosts[1], hosts[0])))


@pytest.mark.lab
@pytest.mark.parametrize("ways", [WAYS, ("close",), ("punch, reset",)], ids=["each way", "close, exit", "reset, exit"])
async def test_no_end_leaves_before_the_peer_s_first_ack_has_come(ways: tuple[str, ...]) -> None:
    """The single ones: the program ends right after, and an interpreter that ends waits for its streams."""
    async with lab.Network() as net:
        hosts = [await net.host(name, delay_s=0.06) for name in ("left", "right")]
        assert await end_both(hosts, ways) == [[None] * len(ways)] * 2
        record = await net.record()
        async with asyncio.timeout(LONG_S):
            while not all_ended(record, len(ways)):  # a busy lab takes a while to read what a program sent at its end
                record = await net.record()
    assert record.syns_crossed("left", "right")
    for port in range(PORT, PORT + len(ways)):
        for us, them in (("left", "right"), ("right", "left")):
            ours, theirs = (
                [each for each in record if each.source == name and each.sent.source.port == port]
                for name in (us, them)
            )
            ends_ns = [each.sent_ns for each in ours if is_end(each)]
            acks_ns = [each.received_ns for each in theirs if each.sent.flags == Flags.ACK and each.received_ns]
            assert ends_ns or was_reset(record, us, port), (us, port)
            assert not ends_ns or min(ends_ns) > min(acks_ns), (us, port)


def all_ended(record: lab.Record, count: int) -> bool:
    """Whether each side has sent a FIN or RST on each of so many ports, or had the other's RST, which spares it one."""
    seen = {(each.source, each.sent.source.port) for each in record if is_end(each)}
    return all(
        (side, port) in seen or was_reset(record, side, port)
        for side in ("left", "right")
        for port in range(PORT, PORT + count)
    )


def was_reset(record: lab.Record, side: str, port: int) -> bool:
    """Whether the peer's RST has come to that side's port."""
    return any(
        each.source != side and each.sent.source.port == port and each.sent.flags & Flags.RST and each.received_ns
        for each in record
        if is_end(each)
    )


def is_end(passage: lab.Passage) -> bool:
    """Whether that ends a stream. A RST of number 0 refuses a SYN: its program has been kept by a busy machine."""
    return bool(passage.sent.flags & Flags.FIN or (passage.sent.flags & Flags.RST and passage.sent.seq))


@pytest.mark.lab(router=True)
@pytest.mark.real_server
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("nat", ["router", "model"])
def test_the_same_two_endpoints_meet_again_and_again_behind_routers_that_drop(loop: str, nat: str) -> None:
    options = argparse.Namespace(rtt=80, loop=loop, at_once=24, meetings=3, model=nat == "model")
    found = asyncio.run(again.measure(("drop", "drop"), again.BRIEFLY, options))
    assert {ending: each.error for ending, met in found.items() for each in met if each.error} == {}


@pytest.mark.lab(router=True)
@pytest.mark.real_server
async def test_an_end_that_comes_too_early_shuts_the_next_stream_out() -> None:
    """What this is all about, in the router and in its model: who gets around the library cannot meet again."""
    async with lab.Network() as net:
        nats: dict[str, lab.LinuxRouter | lab.Nat] = {"router": LinuxRouter(), "model": LinuxRouter().model}
        pairs = [
            [await net.host(f"{side}-{name}", delay_s=0.15, nat=nat) for side in ("left", "right")]
            for name, nat in nats.items()
        ]
        await asyncio.gather(*map(shut_out, pairs))


async def shut_out(hosts: list[lab.Host]) -> None:
    ways = ("punch, around the library",)
    for port in range(PORT, PORT + 10):
        assert await end_both(hosts, ways, port) == [[None], [None]]
        told = await end_both(hosts, ways, port, window=ALONE_S)
        if told != [[None], [None]]:
            break  # else a machine that stalled for half of a round trip has ended them late enough
    causes = {said and said["diagnosis"]["cause"] for (said,) in told}
    # The kernel remembers it on the side that ended first; on both, where they did so at once.
    assert simopen.Cause.EARLIER_STREAM in causes, told
    assert causes <= {simopen.Cause.EARLIER_STREAM, simopen.Cause.SILENCE}, told


@contextlib.contextmanager
def held() -> Iterator[tuple[PunchedSocket, socket.socket]]:
    """A stream that is held for a while after its handshake, and the peer's end."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        theirs, _ = server.accept()
        with theirs, shared.hold(sock, LONG_NS) as ours:
            yield ours, theirs


@pytest.fixture
def pair() -> Iterator[tuple[PunchedSocket, socket.socket]]:
    with held() as both:
        yield both
    shared.finish()


@pytest.fixture
def other(pair: tuple[PunchedSocket, socket.socket]) -> Iterator[tuple[PunchedSocket, socket.socket]]:
    """Another such pair, which is closed already: what comes before its end did not wait so long."""
    with held() as both:
        both[0].close()
        yield both


def ends(sock: socket.socket, timeout_s: float | None = None) -> bytes | None:
    """What the end of a stream looks like to the peer; None where there is none within that time."""
    sock.settimeout(timeout_s)
    try:
        return sock.recv(100)
    except (TimeoutError, BlockingIOError):
        return None


def test_a_stream_that_is_closed_ends_a_little_later(pair: tuple[PunchedSocket, socket.socket]) -> None:
    ours, theirs = pair
    ours.close()
    assert ours.fileno() < 0
    assert ends(theirs, 0) is None
    assert ends(theirs, 10) == b""


def test_what_the_peer_has_acknowledged_is_ended_sooner(
    pair: tuple[PunchedSocket, socket.socket], other: tuple[PunchedSocket, socket.socket]
) -> None:
    ours, theirs = pair
    ours.send(b"1")
    assert theirs.recv(1) == b"1"
    ours.close()
    assert ends(theirs, 10) == b""
    assert ends(other[1], 0) is None


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_shutdown_waits_too(pair: tuple[PunchedSocket, socket.socket], how: int) -> None:
    ours, theirs = pair
    ours.shutdown(how)
    assert ends(theirs, 0) is None
    assert ends(theirs, 10) == b""


def test_a_shutdown_that_comes_later_does_not(pair: tuple[PunchedSocket, socket.socket]) -> None:
    ours, theirs = pair
    shared.finish()
    ours.shutdown(socket.SHUT_WR)
    assert ends(theirs, 10) == b""


def test_a_reset_is_one_when_it_leaves(pair: tuple[PunchedSocket, socket.socket]) -> None:
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    ours.close()
    with pytest.raises(ConnectionResetError):
        ends(theirs, 10)


def test_a_peer_that_resets_it_ends_the_waiting(
    pair: tuple[PunchedSocket, socket.socket], other: tuple[PunchedSocket, socket.socket]
) -> None:
    ours, theirs = pair
    may_end = threading.Event()
    assert ours.wait_to_end(may_end.set)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    theirs.close()
    assert may_end.wait(10)
    assert not ours.wait_to_end(pytest.fail)
    assert ends(other[1], 0) is None


def test_a_forked_child_does_not_keep_its_parent_s_stream_open(pair: tuple[PunchedSocket, socket.socket]) -> None:
    ours, theirs = pair
    gate, opener = os.pipe()
    child = os.fork()
    if not child:
        os.close(opener)
        ours.close()
        os.read(gate, 1)  # until the parent has seen the end
        os._exit(0)
    os.close(gate)
    try:
        ours.close()
        assert ends(theirs, 10) == b""
    finally:
        os.close(opener)
        os.waitpid(child, 0)


def test_a_fork_in_the_middle_of_a_look_leaves_that_stream_to_the_parent_too() -> None:
    endings, looks, abandoned = Endings(), threading.Event(), threading.Event()

    class Looks:
        """A job at which the thread looks at that moment; this test is what the child does first."""

        def look(self) -> None:
            endings.forked()
            looks.set()

        def abandon(self) -> None:
            abandoned.set()

    endings.add(cast("Any", Looks()))
    assert looks.wait(10)
    assert abandoned.is_set()


def test_at_the_interpreter_s_end_nobody_else_s_descriptor_is_closed(
    pair: tuple[PunchedSocket, socket.socket], tmp_path: Path
) -> None:
    """What uvloop closes with a loop it closes by number, and a file may have that number since."""
    endings, (ours, _) = Endings(), pair
    stream = endings.hold(ours, 0)
    number = stream.fileno()
    with (tmp_path / "kept").open("w") as file:
        os.dup2(file.fileno(), number)
        endings.end_all()
        assert stream.fileno() < 0
        assert os.fstat(number).st_ino == os.fstat(file.fileno()).st_ino
        os.close(number)


def test_without_descriptors_a_stream_is_handed_over_all_the_same() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, hard))
            ours = shared.hold(sock, LONG_NS)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        theirs, _ = server.accept()
        with theirs:
            ours.close()
            assert ends(theirs, 10) == b""


def test_another_process_gets_a_plain_socket(pair: tuple[PunchedSocket, socket.socket]) -> None:
    ours, theirs = pair
    other = pickle.loads(ForkingPickler.dumps(ours))
    with other:
        assert type(other) is socket.socket
        other.send(b"1")
        assert theirs.recv(1) == b"1"


def test_what_has_ended_is_remembered_by_its_port_and_peer(pair: tuple[PunchedSocket, socket.socket]) -> None:
    ours, _ = pair
    port, remote = ours.getsockname()[1], Endpoint(*ours.getpeername())
    assert shared.ended_ns(port, remote) is None
    before_ns = time.monotonic_ns()
    ours.close()
    ended_ns = shared.ended_ns(port, remote)
    assert ended_ns is not None
    assert before_ns <= ended_ns <= time.monotonic_ns()
    assert shared.ended_ns(port + 1, remote) is None
    assert shared.ended_ns(port, Endpoint(remote.address, remote.port + 1)) is None


def test_what_has_ended_is_told_in_words(pair: tuple[PunchedSocket, socket.socket]) -> None:
    """By this process's memory; and where another process had it, by the kernel's, as long as that lasts."""
    ours, theirs = pair
    local, remote = ours.getsockname(), Endpoint(*ours.getpeername())
    assert shared.earlier(local, remote, MonoNs(time.monotonic_ns())) is None
    ours.close()
    ended_ns = shared.ended_ns(local[1], remote)
    assert ended_ns is not None
    told = shared.earlier(local, remote, MonoNs(ended_ns + 3 * 10**9))
    assert told == "this program ended a stream between the same two endpoints 3.0 s before the instant"
    assert ends(theirs, 10) == b""
    theirs.close()
    shared.finish()
    told = Endings().earlier(local, remote, MonoNs(time.monotonic_ns()))
    assert told == "this host still has an earlier stream between the same two endpoints, which has ended (TIME-WAIT)"


def test_the_memory_of_what_has_ended_is_bounded() -> None:
    endings = Endings()
    for number in range(2000):
        endings.note((Endpoint("10.0.0.1", 1), Endpoint("10.0.0.2", 1 + number)))
    assert endings.ended_ns(1, Endpoint("10.0.0.2", 1)) is None
    assert endings.ended_ns(1, Endpoint("10.0.0.2", 2000)) is not None


async def test_a_writer_s_end_waits_and_nothing_is_written_after_it(ports: tuple[int, int]) -> None:
    (reader, writer), (theirs, their_writer) = await asyncio.gather(*connections(ports))
    writer.write(b"1")
    writer.write_eof()
    with pytest.raises(RuntimeError, match="after write_eof"):
        writer.write(b"2")
    with pytest.raises(RuntimeError, match="after write_eof"):
        writer.writelines([b"2"])
    assert await theirs.read() == b"1"
    their_writer.write(b"3")
    their_writer.close()
    assert await reader.read() == b"3"
    writer.close()
    await asyncio.gather(writer.wait_closed(), their_writer.wait_closed())


async def test_a_second_end_and_one_after_a_close_do_nothing(ports: tuple[int, int]) -> None:
    (reader, writer), (theirs, their_writer) = await asyncio.gather(*connections(ports))
    writer.write_eof()
    writer.write_eof()
    writer.close()
    their_writer.close()
    assert await theirs.read() == b""
    assert await reader.read() == b""


def connections(ports: tuple[int, int]) -> Iterator[Any]:
    for here, there in (ports, ports[::-1]):
        yield simopen.connect(("127.0.0.1", there), local=("127.0.0.1", here))


def test_a_loop_that_is_gone_keeps_no_stream_from_ending(ports: tuple[int, int]) -> None:
    async def leave() -> socket.socket:
        (sock, _), (theirs, _) = await asyncio.gather(
            *(simopen.punch(("127.0.0.1", there), local=("127.0.0.1", here)) for here, there in (ports, ports[::-1]))
        )
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=sock)
        transport.close()
        return theirs

    with asyncio.run(leave()) as theirs:
        assert ends(theirs, 10) == b""


def test_the_thread_ends_with_the_last_stream(pair: tuple[PunchedSocket, socket.socket]) -> None:
    assert [each.name for each in threading.enumerate() if each.name == "simopen-ending"]
    pair[0].close()
    shared.finish()
    assert not [each.name for each in threading.enumerate() if each.name == "simopen-ending"]


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """None can be had while inside: the address space has no room for its stack."""
    before = threading.stack_size(2**47)
    try:
        yield
    finally:
        threading.stack_size(before)


def test_without_a_thread_a_stream_is_handed_over_all_the_same() -> None:
    endings = Endings()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        with no_threads():
            ours = endings.hold(sock, LONG_NS)
        theirs, _ = server.accept()
        with theirs:
            ours.close()
            assert ends(theirs, 10) == b""
    endings.finish()


def close_by_number(sock: PunchedSocket) -> None:
    """As uvloop does with what a loop has at its end."""
    os.close(sock.fileno())
    sock.detach()


LEAVINGS: dict[str, Callable[[PunchedSocket], object]] = {
    "close": PunchedSocket.close,
    "by number": close_by_number,
    "collected": bool,
}


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.parametrize("way", LEAVINGS)
def test_a_reset_is_followed_by_a_syn_however_the_stream_is_left(way: str, is_held: bool) -> None:
    """On loopback, that SYN comes to the very server that the stream was with."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname(), source_address=OWN_PORT)
        theirs, remote = server.accept()
        with theirs:
            followers = Followers(server, remote)
            ours = shared.hold(sock, LONG_NS if is_held else 0)
            if not is_held:
                shared.finish()
            theirs.send(b"unread")
            assert select.select([ours], [], [], 10)[0], "a kernel that is busy delivers it later"
            LEAVINGS[way](ours)
            del ours, sock
            followers.wait()
    shared.finish()


def test_that_syn_waits_for_no_other_thread() -> None:
    """Which may get its turn after the peer's own reset has come, and then it is too late: here, never."""
    looks, go_on = threading.Event(), threading.Event()

    class Holds:
        """A job at which the thread is held."""

        def look(self) -> None:
            looks.set()
            go_on.wait()

    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname(), source_address=OWN_PORT)
        theirs, remote = server.accept()
        with theirs:
            followers, ours = Followers(server, remote), shared.hold(sock, 0)
            shared.finish()
            shared.add(cast("Any", Holds()))
            assert looks.wait(10)
            try:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                ours.close()
                followers.wait()
            finally:
                go_on.set()
    shared.finish()


class Followers:
    """Counts the SYNs that come to a server from one endpoint, whoever has closed meanwhile what sent them.

    To let them in would not do: a kernel that is busy may deliver one when its socket is closed already, and then the
    handshake comes to no end. So they are dropped by a filter, as in `early_syn.py`, and the kernel counts them.
    """

    def __init__(self, server: socket.socket, remote: tuple[str, int]) -> None:
        self._server = server
        port, flags, is_syn = 0, 13, 0x02
        early_syn._attach(
            server,
            b"".join(
                (
                    early_syn._instruction(_LOAD_HALF, port),
                    early_syn._instruction(early_syn._IF_EQUAL, remote[1], no=4),
                    early_syn._instruction(early_syn._LOAD_BYTE, flags),
                    early_syn._instruction(early_syn._AND, 0x12),
                    early_syn._instruction(early_syn._IF_EQUAL, is_syn, no=1),
                    early_syn._instruction(early_syn._RETURN, early_syn._DROP),
                    early_syn._instruction(early_syn._RETURN, early_syn._PASS),
                )
            ),
        )

    def wait(self) -> None:
        """For the first one."""
        ends_s = time.monotonic() + 10
        while not self._count():
            assert time.monotonic() < ends_s, "no SYN has come"
            time.sleep(0.001)

    def _count(self) -> int:
        layout = early_syn._MEMINFO
        told = self._server.getsockopt(socket.SOL_SOCKET, early_syn._SO_MEMINFO, layout.size)
        return int(layout.unpack(told)[early_syn._DROPS])


LEAVER = """
import gc, socket, sys
from simopen.net.delayed_close import shared
from simopen.model.times import MonoNs
def main(port):
    ours = shared.hold(socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.1", 0)), 0)
    shared.finish()
    ours.setblocking(True)
    ours.recv(1, socket.MSG_PEEK)
    {leave}
main(int(sys.argv[1]))
"""


@pytest.mark.parametrize("leave", ["sys.exit()", "raise ValueError", "globals().update(kept=ours)"])
def test_an_interpreter_that_ends_leaves_no_stream_as_it_is(leave: str) -> None:
    """With something unread that is a reset, and a SYN follows it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = [sys.executable, "-c", LEAVER.format(leave=leave), str(server.getsockname()[1])]
        with subprocess.Popen(program, stderr=subprocess.PIPE) as child:
            theirs, remote = server.accept()
            with theirs:
                followers = Followers(server, remote)
                theirs.send(b"unread")
                followers.wait()
            _, told = child.communicate(timeout=20)
    assert b"ImportError" not in told
