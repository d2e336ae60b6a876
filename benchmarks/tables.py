"""The measured tables and headlines of the pages, from what was measured: `python -m benchmarks.tables [--check]`.

What stands between `<!-- begin: measured NAME -->` and `<!-- end -->` is made from `benchmarks/results/NAME.json`:
figures, sentences and conditions, so that no figure is ever typed; between `<!-- begin: headlines -->` and the end
stand the few figures of the README, from several results; between `<!-- begin: compared -->` and the end, those of the
page on others. `--check` changes nothing, and fails where page and results differ. Where there is no result yet, the
page says so.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.common import Row, described, shown

RESULTS = Path(__file__).with_name("results")
ROOT = Path(__file__).parents[1]
README, MEASURED = ROOT / "README.md", ROOT / "docs" / "measured.md"
PAGES = (README, MEASURED, ROOT / "docs" / "compare.md")
Result = Mapping[str, Any]
_BLOCK = re.compile(
    r"(?P<begin><!-- begin: (?:measured (?P<name>\w+)|(?P<several>headlines|compared)) -->\n).*?(?P<end><!-- end -->)",
    re.DOTALL,
)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _pair(row: Row, name: str, unit: str) -> str:
    """Median and p99, "–" where there was nothing to measure."""
    median, p99 = row[f"{name}_p50_{unit}"], row[f"{name}_p99_{unit}"]
    return "–" if median is None else f"{shown(median)} / {shown(p99)}"


def _connected(rows: Sequence[Row], name: str = "") -> str:
    return f"{sum(row[f'{name}connected'] for row in rows):,} of {sum(row[f'{name}n'] for row in rows):,}"


def _groups(rows: Sequence[Row], *fields: str) -> dict[tuple[Any, ...], list[Row]]:
    """The rows by these fields, in the order in which they come."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[field] for field in fields), []).append(row)
    return found


def _joined(values: Iterable[object]) -> str:
    return " / ".join(shown(value) or "–" for value in values)


def establish(result: Result) -> str:
    rows = result["rows"]
    lines = [
        [
            answer,
            shown(rtt_ms),
            _joined(row["apart_ms"] for row in group),
            _connected(group),
            _joined(row["later_p50_ms"] for row in group),
            _joined(row["later_p99_ms"] for row in group),
            f"{_joined(row['loop_later_p50_ms'] for row in group)} ({_connected(group, 'loop_')})",
        ]
        for (answer, rtt_ms), group in _groups(rows, "answer", "rtt_ms").items()
    ]
    columns = ("NATs", "round trip", "instants apart", "connected", "median", "p99", "`open_connection` in a loop")
    return f"Connected: {_connected(rows)}. Milliseconds:\n\n{markdown(columns, lines)}"


def precision(result: Result) -> str:
    methods = list(dict.fromkeys(row["method"] for row in result["rows"]))
    lines = []
    for (loop, load), group in _groups(result["rows"], "loop", "load").items():
        by_method = {row["method"]: row for row in group}
        cells = [
            _pair(by_method[method], what, "us") if method in by_method else ""
            for method in methods
            for what in ("call", "wire")
        ]
        lines.append([loop, load, *cells])
    columns = ["loop", "load", *(f"{method}, {what}" for method in methods for what in ("call", "wire"))]
    earliest = {
        method: min(row["call_min_us"] for row in result["rows"] if row["method"] == method) for method in methods
    }
    early = ", ".join(f"{method} {shown(value)}" for method, value in earliest.items())
    return f"Microseconds after the instant, median / p99:\n\n{markdown(columns, lines)}\n\nEarliest call: {early}."


def matrix(result: Result) -> str:
    (told,) = [row for row in result["rows"] if row["table"] == "profiles"]
    profiles = f"Of {told['n']:,} profiles {told['wrong']:,} named a wrong mapping, {told['unknown']:,} left it open."
    return (
        f"![Heat map of NAT × NAT: share of tries that connect, and median time](../benchmarks/results/matrix.svg)\n\n"
        f"{matrix_by_code(result)} {profiles}"
    )


def matrix_by_code(result: Result) -> str:
    tables = {name: rows for (name,), rows in _groups(result["rows"], "table").items()}
    lines = [
        [
            row["line"],
            row["bar"],
            f"{row['in_time']:,} of {row['n']:,}",
            shown(row["slowest_cell_rtt"]) or "–",
            shown(row["took_max_ms"]) or "–",
            shown(row["syns"]),
            shown(row["syns_per_s"]),
            shown(row["held"]),
        ]
        for row in tables["lines"]
    ]
    columns = [
        "NATs (mapping × mapping)",
        "bar",
        "in time",
        "slowest pair's median, RTT",
        "slowest, ms",
        "SYNs of a side",
        "in a second",
        "held",
    ]
    wrong = [f"{row['left']} × {row['right']} ({row['missed']})" for row in tables["cells"] if not row["held"]]
    against = f"Missed: {'; '.join(wrong)}." if wrong else "Every pair does what is asked of it."
    return f"{markdown(columns, lines)}\n\n{len(tables['cells'])} pairs. {against}"


def again(result: Result) -> str:
    rows = result["rows"]
    lines = [
        [*pair, *(_met_in(group, call=call, end=end) for call, end in _WAYS), _joined(_middle_and_most(group))]
        for pair, group in _groups(rows, "left", "right").items()
    ]
    ways = (f"`{call}`, {_IN_WORDS[end]}" for call, end in _WAYS)
    columns = ("left's router", "right's router", *ways, "up after, ms: the middle cell's median / most")
    wrong = {f"{row['left']} × {row['right']}: {row['error']}" for row in rows if not row["held"]}
    against = f"Missed: {'; '.join(sorted(wrong))}." if wrong else "Every meeting came about."
    return f"{markdown(columns, lines)}\n\n{len(rows)} cells. {against}"


_WAYS = tuple(product(("connect", "punch"), ("fin", "rst")))
_IN_WORDS = {"fin": "closed", "rst": "reset"}


def _met_in(rows: Sequence[Row], **cell: str) -> str:
    chosen = [row for row in rows if cell.items() <= row.items()]
    return f"{sum(row['met'] for row in chosen):,} of {sum(row['n'] for row in chosen):,}"


def _middle_and_most(rows: Sequence[Row]) -> tuple[float | None, float | None]:
    """Of the medians of these cells; and of all that they took."""
    met = [row for row in rows if row["met"]]
    medians = sorted(row["took_p50_ms"] for row in met)
    return (medians[len(medians) // 2], max(row["took_max_ms"] for row in met)) if met else (None, None)


def peers(result: Result) -> str:
    rows = result["rows"]
    rivals = list(dict.fromkeys(row["rival"] for row in rows))
    lines = []
    for (answer, apart_ms), group in _groups(rows, "answer", "apart_ms").items():
        by_rival = {row["rival"]: row for row in group}
        lines.append([answer, shown(apart_ms), *(_rival_cell(by_rival[rival]) for rival in rivals)])
    costs = [
        [
            rival,
            _connected(group),
            shown(sorted(row["cpu_p50_ms"] for row in group)[len(group) // 2]),
            shown(max(row["peak_mib"] for row in group)),
        ]
        for (rival,), group in _groups(rows, "rival").items()
    ]
    return (
        "Connected, and milliseconds after the later instant until both programs can use the stream, median / p99 (in "
        "brackets: until both kernels have it, median):\n\n"
        f"{markdown(['NATs', 'instants apart', *rivals], lines)}\n\n"
        f"{markdown(['', 'connected in all', 'ms of processor time', 'MiB at most'], costs)}"
    )


def _rival_cell(row: Row) -> str:
    share = f"{row['connected']} of {row['n']}"
    if not row["connected"]:
        return share
    return f"{share}: {_pair(row, 'usable', 'ms')} ({shown(row['tcp_p50_ms'])})"


def many(result: Result) -> str:
    fields = {
        "connects": "at once",
        "loop": "loop",
        "connected": "connected",
        "kib_each": "KiB each",
        "descriptors_each": "descriptors each",
        "spread_ms": "spread of the SYNs, ms",
        "up_p50_ms": "up after, ms, median",
        "up_p99_ms": "p99",
        "descriptors_left": "descriptors left",
    }
    return _plain(result, fields)


def serve(result: Result) -> str:
    fields = {
        "server": "server",
        "pairs_a_second": "pairs a second",
        "pairs_a_cpu_second": "pairs a second of its processor time",
        "at_a_second": "at pairs a second",
        "message_p50_ms": "a message, ms, median",
        "message_p99_ms": "p99",
        "waiters": "waiting peers",
        "kib_each": "KiB each",
        "mib_of_20000": "MiB, were they 20,000",
    }
    return _plain(result, fields)


def nats(result: Result) -> str:
    fields = {
        "what": "at",
        "pairs": "pairs",
        "whole": "met whole",
        "cut_off": "sides that lost their node",
        "pairs_a_second": "pairs a second",
        "pairs_a_node_cpu_second": "pairs a second of the node's processor time",
        "took_p50_ms": "a pair, ms, median",
        "took_p99_ms": "p99",
    }
    return _plain(result, fields)


def meet(result: Result) -> str:
    steps = {"in_room_ms": "in the room, ms", "peer_here_ms": "code confirmed", "peer_clock_ms": "clocks known"}
    last = {"fired_ms": "fired", "up_ms": "up", "verified_ms": "verified", "first_byte_ms": "first byte at the other"}
    return _plain(result, {"way": "from"} | steps | last)


def session(result: Result) -> str:
    cuts = {"what": "what became of the stream", "n": "cuts", "back_p50_s": "back, s, median", "back_p99_s": "p99"}
    requests = {"method": "requests", "n": "n", "answered": "answered", "told_as_error": "told as an error"}
    long = {"what": "then, once each", "away_s": "for s", "came": "the stream", "back_s": "back, s"}
    fields = {
        "cuts": cuts,
        "requests": requests | {"served_again": "served more than once", "held": "held"},
        "long": long,
    }
    parts = {name: {"rows": rows} for (name,), rows in _groups(result["rows"], "table").items()}
    return "\n\n".join(_plain(parts[name], fields[name]) for name in parts)


def clock(result: Result) -> str:
    fields = {
        "method": "method",
        "trials": "trials",
        "answered": "answered",
        "inside": "truth inside the bound",
        "error_p50_ms": "error, ms, median",
        "error_p99_ms": "p99",
        "bound_p50_ms": "bound, ms, median",
        "bound_p99_ms": "p99",
    }
    return _plain(result, fields)


def imports(result: Result) -> str:
    return _plain(
        result, {"import": "import", "took_p50_ms": "ms, median", "took_p99_ms": "p99", "net_ms": "more than nothing"}
    )


def link(result: Result) -> str:
    fields = {"loop": "loop", "throughput_share": "throughput, of bare TLS's", "memory_share": "memory, of its"}
    costs = {"link_cpu_ms": "CPU ms a link and side", "up": "up at once", "session_initiators_RTT": "first byte, RTT"}
    more = {"session_responders_RTT": "the other way", "bare_key_initiators_RTT": "by bare key"}
    last = {"bare_key_responders_RTT": "the other way", "held_ms": "ms that 100 strangers' nonces hold the loop"}
    return _plain(result, fields | costs | more | last)


def http(result: Result) -> str:
    near = {"loop": "loop, on loopback", "simopen_gets_s": "GETs a second", "gets_s_share": "of httpx's own"}
    large = {"simopen_MB_s": "download, MB/s", "MB_s_share": "of httpx's own"}
    keyed = {"linked_MB_s": "with a key, MB/s", "linked_of_TLS": "of a bare TLS socket's"}
    cpu = {f"{name}_cpu_s_GB": said for name, said in _CPU.items()}
    far = {"loop": "loop, in the lab", "requests": "GETs", "one_punched_s": "s, one punched connection"}
    beside = {
        "of_plain": "of plain Keep-Alive's",
        "ms_each": "ms each",
        "punched_for_each_p50_ms": "ms, punched for each, from the SYN",
        "met_for_each_p50_ms": "ms, met for each, from the call",
    }
    parts = {where: {**result, "rows": rows} for (where,), rows in _groups(result["rows"], "where").items()}
    return "\n\n".join(
        _plain(parts[where], fields)
        for where, fields in (("loopback", near | large | keyed | cpu), ("lab", far | beside))
    )


_CPU = {"simopen": "CPU s a GB", "httpx": "httpx's", "linked": "with a key", "TLS": "bare TLS's"}


def forward(result: Result) -> str:
    many = {
        "connections": "at once",
        "whole": "whole",
        "together_MB_s": "MB/s together",
        "MiB_most": "MiB of a side at most",
    }
    short = {"in_a_row": "in a row", "in_a_row_s": "a second", "abreast_s": "a second, 20 at a time"}
    large = {"MB_s": "download, MB/s", "of_TLS": "of plain TLS's", "asyncssh_of_TLS": "asyncssh alone, of plain TLS's"}
    return _plain(result, {"loop": "loop"} | many | short | large)


def transfer(result: Result) -> str:
    fields = {"way": "by", "what": "what", "n": "n", "p50_s": "s, median", "MB_s": "MB/s", "of_plain": "of plain"}
    more = {"whole_p50_s": "whole commands, s", "whole_max_s": "most", "held_MiB": "MiB of a side"}
    return _plain(result, fields | more)


def homes(result: Result) -> str:
    fields = {"wires": "wires", "way": "by", "MiB": "MiB", "n": "n"}
    more = {"whole_p50_s": "whole commands, s", "whole_max_s": "most", "MB_s": "MB/s", "of_wormhole": "of wormhole's"}
    return _plain(result, fields | more)


def lab_error(result: Result) -> str:
    fields = {"link": "link", "path": "path", "figure": "measured", "packets": "packets", "delivered": "delivered"}
    return _plain(result, fields | {"p50_us": "µs late, median", "p99_us": "p99", "max_us": "most"})


def simulate(result: Result) -> str:
    asked = {question: rows for (question,), rows in _groups(result["rows"], "question").items()}
    parts = {
        "rate": _simulated_rates,
        "clocks": _clock_errors,
        "population": _populations,
        "validate": _against_the_lab,
    }
    return "\n\n".join(part(asked[question]) for question, part in parts.items() if question in asked)


def _simulated_rates(rows: Sequence[Row]) -> str:
    rates = (f"{shown(row['a_minute'])} ({row['punch']})" for row in rows)
    return f"Punches a minute of one core: {'; '.join(rates)}."


def _clock_errors(rows: Sequence[Row]) -> str:
    windows = list(dict.fromkeys(row["window_s"] for row in rows))
    lines = [
        [*map(str, place), *(f"{row['connected'] / row['punches']:.1%}" for row in group)]
        for place, group in _groups(rows, "unsolicited", "clock_error_sigma_s", "rtt_ms").items()
    ]
    columns = ["NATs", "each clock's error, σ in s", "RTT, ms", *(f"window {window:g} s" for window in windows)]
    return markdown(columns, lines)


def _populations(rows: Sequence[Row]) -> str:
    lines = [
        [
            f"{row['source']} {row['year']}: {row['punchable']:.1%} of {row['of']}",
            f"the rest: {row['assumed_of_the_rest']}; filtering: {row['assumed_filtering']}",
            f"{row['connects']:.1%}",
            f"{row['one_connect_each']:.1%}",
        ]
        for row in rows
    ]
    return markdown(
        ["published: support hole punching", "assumed", "pairs that connect", "with one connect each"], lines
    )


def _against_the_lab(rows: Sequence[Row]) -> str:
    worst = max(abs(row["difference"]) for row in rows if row["difference"] is not None)
    held, same = (sum(row[name] for row in rows) for name in ("holds", "same_verdict"))
    return (
        f"Held against the lab in {len(rows)} cells: the same verdict in {same}, and the later side's time within 10 % "
        f"in {held} (the largest difference is {worst:.1%})."
    )


def _plain(result: Result, fields: Mapping[str, str]) -> str:
    """Those fields of every row, as they are."""
    return markdown(list(fields.values()), [[shown(row[field]) for field in fields] for row in result["rows"]])


def headlines(results: Mapping[str, Result]) -> str:
    """The README's five, as a list. Each says what it was measured against."""
    lines = (line(results[name]) for name, line in _HEADLINES if name in results)
    return "\n".join(f"- {line}" for line in lines)


def _gets_through(result: Result) -> str:
    """Of the lines where there is a way at all: the others are refused before anything is fired."""
    lines = [row for row in result["rows"] if row["table"] == "lines" and row["syns"]]
    connected, tries = (sum(row[name] for row in lines) for name in ("in_time", "n"))
    return f"**Through:** {connected:,} of {tries:,} tries connect in time, wherever two NATs leave a way."


def _one_round_trip(result: Result) -> str:
    times = [row["later_p50_ms"] for row in result["rows"] if row["rtt_ms"] == _USUAL_RTT_MS]
    return (
        f"**Fast:** connected after {shown(min(times))} to {shown(max(times))} ms (medians) where a round trip takes "
        f"{_USUAL_RTT_MS} ms: no program can do it in less than one."
    )


def _on_time(result: Result) -> str:
    idle = {row["method"]: row for row in result["rows"] if (row["loop"], row["load"]) == ("asyncio", "idle")}
    (ours, theirs) = (idle[name]["wire_p50_us"] for name in ("simopen", "sleep + connect"))
    return (
        f"**On time:** the SYN leaves {shown(ours)} µs after the instant, with asyncio's own sleep {shown(theirs)} µs."
    )


def _beside_others(result: Result) -> str:
    shares = (
        f"{rival} {_connected(rows)} in {shown(_usable_ms(rows))} ms"
        for (rival,), rows in _groups(result["rows"], "rival").items()
    )
    return f"**Beside others:** {', '.join(shares)} (medians, until both programs can use the stream)."


def _usable_ms(rows: Sequence[Row]) -> float:
    """The middle one of the cells' medians."""
    times: list[float] = sorted(row["usable_p50_ms"] for row in rows if row["usable_p50_ms"] is not None)
    return times[len(times) // 2]


def _true_time(result: Result) -> str:
    by_method = {row["method"]: row for row in result["rows"]}
    shares = (f"{name} {row['inside']:,} of {row['trials']:,}" for name, row in by_method.items())
    return f"**True time:** inside the bound that was promised, with one time server that lies: {', '.join(shares)}."


def compared(results: Mapping[str, Result]) -> str:
    """What was measured beside others in the same run, as a table; each row says of what."""
    lines = [line for name, rows in _COMPARED if name in results for line in rows(results[name])]
    return markdown(["measured", "simopen", "others"], lines) if lines else ""


def _punches(result: Result) -> Iterable[list[str]]:
    rivals = {rival: rows for (rival,), rows in _groups(result["rows"], "rival").items()}
    yield ["tries that connect", *_one_and_others({rival: _connected(rows) for rival, rows in rivals.items()})]
    times = {rival: f"{shown(_usable_ms(rows))} ms" for rival, rows in rivals.items()}
    yield [
        f"until both programs can use the stream, round trip {result['conditions']['rtt_ms']} ms",
        *_one_and_others(times),
    ]
    costs = {rival: sorted(row["cpu_p50_ms"] for row in rows)[len(rows) // 2] for rival, rows in rivals.items()}
    yield ["processor time of that", *_one_and_others({rival: f"{shown(ms)} ms" for rival, ms in costs.items()})]


def _sent_files(result: Result) -> Iterable[list[str]]:
    what = f"{result['conditions']['mib']} MiB"
    whole = {row["way"]: row["whole_p50_s"] for row in result["rows"] if row["what"] == what}
    ours, theirs = (f"{shown(whole[f'{name} send'])} s" for name in ("simopen", "wormhole"))
    yield [f"a file of {what}, whole commands on one machine", ours, f"magic-wormhole {theirs}"]


def _introduced(result: Result) -> Iterable[list[str]]:
    rates = {row["server"]: row["pairs_a_second"] for row in result["rows"]}
    ours, theirs = (f"{shown(rates[name])} a second" for name in ("simopen", "twisted"))
    yield ["pairs that one rendezvous server introduces", ours, f"magic-wormhole's {theirs}"]


def _one_and_others(told: Mapping[str, str]) -> tuple[str, str]:
    return told["simopen"], ", ".join(f"{_NAMES[rival]} {told[rival]}" for rival in told if rival in _NAMES)


_NAMES = {"loop": "a plain loop", "warpgate": "warpgate", "libp2p": "py-libp2p"}
_COMPARED: tuple[tuple[str, Callable[[Result], Iterable[list[str]]]], ...] = (
    ("peers", _punches),
    ("transfer", _sent_files),
    ("serve", _introduced),
)
SEVERAL: dict[str, Callable[[Mapping[str, Result]], str]] = {"headlines": headlines, "compared": compared}
_USUAL_RTT_MS = 80
_HEADLINES: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("matrix", _gets_through),
    ("establish", _one_round_trip),
    ("precision", _on_time),
    ("peers", _beside_others),
    ("clock", _true_time),
)
RENDERERS: dict[str, Callable[[Result], str]] = {
    "establish": establish,
    "precision": precision,
    "matrix": matrix,
    "matrix_by_code": matrix_by_code,
    "again": again,
    "peers": peers,
    "many": many,
    "serve": serve,
    "nats": nats,
    "meet": meet,
    "session": session,
    "clock": clock,
    "imports": imports,
    "lab_error": lab_error,
    "link": link,
    "http": http,
    "forward": forward,
    "transfer": transfer,
    "homes": homes,
    "simulate": simulate,
}


def rendered(text: str, results: Mapping[str, Result]) -> str:
    """The page with every block made anew. Raises: KeyError for a block that nothing renders."""

    def block(match: re.Match[str]) -> str:
        if several := match["several"]:
            return f"{match['begin']}{SEVERAL[several](results) or _NONE}\n{match['end']}"
        name = match["name"]
        render = RENDERERS[name]
        body = f"{render(results[name])}\n\n*{described(results[name]['conditions'])}.*" if name in results else _NONE
        return f"{match['begin']}{body}\n{match['end']}"

    return _BLOCK.sub(block, text)


_NONE = "Not measured yet."


def outside(text: str) -> str:
    """The text without its measured blocks."""
    return _BLOCK.sub("", text)


def load(directory: Path = RESULTS) -> dict[str, Result]:
    """Every result there is, by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))}


def update(pages: Iterable[Path] = PAGES) -> None:
    """Write the pages anew from the results."""
    results = load()
    for page in pages:
        page.write_text(rendered(page.read_text(encoding="utf-8"), results), encoding="utf-8")


def differing(pages: Iterable[Path] = PAGES) -> list[Path]:
    """The pages that say something else than the results."""
    results = load()
    texts = ((page, page.read_text(encoding="utf-8")) for page in pages)
    return [page for page, text in texts if text != rendered(text, results)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, and fail where they differ")
    if not parser.parse_args().check:
        update()
        return 0
    pages = differing()
    if pages:
        names = " and ".join(str(page.relative_to(ROOT)) for page in pages)
        print(f"{names} and benchmarks/results differ: run `python -m benchmarks.tables`", file=sys.stderr)
    return 1 if pages else 0


if __name__ == "__main__":
    sys.exit(main())
