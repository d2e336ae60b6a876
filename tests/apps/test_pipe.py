"""Descriptors of every kind on one end, a peer on the other."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pty
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from simopen.apps.pipe import CHUNK, Carried, pipe

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CHUNKS = 16  # how far a thread may run ahead of the stream, or lag behind it


@contextlib.asynccontextmanager
async def streams() -> AsyncIterator[tuple[Pair, Pair]]:
    """The two ends of one TCP stream, each as (reader, writer); both are gone afterwards."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        left = await asyncio.open_connection(*server.getsockname())
        sock, _ = await loop.sock_accept(server)
    right = await asyncio.open_connection(sock=sock)
    try:
        yield left, right
    finally:
        for _, writer in (left, right):
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.contextmanager
def a_pipe() -> Iterator[list[int]]:
    """[read end, write end]; what is set to -1 was closed by the test."""
    ends = list(os.pipe())
    try:
        yield ends
    finally:
        for fd in ends:
            if fd >= 0:
                os.close(fd)


def close(ends: list[int], which: int) -> None:
    os.close(ends[which])
    ends[which] = -1


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what others' threads and the kernel do sets no event
            await asyncio.sleep(0.001)


async def read_fd(fd: int, size: int = CHUNK) -> bytes:
    return await asyncio.to_thread(os.read, fd, size)


async def read_all(fd: int, size: int = CHUNK) -> bytes:
    """To the end, `size` bytes at a time."""
    whole = bytearray()
    while chunk := await read_fd(fd, size):
        whole += chunk
    return bytes(whole)


def nowhere() -> int:
    return os.open(os.devnull, os.O_RDWR)


# --- both ways


async def test_the_source_is_sent_and_the_stream_lands_in_the_sink() -> None:
    async with streams() as (left, right):
        with a_pipe() as source, a_pipe() as sink:
            task = asyncio.create_task(pipe(*left, source=source[0], sink=sink[1]))
            os.write(source[1], b"I love you.")
            assert await right[0].readexactly(11) == b"I love you."
            right[1].write(b"I know.")
            assert await read_fd(sink[0]) == b"I know."
            close(source, 1)
            right[1].write_eof()
            assert await task == Carried(sent=11, received=7)


async def test_after_the_source_has_ended_the_peer_can_still_speak() -> None:
    async with streams() as (left, right):
        with a_pipe() as source, a_pipe() as sink:
            task = asyncio.create_task(pipe(*left, source=source[0], sink=sink[1]))
            os.write(source[1], b"question")
            close(source, 1)
            assert await right[0].read() == b"question"
            right[1].write(b"answer")
            assert await read_fd(sink[0]) == b"answer"
            assert not task.done()
            right[1].write_eof()
            assert await task == Carried(sent=8, received=6)


async def test_after_the_peer_has_ended_the_source_can_still_speak() -> None:
    async with streams() as (left, right):
        with a_pipe() as source, a_pipe() as sink:
            carried = Carried()
            task = asyncio.create_task(pipe(*left, source=source[0], sink=sink[1], carried=carried))
            right[1].write(b"question")
            right[1].write_eof()
            await until(lambda: carried.received == 8)
            assert await read_fd(sink[0]) == b"question"
            os.write(source[1], b"answer")
            assert await right[0].readexactly(6) == b"answer"
            assert not task.done()
            close(source, 1)
            assert await right[0].read() == b""
            assert await task is carried
            assert carried == Carried(sent=6, received=8)


async def test_much_both_ways_at_once_with_a_slow_sink(tmp_path: Path) -> None:
    data = [os.urandom(5_000_000), os.urandom(5_000_000)]
    for name, content in zip("lr", data, strict=True):
        (tmp_path / name).write_bytes(content)
    async with streams() as (left, right):
        with a_pipe() as slow:
            one, other = (os.open(tmp_path / name, os.O_RDONLY) for name in "lr")
            fast = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
            reading = asyncio.create_task(read_all(slow[0], 20_000))
            ends = await asyncio.gather(pipe(*left, source=one, sink=slow[1]), pipe(*right, source=other, sink=fast))
            close(slow, 1)
            assert await reading == data[1]
            for fd in (one, other, fast):
                os.close(fd)
    assert (tmp_path / "out").read_bytes() == data[0]
    assert list(ends) == [Carried(5_000_000, 5_000_000)] * 2


async def test_a_sink_that_nobody_reads_holds_the_stream_up() -> None:
    async with streams() as (left, right):
        with a_pipe() as source, a_pipe() as sink:
            carried = Carried()
            task = asyncio.create_task(pipe(*left, source=source[0], sink=sink[1], carried=carried))
            right[1].write(bytes(100 * CHUNK))
            last, unchanged = -1, 0
            while unchanged < 20:  # too few would prove less, but never fail
                await asyncio.sleep(0.002)
                unchanged, last = (unchanged + 1 if carried.received == last else 0), carried.received
            assert 0 < carried.received <= (CHUNKS + 2) * CHUNK  # queued, in the thread's hand, in the pipe
            task.cancel()
            await asyncio.wait({task})


async def test_a_source_is_not_read_far_ahead_of_a_stream_that_is_held_up() -> None:
    async with streams() as (left, _):
        zeros, sink = os.open("/dev/zero", os.O_RDONLY), nowhere()
        carried = Carried()
        task = asyncio.create_task(pipe(*left, source=zeros, sink=sink, carried=carried))
        last, unchanged = -1, 0
        while unchanged < 20:
            await asyncio.sleep(0.002)
            unchanged, last = (unchanged + 1 if carried.sent == last else 0), carried.sent
        assert left[1].transport.get_write_buffer_size() <= 3 * CHUNK
        task.cancel()
        await asyncio.wait({task})
        os.close(zeros)
        os.close(sink)


# --- kinds of descriptors


async def test_descriptors_that_do_not_block() -> None:
    """As a shell's terminal is, once a program has left it so: reads find nothing, writes are partial."""
    async with streams() as (left, right):
        with a_pipe() as source, a_pipe() as sink:
            os.set_blocking(source[0], False)
            os.set_blocking(sink[1], False)
            task = asyncio.create_task(pipe(*left, source=source[0], sink=sink[1]))
            right[1].write(bytes(1_000_000))
            right[1].write_eof()
            await asyncio.sleep(0.01)  # so that the source is found empty, most times
            os.write(source[1], b"late")
            close(source, 1)
            assert await right[0].read() == b"late"
            assert len((await asyncio.gather(_exactly(sink[0], 1_000_000), task))[0]) == 1_000_000


async def _exactly(fd: int, size: int) -> bytes:
    whole = bytearray()
    while len(whole) < size:
        whole += await read_fd(fd)
    return bytes(whole)


async def test_a_terminal_is_let_go_when_the_peer_ends() -> None:
    async with streams() as (left, right):
        with a_pipe() as sink:
            keyboard, terminal = pty.openpty()
            task = asyncio.create_task(pipe(*left, source=terminal, sink=sink[1]))
            os.write(keyboard, b"I love you.\n")
            assert await right[0].readline() == b"I love you.\n"
            right[1].write(b"Bye.")
            right[1].write_eof()
            assert await task == Carried(sent=12, received=4)
            assert await read_fd(sink[0]) == b"Bye."
            os.close(keyboard)
            os.close(terminal)


async def test_a_terminals_end_of_input_is_passed_on() -> None:
    async with streams() as (left, right):
        keyboard, terminal = pty.openpty()
        sink = nowhere()
        task = asyncio.create_task(pipe(*left, source=terminal, sink=sink))
        os.write(keyboard, b"\x04")
        assert await right[0].read() == b""
        right[1].write_eof()
        assert await task == Carried()
        for fd in (keyboard, terminal, sink):
            os.close(fd)


async def test_a_terminal_as_the_sink() -> None:
    async with streams() as (left, right):
        with a_pipe() as source:
            screen, terminal = pty.openpty()
            close(source, 1)
            task = asyncio.create_task(pipe(*left, source=source[0], sink=terminal))
            right[1].write(b"I love you.\n" * 1000)
            right[1].write_eof()
            assert (await _exactly(screen, 13_000)).count(b"I love you.\r\n") == 1000
            assert (await task).received == 12_000
            os.close(screen)
            os.close(terminal)


# --- what fails


async def test_a_sink_that_is_closed_early_is_raised() -> None:
    async with streams() as (left, right):
        with a_pipe() as source, a_pipe() as sink:
            task = asyncio.create_task(pipe(*left, source=source[0], sink=sink[1]))
            close(sink, 0)
            right[1].write(b"to nobody")
            with pytest.raises(BrokenPipeError, match=f"cannot write to descriptor {sink[1]}"):
                await task


async def test_a_sink_that_fails_while_much_waits_for_it_is_raised() -> None:
    async with streams() as (left, right):
        with a_pipe() as source, a_pipe() as sink:
            task = asyncio.create_task(pipe(*left, source=source[0], sink=sink[1]))
            right[1].write(bytes(100 * CHUNK))
            await read_fd(sink[0], 1)
            close(sink, 0)
            with pytest.raises(BrokenPipeError):
                await task


async def test_a_full_disk_is_raised() -> None:
    async with streams() as (left, right):
        with a_pipe() as source:
            full = os.open("/dev/full", os.O_WRONLY)
            right[1].write(b"x")
            with pytest.raises(OSError, match="No space left") as caught:
                await pipe(*left, source=source[0], sink=full)
            assert caught.value.errno == errno.ENOSPC
            os.close(full)


async def test_a_source_that_cannot_be_read_is_raised(tmp_path: Path) -> None:
    async with streams() as (left, _):
        directory, sink = os.open(tmp_path, os.O_RDONLY), nowhere()
        with pytest.raises(IsADirectoryError, match=f"cannot read descriptor {directory}"):
            await pipe(*left, source=directory, sink=sink)
        os.close(directory)
        os.close(sink)


@pytest.mark.parametrize("which", ["source", "sink"])
async def test_what_is_no_descriptor_is_raised(which: str) -> None:
    async with streams() as (left, _):
        fd, never = nowhere(), 999_999
        with pytest.raises(OSError, match="descriptor 999999: Bad file descriptor"):
            await pipe(*left, source=never if which == "source" else fd, sink=never if which == "sink" else fd)
        os.close(fd)


async def test_a_peer_that_resets_is_told_and_what_came_before_is_in_the_sink() -> None:
    async with streams() as (left, right):
        with a_pipe() as source, a_pipe() as sink:
            carried = Carried()
            task = asyncio.create_task(pipe(*left, source=source[0], sink=sink[1], carried=carried))
            right[1].write(b"before")
            await until(lambda: carried.received == 6)
            reset(right[1])
            assert await task == Carried(received=6, error="Connection reset by peer")
            close(sink, 1)
            assert await read_all(sink[0]) == b"before"


async def test_a_peer_that_resets_while_we_send_is_told() -> None:
    async with streams() as (left, right):
        zeros, sink = os.open("/dev/zero", os.O_RDONLY), nowhere()
        task = asyncio.create_task(pipe(*left, source=zeros, sink=sink))
        await right[0].readexactly(1_000_000)
        reset(right[1])
        assert (await task).error
        os.close(zeros)
        os.close(sink)


async def test_other_ways_to_break_are_told_too() -> None:
    async with streams() as (left, _):
        with a_pipe() as source:
            sink = nowhere()
            task = asyncio.create_task(pipe(*left, source=source[0], sink=sink))
            await asyncio.sleep(0)
            left[0].set_exception(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
            assert await task == Carried(error="Connection timed out")
            os.close(sink)


@pytest.mark.parametrize("ends", [True, False])
async def test_a_stream_that_was_closed_here_is_told(ends: bool) -> None:
    async with streams() as (left, _):
        with a_pipe() as source:
            sink = nowhere()
            task = asyncio.create_task(pipe(*left, source=source[0], sink=sink))
            left[1].transport.abort()
            if not ends:
                os.write(source[1], b"too late")
            close(source, 1)
            assert (await task).error == "connection lost"
            os.close(sink)


# --- how the peer tells an end from a break


async def test_closed_before_the_source_has_ended_the_stream_is_reset() -> None:
    async with streams() as (left, right):
        with a_pipe() as source, a_pipe() as sink:
            task = asyncio.create_task(pipe(*left, source=source[0], sink=sink[1]))
            os.write(source[1], b"half")
            assert await right[0].readexactly(4) == b"half"
            task.cancel()
            await asyncio.wait({task})
            left[1].transport.abort()
            with pytest.raises(ConnectionResetError):
                await right[0].read()


async def test_closed_after_the_source_has_ended_the_peer_has_all_of_it(tmp_path: Path) -> None:
    """The peer reads only when this side is gone, but the kernel has taken the last byte."""
    (tmp_path / "in").write_bytes(whole := os.urandom(10_000))
    async with streams() as (left, right):
        with a_pipe() as sink, (tmp_path / "in").open("rb") as source:
            task = asyncio.create_task(pipe(*left, source=source.fileno(), sink=sink[1]))
            await until(lambda: ended(left))
            task.cancel()
            await asyncio.wait({task})
            left[1].transport.abort()
            assert await right[0].read() == whole


async def test_closed_after_the_peer_has_ended_a_terminals_stream_ends_too() -> None:
    async with streams() as (left, right):
        keyboard, terminal = pty.openpty()
        with a_pipe() as sink:
            right[1].write_eof()
            assert await pipe(*left, source=terminal, sink=sink[1]) == Carried()
        left[1].close()
        assert await right[0].read() == b""
        os.close(keyboard)
        os.close(terminal)


def ended(pair: Pair) -> bool:
    """Whether its FIN has left: the kernel's state of the connection is no longer ESTABLISHED (1)."""
    state = pair[1].get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return bool(state[0] != 1)


# --- cancellation. That no thread is left is for the guard in conftest.py to see.


async def test_cancelled_it_takes_no_more_of_the_source() -> None:
    async with streams() as (left, right):
        with a_pipe() as source, a_pipe() as sink:
            task = asyncio.create_task(pipe(*left, source=source[0], sink=sink[1]))
            os.write(source[1], b"mine")
            assert await right[0].readexactly(4) == b"mine"
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            os.write(source[1], b"not yours")
            assert await read_fd(source[0]) == b"not yours"
            assert not left[1].is_closing()


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 10, 100])
async def test_cancelled_at_any_time_nothing_is_left(turns: int) -> None:
    async with streams() as (left, right):
        keyboard, terminal = pty.openpty()
        with a_pipe() as sink:
            task = asyncio.create_task(pipe(*left, source=terminal, sink=sink[1]))
            os.write(keyboard, b"a line\n")
            right[1].write(bytes(10 * CHUNK))  # more than the sink takes
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
        os.close(keyboard)
        os.close(terminal)


async def test_what_is_left_of_it_is_no_descriptor() -> None:
    def ours() -> bool:
        return any(thread.name.startswith("simopen-") for thread in threading.enumerate())

    async with streams() as (left, _):
        with a_pipe() as source, a_pipe() as sink:
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(10):
                task = asyncio.create_task(pipe(*left, source=source[0], sink=sink[1]))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait({task})
            await until(lambda: not ours())
            assert len(os.listdir("/proc/self/fd")) == before


async def test_who_reads_the_sink_meets_the_peers_end_while_the_source_goes_on() -> None:
    with a_pipe() as source, a_pipe() as sink:
        async with streams() as ((reader, writer), (_, theirs)):
            carrying = asyncio.create_task(
                pipe(reader, writer, source=source[0], sink=sink[1], peer_ended=lambda: close(sink, 1))
            )
            theirs.write(b"all of it" * 100_000)
            theirs.write_eof()
            assert await read_all(sink[0]) == b"all of it" * 100_000
            assert not carrying.done()
            close(source, 1)
            await carrying
