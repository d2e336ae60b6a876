"""`simopen clock`, as it is typed."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence

import pytest

from simopen import lab
from tests.cli.processes import NO_RICH, SIMOPEN, simopen_run
from tests.fake_ntp import MISBEHAVIOURS, FakeNtp
from tests.fake_stun import FakeStun
from tests.loops import ONE_LOOP


async def clock_command(*arguments: str, program: Sequence[str] = SIMOPEN) -> tuple[int, str, str]:
    """While fake servers answer on this loop."""
    process = await asyncio.create_subprocess_exec(
        *program, "clock", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


def asking(*servers: FakeNtp) -> list[str]:
    return [word for server in servers for word in ("--ntp", server.name)]


@ONE_LOOP
async def test_the_clocks_table() -> None:
    async with FakeNtp(3.5) as one, FakeNtp(3.5) as other, FakeNtp(50.0) as liar:
        status, out, err = await clock_command(*asking(one, other, liar))
    assert status == 0
    assert err == "asking the time servers\n"
    assert "server" in out.splitlines()[1]
    rows = {line.split()[0]: line for line in out.splitlines()[2:]}
    assert "+3." in rows[one.name]
    assert rows[other.name].endswith("agrees")
    assert rows[liar.name].endswith("disagrees with the others")
    assert "add +3." in out
    assert "to this machine's clock to get true time" in out
    assert "the kernel says: " in out


@ONE_LOOP
async def test_the_clock_as_json() -> None:
    async with FakeNtp(-1.5) as one, FakeNtp(-1.5) as other:
        status, out, err = await clock_command("--json", *asking(one, other))
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["offset_s"] == pytest.approx(-1.5, abs=0.5)
    assert {server["name"] for server in told["servers"]} == {one.name, other.name}


@ONE_LOOP
@pytest.mark.parametrize("program", [SIMOPEN, NO_RICH], ids=["rich", "plain"])
async def test_a_clock_that_nobody_can_tell(program: list[str]) -> None:
    async with (
        FakeNtp(wrong=MISBEHAVIOURS["stratum 16"][0]) as one,
        FakeNtp(wrong=MISBEHAVIOURS["kiss RATE"][0]) as two,
    ):
        status, out, err = await clock_command(*asking(one, two), "--timeout", "3s", program=program)
    assert (status, out) == (1, "")
    assert f"{one.name}: stratum 16" in err
    assert f"{two.name}: kiss-o'-death RATE" in err
    assert "--ntp" in err.splitlines()[-1]
    assert "firewall" not in err  # which would let none of this through


@ONE_LOOP
async def test_time_servers_that_are_silent_may_be_behind_a_firewall() -> None:
    async with FakeNtp(answers=0) as one, FakeNtp(answers=0) as two:
        status, _, err = await clock_command(*asking(one, two), "--timeout", "300ms")
    assert status == 1
    assert f"{one.name}, {two.name}: no answer to " in err
    assert "does a firewall drop UDP port 123?" in err.splitlines()[-1]


@ONE_LOOP
async def test_a_time_out_that_is_too_short_is_not_blamed_on_the_network() -> None:
    async with FakeNtp(answers=0) as one, FakeStun(silent=True) as other:
        for command, option, server in (("clock", "--ntp", one.name), ("nat", "--stun", other.name)):
            told = await asyncio.to_thread(simopen_run, command, option, server, "--timeout", "1ms")
            status, _, said = told
            assert status == 1
            assert "server answered within 1.0 ms, which is too short for an answer from afar" in said
            assert not re.search("firewall|online|can reach", said)


@ONE_LOOP
async def test_a_clock_that_nobody_can_tell_as_json() -> None:
    async with FakeNtp(wrong=MISBEHAVIOURS["stratum 16"][0]) as one:
        status, out, err = await clock_command(*asking(one), "--timeout", "3s", "--json")
    assert (status, out) == (1, "")
    assert json.loads(err)["error"] == "ClockError"


@ONE_LOOP
@pytest.mark.lab
async def test_names_that_all_fail_are_told_once() -> None:
    async with lab.Network() as net:
        host = await net.host("left")
        told = await asyncio.gather(*(unknown(host, *words) for words in ASKING.values()))
        for kind, (brief, verbose) in zip(ASKING, told, strict=True):
            sentence = f"simopen: none of the 2 {kind} servers' names can be looked up: is this host online?"
            assert brief.stderr.decode().splitlines()[1:] == [sentence]
            assert verbose.stderr.count(b"other.example") == 1
        await host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
        for asked in await asyncio.gather(
            *(host.run([*SIMOPEN, *words, "2001:db8::5", "--timeout", "2s"]) for words in ASKING.values())
        ):
            assert b"this host has no route to it" in asked.stderr


ASKING = {"time": ("clock", "--ntp"), "STUN": ("nat", "--stun")}


async def unknown(host: lab.Host, command: str, option: str) -> Sequence[lab.Completed]:
    """In brief, and with -v."""
    named = [*SIMOPEN, command, option, "one.example", option, "other.example", "--timeout", "2s"]
    return await asyncio.gather(host.run(named), host.run([*named, "-v"]))
