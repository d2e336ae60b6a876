"""What a trace bears out, and what it does not, from reports made up."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.errors import WindowClosed
from simopen.holepunch.diagnosis import diagnose, impossible, remarks, stopped
from simopen.model.endpoint import Endpoint
from simopen.model.outcome import Outcome
from simopen.model.report import Arrival, Attempt, Cause, Report, Via
from simopen.model.times import MonoNs
from simopen.model.wording import LONGEST
from tests.model.test_report import CLOCK, FAILED, MS, OTHER, PEER, report

START = 5 * 10**9
RST, UNREACHABLE = errno.ECONNREFUSED, errno.EHOSTUNREACH
MOVED = Endpoint(PEER.address, 40001)
STRANGER = Endpoint("198.51.100.99", 999)


def shot(code: int | None, *, at_ms: float = 0, took_ms: float = 40, immediate: bool = False) -> Attempt:
    started = START + round(at_ms * MS)
    return Attempt(PEER, MonoNs(started), MonoNs(started), MonoNs(started + round(took_ms * MS)), code, immediate)


def failed(*attempts: Attempt, **changes: Any) -> Report:
    return report(**{**FAILED, "fired_ns": START, "ended_ns": START + 10**10, "attempts": attempts, **changes})


def arrival(remote: Endpoint, after_ms: int = 0) -> Arrival:
    return Arrival(remote, MonoNs(START + after_ms * MS))


@pytest.mark.parametrize(
    ("made", "cause", "words"),
    [
        (failed(fired_ns=0, ended_ns=START + 12 * 10**9), Cause.NOT_FIRED, "the instant was 12.0 s ago"),
        (failed(fired_ns=0, ended_ns=START + 90_000 * 10**9), Cause.NOT_FIRED, "1 day 1 h ago"),
        (failed(fired_ns=0, stalled_s=12.0), Cause.NOT_FIRED, "this process was stopped, or too busy, for 12 s, and"),
        (failed(shot(RST), stalled_s=9.0), Cause.THIS_HOST, "for 9 s when it should have watched, so what the peer"),
        (failed(shot(RST), stalled_s=1.0), Cause.REFUSED, "only refusals came back"),
        (
            failed(shot(errno.EADDRNOTAVAIL, immediate=True), holder="TIME-WAIT"),
            Cause.PORT_TAKEN,
            "its port 1314 has a TIME-WAIT socket",
        ),
        (failed(shot(errno.EADDRNOTAVAIL, immediate=True)), Cause.PORT_TAKEN, "has a socket"),
        (failed(shot(errno.ENETUNREACH, immediate=True)), Cause.NO_ROUTE, "nothing left this host"),
        (
            failed(shot(RST), early_ns=START - 12_300 * MS),
            Cause.CLOCKS_APART,
            "the peer fired 12.3 s before this side's instant",
        ),
        (failed(shot(RST), arrivals=(arrival(MOVED),), strangers=1), Cause.WRONG_PORT, f"came from {MOVED}"),
        (failed(shot(0), shot(RST)), Cause.BROKEN, "reset it at once"),
        (failed(shot(errno.ENOBUFS, immediate=True)), Cause.THIS_HOST, "nothing left this host"),
        (failed(shot(errno.ENOBUFS, immediate=True), shot(RST)), Cause.REFUSED, "only refusals came back"),
        (failed(shot(RST)), Cause.REFUSED, "only refusals came back"),
        (failed(shot(RST), shot(UNREACHABLE)), Cause.REFUSED, "only refusals and ICMP errors came back"),
        (failed(shot(UNREACHABLE)), Cause.UNREACHABLE, "a router on the way, or this host's own network, says"),
        (failed(shot(None)), Cause.SILENCE, "nothing at all came back"),
        (failed(shot(errno.ETIMEDOUT)), Cause.SILENCE, "nothing at all came back"),
        (failed(shot(None), earlier="x"), Cause.EARLIER_STREAM, "had a stream not long ago"),
        (failed(shot(RST), earlier="x"), Cause.REFUSED, "only refusals"),
        # What proves nothing changes nothing.
        (failed(shot(RST), early_ns=START - 3 * 10**9), Cause.REFUSED, "only refusals"),
        (
            failed(shot(RST), early_ns=START - 10_300 * MS, early_doubt_ns=600 * MS),
            Cause.REFUSED,
            "only refusals",
        ),
        (failed(shot(None), arrivals=(arrival(STRANGER),), strangers=1), Cause.SILENCE, "nothing at all"),
        (failed(shot(None), shot(errno.EADDRNOTAVAIL, immediate=True)), Cause.SILENCE, "nothing at all"),
    ],
)
def test_the_cause(made: Report, cause: Cause, words: str) -> None:
    found = diagnose(made)
    assert found.cause is cause
    assert words in found.sentence
    assert found.advice


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("192.168.7.5", True),
        ("10.1.2.3", True),
        ("172.31.9.9", True),
        ("172.32.9.9", False),
        ("100.64.0.9", True),
        ("fd00::5", True),
        ("203.0.113.7", False),
        ("8.8.8.8", False),
        ("2001:db8::7", False),
    ],
)
def test_a_private_address_of_another_network_is_told_as_one(address: str, private: bool) -> None:
    made = failed(shot(UNREACHABLE), peers=(Endpoint(address, 1314),))
    found = diagnose(made)
    assert found.cause is Cause.UNREACHABLE
    assert (f"{address} is a private address" in found.sentence) == private
    assert ("router" in found.sentence) != private
    assert ("swap tickets" in found.advice) == private
    # A plan that tried both sides' own addresses has tickets already; and of several, one may be public.
    assert "private" not in diagnose(replace(made, plan="why")).sentence
    assert "private" not in diagnose(replace(made, peers=(Endpoint(address, 1314), PEER))).sentence


@pytest.mark.parametrize(
    ("made", "fact"),
    [
        (failed(shot(RST)), "1 SYN to 203.0.113.7:1314 (1 answered by RST)"),
        (
            failed(shot(RST), shot(RST, took_ms=42)),
            "refusals (RSTs, or ICMP) came 40.00 to 42.00 ms after their SYNs",
        ),
        (
            failed(shot(RST, took_ms=0.3)),
            "refusals (RSTs, or ICMP) came 0.30 ms after their SYNs, so most of them come from near: this "
            "host's own network, or next door",
        ),
        (
            failed(shot(RST, took_ms=0.3), shot(RST)),
            "refusals (RSTs, or ICMP) came 0.30 to 40.00 ms after their SYNs",
        ),
        (failed(shot(RST), shot(None, took_ms=9900)), "a SYN was left without an answer for 9.9 s"),
        (failed(shot(None), fired_ns=START + 20_000), f"this side fired 0.02 ms after the instant; its clock: {CLOCK}"),
        (failed(fired_ns=0), f"the clock: {CLOCK}"),
        (failed(shot(None), early_ns=START - 2300 * MS), "a SYN from a peer's address came 2.3 s before the instant"),
        (failed(shot(None), listening=False), "nothing listened here, so a peer that came from another port could not"),
        (failed(shot(None)), "nobody connected to this side's listener"),
        (failed(shot(None), plan="one reason"), "the plan: one reason"),
        (
            failed(shot(RST), arrivals=(arrival(STRANGER, 2300),), strangers=1),
            f"{STRANGER} connected 2.3 s after this side's first SYN",
        ),
        (failed(shot(RST), arrivals=(arrival(STRANGER),), strangers=700), "700 connections were turned away"),
    ],
)
def test_the_evidence(made: Report, fact: str) -> None:
    assert [each for each in diagnose(made).evidence if each.startswith(fact)]


def test_the_last_syn_before_the_end_is_not_called_unanswered() -> None:
    assert not any("without an answer" in fact for fact in diagnose(failed(shot(RST), shot(None))).evidence)


def test_an_error_of_this_host_speaks_for_itself() -> None:
    found = stopped(failed(shot(RST)), "no descriptors left")
    assert (found.cause, found.sentence) == (Cause.THIS_HOST, "no descriptors left")
    assert "1 SYN to" in found.evidence[0]


def test_an_impossible_pair_gives_the_plans_reason() -> None:
    assert str(impossible("both NATs choose ports at random")).startswith("both NATs choose ports at random. Use")
    assert "--spray on both sides" in impossible("one does: allow the spray", sprays=True).advice


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (failed(shot(None)), "simopen connect"),
        (failed(shot(RST)), "simopen connect"),
        (failed(shot(None), spray=False), "the new tickets with `simopen nat --ticket --spray`, on both sides"),
        (failed(shot(RST), spray=False), "the new tickets with `simopen nat --ticket --spray`, on both sides"),
        (failed(shot(None), spray=True), "This side sprayed: was the peer allowed to, too"),
        (failed(fired_ns=0, ended_ns=START + 10**10, spray=False), "more time: simopen nat --ticket --at +5m"),
        (failed(shot(errno.EADDRNOTAVAIL, immediate=True)), "new tickets on both sides"),
        (failed(shot(RST), early_ns=START - 12_300 * MS), "simopen clock"),
        (failed(shot(RST), arrivals=(arrival(MOVED),), strangers=1), "new tickets on both sides"),
    ],
)
def test_where_a_plan_decided_the_advice_speaks_of_tickets(made: Report, words: str) -> None:
    advice = diagnose(replace(made, plan="one reason", by_ticket=True)).advice
    assert words in advice
    assert not re.search("agreed|another local port|compare the instants|name the port", advice)
    assert ("spray" in advice) == (made.spray is not None and made.fired_ns > 0)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (failed(shot(None)), "discover and swap new profiles on both sides"),
        (failed(shot(RST)), "discover and swap new profiles on both sides"),
        (failed(shot(None), spray=False), "let both sides spray"),
        (failed(shot(RST), spray=True), "did the peer, too"),
        (failed(fired_ns=0, ended_ns=START + 10**10), "Agree on a later instant"),
        (failed(shot(None), stalled_s=9.0), "nothing stops this process"),
        (failed(shot(errno.EADDRNOTAVAIL, immediate=True)), "discover from that one"),
        (failed(shot(RST), early_ns=START - 12_300 * MS), "compare the instants"),
        (failed(shot(RST), arrivals=(arrival(MOVED),), strangers=1), "a local port of its own"),
        (failed(shot(None), earlier="an earlier stream"), "wait two minutes"),
    ],
)
def test_where_profiles_decided_the_advice_speaks_of_no_tickets(made: Report, words: str) -> None:
    advice = diagnose(replace(made, plan="one reason")).advice
    assert words in advice
    assert not re.search("ticket|simopen nat|--", advice)


def connected(*attempts: Attempt, after_ms: int, **changes: Any) -> Report:
    up = {"fired_ns": START, "established_ns": START + after_ms * MS, "attempts": attempts}
    return report(**{**up, **changes})


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (connected(shot(0), after_ms=80), None),
        (connected(shot(RST), shot(0, at_ms=40), after_ms=120), None),
        (connected(shot(RST), shot(RST, at_ms=2260), shot(0, at_ms=2300), after_ms=2380), "about 2.3 s after"),
        (connected(shot(RST), shot(0, at_ms=2300), after_ms=2380), None),  # who knows what was in between
        (connected(shot(RST), shot(RST, at_ms=2260), shot(0, at_ms=2300), after_ms=2380, plan="why"), None),
        (connected(shot(RST), shot(RST, at_ms=2290), after_ms=2360, via=Via.ACCEPT), "about 2.3 s after"),
        # This process came round late to the last RST, or to fire: that is not the peer's delay.
        (
            connected(shot(RST), shot(RST, at_ms=2290, took_ms=1200), after_ms=2360, via=Via.ACCEPT),
            "about 2.3 s after",
        ),
        (connected(shot(RST), shot(RST, at_ms=90, took_ms=1200), shot(0, at_ms=1290), after_ms=1370), None),
        (connected(shot(RST, took_ms=1200), shot(0, at_ms=1200), after_ms=1280), None),
        (connected(shot(RST, took_ms=1200), after_ms=860, via=Via.ACCEPT), None),
        (
            connected(shot(RST), shot(0, at_ms=40), after_ms=120, instant_ns=START - 1200 * MS),
            "about 1.2 s after this side's instant",
        ),
        # The last SYN was lost, and its kernel sent it again after 1 s: the peer may have fired at any time in between.
        (connected(shot(RST), shot(RST, at_ms=1760), shot(0, at_ms=1800, took_ms=1040), after_ms=2840), None),
        # No RST until then: SYNs may have been lost.
        (connected(shot(0), after_ms=2380), None),
        (connected(shot(None), after_ms=2380, via=Via.ACCEPT), None),
        (connected(shot(0), after_ms=80, early_ns=START - 2300 * MS), "2.3 s before"),
        (
            connected(shot(0), after_ms=80, early_ns=START - 2300 * MS, early_doubt_ns=600 * MS),
            "the peer fired 1.7 to 2.9 s before this side's instant",
        ),
        (
            connected(shot(0), after_ms=80, early_ns=START - 2300 * MS, plan="why", by_ticket=True),
            "before this side's instant: it began earlier, or one of the two clocks",
        ),
        (connected(shot(0), after_ms=80, remote=MOVED), f"the peer came from {MOVED}"),
        (connected(shot(0), after_ms=80, remote=MOVED, plan="why"), None),
        (connected(shot(0), after_ms=80, peers=(PEER, OTHER), remote=OTHER), None),
    ],
)
def test_remarks_on_a_success(made: Report, words: str | None) -> None:
    assert len(remarks(made)) == (words is not None)
    assert all(words and words in remark for remark in remarks(made))


CODES_SEEN = [None, 0, RST, UNREACHABLE, errno.ETIMEDOUT, errno.EADDRNOTAVAIL, errno.EPERM, 9999]
CODES = st.sampled_from(CODES_SEEN)
SHOTS = st.builds(shot, CODES, at_ms=st.floats(0, 10_000), took_ms=st.floats(0, 10_000), immediate=st.booleans())


@given(
    st.lists(SHOTS, max_size=40),
    st.sampled_from([0, START]),
    st.none() | st.integers(0, START),
    st.lists(st.sampled_from([MOVED, STRANGER, PEER]), max_size=9),
    st.booleans(),
)
def test_every_trace_has_a_diagnosis_that_json_takes(
    shots: list[Attempt], fired_ns: int, early_ns: int | None, came: list[Endpoint], listening: bool
) -> None:
    arrivals = tuple(map(arrival, came))
    made = failed(
        *shots, fired_ns=fired_ns, early_ns=early_ns, arrivals=arrivals, strangers=len(came), listening=listening
    )
    found = diagnose(made)
    told = found.as_dict()
    assert json.loads(json.dumps(told)) == told
    assert "\n" not in str(found)
    sent = any(each.sent for each in shots)
    assert sent or found.cause not in (Cause.REFUSED, Cause.UNREACHABLE, Cause.BROKEN)


# Each word, and what the trace must show for it: nothing is claimed that was not seen.
CLAIMS: dict[str, Callable[[Report], bool]] = {
    "refus|RST": lambda made: Outcome.RESET in outcomes(made),
    "ICMP": lambda made: bool({Outcome.ICMP, Outcome.RESET} & outcomes(made)),  # a Port Unreachable looks like a RST
    "router|no way there": lambda made: Outcome.ICMP in outcomes(made),
    "private": lambda made: Outcome.ICMP in outcomes(made) and made.plan is None,
    "ticket|simopen nat|simopen connect": lambda made: made.by_ticket or "private" in str(diagnose(made)),
    "spray": lambda made: made.spray is not None and made.plan is not None,
    "no route": lambda made: Outcome.NO_ROUTE in outcomes(made),
    "reset it": lambda made: Outcome.OPEN in outcomes(made),
    "the peer came from|turned away": lambda made: made.strangers > 0,
    "came .* before the instant|the peer fired .* before": lambda made: made.early_ns is not None,
    "nobody connected": lambda made: made.listening and not made.strangers,
    "the window over": lambda made: not made.fired_ns,
    "nothing left this host": lambda made: not any(each.sent for each in made.attempts),
    "a stream came up": lambda made: Outcome.OPEN in outcomes(made),
}


def outcomes(made: Report) -> set[Outcome]:
    return {attempt.outcome for attempt in made.attempts}


@st.composite
def traces(draw: st.DrawFn) -> Report:
    fired_ns = draw(st.sampled_from([0, START]))
    came = draw(st.lists(st.sampled_from([MOVED, STRANGER, PEER]), max_size=3))
    plan, spray = draw(st.sampled_from([(None, None), ("why", None), ("why", False), ("why", True)]))
    return failed(
        *draw(st.lists(SHOTS, max_size=5 if fired_ns else 0)),
        fired_ns=fired_ns,
        early_ns=draw(st.none() | st.integers(0, START)),
        arrivals=tuple(map(arrival, came)),
        strangers=len(came),
        listening=draw(st.booleans()),
        plan=plan,
        **draw(st.sampled_from([{}, {"by_code": True}, {"by_ticket": plan is not None}])),
        spray=spray,
        peers=draw(st.sampled_from([(PEER,), (Endpoint("192.168.7.5", 9),), (PEER, OTHER)])),
    )


@given(traces())
def test_no_word_claims_what_was_not_seen(made: Report) -> None:
    found = diagnose(made)
    told = f"{found.sentence}; {'; '.join(found.evidence)}"
    for word, seen in CLAIMS.items():
        assert not re.search(word, told) or seen(made), word
    assert not re.search("ticket|simopen nat", found.advice) or made.by_ticket or "private" in found.sentence
    assert not re.search("spray", found.advice) or made.plan
    if made.by_code:  # there is no ticket, no profile and no instant that anybody agreed on
        assert not re.search("profile|simopen clock|later instant", found.advice)


def test_silence_between_peers_without_tickets_names_none() -> None:
    for made in (failed(shot(None)), failed(shot(RST)), failed(), failed(fired_ns=0)):
        assert not re.search("ticket|simopen nat", str(diagnose(made)))


@given(st.integers(1, 4000), st.sampled_from(CODES_SEEN), st.sampled_from([0, START]))
def test_however_many_peers_a_name_brings_the_words_fit_a_screen(count: int, code: int | None, fired_ns: int) -> None:
    peers = tuple(Endpoint(f"2001:db8:ffff:ffff:ffff:ffff:ffff:{number:x}", 65535) for number in range(count))
    shots = tuple(replace(shot(code), peer=each) for each in peers[:: max(1, count // 40)])
    made = failed(*(shots if fired_ns else ()), peers=peers, fired_ns=fired_ns)
    told = str(WindowClosed(str(diagnose(made))))
    assert len(told) <= LONGEST
    assert max(map(len, diagnose(made).evidence)) <= LONGEST
    assert len(diagnose(made).sentence) < 700


@pytest.mark.parametrize("codes", [(RST,), (None,), (RST, UNREACHABLE, None), (errno.ETIMEDOUT, None), (0, RST)])
@pytest.mark.parametrize("address", ["2001:db8:ffff:ffff:ffff:ffff:ffff", "fd00:db8:ffff:ffff:ffff:ffff:ffff"])
def test_what_to_do_still_fits_where_many_peers_and_strangers_came(codes: tuple[int | None, ...], address: str) -> None:
    """A name's sixteen addresses, and whoever else connects: an error is cut at its end, where the advice is."""
    peers = tuple(Endpoint(f"{address}:{number:x}", 65535) for number in range(0xFFF0, 0x10000))
    shots = tuple(replace(shot(code, took_ms=333.33), peer=each) for each in peers for code in codes)
    strangers = tuple(
        arrival(Endpoint(f"2001:db8:aaaa:aaaa:aaaa:aaaa:aaaa:{n:x}", 44444), 900) for n in range(9999, 10015)
    )
    visits = tuple(each for pair in zip(strangers, strangers, strict=True) for each in pair)
    earlier = "this program ended a stream between the same two endpoints 100.0 s before the instant"
    made = failed(*shots, peers=peers, arrivals=visits, strangers=9999, earlier=earlier, early_ns=START - 3 * 10**9)
    found = diagnose(made)
    assert len(f"no stream to {', '.join(map(str, peers[:4]))} within 10 s: {found}") <= LONGEST
    assert "9999 connections were turned away" in found.evidence


def test_an_earlier_stream_is_told_with_what_to_do_about_it() -> None:
    found = diagnose(failed(shot(None), earlier="an earlier stream ended 3.0 s before"))
    assert "an earlier stream ended 3.0 s before" in found.evidence
    assert "wait two minutes, or use another local port on both sides" in found.advice
    by_ticket = diagnose(failed(shot(None), earlier="x", plan="one port", by_ticket=True))
    assert "--local-port on both" in by_ticket.advice


def test_silence_may_be_a_router_that_remembers_an_earlier_try() -> None:
    """One side's SYN, and later one of the other's new to it, leave an entry through which neither comes for 2 min."""
    assert "remembers an earlier try of these two" in diagnose(failed(shot(None))).advice
