"""What one side fires: a `Shot` is one SYN, with what becomes of its socket; a `Plan` is all of one side's, and why."""

from __future__ import annotations

from dataclasses import dataclass

from simopen.model.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Shot:
    """A SYN from a local port, `after_ns` after the instant; before it, where that is negative.

    `once`: a guess: no RST makes it go again. `lasts_ns`: unanswered for so long, it is given up. `ttl`: hops that it
    may go; None for the usual number.
    """

    local_port: int
    remote: Endpoint
    after_ns: int = 0
    once: bool = False
    lasts_ns: int | None = None
    ttl: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What one side fires, best first, and why.

    `shots`: none where the pair cannot connect. `chooses`: where several streams may come up, whether this side picks
    one and the other follows; None where only one can. `chance`: of success, 0 to 1, as far as the profiles tell.
    `sprays`: hundreds of SYNs a second, or it would take them and was not allowed. `notes`: a sentence on each endpoint
    of the peer's that is not fired at.
    """

    shots: tuple[Shot, ...]
    why: str
    chance: float
    chooses: bool | None = None
    sprays: bool = False
    notes: tuple[str, ...] = ()
