"""The two ends of a forwarded connection, with a channel and a socket of paper: what comes in which order."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

from simopen.apps.forward.ends import ChannelEnd, End


class Paper:
    """A transport, or a channel: what is asked of it, in order. `waiting`: bytes that it has not sent yet."""

    end_has_come = False

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.waiting = 0
        self.options: list[tuple[object, ...]] = []

    def write(self, data: bytes) -> None:
        self.asked.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def get_extra_info(self, name: str) -> Any:
        return self  # a socket's

    def setsockopt(self, *option: object) -> None:
        self.options.append(option)

    @property
    def resets(self) -> bool:
        """Whether closing it resets the connection."""
        option = (socket.SOL_SOCKET, socket.SO_LINGER)
        return [each[2] for each in self.options if each[:2] == option][-1] == struct.pack("ii", 1, 0)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.asked.append(name)


@pytest.fixture
def ends() -> tuple[End, ChannelEnd, Paper, Paper]:
    end = End(bytearray(10))
    socket, channel = Paper(), Paper()
    end.connection_made(socket)  # type: ignore[arg-type]
    return end, ChannelEnd(end), socket, channel


async def test_what_is_said_before_there_is_a_channel_waits_for_it(ends: tuple[End, ChannelEnd, Paper, Paper]) -> None:
    end, channel_end, socket, channel = ends
    end.data_received(b"early")
    assert socket.asked == [], "a reset is noticed while it is read"
    end.data_received(b" words")
    assert socket.asked == ["pause_reading"]
    assert end.eof_received()
    channel_end.connection_made(channel)
    assert channel.asked == [b"early words", "write_eof"]
    assert socket.asked == ["pause_reading", "resume_reading"]


async def test_one_that_has_said_all_and_is_gone_before_there_is_a_channel(
    ends: tuple[End, ChannelEnd, Paper, Paper],
) -> None:
    end, channel_end, _, channel = ends
    end.data_received(b"all")
    end.eof_received()
    end.connection_lost(None)
    channel_end.connection_made(channel)
    assert channel.asked == [b"all", "write_eof", "close"]


async def test_a_channel_is_closed_once_its_end_is_sent(ends: tuple[End, ChannelEnd, Paper, Paper]) -> None:
    """Also where it had made its connection pause, which is gone by then; what still comes for that is of no use."""
    end, channel_end, _, channel = ends
    channel_end.connection_made(channel)
    channel_end.pause_writing()
    end.eof_received()
    channel.waiting = 10
    end.connection_lost(None)
    assert "close" not in channel.asked
    assert "resume_reading" in channel.asked, "else the other host's end would wait for a window for ever"
    channel_end.data_received(b"for nobody")
    channel.waiting = 0
    channel_end.resume_writing()
    assert "close" not in channel.asked, "its end is sent right after this"
    await asyncio.sleep(0)
    assert channel.asked[-1] == "close"


async def test_a_connection_that_breaks_ends_its_channel_at_once(ends: tuple[End, ChannelEnd, Paper, Paper]) -> None:
    end, channel_end, _, channel = ends
    channel_end.connection_made(channel)
    channel.waiting = 10
    end.connection_lost(ConnectionResetError())
    assert channel.asked == ["close"]


async def test_a_channel_that_ends_without_its_end_resets_the_connection(
    ends: tuple[End, ChannelEnd, Paper, Paper],
) -> None:
    _, channel_end, socket, channel = ends
    channel_end.connection_made(channel)
    channel_end.connection_lost(None)
    assert socket.asked == ["abort", "close"]


async def test_a_channel_that_ends_ends_the_connection(ends: tuple[End, ChannelEnd, Paper, Paper]) -> None:
    _, channel_end, socket, channel = ends
    channel_end.connection_made(channel)
    channel_end.data_received(b"last")
    channel_end.eof_received()
    channel_end.connection_lost(None)
    assert socket.asked == [b"last", "write_eof", "close"]


async def test_whoever_hears_of_the_second_end_closes_both(ends: tuple[End, ChannelEnd, Paper, Paper]) -> None:
    """Where the two ends cross, both sides are that one; and the channel's own end is sent before its close."""
    end, channel_end, socket, channel = ends
    channel_end.connection_made(channel)
    assert end.eof_received()
    channel.waiting = 10
    assert not channel_end.eof_received()
    assert socket.asked == ["write_eof", "close"]
    assert "close" not in channel.asked
    channel.waiting = 0
    channel_end.resume_writing()
    await asyncio.sleep(0)
    assert channel.asked[-1] == "close"


async def test_an_end_that_its_close_overtakes_is_one(ends: tuple[End, ChannelEnd, Paper, Paper]) -> None:
    """asyncssh forgets it where the connection takes what has come more slowly."""
    _, channel_end, socket, channel = ends
    channel_end.connection_made(channel)
    channel_end.data_received(b"last")
    channel.end_has_come = True
    channel_end.connection_lost(None)
    assert socket.asked == [b"last", "write_eof", "close"]


@pytest.mark.parametrize("closes", [False, True])
async def test_a_connection_is_reset_by_this_programs_end_until_all_has_left(
    ends: tuple[End, ChannelEnd, Paper, Paper], closes: bool
) -> None:
    """Whatever its loop has not given to the kernel by then is lost, and a FIN would pass for the end."""
    end, channel_end, connection, channel = ends
    channel_end.connection_made(channel)
    if closes:
        end.eof_received()
    connection.waiting = 10
    channel_end.eof_received()
    assert connection.resets
    assert connection.asked == ["write_eof", "set_write_buffer_limits", *["close"] * closes]
    end.resume_writing()
    assert not connection.resets
