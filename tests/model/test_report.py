"""What a report says, in JSON and in words, from attempts made up."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from typing import Any

import pytest

from simopen.model.endpoint import Endpoint
from simopen.model.estimate import Estimate, Evidence, Reading, Source
from simopen.model.outcome import Outcome
from simopen.model.report import Arrival, Attempt, Report, Via, tally
from simopen.model.times import MonoNs, UtcNs

PEER, OTHER = Endpoint("203.0.113.7", 1314), Endpoint("2001:db8::7", 1314)
MS = 1_000_000
# CLOCK_MONOTONIC reads 5 s where UTC is 1,000 s; the local clock is 2 s ahead of UTC.
CLOCK = Estimate(
    UtcNs(1000 * 10**9),
    3 * MS,
    Source.NTP,
    Reading(MonoNs(5 * 10**9), 1002 * 10**9, 5 * 10**9),
    (Evidence("ntp.example", offset_s=-2.0), Evidence("192.0.2.1", refused="stratum 16")),
)


def attempt(code: int | None, peer: Endpoint = PEER, *, immediate: bool = False, at_ms: int = 0) -> Attempt:
    planned = 5 * 10**9 + at_ms * MS
    return Attempt(peer, MonoNs(planned), MonoNs(planned + 1000), MonoNs(planned + 41 * MS), code, immediate)


def report(**changes: Any) -> Report:
    """Refused once, then connected 81 ms after the first shot."""
    given = Report(
        local=(None, 1314),
        peers=(PEER,),
        window_s=10.0,
        listening=True,
        clock=CLOCK,
        instant_ns=MonoNs(5 * 10**9),
        fired_ns=MonoNs(5 * 10**9 + 20_000),
        ended_ns=MonoNs(6 * 10**9),
        attempts=(attempt(errno.ECONNREFUSED), attempt(0, at_ms=42)),
        via=Via.CONNECT,
        remote=PEER,
        established_ns=MonoNs(5 * 10**9 + 20_000 + 81 * MS),
    )
    return replace(given, **changes)


FAILED = {"via": None, "remote": None, "established_ns": None}


@pytest.mark.parametrize(
    "made",
    [
        report(),
        report(via=Via.ACCEPT, local=("::1", 1314), notes=("a note",), strangers=3),
        report(**FAILED, attempts=(attempt(None), attempt(errno.EADDRNOTAVAIL, immediate=True), attempt(9999))),
        report(**FAILED, attempts=()),
    ],
)
def test_it_survives_json(made: Report) -> None:
    told = made.as_dict()
    assert json.loads(json.dumps(told)) == told


def test_json_has_utc_and_seconds() -> None:
    told = report(notes=("a note",), strangers=3).as_dict()
    assert told["local"] == "*:1314"
    assert told["peers"] == ["203.0.113.7:1314"]
    assert told["instant"] == 1000.0
    assert told["fired"] == pytest.approx(1000.00002)
    assert told["late_s"] == pytest.approx(20e-6)
    assert told["established"] == pytest.approx(1000.08102)
    assert told["elapsed_s"] == pytest.approx(0.081)
    assert (told["via"], told["remote"]) == ("connect", "203.0.113.7:1314")
    assert (told["strangers"], told["notes"]) == (3, ["a note"])
    assert [shot["errno"] for shot in told["attempts"]] == ["ECONNREFUSED", 0]  # type: ignore[attr-defined]


def test_json_of_a_failure_has_nothing_made_up() -> None:
    told = report(**FAILED, attempts=(attempt(None), attempt(9999))).as_dict()
    assert [told[name] for name in ("via", "remote", "established", "elapsed_s")] == [None] * 4
    assert [shot["errno"] for shot in told["attempts"]] == [None, 9999]  # type: ignore[attr-defined]


def test_an_ipv6_local_address_is_in_brackets() -> None:
    assert report(local=("::1", 1314)).as_dict()["local"] == "[::1]:1314"


@pytest.mark.parametrize(
    ("code", "immediate", "outcome", "words"),
    [
        (0, False, Outcome.OPEN, "established"),
        (None, False, Outcome.IN_FLIGHT, "no answer"),
        (errno.ECONNREFUSED, False, Outcome.RESET, "answered by RST"),
        (errno.ECONNRESET, False, Outcome.RESET, "answered by RST"),
        (9999, False, Outcome.FAILED, "failed with 9999"),
        (errno.ENOBUFS, True, Outcome.FAILED, "failed with ENOBUFS"),
    ],
)
def test_an_attempt_in_words(code: int | None, immediate: bool, outcome: Outcome, words: str) -> None:
    shot = attempt(code, immediate=immediate)
    assert (shot.outcome, shot.result) == (outcome, words)


@pytest.mark.parametrize(
    ("attempts", "words"),
    [
        ([], "nothing sent"),
        ([attempt(None)], "1 SYN to 203.0.113.7:1314 (1 no answer)"),
        (
            [attempt(errno.ECONNREFUSED), attempt(None), attempt(errno.ECONNREFUSED)],
            "3 SYNs to 203.0.113.7:1314 (2 answered by RST, 1 no answer)",
        ),
        ([attempt(errno.ECONNREFUSED, immediate=True)], "1 SYN to 203.0.113.7:1314 (1 answered by RST)"),
        (
            [attempt(None), attempt(errno.ECONNREFUSED, OTHER)],
            "1 SYN to 203.0.113.7:1314 (1 no answer); 1 SYN to [2001:db8::7]:1314 (1 answered by RST)",
        ),
    ],
)
def test_the_tally(attempts: list[Attempt], words: str) -> None:
    assert tally(attempts) == words


def test_what_never_left_is_not_counted_as_sent() -> None:
    said = tally([attempt(errno.EADDRNOTAVAIL, immediate=True), attempt(errno.ENETUNREACH, immediate=True)])
    assert said.startswith("0 SYNs to 203.0.113.7:1314 (")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (report(), "connected to 203.0.113.7:1314 in 81.0 ms (by our own SYN)"),
        (
            report(via=Via.ACCEPT, remote=OTHER),
            "connected to [2001:db8::7]:1314 in 81.0 ms (through the listener)",
        ),
        (report(**FAILED, attempts=(attempt(None),)), "no stream: 1 SYN to 203.0.113.7:1314 (1 no answer)"),
        (report(**FAILED, attempts=()), "no stream: nothing sent"),
    ],
)
def test_the_summary(made: Report, words: str) -> None:
    assert made.summary() == words


def test_json_of_a_window_full_of_rsts_stays_short() -> None:
    many = report(**FAILED, attempts=tuple(attempt(errno.ECONNREFUSED, at_ms=n) for n in range(512))).as_dict()
    attempts: Any = many["attempts"]
    assert (len(attempts), many["attempts_omitted"]) == (32, 480)
    assert attempts[0]["planned"] == pytest.approx(1000.0)
    assert attempts[-1]["planned"] == pytest.approx(1000.511)
    assert len(json.dumps(many)) < 10_000


def test_few_attempts_are_all_in_json() -> None:
    few = report(attempts=(attempt(errno.ECONNREFUSED),) * 32).as_dict()
    assert (len(few["attempts"]), few["attempts_omitted"]) == (32, 0)  # type: ignore[arg-type]


def test_who_was_turned_away_is_in_json() -> None:
    told = report(arrivals=(Arrival(OTHER, MonoNs(6 * 10**9)),), early_ns=4 * 10**9).as_dict()
    assert told["arrivals"] == [{"remote": "[2001:db8::7]:1314", "at": 1001.0}]
    assert told["early"] == 999.0
