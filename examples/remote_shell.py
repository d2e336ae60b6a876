"""A shell on a peer's computer, once whoever sits there has said yes.

    one$    python remote_shell.py share
    other$  python remote_shell.py use 7-croissant-zucchini

The first one shows the code that the other takes, and is asked before the other gets anything. Both name the same
rendezvous, in SIMOPEN_VIA or as the commands of simopen were told once. `exit` ends it, and so does Ctrl-C of `share`.
"""

import asyncio
import getpass
import os
import struct
import sys
import termios
import tty
from typing import Any

import simopen

YES, SIZE = b"y", struct.Struct("!HH")
# The shell's terminal, between it and standard input and output. It hangs up where the input ends: the peer has gone.
AT_A_TERMINAL = "import os, pty, sys; pty.spawn(sys.argv[1:], stdin_read=lambda fd: os.read(fd, 4096) or sys.exit())"


async def share() -> None:
    async with simopen.meeting() as found:
        print(f"the other side types: python remote_shell.py use {found.code}", flush=True)
        reader, writer = await found.streams()
    columns, rows = SIZE.unpack(await reader.readexactly(SIZE.size))
    question = f"Your peer wants a shell as {getpass.getuser()}, and can then do all that you can. Let it in (yes/no)? "
    if (await asyncio.to_thread(input, question)).strip() == "yes":
        writer.write(YES)
        shell = f"stty rows {rows} columns {columns}; exec {os.environ.get('SHELL', '/bin/sh')}"
        command = [sys.executable, "-c", AT_A_TERMINAL, "/bin/sh", "-c", shell]
        with await simopen.bridge((reader, writer)) as sock:
            sock.setblocking(True)
            end = sock.fileno()
            terminal = await asyncio.create_subprocess_exec(
                *command, stdin=end, stdout=end, stderr=asyncio.subprocess.DEVNULL, start_new_session=True
            )
        await terminal.wait()
    else:
        writer.close()
    await writer.wait_closed()


async def use(code: str) -> None:
    size = os.get_terminal_size(0)
    reader, writer = await simopen.meet(code)
    writer.write(SIZE.pack(*size))
    print("your peer is asked whether it lets you in", flush=True)
    if await reader.read(1) != YES:
        raise PermissionError("your peer said no")
    loop, before = asyncio.get_running_loop(), termios.tcgetattr(0)
    tty.setraw(0)
    loop.add_reader(0, lambda: writer.write(os.read(0, 4096)))
    try:
        while shown := await reader.read(2**16):
            os.write(1, shown)
    finally:
        loop.remove_reader(0)
        termios.tcsetattr(0, termios.TCSADRAIN, before)
    writer.close()
    await writer.wait_closed()


WHAT: dict[tuple[str, int], Any] = {("share", 2): share, ("use", 3): use}

if __name__ == "__main__":
    if (*sys.argv[1:2], len(sys.argv)) not in WHAT:
        sys.exit(__doc__)
    try:
        asyncio.run(WHAT[sys.argv[1], len(sys.argv)](*sys.argv[2:]))
    except (simopen.SimopenError, ValueError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
