"""The examples, run as their docstrings say."""

from __future__ import annotations

import asyncio
import os
import re
import select
import subprocess
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import simopen
from simopen import lab
from tests.cli.test_send import rendezvous
from tests.loopback import ports
from tests.loops import ONE_LOOP
from tests.terminal import Terminal, at_terminal

__all__ = ["ports"]
EXAMPLES = Path(__file__).parent.parent / "examples"
TESTED = {
    "chat.py",
    "feed.py",
    "file_server.py",
    "keep_alive.py",
    "love.py",
    "remote_shell.py",
    "same_port.py",
    "selfie.py",
    "slot.py",
}
# Until two interpreters have started, on a machine that does other things as well.
LEAD_S = 1.5
LONG_S = 50.0
CODE = r"\d+(?:-[a-z]+)+"


def _needs(name: str) -> None:
    """Skip where the example's own extra is not installed; CI has it."""
    if name in {"file_server.py", "keep_alive.py"}:
        pytest.importorskip("httpx2", reason="needs pip install '.[http]'")


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_each_example_is_tested_and_says_what_it_does() -> None:
    found = {path.name: path.read_text() for path in EXAMPLES.glob("*.py")}
    assert set(found) == TESTED
    assert all(text.startswith('"""') for text in found.values())


def test_the_page_shows_each_with_the_lines_of_its_docstring() -> None:
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text()
    for name in sorted(TESTED):
        section = page.partition(f"\n## {name}\n")[2]
        assert f"[{name}](../examples/{name})" in section.partition("\n## ")[0], name
        typed = re.findall(r"^    (\w+)\$ +(.*)$", (EXAMPLES / name).read_text(), re.MULTILINE)
        assert all(re.search(rf"^{who}: +{re.escape(words)}$", section, re.MULTILINE) for who, words in typed), name


@pytest.mark.lab
def test_love() -> None:
    asyncio.run(_love())


async def _love() -> None:
    """Each knows the other's public address and the instant, nothing else; the SYNs cross."""
    async with lab.Network() as net:
        left = await net.host("left", delay_s=0.02, nat=lab.Nat())
        right = await net.host("right", delay_s=0.02, nat=lab.Nat())
        love, at = [sys.executable, str(EXAMPLES / "love.py")], str(time.time() + LEAD_S)
        ended = await asyncio.gather(
            left.run([*love, right.public_address, "1314", at, "--no-ntp"]),
            right.run([*love, left.public_address, "1314", at, "--no-ntp"]),
        )
        record = await net.record()
    for done in ended:
        assert (done.returncode, done.stdout, done.stderr) == (0, b"I love you.\n", b"")
    assert record.opened_simultaneously("left", "right")


@pytest.mark.lab(router=True)
@pytest.mark.real_server
def test_love_again_and_again_on_the_same_ports() -> None:
    """Behind real routers that drop: what they remember of one stream does not shut the next one out."""
    asyncio.run(_love_again())


async def _love_again() -> None:
    async with lab.Network() as net:
        hosts = [await net.host(name, delay_s=0.02, nat=lab.LinuxRouter()) for name in ("left", "right")]
        for _ in range(3):
            at = str(time.time() + LEAD_S)
            commands = [
                [sys.executable, str(EXAMPLES / "love.py"), peer.public_address, "1314", at, "--no-ntp"]
                for peer in reversed(hosts)
            ]
            both = zip(hosts, commands, strict=True)
            for done in await asyncio.gather(*(host.run(command) for host, command in both)):
                assert (done.returncode, done.stdout, done.stderr) == (0, b"I love you.\n", b"")


@pytest.mark.lab
def test_slot(tmp_path: Path) -> None:
    secret = tmp_path / "secret.key"
    secret.write_text(f"{simopen.new_key().hex()}\n")
    asyncio.run(_slot(secret))


async def _slot(secret: Path) -> None:
    """The one begins and fires in vain; the other comes after that, and nobody tells either of it."""
    async with asyncio.timeout(LONG_S), lab.Network() as net:
        early = await net.host("early", delay_s=0.02, nat=lab.Nat())
        late = await net.host("late", delay_s=0.02, nat=lab.Nat())
        slot, words = [sys.executable, "-u", str(EXAMPLES / "slot.py")], ["1314", str(secret), "--every=3", "--no-ntp"]
        began = await early.start([*slot, late.public_address, *words])
        assert began.stdout is not None
        first = await began.stdout.readline()
        came = await late.run([*slot, early.public_address, *words])
        said, faults = await began.communicate()
        record = await net.record()
    assert first.startswith(b"try 1: "), (first, faults)
    for heard, status, error in ((said, began.returncode, faults), (came.stdout, came.returncode, came.stderr)):
        assert (heard.splitlines()[-1], status, error) == (b"I love you.", 0, b"")
    assert record.opened_simultaneously("early", "late")


@pytest.mark.lab
def test_feed() -> None:
    asyncio.run(_feed())


async def _feed() -> None:
    """Both play to the end; no answer is there before light could bring it."""
    async with lab.Network() as net:
        left = await net.host("left", delay_s=0.02, nat=lab.Nat())
        right = await net.host("right", delay_s=0.02, nat=lab.Nat())
        feed, at = [sys.executable, str(EXAMPLES / "feed.py")], str(time.time() + LEAD_S)
        ended = await asyncio.gather(
            left.run([*feed, right.public_address, "1314", at, "--no-ntp"]),
            right.run([*feed, left.public_address, "1314", at, "--no-ntp"]),
        )
        record = await net.record()
    for done in ended:
        assert (done.returncode, done.stderr) == (0, b"")
        first, late = done.stdout.decode().splitlines()
        assert first == "ticks: 120 each way; the peer ended at (1.00, -0.05)"
        median, p99 = re.findall(r"(?:median|p99) ([0-9.]+) ms", late)
        assert 80 <= float(median) <= float(p99)
    assert record.opened_simultaneously("left", "right")


@pytest.mark.lab
def test_keep_alive() -> None:
    _needs("keep_alive.py")
    asyncio.run(_keep_alive())


async def _keep_alive() -> None:
    """A hundred requests and as many answers, in the packets of one connection, which began with one SYN of each."""
    async with lab.Network() as net:
        left = await net.host("left", delay_s=0.005, nat=lab.Nat())
        right = await net.host("right", delay_s=0.005, nat=lab.Nat())
        example, at = [sys.executable, str(EXAMPLES / "keep_alive.py")], str(time.time() + LEAD_S)
        served, asked = await asyncio.gather(
            left.run([*example, "serve", right.public_address, "1314", at, "--no-ntp"]),
            right.run([*example, "ask", left.public_address, "1314", at, "--no-ntp"]),
        )
        record = await net.record()

    for done in (served, asked):
        assert (done.returncode, done.stderr) == (0, b"")
    assert served.stdout == b"requests: 100, connections: 1\n"
    first, cost = asked.stdout.decode().splitlines()[:2]
    assert first.startswith("requests: 100, connections: 1, a round trip: ")
    assert cost.startswith("100 connections would have cost ")

    sent = [passage for passage in record if passage.origin is lab.Origin.HOST]
    assert {(passage.source, passage.sent.source.port, passage.sent.destination) for passage in sent} == {
        ("left", 1314, lab.Endpoint(right.public_address, 1314)),
        ("right", 1314, lab.Endpoint(left.public_address, 1314)),
    }
    assert record.opened_simultaneously("left", "right")
    # A SYN that the kernel repeats has the sequence number of the first; another connection's would not.
    assert len({(passage.source, passage.sent.seq) for passage in sent if passage.sent.is_syn}) == 2
    assert _carried(sent, "right").count(b"GET /") == _carried(sent, "left").count(b"HTTP/1.1 200") == 100


def _carried(sent: list[lab.Passage], source: str) -> bytes:
    """What this host said in the one stream, in order, and what it sent twice only once."""
    packets = [passage.sent for passage in sent if passage.source == source]
    first = next(packet.seq for packet in packets if packet.is_syn)
    stream = bytearray()
    for packet in packets:
        at = (packet.seq - first - 1) % 2**32
        if packet.payload_length:
            stream[at : at + packet.payload_length] = packet.data[-packet.payload_length :]
    return bytes(stream)


@dataclass(frozen=True)
class Desk:
    """Where a program is started: on a host of the lab, or on this one."""

    via: str
    environment: Mapping[str, str] = field(default_factory=dict)
    host: lab.Host | None = None

    async def start(self, *words: object, at: Terminal | None = None) -> Process:
        """An example, by its name, and its arguments; with pipes, or at a terminal."""
        command = [sys.executable, str(EXAMPLES / str(words[0])), *map(str, words[1:])]
        end, environment = PIPE, {**os.environ, "SHELL": "/bin/sh", "SIMOPEN_VIA": self.via, **self.environment}
        if at is not None:
            command, end = at_terminal(command), at.fd
        streams: dict[str, Any] = {"stdin": end, "stdout": end, "stderr": end, "env": environment}
        if self.host is not None:
            process = await self.host.start(command, **streams)
        else:
            process = await asyncio.create_subprocess_exec(*command, **streams, start_new_session=True)
        if at is not None:
            at.given()
        return process


async def code_of(process: Process) -> str:
    """What it tells the other side to type has the code in it."""
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    return next((word for word in line.split() if re.fullmatch(CODE, word)), line)


@pytest.mark.lab
def test_those_that_meet_by_a_code(tmp_path: Path) -> None:
    """Side by side, each between two hosts behind NATs, by one rendezvous that all of them reach."""
    _needs("file_server.py")
    asyncio.run(_by_a_code(tmp_path))


async def _by_a_code(directory: Path) -> None:
    async with asyncio.timeout(LONG_S), lab.Network(seed=1) as net:
        server = await net.host("rendezvous", delay_s=0.005, two_addresses=True)
        assert server.second_address is not None
        certificate = str(certified(server.address, directory / "certificate.pem"))
        words = [sys.executable, "-m", "simopen", "serve", "--certificate", certificate, "--host", server.address]
        stun = ["--stun-address", server.address, "--stun-address", server.second_address]
        serving = await server.start([*words, *stun], cwd=EXAMPLES.parent, stderr=None)
        assert serving.stdout is not None
        assert (await serving.stdout.readline()).startswith(b"wss://")

        async def desk(name: str) -> Desk:
            host = await net.host(name, delay_s=0.01, nat=lab.Nat())
            done = await host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
            assert done.returncode == 0, done.stderr
            return Desk(f"wss://{server.address}:4000/v1", {"SSL_CERT_FILE": certificate}, host)

        pairs = [(await desk(f"one of {name}"), await desk(f"other of {name}")) for name in ("chat", "files", "shell")]
        chat, files, shell = pairs
        await asyncio.gather(chatted(*chat), fetched(*files, directory), typed_in_a_shell(*shell))
        record = await net.record()
    assert all(record.opened_simultaneously(*(desk.host.name for desk in pair if desk.host)) for pair in pairs)


def certified(address: str, path: Path) -> Path:
    """A certificate of this address, and its key, in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, address)])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    its_key = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(encoding) + its_key)
    return path


async def chatted(here: Desk, there: Desk) -> None:
    """Two terminals. What one types cannot steer the other's, and whoever ends it ends it for both."""
    with Terminal(200) as one, Terminal(200) as other:
        chats = [await here.start("chat.py", at=one)]
        code = await asyncio.to_thread(one.wait_for_match, rf"python chat.py ({CODE})\s")
        chats.append(await there.start("chat.py", code, at=other))
        for mine, its in ((one, other), (other, one)):
            await asyncio.to_thread(mine.wait_for, "your peer is here")
            mine.type("I love\x16\x1b you.\n")  # Ctrl-V takes what comes next as it is
            await asyncio.to_thread(its.wait_for, "peer: I love\ufffd you.")
        one.type("\x04")
        for each in (one, other):
            await asyncio.to_thread(each.read_to_the_end)
        assert [await each.wait() for each in chats] == [0, 0]


async def fetched(here: Desk, there: Desk, directory: Path) -> None:
    """All files of the folder itself, whatever their names are; no folder in it, and nothing that a link leads to."""
    source, target = directory / "source", directory / "target"
    for folder in (source, target, source / "inner"):
        folder.mkdir()
    files = {"a.bin": os.urandom(300_000), "empty": b"", "is it 100 % ö?#": b"yes"}
    for name, held in files.items():
        (source / name).write_bytes(held)
    (source / "link").symlink_to("/etc/passwd")
    server = await here.start("file_server.py", "serve", source)
    client = await there.start("file_server.py", "fetch", await code_of(server), target)
    ends = await asyncio.gather(client.communicate(), server.communicate())
    assert [client.returncode, server.returncode] == [0, 0], ends
    assert ends[0][0].endswith(b"files: 3, connections: 1\n")
    assert {each.name: each.read_bytes() for each in target.iterdir()} == files


async def let_in(here: Desk, there: Desk, terminal: Terminal) -> tuple[Process, Process]:
    """The shell's two sides, once it has shown its prompt: what is typed before that goes nowhere."""
    share = await here.start("remote_shell.py", "share")
    use = await there.start("remote_shell.py", "use", await code_of(share), at=terminal)
    await asyncio.to_thread(terminal.wait_for, "your peer is asked")
    assert share.stdin is not None
    share.stdin.write(b"yes\n")
    await asyncio.to_thread(terminal.wait_for_match, r"([#$] )$")
    return share, use


async def typed_in_a_shell(here: Desk, there: Desk) -> None:
    with Terminal(132) as terminal:
        share, use = await let_in(here, there, terminal)
        terminal.type("stty size; tty; echo $((6 * 7))\n")
        await asyncio.to_thread(terminal.wait_for_match, r"^24 132\s+/dev/pts/\d+\s+(42)\s")
        terminal.type("exit\n")
        await asyncio.to_thread(terminal.read_to_the_end)
        _, said = await share.communicate()
        assert (await use.wait(), share.returncode, said) == (0, 0, b"")


@ONE_LOOP
async def test_remote_shell_ends_where_its_peer_is_gone() -> None:
    with Terminal() as terminal:
        async with rendezvous() as via:
            share, use = await let_in(Desk(via), Desk(via), terminal)
            terminal.type("echo pid $$\n")
            shell = os.pidfd_open(int(await asyncio.to_thread(terminal.wait_for_match, r"^pid (\d+)\s")))
            use.kill()
            _, said = await share.communicate()
            assert (share.returncode, b"the link ended" in said) == (1, True), said
            try:
                ended, _, _ = await asyncio.to_thread(select.select, [shell], [], [], LONG_S)
            finally:
                os.close(shell)
            assert ended
            await use.wait()


@ONE_LOOP
async def test_remote_shell_is_nobodys_without_a_yes() -> None:
    with Terminal() as terminal:
        async with rendezvous() as via:
            share = await Desk(via).start("remote_shell.py", "share")
            use = await Desk(via).start("remote_shell.py", "use", await code_of(share), at=terminal)
            terminal.type("echo $((6 * 7))\n")
            await asyncio.to_thread(terminal.wait_for, "your peer is asked")
            _, said = await share.communicate(b"y\n")
            await asyncio.to_thread(terminal.wait_for, "your peer said no")
            assert "42" not in await asyncio.to_thread(terminal.read_to_the_end)
            assert (await use.wait(), share.returncode, said) == (1, 0, b"")


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["love.py"], "python love.py 203.0.113.7 1314 22:14:30"),
        (["slot.py", "203.0.113.7", "1314"], "python slot.py 203.0.113.7 1314 secret.key"),
        (["feed.py", "203.0.113.7"], "python feed.py 203.0.113.7 1314 22:14:30"),
        (["chat.py", "7-croissant-zucchini", "8"], "python chat.py 7-croissant-zucchini"),
        (["file_server.py", "serve"], "python file_server.py serve photos"),
        (["remote_shell.py", "7-croissant-zucchini"], "python remote_shell.py use 7-croissant-zucchini"),
        (["keep_alive.py"], "python keep_alive.py serve 203.0.113.7 1314 22:14:30"),
        (["keep_alive.py", "listen", "203.0.113.7", "1314", "+1s"], "python keep_alive.py ask 198.51.100.9 1314"),
    ],
)
def test_they_say_how_to_use_them(words: list[str], usage: str) -> None:
    _needs(words[0])
    done = run(*words)
    assert done.returncode == 1
    assert usage in done.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["love.py", "127.0.0.1", "1314", "soon"], "'soon' is no instant"),
        (["love.py", "no..name", "1314", "+1s", "--no-ntp"], "'no..name' has no address"),
        (["keep_alive.py", "serve", "127.0.0.1", "1314", "soon"], "'soon' is no instant"),
        (["keep_alive.py", "ask", "no..name", "1314", "+1s", "--no-ntp"], "'no..name' has no address"),
        (["slot.py", "127.0.0.1", "1314", "no-such-file"], "No such file"),
        (["slot.py", "127.0.0.1", "1314", os.devnull], "at least 16 random bytes"),
        (["feed.py", "127.0.0.1", "1314", "soon"], "'soon' is no instant"),
        (["chat.py", "no code"], "begins with a number"),
        (["file_server.py", "serve", "no-such-folder"], "No such file"),
        (["remote_shell.py", "use", "no code"], "Inappropriate ioctl"),
        (["selfie.py", "70000"], "65535, not 70000"),
        (["same_port.py", "70000"], "65535, not 70000"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words: list[str], complaint: str) -> None:
    _needs(words[0])
    done = run(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


INTERRUPTED = """
import asyncio, runpy, sys
def run(main):
    main.close()
    raise KeyboardInterrupt  # as asyncio.run does
asyncio.run = run
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    "words",
    [
        ["chat.py"],
        ["feed.py", "h", "1", "+1s"],
        ["file_server.py", "serve", "photos"],
        ["keep_alive.py", "ask", "h", "1", "+1s"],
        ["love.py", "h", "1", "+1s"],
        ["remote_shell.py", "share"],
        ["same_port.py"],
        ["selfie.py"],
        ["slot.py", "h", "1", "key"],
    ],
    ids=lambda words: words[0],
)
def test_who_interrupts_them_sees_no_traceback(words: list[str]) -> None:
    _needs(words[0])
    command = [sys.executable, "-c", INTERRUPTED, str(EXAMPLES / words[0]), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_same_port(ports: tuple[int, int]) -> None:
    done = run("same_port.py", ports[0])
    assert (done.returncode, done.stderr) == (0, "")
    rows = [f"127.0.0.1:{ports[0]}  ->  127.0.0.{n}:{ports[0]}" for n in (2, 3)]
    assert sorted(done.stdout.splitlines()) == rows


def test_selfie(ports: tuple[int, int]) -> None:
    done = run("selfie.py", ports[0])
    assert (done.returncode, done.stderr) == (0, "")
    me = ("127.0.0.1", ports[0])
    assert done.stdout == f"sockname {me} == peername {me}: True\nI love me.\n"
