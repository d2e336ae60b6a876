"""Say "I love you." to a peer behind another NAT, and print what it says.

    one$    python love.py 203.0.113.7 1314 22:14:30
    other$  python love.py 198.51.100.9 1314 22:14:30

Each names the other's public address, the port that both fire from, and one instant, in UTC. `--no-ntp` at the end
trusts this machine's clock as it is; otherwise time servers are asked how far it is off.
"""

import asyncio
import sys

import simopen


async def main(host: str, port: str, instant: str, *flags: str) -> None:
    at = simopen.read_instant(instant)
    clock = simopen.unchecked_clock() if "--no-ntp" in flags else None

    reader, writer = await simopen.connect((host, int(port)), at=at, clock=clock)
    writer.write(b"I love you.\n")
    writer.write_eof()
    print((await reader.read()).decode(), end="")
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (simopen.SimopenError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
