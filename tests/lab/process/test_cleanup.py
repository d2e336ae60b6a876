"""Nothing is left behind: not after a network, not after a failure in it, not after its owner was killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simopen import lab
from simopen.errors import LabError
from simopen.lab.process.fork_server import fork_server
from tests.lab.programs import python

pytestmark = pytest.mark.lab
REPOSITORY = Path(__file__).resolve().parents[3]
NOBODY = 65534

FOREVER = """
import signal
print(os.getpid(), flush=True)
signal.pause()
"""

# Leaves a child in the background, in a session of its own and with streams of its own, which no process group holds.
DAEMON = """
import signal, subprocess
quiet = subprocess.DEVNULL
child = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet)
print(child.pid, flush=True)
"""

# A network with a program in it; prints both pids and waits to be killed.
OWNER = f"""
import asyncio, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from simopen import lab
async def main():
    async with lab.Network() as net:
        host = await net.host("left")
        process = await host.start([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(1000)"])
        await process.stdout.readline()
        daemon = await host.run([sys.executable, "-c", sys.argv[1]])
        print(net.lab_pid, process.pid, int(daemon.stdout), flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""

# The whole lab as an ordinary user: prints what the client saw, and the user that programs believe to be.
ROOTLESS = """
import asyncio, os
from simopen import lab
from tests.lab.programs import UDP_CLIENT, UDP_SERVER, python
async def main():
    async with lab.Network(link="veth") as net:
        left = await net.host("left", nat=lab.Nat())
        right = await net.host("right")
        server = await right.start(python(UDP_SERVER, right.public_address))
        await server.stdout.readline()
        client = await left.run(python(UDP_CLIENT, right.public_address, 20))
        print(os.geteuid(), client.stdout.decode().strip(), client.stderr.decode())
asyncio.run(main())
"""


def descriptors() -> set[tuple[str, str]]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add((entry.name, os.readlink(entry)))
        except FileNotFoundError:  # the listing's own
            continue
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits for its parent to read its status does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    before = children()
    yield
    assert children() == before


async def left_behind_by(link: str) -> tuple[set[tuple[str, str]], list[int]]:
    """What descriptors a network with running programs leaves, and its programs' pids."""
    before = descriptors()
    async with lab.Network(link=link) as net:
        host = await net.host("left", nat=lab.Nat())
        running = [await host.start(python(FOREVER)) for _ in range(3)]
        for process in running:
            assert process.stdout is not None
            await process.stdout.readline()
        daemon = int((await host.run(python(DAEMON))).stdout)
        pids = [net.lab_pid, daemon, *(process.pid for process in running)]
        await net.record()
    await asyncio.sleep(0)  # transports close their pipes in the loop's next turn
    return descriptors() - before, pids


async def test_a_network_leaves_no_descriptor_and_no_process(link: str, nothing_stays: None) -> None:
    await left_behind_by(link)  # the loop opens some of its own at the first subprocess, and keeps them
    left, pids = await left_behind_by(link)
    assert left == set()
    assert [pid for pid in pids if is_alive(pid)] == []


async def test_an_error_inside_ends_everything(nothing_stays: None) -> None:
    pids: list[int] = []

    async def fail() -> None:
        async with lab.Network() as net:
            process = await (await net.host("left")).start(python(FOREVER))
            pids.extend([net.lab_pid, process.pid])
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert len(pids) == 2
    assert [pid for pid in pids if is_alive(pid)] == []


async def test_output_that_nobody_reads_does_not_hold_up_the_end() -> None:
    flood = "import sys\nwhile True: sys.stdout.write('x' * 1000)"
    async with lab.Network() as net:
        process = await (await net.host("left")).start(python(flood))
        assert process.stdout is not None
        await process.stdout.readexactly(200_000)
    assert process.returncode == -signal.SIGKILL


async def test_a_time_out_kills_and_tells_the_last_words(nothing_stays: None) -> None:
    program = "print('so far', file=sys.stderr, flush=True)" + FOREVER
    async with lab.Network() as net:
        left = await net.host("left")
        with pytest.raises(LabError, match="so far"):
            await left.run(python(program), timeout_s=0.5)


@pytest.mark.parametrize("starts", [True, False], ids=["as it starts", "as it runs"])
async def test_cancelling_kills_the_program(starts: bool) -> None:
    async with lab.Network() as net:
        left = await net.host("left")
        read, write = os.pipe()
        with os.fdopen(read, "rb") as reader:
            program = f"import os, signal; fd = os.open('/proc/{os.getpid()}/fd/{write}', os.O_WRONLY)\n"
            program += "os.write(fd, b'%d\\n' % os.getpid())\nsignal.pause()"
            task = asyncio.create_task(left.run(python(program)))
            for _ in range(2):  # the task, and the one in which it starts the program
                await asyncio.sleep(0)
            # The program may run before the loop knows that it does: always so, where the loop waits for it.
            pid = int(reader.readline() if starts else await asyncio.to_thread(reader.readline))
            os.close(write)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not is_alive(pid)


async def test_a_lab_that_was_killed_says_so_and_leaves_nothing(nothing_stays: None) -> None:
    net = lab.Network()
    await net.__aenter__()
    process = await (await net.host("left")).start(python(FOREVER))
    os.kill(net.lab_pid, signal.SIGKILL)
    with pytest.raises(LabError, match="has ended"):
        await net.record()
    with pytest.raises(LabError, match="ended with -9"):
        await net.__aexit__(None, None, None)
    assert not is_alive(process.pid)


async def test_where_what_labs_are_forked_from_was_killed_the_next_one_has_it_anew() -> None:
    async with lab.Network() as running:
        fork_server()._process.kill()
        with pytest.raises(LabError, match="has ended"):
            await lab.Network().__aenter__()
        async with lab.Network() as net:
            await net.host("left")
        await running.host("left")


def test_when_the_owner_is_killed_the_lab_and_its_programs_end() -> None:
    daemon = python(DAEMON)[-1]
    owner = subprocess.Popen([sys.executable, "-c", OWNER, daemon], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    with owner.stdout:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        handles = [os.pidfd_open(pid) for pid in pids]
        owner.kill()
        owner.wait()
        try:
            assert [pid for pid, handle in zip(pids, handles, strict=True) if not ends(handle)] == []
        finally:
            for handle in handles:
                os.close(handle)
    assert len(pids) == 3


def ends(handle: int, within_s: float = 10) -> bool:
    import select

    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(within_s * 1000))


def interpreter_of_an_ordinary_user(packages: Path) -> tuple[str, dict[str, str]]:
    """A Python that user nobody may run, with what the lab imports. Skips where there is none."""
    environment = {"PATH": os.defpath, "PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}
    for interpreter in (sys.executable, shutil.which("python3", path=os.defpath)):
        command = [interpreter or "false", "-c", "import simopen.lab.net.wire"]
        try:
            tried = subprocess.run(
                command, env=environment, cwd="/", user=NOBODY, group=NOBODY, extra_groups=[], check=False
            )
        except PermissionError:
            continue
        if tried.returncode == 0:
            return str(interpreter), environment
    pytest.skip("user nobody can run no Python of version 3.11 or later")


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test here runs as an ordinary user already")
def test_an_ordinary_user_has_a_lab_too(for_everybody: Path) -> None:
    interpreter, environment = interpreter_of_an_ordinary_user(for_everybody)
    ended = subprocess.run(
        [interpreter, "-c", ROOTLESS],
        env=environment,
        cwd="/",
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        check=False,
        timeout=60,
    )
    if b"no namespaces for a lab here" in ended.stderr:
        pytest.skip("this kernel lets no ordinary user make user namespaces")
    assert ended.stdout.decode().split() == [str(NOBODY), "seen", "198.51.100.1", "5000"], ended.stderr.decode()


def test_nothing_loads_the_lab_s_libraries_before_they_are_used() -> None:
    program = "import sys; import simopen.lab; print({'dpkt', 'pyroute2'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, check=True, text=True)
    assert ended.stdout == "set()\n"


def test_a_lab_without_its_libraries_says_what_to_install() -> None:
    program = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\nfrom simopen import lab; print(lab.available())"
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, check=True, text=True)
    assert "pip install " in ended.stdout
    assert "simopen[" not in ended.stdout  # an index may have no such project
