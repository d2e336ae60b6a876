"""A program with a lab, or that has had one, forks: neither process keeps the other from anything."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The child waits until it is told to go, so that it is there while the parent's lab closes, and uses a lab of its own.
PROGRAM = """
import asyncio, os
from simopen import lab

async def alone(name):
    async with lab.Network() as net:
        host = await net.host(name)
        return (await host.run(["echo", name])).stdout.decode().strip()

async def parent():
    told, teller = os.pipe()
    async with lab.Network() as net:
        await net.host("left")
        if (pid := os.fork()) == 0:
            os.close(teller)
            os.read(told, 1)
            print(asyncio.run(alone("child")), flush=True)
            os._exit(0)
    print(await alone("parent"), flush=True)
    os.close(teller)
    status = (await asyncio.to_thread(os.waitpid, pid, 0))[1]
    return os.waitstatus_to_exitcode(status)

raise SystemExit(asyncio.run(parent()))
"""


@pytest.mark.lab
def test_a_child_does_not_keep_its_parents_lab_open_and_can_have_one() -> None:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "parent\nchild\n")
