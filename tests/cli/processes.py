"""`simopen` as processes of their own, for tests: their output, their exit status, and a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simopen.model.endpoint import Endpoint
from tests.loopback import HERE, THERE, ports

__all__ = ["ports"]


SIMOPEN = [sys.executable, "-m", "simopen"]
NO_RICH = [
    sys.executable,
    "-c",
    "import sys; sys.modules['rich'] = None; from simopen.cli.main import main; sys.exit(main(sys.argv[1:]))",
]
LIMIT_S = 30
Ports = tuple[int, int]


class Running:
    """A `simopen` under way, in a session of its own. Standard input stays open until `end_of_input`."""

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        program: Sequence[str] = SIMOPEN,
        stdin: int = subprocess.PIPE,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> None:
        self.process = subprocess.Popen(
            [*program, *map(str, arguments)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        )
        self.said = b""

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end_of_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None

    def wait_for(self, words: str) -> None:
        """Read standard error until these words were said."""
        assert self.process.stderr is not None
        self.said = read_until(self.process.stderr.fileno(), words.encode(), self.said)

    def end(self) -> tuple[int, bytes, str]:
        """Wait until it ends by itself: the exit status, what it wrote and what it said."""
        stdin, self.process.stdin = self.process.stdin, None  # else `communicate` would close it
        stdout, stderr = self.process.communicate(timeout=LIMIT_S)
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
        return self.process.returncode, stdout or b"", (self.said + (stderr or b"")).decode()


def read_until(fd: int, words: bytes, said: bytes = b"") -> bytes:
    deadline_s = time.monotonic() + LIMIT_S
    while words not in said:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline_s - time.monotonic()))
        more = os.read(fd, 65536) if ready else b""
        assert more, f"never said {words!r}, but {said!r}"
        said += more
    return said


@contextlib.contextmanager
def running(*arguments: object, **options: Any) -> Iterator[Running]:
    """Killed at the end, if it still runs. `options`: as `Running` takes them."""
    it = Running(arguments, **options)
    try:
        yield it
    finally:
        it.process.kill()
        it.process.wait()
        for stream in (it.process.stdin, it.process.stdout, it.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def connecting(ports: Ports, *options: object) -> list[object]:
    """From HERE to THERE."""
    return ["connect", THERE, ports[1], "--local-address", HERE, "--local-port", ports[0], "--no-ntp", *options]


def answering(ports: Ports, *options: object) -> list[object]:
    """From THERE to HERE."""
    return ["connect", HERE, ports[0], "--local-address", THERE, "--local-port", ports[1], "--no-ntp", *options]


def simopen_run(
    *arguments: object, program: Sequence[str] = SIMOPEN, given: bytes = b"", env: Mapping[str, str] | None = None
) -> tuple[int, bytes, str]:
    command = [*program, *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, timeout=LIMIT_S, check=False, env=env)
    return done.returncode, done.stdout, done.stderr.decode()


def last_json(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return found


def received_unread(local: Endpoint) -> bool:
    """Whether the kernel holds data for this socket that nobody has read (/proc/net/tcp's rx_queue)."""
    raw = socket.inet_aton(local.address)[::-1].hex().upper()
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [row.split() for row in table]
    return any(row[1] == f"{raw}:{local.port:04X}" and int(row[4].split(":")[1], 16) for row in rows[1:])


@contextlib.contextmanager
def a_terminal() -> Iterator[tuple[int, int]]:
    """(the screen's and keyboard's side, the program's side), 200 columns wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)
