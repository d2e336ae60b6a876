"""The pages' fenced blocks: what each says, and how it is run.

A block of `console` or `python` has a comment before it that names its way, one of `test_pages.WAYS`: for example
`<!-- run: here -->`. No reader sees that comment, neither on a forge nor in what Sphinx makes. Whatever else a block
holds (`text`, a toctree) is shown and never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("CONTRIBUTING.md"), *ROOT.glob("docs/*.md")])
RUN = {"console", "python"}
_FENCE = re.compile(
    r"(?:^<!-- run: (?P<way>[^>\n]+) -->\n)?^```(?P<language>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_PROMPT = re.compile(r"^(?P<who>\w*)\$ (?P<words>(?:[^\n]*\\\n)*[^\n]*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Command:
    """What is typed at a prompt; `who` types it, "" where there is one host only."""

    who: str
    words: str


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `way` is how it is run, "" where nothing says so; `file` is what else that comment says."""

    page: Path
    line: int
    language: str
    text: str
    way: str
    file: str

    @property
    def name(self) -> str:
        """Where it stands."""
        return f"{self.page.name}:{self.line}"

    @property
    def commands(self) -> list[Command]:
        """What stands after its prompts; the lines in between are what comes back."""
        return [Command(found["who"], found["words"].replace("\\\n", "")) for found in _PROMPT.finditer(self.text)]


def blocks_of(page: Path) -> Iterator[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        way, _, file = (found["way"] or "").partition(":")
        line = text.count("\n", 0, found.start("language")) + 1
        yield Block(page, line, found["language"], found["text"], way.strip(), file.strip())


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def run_by(*ways: str) -> list[Block]:
    """The blocks that are run that way; of those that say the same on several pages, the first."""
    found: dict[tuple[str, str, str], Block] = {}
    for block in BLOCKS:
        if block.way in ways:
            found.setdefault((block.way, block.file, block.text), block)
    return list(found.values())


def commands_by(way: str) -> dict[str, str]:
    """What is typed in blocks that are run that way, each once, and where it stands first."""
    found: dict[str, str] = {}
    for block in run_by(way):
        for each in block.commands:
            found.setdefault(each.words, block.name)
    return found
