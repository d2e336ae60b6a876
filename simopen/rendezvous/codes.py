"""Codes: a room's number and some words, `7-croissant-zucchini`; how they are made, read and completed.

Theory of operation: the number says in which room the two meet, and the rendezvous sees it; the words are the secret,
and go through a PAKE (`pake`). They are of the EFF's short list 2: each is known by its first three letters, so these
are enough. Two people may agree on other words, too: those count as they are typed. What people make of a code on its
way (capitals, spaces, long dashes, wide digits) is undone.

Pure, but for the list, which is read once from the file beside this one.
"""

from __future__ import annotations

import functools
import re
import secrets
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simopen.errors import CodeError
from simopen.model.wording import quoted

WORDS = 2
"""With one guess a code, an attacker is right once in 1,679,616 times (20.7 bits)."""
MOST_WORDS = 24
"""248 bits: more adds nothing to a key of 256."""
LONGEST = 400
"""Characters of a text that are looked at."""
_LIST = Path(__file__).with_name("eff_short_wordlist_2.txt")
_LEAST_LETTERS = 3
_MOST_DIGITS = 12
_APART = re.compile(r"[\s\-_.,;:/+]+")
_NUMBER = re.compile(rf"[0-9]{{1,{_MOST_DIGITS}}}")


@dataclass(frozen=True, slots=True)
class Code:
    """`room`: its number, as text; `words`: the secret, in no repr. `str` gives the whole code."""

    room: str
    words: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        return "-".join((self.room, *self.words))

    @property
    def secret(self) -> bytes:
        """What the PAKE is given."""
        return "-".join(self.words).encode()


@functools.cache
def words() -> tuple[str, ...]:
    """The list, 1,296 words in alphabetical order."""
    return tuple(line for line in _LIST.read_text(encoding="ascii").split("\n") if line and not line.startswith("#"))


def check_count(count: object) -> int:
    """The number of words. Raises: TypeError; ValueError for what is not 1 to 24."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"the number of words must be an int, not {type(count).__name__}")
    if not 1 <= count <= MOST_WORDS:
        raise ValueError(f"a code has 1 to {MOST_WORDS} words, not {quoted(count)}")
    return count


def new_code(room: str, count: int = WORDS, choice: Callable[[Sequence[str]], str] = secrets.choice) -> Code:
    """A code for that room, of this system's random numbers."""
    return Code(room, tuple(choice(words()) for _ in range(check_count(count))))


def parse_code(text: str) -> Code:
    """The code in a text, whatever was made of it on its way.

    Raises: TypeError for what is no string; CodeError for what is no code. Nothing has been sent then.
    """
    number, *typed = parts(text)
    if not _NUMBER.fullmatch(number):
        raise CodeError(
            f"a code begins with a number, as in 7-croissant-zucchini, and {quoted(number)} is none: "
            f"type all of what your peer's command shows"
        )
    if not typed:
        raise CodeError(f"only a number is given ({number}); its words are missing, as in {number}-croissant-zucchini")
    if len(typed) > MOST_WORDS:
        raise CodeError(f"a code has at most {MOST_WORDS} words, and there are {len(typed)}")
    return Code(str(int(number)), tuple(_word(each) for each in typed))


def parts(text: object) -> list[str]:
    """Number and words as they were typed, in small letters. Raises: TypeError; CodeError where there is nothing."""
    if not isinstance(text, str):
        raise TypeError(f"a code is a string, not {type(text).__name__}")
    plain = _plain(text[:LONGEST])
    found = [each for each in _APART.split(plain) if each]
    if not found:
        raise CodeError("there is no code: it looks like 7-croissant-zucchini")
    if (glued := re.fullmatch(r"([0-9]+)([a-z]+)", found[0])) is not None:
        found[:1] = glued.groups()
    return _rejoined(found)


def _plain(text: str) -> str:
    """Small letters and plain hyphens, without what cannot be seen, and without quotes around it."""
    seen = []
    for each in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(each)
        if category in {"Pd", "Cc"} or each == "−":  # a minus is no dash to Unicode
            seen.append("-")
        elif category not in {"Cf", "Pi", "Pf"} and each not in "\"'`<>()[]{}*":
            seen.append(each)
    return "".join(seen).casefold()


def _rejoined(found: list[str]) -> list[str]:
    """ "yo-yo" is one word, whose hyphen the list here leaves out."""
    joined: list[str] = []
    for each in found:
        if joined and joined[-1] == each == "yo":
            joined[-1] = "yoyo"
        else:
            joined.append(each)
    return joined


def _word(typed: str) -> str:
    if not typed.isalnum() or len(typed) < _LEAST_LETTERS:
        raise CodeError(f"{quoted(typed)} is no word of a code: type at least {_LEAST_LETTERS} letters of each word")
    fitting = completions(typed)
    return fitting[0] if len(fitting) == 1 else typed


def unlisted(code: Code) -> tuple[tuple[str, str | None], ...]:
    """The words that no command has made, and of each the one that may be meant: it begins with the same letters."""
    wrong = [each for each in code.words if each not in completions(each)]
    return tuple((each, next(iter(completions(each[:_LEAST_LETTERS])), None)) for each in wrong)


def completions(begun: str) -> tuple[str, ...]:
    """All words of the list that begin so, in alphabetical order; an empty beginning is that of them all."""
    listed = words()
    first = bisect_left(listed, begun)
    last = bisect_left(listed, begun + "\x7f")
    return listed[first:last]


def completed(typed: str) -> tuple[str, ...]:
    """What a code begun so may go on as, for a shell or a prompt: the text with its last word completed.

    Nothing for the number, which only the peer knows, nor for what no word begins with.
    """
    head, hyphen, begun = typed.casefold().rpartition("-")
    if not hyphen or not _NUMBER.fullmatch(head.partition("-")[0]):
        return ()
    return tuple(f"{head}-{word}" for word in completions(begun))
