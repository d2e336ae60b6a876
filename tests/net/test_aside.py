from __future__ import annotations

import asyncio
import platform
import re
import subprocess
import sys
import threading

import pytest

from simopen.net.aside import aside, in_thread
from tests.fake_stun import FakeStun
from tests.loopback import ports

__all__ = ["ports"]


async def test_the_work_is_done_in_another_thread() -> None:
    assert await aside(threading.get_ident) != threading.get_ident()
    assert await in_thread("its-name", lambda: threading.current_thread().name) == "its-name"
    assert await aside(int, "11", base=3) == 4


async def test_what_it_raises_is_raised_and_it_is_done_once() -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("of the work's own")

    with pytest.raises(RuntimeError, match="of the work's own"):
        await aside(fail)
    assert calls == [1]


# What `ulimit -u` does to all but root, by the kernel itself (seccomp(2)): a thread is refused, by either call.
WITHOUT_THREADS = """
import asyncio, ctypes, struct, sys, threading, simopen
from simopen.cli.main import main as command
from simopen.net.aside import aside
load, jump, give = 0x20, 0x15, 0x06
code = [(load, 0, 0, 0), (jump, 0, 1, {clone}), (give, 0, 0, 0x50000 | 11), (jump, 0, 1, 435)]
code += [(give, 0, 0, 0x50000 | 38), (give, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(code), ctypes.addressof(program))), 0, 0) == 0, ctypes.get_errno()

async def main():
    assert await aside(threading.get_ident) == threading.get_ident()
    print((await simopen.discover(servers=["{server}"])).mapped.address)
    try:
        await simopen.connect(("name.example", 9), window=1)
    except simopen.ResolutionError as error:
        print(error)
    sock = await simopen.bridge(await simopen.connect_self({ports[0]}))
    sock.close()

with asyncio.Runner(loop_factory={loop}) as runner:
    runner.run(main())
print(command(["doctor", "--no-ntp", "--stun", "{server}"]) in (0, 1), command(["self", "{ports[1]}"]))
"""
CLONE_CALL = {"x86_64": 56, "aarch64": 220}.get(platform.machine())
LOOPS = ["asyncio.new_event_loop", "__import__('uvloop').new_event_loop"]


@pytest.mark.skipif(CLONE_CALL is None, reason="the number of the clone call is not known for this machine")
@pytest.mark.parametrize("loop", LOOPS)
def test_where_no_thread_can_be_had_it_is_done_here_or_told(loop: str, ports: tuple[int, int]) -> None:
    """uvloop itself ends a process by SIGABRT where it is to have a thread and gets none."""
    out, err = asyncio.run(told_without_threads(loop, ports))
    seen, refused, *table, ended = out.decode().splitlines()
    assert seen == "127.0.0.1"
    assert "could not be looked up (can't start new thread)" in refused
    assert re.search("simultaneous open +ok +one socket connected to itself", "\n".join(table))
    assert ended == "True 1"
    assert err.decode().endswith("simopen: cannot read standard input: can't start new thread; see ulimit -u\n")


async def told_without_threads(loop: str, ports: tuple[int, int]) -> tuple[bytes, bytes]:
    async with FakeStun() as server:
        code = WITHOUT_THREADS.format(clone=CLONE_CALL, server=server.name, loop=loop, ports=ports)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return await process.communicate()
