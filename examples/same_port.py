"""One local port, two destinations at the same time: `python same_port.py [PORT]`.

A hub and two peers, each on a loopback address of its own, all fire from the same port number. Nothing but the
addresses tells the two streams apart, as the kernel's own connection table shows (Linux).
"""

import asyncio
import socket
import sys

import simopen
from simopen.net.sock_diag import connections

HUB, PEERS = "127.0.0.1", ("127.0.0.2", "127.0.0.3")


async def main(port: int) -> None:
    outward = [simopen.connect((peer, port), local=(HUB, port)) for peer in PEERS]
    inward = [simopen.connect((HUB, port), local=(peer, port)) for peer in PEERS]
    streams = await asyncio.gather(*outward, *inward)

    for row in connections(socket.AF_INET):
        if row.local == (HUB, port) and row.state == "ESTABLISHED":
            print(f"{row.local}  ->  {row.remote}  {row.state}")

    for _, writer in streams:
        writer.close()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1314))
    except (simopen.SimopenError, ValueError) as error:
        sys.exit(str(error))
