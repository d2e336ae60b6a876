"""Which filtering is told by whose SYNs arrived."""

from __future__ import annotations

import pytest

from simopen.model.nat import Filtering
from simopen.nat.filtering import LetIn, judged, shown
from simopen.nat.stun_answer import Back

VERDICTS = [
    (True, True, Filtering.ENDPOINT_INDEPENDENT),
    (None, True, Filtering.ENDPOINT_INDEPENDENT),
    (True, False, Filtering.ADDRESS_DEPENDENT),
    (False, False, Filtering.ADDRESS_AND_PORT_DEPENDENT),
    (False, None, Filtering.ADDRESS_AND_PORT_DEPENDENT),
    (False, True, Filtering.UNKNOWN),
    (True, None, Filtering.UNKNOWN),
    (None, False, Filtering.UNKNOWN),
    (None, None, Filtering.UNKNOWN),
]


@pytest.mark.parametrize(("port", "address", "verdict"), VERDICTS)
def test_each_verdict(port: bool | None, address: bool | None, verdict: Filtering) -> None:
    assert judged(LetIn(port, address)) is verdict


def test_only_a_try_that_came_to_nothing_shows_that_nobody_gets_in() -> None:
    assert {back: shown(back) for back in Back if shown(back) is not None} == {Back.REFUSED: False, Back.SILENT: False}


def test_what_two_servers_show_together() -> None:
    assert LetIn(port=True).and_so(LetIn(address=False)) == LetIn(port=True, address=False)
    assert LetIn(port=True).and_so(LetIn(port=False)) == LetIn(), "a contradiction"
