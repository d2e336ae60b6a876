"""Rendezvous servers for tests, each by its `via`: ours, magic-wormhole's, and NATS.

`from tests.signalling.places import wormhole_via` makes a fixture known where it is used. Real servers are programs of
their own, one a file of tests, at a free port of loopback.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
TWIST = BIN / "twist"


@contextlib.contextmanager
def started(command: list[str], ready: str, *, cwd: Path) -> Iterator[re.Match[str]]:
    """A program, once it has written a line that `ready` matches: the match. It ends with this."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    log = cwd / "log"
    with (
        log.open("w") as written,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd, text=True, env=environment
        ) as program,
    ):
        assert program.stdout is not None
        try:
            for line in program.stdout:
                written.write(line)
                if (match := re.search(ready, line)) is not None:
                    break
            else:
                pytest.fail(f"{command[0]} did not start: {log.read_text()}")
            yield match
        finally:
            program.kill()


@pytest.fixture(scope="module")
def wormhole_via(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """magic-wormhole-mailbox-server."""
    if not TWIST.exists():
        pytest.skip("magic-wormhole-mailbox-server is not here: pip install magic-wormhole-mailbox-server")
    command = [str(TWIST), "wormhole-mailbox", "--port", "tcp:0:interface=127.0.0.1", "--channel-db=:memory:"]
    with started(
        command,
        r"WebSocketServerFactory starting on (\d+)|Site starting on (\d+)",
        cwd=tmp_path_factory.mktemp("twist"),
    ) as said:
        yield f"ws://127.0.0.1:{said[1] or said[2]}/v1"
