"""A lab in which the pages' commands and programs run as they stand: Alice, Bob, and the servers that the internet has.

What a reader has and a lab has not is put in its place, and nothing else is changed (`Pair.here`): the two public
addresses become those of the pair's NATs, the written instant one that is near, and the public STUN and time servers
the lab's own.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import textwrap
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from simopen import lab
from simopen.lab.trial import stun_server
from tests.docs.blocks import ROOT, Block
from tests.terminal import Terminal, at_terminal

WORDS = b"I love you."
DELAY_S = 0.01
# Until the interpreters of a pair have started, and with tickets found out what their NATs do, on a busy machine.
LEAD_S, TICKET_LEAD_S = 4.0, 12.0
LONG_S = 60.0
PEOPLE = ("alice", "bob")
# As the pages write them: whoever stands behind the first is Alice.
ADDRESSES = ("198.51.100.1", "203.0.113.1")
INSTANT = "22:14:30"
KEY = b"5f0f1d5fa5a9b6d0c1de0b9a3c4b8a1d7e2f6c3b9d8e4f5a6b7c8d9e0f1a2b3c\n"
"""In both people's file `shared.key`."""
_INDENT = " " * 4
_BASH = "/bin/bash"
_SHOWN = r"^(simopen meet [A-Z2-7]+)\n"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two hosts behind a home router each, and the servers that both can ask."""

    hosts: tuple[lab.Host, lab.Host]
    stun: tuple[str, ...]
    directory: Path

    def here(self, words: str, at_s: float) -> str:
        """What stands on a page, with this pair's addresses, an instant that is near, and the lab's servers."""
        for written, host in zip(ADDRESSES, self.hosts, strict=True):
            words = words.replace(written, host.public_address)
        words = words.replace(INSTANT, f"{at_s:.3f}")
        words = words.replace("holding(1314", f"holding(1314, servers={list(self.stun)!r}")
        words = words.replace("make_ticket()", f"make_ticket(at={at_s!r})")
        asked = "".join(f" --stun {server}" for server in self.stun)
        words = re.sub(r"(simopen meet)\b", rf"\1 --no-ntp{asked}", words)
        return re.sub(r"(simopen nat --ticket)", rf"\1 --at {at_s:.3f}{asked} --no-ntp", words)

    async def start(self, who: int, command: Sequence[str], **streams: int) -> Process:
        """A program on one of the two, in a directory of its own: all hosts of a lab share one file system."""
        home = self.directory / PEOPLE[who]
        home.mkdir(parents=True, exist_ok=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(home), "PATH": path, "PYTHONPATH": str(ROOT)}
        return await self.hosts[who].start(command, env=environment, cwd=home, **streams)

    async def sit_down(self, who: int, words: str, terminal: Terminal) -> Process:
        """A shell's command at a terminal."""
        command = at_terminal([_BASH, "-euc", f"exec {words}"])
        end = terminal.fd
        process = await self.start(who, command, stdin=end, stdout=end, stderr=end)
        terminal.given()
        return process

    async def shell(self, who: int, words: str) -> Process:
        return await self.start(who, ["bash", "-euc", words])


@asynccontextmanager
async def world() -> AsyncIterator[tuple[lab.Network, tuple[str, ...]]]:
    """A lab, and the STUN servers in it."""
    async with lab.Network(seed=1) as net:
        servers = [await net.host(name, delay_s=DELAY_S) for name in ("one", "two")]
        for mine, other in (servers, servers[::-1]):
            await stun_server.start(mine, mine.address, other.address)
        yield net, tuple(server.address for server in servers)


async def pair(net: lab.Network, stun: tuple[str, ...], name: str, directory: Path) -> Pair:
    """Two more hosts, behind routers as most homes have them, and IPv4 only."""
    hosts = [await net.host(f"{who} of {name}", delay_s=DELAY_S, nat=lab.Nat()) for who in PEOPLE]
    for host in hosts:
        done = await host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
        assert done.returncode == 0, done.stderr.decode()  # or they would meet over IPv6, whatever the NATs do
    return Pair((hosts[0], hosts[1]), stun, directory)


def whole(program: str) -> str:
    """A program of its own, made of lines that await."""
    body = textwrap.indent(program, _INDENT)
    return f"import asyncio, simopen\nasync def main():\n{body}\nasyncio.run(main())\n"


async def ended(process: Process, typed: bytes = b"") -> str:
    """What it printed, once it has ended well."""
    async with asyncio.timeout(LONG_S):
        out, said = await process.communicate(typed)
    assert process.returncode == 0, said.decode()
    return out.decode()


async def commands_meet(pair: Pair, block: Block) -> None:
    """What Alice types and what Bob types, at once: each reads what the other has typed."""
    at_s = time.time() + LEAD_S
    typed = {command.who: pair.here(command.words, at_s) for command in block.commands}
    assert tuple(typed) == PEOPLE
    for who in PEOPLE:
        (pair.directory / who).mkdir(parents=True)
        (pair.directory / who / "shared.key").write_bytes(KEY)
    started = [await pair.shell(who, typed[name]) for who, name in enumerate(PEOPLE)]
    assert await asyncio.gather(*(ended(each, WORDS) for each in started)) == [WORDS.decode()] * 2


async def file_crosses(pair: Pair, block: Block) -> None:
    """Alice sends what is in her directory; Bob has it afterwards."""
    at_s = time.time() + LEAD_S
    for who in PEOPLE:
        (pair.directory / who).mkdir(parents=True)
    (pair.directory / PEOPLE[0] / "letter").write_bytes(WORDS)
    started = [await pair.shell(who, pair.here(each.words, at_s)) for who, each in enumerate(block.commands)]
    await asyncio.gather(*map(ended, started))
    assert (pair.directory / PEOPLE[1] / "letter").read_bytes() == WORDS


async def program_meets(pair: Pair, block: Block) -> None:
    """Alice runs it as it stands; Bob, with her address in it."""
    at_s = time.time() + LEAD_S
    theirs = block.text.replace(ADDRESSES[1], ADDRESSES[0])
    texts = [whole(pair.here(text, at_s)) for text in (block.text, theirs)]
    started = [await pair.start(who, [sys.executable, "-c", text]) for who, text in enumerate(texts)]
    for heard in await asyncio.gather(*map(ended, started)):
        assert WORDS.decode() in heard


async def tickets_meet(pair: Pair, block: Block) -> None:
    """Each makes a ticket and leaves that running; each takes the other's in a second terminal."""
    at_s = time.time() + TICKET_LEAD_S
    makes, takes = block.commands[:2], block.commands[2:]
    assert [each.who for each in makes] == [each.who for each in takes] == list(PEOPLE)
    held = [await pair.shell(who, pair.here(each.words, at_s)) for who, each in enumerate(makes)]
    alices, bobs = [await _line(each) for each in held]
    tickets = {"ALICES-TICKET": alices, "BOBS-TICKET": bobs}
    started = []
    for who, each in enumerate(takes):
        words = re.sub(r"\w+-TICKET", lambda found: tickets[found[0]], each.words)
        started.append(await pair.shell(who, f"{words} --no-ntp"))
    assert await asyncio.gather(*(ended(each, WORDS) for each in started)) == [WORDS.decode()] * 2


async def program_swaps_tickets(pair: Pair, block: Block) -> None:
    """Each prints its ticket and reads the other's."""
    at_s = time.time() + TICKET_LEAD_S
    text = whole(pair.here(block.text, at_s))
    started = [await pair.start(who, [sys.executable, "-c", text]) for who in range(len(PEOPLE))]
    tickets = [await _line(each) for each in started]
    both = zip(started, reversed(tickets), strict=True)
    for heard in await asyncio.gather(*(ended(each, f"{ticket}\n".encode()) for each, ticket in both)):
        assert WORDS.decode() in heard


async def terminals_meet(pair: Pair, block: Block) -> None:
    """Alice gives Bob the line that she is shown, pastes the one that he is shown, and each types to the other."""
    typed = [pair.here(command.words, time.time() + TICKET_LEAD_S) for command in block.commands]
    assert [command.who for command in block.commands] == list(PEOPLE)
    with Terminal(200) as alice, Terminal(200) as bob:
        started = [await pair.sit_down(0, typed[0], alice)]
        line = await asyncio.to_thread(alice.wait_for_match, _SHOWN)
        started.append(await pair.sit_down(1, typed[1].replace("ALICES-TICKET", line.split()[-1]), bob))
        alice.type(f"{await asyncio.to_thread(bob.wait_for_match, _SHOWN)}\n")
        for mine, its in ((alice, bob), (bob, alice)):
            await asyncio.to_thread(mine.wait_for, "proven: the one who made that ticket")
            await asyncio.to_thread(mine.wait_for, "what you type reaches your peer")
            mine.type(f"{WORDS.decode()}\n")
            await asyncio.to_thread(its.wait_for, WORDS.decode())
        for each in (alice, bob):
            each.type("\x04")
        await asyncio.gather(*(asyncio.to_thread(each.read_to_the_end) for each in (alice, bob)))
        assert [await each.wait() for each in started] == [0, 0]


async def _line(process: Process) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(LONG_S):
        text = (await process.stdout.readline()).decode().strip()
    assert text, (await process.stderr.read()).decode()
    return text
