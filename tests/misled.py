"""A program for the lab: `python -m tests.misled KIND OWN VICTIM WINDOW` punches by a ticket that names a third host.

OWN is this host's public address, VICTIM the one that the ticket names, KIND what the ticket makes of it. It prints the
error's name, since nobody there fires.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace

import simopen
from simopen.clock import source as clock
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Mapping, Observation, Profile
from simopen.model.times import MonoNs

PORT, LEAD_S = 1314, 2.5
HOST = Endpoint("192.168.1.2", PORT)
APDM = Mapping.ADDRESS_AND_PORT_DEPENDENT


def known(address: str, **fields: object) -> Profile:
    """One public endpoint for all."""
    profile = Profile(Mapping.ENDPOINT_INDEPENDENT, Allocation.PRESERVING, confidence=1.0)
    return replace(profile, **{"mapped": Endpoint(address, 4000), "hosts": (HOST,), **fields})  # type: ignore[arg-type]


def walking(address: str, **fields: object) -> Profile:
    """Each destination gets the next port but one."""
    now_ns = time.time_ns()
    seen = [
        Observation(
            HOST,
            Endpoint("203.0.113.250", 3478 + n),
            Endpoint(address, 4000 + 2 * n),
            MonoNs(now_ns - (14 - n) * 10**9),
        )
        for n in range(14)
    ]
    row = {"mapping": APDM, "allocation": Allocation.SEQUENTIAL, "step": 2, "busy": 0.0, "observations": tuple(seen)}
    return known(address, **{**row, **fields})


def told(kind: str, own: str, victim: str) -> tuple[Profile, Profile]:
    """This side's profile, and the ticket's."""
    if kind == "volleys":
        return walking(own), walking(victim)
    mine = known(own)
    if kind == "several ports":
        return mine, known(victim, mapping=APDM)
    if kind == "own addresses":  # behind one NAT, as the ticket says
        return mine, known(own, mapping=APDM, hosts=tuple(Endpoint(victim, 80 + n) for n in range(6)))
    return mine, known(victim)


async def punch(kind: str, own: str, victim: str, window: str) -> str:
    mine, theirs = told(kind, own, victim)
    try:
        await simopen.punch(
            theirs, mine=mine, at=time.time() + LEAD_S, window=float(window), first_ttl=60, clock=clock.plain()
        )
    except simopen.SimopenError as error:
        return f"{type(error).__name__} {len(str(error))}"
    return "a stream"


if __name__ == "__main__":
    print(asyncio.run(punch(*sys.argv[1:])))
