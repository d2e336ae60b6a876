"""The rooms of the house and who imports whom, for the pages: `python -m tests.docs.rooms [--check]`.

The table between `<!-- begin: rooms -->` and `<!-- end -->` is each package's own first sentence; docs/rooms.svg has a
dot where a room imports another. Both are computed from the code, as the test of the order of the rooms is.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from tests.docs.blocks import ROOT
from tests.test_architecture import FILES, LAB_ROOMS, ROOMS, ours

PAGES = (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md")
PICTURE = ROOT / "docs" / "rooms.svg"
# `simopen` is the public names, which every program imports; the two with an underscore are plumbing.
SHOWN = tuple(room for room in ROOMS if not room.startswith("_") and room != "simopen")
_BLOCK = re.compile(r"(?P<begin><!-- begin: rooms -->\n).*?(?P<end><!-- end -->)", re.DOTALL)
_CELL, _LEFT, _TOP = 30, 130, 120


def sentence_of(module: str) -> str:
    """The first sentence of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(FILES[module].read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split()).rstrip(".:")


def table() -> str:
    """Every room in a line, and the lab's own below it."""
    rows = [f"| {_path(room)} | {sentence_of(room)} |" for room in _listed()]
    return "\n".join(["| where | what |", "| --- | --- |", *rows])


def _listed() -> Iterator[str]:
    for room in SHOWN:
        yield room
        if room == "lab":
            yield from (f"lab.{each}" for each in LAB_ROOMS if f"lab.{each}" in _packages())


def _packages() -> set[str]:
    return {name for name, path in FILES.items() if path.name == "__init__.py"}


def _path(room: str) -> str:
    return f"`{room.replace('.', '/')}{'/' if room in _packages() else '.py'}`"


def imported_by(room: str) -> set[str]:
    """The other rooms that a room's files import."""
    files = [name for name in FILES if name.partition(".")[0] == room]
    return {each.partition(".")[0] for name in files for each in ours(name)} - {room}


def picture() -> str:
    """A row and a column for each room, a dot where the row imports the column: as SVG."""
    side = len(SHOWN) * _CELL
    width, height = _LEFT + side + 20, _TOP + side + 20
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"',
            '  font-family="sans-serif" font-size="14" role="img">',
            "<title>Which room imports which</title>",
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            *_drawn(),
            "</svg>\n",
        ]
    )


def _drawn() -> Iterator[str]:
    for row, room in enumerate(SHOWN):
        x, y = _LEFT + row * _CELL, _TOP + row * _CELL
        middle = y + _CELL / 2
        yield f'<rect x="{x}" y="{y}" width="{_CELL}" height="{_CELL}" fill="#dde3ea"/>'
        yield f'<text x="{_LEFT - 10}" y="{middle + 5:g}" text-anchor="end">{escape(room)}</text>'
        yield f'<text transform="translate({x + 20:g} {_TOP - 8}) rotate(-60)">{escape(room)}</text>'
        yield f'<line x1="{_LEFT}" y1="{y}" x2="{x + _CELL}" y2="{y}" stroke="#ccc"/>'
        for column, other in enumerate(SHOWN):
            if other in imported_by(room):
                yield f'<circle cx="{_LEFT + column * _CELL + _CELL / 2:g}" cy="{middle:g}" r="7" fill="#225588"/>'


def rendered(text: str) -> str:
    """The page with its table made anew."""
    return _BLOCK.sub(lambda found: f"{found['begin']}{table()}\n{found['end']}", text)


def files() -> dict[Path, str]:
    """What each file should hold."""
    return {PICTURE: picture()} | {page: rendered(page.read_text(encoding="utf-8")) for page in PAGES}


def main(*options: str) -> int:
    made = files()
    if options != ("--check",):
        for path, text in made.items():
            path.write_text(text, encoding="utf-8")
        return 0
    return int(any(path.read_text(encoding="utf-8") != text for path, text in made.items()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
