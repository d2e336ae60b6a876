"""What the benchmarks decide and write, without running any: expectations, figures, tables."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import again, common, matrix, peers, session, stolen, tables
from benchmarks.__main__ import PLAN
from benchmarks.cells import CELLS, KINDS, Cell, among, one_of_each_line
from benchmarks.expected import BARS, Bar, Face, Line, Outlook, expected
from benchmarks.sites import Punch, Syns, syns_between
from simopen.lab import Allocation, Filtering, Mapping, Nat, Origin, Passage, Record, Unsolicited, Verdict
from simopen.lab.nat.model import ALLOCATIONS, FILTERINGS, MAPPINGS
from tests.lab.packets import tcp

HOME = (Nat(),)
ANY_PORT = (Nat(filtering=Filtering.ADDRESS_DEPENDENT),)
ANYBODY = (Nat(filtering=Filtering.ENDPOINT_INDEPENDENT),)
SEQUENTIAL = (Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.SEQUENTIAL),)
NEXT = (Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT),)
RANDOM = (Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM),)
BY_ADDRESS = (Nat(Mapping.ADDRESS_DEPENDENT, Filtering.ADDRESS_DEPENDENT, Allocation.RANDOM),)
OVERLOADING = (replace(NEXT[0], overloading=True),)
FIREWALL = (replace(RANDOM[0], translates=False),)
REFUSING = (Nat(refuses_syns=True),)
HOLDING = (Nat(unsolicited=Unsolicited.HOLD),)
BUSY = (replace(SEQUENTIAL[0], others=0.1),)
STEADY_FOR_AN_ADDRESS = (replace(SEQUENTIAL[0], mapping=Mapping.ADDRESS_DEPENDENT),)

nats = st.lists(
    st.builds(
        Nat,
        mapping=st.sampled_from(MAPPINGS),
        filtering=st.sampled_from(FILTERINGS),
        allocation=st.sampled_from(ALLOCATIONS),
        refuses_syns=st.booleans(),
        translates=st.booleans(),
    ),
    max_size=3,
)


CONNECTS, PREDICTS, SPRAYS, NEVER = Outlook


@pytest.mark.parametrize(
    ("left", "right", "outlook", "line"),
    [
        ((), (), CONNECTS, Line.STEADY),
        (HOME, HOME, CONNECTS, Line.STEADY),
        (HOME, HOME + ANYBODY, CONNECTS, Line.STEADY),
        (HOME, OVERLOADING, CONNECTS, Line.STEADY),  # its port is the host's own
        (HOME, FIREWALL, CONNECTS, Line.STEADY),  # what does not translate does not move
        ((), RANDOM, CONNECTS, Line.CAUGHT),
        (ANY_PORT, RANDOM, CONNECTS, Line.CAUGHT),
        (ANYBODY, SEQUENTIAL, CONNECTS, Line.FORETOLD),
        (HOME, RANDOM, SPRAYS, Line.SPRAYED),
        (HOME, BY_ADDRESS, SPRAYS, Line.SPRAYED),
        (HOME, NEXT, PREDICTS, Line.FORETOLD),
        (FIREWALL, SEQUENTIAL, PREDICTS, Line.FORETOLD),
        (HOME + ANYBODY, RANDOM, SPRAYS, Line.SPRAYED),  # the strictest filtering of a row counts
        (SEQUENTIAL, NEXT, PREDICTS, Line.BOTH_QUIET),
        (SEQUENTIAL, BUSY, PREDICTS, Line.BOTH_BUSY),
        (STEADY_FOR_AN_ADDRESS, RANDOM, SPRAYS, Line.SPRAYED_AT_ONE),
        (BY_ADDRESS, RANDOM, NEVER, Line.REFUSED),
        (BY_ADDRESS, SEQUENTIAL, NEVER, Line.REFUSED),
        (RANDOM, RANDOM, NEVER, Line.REFUSED),
        (SEQUENTIAL, RANDOM, NEVER, Line.REFUSED),
        (SEQUENTIAL, (*NEXT, Nat(allocation=Allocation.RANDOM)), NEVER, Line.REFUSED),  # moved inside is new outside
        (REFUSING, HOME, CONNECTS, Line.AWKWARD),  # the other side's SYN-ACK comes in
        (HOLDING, HOME, CONNECTS, Line.AWKWARD),
        (REFUSING, REFUSING, NEVER, Line.REFUSED),
        ((replace(ANYBODY[0], refuses_syns=True),), RANDOM, SPRAYS, Line.SPRAYED),
    ],
)
def test_what_a_pair_can_expect(left: tuple[Nat, ...], right: tuple[Nat, ...], outlook: Outlook, line: Line) -> None:
    assert expected(left, right)[:2] == (outlook, line)


@given(nats, nats)
def test_both_orders_of_a_pair_expect_the_same(left: list[Nat], right: list[Nat]) -> None:
    assert expected(left, right) == expected(right, left)


@given(nats, nats)
def test_no_nat_at_all_is_never_worse(left: list[Nat], right: list[Nat]) -> None:
    order = list(Outlook)
    assert order.index(expected([], right).outlook) <= order.index(expected(left, right).outlook)


def test_the_cells_meet_every_bar_and_so_do_the_few_of_a_short_run() -> None:
    for some in (CELLS, one_of_each_line()):
        assert {cell.expected.line for cell in some} == set(Line) == set(BARS)
    assert len({frozenset(cell) for cell in CELLS}) == len(CELLS)


def test_a_kind_alone_meets_itself() -> None:
    assert among(["open"]) == [Cell("open", "open")]
    refusing = "EIM/APDF, no SYN in"
    assert set(among(["open", refusing])) == {*among(["open"]), Cell(refusing, "open"), Cell(refusing, "open", 100.0)}


def test_a_mapping_is_what_is_seen_from_outside() -> None:
    said = {kind: Face.of(nats).mapping for kind, nats in KINDS.items()}
    assert (said["open"], said["firewall"], said["APDM overloading"]) == ("none", "none", "endpoint-independent")
    assert (said["ADM/ADF random"], said["APDM/APDF next"]) == ("address-dependent", "address-and-port-dependent")


OPEN, IMPOSSIBLE = Cell("open", "open"), Cell("APDM/APDF random", "APDM/APDF random")


def tried(
    both_ms: float | None = 85.0, refused_ms: float | None = None, sent: int = 1, cell: Cell = OPEN
) -> matrix.Try:
    punch = Punch(("left-0", "right-0"), (("open", "none"),), 0, 1, both_ms, refused_ms, "a plan", None)
    return matrix.Try(cell, punch, (Syns(1, 1), Syns(sent, sent)))


BAR = Bar(0.99, median_rtt=1.6, within_s=1.0, syns=64, syns_per_s=50)


@pytest.mark.parametrize(
    ("tries", "lone", "words"),
    [
        ([tried()] * 20, False, []),
        ([tried()] * 19 + [tried(None)], True, []),  # one in twenty is all that 99 % can be told from
        ([tried()] * 19 + [tried(None)], False, ["19 of 20"]),
        ([tried()] * 18 + [tried(None)] * 2, True, ["18 of 20"]),
        ([tried()] * 199 + [tried(1001.0)], False, []),
        ([tried()] * 197 + [tried(1001.0)] * 3, False, ["197 of 200"]),
        ([tried(129.0)] * 20, False, ["median 1.61 RTT"]),
        ([tried(None)] * 20, True, ["0 of 20", "median inf RTT"]),
        ([tried()] * 19 + [tried(sent=51)], False, ["51 SYNs/s"]),
        ([tried(sent=65)], False, ["65 SYNs", "65 SYNs/s"]),
    ],
)
def test_what_of_a_bar_is_missed(tries: list[matrix.Try], lone: bool, words: list[str]) -> None:
    assert matrix.missed(BAR, tries, 80, lone=lone) == words


def test_a_link_may_take_two_round_trips_more_than_a_bare_stream() -> None:
    by_ticket = [tried(285.0)._replace(more_rtt=matrix.LINK_RTT)]
    assert matrix.missed(BAR, by_ticket, 80, lone=True) == []
    assert any("RTT" in words for words in matrix.missed(BAR, [tried(285.0)], 80, lone=True))


def test_who_meets_by_a_code_fires_together_so_a_pair_is_tried_once() -> None:
    refusing = "EIM/APDF, no SYN in"
    cells = matrix.at_one_instant(among(["open", refusing]))
    assert set(cells) == {*among(["open"]), Cell(refusing, "open")}
    assert len(cells) == 2
    by_code = [each._replace(punch=each.punch._replace(told=())) for each in [tried(), tried(None)]]
    rows = matrix.rows_of(by_code, 80)
    assert [row["table"] for row in rows] == ["lines", "cells"]  # nobody tells the mapping
    assert "1 pairs. Missed" in tables.matrix_by_code({"rows": rows})


def test_where_no_tcp_can_a_refusal_is_what_is_asked_for() -> None:
    refused, hung = tried(None, 20.0, 0, IMPOSSIBLE), tried(None, None, 0, IMPOSSIBLE)
    assert refused.took_ms == 20.0
    assert matrix.missed(BARS[Line.REFUSED], [refused], 80, lone=True) == [
        "1 SYNs",
    ]
    assert "1 of 2" in matrix.missed(BARS[Line.REFUSED], [refused, hung], 80, lone=True)
    assert tried(85.0, None, 0, IMPOSSIBLE).took_ms is None  # what cannot be must not happen either


def test_the_rows_make_the_pages_table_and_the_picture(tmp_path: Path) -> None:
    rows = matrix.rows_of([tried(), tried(None), tried(None, 20.0, 0, IMPOSSIBLE)], 80)
    assert [row["table"] for row in rows] == ["lines", "lines", "profiles", "cells", "cells"]
    assert [row["held"] for row in rows] == [False, False, True, False, False]
    text = tables.matrix({"rows": rows})
    assert "| 1 of 2 | 1.06 | 85 | 1 | 1 | NO |" in text
    assert "Missed: open × open (1 of 2)" in text
    matrix.draw([row for row in rows if row["table"] == "cells"], tmp_path / "map.json")
    assert "refused" in (tmp_path / "map.svg").read_text()


def test_the_cells_of_meetings_in_a_row_make_the_pages_table() -> None:
    met, missed = again.Meeting(81.0, None), again.Meeting(None, "WindowClosed: nothing came")
    cells = {
        ("drop", "drop", "connect", "fin"): [met, again.Meeting(90.0, None)],
        ("drop", "drop", "punch", "rst"): [met, missed],
        ("drop", "accept", "connect", "fin"): [missed],
    }
    rows = [
        again.row_of((left, right), again.Ending(call, end, "both", 0), each)
        for (left, right, call, end), each in cells.items()
    ]
    assert [row["held"] for row in rows] == [True, False, False]
    text = tables.again({"rows": rows})
    assert "| drop | drop | 2 of 2 | 0 of 0 | 0 of 0 | 1 of 2 | 85.5 / 90 |" in text
    assert "| drop | accept | 0 of 1 | 0 of 0 | 0 of 0 | 0 of 0 | – / – |" in text
    assert "3 cells. Missed: drop × accept: WindowClosed: nothing came; drop × drop: WindowClosed" in text
    assert "Every meeting came about." in tables.again({"rows": rows[:1]})


def told(step: str, method: str, number: int) -> dict[str, object]:
    return {"step": step, "method": method, "number": number, "at_ns": 0}


def test_what_became_of_requests_over_a_session() -> None:
    asked = [told("heard", "GET", 0), told("heard", "POST", 1), told("heard", "GET", 2), told("failed", "POST", 3)]
    served = [told("heard", method, number) for method, number in (("GET", 0), ("POST", 1), *2 * [("GET", 2)])]
    up = {"step": "session up", "at_ns": 0}
    gets, posts = session.counted([up, *asked], [up, *served, told("heard", "GET", 4)])
    assert gets == {"method": "GET", "n": 2, "answered": 2, "told_as_error": 0, "served_again": 1, "held": True}
    assert posts == {"method": "POST", "n": 2, "answered": 1, "told_as_error": 1, "served_again": 0, "held": True}
    text = tables.session({"rows": [{"table": "requests", **gets}, {"table": "requests", **posts}]})
    assert "| POST | 2 | 1 | 1 | 0 | yes |" in text


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ([told("failed", "GET", 0)], []),  # lost, and might have been repeated
        ([told("heard", "POST", 1)], []),  # answered by nobody
        ([told("heard", "POST", 1)], 2 * [told("heard", "POST", 1)]),
        ([told("failed", "POST", 1)], 2 * [told("heard", "POST", 1)]),
    ],
)
def test_a_request_that_is_lost_or_done_twice_is_seen(
    asked: list[dict[str, object]], served: list[dict[str, object]]
) -> None:
    assert not all(row["held"] for row in session.counted(asked, served))


SYNS_MS = [0, 900, 950, 1000, 1050, 1899, 1900, 2500]


@pytest.mark.parametrize(
    ("begun_ms", "ended_ms", "syns"),
    [(0, 3000, Syns(8, 5)), (0, 999, Syns(3, 3)), (1000, 1999, Syns(4, 4)), (2600, 3000, Syns(0, 0))],
)
def test_the_busiest_second_is_found_wherever_it_begins(begun_ms: int, ended_ms: int, syns: Syns) -> None:
    assert syns_between([each * MS for each in SYNS_MS], begun_ms * MS, ended_ms * MS) == syns


def test_a_table_says_no_where_something_does_not_hold() -> None:
    assert [common.shown(value) for value in (None, True, False, 3, 1092.4, 81.31, 0.0441, "x")] == [
        "",
        "yes",
        "NO",
        "3",
        "1,092",
        "81.3",
        "0.0441",
        "x",
    ]


def test_a_shape_of_nothing_is_nothing() -> None:
    assert common.shape([], "up", "ms") == {"up_p50_ms": None, "up_p99_ms": None}
    assert common.shape([3.0, 1.0, 2.0], "up", "ms") == {"up_p50_ms": 2.0, "up_p99_ms": 3.0}


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    given = common.conditions(runs=3)
    rows: list[common.Row] = [{"loop": "asyncio", "late_ms": None}, {"loop": "µ", "late_ms": 1.5}]
    common.save(str(tmp_path / "new" / "many.json"), "many", given, rows)
    assert tables.load(tmp_path / "new") == {"many": {"benchmark": "many", "conditions": given, "rows": rows}}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["many.json"]


def test_what_is_measured_says_how_much_time_was_stolen_meanwhile(capsys: pytest.CaptureFixture[str]) -> None:
    with common.measuring(runs=3) as given:
        pass
    assert given["runs"] == 3
    share = given["stolen_percent"]
    assert share is None or 0 <= share <= 100
    assert capsys.readouterr().out.splitlines()[1:] == [stolen.in_words(share)]
    assert f", {stolen.in_words(share)}; runs 3" in common.described(given)


STAT = "cpu  {user} 0 8000 110000 300 0 100 {steal} 50 0\ncpu0 1 0 1 1 1 0 1 1 0 0\nintr 1\n"


@pytest.mark.parametrize(
    ("before", "after", "percent", "words"),
    [
        ((20_000, 30), (21_993, 37), 0.35, "0.35 % stolen"),
        ((20_000, 30), (21_990, 40), 0.5, "0.5 % stolen"),
        ((20_000, 30), (21_989, 41), 0.55, "0.55 % stolen: tails say nothing"),
        ((20_000, 30), (21_938, 92), 3.1, "3.1 % stolen: tails say nothing"),
        ((20_000, 30), (21_000, 1030), 50.0, "50 % stolen: tails say nothing"),
        ((20_000, 30), (21_000, 20), 0.0, "0 % stolen"),
        ((20_000, 30), (20_000, 30), None, "stolen time unknown"),
    ],
)
def test_the_share_of_all_cores_ticks(
    tmp_path: Path, before: tuple[int, int], after: tuple[int, int], percent: float | None, words: str
) -> None:
    counts = []
    for number, (user, steal) in enumerate((before, after)):
        path = tmp_path / str(number)
        path.write_text(STAT.format(user=user, steal=steal))
        counts.append(stolen.ticks(path))
    assert all(counts)
    assert stolen.percent_between(*counts) == percent
    assert stolen.in_words(percent) == words


@pytest.mark.parametrize("text", [None, "", "cpu", "cpu 1 2 3 4", "cpu 1 2 3 4 5 6 7 x", "intr 1 2 3 4 5 6 7 8"])
def test_where_nobody_counts_stolen_time_it_is_unknown(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "stat"
    if text is not None:
        path.write_text(text)
    assert stolen.ticks(path) is None
    assert stolen.percent_between(None, stolen.Ticks(1, 2)) is None


def test_a_table_of_a_run_with_stolen_time_is_marked() -> None:
    result = imports_result(21.7)
    result["conditions"] = common.conditions(runs=5) | {"stolen_percent": 3.1}
    assert "3.1 % stolen: tails say nothing" in tables.rendered(BLOCK.format(""), {"imports": result})
    assert "stolen time unknown" in tables.rendered(BLOCK.format(""), {"imports": imports_result(21.7)})


def test_a_short_run_makes_no_environment() -> None:
    assert "--here" in PLAN["peers"][1].split()
    assert "--here" not in PLAN["peers"][0].split()


def test_who_needs_an_environment_of_its_own_is_left_out_and_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert peers.without_environments(list(peers.RIVALS)) == ["simopen", "connect", "loop"]
    assert "without warpgate and libp2p" in capsys.readouterr().out
    assert peers.without_environments(["loop"]) == ["loop"]
    assert capsys.readouterr().out == ""


def imports_result(median_ms: float) -> dict[str, object]:
    row = {"import": "simopen", "took_p50_ms": median_ms, "took_p99_ms": 30.0, "net_ms": 10.0}
    return {"benchmark": "imports", "conditions": common.conditions(runs=5), "rows": [row]}


SYN, SYN_ACK, RST_ACK, ACK = 0x02, 0x12, 0x14, 0x10
MS = 1_000_000
ENDS = {"left": ("198.51.100.1", 2000), "right": ("203.0.113.1", 2000)}


def passage(source: str, flags: int, sent_ms: float, seq: int = 0, ack: int = 0) -> Passage:
    """Delivered 40 ms after it was sent."""
    destination = "right" if source == "left" else "left"
    data = tcp(ENDS[source], ENDS[destination], flags, seq=seq, ack=ack)
    times = round(sent_ms * MS), round((sent_ms + 40) * MS)
    return Passage(source, destination, Origin.HOST, Verdict.DELIVERED, *times, data, data)


def tcp_ms(passages: list[Passage], usable_ms: float | None = 90.0) -> float | None:
    answers = ({"established_ns": 90 * MS}, {"established_ns": 90 * MS})
    run = peers.Run(usable_ms, answers, 2000, later_ns=0)
    return peers.tcp_ms(run, ["left", "right"], peers.segments(Record(passages)))


CROSSING = [
    passage("left", SYN, 0, seq=100),
    passage("right", SYN, 1, seq=900),
    passage("left", SYN_ACK, 41, seq=100, ack=901),
    passage("right", SYN_ACK, 41, seq=900, ack=101),
]


def test_a_stream_is_up_when_both_have_the_acknowledgement_of_their_syn() -> None:
    assert tcp_ms(CROSSING) == 81.0


def test_a_refused_syn_is_not_the_one_the_stream_began_with() -> None:
    refused = [passage("left", SYN, -50, seq=50), passage("right", RST_ACK, -10, ack=51)]
    assert tcp_ms([*refused, *CROSSING]) == 81.0


def test_a_stream_by_accept_is_up_with_the_third_segment() -> None:
    syn, syn_ack = passage("left", SYN, 0, seq=100), passage("right", SYN_ACK, 40, seq=900, ack=101)
    assert tcp_ms([syn, syn_ack, passage("left", ACK, 80, seq=101, ack=901)]) == 120.0


def test_what_did_not_connect_has_no_time() -> None:
    assert tcp_ms(CROSSING, usable_ms=None) is None
    assert tcp_ms(CROSSING[:3]) is None


BLOCK = "before\n<!-- begin: measured imports -->\n{}<!-- end -->\nafter\n"


def test_a_block_is_made_from_its_result_and_nothing_else_changes() -> None:
    text = tables.rendered(BLOCK.format("old figures\n"), {"imports": imports_result(21.7)})
    assert "| simopen | 21.7 | 30 | 10 |" in text
    assert "runs 5" in text
    assert "old figures" not in text
    assert text.startswith("before\n<!-- begin: measured imports -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert tables.rendered(text, {"imports": imports_result(21.7)}) == text
    assert tables.rendered(text, {"imports": imports_result(21.8)}) != text


def test_the_figures_beside_others_are_of_the_results_there_are() -> None:
    block = "<!-- begin: compared -->\n{}<!-- end -->\n"
    rows = [
        {"server": "simopen", "pairs_a_second": 566.1},
        {"server": "simopen, TLS", "pairs_a_second": 190.0},
        {"server": "twisted", "pairs_a_second": 254.0},
    ]
    text = tables.rendered(block.format("old\n"), {"serve": {"rows": rows}})
    assert text.splitlines()[1:-1] == [
        "| measured | simopen | others |",
        "| --- | --- | --- |",
        "| pairs that one rendezvous server introduces | 566 a second | magic-wormhole's 254 a second |",
    ]
    assert tables.rendered(block.format("old\n"), {}) == block.format("Not measured yet.\n")


def test_a_block_without_a_result_says_so() -> None:
    assert tables.rendered(BLOCK.format("12 ms\n"), {}) == BLOCK.format("Not measured yet.\n")


def test_a_block_that_nothing_renders_is_an_error() -> None:
    with pytest.raises(KeyError, match="nosuch"):
        tables.rendered(BLOCK.format("").replace("imports", "nosuch"), {})


def test_every_benchmark_has_its_table() -> None:
    blocks = re.findall(r"<!-- begin: measured (\w+) -->", tables.MEASURED.read_text(encoding="utf-8"))
    assert set(blocks) == set(tables.RENDERERS) == set(PLAN)


@pytest.mark.parametrize("path", sorted(tables.RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_result_says_what_it_depends_on(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["benchmark"] == path.stem
    assert result["rows"]
    assert {"machine", "system", "python", "uvloop", "date", "load"} <= set(result["conditions"])
