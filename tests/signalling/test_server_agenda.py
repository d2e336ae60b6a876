"""What is due, and when."""

from __future__ import annotations

from simopen.signalling.server_agenda import Agenda


def test_an_agenda_gives_what_is_due_and_no_more_than_is_wanted() -> None:
    agenda = Agenda[str]()
    for at_s, thing in ((3.0, "c"), (1.0, "a"), (2.0, "b")):
        agenda.put(at_s, thing)
    assert list(agenda.due(2.0, most=1)) == ["a"]
    assert list(agenda.due(2.0, most=9)) == ["b"]
    assert len(agenda) == 1


def test_what_is_not_to_be_kept_is_never_due() -> None:
    agenda = Agenda[int]()
    for number in range(10):
        agenda.put(9.0 - number, number)
    agenda.keep(lambda number: number % 2 == 1)
    assert len(agenda) == 5
    assert list(agenda.due(9.0, most=9)) == [9, 7, 5, 3, 1]
