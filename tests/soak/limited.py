"""`python -m tests.soak.limited N WORDS...`: a command, or a call by its name, that may have N descriptors at most.

The limit holds from when all code is loaded: a program that cannot read its own modules can tell nobody why.
"""

from __future__ import annotations

import asyncio
import encodings.idna
import resource
import sys
from collections.abc import Coroutine

import aioice.stun
import ntplib
import rich
import uvloop

import simopen
from simopen.apps import pipe
from simopen.cli import demo, doctor, nat_ticket
from simopen.cli import main as command
from simopen.clock import source as clock
from simopen.holepunch import api
from simopen.nat import discovery
from tests.soak.programs import CALLS

LOADED = (
    aioice.stun,
    encodings.idna,
    ntplib,
    rich,
    command,
    clock,
    demo,
    discovery,
    doctor,
    nat_ticket,
    api,
    pipe,
    uvloop,
)
HERE, NOWHERE = ("127.0.0.1", 40_009), "127.0.0.1:9"


def limit(descriptors: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))


async def call(name: str, descriptors: int) -> int:
    calls: dict[str, Coroutine[object, object, object]] = {
        "connect": simopen.connect(("127.0.0.2", 9), local=HERE, clock=clock.plain(), window=0.3),
        "discover": simopen.discover(servers=[NOWHERE], timeout=0.5),
        "check_clock": simopen.check_clock([NOWHERE], timeout=0.5),
        "connect_self": simopen.connect_self(HERE),
    }
    chosen = calls.pop(name)
    for other in calls.values():
        other.close()
    limit(descriptors)
    try:
        await chosen
    except simopen.SimopenError as error:
        print(f"{type(error).__name__}: {error}")
    return 0


def main(descriptors: int, words: list[str]) -> int:
    if words[0] in CALLS and len(words) == 1:
        return asyncio.run(call(words[0], descriptors))
    limit(descriptors)
    return command.main(words)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
