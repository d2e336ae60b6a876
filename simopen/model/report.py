"""What was tried and what came of it: the value types behind `report`, `--json` and every error's words.

Theory of operation: pure values. Times are kept as CLOCK_MONOTONIC ns and turned into UTC, by the clock's estimate,
only for people and for JSON.
"""

from __future__ import annotations

import errno as errnos
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from simopen.model.endpoint import Endpoint
from simopen.model.estimate import Estimate
from simopen.model.outcome import ANSWERS, SENT, Outcome, outcome_of
from simopen.model.proof import Proof
from simopen.model.times import MonoNs
from simopen.model.wording import FEW, listed

T = TypeVar("T")

MOST_TOLD = 4
"""More endpoints than this are told by their address."""
MOST_ARRIVALS = 8
"""More than this many who were turned away are only counted: of those from a peer's address, and of the others."""
# So many attempts are told in JSON from the beginning, and from the end.
_ENDS = 16


class Via(StrEnum):
    """Which of our sockets became the stream."""

    CONNECT = "connect"
    ACCEPT = "accept"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One socket's life: one SYN (and the kernel's resends of it) to one endpoint.

    `errno` is 0 where the stream came up, None where the attempt was still open when everything ended. `ended_ns` is
    when a stream came up; of a refusal the kernel does not tell the time, so it is when the loop came round to it.
    `immediate`: the errno was the answer of `connect` itself, so no SYN left.
    """

    peer: Endpoint
    planned_ns: MonoNs
    started_ns: MonoNs
    ended_ns: MonoNs
    errno: int | None
    immediate: bool = False

    @property
    def outcome(self) -> Outcome:
        """What became of it."""
        if self.errno is None:
            return Outcome.IN_FLIGHT
        return outcome_of(self.errno, immediate=self.immediate)

    @property
    def sent(self) -> bool:
        """Whether a SYN left: a look at a taken 5-tuple or a missing route sends nothing."""
        return not self.immediate or self.outcome in SENT

    @property
    def answered(self) -> bool:
        """Whether a SYN left, and somebody answered it."""
        return self.sent and self.outcome in ANSWERS

    @property
    def result(self) -> str:
        """What became of it, in words."""
        if self.outcome is Outcome.FAILED:
            return f"failed with {errnos.errorcode.get(self.errno or 0, self.errno)}"
        return str(self.outcome.value)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A connection that was turned away: from where, and at which CLOCK_MONOTONIC ns."""

    remote: Endpoint
    at_ns: MonoNs


@dataclass(frozen=True, slots=True)
class Report:
    """The whole punch: what was agreed, what was fired when, and what came of it.

    `instant_ns` is when the first shot was due, `fired_ns` when it was fired: never earlier; 0 where nothing was.
    `via`, `remote` and `established_ns` are None where no stream came up.
    `plan` says why these endpoints were fired at, where profiles decided that; then `peers` is the first few of them,
    and `by_ticket` whether the profiles were two tickets', `by_code` whether they were told in a meeting by a code.
    `spray` is whether it fired at very many ports; None where that would not have helped.
    `strangers` counts the connections that came from elsewhere and were closed at once; `arrivals` are the first few of
    them, and of those from a peer's address. `stalled_s` is for how long this process was stopped, or busy, when it was
    to fire or to watch; 0 where it was not. `early_ns` is when a SYN from a peer's address came before the instant, to
    `early_doubt_ns` more or less, as it was looked for from time to time.
    `proof` is how a link came up on the stream, where one was asked for.
    `earlier` says when a stream between the same two endpoints ended here, where that is not long ago.
    """

    local: tuple[str | None, int]
    peers: tuple[Endpoint, ...]
    window_s: float
    listening: bool
    clock: Estimate
    instant_ns: MonoNs
    fired_ns: MonoNs
    ended_ns: MonoNs
    attempts: tuple[Attempt, ...]
    strangers: int = 0
    arrivals: tuple[Arrival, ...] = ()
    early_ns: MonoNs | None = None
    early_doubt_ns: int = 0
    earlier: str | None = None
    via: Via | None = None
    remote: Endpoint | None = None
    established_ns: MonoNs | None = None
    holder: str | None = None
    plan: str | None = None
    by_ticket: bool = False
    by_code: bool = False
    spray: bool | None = None
    stalled_s: float = 0.0
    notes: tuple[str, ...] = ()
    proof: Proof | None = None

    @property
    def late_s(self) -> float:
        """How long after the instant the first shot was fired (or all ended without one), in seconds: zero or more."""
        return ((self.fired_ns or self.ended_ns) - self.instant_ns) / 1e9

    @property
    def elapsed_s(self) -> float | None:
        """From our first shot until the stream was up, in seconds; None where none came up."""
        return None if self.established_ns is None else (self.established_ns - self.fired_ns) / 1e9

    def as_dict(self) -> dict[str, object]:
        """For JSON: times in UTC seconds, durations in seconds.

        Of `attempts`, a window full of RSTs would make 100 kB: the first and the last 16 are told, and
        `attempts_omitted` is how many there were between those.
        """
        return {
            "local": f"{_host(self.local)}:{self.local[1]}",
            "peers": [str(peer) for peer in self.peers],
            "plan": self.plan,
            "spray": self.spray,
            "window_s": self.window_s,
            "listening": self.listening,
            "clock": self.clock.as_dict(),
            "instant": self._utc(self.instant_ns),
            "fired": self._utc(self.fired_ns) if self.fired_ns else None,
            "late_s": self.late_s,
            "stalled_s": self.stalled_s,
            "established": None if self.established_ns is None else self._utc(self.established_ns),
            "elapsed_s": self.elapsed_s,
            "via": self.via,
            "remote": None if self.remote is None else str(self.remote),
            "proof": None if self.proof is None else self.proof.as_dict(),
            "strangers": self.strangers,
            "arrivals": [{"remote": str(each.remote), "at": self._utc(each.at_ns)} for each in self.arrivals],
            "early": None if self.early_ns is None else self._utc(self.early_ns),
            "early_doubt_s": None if self.early_ns is None else self.early_doubt_ns / 1e9,
            "earlier": self.earlier,
            "notes": list(self.notes),
            "attempts": [self._attempt(attempt) for attempt in _ends(self.attempts)],
            "attempts_omitted": len(self.attempts) - len(_ends(self.attempts)),
        }

    def _attempt(self, attempt: Attempt) -> dict[str, object]:
        return {
            "peer": str(attempt.peer),
            "planned": self._utc(attempt.planned_ns),
            "started": self._utc(attempt.started_ns),
            "elapsed_s": (attempt.ended_ns - attempt.started_ns) / 1e9,
            "errno": attempt.errno if attempt.errno is None else errnos.errorcode.get(attempt.errno, attempt.errno),
            "result": attempt.result,
        }

    def _utc(self, monotonic_ns: MonoNs) -> float:
        return self.clock.utc_at(monotonic_ns) / 1e9

    def summary(self) -> str:
        """One sentence: the stream and how it came, or what was tried in vain."""
        if self.remote is None or self.elapsed_s is None:
            return f"no stream: {tally(self.attempts)}"
        how = "by our own SYN" if self.via is Via.CONNECT else "through the listener"
        proven = "" if self.proof is None else f", and both ends proven in {self.proof.took_s * 1e3:.1f} ms"
        return f"connected to {self.remote} in {self.elapsed_s * 1e3:.1f} ms ({how}){proven}"


class Cause(StrEnum):
    """What kept the stream from coming up."""

    IMPOSSIBLE_PAIR = "impossible pair"
    NOT_FIRED = "not fired"
    THIS_HOST = "this host"
    PORT_TAKEN = "port taken"
    NO_ROUTE = "no route"
    CLOCKS_APART = "clocks apart"
    WRONG_PORT = "wrong port"
    BROKEN = "broken"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    EARLIER_STREAM = "earlier stream"
    SILENCE = "silence"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why no stream came up: one sentence, the facts that it rests on, and what to do about it."""

    cause: Cause
    sentence: str
    evidence: tuple[str, ...]
    advice: str

    def __str__(self) -> str:
        facts = f" ({'; '.join(self.evidence)})" if self.evidence else ""
        return f"{self.sentence}{facts}. {self.advice}"

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "cause": str(self.cause),
            "sentence": self.sentence,
            "evidence": list(self.evidence),
            "advice": self.advice,
        }


def tally(attempts: Sequence[Attempt]) -> str:
    """What the attempts came to, counted: `2 SYNs to 203.0.113.7:1314 (1 answered by RST, 1 no answer)`."""
    by_peer = _grouped(attempts, lambda attempt: str(attempt.peer))
    if len(by_peer) > MOST_TOLD:
        by_peer = _grouped(attempts, lambda attempt: f"ports of {attempt.peer.address}")
    return listed((_tally_one(peer, those) for peer, those in by_peer.items()), most=FEW) or "nothing sent"


def _grouped(attempts: Sequence[Attempt], name: Callable[[Attempt], str]) -> dict[str, list[Attempt]]:
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault(name(attempt), []).append(attempt)
    return groups


def _tally_one(peer: str, attempts: Sequence[Attempt]) -> str:
    sent = sum(attempt.sent for attempt in attempts)
    counts = Counter(attempt.result for attempt in attempts)
    results = ", ".join(f"{count} {result}" for result, count in counts.items())
    return f"{sent} SYN{'' if sent == 1 else 's'} to {peer} ({results})"


def _ends(items: tuple[T, ...]) -> tuple[T, ...]:
    return items if len(items) <= 2 * _ENDS else items[:_ENDS] + items[-_ENDS:]


def _host(local: tuple[str | None, int]) -> str:
    address = local[0] or "*"
    return f"[{address}]" if ":" in address else address
