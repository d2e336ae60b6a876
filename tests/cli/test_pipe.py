"""`simopen pipe`: standard streams, a local service and a local program, to the end on both sides."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from pathlib import Path

from tests.cli.test_send import DATA, code_of, ended, rendezvous, started
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
async def test_a_peer_that_leaves_before_a_local_program_comes(tmp_path: Path) -> None:
    with kept_ports() as (number, _):
        async with rendezvous() as via:
            one = await started(tmp_path, "pipe", "--json", "--via", via)
            code = await code_of(one)
            other = await started(tmp_path, "pipe", "--listen", str(number), "--via", via, code)
            assert other.stderr is not None
            while b"one connection is let in" not in await other.stderr.readline():
                pass
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
