"""`simopen meet`, typed and pasted at terminals: on hosts of the lab, behind NATs; and what is told at the prompt."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from simopen import lab
from simopen.lab import Nat
from simopen.model.endpoint import Endpoint
from simopen.rendezvous import peers
from simopen.ticket.codec import parse_ticket
from simopen.ticket.keys import PrivateKey
from tests import sshd
from tests.fake_stun import FakeStun
from tests.holepunch.test_by_ticket import SEQUENTIAL, stun_servers
from tests.loops import ONE_LOOP
from tests.terminal import Terminal, at_terminal
from tests.ticket.test_codec import OF_VERSION_1, SIMPLE

ROOT = Path(__file__).parents[2]
ON_UVLOOP = (sys.executable, "-m", "simopen")
ON_ASYNCIO = (
    sys.executable,
    "-c",
    "import sys; sys.modules['uvloop'] = None; from simopen.__main__ import main; sys.exit(main())",
)
DELAY_S = 0.01
LONG_S = 120.0


class Side:
    """`simopen meet` at a terminal of its own, on a lab host or on this one."""

    def __init__(
        self,
        servers: Sequence[str],
        host: lab.Host | None = None,
        simopen: Sequence[str] = ON_UVLOOP,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.host = host
        self._env = None if env is None else {**os.environ, **env}
        self.terminal = Terminal(columns)
        self._asked = [word for server in servers for word in ("--stun", server)]
        self._simopen = simopen
        self._process: Process | None = None

    async def start(self, *words: str, stdin: int | None = None, stdout: int | None = None) -> None:
        end = self.terminal.fd
        command = at_terminal([*self._simopen, "meet", "--no-ntp", "--timeout", "20s", *self._asked, *words])
        streams = (end if stdin is None else stdin, end if stdout is None else stdout, end)
        if self.host is not None:
            self._process = await self.host.start(
                command, stdin=streams[0], stdout=streams[1], stderr=streams[2], cwd=ROOT, env=self._env
            )
        else:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                cwd=ROOT,
                env=self._env,
                start_new_session=True,
            )
        self.terminal.given()

    async def line(self) -> str:
        """What it says that the peer shall type, `simopen meet` first."""
        return await asyncio.to_thread(self.terminal.wait_for_match, r"^(simopen meet (?:--spray )?[A-Z2-7]+)\n")

    async def ticket(self) -> str:
        return (await self.line()).split()[-1]

    async def sees(self, words: str) -> str:
        return await asyncio.to_thread(self.terminal.wait_for, words)

    def type(self, text: str) -> None:
        self.terminal.type(text)

    async def end(self) -> str:
        """All that was seen."""
        return await asyncio.to_thread(self.terminal.read_to_the_end)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def status(self) -> int:
        assert self._process is not None
        async with asyncio.timeout(LONG_S):
            return await self._process.wait()

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self.terminal.__exit__()


@contextlib.asynccontextmanager
async def sides(*all_of_them: Side) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await asyncio.gather(*(each.close() for each in all_of_them))


async def behind(net: lab.Network, name: str, nat: Nat | None) -> lab.Host:
    host = await net.host(name, delay_s=DELAY_S, nat=nat)
    done = await host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
    assert done.returncode == 0, done.stderr.decode()
    return host


async def talk(left: Side, right: Side) -> None:
    """Once they have met, each reads what the other types; and both end."""
    for side in (left, right):
        await side.sees("simopen: proven: the one who made that ticket")
        await side.sees("what you type reaches your peer; Ctrl-D ends")
    left.type("are you there?\n")
    await right.sees("are you there?")
    right.type("yes, I am\n")
    await left.sees("yes, I am")
    left.type("\x04")
    right.type("\x04")
    seen = await asyncio.gather(left.end(), right.end())
    assert [await side.status() for side in (left, right)] == [0, 0]
    for text, sent, received in zip(seen, (15, 10), (10, 15), strict=True):
        assert re.search(rf"\n{sent} bytes sent, {received} received in \d+\.\d s \(\d+ B/s\)\n", text), text


async def pasted(
    net: lab.Network, servers: list[str], name: str, nats: tuple[Nat, Nat], words: tuple[str, ...]
) -> None:
    """One side is at its prompt; the other is given its line; its answer is pasted as it was shown."""
    hosts = [await behind(net, f"{side} of {name}", nat) for side, nat in zip(("left", "right"), nats, strict=True)]
    left, right = Side(servers, hosts[0], ON_UVLOOP), Side(servers, hosts[1], ON_ASYNCIO)
    async with sides(left, right):
        await left.start(*words)
        line = await left.line()
        await left.sees("and press Enter:")
        await right.start(*words, *line.split()[2:])
        left.type(f"{await right.line()}\n")
        await talk(left, right)


async def at_different_times(net: lab.Network, servers: list[str], homes: Path) -> None:
    """The first side has tried for a round before the other has its ticket; it is the asyncio one.

    They remember each other.
    """
    hosts = [await behind(net, f"{side} at different times", Nat()) for side in ("left", "right")]
    folders = [homes / name for name in ("left", "right")]
    left, right = (
        Side(servers, host, program, env={"XDG_DATA_HOME": str(folder)})
        for host, program, folder in zip(hosts, (ON_UVLOOP, ON_ASYNCIO), folders, strict=True)
    )
    async with sides(left, right):
        await left.start("--remember", "friend")
        await right.start("--remember", "friend", await left.ticket())
        await right.sees("(round 2, until")
        left.type(f"{await right.ticket()}\n")
        await talk(left, right)
    one, other = (peers.known_peer("friend", folder / "simopen" / "peers") for folder in folders)
    assert (one.key, one.room) == (other.key, other.room)


async def on_one_host(net: lab.Network, servers: list[str]) -> None:
    """Two of them, with each other, while a third one waits; and a file crosses, its reader at no terminal's input."""
    host = await behind(net, "one host", Nat())
    left, right, waiting = (Side(servers, host) for _ in range(3))
    data = os.urandom(300_000)
    async with sides(left, right, waiting):
        await waiting.start()
        source, sink = os.memfd_create("source"), os.memfd_create("sink")
        try:
            os.write(source, data)
            os.lseek(source, 0, os.SEEK_SET)
            await left.start(stdin=source)
            ticket = await left.ticket()
            await right.start(ticket, stdout=sink)
            left.type(f"{await right.ticket()}\n")
            right.type("\x04")
            assert "300000 bytes sent, 0 received in" in await left.end()
            assert "0 bytes sent, 300000 received in" in await right.end()
            assert os.pread(sink, 2 * len(data), 0) == data
        finally:
            os.close(source)
            os.close(sink)
        await waiting.sees("and press Enter:")
        assert ticket != await waiting.ticket()


async def third_partys(net: lab.Network, servers: list[str]) -> None:
    """A ticket of somebody else's, who waits for another: nobody is met, and it is said what was tried."""
    host, other = await behind(net, "astray", Nat()), await behind(net, "third party", Nat())
    astray, third = Side(servers, host), Side(servers, other)
    async with sides(astray, third):
        await third.start()
        await astray.start("--for", "1s", await third.ticket())
        seen = await astray.end()
        assert await astray.status() == 1
        assert "simopen: not met in 1 round, 1 s: nobody who has made that ticket answered" in seen, seen
        assert "simopen: no stream: " in seen
        assert "what you type" not in seen


async def killed(net: lab.Network, servers: list[str]) -> None:
    """One is killed before they meet, another while it carries: the peer goes on, and is told of the second."""
    hosts = [await behind(net, f"{side} of the killed", Nat()) for side in ("left", "right")]
    left, early, late = Side(servers, hosts[0]), Side(servers, hosts[1]), Side(servers, hosts[1])
    async with sides(left, early, late):
        await left.start()
        await early.start(await left.ticket())
        await early.ticket()
        await early.sees("meeting ")
        assert early.pid is not None
        os.kill(early.pid, signal.SIGKILL)
        await late.start(await left.ticket())
        left.type(f"{await late.ticket()}\n")
        await late.sees("what you type reaches your peer")
        await left.sees("what you type reaches your peer")
        assert late.pid is not None
        os.kill(late.pid, signal.SIGKILL)
        seen = await left.end()
        assert "simopen: the stream broke (" in seen, seen
        assert await left.status() == 1


def on_the_page(start: str) -> str:
    """The rest of the line of the page on SSH that begins so."""
    (line,) = re.findall(rf"^{start} *(.*)$", (ROOT / "docs" / "ssh.md").read_text(), re.MULTILINE)
    return str(line)


async def by_ssh(net: lab.Network, servers: list[str], where: Path, remote: str, *, ends: bool) -> str:
    """What OpenSSH's client hears, over `meet --stdio`, of its server over another. `ends`: so does its input."""
    users_key = sshd.configured(where)
    asked = [word for server in servers for word in ("--stun", server)]
    meet = " ".join([*ON_UVLOOP, "meet", "--no-ntp", "--timeout", "20s", *asked])
    far, near = [await behind(net, f"{side} of {where.name}", Nat()) for side in ("far", "near")]
    serving = on_the_page("far:   mkfifo").replace(
        "simopen meet --stdio here.ticket", f"{meet} --stdio {where / 'nears'}"
    )
    serving = serving.replace("sudo /usr/sbin/sshd", f"{sshd.SSHD} -f {where / 'config'}").replace(
        "back", f"{where}/back"
    )
    server = await far.start(["sh", "-c", f"mkfifo {serving}"], cwd=ROOT)
    proxy = on_the_page("    ProxyCommand simopen meet").replace("~/.ssh/laptop.ticket", str(where / "fars"))
    options = ["StrictHostKeyChecking=no", f"UserKnownHostsFile={where / 'known'}", "IdentitiesOnly=yes"]
    words = [word for each in (f"ProxyCommand={meet} {proxy}", *options) for word in ("-o", each)]
    ssh = ["ssh", "-F", "none", "-i", str(users_key), *words, "far", remote]
    client = await near.start(ssh, cwd=ROOT)
    for process, name in ((server, "fars"), (client, "nears")):
        (where / f"{name}.new").write_text(await shown_line(process))
        (where / f"{name}.new").rename(where / name)
    assert client.stdin is not None
    assert client.stdout is not None
    assert client.stderr is not None
    client.stdin.write(b"what I send\n")
    if ends:
        client.stdin.write_eof()
    async with asyncio.timeout(LONG_S):
        heard, said, status = await asyncio.gather(client.stdout.read(), client.stderr.read(), client.wait())
        await server.wait()
    assert status == 0, said.decode()
    client.stdin.close()
    return heard.decode()


async def shown_line(process: Process) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(LONG_S):
        while line := (await process.stderr.readline()).decode():
            if line.startswith("simopen meet "):
                return line
    raise AssertionError("no line was shown")


ALL_BUT_SSH = {
    "home and home": (Nat(), Nat(), ()),
    "a row of ports that is foreseen for the tickets' instant, and home": (SEQUENTIAL, Nat(), ("--at", "+25s")),
}


@pytest.mark.lab
def test_they_meet(tmp_path: Path) -> None:
    """Side by side in one lab: each waits for a full ten seconds, and most of it is waiting."""
    asyncio.run(all_met(tmp_path))


async def all_met(homes: Path) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))  # each terminal is read by one
    async with stun_servers() as (net, hosts):
        servers = [each.address for each in hosts]
        await asyncio.gather(
            *(pasted(net, servers, name, (one, other), words) for name, (one, other, words) in ALL_BUT_SSH.items()),
            at_different_times(net, servers, homes),
            on_one_host(net, servers),
            third_partys(net, servers),
            killed(net, servers),
        )


@pytest.mark.lab
@pytest.mark.real_server
def test_ssh_goes_through_it(tmp_path: Path) -> None:
    sshd.needed()
    for name in ("ends", "left-open"):
        (tmp_path / name).mkdir()
    asyncio.run(ssh_met(tmp_path))


async def ssh_met(where: Path) -> None:
    async with stun_servers() as (net, hosts):
        servers = [each.address for each in hosts]
        ended, left_open = await asyncio.gather(
            by_ssh(net, servers, where / "ends", "cat; echo it works", ends=True),
            by_ssh(net, servers, where / "left-open", "read -r it; echo $it, and no more", ends=False),
        )
    assert (ended, left_open) == ("what I send\nit works\n", "what I send, and no more\n")


# --- at the prompt, with nobody to meet


@contextlib.asynccontextmanager
async def prompted(*words: str, columns: int = 80) -> AsyncIterator[Side]:
    async with FakeStun() as server:
        side = Side([server.name], columns=columns)
        async with sides(side):
            await side.start(*words)
            yield side


OTHERS = replace(
    SIMPLE,
    instant=int(time.time()) + 60,
    key=PrivateKey.new().public(),
    profile=replace(SIMPLE.profile, mapped=Endpoint("198.51.100.9", 8), hosts=(Endpoint("192.168.1.9", 7),)),
)


@ONE_LOOP
async def test_at_the_prompt_each_paste_is_told_what_is_wrong_with_it() -> None:
    text = OTHERS.encode()
    async with prompted("--for", "1s") as side:
        line = await side.line()
        for paste, words in (
            (line, "the ticket is this side's own: give the one that your peer's `simopen meet` printed"),
            (
                f"simopen meet {OF_VERSION_1}",
                "the ticket is of another version: it is version 1, and this simopen reads 2",
            ),
            ("hello, world!", "the ticket is no ticket: "),
            (f"{text[:9]}{'B' if text[9] == 'A' else 'A'}{text[10:]}", "the ticket is altered: "),
            (f"simopen meet {text[:40]}", "the ticket is cut short: "),
        ):
            side.type(f"{paste}\n")
            await side.sees(words)
        side.type("\n")
        side.type(f"{text[40:]}\n")  # the rest of it
        await side.sees("these two NATs leave no way")  # the server is on loopback, where no peer can be
        assert await side.status() == 1


@ONE_LOOP
async def test_its_line_is_in_one_piece_and_holds_no_secret() -> None:
    """At 40 columns: a break of ours would be copied along."""
    async with prompted(columns=40) as side:
        ticket = await side.ticket()
        assert parse_ticket(ticket).instant > time.time() + 60
        side.type("\x04")
        seen = await side.end()
        assert await side.status() == 2
    assert f"\nsimopen meet {ticket}\n" in seen
    assert "no ticket of the peer's was given" in " ".join(seen.split())


@ONE_LOOP
async def test_ctrl_c_at_the_prompt_ends_it() -> None:
    async with prompted() as side:
        await side.sees("and press Enter:")
        side.type("\x03")
        assert "simopen: interrupted; everything is closed" in await side.end()
        assert await side.status() == 130


@ONE_LOOP
async def test_as_json_the_ticket_comes_first() -> None:
    async with prompted("--json") as side:
        told = json.loads(await asyncio.to_thread(side.terminal.wait_for_match, r"^(\{.*\})$"))
        assert told["line"] == f"simopen meet {told['ticket']}"
        parse_ticket(told["ticket"])


@ONE_LOOP
@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        ([], 2, "there is no terminal to paste the peer's ticket at: give it as the argument, or a file"),
        (["--stdio", "F", "AAAA"], 2, "leave out TICKET or --stdio FILE"),
        (
            ["laptop"],
            2,
            "'laptop' is no code, as in 7-croissant-zucchini, no @NAME of a peer that was met before, and",
        ),
        ([OF_VERSION_1], 2, "version 1, and this simopen reads 2; install the same version on both sides, and make"),
        ([OTHERS.encode()[:-9]], 2, "the ticket is cut short"),
        (["--for", "0s"], 2, "longer than zero"),
        (["--stun", "127.0.0.9:9", "--timeout", "2s", OTHERS.encode()], 1, "127.0.0.9:9"),
        (["--stdio", "/", "--stun", "STUN"], 2, "the ticket's file '/' cannot be read: Is a directory"),
    ],
)
async def test_what_cannot_be_meant_is_told(words: list[str], status: int, complaint: str) -> None:
    async with FakeStun() as server:
        words = [server.name if each == "STUN" else each for each in words]
        process = await asyncio.create_subprocess_exec(
            *ON_UVLOOP,
            "meet",
            "--no-ntp",
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        out, said = await process.communicate()
    assert (process.returncode, out) == (status, b"")
    assert complaint in said.decode()
