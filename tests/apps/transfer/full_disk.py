"""A transfer onto a disk that becomes full meanwhile, and again once there is room; prints what came of it as JSON.

A process of its own, as it mounts a disk of 1 MiB on the folder that it is given, which nobody else sees.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Generator
from pathlib import Path

from simopen.apps.transfer.api import offered, receive, send
from simopen.apps.transfer.incoming import Incoming
from simopen.apps.transfer.messages import Has
from simopen.apps.transfer.outgoing import Outgoing
from simopen.lab.host.namespaces import enter_own_namespaces
from simopen.lab.host.syscalls import unshare

_CLONE_NEWNS = 0x20000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_SIZE = 700_000
DATA = random.Random(5).randbytes(_SIZE)


def mount_small(folder: Path) -> None:
    """Raises: OSError."""
    enter_own_namespaces()
    unshare(_CLONE_NEWNS)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (None, b"/", None, _MS_REC_PRIVATE, None),
        (b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=1m"),
    ):
        if libc.mount(*arguments):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Crowded(Incoming):
    """Whose disk another program fills, once there has been room enough."""

    def has(self) -> Generator[Has | None, None, None]:
        yield from super().has()
        with (self._staging.path.parent / "other").open("wb") as other:
            other.write(bytes(_SIZE))


async def crossed(file: Path, into: Path, how: type[Incoming]) -> list[str]:
    """What each side says at the end."""
    pairs: list[tuple[StreamReader, StreamWriter]] = [
        await asyncio.open_connection(sock=sock) for sock in socket.socketpair()
    ]
    outgoing = Outgoing([str(file)])

    async def take() -> int:
        with how(await offered(pairs[1][0]), into) as incoming:
            return await receive(*pairs[1], incoming)

    ends = await asyncio.gather(send(*pairs[0], outgoing), take(), return_exceptions=True)
    return [*map(str, ends), f"{outgoing.skipped}"]


async def main(home: Path) -> None:
    file, into = home / "x", home / "into"
    file.write_bytes(DATA)
    first = await crossed(file, into, Crowded)
    left = sorted(name.partition(".simopen")[2] or name for name in os.listdir(into))
    (into / "other").unlink()
    second = await crossed(file, into, Incoming)
    print(json.dumps({"full": first, "left": left, "then": second, "whole": (into / "x").read_bytes() == DATA}))


if __name__ == "__main__":
    mount_small(Path(sys.argv[1]) / "into")
    asyncio.run(main(Path(sys.argv[1])))
