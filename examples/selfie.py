"""One socket, connected to itself: `python selfie.py [PORT]`. There is no second socket, and nobody listens."""

import asyncio
import sys

import simopen


async def main(port: int) -> None:
    reader, writer = await simopen.connect_self(port)
    sock = writer.get_extra_info("socket")
    print(f"sockname {sock.getsockname()} == peername {sock.getpeername()}: {sock.getsockname() == sock.getpeername()}")

    writer.write(b"I love me.\n")
    print((await reader.readline()).decode(), end="")
    writer.close()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1314))
    except (simopen.SimopenError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
