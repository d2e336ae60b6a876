"""A program that has few descriptors left for a lab: whichever step fails, it is an error of the lab's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, resource, sys
import simopen.lab.process.control, simopen.lab.network
from simopen.errors import LabError
from simopen import lab

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
    async with lab.Network() as net:
        host = await net.host("left")
        await net.host("right")
        print((await host.run(["true"])).returncode)

try:
    asyncio.run(main())
except LabError as error:
    print("LabError:", error)
"""


@pytest.mark.lab
@pytest.mark.parametrize("limit", range(8, 28, 2))
def test_every_step_fails_as_the_labs_own_error(limit: int) -> None:

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(limit)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("LabError: ") or done.stdout == "0\n"
    assert done.stdout == "0\n" or limit < 27
