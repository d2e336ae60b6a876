"""What came of a punch in the lab, in sentences. Pure: what was tried goes in, lines come out.

The lab sees what no host sees: which public endpoint each NAT gave, and which of them stopped a SYN. So where a side
can only say "nothing came back", this says why; and of the plan, which is words about NATs in general, how it went.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from simopen.holepunch.plan import plan
from simopen.lab import Record, Verdict
from simopen.lab.draw.nat_actions import LETS_IN, OPENS, Act, acts, flows
from simopen.lab.draw.text_diagram import sequence
from simopen.lab.nat.presets import Nats, format_nats, short_name
from simopen.lab.trial.run import LEFT, RIGHT, Run, Setting, Summary, summed_up
from simopen.model.endpoint import Endpoint

_MOST_REASONS = 5
_MOST_NAMED = 4  # ports, one by one
_LATE_MS = 20  # what is this late may have undone a plan
_MOST_LINES, _KEPT = 60, 40  # of a sequence; more would be a pattern, not a story
_VIA = {"connect": "its own SYN's socket", "accept": "the listener on the punch port"}


def story(setting: Setting, runs: Sequence[Run]) -> str:
    """Everything that one run, or several, came to."""
    if len(runs) == 1:
        (run,) = runs
        parts = ["\n".join(_way_there(run)), verdict(run, setting), "\n".join(what_the_nats_did(run)), _drawn(run)]
    else:
        parts = ["\n".join(_plans(runs)), summary(summed_up(runs)), "\n".join(_failures(setting, runs))]
    return "\n\n".join([scene(setting), *filter(None, parts)])


def _way_there(run: Run) -> list[str]:
    """What each side found out, and the plan made of that."""
    found = [f"{name} found: {each.profile}" for name, each in run.learnt.items()]
    late = [f"{name} fired {ms:.0f} ms late: this machine is busy" for name, ms in run.late_ms.items() if ms > _LATE_MS]
    return found + [f"plan: {run.plan}"] * (run.plan is not None) + late


def _plans(runs: Sequence[Run]) -> list[str]:
    """The plans and how often each was made, the commonest first."""
    plans = Counter(run.plan for run in runs if run.plan)
    told = [f"plan, {count} of {len(runs)} times: {why}" for why, count in plans.most_common(_MOST_REASONS)]
    return told + [f"and {len(plans) - _MOST_REASONS} more plans: see --json"] * (len(plans) > _MOST_REASONS)


def _drawn(run: Run) -> str:
    """The sequence: of all SYNs only those of the stream that came up, and of a long one the middle left out."""
    lines = sequence(run.story, LEFT, RIGHT).splitlines()
    if len(lines) > _MOST_LINES:
        lines[_KEPT : _KEPT - _MOST_LINES] = [f"... {len(lines) - _MOST_LINES} lines left out ..."]
    others = sum(len(run.record.syns(*way)) - len(run.story.syns(*way)) for way in ((LEFT, RIGHT), (RIGHT, LEFT)))
    return "\n".join([*lines, *[f"left out: {_syns(others)} that met nothing"] * bool(others)])


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
    opened = dict.fromkeys(act.public for act in found if act.what == OPENS and act.public)
    inward = Counter(act.what for act in found if not act.outward)
    let_in = inward.pop(LETS_IN, 0)
    did = [f"opened {_ends(opened)}"] * bool(opened) + [f"let in {_syns(let_in)}"] * bool(let_in)
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
    if len(run.learnt) < 2:
        return "; ".join(f"{name}: {error}" for name, error in run.errors.items())
    if run.refused:
        return "; ".join([*_moving(run), *dict.fromkeys(run.errors.values())])
    if wrong := list(_wrong_ports(run)):
        return "; ".join(wrong) + _spray_hint(run, setting)
    stopped = [words for name in (LEFT, RIGHT) if (words := _all_stopped(run.record, name))]
    return "; ".join(stopped) or "; ".join(f"{name} says: {error}" for name, error in run.errors.items())


def _moving(run: Run) -> Iterator[str]:
    for name, each in run.learnt.items():
        if len(each.seen) > 1:
            yield f"{name}'s NAT gave one local port {_ends(each.seen)} for {len(each.seen)} destinations"


def _wrong_ports(run: Run) -> Iterator[str]:
    """Where no SYN of one side left from where one of the other's, which left from its aim, was aimed."""
    ways = {name: flows(run.record, name, _other(name)) for name in (LEFT, RIGHT)}
    if not all(ways.values()) or {way[::-1] for way in ways[LEFT]} & set(ways[RIGHT]):
        return
    for name in (LEFT, RIGHT):
        given, aims = {way[0] for way in ways[name]}, {way[1] for way in ways[_other(name)]}
        if not given & aims:
            at, others = _ends({way[1] for way in ways[name]}), _other(name)
            yield f"{name}'s NAT gave {_ends(given)} to SYNs to {at}, but {others} fired at {_ends(aims)}"


def _ends(ends: Collection[Endpoint]) -> str:
    """`198.51.100.1:1314`, `198.51.100.1:1314, 1316`, `198.51.100.1 with 40 ports from 2000 to 2078`; `and` between."""
    by_address: dict[str, list[int]] = {}
    for end in sorted(ends):
        by_address.setdefault(end.address, []).append(end.port)
    return " and ".join(_at(address, ports) for address, ports in by_address.items())


def _at(address: str, ports: Sequence[int]) -> str:
    if len(ports) > _MOST_NAMED:
        return f"{address} with {len(ports)} ports from {ports[0]} to {ports[-1]}"
    return f"{address}:{', '.join(map(str, ports))}"


def _spray_hint(run: Run, setting: Setting) -> str:
    """Where the plan would have sprayed, had it been allowed to."""
    profiles = [run.learnt[name].profile for name in (LEFT, RIGHT)]
    now_ns = max((seen.at_ns for profile in profiles for seen in profile.observations), default=0)
    sprays = not setting.spray and plan(*profiles, now_ns=now_ns).sprays
    return "; --spray tries very many ports" * sprays


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
