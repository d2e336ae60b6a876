"""Serve a folder's files to a peer over HTTP; the peer fetches all of them, over one punched connection.

    one$    python file_server.py serve photos
    other$  python file_server.py fetch 7-croissant-zucchini into

The first one shows the code that the other takes. Both name the same rendezvous, in SIMOPEN_VIA or as the commands of
simopen were told once. What is there already is not overwritten. It needs the extra `http`.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import simopen

try:
    import httpx2

    import simopen.http
except ImportError as missing:
    sys.exit(f"{missing}; this example needs what HTTP takes: pip install '.[http]'")

PIECE = 2**18


class Folder:
    """An ASGI application: `/` lists the files that the folder itself has, `/NAME` is one; there is nothing else."""

    def __init__(self, path: Path) -> None:
        self.files = {each.name: each for each in path.iterdir() if each.is_file() and not each.is_symlink()}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":  # no lifespan, no WebSocket
            raise NotImplementedError
        name = scope["path"].removeprefix("/")
        if name in self.files:
            with await asyncio.to_thread(self.files[name].open, "rb") as file:
                await send({"type": "http.response.start", "status": 200})
                while piece := await asyncio.to_thread(file.read, PIECE):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})
        else:
            await send({"type": "http.response.start", "status": 404 if name else 200})
            await send({"type": "http.response.body", "body": b"" if name else json.dumps([*self.files]).encode()})


async def serve(folder: str) -> None:
    application = Folder(Path(folder))
    async with simopen.meeting() as found:
        print(f"the other side types: python file_server.py fetch {found.code} into", flush=True)
        streams = await found.streams()
    await simopen.http.serve(application, streams)


async def fetch(code: str, folder: str) -> None:
    transport = simopen.http.Transport.over(*await simopen.meet(code))
    async with httpx2.AsyncClient(transport=transport, base_url="http://peer", timeout=60) as client:
        names = (await client.get("/")).raise_for_status().json()
        await asyncio.to_thread(Path(folder).mkdir, exist_ok=True)
        for name in names:
            path = Path(folder) / Path(name).name  # wherever a hostile peer's name leads, it stays in the folder
            async with client.stream("GET", f"/{quote(name)}") as answer:
                answer.raise_for_status()
                with await asyncio.to_thread(path.open, "xb") as file:
                    async for piece in answer.aiter_bytes():
                        file.write(piece)
            print(path, flush=True)
    print(f"files: {len(names)}, connections: {transport.connections}")


WHAT: dict[tuple[str, int], Any] = {("serve", 3): serve, ("fetch", 4): fetch}

if __name__ == "__main__":
    if (*sys.argv[1:2], len(sys.argv)) not in WHAT:
        sys.exit(__doc__)
    try:
        asyncio.run(WHAT[sys.argv[1], len(sys.argv)](*sys.argv[2:]))
    except (simopen.SimopenError, ValueError, OSError, httpx2.HTTPError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
