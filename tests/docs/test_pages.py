"""Every command and every program of the README and of docs/ is run, whole, as the comment before it says."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

import simopen
from simopen.cli.main import _parser
from tests.apps.http.test_client import good
from tests.archives import LINK
from tests.cli.test_send import code_of, ended, rendezvous, started
from tests.docs import world
from tests.docs.blocks import BLOCKS, PAGES, ROOT, RUN, Block, commands_by, run_by
from tests.fake_ntp import FakeNtp
from tests.fake_stun import full_server
from tests.loopback import HERE, THERE, kept_ports, ports
from tests.loops import ONE_LOOP
from tests.terminal import Terminal, at_terminal

__all__ = ["ports"]
# Two hosts of one lab, for each block a pair of its own, all at once.
TWO_HOSTS: dict[str, Callable[[world.Pair, Block], Awaitable[None]]] = {
    "two hosts": world.commands_meet,
    "one way": world.file_crosses,
    "program on two hosts": world.program_meets,
    "terminals": world.terminals_meet,
    "tickets": world.tickets_meet,
    "program with tickets": world.program_swaps_tickets,
}
WAYS = {
    *("both ends", "by code", "here", "asks", "forwards", "install", "make", "python", "pytest", "sends", "serves"),
    *TWO_HOSTS,
}
# What CI runs in so many words; of the others, `make` itself says that there is such a target.
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
CERTIFICATE = ROOT / "tests" / "certificate.pem"
TYPED = "I love me.\n"
AT_ONCE = 3


def parametrized(way: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", run_by(way), ids=lambda block: block.name)


def run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    given = {"cwd": directory, "env": ENVIRONMENT, "input": TYPED, "capture_output": True, "text": True}
    return subprocess.run(command, timeout=120, check=False, **given)  # type: ignore[call-overload,no-any-return]


def test_whatever_can_be_run_says_how() -> None:
    assert {block.way for block in BLOCKS if block.language in RUN} <= WAYS, "a block without `<!-- run: ... -->`"
    assert not [block.name for block in BLOCKS if not block.language], "a block without a language"
    hidden = [block.name for block in BLOCKS if block.language not in RUN and (block.commands or block.way)]
    assert not hidden, "commands that are never run"
    assert all(block.commands for block in BLOCKS if block.language == "console")


@parametrized("make")
def test_a_target_of_make_is_there(block: Block, tmp_path: Path) -> None:
    for command in block.commands:
        words = shlex.split(command.words, comments=True)
        assert words[0] == "make"
        done = run([*words, "-n", "-C", str(ROOT)], tmp_path)
        assert done.returncode == 0, done.stderr


def test_ci_runs_what_the_readme_names_first() -> None:
    readme = [command.words for block in BLOCKS if block.page.name == "README.md" for command in block.commands]
    made = [words.partition("#")[0].strip() for words in readme if words.startswith("make ")]
    assert made[:2] == ["make demo", "make test"]
    assert all(re.search(rf"^{words}$", CI, re.MULTILINE) for words in made)


@parametrized("install")
def test_what_is_installed_is_there_to_be_installed(block: Block) -> None:
    """The installing itself is `make dist`'s, which CI runs: the wheel, in an environment of its own."""
    for command in block.commands:
        words = shlex.split(command.words, comments=True)
        if words[:2] == ["pip", "install"]:
            extra = re.fullmatch(r"\.(?:\[(\w+)\])?", words[2])
            assert extra, command
            assert extra[1] is None or extra[1] in PROJECT["optional-dependencies"]
        else:
            assert words[:3] == ["python3", "-m", "venv"] or words[0] == "."


@pytest.mark.lab
def test_what_needs_no_peer(tmp_path: Path) -> None:
    """Commands and whole programs, a few at a time: most of them wait, for an instant of their own."""
    typed = [(name, ["bash", "-euc", words]) for words, name in commands_by("here").items()]
    written = [(block.name, [sys.executable, "-c", block.text]) for block in run_by("python")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ended = pool.map(lambda given: (given, run(given[1], tmp_path)), typed + written)
    failed = {str(given): done.stderr for given, done in ended if done.returncode or not done.stdout}
    assert not failed


def test_commands_that_ask_servers(ports: tuple[int, int], tmp_path: Path) -> None:
    """The servers stand on loopback, in the place of public ones."""
    asyncio.run(_asked(ports, tmp_path))


async def _asked(ports: tuple[int, int], tmp_path: Path) -> None:
    async with FakeNtp() as one, FakeNtp() as other, full_server((THERE, "127.0.0.3"), ports) as servers:
        flags = {"--ntp": [one.name, other.name], "--stun": [str(next(iter(servers)))]}
        for typed in commands_by("asks"):
            words = shlex.split(typed)
            known = _parser().parse_args(words[1:])
            for flag, names in flags.items():
                words += [word for name in names for word in (flag, name) if hasattr(known, flag[2:])]
            done = await asyncio.to_thread(run, words, tmp_path)
            assert done.returncode == 0, (typed, done.stdout, done.stderr)


# What a reader has, and this machine has not.
_HIS = {"fullchain.pem": str(CERTIFICATE), "privkey.pem": str(CERTIFICATE), "203.0.113.7": HERE, "203.0.113.8": THERE}
_FREE = ("--port", "0", "--stun-ports", "0,0", "--metrics", "0")


@parametrized("serves")
def test_servers_serve(block: Block, tmp_path: Path) -> None:
    """Until they are ended. They stand on loopback, at free ports."""
    for command in block.commands:
        words = [_HIS.get(word, word) for word in shlex.split(command.words)] + list(_FREE)
        given = {"cwd": tmp_path, "env": ENVIRONMENT, "text": True}
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **given) as server:  # type: ignore[call-overload]
            assert server.stdout.readline().startswith("wss://")
            server.terminate()
            server.communicate()
        assert server.returncode == 143


@ONE_LOOP
@parametrized("sends")
async def test_two_people_send_and_receive(block: Block, tmp_path: Path) -> None:
    """At two terminals: she is shown the code, and he types it, and says yes."""
    homes = [tmp_path / command.who for command in block.commands]
    for home in homes:
        home.mkdir()
    sent = homes[0] / shlex.split(block.commands[0].words)[-1]
    sent.write_bytes(bytes(100_000))
    async with simopen.serve("127.0.0.1", 0, stun_ports=(0, 0)) as server:
        given = {**ENVIRONMENT, "SIMOPEN_VIA": f"ws://127.0.0.1:{server.port}/v1"}

        async def sit_down(number: int, terminal: Terminal) -> asyncio.subprocess.Process:
            words = at_terminal([shutil.which("simopen", path=given["PATH"]) or "", *_typed(block, number)])
            started = await asyncio.create_subprocess_exec(
                *words,
                stdin=terminal.fd,
                stdout=terminal.fd,
                stderr=terminal.fd,
                env=given,
                cwd=homes[number],
                start_new_session=True,
            )
            terminal.given()
            return started

        with Terminal() as alice, Terminal() as bob:
            started = [await sit_down(0, alice)]
            code = await asyncio.to_thread(alice.wait_for_match, r"The code is (\S+)\.")
            started.append(await sit_down(1, bob))
            await asyncio.to_thread(bob.wait_for, "Code:")
            bob.type(f"{code}\n")
            await asyncio.to_thread(bob.wait_for, "ok? (y/N)")
            assert f"Receiving file {sent.name} (100.0 kB) into: {sent.name}" in " ".join(bob.seen.split())
            bob.type("y\n")
            for each in (alice, bob):
                await asyncio.to_thread(each.read_to_the_end)
            assert "the other side has all of it" in " ".join(alice.seen.split())
            assert [await command.wait() for command in started] == [0, 0]
    assert (homes[1] / sent.name).read_bytes() == sent.read_bytes()


@ONE_LOOP
@parametrized("forwards")
async def test_a_server_here_is_a_port_there(block: Block, tmp_path: Path) -> None:
    """At free ports, and with the code that is shown."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await good(reader, writer)
        writer.close()

    with kept_ports() as (port, _):
        async with rendezvous() as via, await asyncio.start_server(serve, HERE, 0) as server:
            his = {"8000": str(server.sockets[0].getsockname()[1]), "8080": str(port)}
            words = [re.sub("8000|8080", lambda found: his[found[0]], each.words) for each in block.commands]
            yours = await started(tmp_path, *shlex.split(words[0])[1:], "--json", SIMOPEN_VIA=via)
            theirs_words = shlex.split(words[1])[1:-1]
            theirs = await started(tmp_path, *theirs_words, await code_of(yours), SIMOPEN_VIA=via)
            assert theirs.stderr is not None
            while b"Ctrl-C" not in (line := await theirs.stderr.readline()):
                assert line
            async with httpx2.AsyncClient(base_url=f"http://localhost:{port}") as browser:
                answers = await asyncio.gather(*(browser.get("/") for _ in range(6)))
            assert [answer.text for answer in answers] == ["ok"] * 6
            theirs.send_signal(signal.SIGINT)
            ends = await asyncio.gather(ended(yours), ended(theirs))
    assert [each[0] for each in ends] == [0, 130], ends


def _typed(block: Block, number: int) -> list[str]:
    return shlex.split(block.commands[number].words)[1:]


@pytest.mark.lab
def test_a_readers_own_tests(tmp_path: Path) -> None:
    blocks = run_by("pytest")
    for block in blocks:
        (tmp_path / block.file).write_text(block.text, encoding="utf-8")
    assert any(block.file.startswith("test_") for block in blocks)
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "."], tmp_path)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.lab
def test_what_two_people_do(tmp_path: Path) -> None:
    """Side by side, each in a pair of hosts of its own: they wait for their instants at the same time."""
    asyncio.run(_two_people(tmp_path))


async def _two_people(tmp_path: Path) -> None:
    async with world.world() as (net, stun):
        met = {}
        for number, block in enumerate(run_by(*TWO_HOSTS)):
            pair = await world.pair(net, stun, str(number), tmp_path / str(number))
            met[block.name] = TWO_HOSTS[block.way](pair, block)
        ended = await asyncio.gather(*met.values(), return_exceptions=True)
    failed = {name: error for name, error in zip(met, ended, strict=True) if error is not None}
    assert not failed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_exists(page: Path) -> None:
    """Those to a heading as well; what leaves the project is only seen to be an address."""
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, heading = target.partition("#")
        if target.startswith("https://"):
            continue
        there = (page.parent / path) if path else page
        assert there.exists(), target
        if heading:
            assert heading in _headings(there), target


def _headings(page: Path) -> set[str]:
    """A heading's name in a link: small letters, hyphens for spaces, nothing but letters, digits and those."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
