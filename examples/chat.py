"""Talk to a peer: what one types, the other reads. Two terminals, and one code.

    one$    python chat.py
    other$  python chat.py 7-croissant-zucchini

The first one shows the code that the other takes. Both name the same rendezvous, in SIMOPEN_VIA or as the commands of
simopen were told once; it passes the first messages on, and none of what is typed. Ctrl-D ends.
"""

import asyncio
import os
import sys

import simopen

TYPED = 0  # standard input's descriptor


def shown(line: bytes) -> str:
    """A peer's line, without what would steer the terminal."""
    return "".join(each if each.isprintable() else "�" for each in line.decode(errors="replace").rstrip("\n"))


async def main(*code: str) -> None:
    async with simopen.meeting(*code) as found:
        if not code:
            print(f"the other side types: python chat.py {found.code}", flush=True)
        reader, writer = await found.streams()
    print("your peer is here; Ctrl-D ends", flush=True)

    loop = asyncio.get_running_loop()

    def say() -> None:
        if words := os.read(TYPED, 4096):
            writer.write(words)
        else:
            loop.remove_reader(TYPED)
            writer.write_eof()

    loop.add_reader(TYPED, say)
    async for line in reader:
        print("peer:", shown(line), flush=True)
    loop.remove_reader(TYPED)
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (simopen.SimopenError, ValueError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
