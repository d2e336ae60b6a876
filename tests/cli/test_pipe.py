"""`simopen pipe`: standard streams, a local service and a local program, to the end on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

import simopen
from tests import sshd
from tests.cli.test_send import DATA, ROOT, code_of, ended, rendezvous, started
from tests.loopback import kept_ports
from tests.loops import ONE_LOOP


@ONE_LOOP
async def test_standard_streams_to_the_end_of_both(tmp_path: Path) -> None:
    async with rendezvous() as via:
        one = await started(tmp_path, "pipe", "--json", "--via", via)
        other = await started(tmp_path, "pipe", "--recv-only", "--via", via, await code_of(one))
        ends = await asyncio.gather(ended(one, DATA), ended(other))
    assert [each[0] for each in ends] == [0, 0], ends
    assert ends[1][1] == DATA


@ONE_LOOP
async def test_a_program_here_reaches_a_service_there(tmp_path: Path) -> None:
    async def upper(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    with kept_ports() as (number, _):
        async with rendezvous() as via, await asyncio.start_server(upper, "127.0.0.1", 0) as service:
            to = f"127.0.0.1:{service.sockets[0].getsockname()[1]}"
            one = await started(tmp_path, "pipe", "--json", "--listen", str(number), "--via", via)
            other = await started(tmp_path, "pipe", "--to", to, "--via", via, await code_of(one))
            reader, writer = await asyncio.open_connection("127.0.0.1", number)
            writer.write(b"through")
            writer.write_eof()
            assert await reader.read() == b"THROUGH"
            writer.close()
            ends = await asyncio.gather(ended(one), ended(other))
    assert [each[0] for each in ends] == [0, 0], ends


@ONE_LOOP
async def test_a_service_that_refuses_is_told_to_both(tmp_path: Path) -> None:
    with kept_ports() as (number, _):
        async with rendezvous() as via:
            one = await started(tmp_path, "pipe", "--json", "--via", via)
            other = await started(tmp_path, "pipe", "--to", f"127.0.0.1:{number}", "--via", via, await code_of(one))
            ends = await asyncio.gather(ended(one, b"x"), ended(other))
    assert [each[0] for each in ends] == [1, 1], ends
    assert all("refused" in each[2] for each in ends), ends


@ONE_LOOP
async def test_a_service_that_closes_what_it_is_sent_is_told_as_that(tmp_path: Path) -> None:
    """And not as standard output, which nobody has closed."""
    with socket.create_server(("127.0.0.1", 0)) as service:
        to = f"127.0.0.1:{service.getsockname()[1]}"
        async with rendezvous() as via:
            one = await started(tmp_path, "pipe", "--json", "--via", via)
            other = await started(tmp_path, "pipe", "--to", to, "--via", via, await code_of(one))
            service.setblocking(False)
            came, _ = await asyncio.get_running_loop().sock_accept(service)
            came.close()  # before anything is sent: what is written then meets EPIPE
            ends = await asyncio.gather(ended(one, DATA), ended(other, b""))
    assert [each[0] for each in ends] == [1, 1], ends
    for _, _, said in ends:
        assert "cannot write to the local connection: Broken pipe" in said
        assert "standard output" not in said


@ONE_LOOP
@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.6\r\n"])
async def test_a_peer_that_leaves_before_a_local_program_comes(tmp_path: Path, greeting: bytes) -> None:
    """Also one whose service has greeted."""

    async def greets(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(greeting)
        has_greeted.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    has_greeted = asyncio.Event()
    with kept_ports() as (number, _):
        async with rendezvous() as via, await asyncio.start_server(greets, "127.0.0.1", 0) as service:
            to = f"127.0.0.1:{service.sockets[0].getsockname()[1]}"
            one = await started(tmp_path, "pipe", "--json", "--to", to, "--via", via)
            code = await code_of(one)
            other = await started(tmp_path, "pipe", "--listen", str(number), "--via", via, code)
            assert other.stderr is not None
            while b"one connection is let in" not in await other.stderr.readline():
                pass
            await has_greeted.wait()
            one.terminate()
            assert (await ended(other, b""))[0] == 1
            await ended(one, b"")


@ONE_LOOP
async def test_a_side_that_is_killed_is_no_end(tmp_path: Path) -> None:
    async with rendezvous() as via:
        one = await started(tmp_path, "pipe", "--json", "--via", via)
        other = await started(tmp_path, "pipe", "--via", via, await code_of(one))
        assert one.stdin is not None
        assert other.stdout is not None
        one.stdin.write(b"begun")
        assert await other.stdout.readexactly(5) == b"begun"
        one.kill()
        assert (await ended(other, b""))[0] == 1
        await one.wait()


@ONE_LOOP
@pytest.mark.parametrize("command", ["pipe", "meet"])
async def test_a_peer_that_is_killed_after_its_end_is_told_though_nothing_is_typed(
    tmp_path: Path, command: str
) -> None:
    async with rendezvous() as via:
        one = await started(tmp_path, command, "--json", "--via", via)
        other = await started(tmp_path, command, "--via", via, await code_of(one))
        assert one.stdin is not None
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(b"last words")
        other.stdin.close()
        one.stdin.write(b"go on")
        assert await other.stdout.readexactly(5) == b"go on"
        assert one.stdout is not None
        assert await one.stdout.readexactly(10) == b"last words"
        assert await one.stdout.read() == b"", "its end has come"
        other.kill()
        assert one.stderr is not None
        assert b"error" in await one.stderr.read()
        assert await one.wait() == 1
        one.stdin.close()
        await other.wait()


@ONE_LOOP
@pytest.mark.parametrize("kills", ["--to", "--listen"])
async def test_what_breaks_does_not_look_like_an_end_to_a_local_program(tmp_path: Path, kills: str) -> None:
    async def sends(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"the first half")
        with contextlib.suppress(ConnectionError):
            seen.append(await reader.read(5))
            begun.set()
            await reader.read()
            seen.append(b"an end")
        writer.close()

    seen, begun = list[bytes](), asyncio.Event()
    with kept_ports() as (number, _):
        async with rendezvous() as via, await asyncio.start_server(sends, "127.0.0.1", 0) as service:
            to = f"127.0.0.1:{service.sockets[0].getsockname()[1]}"
            one = await started(tmp_path, "pipe", "--json", "--listen", str(number), "--via", via)
            other = await started(tmp_path, "pipe", "--to", to, "--via", via, await code_of(one))
            reader, writer = await asyncio.open_connection("127.0.0.1", number)
            writer.write(b"begun")
            assert await reader.readexactly(14) == b"the first half"
            await begun.wait()
            (other if kills == "--to" else one).kill()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            await asyncio.gather(ended(one), ended(other))
    assert seen == [b"begun"]


@ONE_LOOP
@pytest.mark.real_server
async def test_ssh_goes_through_it_as_the_page_says(tmp_path: Path) -> None:
    """Two sessions over one meeting by a secret, and one by a code. (ssh ends its ProxyCommand by a signal.)"""
    sshd.needed()
    user = f"IdentityFile {sshd.configured(tmp_path)}\nIdentitiesOnly yes\nStrictHostKeyChecking no\n"
    secret = tmp_path / ".ssh" / "home.secret"
    secret.parent.mkdir()
    secret.write_text(simopen.new_key().hex())

    async def by_secret() -> None:
        far = await started(tmp_path, *to, "--secret-file", str(secret), "home")
        config = tmp_path / "client"
        config.write_text(f"{_host_home()}{user}")
        first = await _ssh(tmp_path, via, "-F", str(config), "home", "echo begun; read -r it; echo $it")
        assert first.stdout is not None
        assert await first.stdout.readline() == b"begun\n"
        second = await _ssh(tmp_path, via, "-F", str(config), "home", "echo over the same")
        assert (await ended(second, b""))[:2] == (0, b"over the same\n")
        assert (await ended(first, b"what I send\n"))[:2] == (0, b"what I send\n")
        await ended(far, b"")

    async def by_code() -> None:
        far = await started(tmp_path, *to)
        (tmp_path / "once").write_text(user)
        proxy = f"ProxyCommand=simopen pipe {await code_of(far)}"
        ssh = await _ssh(tmp_path, via, "-F", str(tmp_path / "once"), "-o", proxy, "home", "echo once")
        assert (await ended(ssh, b""))[:2] == (0, b"once\n")
        await ended(far, b"")

    with kept_ports() as (number, _):
        async with rendezvous() as via, sshd.serving(tmp_path, number):
            to = ("pipe", "--json", "--to", f"127.0.0.1:{number}", "--via", via)
            await asyncio.gather(by_secret(), by_code())


async def _ssh(home: Path, via: str, *words: str) -> Process:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(home), "SIMOPEN_VIA": via, "PATH": path, "PYTHONPATH": str(ROOT)}
    command = ["ssh", "-o", f"UserKnownHostsFile={home / 'known'}", *words]
    return await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, cwd=home
    )


def _host_home() -> str:
    """What the page on SSH has for ~/.ssh/config. (ssh's own `~` is the user's, whatever HOME says.)"""
    text = (ROOT / "docs" / "ssh.md").read_text()
    blocks = re.findall(r"^```text\nHost home\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    return "Host home\n" + "".join(blocks).replace("ControlPath ~/.ssh/%C", "ControlPath control")
