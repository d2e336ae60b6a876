"""One local port, two destinations at the same time: `python same_port.py [PORT]`.

A hub and two peers, each on a loopback address of its own, all fire from the same port number. Nothing but the
addresses tells the two streams apart.
"""

import asyncio
import sys

import simopen

HUB, PEERS = "127.0.0.1", ("127.0.0.2", "127.0.0.3")


async def main(port: int) -> None:
    outward = [simopen.connect((peer, port), local=(HUB, port)) for peer in PEERS]
    inward = [simopen.connect((HUB, port), local=(peer, port)) for peer in PEERS]
    streams = await asyncio.gather(*outward, *inward)

    for _, writer in streams[: len(PEERS)]:
        own, its = (simopen.Endpoint(*writer.get_extra_info(end)) for end in ("sockname", "peername"))
        print(f"{own}  ->  {its}")

    for _, writer in streams:
        writer.close()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1314))
    except (simopen.SimopenError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
