"""What is advised where nobody was proven to be the peer: by what came, and by what the two sides share."""

from __future__ import annotations

import re

import pytest

from simopen import Cause, LinkError
from simopen.holepunch.unproven import _CASES, unproven
from simopen.model.proof import Reason
from simopen.model.report import Diagnosis
from tests.model.test_report import FAILED, report


def diagnosed(*reasons: Reason, by_ticket: bool = False, by_code: bool = False) -> Diagnosis:
    error = LinkError("nobody proved the key", reasons=reasons)
    return unproven(report(**{**FAILED, "by_ticket": by_ticket, "by_code": by_code}), error)


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_has_one_case(reason: Reason) -> None:
    assert [reason in case.reasons for case in _CASES].count(True) == 1


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.NO_ROOM])
def test_each_is_told_of_what_it_has_and_of_nothing_else(reason: Reason) -> None:
    by_key, by_ticket, by_code = diagnosed(reason), diagnosed(reason, by_ticket=True), diagnosed(reason, by_code=True)
    assert by_key.cause is by_ticket.cause is by_code.cause is Cause.UNPROVEN
    assert by_key.sentence == by_ticket.sentence == by_code.sentence == "nobody proved the key"
    assert "make a new one" in by_code.advice
    assert not re.search("ticket|key", by_code.advice)
    assert "ticket" not in by_key.advice.replace("and no tickets", "")
    assert "key" not in by_ticket.advice.replace("and no key", "")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (Reason.OTHER_KEY, "Compare the keys"),
        (Reason.NO_LINK, "another program at that endpoint"),
        (Reason.SILENT, "The peer was silent"),
        (Reason.NOT_CHOSEN, "Run both sides again"),
    ],
)
def test_the_advice_is_of_what_came(reason: Reason, words: str) -> None:
    assert words in diagnosed(reason).advice


def test_a_crowd_of_strangers_does_not_hide_the_peer_with_another_key() -> None:
    assert diagnosed(Reason.SILENT, Reason.NO_LINK, Reason.OTHER_KEY) == diagnosed(Reason.OTHER_KEY)


def test_a_host_that_was_short_or_cannot_is_itself_the_cause() -> None:
    assert diagnosed(Reason.NO_ROOM).cause is Cause.THIS_HOST
    assert "ulimit -n" in diagnosed(Reason.NO_ROOM).advice
    assert diagnosed().cause is Cause.THIS_HOST
