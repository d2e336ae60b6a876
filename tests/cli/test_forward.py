"""`simopen forward`: ports of the one that lead to services at the other, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from asyncio import StreamReader, StreamWriter
from pathlib import Path

import pytest

from simopen.rendezvous import peers
from tests.cli.test_send import code_of, ended, rendezvous, started, typed
from tests.loopback import kept_ports
from tests.loops import ONE_LOOP


async def upper(reader: StreamReader, writer: StreamWriter) -> None:
    """Answers once its peer has ended."""
    writer.write((await reader.read()).upper())
    writer.close()


async def asked(number: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    writer.write(b"through")
    writer.write_eof()
    told = await reader.read()
    writer.close()
    return told


@ONE_LOOP
async def test_connections_go_both_ways_until_one_ends_it(tmp_path: Path) -> None:
    with kept_ports() as ports:
        async with rendezvous() as via, await asyncio.start_server(upper, "127.0.0.1", 0) as service:
            to = f"127.0.0.1:{service.sockets[0].getsockname()[1]}"
            words = [["--listen", str(number), "--to", to, "--allow", "127.0.0.1", "--via", via] for number in ports]
            one = await started(tmp_path, "forward", "--json", *words[0])
            other = await started(tmp_path, "forward", "--json", *words[1], await code_of(one))
            for command in (one, other):
                assert command.stderr is not None
                assert to in json.loads(await command.stderr.readline())["forwards"][0]
            assert await asyncio.gather(*(asked(number) for number in (*ports, *ports))) == [b"THROUGH"] * 4
            one.send_signal(signal.SIGINT)
            ends = await asyncio.gather(ended(one), ended(other))
    assert [each[0] for each in ends] == [130, 0], ends


@ONE_LOOP
async def test_with_a_known_peer_it_comes_back_after_a_break(tmp_path: Path) -> None:
    """The peer's program is killed, and started anew."""
    with kept_ports() as (number, _):
        async with rendezvous() as via, await asyncio.start_server(upper, "127.0.0.1", 0) as service:
            to = f"127.0.0.1:{service.sockets[0].getsockname()[1]}"
            for name in ("laptop", "desk"):
                peers.keep(peers.derived(name, bytes(32), via), tmp_path / "simopen" / "peers")
            home = {"XDG_DATA_HOME": str(tmp_path)}
            one = await started(tmp_path, "forward", "--listen", str(number), "--to", to, "@laptop", **home)
            for times in range(2):
                other = await started(tmp_path, "forward", "--allow", "127.0.0.1", "@desk", **home)
                for command in (one, other):
                    assert command.stderr is not None
                    while b"Ctrl-C" not in (line := await command.stderr.readline()):
                        assert line
                assert await asked(number) == b"THROUGH"
                if times == 0:
                    other.kill()
                    await ended(other)
            one.send_signal(signal.SIGINT)
            ends = await asyncio.gather(ended(one), ended(other))
    assert [each[0] for each in ends] == [130, 0], ends


@ONE_LOOP
async def test_several_of_two_known_peers_go_on_side_by_side(tmp_path: Path) -> None:
    with kept_ports() as numbers:
        async with rendezvous() as via, await asyncio.start_server(upper, "127.0.0.1", 0) as service:
            to = f"127.0.0.1:{service.sockets[0].getsockname()[1]}"
            for name in ("laptop", "desk"):
                peers.keep(peers.derived(name, bytes(32), via), tmp_path / "simopen" / "peers")
            home = {"XDG_DATA_HOME": str(tmp_path)}
            commands = []
            for channel, number in zip(("mail", "web"), numbers, strict=True):
                words = ["--listen", str(number), "--to", to, "--channel", channel, "@laptop"]
                commands.append(await started(tmp_path, "forward", *words, **home))
                words = ["--allow", "127.0.0.1", "--channel", channel, "@desk"]
                commands.append(await started(tmp_path, "forward", *words, **home))
            for command in commands:
                assert command.stderr is not None
                while b"Ctrl-C" not in (line := await command.stderr.readline()):
                    assert line
            assert await asyncio.gather(*(asked(number) for number in numbers)) == [b"THROUGH"] * 2
            for command in commands[::2]:
                command.send_signal(signal.SIGINT)
            ends = await asyncio.gather(*map(ended, commands))
    assert [each[0] for each in ends] == [130, 0] * 2, ends


@ONE_LOOP
async def test_a_target_that_is_not_allowed_is_told_to_both(tmp_path: Path) -> None:
    with kept_ports() as (number, _):
        async with rendezvous() as via:
            one = await started(
                tmp_path, "forward", "--json", "--listen", str(number), "--to", "127.0.0.1:22", "--via", via
            )
            other = await started(tmp_path, "forward", "--allow", "127.0.0.1:80", "--via", via, await code_of(one))
            ends = await asyncio.gather(ended(one), ended(other))
    assert [each[0] for each in ends] == [1, 1], ends
    assert "the peer does not allow connections to '127.0.0.1:22'" in json.loads(ends[0][2])["message"]
    assert "which were not allowed here" in ends[1][2]


@ONE_LOOP
async def test_a_port_that_is_taken_uses_up_no_code(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        command = await started(tmp_path, "forward", "--listen", number, "--to", "a:1", "--via", "ws://127.0.0.1:1/v1")
        status, _, told = await ended(command)
    assert status == 1
    assert f"cannot use 127.0.0.1:{number}" in told
    assert "The code is" not in told


@ONE_LOOP
async def test_one_port_under_two_names_uses_up_no_code(tmp_path: Path) -> None:
    with kept_ports() as (number, _):
        words = ["--listen", str(number), "--to", "a:1", "--listen", f"localhost:{number}", "--to", "a:2"]
        status, _, told = await ended(await started(tmp_path, "forward", *words, "--via", "ws://127.0.0.1:1/v1"))
    assert status == 1
    assert f"cannot use localhost:{number}" in told
    assert f"or --listen 127.0.0.1:{number} has it" in told
    assert "The code is" not in told


@ONE_LOOP
async def test_a_target_that_nobody_serves_is_told_to_both_once(tmp_path: Path) -> None:
    with kept_ports() as (number, dead):
        async with rendezvous() as via:
            for name in ("laptop", "desk"):
                peers.keep(peers.derived(name, bytes(32), via), tmp_path / "simopen" / "peers")
            home, to = {"XDG_DATA_HOME": str(tmp_path)}, f"127.0.0.1:{dead}"
            one = await started(tmp_path, "forward", "--listen", str(number), "--to", to, "@laptop", **home)
            other = await started(tmp_path, "forward", "--allow", to, "@desk", **home)
            for command in (one, other):
                assert command.stderr is not None
                while b"Ctrl-C" not in (line := await command.stderr.readline()):
                    assert line
            for _ in range(2):
                with contextlib.suppress(ConnectionError):
                    assert await asked(number) == b""
            one.send_signal(signal.SIGINT)
            ends = await asyncio.gather(ended(one), ended(other))
    for (_, _, told), who in zip(
        ends, ("the peer cannot connect to {}", "cannot connect to {} for the peer"), strict=True
    ):
        assert told.count(f"{who.format(to)}: it refused the connection") == told.count("warning") == 1, told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what to carry"),
        (["--listen", "8080"], "each --listen needs a --to"),
        (["--to", "a:1"], "each --listen needs a --to"),
        (["--listen", "8080", "--to", "a"], "no port"),
        (["--listen", "99999", "--to", "a:1"], "port"),
        (["--listen", "8080", "--to", "a:1", "--listen", "8080", "--to", "a:2"], "twice"),
        (["--allow", "a:0"], "port"),
        (["--allow", ""], "there is no host"),
        (["--allow", "*"], "name each host"),
        (["--listen", "*:8080", "--to", "a:1"], "0.0.0.0 or [::] is for all addresses"),
        (["--listen", "8080", "--to", "x" * 254 + ":1"], "253 characters at most"),
    ],
)
def test_what_cannot_be_meant(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, told = typed(["forward", *words], capsys, monkeypatch)
    assert status == 2, told
    assert said in told
