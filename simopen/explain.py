"""What came of a punch in the lab, in sentences. Pure: what was tried goes in, lines come out.

The lab sees what no host sees: which public endpoint each NAT gave, and which of them stopped a SYN. So where a side
can only say "nothing came back", this says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from simopen.lab import Allocation, Record, Verdict
from simopen.lab.acts import LETS_IN, OPENS, Act, acts, given
from simopen.lab.figure import sequence
from simopen.lab.packet import Endpoint
from simopen.lab.presets import Nats, format_nats, short_name
from simopen.trial import LEFT, RIGHT, Run, Setting, Summary, summed_up

_MOST_REASONS = 5
_VIA = {"connect": "its own SYN's socket", "accept": "the listener on the punch port"}
# By how many of the two sides' ports nobody can foresee, since their NATs draw them.
_WAITS_FOR = (
    "this pair waits for port prediction",
    "this pair waits for many guesses at once (birthday paradox)",
    "no TCP means reach that: 2^32 guesses",
)


def story(setting: Setting, runs: Sequence[Run]) -> str:
    """Everything that one run, or several, came to."""
    if len(runs) == 1:
        parts = [
            verdict(runs[0], setting),
            "\n".join(what_the_nats_did(runs[0])),
            sequence(runs[0].record, LEFT, RIGHT),
        ]
    else:
        parts = [summary(summed_up(runs)), "\n".join(_failures(setting, runs))]
    return "\n\n".join([scene(setting), *filter(None, parts)])


def _failures(setting: Setting, runs: Sequence[Run]) -> list[str]:
    """Why some did not connect: the commonest reason first, an example of each kind."""
    reasons = Counter(reason(run, setting) for run in runs if not run.connected)
    told = [f"{count} of {len(runs)} not connected: {why}" for why, count in reasons.most_common(_MOST_REASONS)]
    return told + [f"and {len(reasons) - _MOST_REASONS} more reasons: see --json"] * (len(reasons) > _MOST_REASONS)


def scene(setting: Setting) -> str:
    """What is tried, in one line."""
    conditions = [f"{setting.delay_s * 1e3:g} ms apart one way"]
    conditions += [f"{setting.jitter_s * 1e3:g} ms jitter"] * bool(setting.jitter_s)
    conditions += [f"{setting.loss * 100:g}% lost each way"] * bool(setting.loss)
    conditions += [f"right fires {setting.apart_s * 1e3:g} ms later"] * bool(setting.apart_s)
    return f"left: {_nats(setting.left)}\nright: {_nats(setting.right)}\n{', '.join(conditions)}"


def _nats(nats: Nats) -> str:
    name, full = short_name(nats), format_nats(nats)
    return full if name == full else f"{name} ({full})"


def verdict(run: Run, setting: Setting) -> str:
    """Whether they connected, how fast and by what; or why not."""
    if not run.connected:
        return f"not connected: {reason(run, setting)}"
    later, earlier = run.later, _other(run.later)
    return (
        f"connected: {later} {run.established_ms(later):.1f} ms after the later side's first SYN through "
        f"{_VIA[run.answers[later]['via']]}, {earlier} after {run.established_ms(earlier):.1f} ms through "
        f"{_VIA[run.answers[earlier]['via']]}; round trip {run.rtt_ms:.1f} ms"
    )


def summary(summed: Summary) -> str:
    """The success share, median and p99 of several runs."""
    share = f"{summed.connected} of {summed.runs} connected ({summed.connected / summed.runs:.0%})"
    if summed.median_ms is None:
        return share
    return f"{share}; ms after the later side's first SYN: median {summed.median_ms:.1f}, p99 {summed.p99_ms:.1f}"


def what_the_nats_did(run: Run) -> list[str]:
    """A line for each NAT: what it opened, and what it did with the other side's SYNs."""
    found = [act for act in acts(run.record, LEFT, RIGHT) if act.passage.sent.is_syn]
    places = sorted({(act.step.host, act.step.nat) for act in found})
    chains = Counter(host for host, _ in places)
    return [_nat_line(*place, chains[place[0]], [a for a in found if a.step[:2] == place]) for place in places]


def nats_as_dict(run: Run) -> list[dict[str, object]]:
    """For JSON: each NAT's act on each SYN, in order. `nat` counts outwards from 0."""
    return [
        {
            "host": act.step.host,
            "nat": act.step.nat,
            "from": act.passage.source,
            "what": act.what,
            "public": act.public and _text(act.public),
        }
        for act in acts(run.record, LEFT, RIGHT)
        if act.passage.sent.is_syn
    ]


def _text(end: Endpoint) -> str:
    return f"{end.address}:{end.port}"


def _nat_line(host: str, nat: int, chain: int, found: Sequence[Act]) -> str:
    opened = [f"opened {_text(act.public)}" for act in found if act.what == OPENS and act.public]
    inward = Counter(act.what for act in found if not act.outward)
    let_in = inward.pop(LETS_IN, 0)
    did = [*dict.fromkeys(opened), *([f"let in {_syns(let_in)}"] * bool(let_in))]
    did += [f"{_PAST.get(what, what)} {_syns(count)}" for what, count in inward.items()]
    return f"{nat_name(host, nat, chain)}: {', '.join(did) or 'saw no SYN'}"


_PAST = {"drops": "dropped", "answers RST": "answered RST to", "answers ICMP": "answered ICMP to", "holds": "held"}


def nat_name(host: str, nat: int, chain: int) -> str:
    """`left's NAT`, or in a chain `left's NAT 2 of 2`, counted outwards."""
    return f"{host}'s NAT" if chain == 1 else f"{host}'s NAT {nat + 1} of {chain}"


def _syns(count: int) -> str:
    return f"{count} SYN{'' if count == 1 else 's'}"


def reason(run: Run, setting: Setting) -> str:
    """Why they did not connect, from what the packets show; "" where they did."""
    if run.connected:
        return ""
    if not run.seen:
        return "; ".join(f"{name}: {error}" for name, error in run.errors.items())
    if wrong := list(_wrong_ports(run)):
        return f"{'; '.join(wrong)}: {_WAITS_FOR[_drawn(run, setting)]}"
    stopped = [words for name in (LEFT, RIGHT) if (words := _all_stopped(run.record, name))]
    return "; ".join(stopped) or "; ".join(f"{name} says: {error}" for name, error in run.errors.items())


def _wrong_ports(run: Run) -> Iterator[str]:
    for name in (LEFT, RIGHT):
        got = given(run.record, name, _other(name))
        if got is not None and got[0] != (fired_at := run.seen[name]):
            yield (
                f"{name}'s NAT gave {_place(got[0], fired_at)} to {_text(got[1])}, "
                f"but {_other(name)} fired at {_place(fired_at, got[0])}"
            )


def _place(end: Endpoint, other: Endpoint) -> str:
    """The port, as long as the addresses agree."""
    return f"port {end.port}" if end.address == other.address else _text(end)


def _drawn(run: Run, setting: Setting) -> int:
    """How many sides have a port that differs by destination and is drawn at random."""
    sides = {LEFT: setting.left, RIGHT: setting.right}
    moved = [name for name in sides if (got := given(run.record, name, _other(name))) and got[0] != run.seen[name]]
    return sum(any(nat.allocation is Allocation.RANDOM for nat in sides[name]) for name in moved)


def _all_stopped(record: Record, source: str) -> str | None:
    """What stopped every one of this side's SYNs; None where one arrived."""
    syns = record.syns(source, _other(source))
    ends = Counter(passage.verdict for passage in syns)
    if not syns or ends[Verdict.DELIVERED]:
        return None
    told = ", ".join(f"{count} {verdict.value}" for verdict, count in ends.items())
    return f"of {source}'s {_syns(len(syns))} none arrived ({told})"


def _other(name: str) -> str:
    return RIGHT if name == LEFT else LEFT
