"""What the benchmarks decide and write, without running any: expectations, figures, tables."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import common, matrix, readme
from benchmarks.__main__ import PLAN
from benchmarks.expected import Outlook, expected
from simopen.lab import Allocation, Filtering, Mapping, Nat

ROOT = Path(__file__).parents[1]
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

nats = st.lists(
    st.builds(
        Nat,
        mapping=st.sampled_from(Mapping),
        filtering=st.sampled_from(Filtering),
        allocation=st.sampled_from(Allocation),
        refuses_syns=st.booleans(),
        translates=st.booleans(),
    ),
    max_size=3,
)


@pytest.mark.parametrize(
    ("left", "right", "outlook"),
    [
        ((), (), Outlook.CONNECTS),
        (HOME, HOME, Outlook.CONNECTS),
        (HOME, HOME + ANYBODY, Outlook.CONNECTS),
        (HOME, OVERLOADING, Outlook.CONNECTS),  # its port is the host's own
        (HOME, FIREWALL, Outlook.CONNECTS),  # what does not translate does not move
        ((), RANDOM, Outlook.CONNECTS),
        (ANY_PORT, RANDOM, Outlook.CONNECTS),
        (ANYBODY, SEQUENTIAL, Outlook.CONNECTS),
        (HOME, RANDOM, Outlook.WAITS),
        (HOME, NEXT, Outlook.WAITS),
        (FIREWALL, SEQUENTIAL, Outlook.WAITS),
        (HOME + ANYBODY, RANDOM, Outlook.WAITS),  # the strictest filtering of a row counts
        (SEQUENTIAL, NEXT, Outlook.WAITS),
        (BY_ADDRESS, RANDOM, Outlook.WAITS),
        (RANDOM, RANDOM, Outlook.NEVER),
        (SEQUENTIAL, RANDOM, Outlook.NEVER),
        (SEQUENTIAL, (*NEXT, Nat(allocation=Allocation.RANDOM)), Outlook.NEVER),  # what moves inside is new outside
        (REFUSING, HOME, Outlook.CONNECTS),  # the other side's SYN-ACK comes in
        (REFUSING, REFUSING, Outlook.NEVER),
        ((replace(ANYBODY[0], refuses_syns=True),), RANDOM, Outlook.WAITS),
    ],
)
def test_what_a_pair_can_expect(left: tuple[Nat, ...], right: tuple[Nat, ...], outlook: Outlook) -> None:
    assert expected(left, right).outlook is outlook


@given(nats, nats)
def test_both_orders_of_a_pair_expect_the_same(left: list[Nat], right: list[Nat]) -> None:
    assert expected(left, right) == expected(right, left)


@given(nats, nats)
def test_no_nat_at_all_is_never_worse(left: list[Nat], right: list[Nat]) -> None:
    order = list(Outlook)
    assert order.index(expected([], right).outlook) <= order.index(expected(left, right).outlook)


def test_the_matrix_has_every_outlook() -> None:
    outlooks = {expected(left, right).outlook for left, right in product(matrix.KINDS.values(), repeat=2)}
    assert outlooks == set(Outlook)


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
    assert readme.load(tmp_path / "new") == {"many": {"benchmark": "many", "conditions": given, "rows": rows}}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["many.json"]


def imports_result(median_ms: float) -> dict[str, object]:
    row = {"import": "simopen", "took_p50_ms": median_ms, "took_p99_ms": 30.0, "net_ms": 10.0}
    return {"benchmark": "imports", "conditions": common.conditions(runs=5), "rows": [row]}


BLOCK = "before\n<!-- begin: measured imports -->\n{}<!-- end -->\nafter\n"


def test_a_block_is_made_from_its_result_and_nothing_else_changes() -> None:
    text = readme.rendered(BLOCK.format("old figures\n"), {"imports": imports_result(21.7)})
    assert "| simopen | 21.7 | 30 | 10 |" in text
    assert "runs 5" in text
    assert "old figures" not in text
    assert text.startswith("before\n<!-- begin: measured imports -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert readme.rendered(text, {"imports": imports_result(21.7)}) == text
    assert readme.rendered(text, {"imports": imports_result(21.8)}) != text


def test_a_block_without_a_result_says_so() -> None:
    assert readme.rendered(BLOCK.format("12 ms\n"), {}) == BLOCK.format("Not measured yet.\n")


def test_a_block_that_nothing_renders_is_an_error() -> None:
    with pytest.raises(KeyError, match="nosuch"):
        readme.rendered(BLOCK.format("").replace("imports", "nosuch"), {})


def test_every_benchmark_has_its_table_in_the_readme() -> None:
    blocks = re.findall(r"<!-- begin: measured (\w+) -->", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(blocks) == set(readme.RENDERERS) == set(PLAN)


@pytest.mark.parametrize("path", sorted(readme.RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_result_says_what_it_depends_on(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["benchmark"] == path.stem
    assert result["rows"]
    assert {"machine", "system", "python", "uvloop", "date", "load"} <= set(result["conditions"])
