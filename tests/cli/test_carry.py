"""Standard input and output, carried by a program of its own."""

from __future__ import annotations

import socket
import subprocess
import sys

PROGRAM = """
import asyncio, socket, sys
from simopen.cli.carry import carry
from simopen.cli.console import Screen

async def main():
    streams = await asyncio.open_connection(sock=socket.socket(fileno=int(sys.argv[1])))
    carried = await carry(*streams, Screen(live=False))
    print(carried.sent, carried.received, file=sys.stderr)

asyncio.run(main())
"""


def test_who_reads_its_output_meets_the_peer_s_end_though_its_input_goes_on() -> None:
    """As an ssh that runs it for a proxy does, and ends once it reads no more."""
    ours, theirs = socket.socketpair()
    pipe, number = subprocess.PIPE, theirs.fileno()
    with ours, theirs:
        ours.sendall(b"all of it")
        ours.shutdown(socket.SHUT_WR)
        command = [sys.executable, "-c", PROGRAM, str(number)]
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, pass_fds=[number]) as process:
            assert process.stdout is not None
            assert process.stdout.read() == b"all of it"
            _, told = process.communicate(b"still here")
    assert (told, process.returncode) == (b"10 9\n", 0)
