"""The README is short, its figures are those of the results, and an index page can be made of it."""

from __future__ import annotations

import re
import tomllib

from benchmarks import tables
from tests.archives import LINK, check_page
from tests.docs.blocks import ROOT

README = tables.README.read_text(encoding="utf-8")
MEASURED = tables.MEASURED.read_text(encoding="utf-8")
MOST_WORDS = 1_200


def test_it_can_be_read_in_one_sitting() -> None:
    assert len(README.split()) <= MOST_WORDS


def test_the_measured_tables_are_what_the_results_say() -> None:
    assert not tables.differing(), "run `python -m benchmarks.tables`"


def test_the_readme_has_a_headline_of_each_of_five_results() -> None:
    found = re.findall(r"<!-- begin: headlines -->\n(.*?)\n<!-- end -->", README, re.DOTALL)
    assert [len(text.splitlines()) for text in found] == [5]


def test_no_measured_figure_is_typed() -> None:
    prose = re.sub(r"`[^`]*`|\([^)]*\)|RFC \d+|libp2p", "", tables.outside(MEASURED))
    assert prose
    assert not re.findall(r"\d+", prose)


def test_an_index_page_made_of_it_has_no_link_that_leads_nowhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    page = README
    for each in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        page = re.sub(each["pattern"], each["replacement"], page)
    check_page(page)
    assert "`examples/love.py`" in page
    assert len(LINK.findall(page)) == len(re.findall(r"\]\(https://", README))
    assert all(url.startswith("https://") for url in project["project"]["urls"].values())
