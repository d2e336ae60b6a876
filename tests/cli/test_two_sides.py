"""Two `simopen connect` as people and scripts use them: a stream, whoever ends it, and Ctrl-C before it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from simopen import lab
from simopen.model.endpoint import Endpoint
from tests.cli.processes import (
    LIMIT_S,
    SIMOPEN,
    Ports,
    Running,
    a_terminal,
    answering,
    connecting,
    last_json,
    received_unread,
    running,
)
from tests.connection_table import connections
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]


def test_two_processes_exchange_what_they_are_given(ports: Ports) -> None:
    with running(*connecting(ports)) as left, running(*answering(ports)) as right:
        left.write(b"I love you.")
        right.write(b"\0\xff I know.")
        left.end_of_input()
        right.end_of_input()
        ends = left.end(), right.end()
    assert [status for status, *_ in ends] == [0, 0]
    assert [heard for _, heard, _ in ends] == [b"\0\xff I know.", b"I love you."]
    for (_, _, said), counts in zip(ends, ("11 bytes sent, 10 received", "10 bytes sent, 11 received"), strict=True):
        assert "connected to 127.0.0." in said
        assert re.search(r" in \d+\.\d ms \((by our own SYN|through the listener)\)", said)
        assert "the clock: " in said
        assert said.count("\nsimopen: plain: not encrypted, and whoever answers there is taken for your peer") == 1
        assert said.endswith(f"{counts}\n")


def key_in(path: Path, key: bytes) -> list[object]:
    path.touch(mode=0o600)
    path.write_bytes(key)
    return ["--key-file", path]


def test_two_processes_with_one_key_prove_it(ports: Ports, tmp_path: Path) -> None:
    """One has it in a file as bytes, the other its digits on the command line, and is told who can read that."""
    key = bytes(range(32))
    left_words, right_words = key_in(tmp_path / "key", key), ["--key", key.hex()]
    with running(*connecting(ports, *left_words)) as left, running(*answering(ports, *right_words)) as right:
        left.write(b"I love you.")
        left.end_of_input()
        right.end_of_input()
        ends = left.end(), right.end()
    assert [(status, heard) for status, heard, _ in ends] == [(0, b""), (0, b"I love you.")]
    for _, _, said in ends:
        assert "and both ends proven in " in said
        assert "simopen: proven: who has the key, too\n" in said
        assert "plain: " not in said
        assert key.hex() not in said
    assert ["on the command line" in said for *_, said in ends] == [False, True]


def test_two_processes_with_two_keys_exchange_nothing(ports: Ports, tmp_path: Path) -> None:
    words = [key_in(tmp_path / name, name.encode() * 16) for name in ("one", "two")]
    with (
        running(*connecting(ports, "--window", "3s", *words[0])) as left,
        running(*answering(ports, "--window", "3s", *words[1])) as right,
    ):
        left.write(b"a secret")
        left.end_of_input()
        right.end_of_input()
        ends = left.end(), right.end()
    assert [(status, heard) for status, heard, _ in ends] == [(1, b""), (1, b"")]
    for _, _, said in ends:
        assert "simopen: no stream: " in said
        assert "proven: " not in said


def test_files_cross_both_ways_intact(ports: Ports, tmp_path: Any) -> None:
    data = [os.urandom(2_000_000), os.urandom(3_000_000)]
    for name, content in zip("ab", data, strict=True):
        (tmp_path / name).write_bytes(content)
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context((tmp_path / name).open("rb")).fileno() for name in "ab"]
        sinks = [stack.enter_context((tmp_path / name).open("wb")).fileno() for name in "cd"]
        left = stack.enter_context(running(*connecting(ports), stdin=sources[0], stdout=sinks[0]))
        right = stack.enter_context(running(*answering(ports), stdin=sources[1], stdout=sinks[1]))
        assert (left.end()[0], right.end()[0]) == (0, 0)
    assert (tmp_path / "c").read_bytes() == data[1]
    assert (tmp_path / "d").read_bytes() == data[0]


def test_success_as_json(ports: Ports) -> None:
    at = time.time() + 1.5
    with running(*connecting(ports, "--json", "--at", at)) as left, running(*answering(ports, "--at", at)) as right:
        left.write(b"I love you.")
        left.end_of_input()
        right.end_of_input()
        status, heard, said = left.end()
        assert right.end()[:2] == (0, b"I love you.")
    assert (status, heard) == (0, b"")
    (line,) = said.splitlines()
    told = json.loads(line)
    assert (told["sent"], told["received"], told["error"]) == (11, 0, None)
    assert told["report"]["remote"] == f"{THERE}:{ports[1]}"
    assert told["report"]["via"] in ("connect", "accept")
    assert told["report"]["instant"] == pytest.approx(at, abs=1e-3)


@pytest.mark.lab
def test_without_a_listener_the_syns_must_cross() -> None:
    asyncio.run(_without_a_listener())


async def _without_a_listener() -> None:
    async with lab.Network() as net:
        left = await net.host("left", delay_s=0.02, nat=lab.Nat())
        right = await net.host("right", delay_s=0.02, nat=lab.Nat())
        options = ["1314", "--at", str(time.time() + 1.5), "--no-ntp", "--no-listen", "--json"]
        ended = await asyncio.gather(
            left.run([*SIMOPEN, "connect", right.public_address, *options], stdin=b"I love you."),
            right.run([*SIMOPEN, "connect", left.public_address, *options], stdin=b"I love you."),
        )
        record = await net.record()
    for done in ended:
        assert (done.returncode, done.stdout) == (0, b"I love you.")
        assert last_json(done.stderr.decode())["report"]["listening"] is False
    assert record.opened_simultaneously("left", "right")


def test_a_peer_that_breaks_the_stream(ports: Ports) -> None:
    """It has unread data when it is killed, so that its kernel resets."""
    with running(*connecting(ports)) as left, running(*answering(ports)) as right:
        left.wait_for("connected to")
        right.wait_for("connected to")
        right.process.send_signal(signal.SIGSTOP)
        left.write(bytes(1000))
        while not received_unread(Endpoint(THERE, ports[1])):
            time.sleep(0.001)
        right.process.kill()
        status, _, said = left.end()
    assert status == 1
    assert "simopen: the stream broke (Connection reset by peer)" in said


def interrupted(it: Running, signal_number: int = signal.SIGINT) -> str:
    it.process.send_signal(signal_number)
    status, _, said = it.end()
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[signal.Signals(signal_number)]
    assert status == 128 + signal_number
    assert said.endswith(f"simopen: {word}; everything is closed\n")
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_before_the_instant(ports: Ports, signal_number: int) -> None:
    with running(*connecting(ports, "--at", "+1h")) as it:
        it.wait_for("; clock ")
        said = interrupted(it, signal_number)
    waiting, _ = said.splitlines()  # the line is said once, unless one waits for long
    assert re.match(rf"{THERE}:{ports[1]} at \d\d:\d\d:\d\d UTC.*, in 3[56]\d\d s; clock (± .*s|unchecked)", waiting)
    assert len(waiting) < 80


def test_interrupted_in_the_window(ports: Ports) -> None:
    with running(*connecting(ports, "--window", "1m")) as it:
        while not any(row.local == Endpoint(HERE, ports[0]) for row in connections(socket.AF_INET)):
            time.sleep(0.001)
        interrupted(it)


def test_interrupted_while_connected(ports: Ports) -> None:
    with running(*connecting(ports)) as left, running(*answering(ports)) as right:
        right.end_of_input()
        left.write(b"hello")
        left.wait_for("connected to")
        assert right.process.stdout is not None
        assert os.read(right.process.stdout.fileno(), 5) == b"hello"
        assert "\n5 bytes sent, 0 received\n" in interrupted(left)
        assert right.end()[0] == 1


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_peer_that_is_ended_in_the_middle_of_its_input(ports: Ports, signal_number: int) -> None:
    """What has come is no whole file, and must not look like one."""
    with running(*connecting(ports)) as left, running(*answering(ports)) as right:
        right.end_of_input()
        left.write(b"half a file")
        assert right.process.stdout is not None
        assert os.read(right.process.stdout.fileno(), 11) == b"half a file"
        left.process.send_signal(signal_number)
        status, _, said = right.end()
    assert status == 1
    assert "simopen: the stream broke (Connection reset by peer)" in said


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_peer_that_is_ended_after_its_input(ports: Ports, signal_number: int) -> None:
    with running(*connecting(ports)) as left, running(*answering(ports)) as right:
        left.write(b"a whole file")
        left.end_of_input()
        left.wait_for("connected to")
        while not sent_its_end(Endpoint(HERE, ports[0])):
            time.sleep(0.001)
        left.process.send_signal(signal_number)
        assert left.process.wait(LIMIT_S)
        right.end_of_input()
        status, heard, said = right.end()
    assert (status, heard) == (0, b"a whole file"), said


def sent_its_end(local: Endpoint) -> bool:
    rows = [row for row in connections(socket.AF_INET) if row.local == local]
    return any(row.state in ("FIN-WAIT-1", "FIN-WAIT-2") for row in rows)


def test_interrupted_while_the_peer_takes_nothing(ports: Ports) -> None:
    """What is still unsent must not hold up the end."""
    zeros = os.open("/dev/zero", os.O_RDONLY)
    with running(*connecting(ports), stdin=zeros) as left, running(*answering(ports)) as right:
        os.close(zeros)
        left.wait_for("connected to")
        right.wait_for("connected to")
        right.process.send_signal(signal.SIGSTOP)
        while not received_unread(Endpoint(THERE, ports[1])):
            time.sleep(0.001)
        interrupted(left)


def test_interrupted_at_a_terminal_while_connected(ports: Ports) -> None:
    with a_terminal() as (keyboard, terminal), running(*answering(ports)) as right:
        with running(*connecting(ports), stdin=terminal, stdout=terminal) as left:
            left.wait_for("connected to")
            os.write(keyboard, b"hello\n")
            assert right.process.stdout is not None
            assert os.read(right.process.stdout.fileno(), 6) == b"hello\n"
            interrupted(left)
        right.end_of_input()
        assert right.end()[0] == 1


def test_a_terminal_is_let_go_when_the_peer_ends(ports: Ports) -> None:
    with a_terminal() as (_, terminal), running(*answering(ports)) as right:
        right.write(b"Bye.")
        right.end_of_input()
        with running(*connecting(ports), stdin=terminal) as left:
            assert left.end()[:2] == (0, b"Bye.")
        assert right.end()[0] == 0


def test_interrupted_as_json(ports: Ports) -> None:
    with running(*connecting(ports, "--json")) as left, running(*answering(ports)) as right:
        right.wait_for("connected to")
        left.process.send_signal(signal.SIGINT)
        status, _, said = left.end()
    assert status == 130
    told = json.loads(said)
    ended = {"error": "KeyboardInterrupt", "message": "interrupted; everything is closed"}
    assert told == {**ended, "report": None, "diagnosis": None}
