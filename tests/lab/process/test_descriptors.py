"""A program that has few descriptors left for a lab: whichever step fails, it is an error of the lab's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, resource, sys
import simopen.lab.process.control, simopen.lab.network
from simopen.errors import LabError
from simopen import lab

async def main(limit):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit,) * 2)
    async with lab.Network() as net:
        host = await net.host("left")
        await net.host("right")
        print((await host.run(["true"])).returncode)

def begin(limit):
    try:
        asyncio.run(main(limit))
    except LabError as error:
        print("LabError:", error)

for limit in map(int, sys.argv[1:]):  # each in a process of its own, which need not load it all anew
    if pid := os.fork():
        _, status = os.waitpid(pid, 0)
        print("status", status, flush=True)
    else:
        begin(limit)
        break
"""


@pytest.mark.lab
def test_every_step_fails_as_the_labs_own_error() -> None:
    limits = range(8, 32, 2)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, limits)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    assert said[1::2] == ["status 0"] * len(limits)
    for limit, line in zip(limits, said[::2], strict=True):
        assert line.startswith("LabError: ") or line == "0", limit
    assert (said[0] == "0", said[-2]) == (False, "0"), "the fewest do not do, and the most do"
