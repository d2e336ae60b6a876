"""One side of a transfer, over a socket that this process is given: `send PATH FD`, or `receive INTO FD`."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from simopen.apps.transfer.api import LIMIT, offered, receive, send
from simopen.apps.transfer.incoming import Incoming
from simopen.apps.transfer.outgoing import Outgoing
from simopen.errors import SimopenError


async def main(what: str, path: str, fd: int) -> None:
    streams = await asyncio.open_connection(sock=socket.socket(fileno=fd), limit=LIMIT)
    if what == "send":
        await send(*streams, Outgoing([path]))
    else:
        with Incoming(await offered(streams[0]), Path(path)) as incoming:
            await receive(*streams, incoming)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    except (SimopenError, OSError) as error:
        sys.exit(str(error))
