"""Which stream is kept where several come up, so that both sides keep the same one.

Theory of operation: pure. Streams go in as they come up, and what a look at them found; out comes when to look, and
which one to keep. A stream is whatever the caller names it by.

Without words between the sides, only resets tell: a stream that is not kept is closed by a RST.

- The side that chooses takes the best rank that can still come, within `retry.grace_ns` of the first, and half of what
  the handshake took.
- The side that follows takes the one that is left: a stream which a round trip has not brought a RST for, when all
  others have got theirs; or the one on which the peer speaks.
- Where neither has that part, both choose alike: the better rank, and the grace lets both see both.
- With one pair alone there is nothing to choose, and to who does not follow a reset says but that the peer had the
  stream, and ended it before this side's loop came round. It is kept: whoever reads it is told, as with any stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from simopen.holepunch.retry import grace_ns
from simopen.model.times import NEVER, MonoNs

Stream: TypeAlias = Any

_ROUNDS, _SLACK_NS = 1.5, 20_000_000  # for the peer's loop to come round to closing, and a slower way of the RST
_LONGEST_NS = 1_000_000_000
_LOOK_NS = 10_000_000
MOST_OFFERED = 64
"""Streams at a time that wait for the choice. Two sides bring up a few; behind the peer's NAT there may be others."""


class Condition(Enum):
    """What a look at a stream finds."""

    SILENT = "nothing has been received on it"
    SPOKEN = "the peer has sent data, or ended it in order"
    RESET = "the peer has reset it"


@dataclass(frozen=True, slots=True)
class Offer:
    """A stream that is up. `rank`: 0 the best; `named`: it is with the very endpoint of that rank.

    `took_ns`: the handshake. `waited_ns`: from the first shot until it was up.
    """

    rank: int
    took_ns: int
    waited_ns: int
    named: bool = True

    @property
    def order(self) -> tuple[int, bool]:
        """The best first."""
        return self.rank, not self.named


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look has led to: the stream to keep, if any yet, and those that the peer has reset."""

    kept: Stream | None = None
    gone: tuple[Stream, ...] = ()


class Nomination:
    """The streams on offer, until one is kept: look at them once `due_ns` has come, and `judge` by what was found.

    `chooses`: whether this side chooses; None where neither side has been told.
    `coming`: whether a better rank than this may still come up; `alone`: whether there is one pair alone.
    """

    __slots__ = (
        "_alone",
        "_chooses",
        "_coming",
        "_due_ns",
        "_follows",
        "_offers",
        "_over",
        "_patient_until_ns",
        "due_ns",
    )

    def __init__(self, *, chooses: bool | None, coming: Callable[[int], bool], alone: bool = False) -> None:
        self.due_ns: MonoNs | None = None
        self._chooses, self._follows = chooses is True, chooses is False
        self._coming = coming
        self._alone = alone and not self._follows
        self._offers: dict[Stream, Offer] = {}
        self._due_ns: dict[Stream, MonoNs] = {}  # when this side, which follows, believes in each
        self._patient_until_ns = NEVER
        self._over = False

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Those on offer, in the order in which they came up."""
        return tuple(self._offers)

    def offer(self, stream: Stream, offer: Offer, now_ns: MonoNs) -> Stream | None:
        """Here is one. Returns that for which there is no room any more, if there is none."""
        self._offers[stream] = offer
        if self._follows:
            due_ns = MonoNs(now_ns + min(round(_ROUNDS * offer.took_ns), _LONGEST_NS) + _SLACK_NS)
            self._due_ns[stream] = due_ns
            self._patient_until_ns = self._patient_until_ns or MonoNs(due_ns + _LONGEST_NS)
            self._look_at(due_ns)
        elif not self._coming(self._offers[self._best()].rank):
            self.due_ns = now_ns
        elif self.due_ns is None:
            self.due_ns = MonoNs(now_ns + self._grace_ns(offer))
        return self._crowded_out() if len(self._offers) > MOST_OFFERED else None

    def _grace_ns(self, offer: Offer) -> int:
        """One who chooses must be done before the other, who waits longer than the handshake took, believes."""
        wait_ns = grace_ns(offer.waited_ns)
        return min(wait_ns, offer.took_ns // 2) if self._chooses else wait_ns

    def _look_at(self, at_ns: MonoNs) -> None:
        self.due_ns = at_ns if self.due_ns is None else min(self.due_ns, at_ns)

    def _crowded_out(self) -> Stream:
        """The worst, the latest of those: whoever fills this up is at the peer's address, and is not the peer."""
        worst = max(reversed(self._offers), key=lambda stream: self._offers[stream].order)
        self._withdraw(worst)
        return worst

    def _withdraw(self, stream: Stream) -> None:
        del self._offers[stream]
        self._due_ns.pop(stream, None)

    def hurry(self, now_ns: MonoNs) -> None:
        """The window is over: the best there is will do."""
        self._over = True
        if self._offers:
            self.due_ns = now_ns

    def judge(self, found: Mapping[Stream, Condition], now_ns: MonoNs) -> Verdict:
        """Decide by a look at the streams, or say in `due_ns` when to look again."""
        self.due_ns = None
        gone = self._gone(found)
        for stream in gone:
            self._withdraw(stream)
        if not self._offers:
            return Verdict(gone=gone)
        kept = self._followed(found, now_ns) if self._follows else self._best()
        return Verdict(kept, gone)

    def _gone(self, found: Mapping[Stream, Condition]) -> tuple[Stream, ...]:
        reset = tuple(stream for stream in self._offers if found.get(stream) is Condition.RESET)
        if self._alone and len(reset) == len(self._offers):
            return tuple(stream for stream in reset if not self._offers[stream].named)
        return reset

    def _followed(self, found: Mapping[Stream, Condition], now_ns: MonoNs) -> Stream | None:
        """The one that the peer keeps, however long the peer's loop takes to come round to closing the others."""
        for stream in self._offers:
            if found.get(stream) is Condition.SPOKEN:
                return stream
        first_ns = min(self._due_ns.values())
        if not self._over and now_ns < first_ns:
            self.due_ns = first_ns
        elif not self._over and len(self._offers) > 1 and now_ns < self._patient_until_ns:
            self.due_ns = MonoNs(now_ns + _LOOK_NS)
        else:
            return self._best()
        return None

    def _best(self) -> Stream:
        return min(self._offers, key=lambda stream: self._offers[stream].order)
