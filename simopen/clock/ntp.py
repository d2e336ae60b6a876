"""NTP on the wire: what is sent, and what of the answers is believed.

Theory of operation. Pure: bytes and time stamps in, `Answer`, `Sample` or `Refused` out. `ntplib` knows the
packet's layout and nothing else is taken from it (its client blocks, and believes nearly anything). Our own
time stamps (T1, T4) are CLOCK_MONOTONIC, the server's (T2, T3) are UTC, so an offset here is "UTC minus
monotonic", and a step of the wall clock in the middle cannot touch it.

What ntplib's floats cost: it holds a 64-bit time stamp (2^-32 s) as a float of seconds since 1900, of which 53 bits
reach down to 2^-21 s = 477 ns. So T2 and T3 are each rounded by 238 ns at most, an offset by as much, a delay by 477
ns. `ROUNDING_NS` bounds both; it is added to each sample's error bound (`selection.interval`) and allowed for where a
delay comes out below zero (`sample`). Root delay, root dispersion (16.16 bits) and precision (a power of two) lose
nothing. All that is our own (T1, T4, the kernel's receive stamps, offsets, bounds) is integer ns throughout.

What must not live here: sockets and tasks (`ntp_client` has them), and who is right (`selection` judges that).
Every refusal is a sentence that ends up in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any, Protocol

from simopen.errors import ClockError
from simopen.model.estimate import drift_ns
from simopen.model.server import Heard
from simopen.model.times import MonoNs, UtcNs
from simopen.model.wording import shortened

ERA_S = 2**32
"""Seconds in an NTP era. Era 1 begins 2036-02-07 06:28:16 UTC."""
MAX_DISTANCE_S = 1.0
"""MAXDIST of RFC 5905 §7.2 (ntpd allows 1.5 s). At 1 s an answer no longer tells which second it is; an
answer as coarse as that would only widen the bound past any use."""
MAX_REFERENCE_AGE_S = 86_400
"""A server that has not heard from its own source for a day coasts: 15 ppm make 1.3 s of that (RFC 5905's
PHI), and its root dispersion should have said so. ntpd polls at most every 2**17 s, public servers far more
often."""
ROUNDING_NS = 500
"""What the rounding of T2 and T3 may add to an offset or a delay: see above."""
STEP_NS = 20_000
"""Real time and monotonic time move together, to within the time it takes to read both; more is a step."""

MIN_ANSWERS, MAX_ANSWERS = 4, 8
"""Below four, the least delay may have met a queue each time; beyond eight, little is gained."""
MOST_REASONS = 6
"""Kinds of reasons that are told of one server: so many sentences, and that there were more."""
PATIENCE_S = 0.5
"""After this long, one good answer will do: the rest was lost, or the server limits its rate."""


class Reads(Protocol):
    """Both clocks at one moment, in ns."""

    @property
    def monotonic_ns(self) -> MonoNs: ...
    @property
    def realtime_ns(self) -> int: ...


class ReadsClocks(Protocol):
    """Whatever can read the machine's clocks; `simopen.clock.LocalClock`, or a test's."""

    def read(self) -> Reads: ...


class Refused(ClockError):  # noqa: N818 - says what happened; always caught in this package
    """The server did answer us, and the answer cannot be believed. The message is the reason."""


class Stray(Refused):
    """A datagram that anyone could have sent: it does not prove that it answers a query of ours.

    `kind`: what those have in common that differ in a number only.
    """

    def __init__(self, reason: str, kind: str | None = None) -> None:
        super().__init__(reason)
        self.kind = kind or reason


class KissOfDeath(Refused):
    """The server wants no more queries from us (RFC 5905 §7.4); there are none in the same check."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one good packet says: T2 and T3 (UTC, Unix epoch, ns), the stratum, and the server's own root
    distance (root delay / 2 + root dispersion + precision, ns)."""

    t2_ns: UtcNs
    t3_ns: UtcNs
    stratum: int
    root_distance_ns: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One query and its answer: T1 and T4 on CLOCK_MONOTONIC, T2 and T3 in the answer on UTC, all ns."""

    address: str
    t1_ns: MonoNs
    answer: Answer
    t4_ns: MonoNs

    @property
    def offset_ns(self) -> int:
        """Add this to CLOCK_MONOTONIC to get UTC."""
        return offset_and_delay(self.t1_ns, self.answer.t2_ns, self.answer.t3_ns, self.t4_ns)[0]

    @property
    def delay_ns(self) -> int:
        """Time on the wire, both ways; never below zero."""
        return max(0, offset_and_delay(self.t1_ns, self.answer.t2_ns, self.answer.t3_ns, self.t4_ns)[1])


def offset_and_delay(t1: int, t2: int, t3: int, t4: int) -> tuple[int, int]:
    """RFC 5905 §8: offset (add it to the client's clock to get the server's) and delay, in the unit given.

    The true offset lies within offset ± delay / 2, wherever the delay fell: out, back, or on both ways.
    """
    return ((t2 - t1) + (t3 - t4)) // 2, (t4 - t1) - (t3 - t2)


def request(cookie: bytes) -> bytes:
    """A client query (version 4, mode 3) whose transmit time stamp is `cookie`, 8 random bytes.

    Random, because the server only echoes it: so nobody off the path can forge an answer, and nobody on it
    learns our clock (the data minimisation of RFC 8915's authors, draft-ietf-ntp-data-minimization).
    """
    import ntplib

    return bytes(ntplib.NTPPacket(version=4, mode=3).to_data()[:40]) + cookie


def parse(data: bytes, cookies: Container[bytes]) -> Answer:
    """Believe or refuse a datagram. `cookies` are those of the queries.

    Raises:
        Refused: with the reason; `Stray` and `KissOfDeath` are kinds of it. Nothing else, whatever the bytes.
    """
    packet = _unpack(data)
    if data[24:32] not in cookies:
        raise Stray("its origin time stamp is that of no query of ours")
    if packet.stratum == 0:
        raise KissOfDeath(f"kiss-o'-death {_kiss_code(data)}")
    for refuses, reason in _REFUSALS:
        if refuses(packet):
            raise Refused(reason)
    return Answer(
        unix_ns(packet.recv_timestamp),
        unix_ns(packet.tx_timestamp),
        packet.stratum,
        _root_distance_ns(packet),
    )


def unix_ns(ntp_s: float) -> UtcNs:
    """Seconds since 1900, modulo an era, to ns since 1970. Top bit clear: era 1, from 2036 (RFC 4330 §3)."""
    import ntplib

    whole_s = int(ntp_s)
    era_s = ERA_S if whole_s < ERA_S // 2 else 0
    epoch_s: int = ntplib.NTP.NTP_DELTA
    return UtcNs((whole_s + era_s - epoch_s) * 1_000_000_000 + round((ntp_s - whole_s) * 1e9))


def _unpack(data: bytes) -> Any:
    import ntplib

    packet = ntplib.NTPPacket()
    try:
        packet.from_data(data)
    except ntplib.NTPException as error:
        raise Stray(f"{len(data)} bytes are no NTP packet (48 at least)", "no packet") from error
    if packet.mode != 4:
        raise Stray(f"mode {packet.mode} is not a server's answer (4)", "mode")
    if packet.version not in {3, 4}:  # some answer 3 to a 4; the header is the same (RFC 5905 §7.3)
        raise Stray(f"version {packet.version} is neither 3 nor 4", "version")
    return packet


def _kiss_code(data: bytes) -> str:
    code = data[12:16].rstrip(b"\0").decode("latin-1")
    return code if code.isascii() and code.isalnum() else repr(data[12:16])


def _root_distance_ns(packet: Any) -> int:
    distance_s: float = packet.root_delay / 2 + packet.root_dispersion + 2.0**packet.precision
    return round(distance_s * 1e9)


def _reference_age_ns(packet: Any) -> int:
    return unix_ns(packet.tx_timestamp) - unix_ns(packet.ref_timestamp)


_REFUSALS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (lambda p: p.leap == 3, "leap alarm: its clock is not synchronised"),
    (lambda p: p.stratum >= 16, "stratum 16 or more: its clock is not synchronised"),
    (lambda p: p.tx_timestamp == 0 or p.recv_timestamp == 0, "a transmit or receive time of zero"),
    (lambda p: unix_ns(p.tx_timestamp) < unix_ns(p.recv_timestamp), "transmitted before it was received"),
    (lambda p: _root_distance_ns(p) >= MAX_DISTANCE_S * 1e9, f"root distance {MAX_DISTANCE_S:g} s or more"),
    (lambda p: p.ref_timestamp == 0, "stale: its clock was never set (reference time zero)"),
    (lambda p: _reference_age_ns(p) < 0, "stale: its clock was set later than now (reference time)"),
    (
        lambda p: _reference_age_ns(p) > MAX_REFERENCE_AGE_S * 1_000_000_000,
        "stale: its clock was last set more than a day ago (reference time)",
    ),
)


def arrival_ns(sent: Reads, now: Reads, stamp_ns: int | None) -> MonoNs:
    """T4 on CLOCK_MONOTONIC: the kernel's receive time stamp (UTC ns) where it makes sense, else `now`.

    Too late only widens the bound; too early would break it. So any doubt, a wall clock that was stepped
    since the query or a stamp outside of [sent, now], means the time of reading.
    """
    if stamp_ns is None:
        return now.monotonic_ns
    moved_ns = (now.realtime_ns - now.monotonic_ns) - (sent.realtime_ns - sent.monotonic_ns)
    arrived_ns = now.monotonic_ns - (now.realtime_ns - stamp_ns)
    sane = abs(moved_ns) <= STEP_NS and sent.monotonic_ns <= arrived_ns <= now.monotonic_ns
    return MonoNs(arrived_ns) if sane else now.monotonic_ns


def sample(address: str, t1_ns: MonoNs, answer: Answer, t4_ns: MonoNs) -> Sample:
    """The four time stamps together.

    Raises:
        Refused: the server claims to have held the query for longer than it was away, by more than rounding.
    """
    made = Sample(address, t1_ns, answer, t4_ns)
    _, delay_ns = offset_and_delay(t1_ns, answer.t2_ns, answer.t3_ns, t4_ns)
    if delay_ns < -(answer.root_distance_ns + ROUNDING_NS + drift_ns(t4_ns - t1_ns)):
        raise Refused("it claims to have held the query for longer than it was away")
    return made


@dataclass(slots=True)
class Answers:
    """All that one server said in one check. Filled while the check runs; read by whoever judges it.

    `repeated`: further answers to queries that had theirs. They have no vote, but must fit: whoever is on the way may
    answer before the server does. `refusals`: why something was not believed, one reason of each kind, and few of them.
    `unnamed`: which way it has no address.
    """

    name: str
    unnamed: Heard | None = None
    samples: list[Sample] = field(default_factory=list)
    repeated: list[Sample] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    queries: int = 0
    no_more: bool = False
    _refused: int = 0
    _first: dict[str, str] = field(default_factory=dict)  # by kind
    _alike: dict[str, set[str]] = field(default_factory=dict)  # all of a kind, by the first one
    _others: int = 0

    @property
    def best(self) -> Sample | None:
        """The sample of the least delay: the one that met the emptiest queues."""
        return min(self.samples, key=lambda each: each.delay_ns, default=None)

    @property
    def reasons(self) -> str:
        """Why what came was not believed, in a few sentences; empty where nothing came."""
        told = [reason + _and_more(self._alike.get(reason)) for reason in self.refusals]
        return "; ".join(told) + f"; and {self._others:,} for other reasons" * bool(self._others)

    def refuse(self, reason: str, kind: str | None = None, *, final: bool = False) -> None:
        """Note why something was not believed; each reason once. `final`: ask this server no more."""
        self.no_more = self.no_more or final
        first = self._first.get(kind or reason)
        if first is None and len(self.refusals) >= MOST_REASONS:
            self._others += 1
            return
        if first is None:
            first = self._first[kind or reason] = shortened(reason)
            self.refusals.append(first)
        self._alike.setdefault(first, set()).add(reason)

    def take(self, error: Refused) -> None:
        """Note a refused datagram. Strays do not count against the server: anyone can send them."""
        self._refused += not isinstance(error, Stray)
        kind = error.kind if isinstance(error, Stray) else None
        self.refuse(str(error), kind, final=isinstance(error, KissOfDeath) or self._refused >= MIN_ANSWERS)

    def settled(self, elapsed_s: float) -> bool:
        """Another query would gain nothing: the least delay of four or more was met twice, or patience is
        over, or the server told us to stop."""
        if self.no_more or len(self.samples) >= MAX_ANSWERS:
            return True
        if len(self.samples) < MIN_ANSWERS:
            return bool(self.samples) and elapsed_s >= PATIENCE_S
        least, second, *_ = sorted(each.delay_ns for each in self.samples)
        return second - least <= max(100_000, least // 10) or elapsed_s >= PATIENCE_S


def _and_more(alike: set[str] | None) -> str:
    return f" (and {len(alike) - 1:,} like it)" if alike and len(alike) > 1 else ""
