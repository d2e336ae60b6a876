"""How long silent servers are waited for, once others have answered."""

from __future__ import annotations

import pytest

from simopen.model.endpoint import Endpoint
from simopen.model.nat import Observation
from simopen.model.times import MonoNs
from simopen.nat.patience import GRACE_S, PATIENCE_S, SECOND_GRACE_S, SECOND_PATIENCE, Patience

PORT, MAPPED = Endpoint("192.168.1.2", 1314), Endpoint("198.51.100.1", 1314)


def seen(*servers: str, mapped: Endpoint = MAPPED) -> list[Observation]:
    return [Observation(PORT, Endpoint(server, 3478), mapped, MonoNs(number)) for number, server in enumerate(servers)]


def test_one_answer_of_several_gives_the_others_time_for_a_syn_sent_again() -> None:
    assert Patience(3, 10.0).end_s(seen("203.0.113.1"), 10.2) == 10.2 + PATIENCE_S


def test_two_addresses_that_see_the_same_settle_it() -> None:
    found = Patience(3, 10.0).end_s(seen("203.0.113.1", "203.0.113.2"), 10.2)
    assert found == pytest.approx(10.0 + 1.5 * 0.2 + GRACE_S)


def test_a_lone_server_is_enough_where_no_other_is_asked() -> None:
    assert Patience(1, 10.0).end_s(seen("203.0.113.1"), 10.2) == pytest.approx(10.3 + GRACE_S)


def test_what_second_rounds_have_yet_to_tell_is_waited_for() -> None:
    differing = [*seen("203.0.113.1"), *seen("203.0.113.2", mapped=Endpoint("198.51.100.1", 2000))]
    waiting = Patience(2, 10.0, awaited=2)
    assert waiting.end_s(differing, 10.2) == 10.2 + PATIENCE_S
    waiting.answered(10.1, 10.2)
    assert waiting.end_s(differing, 10.2) == pytest.approx(10.1 + SECOND_PATIENCE * 0.1 + SECOND_GRACE_S)


def test_an_answer_that_took_longer_gives_the_rest_longer() -> None:
    differing = [*seen("203.0.113.1"), *seen("203.0.113.2", mapped=Endpoint("198.51.100.1", 2000))]
    waiting = Patience(2, 10.0, awaited=1)
    waiting.answered(10.0, 10.2)
    waiting.answered(10.1, 10.15)
    assert waiting.end_s(differing, 10.2) == pytest.approx(10.0 + SECOND_PATIENCE * 0.2 + SECOND_GRACE_S)
