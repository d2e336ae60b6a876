"""A peer that answers HTTP over one link, in a process of its own: `python -m tests.answerer WORDS`.

It writes the port at which it takes a socket for the link, and "asked" for each request. Without words no answer comes.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from simopen.link.handshake import Handshake
from simopen.link.streams import streams
from tests.link.peers import sessions


async def answer(words: str) -> None:
    """Until the peer has gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        print(server.getsockname()[1], flush=True)
        sock, _ = await asyncio.get_running_loop().sock_accept(server)
    handshake = Handshake(sessions()[1], limit_s=60.0)
    handshake.offer(sock)
    reader, writer = streams(await handshake.link())
    while await reader.readuntil(b"\r\n\r\n"):
        print("asked", flush=True)
        if words:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(words), words.encode()))


if __name__ == "__main__":
    asyncio.run(answer(sys.argv[1]))
