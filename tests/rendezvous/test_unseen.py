"""What is tried, and said, where no STUN server saw a host."""

from __future__ import annotations

import pytest

from simopen.errors import ImpossiblePair, PunchError
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Mapping, Profile
from simopen.model.report import Cause, Diagnosis
from simopen.rendezvous.unseen import advise, plan

HERE, THERE = Endpoint("192.168.1.2", 1314), Endpoint("192.168.1.3", 2718)
SEEN = Profile(Mapping.ENDPOINT_INDEPENDENT, mapped=Endpoint("198.51.100.1", 4000), hosts=(HERE,), confidence=1.0)


def test_own_addresses_are_tried_only_where_a_side_was_not_seen() -> None:
    unseen = Profile(hosts=(THERE,))
    for mine in (SEEN, Profile(hosts=(HERE,))):
        found = plan(mine, unseen)
        assert found is not None
        assert [shot.remote for shot in found.shots] == [THERE]
    assert plan(SEEN, SEEN) is None


def test_a_peer_cannot_name_this_host_itself() -> None:
    with pytest.raises(ImpossiblePair, match="nobody saw the peer"):
        plan(SEEN, Profile(hosts=(Endpoint("127.0.0.1", 22),)))


def test_where_no_stun_server_answered_a_failure_says_so_and_what_to_do() -> None:
    cause = Diagnosis(Cause.IMPOSSIBLE_PAIR, "no answer", ("3 SYNs",), "Try again")
    error = PunchError("no stream to 192.168.1.2:5", None, cause)
    advise(error, ("nothing is known of the NATs in front of this host: 192.0.2.1:3478 did not answer",))
    assert "no stream to 192.168.1.2:5; nothing is known of the NATs" in str(error)
    assert "name STUN servers that can be reached" in str(error)
    assert error.diagnosis is not None
    assert "192.0.2.1:3478 did not answer" in error.diagnosis.evidence[-1]
    assert "--stun" in error.diagnosis.advice
    plain = PunchError("no stream", None, cause)
    advise(plain, ())
    assert (str(plain), plain.diagnosis) == ("no stream", cause)
