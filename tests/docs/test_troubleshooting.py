"""The page on what went wrong has all that can go wrong, in the program's own words."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

import simopen
from simopen import Cause
from simopen.cli.doctor_checks import Check
from simopen.errors import Flaw
from simopen.holepunch import diagnosis, plan, strategies
from simopen.model.proof import Reason
from tests.docs import said

TEXT = said.PAGE.read_text(encoding="utf-8")
ERRORS = sorted(name for name in simopen.__all__ if isinstance(getattr(simopen, name), type))
# Words of a reason why two NATs cannot be joined, shorter than which they are no sentence.
LONG = 20


def test_its_words_are_the_programs() -> None:
    assert said.rendered(TEXT) == TEXT, "run `python -m tests.docs.said`"


def test_each_case_of_a_diagnosis_is_among_them() -> None:
    first = [next(case for case in diagnosis._CASES if case.applies(made)) for made in said.REPORTS]
    assert first == list(diagnosis._CASES)
    assert {alone.cause for alone, *_ in said.said()} == set(Cause)


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_has_its_section_with_cause_and_cure(cause: Cause) -> None:
    _, heading, section = TEXT.partition(f"\n### {cause}\n")
    section = re.split(r"\n##+ ", section)[0]
    assert heading
    assert f"<!-- begin: said {cause} -->" in section
    assert "**Why.**" in section
    assert "**What to do.**" in section


@pytest.mark.parametrize("flaw", Flaw)
def test_each_flaw_of_a_ticket_is_there(flaw: Flaw) -> None:
    assert f"the ticket is {flaw.value}" in TEXT


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_why_a_stream_is_no_link_is_there(reason: Reason) -> None:
    assert f"| {reason.value} |" in TEXT


@pytest.mark.parametrize("name", [name for name in ERRORS if issubclass(getattr(simopen, name), Exception)])
def test_each_error_is_there(name: str) -> None:
    assert f"`{name}`" in TEXT


@pytest.mark.parametrize("check", Check)
def test_each_check_of_the_doctors_is_there(check: Check) -> None:
    assert f"| {check} |" in TEXT


def test_each_reason_why_two_nats_cannot_be_joined_is_there() -> None:
    reasons = [words for call in _calls("impossible") for words in _constants(call)]
    reasons += strategies._HOPELESS.values()
    assert len(reasons) >= 6
    missing = [reason for reason in reasons if reason not in TEXT]
    assert not missing


def _calls(name: str) -> list[ast.Call]:
    nodes = [node for module in (plan, strategies) for node in ast.walk(ast.parse(inspect.getsource(module)))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == name]


def _constants(call: ast.Call) -> list[str]:
    """The words of its first argument, without what is filled in."""
    values = [node.value for node in ast.walk(call.args[0]) if isinstance(node, ast.Constant)]
    return [value.strip() for value in values if isinstance(value, str) and len(value) > LONG]
