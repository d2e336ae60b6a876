"""Why a punch failed, as far as the trace of one side can show: one sentence, the evidence, and what to do.

Theory of operation: pure; a `Report` goes in, words come out. One side sees what it sent, what came back and when, who
connected to its listener, and a SYN of the peer's that came too early. It does not see the peer, so a cause is named
only where the evidence bears it, and where several would leave the same trace, all of them are named:

- A RST: whatever answered had no use for the SYN when it arrived. It may be the peer's host, its NAT, or a firewall on
  either side; only an answer that came faster than from afar is known to come from near. The kernel reports an ICMP
  Port Unreachable just like a RST (ECONNREFUSED), so "refusal" here is either.
- Unreachable: a router's ICMP looks to the program like this host's own neighbour discovery that found nobody.
- Silence: the peer has not fired, or its SYNs or ours were dropped, or one of the two fired at the wrong endpoint. No
  trace of one side tells these apart.
- The peer's clock: a SYN that came before our instant tells it, on the later of the two sides, where it gets as far as
  this host (`early_syn.py`). The earlier side cannot know: when the peer's SYN comes, its window is closed, and a
  socket that answered then would give the peer a stream that breaks. Where the windows overlapped, as far as is known
  (the peer's is taken to be as long as ours), the clocks explain nothing, and what came early is only told as evidence.
- A late peer that was met: the RSTs until then say how late it fired. Silence until then does not: SYNs may be lost.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from simopen.holepunch.advice import (
    ALLOW_SPRAY,
    BY_CODE,
    BY_PROFILE,
    NEW_TICKETS,
    REFUSING,
    SPRAY,
    SPRAY_BY_CODE,
    SPRAY_BY_PROFILE,
)
from simopen.model.endpoint import Endpoint
from simopen.model.outcome import Outcome
from simopen.model.report import Attempt, Cause, Diagnosis, Report, Via, tally
from simopen.model.times import MonoNs
from simopen.model.wording import FEW, listed, span

NEAR_NS = 1_000_000
"""Light in glass makes 200 km in 1 ms, there and back 100: what answers within that is no distant peer."""
APART_NS = 500_000_000
"""Two sides that re-fire on RSTs may fall out of step, but are up within 340 ms (measured at an RTT of 80 ms)."""
# Half of what may lie between two looks for a peer's early SYN, where nothing keeps this process from looking.
_LOOKS_NS = 100_000_000
# The last SYN before the window closes never has its answer yet: only a longer wait than any answer took is silence.
_LONGER = 3


def impossible(why: str, *, sprays: bool = False) -> Diagnosis:
    """For two NATs that no plan connects; `why` is the plan's own sentence. `sprays`: one would, were it allowed to."""
    advice = "Use another network on one of the two sides, IPv6 on both, or a relay"
    return Diagnosis(Cause.IMPOSSIBLE_PAIR, why, (), f"{ALLOW_SPRAY}. Else: {advice}" if sprays else advice)


def stopped(report: Report, why: str) -> Diagnosis:
    """For an error of this host that ended the punch before its window did; `why` is what that error says."""
    return Diagnosis(Cause.THIS_HOST, why, tuple(_facts(report)), "Nothing more was tried, as it could not have helped")


def diagnose(report: Report) -> Diagnosis:
    """The cause that the report of a failed punch bears out. The first of `_CASES` that applies."""
    case = next(case for case in _CASES if case.applies(report))
    return Diagnosis(case.cause, case.sentence(report), tuple(_facts(report)), _advice(case, report))


def remarks(report: Report) -> tuple[str, ...]:
    """What is worth telling about a punch that succeeded: a port that was not named, clocks that lie apart."""
    told = []
    # A plan expects other ports than those that the report has room for.
    if report.plan is None and report.remote is not None and report.remote not in report.peers:
        told.append(f"the peer came from {report.remote}, which was not named: its NAT chose another port, or it did")
    if report.early_ns is not None:
        # By tickets both may try in rounds, of which the earlier one's first need not be this side's.
        earlier = "it began earlier, or " if report.by_ticket else ""
        told.append(f"the peer fired {_early(report)} before this side's instant: {earlier}{_CLOCKS}")
    late_ns = _late_ns(report)
    if late_ns is not None and late_ns > APART_NS:
        about = f"the peer fired about {late_ns / 1e9:.1f} s after this side's instant"
        told.append(f"{about}: {_CLOCKS}, or its program was kept from it")
    return tuple(told)


_CLOCKS = "one of the two clocks is off by that, or the two sides were told different instants"


def _outcomes(report: Report) -> set[Outcome]:
    return {attempt.outcome for attempt in report.attempts}


def _shut(report: Report) -> bool:
    """Whether nothing left this host."""
    return not any(attempt.sent for attempt in report.attempts)


def _early(report: Report) -> str:
    """How long before our instant a SYN came from a peer's address: from when to when, where nobody looked for long."""
    assert report.early_ns is not None
    early_ns, doubt_ns = report.instant_ns - report.early_ns, report.early_doubt_ns
    if doubt_ns <= _LOOKS_NS:
        return f"{early_ns / 1e9:.1f} s"
    return f"{max(0, early_ns - doubt_ns) / 1e9:.1f} to {(early_ns + doubt_ns) / 1e9:.1f} s"


def _too_early(report: Report) -> bool:
    """Whether the peer's window, where it is as long as ours, was over before ours began."""
    if report.early_ns is None:
        return False
    return report.instant_ns - report.early_ns - report.early_doubt_ns >= report.window_s * 1e9


def _late_ns(report: Report) -> int | None:
    """How long after our instant the peer fired, to a round trip or a tenth; None where no refusal before it tells.

    Not after our first SYN, which may have come late: the instants are what clocks make differ. The shortest wait for
    an answer is the round trip; the others may be this process's, which came round late to what had come. Nothing of a
    plan's is looked at: its later shots open later, by whatever clock.
    """
    tried = [attempt for attempt in report.attempts if attempt.peer == report.remote]
    refused = [attempt for attempt in tried if attempt.outcome is Outcome.RESET]
    if not refused or report.established_ns is None or report.plan is not None:
        return None
    round_trip_ns = min(_waited_ns(attempt) for attempt in tried if attempt.outcome in (Outcome.RESET, Outcome.OPEN))
    ready_ns = tried[-1].started_ns  # that found the peer ready; it left half a round trip before, as its RST took
    if report.via is Via.ACCEPT:  # the peer's SYN, our answer and its answer, one after the other
        ready_ns = MonoNs(report.established_ns - 3 * round_trip_ns // 2)
    late_ns = ready_ns - report.instant_ns
    # The peer was not ready then yet, and was by that: a SYN that nobody answered at once may have come up much later.
    known_ns = (refused[-1].started_ns, report.established_ns - round_trip_ns)
    return late_ns if _span_ns(ready_ns, *known_ns) < max(late_ns // 10, _LONGER * round_trip_ns) else None


def _span_ns(*instants_ns: int) -> int:
    return max(instants_ns) - min(instants_ns)


def _waited_ns(attempt: Attempt) -> int:
    return attempt.ended_ns - attempt.started_ns


def _knocked(report: Report) -> list[str]:
    """Who came from a peer's address, from a port that nobody named, and was turned away."""
    addresses = {peer.address for peer in report.peers}
    return [str(each.remote) for each in report.arrivals if each.remote.address in addresses]


def _missed(report: Report) -> str:
    late, peers = ago(report.ended_ns - report.instant_ns), listed(report.peers, ", ", FEW)
    if report.stalled_s:
        return f"nothing was sent to {peers}: {_stalled(report)}, and the window was over when it went on"
    return f"nothing was sent to {peers}: the instant was {late} ago, and the window over"


def _stalled(report: Report) -> str:
    return f"this process was stopped, or too busy, for {span(report.stalled_s)}"


def _absent(report: Report) -> bool:
    """Whether this process did not run for most of its window: what the peer did then, nobody saw."""
    return report.stalled_s >= report.window_s / 2


def ago(late_ns: int) -> str:
    """To a tenth of a second while that may matter; then minutes, hours, days."""
    return f"{late_ns / 1e9:.1f} s" if late_ns < 60 * 10**9 else span(late_ns / 1e9)


def _taken(report: Report) -> str:
    holder = f"a {report.holder} socket" if report.holder else "a socket"
    return f"nothing left this host: its port {report.local[1]} has {holder} to that endpoint from before"


def _apart(report: Report) -> str:
    early = _early(report)
    return f"the peer fired {early} before this side's instant, and had stopped when this side fired: {_CLOCKS}"


def _wrong_port(report: Report) -> str:
    return f"the peer came from {listed(_knocked(report), ', ', FEW)}, which was not named, and so could not be let in"


def _refused(report: Report) -> str:
    answers = "refusals and ICMP errors" if Outcome.ICMP in _outcomes(report) else "refusals"
    return f"only {answers} came back: what answers there expected nothing from this side while it fired"


def _is_far_private(report: Report) -> bool:
    """Whether something said that it cannot get to a peer of which only addresses of some site were named."""
    return report.plan is None and Outcome.ICMP in _outcomes(report) and all(map(_is_private, report.peers))


def _is_private(peer: Endpoint) -> bool:
    address = ipaddress.ip_address(peer.address.partition("%")[0])
    return any(address in network for network in _PRIVATE)


def _elsewhere(report: Report) -> str:
    is_are = "are private addresses" if len(report.peers) > 1 else "is a private address"
    addresses = listed((peer.address for peer in report.peers), ", ", FEW)
    return f"{addresses} {is_are}, known in one network only, and the answer was that there is no way there from here"


def _advice(case: _Case, report: Report) -> str:
    if case.by_ticket is None or (report.plan is None and not report.by_code):
        return case.advice
    if report.by_code:
        advice, spray = BY_CODE[case.cause], SPRAY_BY_CODE
    elif report.by_ticket:
        advice, spray = case.by_ticket, SPRAY
    else:
        advice, spray = BY_PROFILE[case.cause], SPRAY_BY_PROFILE
    if report.spray is None or case.cause not in {Cause.REFUSED, Cause.SILENCE}:
        return advice
    return f"{advice}. {spray[report.spray]}"


@dataclass(frozen=True, slots=True)
class _Case:
    """When it applies, and its words. What they claim, `applies` has seen.

    `by_ticket`: the advice where two tickets decided what to fire, and so nobody agreed on an instant or a port. Where
    two profiles did, in a program that knows of no tickets, `BY_PROFILE` has it; of a meeting by a code, `BY_CODE`.
    """

    cause: Cause
    applies: Callable[[Report], bool]
    sentence: Callable[[Report], str]
    advice: str
    by_ticket: str | None = None


# RFC 1918, RFC 6598 (a provider's, behind its NAT), RFC 4193. Not `is_private`: documentation's addresses are, too.
_PRIVATE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)


# From what is certain to what is left.
_CASES = (
    _Case(
        Cause.NOT_FIRED,
        lambda report: not report.fired_ns and bool(report.stalled_s),
        _missed,
        "See that nothing stops this process or keeps it busy at the instant, and agree on a later one",
        "See that nothing stops this process or keeps it busy at the instant; make new tickets on both sides",
    ),
    _Case(
        Cause.NOT_FIRED,
        lambda report: not report.fired_ns,
        _missed,
        "Agree on a later instant, and check this machine's clock with `simopen clock`",
        "Make new tickets on both sides, with more time: simopen nat --ticket --at +5m; and check this machine's clock "
        "with `simopen clock`",
    ),
    _Case(
        Cause.THIS_HOST,
        _absent,
        lambda report: f"{_stalled(report)} when it should have watched, so what the peer did was not seen",
        "See that nothing stops this process or keeps it busy from the instant on, and agree on a later one",
        "See that nothing stops this process or keeps it busy from the instant on; make new tickets on both sides",
    ),
    _Case(
        Cause.PORT_TAKEN,
        lambda report: _shut(report) and Outcome.TAKEN in _outcomes(report),
        _taken,
        "Wait a minute, or use another local port",
        "Make new tickets on both sides",
    ),
    _Case(
        Cause.NO_ROUTE,
        lambda report: _shut(report) and Outcome.NO_ROUTE in _outcomes(report),
        lambda _: "nothing left this host: it has no route to the peer",
        "Check the address, and this host's connection",
        "Check this host's connection; then make new tickets on both sides",
    ),
    _Case(
        Cause.THIS_HOST,
        lambda report: _shut(report) and Outcome.FAILED in _outcomes(report),
        lambda _: "nothing left this host: it failed whenever it was to send",
        "Look what this host is short of: memory, buffers, or an interface that is up",
    ),
    _Case(
        Cause.CLOCKS_APART,
        _too_early,
        _apart,
        "Run `simopen clock` on both sides, and compare the instants",
        "Run `simopen clock` on both sides; then make new tickets, and use no older ones",
    ),
    _Case(
        Cause.WRONG_PORT,
        lambda report: bool(_knocked(report)),
        _wrong_port,
        "More than one punch here waits for that address: name the port that the peer's NAT chooses, or give each "
        "punch a local port of its own",
        "More than one punch here waits for that address: make new tickets on both sides, without --local-port",
    ),
    _Case(
        Cause.BROKEN,
        lambda report: Outcome.OPEN in _outcomes(report),
        lambda _: "a stream came up, but what answered there reset it at once",
        "Ask what the peer's program did: it may have had a stream already, or given up",
    ),
    _Case(
        Cause.REFUSED,
        lambda report: Outcome.RESET in _outcomes(report),
        _refused,
        "Either the peer never fired: was it run, for the same instant, and was its window still open? Or it fired at "
        "or from another endpoint than was agreed; or a NAT or firewall in between answers for it",
        f"{NEW_TICKETS}. Or a NAT or firewall in between answers for the peer",
    ),
    _Case(
        Cause.UNREACHABLE,
        _is_far_private,
        _elsewhere,
        "If the peer is in another network, swap tickets, which tell its public address and how to get there: run "
        "`simopen nat --ticket` on both sides. If it is in this one, check the address, and that its host is up",
    ),
    _Case(
        Cause.UNREACHABLE,
        lambda report: Outcome.ICMP in _outcomes(report),
        lambda _: "a router on the way, or this host's own network, says that it cannot, or must not, get there",
        "Check the address and this host's connection; a firewall may answer so, too, until the peer has fired",
        f"{REFUSING}; then make new tickets on both sides",
    ),
    _Case(
        Cause.EARLIER_STREAM,
        lambda report: report.earlier is not None,
        lambda _: "nothing at all came back, and these two endpoints had a stream not long ago",
        "A router on the way may still remember that stream, and let nothing of a new one in: wait two minutes, or use "
        "another local port on both sides. If that is not it, the peer fired at another instant, or not at all",
        "A router on the way may still remember that stream, and let nothing of a new one in: wait two minutes, then "
        "make new tickets on both sides, or make them now with another --local-port on both",
    ),
    _Case(
        Cause.SILENCE,
        lambda _: True,
        lambda _: "nothing at all came back",
        "Either the peer fired at another instant, or not at all, and its side drops what it did not ask for; or one "
        "side fired at another endpoint than the other's public one, or from another port; or a firewall drops "
        "this side's SYNs or the peer's; or a router still remembers an earlier try of these two, to which one came "
        "late: then wait two minutes, or use another local port on both sides",
        f"{NEW_TICKETS}. Or a firewall drops this side's SYNs or the peer's",
    ),
)


def _facts(report: Report) -> Iterator[str]:
    """What was seen, each fact in a few words. None of them is a conclusion, but that light has a speed."""
    if report.plan is not None:
        yield f"the plan: {report.plan}"
    yield tally(report.attempts)
    yield from _answers(report)
    yield from _unanswered(report)
    if report.fired_ns:
        yield f"this side fired {report.late_s * 1e3:.2f} ms after the instant; its clock: {report.clock}"
    else:
        yield f"the clock: {report.clock}"
    if report.stalled_s:
        yield _stalled(report)
    if report.early_ns is not None:
        yield f"a SYN from a peer's address came {_early(report)} before the instant"
    if report.earlier is not None:
        yield report.earlier
    yield from _visits(report)


def _answers(report: Report) -> Iterator[str]:
    waits_ns = [_waited_ns(attempt) for attempt in report.attempts if attempt.outcome is Outcome.RESET]
    if not waits_ns:
        return
    span = " to ".join(dict.fromkeys(f"{wait_ns / 1e6:.2f}" for wait_ns in (min(waits_ns), max(waits_ns))))
    near = ", so most of them come from near: this host's own network, or next door"
    median_ns = sorted(waits_ns)[len(waits_ns) // 2]
    yield f"refusals (RSTs, or ICMP) came {span} ms after their SYNs{near if median_ns < NEAR_NS else ''}"


def _unanswered(report: Report) -> Iterator[str]:
    """A SYN that was left alone for longer than any other waited: what answered before does so no more."""
    answered_ns = [_waited_ns(a) for a in report.attempts if a.outcome in (Outcome.RESET, Outcome.ICMP)]
    pending_ns = [_waited_ns(a) for a in report.attempts if a.outcome is Outcome.IN_FLIGHT]
    if answered_ns and pending_ns and max(pending_ns) > _LONGER * max(answered_ns):
        yield f"a SYN was left without an answer for {max(pending_ns) / 1e9:.1f} s"


def _visits(report: Report) -> Iterator[str]:
    if not report.fired_ns:
        return
    if not report.listening:
        yield "nothing listened here, so a peer that came from another port could not be seen"
    for each in report.arrivals[:FEW]:
        yield f"{each.remote} connected {(each.at_ns - report.fired_ns) / 1e9:.1f} s after this side's first SYN"
    if report.strangers:
        yield f"{report.strangers} connection{'s were' if report.strangers > 1 else ' was'} turned away"
    elif report.listening:
        yield "nobody connected to this side's listener"
