"""OpenSSH's server, for tests: what it is told, and the keys that it and its user have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

SSHD = "/usr/sbin/sshd"


def needed() -> None:
    """Skip where there is none."""
    if not Path(SSHD).exists():
        pytest.skip("no sshd: apt install openssh-server")


def configured(where: Path) -> Path:
    """Make keys in this folder, and the server's configuration; returns the user's key."""
    server_key, users_key = _key_pair(where, "server"), _key_pair(where, "user")
    (where / "config").write_text(
        f"HostKey {server_key}\nAuthorizedKeysFile {users_key}.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
        f"PermitRootLogin yes\nPasswordAuthentication no\n"
    )
    with contextlib.suppress(OSError):
        os.mkdir("/run/sshd", 0o755)  # root's sshd wants it
    return users_key


def _key_pair(where: Path, name: str) -> Path:
    path = where / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@contextlib.asynccontextmanager
async def serving(where: Path, port: int) -> AsyncIterator[None]:
    """It listens on this port of loopback, as `configured` there."""
    words = ["-D", "-e", "-f", str(where / "config"), "-o", f"ListenAddress=127.0.0.1:{port}"]
    server = await asyncio.create_subprocess_exec(SSHD, *words, stderr=PIPE)
    assert server.stderr is not None
    try:
        while b"Server listening" not in (line := await server.stderr.readline()):
            assert line, "sshd has ended"
        yield
    finally:
        server.terminate()
        await server.communicate()
