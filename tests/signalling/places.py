"""Rendezvous servers for tests, each by its `via`: magic-wormhole's, and NATS.

`from tests.signalling.places import wormhole_via` makes a fixture known where it is used. They are programs of their
own, one a file of tests, at a free port of loopback.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

BIN = Path(sys.executable).parent
TWIST = BIN / "twist"
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
