"""Meet a peer with no channel at all: both fire at every full ten seconds, until they meet.

    one$    python slot.py 203.0.113.7 1314 secret.key
    other$  python slot.py 198.51.100.9 1314 secret.key

Each knows the other's public address, the port that both fire from, and a secret: the same file on both sides, made by
`openssl rand -hex 32 > secret.key`. Whoever answers and does not have that is not the peer. They may start minutes or
days apart. `--every=60` tries at full minutes, on both sides. `--no-ntp` trusts this machine's clock as it is;
otherwise time servers are asked how far it is off.
"""

import asyncio
import sys
from pathlib import Path

import simopen

# The next try has its sockets ready and its clock known this long before its instant, at the latest.
REST_S = 2.0
NOT_YET = (simopen.WindowClosed, simopen.MissedInstant, simopen.LinkError)


def key_in(name: str) -> bytes:
    return bytes.fromhex(Path(name).read_text())


async def main(host: str, port: str, secret: str, *flags: str) -> None:
    key = key_in(secret)
    every_s = float(next((flag.removeprefix("--every=") for flag in flags if flag.startswith("--every=")), 10))
    clock = simopen.unchecked_clock() if "--no-ntp" in flags else None
    # Full ten seconds of true time: also where this machine's clock is wrong, which `simopen.next_slot(10)` would read.
    slot = simopen.read_instant(f"next:{every_s:g}s")

    for number in range(1, sys.maxsize):
        try:
            reader, writer = await simopen.connect(
                (host, int(port)), at=slot, window=every_s - REST_S, key=key, clock=clock
            )
            break
        except NOT_YET as error:
            print(f"try {number}: {str(error).splitlines()[0]}", flush=True)

    writer.write(b"I love you.\n")
    writer.write_eof()
    print((await reader.read()).decode(), end="")
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (simopen.SimopenError, ValueError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
