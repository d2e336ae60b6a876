"""What this host refuses for a moment does not end a punch: every errno, injected into every call, once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import simopen
from simopen.clock import source as clock
from simopen.clock.scheduler import spin
from simopen.errors import PunchError
from simopen.holepunch import api
from simopen.holepunch.attempts import Attempts
from simopen.holepunch.pair import Pair
from simopen.holepunch.retry import Window
from simopen.holepunch.runner import Runner
from simopen.model.endpoint import Endpoint
from simopen.model.report import Via
from simopen.model.shot import Shot
from simopen.model.times import MonoNs
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]

ERRNOS = sorted(set(errno.errorcode))
FINAL = {
    *(errno.EACCES, errno.EPERM),
    *(errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EPROTOTYPE, errno.ESOCKTNOSUPPORT),
}
# accept(2) and listen(2)
LISTENING = [
    *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EPERM, errno.ECONNABORTED, errno.EADDRINUSE),
    *(errno.ENETDOWN, errno.EPROTO, errno.EHOSTUNREACH, errno.EINVAL, errno.EOPNOTSUPP, errno.EINTR),
]
SLIPS = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENODEV}
FAR_NS = 2**62


class Faulty(socket.socket):
    """A socket whose calls fail as `script` says: of each name, the errnos that its first calls meet, 0 for none.

    Those calls do nothing. It cannot represent a kernel that fails after it has done something.
    """

    script: dict[str, list[int]]

    def _meets(self, call: str) -> int:
        left = self.script.get(call)
        return left.pop(0) if left else 0

    def bind(self, address: Any) -> None:
        if error := self._meets("bind"):
            raise OSError(error, "injected")
        super().bind(address)

    def listen(self, backlog: int = 0, /) -> None:
        if error := self._meets("listen"):
            raise OSError(error, "injected")
        super().listen(backlog)

    def connect_ex(self, address: Any) -> int:
        return self._meets("connect") or super().connect_ex(address)

    def accept(self) -> tuple[socket.socket, Any]:
        if error := self._meets("accept"):
            raise OSError(error, "injected")
        return super().accept()

    def getsockopt(self, level: int, name: int, *length: int) -> Any:
        if error := self._meets("getsockopt"):
            raise OSError(error, "injected")
        if (level, name) == (socket.SOL_SOCKET, socket.SO_ERROR) and (error := self._meets("later")):
            return error
        return super().getsockopt(level, name, *length)


def faulty(**script: list[int]) -> Callable[..., socket.socket]:
    """What makes sockets that share one script. `socket`: what making those meets that could send a SYN."""

    def make(family: int, kind: int, protocol: int) -> socket.socket:
        if kind == socket.SOCK_STREAM and (left := script.get("socket")) and (error := left.pop(0)):
            raise OSError(error, "injected")
        sock = Faulty(family, kind, protocol)
        sock.script = script
        return sock

    return make


@pytest.fixture
def server(ports: tuple[int, int]) -> Iterator[int]:
    """Whoever connects is connected; nobody accepts."""
    with socket.create_server(("", ports[1]), backlog=1000):
        yield ports[1]


async def opened(make: Callable[..., socket.socket], shot: Shot, *, listen: bool) -> Via:
    """Fire, and wait for the stream; what ends the punch is raised."""
    with Runner.opened(HERE, [shot], listen=listen, make=make) as runner:
        runner.fired(spin(MonoNs(0), runner.aim(MonoNs(time.monotonic_ns()))))
        runner.watch(Window(MonoNs(runner.fired_ns), MonoNs(FAR_NS)))
        async with asyncio.timeout(10):
            stream = await runner.stream()
        stream.sock.close()
        return stream.via


async def all_at_once(
    local_port: int, server: int, scripts: dict[int, dict[str, list[int]]]
) -> dict[int, Via | BaseException]:
    """A punch for each errno, each at an address of its own."""
    punches = [
        opened(faulty(**script), Shot(local_port, Endpoint(f"127.0.3.{number}", server)), listen=False)
        for number, script in enumerate(scripts.values(), 1)
    ]
    return dict(zip(scripts, await asyncio.gather(*punches, return_exceptions=True), strict=True))


@pytest.mark.parametrize("call", ["connect", "later", "socket", "bind"])
async def test_one_refusal_of_any_kind_is_outlived(ports: tuple[int, int], server: int, call: str) -> None:
    """Once the port was had: the first shot was refused, so a second one follows."""
    scripts = {error: {"connect": [errno.ECONNREFUSED, error] if call == "connect" else [errno.ECONNREFUSED]}
               for error in ERRNOS}  # fmt: skip
    if call != "connect":
        for error, script in scripts.items():
            script[call] = [error] if call == "later" else [0, error]
    found = await all_at_once(ports[0], server, scripts)
    ended = {error for error, came in found.items() if isinstance(came, PunchError)}
    assert ended == (set() if call == "later" else FINAL)
    assert {found[error] for error in found.keys() - ended} == {Via.CONNECT}


@pytest.mark.parametrize("refused", [1, 2, 3, 4, 12])
async def test_questions_that_the_kernel_does_not_answer_are_outlived(
    ports: tuple[int, int], server: int, refused: int
) -> None:
    """What became of the shot, how often it was sent, whether its stream is still there."""
    make = faulty(getsockopt=[errno.ENOBUFS] * refused)
    assert await opened(make, Shot(ports[0], Endpoint("127.0.0.1", server)), listen=False) is Via.CONNECT


@pytest.mark.parametrize("call", ["socket", "bind"])
async def test_what_may_pass_before_the_first_shot_is_waited_for(
    ports: tuple[int, int], server: int, call: str
) -> None:
    """A port that was never had is most likely a slip, and is told at once."""
    found = await all_at_once(ports[0], server, {error: {call: [error, error, 0]} for error in ERRNOS})
    ended = {error for error, came in found.items() if isinstance(came, PunchError)}
    assert ended == FINAL | SLIPS
    assert {found[error] for error in found.keys() - ended} == {Via.CONNECT}


@pytest.mark.parametrize("call", ["accept", "listen"])
async def test_a_listener_that_meets_any_error_once_still_takes_the_stream(ports: tuple[int, int], call: str) -> None:
    peers = {error: Endpoint(f"127.0.3.{number}", ports[1]) for number, error in enumerate(LISTENING, 1)}
    for error, peer in peers.items():
        make = faulty(**{call: [error], "connect": [errno.ENOBUFS] * 1000})
        punch = asyncio.create_task(opened(make, Shot(ports[0], peer), listen=True))
        assert await dialled(peer, ports[0], punch) is Via.ACCEPT


async def dialled(peer: Endpoint, port: int, punch: asyncio.Task[Via]) -> Via:
    """Connect from the peer's endpoint, again and again until somebody listens."""
    loop = asyncio.get_running_loop()
    while True:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(peer)
            sock.setblocking(False)
            with contextlib.suppress(ConnectionError):
                await loop.sock_connect(sock, (HERE, port))
                return await punch
            await asyncio.sleep(0.01)


# In a network namespace of its own, whose kernel gives out two ports.
TWO_PORTS = (
    "import asyncio, ctypes, fcntl, os, socket, struct\n"
    "import simopen\n"
    "from simopen.cli import doctor\n"
    "from simopen.clock import source as clock\n"
    "from simopen.net import routes\n"
    "from simopen.model.endpoint import Endpoint\n"
    "flags = 0x40000000 | (0 if os.geteuid() == 0 else 0x10000000)\n"
    "assert ctypes.CDLL(None).unshare(flags) == 0\n"
    "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:\n"
    "    fcntl.ioctl(sock, 0x8914, struct.pack('16sh14x', b'lo', 0x49))\n"
    "open('/proc/sys/net/ipv4/ip_local_port_range', 'w').write('40000 40001')\n"
)


@pytest.mark.lab
def test_ephemeral_ports_that_are_all_taken_are_no_missing_route() -> None:
    code = TWO_PORTS + (
        "server = socket.create_server(('127.0.0.2', 99))\n"
        "held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]\n"
        "for number, sock in enumerate(held): sock.bind(('127.0.0.1', 40000 + number))\n"
        "for local in (None, '127.0.0.1'):\n"
        "    try: print(routes.source_address(Endpoint('127.0.0.2', 99), local))\n"
        "    except simopen.LocalEndpointError as error: print(error)\n"
        "print(asyncio.run(simopen.punch(('127.0.0.2', 99), local=98, clock=clock.plain()))[1].remote)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.count("every port that the kernel gives out is taken") == 2, done.stderr
    assert "127.0.0.2:99" in done.stdout


@pytest.mark.lab
def test_nor_are_they_a_silent_server_or_another_address_family() -> None:
    """A server is asked from a port that the kernel gives out; IPv6 may have one where IPv4 has none."""
    code = TWO_PORTS + (
        "kinds = socket.SOCK_DGRAM, socket.SOCK_STREAM\n"
        "held = [(socket.socket(socket.AF_INET, kind), port) for kind in kinds for port in (40000, 40001)]\n"
        "for sock, port in held: sock.bind(('0.0.0.0', port))\n"
        "async def main():\n"
        "    for asked in (simopen.check_clock(['127.0.0.1']), simopen.discover(servers=['127.0.0.1'])):\n"
        "        try: await asked\n"
        "        except simopen.SimopenError as error: print(error)\n"
        "    for check in (doctor.Check.IPV4, doctor.Check.PORT_SHARING):\n"
        "        looking = {'IPv4': doctor._ipv4, 'port sharing': doctor._port_sharing}[check]()\n"
        "        found = await doctor.in_time(check, looking, 9)\n"
        "        print(found.verdict, found.found)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert ["every port that the kernel gives out is taken" in line for line in lines] == 4 * [True], done
    assert [line.split()[0] for line in lines[2:]] == ["unknown", "unknown"]


async def test_without_any_descriptor_the_window_is_waited_out_and_the_reason_told(ports: tuple[int, int]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(simopen.LocalEndpointError, match="file descriptors") as caught:
            await api.punch((THERE, ports[1]), local=ports[0], clock=clock.plain(), window=0.3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.diagnosis is not None
    assert caught.value.diagnosis.cause is simopen.Cause.THIS_HOST


async def test_descriptors_that_come_back_within_the_window_are_used(ports: tuple[int, int], server: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        punch = asyncio.create_task(api.punch((THERE, server), local=ports[0], clock=clock.plain()))
        for _ in range(20):
            await asyncio.sleep(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    sock, report = await punch
    sock.close()
    assert any("for a while nothing could be fired" in note for note in report.notes)


@pytest.mark.parametrize("resends", [1, 2])
async def test_the_kernel_sends_a_syn_again_as_often_as_it_is_told(ports: tuple[int, int], resends: int) -> None:
    """At somebody who answers nothing: a listener whose queue is full."""
    with socket.create_server((THERE, ports[1]), backlog=0), contextlib.ExitStack() as stack:
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((THERE, ports[1]))
        pair = Pair(Shot(ports[0], Endpoint(THERE, ports[1])))
        attempts = Attempts((HERE, ports[0]), pair, resends=resends)
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        attempts.load_and_fire()
        attempts.watch(asyncio.get_running_loop(), lambda _, error: ended.set_result(error))
        async with asyncio.timeout(10):
            assert await ended == errno.ETIMEDOUT
        assert attempts.resent == resends
        attempts.close()


def test_what_ends_a_punch_is_said_in_words(ports: tuple[int, int]) -> None:
    for error in (errno.EACCES, errno.EAFNOSUPPORT):
        with pytest.raises(PunchError, match=r"does not permit|cannot connect"):
            asyncio.run(opened(faulty(connect=[error]), Shot(ports[0], Endpoint(THERE, 9)), listen=False))
