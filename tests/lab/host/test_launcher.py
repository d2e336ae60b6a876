"""What starts a program on a host, and on nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from simopen.lab import host

LAUNCHER = Path(host.__file__).with_name("launcher.py")


def own_network() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY)


def own_process() -> int:
    return os.pidfd_open(os.getpid())


@pytest.mark.lab
@pytest.mark.parametrize("opened", [own_network, own_process])
def test_nothing_runs_in_the_network_outside_of_the_lab(opened: Callable[[], int]) -> None:
    network = opened()
    lifeline, held = os.pipe()
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-S", str(LAUNCHER), "-1", str(network), str(held), "echo", "it ran"],
            pass_fds=(network, held),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for fd in (network, lifeline, held):
            os.close(fd)
    assert ended.returncode == 1
    assert not ended.stdout
    assert "the one outside of the lab" in ended.stderr or "PermissionError" in ended.stderr  # who is not root
