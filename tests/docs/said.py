"""What the program says where no stream came up, for docs/troubleshooting.md: `python -m tests.docs.said [--check]`.

What stands there between `<!-- begin: said CAUSE -->` and `<!-- end -->` is what `diagnose` says of the reports below,
so that whoever searches the page for a sentence finds it.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from dataclasses import replace

from simopen import Attempt, Cause, Diagnosis, Endpoint, LinkError, Report
from simopen.holepunch import unproven
from simopen.holepunch.diagnosis import diagnose, impossible, stopped
from simopen.model.report import Arrival
from simopen.model.times import MonoNs
from tests.docs.blocks import ROOT
from tests.model.test_report import FAILED, MS, PEER, report

PAGE = ROOT / "docs" / "troubleshooting.md"
_BLOCK = re.compile(r"(?P<begin><!-- begin: said (?P<cause>[^>]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)
_START_NS = 5 * 10**9
_PRIVATE = Endpoint("192.168.7.5", 1314)


def _failed(*codes: int | None, immediate: bool = False, **changes: object) -> Report:
    attempts = tuple(
        Attempt(PEER, MonoNs(_START_NS), MonoNs(_START_NS), MonoNs(_START_NS + 40 * MS), code, immediate)
        for code in codes
    )
    ended_ns = _START_NS + 12 * 10**9
    return report(**{**FAILED, "fired_ns": _START_NS, "ended_ns": ended_ns, "attempts": attempts, **changes})


# One for each case that `diagnose` knows, in its order.
REPORTS = (
    _failed(fired_ns=0, stalled_s=12.0),
    _failed(fired_ns=0),
    _failed(errno.ECONNREFUSED, stalled_s=9.0),
    _failed(errno.EADDRNOTAVAIL, immediate=True, holder="TIME-WAIT"),
    _failed(errno.ENETUNREACH, immediate=True),
    _failed(errno.ENOBUFS, immediate=True),
    _failed(errno.ECONNREFUSED, early_ns=_START_NS - 12_300 * MS),
    _failed(errno.ECONNREFUSED, arrivals=(Arrival(Endpoint(PEER.address, 40001), MonoNs(_START_NS)),), strangers=1),
    _failed(0, errno.ECONNREFUSED),
    _failed(errno.ECONNREFUSED),
    _failed(errno.EHOSTUNREACH, peers=(_PRIVATE,)),
    _failed(errno.EHOSTUNREACH),
    _failed(None, earlier="x"),
    _failed(None),
)
# What is no trace's to tell: the plan's own reason, and an error of this host's.
OTHERS = (
    impossible("both sides' public ports differ for each destination and cannot be told: 2^32 pairs of them to guess"),
    stopped(_failed(), "this process has no descriptors left (ulimit -n)"),
)
# Of the reasons with one advice, the first.
UNPROVEN = tuple(case.reasons[0] for case in unproven._CASES)


def said() -> Iterator[tuple[Diagnosis, Diagnosis | None, Diagnosis | None]]:
    """Each diagnosis; and the same by tickets, and by a code, where it says something else then."""
    yield from ((each, None, None) for each in OTHERS)
    for reason in UNPROVEN:
        error = LinkError(
            f"one stream came up, and nobody proved the key; of who was there: {reason.value}", reasons=(reason,)
        )
        alone, planned, by_code = (
            unproven.unproven(_failed(0, **how), error) for how in ({}, {"by_ticket": True}, {"by_code": True})
        )
        yield alone, _if_other(planned, alone), _if_other(by_code, alone)
    for made in REPORTS:
        alone, planned = diagnose(made), diagnose(replace(made, plan="a plan", by_ticket=True, spray=False))
        by_code = diagnose(replace(made, plan="a plan", by_code=True, spray=False))
        yield alone, _if_other(planned, alone), _if_other(by_code, alone)


def _if_other(told: Diagnosis, alone: Diagnosis) -> Diagnosis | None:
    return told if told.sentence == alone.sentence and told.advice != alone.advice else None


def rendered(text: str) -> str:
    """The page with every block made anew. Raises: ValueError for a block of no cause."""
    return _BLOCK.sub(lambda found: f"{found['begin']}{_words(Cause(found['cause']))}\n{found['end']}", text)


def _words(cause: Cause) -> str:
    return "\n\n".join("\n>\n".join(_quoted(*each)) for each in said() if each[0].cause is cause)


def _quoted(alone: Diagnosis, planned: Diagnosis | None, by_code: Diagnosis | None) -> Iterator[str]:
    yield f"> **no stream: {alone.sentence}**"
    yield f"> to do: {alone.advice}"
    if planned is not None:
        yield f"> to do, with tickets: {planned.advice}"
    if by_code is not None:
        yield f"> to do, by a code: {by_code.advice}"


def main(*options: str) -> int:
    text = PAGE.read_text(encoding="utf-8")
    if options != ("--check",):
        PAGE.write_text(rendered(text), encoding="utf-8")
        return 0
    return int(rendered(text) != text)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
