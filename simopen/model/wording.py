"""What others said, cut to what a person reads: an error, a note and a diagnosis fit a screen, whoever made the words.

Theory of operation. Pure: texts in, a text out. How many servers, addresses, ports and reasons there are, and how long
each is, is often for others to choose: a name may have 4,000 addresses, one server may answer from as many ports. So
whatever lists such things lists them here: each once, the first few of them, and how many more there are.

A text that a person pasted, or a server sent, may also hold escape sequences, C1 controls, or marks that turn the
direction of writing: what repeats it quotes it here, so that it acts on no terminal.
"""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 2_000
"""Characters of an error's whole message: 25 lines of 80 columns."""
LONGEST_EACH = 200
"""Characters of one thing in a list: a sentence that names a host, of 253 characters at most, and says what it did."""
MOST = 8
"""Things in a list: more than a command asks unless told otherwise, and 8 of the longest are below `LONGEST`."""
FEW = 4
"""Endpoints in a sentence that says more than who they are."""
LONGEST_QUOTED = 120
"""Characters of what somebody typed or sent: all of any sensible address, and the beginning of the rest."""
_CUT = " ..."
_LONGEST_BITS = 997  # of 10^300; Python itself writes no int of more than 4,300 digits


def shortened(text: str, longest: int = LONGEST_EACH) -> str:
    """The text, or its beginning and `...`, in `longest` characters at most."""
    return text if len(text) <= longest else text[: longest - len(_CUT)] + _CUT


def first_few(texts: Iterable[object], most: int = MOST) -> tuple[str, ...]:
    """Each text once, shortened; of more than `most`, the first ones and `and 37 more`."""
    told = tuple(dict.fromkeys(map(str, texts)))
    more = (f"and {len(told) - most:,} more",) if len(told) > most else ()
    return tuple(map(shortened, told[:most])) + more


def by_reason(notes: Iterable[str]) -> tuple[str, ...]:
    """Notes of the form `who: what`, each `what` once, with all of whom it is said: `a, b and 6 more: it refused`."""
    who_by_what: dict[str, list[str]] = {}
    for note in dict.fromkeys(notes):
        who, colon, what = note.partition(": ")
        who_by_what.setdefault(colon + what if colon else note, []).extend([who] * bool(colon))
    return tuple(listed(who, ", ", FEW) + what for what, who in who_by_what.items())


def listed(texts: Iterable[object], separator: str = "; ", most: int = MOST) -> str:
    """`first_few` of the texts, in one line."""
    return separator.join(first_few(texts, most))


def shown(text: str, longest: int = LONGEST_QUOTED) -> str:
    """The text, shortened, with what cannot be seen escaped as in a string of Python's."""
    cut = shortened(text, longest)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in cut)


def path_shown(path: str, longest: int = LONGEST_QUOTED) -> str:
    """As `shown`, but of a long one both ends stay: the last says what kind of file it is."""
    end = longest // 3
    cut = path if len(path) <= longest else path[: longest - end - len(_CUT)] + _CUT + path[-end:]
    return shown(cut, longest)


def quoted(value: object, longest: int = LONGEST_QUOTED) -> str:
    """As `repr` shows it, which escapes what cannot be seen, and shortened. An int may have thousands of digits."""
    if isinstance(value, int) and value.bit_length() > _LONGEST_BITS:
        return f"{'-' * (value < 0)}10^300 or more"
    return shortened(repr(value[: longest + 1]) if isinstance(value, (str, bytes)) else repr(value), longest)


def human(seconds: float | None) -> str:
    """A duration for people: `12 ms`."""
    if seconds is None:
        return "unknown"
    scales = (("s", 1.0), ("ms", 1e-3))
    unit, size = next((each for each in scales if seconds >= each[1]), ("µs", 1e-6))
    return f"{seconds / size:.{1 if seconds < 10 * size else 0}f} {unit}"


def span(seconds: float) -> str:
    """A longer duration for people, to two parts of it: `1 h`, `59 min 52 s`, `14 days`, `40 s`, `3.2 s`."""
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    left, told = round(seconds), []
    for unit, size in (("day", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            told.append(f"{count} {unit}{'s' * (unit == 'day' and count != 1)}")
        elif told:  # what is below a part that is missing is of no interest
            break
    return " ".join(told[:2])


def amount(size: float) -> str:
    """Bytes for people: `21.0 MB`, in powers of a thousand, as networks and disks are sold."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.1f} {unit}"
    return f"{size:.0f} B"
