"""The peer's ticket, out of what people paste and files hold."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from simopen.cli.arguments import UsageError
from simopen.cli.ticket_prompt import Assembled, filed, pasted, ticket_in
from simopen.errors import Flaw, TicketError
from tests.terminal import Terminal
from tests.ticket.test_codec import SIMPLE, TEXT


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"simopen meet {TEXT}",
        f"$ simopen meet {TEXT}\n",
        f"`simopen  meet {TEXT}`",
        f"type this: simopen meet {TEXT.lower()}",
        f"simopen connect {TEXT}",
        f"simopen meet {TEXT[:40]}\n{TEXT[40:]}\n",
        f"simopen meet --spray {TEXT}",
        f"$ simopen meet --spray {TEXT}\n",
        f"> `simopen meet\n> --spray\n> {TEXT[:40]}\n> {TEXT[40:]}`\n",
        f"\u201csimopen meet \u2014spray {TEXT}\u201d",
        f"simopen connect --spray --quiet '{TEXT}'",
        f"Send this line to your peer, and leave this running:\n\nsimopen meet {TEXT}\n\n",
    ],
)
def test_the_whole_line_will_do(text: str) -> None:
    assert ticket_in(text) == SIMPLE


def test_what_a_chat_has_broken_is_put_together() -> None:
    assembled = Assembled()
    for piece in (f"simopen meet {TEXT[:30]}\n", f"{TEXT[:30]}\n"):
        with pytest.raises(TicketError) as caught:
            assembled.ticket(piece)
        assert caught.value.flaw is Flaw.CUT_SHORT
    assert assembled.ticket(f"{TEXT[30:]}\n") == SIMPLE


@pytest.mark.parametrize("width", [12, 30, 50])
def test_however_many_lines_it_was_broken_into(width: int) -> None:
    """As a mail's lines, or those that were copied from a narrow window."""
    line, assembled = f"simopen meet {TEXT}", Assembled()
    *pieces, last = [line[at : at + width] for at in range(0, len(line), width)]
    for piece in pieces:
        with pytest.raises(TicketError):
            assembled.ticket(f"{piece}\n")
    assert assembled.ticket(last) == SIMPLE


def test_one_that_names_no_endpoint_is_told() -> None:
    nowhere = replace(SIMPLE, profile=replace(SIMPLE.profile, mapped=None, hosts=()))
    with pytest.raises(TicketError, match="it names no endpoint of its maker's") as caught:
        ticket_in(f"simopen meet {nowhere.encode()}")
    assert caught.value.flaw is Flaw.UNREACHABLE


def test_a_piece_that_does_not_fit_is_told_and_forgotten() -> None:
    assembled = Assembled()
    for piece in (TEXT[:30], "what?", TEXT[30:]):
        with pytest.raises(TicketError):
            assembled.ticket(piece)
    assert assembled.ticket(TEXT) == SIMPLE


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    assert filed(path) == ""
    path.write_text(f"simopen meet {TEXT}\n")
    assert ticket_in(filed(path)) == SIMPLE
    path.write_bytes(b"\xff\0" * 2**20)
    with pytest.raises(TicketError):
        ticket_in(filed(path))


@pytest.mark.parametrize("name", ["/", "a\0b"])
def test_a_file_that_cannot_be_read_is_told(name: str) -> None:
    with pytest.raises(UsageError, match=r"the ticket's file .* cannot be read: "):
        filed(Path(name))


def test_a_file_of_somebody_else_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    path.touch(mode=0)
    user = os.geteuid()
    if user == 0:  # who can read whatever there is
        os.seteuid(65534)
    try:
        with pytest.raises(UsageError, match="Permission denied"):
            filed(path)
    finally:
        os.seteuid(user)


def test_a_fifo_waits_for_nobody(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    assert filed(path) == ""
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    try:
        assert filed(path) == ""
        os.write(writer, f"simopen meet {TEXT}\n".encode())
        assert ticket_in(filed(path)) == SIMPLE
    finally:
        os.close(reader)
        os.close(writer)


async def test_what_was_typed_before_the_question_is_no_answer() -> None:
    with Terminal() as terminal:
        terminal.type("y\n")
        with pasted(os.ttyname(terminal.fd), anew=True) as lines:
            terminal.type("n\n")
            assert await lines.get() == "n\n"
