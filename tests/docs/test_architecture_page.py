"""What the pages say of the code's shape is computed from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import simopen
from tests.docs import rooms
from tests.docs.blocks import PAGES, ROOT

API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
_MODULE = re.compile(r"`((?:[a-z_]+/)+[a-z_]+\.py)`")


@pytest.mark.parametrize("path", [rooms.PICTURE, *rooms.PAGES], ids=lambda path: path.name)
def test_rooms_and_imports_are_as_the_code_has_them(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == rooms.files()[path], "run `python -m tests.docs.rooms`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_module_that_a_page_names_is_there(page: Path) -> None:
    named = set(_MODULE.findall(page.read_text(encoding="utf-8")))
    assert not {name for name in named if not ((ROOT / name).exists() or (ROOT / "simopen" / name).exists())}


def test_the_api_has_every_public_name() -> None:
    assert set(re.findall(r":: simopen\.(\w+)$", API, re.MULTILINE)) - {"errors", "lab"} == set(simopen.__all__)
