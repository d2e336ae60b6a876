"""What the README shows is what there is: its commands parse, its Python compiles and names what exists."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import simopen
from benchmarks import readme
from simopen import lab
from simopen.cli import _parser
from tests.archives import LINK, check_page

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(?:\w*\$\s+)(simopen .*)$", README, re.MULTILINE)
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
NAMES = {"simopen": simopen, "lab": lab}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_parse(command: str) -> None:
    assert _parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("block", BLOCKS)
def test_the_python_names_what_exists(block: str) -> None:
    tree = compile(block, "README.md", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    for node in used:
        assert isinstance(node.value, ast.Name)
        if node.value.id in NAMES:
            assert hasattr(NAMES[node.value.id], node.attr)


def test_there_are_commands_and_blocks() -> None:
    assert len(COMMANDS) >= 3
    assert len(BLOCKS) >= 2
    assert set(re.findall(r"^\$ make (\w+)", README, re.MULTILINE)) == {"demo", "test", "lint", "bench"}


def test_the_measured_tables_are_what_the_results_say() -> None:
    assert readme.rendered(README, readme.load()) == README, "run `python -m benchmarks.readme`"


def test_no_measured_figure_is_typed() -> None:
    measured = readme.outside(README).partition("## Measured")[2].partition("\n## ")[0]
    prose = re.sub(r"`[^`]*`|\([^)]*\)|RFC \d+|libp2p", "", measured)
    assert measured
    assert not re.findall(r"\d+", prose)


def test_what_is_linked_to_here_exists() -> None:
    relative = [target for target in LINK.findall(README) if not target.startswith("https://")]
    assert relative
    assert all((ROOT / target).exists() for target in relative)


def test_an_index_page_made_of_it_has_no_link_that_leads_nowhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    page = README
    for each in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        page = re.sub(each["pattern"], each["replacement"], page)
    check_page(page)
    assert "`examples/love.py`" in page
    assert len(LINK.findall(page)) == len(re.findall(r"\]\(https://", README))
    assert all(url.startswith("https://") for url in project["project"]["urls"].values())
