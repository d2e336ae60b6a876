"""The filtering in front of a host, from whose SYNs reached it.

Theory of operation (RFC 5780 §4.4, over TCP): from a fresh local port one end of a server is asked, and nothing else is
contacted from there. Then the server fires at that port's mapping from another port of the same address, and from
another address. Whose SYN arrives tells whom the mapping lets in. A stream need not come of it: where the mapping
depends on the peer, the answer would leave from another public port.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from simopen.model.nat import Filtering
from simopen.nat.stun_answer import Back


@dataclass(frozen=True, slots=True)
class LetIn:
    """Whether the other port of an address that was contacted got in, and another address; None where nobody knows."""

    port: bool | None = None
    address: bool | None = None

    def and_so(self, other: LetIn) -> LetIn:
        """What both show together; what they contradict each other in, nobody knows."""
        return LetIn(_agreed(self.port, other.port), _agreed(self.address, other.address))


def shown(said: Back) -> bool | None:
    """What one end's try shows whose SYN was not seen. `said`: what came of it, by the server's word."""
    return False if said in (Back.REFUSED, Back.SILENT) else None


def judged(found: LetIn) -> Filtering:
    """The filtering that this shows."""
    return _VERDICTS.get((found.port, found.address), Filtering.UNKNOWN)


def _agreed(one: bool | None, other: bool | None) -> bool | None:
    if one is None or other is None:
        return other if one is None else one
    return one if one == other else None


# By (the other port got in, the other address got in). What is missing is UNKNOWN: untested, or a contradiction.
_VERDICTS: dict[tuple[bool | None, bool | None], Filtering] = {
    (True, True): Filtering.ENDPOINT_INDEPENDENT,
    (None, True): Filtering.ENDPOINT_INDEPENDENT,
    (True, False): Filtering.ADDRESS_DEPENDENT,
    (False, False): Filtering.ADDRESS_AND_PORT_DEPENDENT,
    (False, None): Filtering.ADDRESS_AND_PORT_DEPENDENT,
}
