"""A ticket's private half: where it is, where it is not, and how long."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

import simopen
from simopen.errors import TicketError
from simopen.ticket.agreement import session
from simopen.ticket.codec import Ticket
from simopen.ticket.keys import PrivateKey
from tests.ticket.test_codec import KEY, SIMPLE

PRIVATE = bytes(range(0x51, 0x71))
NOW_S = 1_900_000_000


def own(private: bytes = PRIVATE, **other: Any) -> Ticket:
    key = PrivateKey.stored(private)
    return replace(SIMPLE, key=key.public(), private=key, **other)


# --- where the private half is not


def spelt(raw: bytes) -> tuple[str, ...]:
    """The ways in which a program may tell bytes without meaning to."""
    return (
        raw.hex(),
        repr(raw)[2:-1],
        base64.b64encode(raw).decode()[:40],
        base64.b32encode(raw).decode()[:48],
        str([*raw]),
    )


def refusal(mine: Ticket, theirs: Ticket) -> TicketError:
    with pytest.raises(TicketError) as caught:
        session(mine, theirs)
    return caught.value


TELLING: dict[str, Callable[[Ticket], object]] = {
    "repr": repr,
    "repr of the key": lambda mine: repr(mine.private),
    "str": str,
    "format": lambda mine: f"{mine} {mine.private}",
    "JSON": lambda mine: json.dumps(asdict(mine), default=str),
    "the ticket": lambda mine: mine.encode(),
    "a session": lambda mine: repr(session(mine, SIMPLE)),
    "an error": lambda mine: repr(refusal(mine, mine)),
}


@pytest.mark.parametrize("way", TELLING)
def test_nothing_that_is_told_has_it(way: str) -> None:
    told = str(TELLING[way](own()))
    assert not [each for each in spelt(PRIVATE) if each in told]
    assert PRIVATE not in told.encode("latin-1", "replace")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_the_peers_ticket(protocol: int) -> None:
    mine = own()
    there = pickle.dumps(mine, protocol)
    assert PRIVATE not in there
    assert not [each for each in spelt(PRIVATE) if each.encode() in there]
    read = pickle.loads(there)
    assert read == mine
    assert read.private is None
    assert pickle.loads(pickle.dumps(mine.private, protocol)) is None


def test_no_log_has_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        mine = own()
        session(mine, SIMPLE)
        logging.getLogger("simopen.test").debug("%r %s", mine, mine.private)
    assert not [each for each in spelt(PRIVATE) if each in caplog.text]


def test_json_takes_none() -> None:
    with pytest.raises(TypeError):
        json.dumps(asdict(own()))


OPTIMISED = """
import sys, pickle
import simopen
from simopen.ticket.hold import issued
from simopen.ticket.agreement import session
from simopen.model.nat import Profile
assert "cryptography" not in sys.modules
text = issued(Profile(), 1_900_000_000, 7, ahead_ns=0).encode()
theirs = simopen.parse_ticket(text)
mine = issued(Profile(), 1_900_000_000, 8, ahead_ns=0)
told = session(mine, theirs)
print(len(told.key), pickle.loads(pickle.dumps(mine)).private, mine.private)
"""


def test_without_docstrings_and_asserts_it_is_the_same() -> None:
    done = subprocess.run([sys.executable, "-OO", "-c", OPTIMISED], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("32 None <private key>\n", "")


def test_a_ticket_is_read_without_cryptography() -> None:
    program = f"import sys, simopen; simopen.parse_ticket({SIMPLE.encode()!r}); print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")
    assert simopen.parse_ticket(SIMPLE.encode()).key == KEY
