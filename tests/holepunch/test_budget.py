"""How much may be fired; that no more is, the tests of the retry window and of the engine show."""

from __future__ import annotations

from simopen.holepunch.budget import opened_first
from simopen.model.endpoint import Endpoint
from simopen.model.shot import Shot

PEER = Endpoint("203.0.113.1", 4000)


def test_first_shots_open_the_way_for_what_is_due_at_the_instant() -> None:
    due, later, guess = Shot(1, PEER), Shot(2, PEER, after_ns=1), Shot(3, PEER, once=True)
    first, *rest = opened_first((due, later, guess), 3)
    assert rest == [due, later, guess]
    assert (first.local_port, first.remote, first.once, first.ttl) == (1, PEER, True, 3)
    assert first.after_ns < 0
    assert first.lasts_ns is not None
    assert first.after_ns + first.lasts_ns < 0, "it is over by then"
