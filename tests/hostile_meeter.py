"""A peer that knows the code and names victims: as `tests.meeter`, with "victims", the addresses, in its order."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

from simopen import Allocation, Endpoint, Mapping, Observation, Profile, parse_ticket
from simopen.model.times import UtcNs
from simopen.rendezvous import exchange
from simopen.rendezvous.exchange import Peer, Send
from tests import meeter

PORT = 80


def evil(profile: Profile, victims: list[str], number: int) -> Profile:
    """By the round: in its endpoints; in a row of ports; as one that was not seen."""
    ends = tuple(Endpoint(each, PORT) for each in victims)
    if number == 1:
        return replace(profile, mapped=ends[0], hosts=ends)
    if number == 3:
        return replace(profile, mapped=None, hosts=ends, observations=())
    row = (
        Observation(
            profile.hosts[0], Endpoint("198.51.100.1", 3478 + step), Endpoint(victims[0], PORT + step), UtcNs(step)
        )
        for step in range(8)
    )
    return replace(
        profile,
        mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT,
        allocation=Allocation.SEQUENTIAL,
        step=1,
        busy=0.3,
        mapped=ends[0],
        hosts=ends,
        observations=tuple(row),
    )


def naming(victims: list[str], hello: Callable[[Peer, int, str], Send]) -> Callable[[Peer, int, str], Send]:
    def lies(peer: Peer, number: int, ticket: str) -> Send:
        honest = parse_ticket(ticket)
        # Anew: what was parsed is encoded as it came in.
        lie = replace(honest, profile=evil(honest.profile, victims, number), spray=True)
        return hello(peer, number, lie.encode())

    return lies


if __name__ == "__main__":
    with patch.object(exchange, "hello", naming(json.loads(sys.argv[2])["victims"], exchange.hello)):
        meeter.main(*sys.argv[1:])
