"""The kinds, how many of each must hold, and how they are run: one after the other, each with a chance of its own."""

from __future__ import annotations

import math
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from tests.soak import calls, links, meetings, parsers, programs, rendezvous_server, transfers


@dataclass(frozen=True, slots=True)
class Kind:
    """`total` in full, `at_once` of them in each call of `one`, which may return what it was, to be counted."""

    total: int
    one: Callable[[Random], str | None]
    at_once: int = 1

    def units(self, share: float) -> int:
        """How many calls make this share of the total."""
        return math.ceil(self.total * share / self.at_once)


KINDS = {
    "tickets": Kind(1_000_000, parsers.ticket),
    "frames": Kind(1_000_000, parsers.link_frames),
    "rendezvous-server": Kind(1_000_000, rendezvous_server.conversation, rendezvous_server.TALKS),
    "stun-requests": Kind(1_000_000, rendezvous_server.stun_request),
    "stun": Kind(150_000, parsers.stun_message),
    "ntp": Kind(150_000, parsers.ntp_message),
    "cancellations": Kind(1_800, calls.cancellation),
    "signals": Kind(174, programs.sent_signal),
    "errors": Kind(122, calls.injected_error),
    "descriptors": Kind(268, programs.few_descriptors),
    "strangers": Kind(53_311, calls.strangers, calls.AT_ONCE),
    "spoilt": Kind(30_000, links.spoilt),
    "garbage": Kind(160, links.garbage, links.STRANGERS),
    "link-cancellations": Kind(600, links.cancellation),
    "meeting-cancellations": Kind(600, meetings.cancellation),
    "threads": Kind(12, calls.threads, calls.THREADS),
    "transfer-cuts": Kind(1000, transfers.cut),
    "transfer-cancellations": Kind(200, transfers.cancellation),
    "transfer-kills": Kind(40, transfers.killed),
    "transfer-interrupts": Kind(100, transfers.interrupted),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Which one failed, and how."""

    name: str
    number: int
    how: str

    def __str__(self) -> str:
        return f"--- {self.name} {self.number}\n{self.how}"


def run(name: str, numbers: Iterable[int], counts: Counter[str] | None = None) -> list[Failure]:
    """Run those of a kind, and return what failed; `counts`: what the others were, where they say so."""
    failures = []
    for number in numbers:
        try:
            said = KINDS[name].one(Random(f"{name} {number}"))
            if said is not None and counts is not None:
                counts[said] += 1
        except Exception:
            failures.append(Failure(name, number, traceback.format_exc()))
    return failures
