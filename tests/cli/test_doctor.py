"""The doctor against fakes on loopback, on hosts of the lab, and as the command that people run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from simopen import lab
from simopen.cli.doctor import examine, firewalls_on, in_time, output_of
from simopen.cli.doctor_checks import Check, Finding, Verdict
from simopen.errors import LocalEndpointError
from simopen.model.endpoint import Endpoint
from tests.fake_ntp import FakeNtp
from tests.fake_stun import FakeStun, full_server
from tests.loopback import THERE, ports
from tests.loops import ONE_LOOP
from tests.nat.test_discovery_in_lab import behind

__all__ = ["ports"]

OK, WARN, FAIL, UNKNOWN = Verdict.OK, Verdict.WARN, Verdict.FAIL, Verdict.UNKNOWN
PLENTY_S = 20.0  # for what answers at once
PUBLIC = "198.51.100.1"


async def examined(ntp: Sequence[str], stun: Sequence[str], timeout_s: float = PLENTY_S) -> dict[Check, Finding]:
    found = await examine(ntp, stun, timeout_s)
    assert [each.check for each in found] == list(Check)
    assert all(each.found and each.advice for each in found)
    return {each.check: each for each in found}


def one_endpoint(seen: Endpoint, server: Endpoint) -> Endpoint:
    return Endpoint(PUBLIC, 1024 + seen.port % 60_000)


def a_portal(request: bytes, right: bytes) -> bytes:
    return b"HTTP/1.1 302 Found\r\nLocation: https://hotel.example/login\r\n\r\n"


@contextlib.asynccontextmanager
async def two_clocks(offset_s: float = 0.0) -> AsyncIterator[list[str]]:
    async with FakeNtp(offset_s) as one, FakeNtp(offset_s) as other:
        yield [one.name, other.name]


async def test_a_host_that_is_well(ports: tuple[int, int]) -> None:
    async with two_clocks() as ntp, full_server((THERE, "127.0.0.3"), ports, told=one_endpoint) as servers:
        found = await examined(ntp, [str(next(iter(servers)))])
    assert "2 of 2 servers" in found[Check.CLOCK].found
    assert found[Check.SIMULTANEOUS_OPEN] == Finding(Check.SIMULTANEOUS_OPEN, OK, "one socket connected to itself", "-")
    assert found[Check.PORT_SHARING].verdict is OK
    assert f"mapping, seen as {PUBLIC}:" in found[Check.STUN].found


async def test_a_clock_that_is_off() -> None:
    async with two_clocks(3.5) as ntp, FakeStun() as stun:
        found = await examined(ntp, [stun.name])
    assert found[Check.CLOCK].verdict is WARN
    assert "+3.5" in found[Check.CLOCK].found


async def test_nobody_is_asked_for_the_time_where_nobody_is_named() -> None:
    async with FakeStun() as stun:
        found = await examined((), [stun.name])
    assert found[Check.CLOCK].notes == ("no time server was asked (--no-ntp)",)


async def test_a_captive_portal() -> None:
    async with two_clocks() as ntp, FakeStun(wrong=a_portal, udp=False) as stun:
        found = await examined(ntp, [stun.name])
    assert found[Check.STUN].verdict is FAIL
    assert "log in to this network" in found[Check.STUN].advice
    assert stun.name in found[Check.STUN].notes[0]
    assert "2 of 2 servers" in found[Check.CLOCK].found


async def test_servers_that_say_nothing_do_not_hide_the_rest() -> None:
    async with FakeNtp(answers=0) as ntp, FakeStun(silent=True) as stun, FakeStun(hangs_up=True) as other:
        found = await examined([ntp.name], [stun.name, other.name], 1.0)
    assert found[Check.STUN].verdict is FAIL
    assert found[Check.STUN].found == "none of 2 servers answered"
    assert f"{stun.name}: no answer within " in found[Check.STUN].notes[0]
    assert f"{other.name}: it " in found[Check.STUN].notes[0]
    assert f"{ntp.name}: no answer to" in found[Check.CLOCK].notes[0]
    assert found[Check.SIMULTANEOUS_OPEN].verdict is OK


@pytest.mark.parametrize("servers", [{"ntp": ["a:b:c"], "stun": None}, {"ntp": [], "stun": ["a:b:c"]}])
async def test_a_server_that_cannot_be_read_is_a_bad_argument(servers: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a:b:c"):
        await examine(servers["ntp"], servers["stun"], PLENTY_S)


async def for_ever() -> Finding:
    forever: asyncio.Future[Finding] = asyncio.get_running_loop().create_future()
    return await forever


async def refused() -> Finding:
    raise LocalEndpointError("no file descriptors left")


async def broken() -> Finding:
    raise OSError("no such thing")


async def a_bug() -> Finding:
    raise AssertionError("that cannot be")


@pytest.mark.parametrize(
    ("looking", "words"),
    [
        *((for_ever, "no result within 0.01 s"), (refused, "no file descriptors left"), (broken, "no such thing")),
        (a_bug, "could not be looked at: AssertionError: that cannot be"),
    ],
)
async def test_a_check_that_breaks_is_unknown(looking: Callable[[], Any], words: str) -> None:
    found = await in_time(Check.FIREWALL, looking(), 0.01)
    assert (found.check, found.verdict) == (Check.FIREWALL, UNKNOWN)
    assert words in found.found
    assert found.advice != "-"


# --- firewalls


async def test_what_a_program_says() -> None:
    assert await output_of(sys.executable, "-c", "print('hello')") == "hello\n"
    assert await output_of(sys.executable, "-c", "print('hello'); raise SystemExit(1)") is None


async def test_a_program_that_is_not_waited_for_is_ended(tmp_path: Path) -> None:
    said = tmp_path / "pid"
    os.mkfifo(said)
    code = f"import os, time; open({str(said)!r}, 'w').write(str(os.getpid())); time.sleep(3600)"
    task = asyncio.create_task(output_of(sys.executable, "-c", code))
    pid = int(await asyncio.to_thread(said.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with contextlib.suppress(ProcessLookupError):
        async with asyncio.timeout(10):
            while True:  # uvloop waits for no program that it kills because its start was cancelled
                os.kill(pid, 0)
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("files", "on"),
    [
        ({}, []),
        ({"etc/ufw/ufw.conf": "# ufw\nENABLED=yes\nLOGLEVEL=low\n"}, ["ufw"]),
        ({"etc/ufw/ufw.conf": "#ENABLED=yes\nENABLED=no\n"}, []),
        ({"proc/1/comm": "init\n", "proc/77/comm": "firewalld\n"}, ["firewalld"]),
        ({"proc/1/comm": "init\n", "proc/self/comm": "firewalld\n"}, []),
        ({"etc/ufw/ufw.conf": "ENABLED=yes", "proc/9/comm": "firewalld\n"}, ["ufw", "firewalld"]),
    ],
)
def test_firewalls_that_are_on(files: dict[str, str], on: list[str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert firewalls_on(tmp_path) == on


# --- the command


async def simopen_doctor(*words: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simopen", "doctor", *words, stdout=PIPE, stderr=PIPE, start_new_session=True
    )


async def ended(process: Process) -> tuple[int | None, str, str]:
    out, said = await process.communicate()
    return process.returncode, out.decode(), said.decode()


def verdicts(out: str) -> dict[str, str]:
    return {each["check"]: each["verdict"] for each in json.loads(out)["findings"]}


@ONE_LOOP
async def test_the_command_tells_it_in_a_table() -> None:
    async with two_clocks() as (one, other), FakeStun(wrong=a_portal, udp=False) as stun:
        words = ["--ntp", one, "--ntp", other, "--stun", stun.name, "--timeout", "20s"]
        status, out, said = await ended(await simopen_doctor(*words))
    assert status == 1
    title, columns, *rows = out.splitlines()
    assert title == "is this host fit to punch?"
    assert columns.split("  ")[0] == "check"
    assert columns.endswith("what to do")
    assert [row.startswith(str(check)) for row, check in zip(rows, Check, strict=True)] == [True] * len(Check)
    assert "open a web page" in rows[-1]
    assert said.startswith("examining this host ...\nsimopen: note: no STUN server told")
    failing = [row.split("  ")[0] for row in rows if "  fails  " in row]
    assert said.splitlines()[-1] == f"not fit: {', '.join(failing)}"
    assert "STUN over TCP" in failing


@ONE_LOOP
async def test_the_command_tells_it_as_one_line_of_json() -> None:
    status, out, said = await ended(await simopen_doctor("--no-ntp", "--stun", "127.0.0.9:9", "--json"))
    assert said == ""
    assert out.count("\n") == 1
    assert (status, json.loads(out)["fit"]) == (1, False)
    assert list(verdicts(out)) == list(Check)
    assert verdicts(out)["STUN over TCP"] == "fails"


@ONE_LOOP
async def test_interrupted_it_leaves_nothing() -> None:
    async with FakeStun(silent=True) as stun:
        process = await simopen_doctor("--no-ntp", "--stun", stun.name, "--timeout", "60s")
        await stun.until(lambda: bool(stun.clients))
        process.send_signal(signal.SIGINT)
        status, out, said = await ended(process)
        await stun.until(lambda: len(stun.ended) == len(stun.clients))
    assert (status, out) == (130, "")
    assert said == "examining this host ...\nsimopen: interrupted; everything is closed\n"


@ONE_LOOP
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--timeout", "0s"], "longer than zero"),
        (["--stun", ""], "server"),
        (["--ntp", "a:b:c"], "a:b:c"),
        (["--ntp", "127.0.0.1", "--no-ntp"], "not allowed with"),
    ],
)
async def test_bad_input_is_refused_in_words(words: list[str], complaint: str) -> None:
    status, out, said = await ended(await simopen_doctor(*words))
    assert (status, out) == (2, "")
    assert complaint in said


# --- on hosts of the lab


async def on(host: lab.Host, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = await host.run([sys.executable, "-m", "simopen", "doctor", "--json", *words])
    assert done.stderr == b""
    return done.returncode, {each["check"]: each for each in json.loads(done.stdout)["findings"]}


@ONE_LOOP
@pytest.mark.lab
async def test_a_host_behind_a_nat() -> None:
    async with behind(lab.Nat()) as (_, host, (one, _)):
        status, found = await on(host, "--no-ntp", "--stun", one.address)
        plain = await host.run([sys.executable, "-m", "simopen", "doctor", "--no-ntp", "--stun", one.address])
    assert status == 0
    warned = [check for check, each in found.items() if each["verdict"] == "warning"]
    assert plain.stderr.decode().splitlines()[-1] == f"fit, but: {', '.join(warned)}"
    assert found["IPv4"]["verdict"] == "ok"
    assert found["IPv4"]["found"].startswith(f"has a route, from {host.address}, a private address")
    assert found["IPv6"]["found"].startswith(host.address6)
    assert f"endpoint-independent mapping, seen as {host.public_address}:" in found["STUN over TCP"]["found"]


@ONE_LOOP
@pytest.mark.lab
async def test_a_host_that_reaches_nobody() -> None:
    async with lab.Network() as net:
        host = await net.host("left", nat=lab.Nat())
        nobody = ["--stun", "203.0.113.200", "--stun", "203.0.113.201", "--ntp", "203.0.113.202", "--timeout", "2s"]
        status, found = await on(host, *nobody)
    assert status == 1
    assert "(0 of 1 answered): 203.0.113.202: " in found["clock"]["notes"][0]
    assert found["STUN over TCP"]["found"] == "none of 2 servers answered"
    (told,) = found["STUN over TCP"]["notes"]
    assert "no answer within" in told
    assert all(f"203.0.113.{number}:3478" in told for number in (200, 201))
    assert found["simultaneous open"]["verdict"] == "ok"


@ONE_LOOP
@pytest.mark.lab
async def test_a_host_whose_names_nobody_looks_up() -> None:
    async with lab.Network() as net:
        host = await net.host("left")
        status, found = await on(host, "--stun", "stun.example", "--ntp", "time.example", "--timeout", "1s")
    assert status == 1
    assert "resolv.conf" in found["STUN over TCP"]["advice"]
    assert "time.example: its name" in found["clock"]["notes"][0]


OUTPUT = "add table inet t; add chain inet t out { type filter hook output priority 0; policy drop; }"


@ONE_LOOP
@pytest.mark.lab
@pytest.mark.skipif(not shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin"), reason="install nftables")
async def test_a_host_whose_firewall_lets_nothing_out() -> None:
    async with behind(None) as (_, host, (one, _)):
        loaded = await host.run(["/usr/sbin/nft", OUTPUT])
        status, found = await on(host, "--ntp", one.address, "--stun", one.address, "--timeout", "2s")
    assert (loaded.returncode, status) == (0, 1)
    assert found["firewall (hints)"]["verdict"] == "warning"
    assert "nftables drops what goes out" in found["firewall (hints)"]["found"]
    assert found["simultaneous open"]["verdict"] == "fails"
    assert "loopback" in found["simultaneous open"]["advice"]
    assert found["STUN over TCP"]["verdict"] == "fails"
