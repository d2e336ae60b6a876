"""What two sides say to each other in a room, and what each knows by it: pure, and driven by what comes.

Theory of operation. Each side begins with one message in the clear, the PAKE's (`pake`); all others are sealed
(`sealing`). The first sealed one, `hi`, confirms the key: what does not open says that the codes differ, or that
somebody has guessed, and one guess ends it. What a side that was killed has said may still be in the room: whoever
comes anew is not misled by it, as only the living answer. `hi` also says how long its sender had waited: who came later
asks the other what time it is (`ask`, `answer`), makes the two's common time of that (`peer_clock`), and sets the
instant (`go`). Each round has a `hello` of each side, with a ticket; and ends with `done`, or with `over` and another
round. `bye` ends the meeting.

A peer whose program has ended and comes anew is another one with the same code: it takes the place of the former, once
it has confirmed. Time comes in as ns of CLOCK_MONOTONIC and of this side's UTC; bytes come in, and actions go out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from simopen.errors import SignallingError, WrongCode
from simopen.model.wording import quoted
from simopen.rendezvous.peer_clock import MOST, Sample
from simopen.rendezvous.sealing import BODY_BYTES, Channel, Unopened, pake_of, pake_phase

SOON_NS = 1_000_000_000
"""Who meets a peer this soon after coming has probably come later, and asks for the time without waiting for `hi`."""
_ROUND_TRIPS, _SLACK_NS = 3, 50_000_000
ROUNDS = 3
MOST_PEERS = 16
"""So many may begin in one room, one after the other: a program that is started anew a dozen times."""
_MOST_EARLY = 64
_LAST_NS = 2**63
_THE_SAME = (
    "who is in the room is no peer: it is this side, once more. Another program of yours meets there, or one that has "
    "a copy of your side's secret: end that, and try again"
)
_ANEW = "make a new code, and give it to your peer"
_OTHER_CODE = (
    f"the two codes are not the same: one was mistyped, or somebody has guessed. It is of no more use: {_ANEW}"
)
_OTHER_SECRET = (
    "the two secrets are not the same: the two sides have other keys, or somebody else came into the room, which "
    "whoever knows its name can. Compare the two, and try again"
)
_GUESSED = (
    "somebody came into the room before the peer, and left it once it could be known whether the code was the same: "
    f"who has guessed, or the peer's own program, which ended just then. To be safe, {_ANEW}"
)


@dataclass(frozen=True, slots=True)
class Send:
    """To the rendezvous, for the peer."""

    phase: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Derive:
    """Work out the key with this message of `theirs`, and tell it by `keyed`: it takes ms, so off the loop."""

    theirs: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Hello:
    """A side's ticket for one round, and the message that it came in, sealed: the link's context is made of both."""

    ticket: str
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Go:
    """When to fire, UTC ns by the asked side's clock; how far the asking side's is behind it, to within `bound_ns`."""

    at_ns: int
    difference_ns: int
    bound_ns: int


@dataclass(frozen=True, slots=True)
class Over:
    """A round has brought nothing at the peer. `is_final`: nor will another."""

    is_final: bool
    why: str


@dataclass(eq=False, slots=True)
class Peer:
    """One that has begun, and all that it has said. `waited_ms`: its own word, once it has confirmed.

    `was_there`: it had begun before this side came. `is_told`: this side has confirmed to it. Whoever guesses learns by
    that whether the guess was right, and may go without a word.
    """

    channel: Channel
    own_waited_ms: int
    waited_ms: int | None = None
    own_hellos: dict[int, Hello] = field(default_factory=dict)
    hellos: dict[int, Hello] = field(default_factory=dict)
    goes: dict[int, Go] = field(default_factory=dict)
    overs: dict[int, Over] = field(default_factory=dict)
    asked_ns: dict[int, int] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    answered: int = 0
    was_there: bool = False
    is_told: bool = False
    is_done: bool = False
    bye: str | None = None

    @property
    def may_have_guessed(self) -> bool:
        """Whether it knows more than it has said, and was not there first, as a side that was killed may have been."""
        return self.is_told and self.waited_ms is None and not self.was_there

    @property
    def asks(self) -> bool:
        """Whether this side is the one that asks for the time, and sets the instant: it has come later."""
        if self.waited_ms is None:
            return self.is_told and self.own_waited_ms < SOON_NS // 10**6
        return (self.own_waited_ms, self.channel.mine) < (self.waited_ms, self.channel.theirs)


class Exchange:
    """One side of it. `mine`: 16 hex digits, new each time. `began_ns`: when it came into the room.

    `is_long`: the secret is too long to be guessed, so everybody who begins is told `hi`. Else one only: another who
    begins before that one has confirmed, or after it never will, has to say `hi` first; and confirms in vain, as two
    guesses are one too many. `side`: what `hi` calls this one, where it has a name; the peer's is another. `purpose`:
    what it is here for, and what the peer has to be.

    `burnt`: why the code is of no more use, once the peer has been told all that it is to hear.
    """

    def __init__(
        self,
        mine: str,
        pake_message: bytes,
        began_ns: int,
        *,
        is_long: bool = False,
        side: str | None = None,
        purpose: tuple[str, str] | None = None,
    ) -> None:
        self.mine = mine
        self._is_long = is_long
        self._side = side
        self._purpose = purpose
        self.first = Send(pake_phase(mine), pake_message)
        self.peer: Peer | None = None
        """The one who has confirmed."""
        self.begun: dict[str, Peer] = {}
        """Those who have begun, and not yet confirmed; the latest last."""
        self.burnt: WrongCode | None = None
        self._began_ns = began_ns
        self._there_ns = SOON_NS
        self._came_ns: dict[str, int] = {}
        self._early: list[tuple[str, bytes]] = []

    def entered(self, at_ns: int) -> None:
        """The room is entered: what was said there before comes within as many round trips again, about two."""
        self._there_ns = _ROUND_TRIPS * (at_ns - self._began_ns) + _SLACK_NS

    def hear(self, phase: str, body: bytes, at_ns: int, utc_ns: int) -> list[Send | Derive]:
        """A message has come, from the peer or from whoever pretends to be.

        Raises: WrongCode; SignallingError for a peer that has the code and breaks the rules.
        """
        if (theirs := pake_of(phase, body)) is not None:
            return list(self._begin(theirs, body, at_ns))
        for each in (*self.begun.values(), self.peer):
            if each is not None and each.channel.is_for_us(phase):
                return list(self._sealed(each, phase, body, at_ns, utc_ns))
        if len(self._early) < _MOST_EARLY:  # it may have overtaken its sender's first one
            self._early.append((phase, body))
        return []

    def _begin(self, theirs: str, body: bytes, at_ns: int) -> Iterator[Send | Derive]:
        if theirs == self.mine or theirs in self._came_ns:
            return
        if len(self._came_ns) >= MOST_PEERS:
            raise SignallingError(f"{MOST_PEERS} have begun in this room, one after the other: {_ANEW}")
        self._came_ns[theirs] = at_ns
        yield Derive(theirs, body)

    def keyed(self, theirs: str, key: bytes, at_ns: int, utc_ns: int) -> list[Send | Derive]:
        """The key with `theirs` is there. Raises: as `hear`."""
        waited_ns = max(0, self._came_ns[theirs] - self._began_ns)  # not until now: the key's ms are luck
        is_told = self._is_long or not self.begun
        begun = Peer(Channel(key, self.mine, theirs), waited_ns // 10**6, was_there=waited_ns < self._there_ns)
        self.begun[theirs] = begun
        actions: list[Send | Derive] = [self._hi(begun)] if is_told else []
        early, self._early = self._early, []
        for phase, body in early:
            actions += self.hear(phase, body, at_ns, utc_ns)
        return actions

    def _sealed(self, peer: Peer, phase: str, body: bytes, at_ns: int, utc_ns: int) -> Iterator[Send | Derive]:
        try:
            ready = peer.channel.take(phase, body)
        except Unopened:
            if peer.channel.is_confirmed:
                return  # somebody else's: the peer's own is still to come
            raise WrongCode(_OTHER_SECRET if self._is_long else _OTHER_CODE) from None
        for record, sealed in ready:
            yield from self._record(peer, _read(record), sealed, at_ns, utc_ns)

    def _record(
        self, peer: Peer, said: dict[str, Any], sealed: bytes, at_ns: int, utc_ns: int
    ) -> Iterator[Send | Derive]:
        kind = said.get("kind")
        if (kind == "hi") is not (peer.waited_ms is None):
            raise _broken("it says hi first, and once")
        if kind == "hi":
            self._require_fit(said)
            peer.waited_ms = _number(said, "waited")
            if not peer.is_told:
                yield self._hi(peer)
            if not self._is_long and any(each.may_have_guessed for each in self.begun.values()):
                self.burnt = WrongCode(_GUESSED)
                return
            self.peer = peer
            del self.begun[peer.channel.theirs]
        elif kind == "ask":
            peer.answered += 1
            if peer.answered <= MOST:
                yield _sealed(peer, kind="answer", number=_number(said, "number"), came=utc_ns, left=utc_ns)
        else:
            _note(peer, kind, said, sealed, at_ns)

    def _hi(self, peer: Peer) -> Send:
        peer.is_told = True
        named = {"side": self._side, "for": self._purpose and self._purpose[0]}
        named = {what: name for what, name in named.items() if name is not None}
        return _sealed(peer, kind="hi", waited=peer.own_waited_ms, **named)

    def _require_fit(self, said: dict[str, Any]) -> None:
        if self._side is not None and said.get("side") == self._side:
            raise SignallingError(_THE_SAME)
        if self._purpose is None or not isinstance(theirs := said.get("for"), str):
            return  # one of the two has not said
        mine, wanted = self._purpose
        if theirs != wanted:
            fits = "as here" if mine == wanted else f"for {quoted(wanted)}"
            raise SignallingError(
                f"the two do not fit: this side is there for {quoted(mine)}, and the other for {quoted(theirs)}. It "
                f"has to be there {fits}: {'start that there, and try again' if self._is_long else _ANEW}"
            )


def _note(peer: Peer, kind: object, said: dict[str, Any], sealed: bytes, at_ns: int) -> None:
    """Remember what needs no answer; what this version does not know is passed over."""
    match kind:
        case "answer":
            if (asked_ns := peer.asked_ns.pop(_number(said, "number"), None)) is not None:
                peer.samples.append(Sample(asked_ns, _number(said, "came"), _number(said, "left"), at_ns))
        case "hello":
            peer.hellos.setdefault(_round(said), Hello(_text(said, "ticket"), sealed))
        case "go":
            peer.goes.setdefault(_round(said), _go(said))
        case "over":
            peer.overs.setdefault(_round(said), Over(said.get("final") is True, _text(said, "why")))
        case "done":
            peer.is_done = True
        case "bye":
            peer.bye = _text(said, "why")


def ask(peer: Peer, at_ns: int) -> Send:
    """What time is it there? `at_ns`: now, CLOCK_MONOTONIC."""
    number = len(peer.asked_ns) + len(peer.samples)
    peer.asked_ns[number] = at_ns
    return _sealed(peer, kind="ask", number=number)


def hello(peer: Peer, number: int, ticket: str) -> Send:
    """This side's ticket for a round, from 1 on."""
    sent = _sealed(peer, kind="hello", round=number, ticket=ticket)
    peer.own_hellos[number] = Hello(ticket, sent.body)
    return sent


def go(peer: Peer, number: int, when: Go) -> Send:
    """When both fire in a round."""
    peer.goes[number] = when
    return _sealed(peer, kind="go", round=number, at=when.at_ns, difference=when.difference_ns, bound=when.bound_ns)


def over(peer: Peer, number: int, why: str, *, is_final: bool) -> Send:
    """A round has brought nothing here."""
    return _sealed(peer, kind="over", round=number, final=is_final, why=_short(why))


def done(peer: Peer) -> Send:
    """The stream is up and proven here."""
    return _sealed(peer, kind="done")


def bye(peer: Peer, why: str) -> Send:
    """This side ends the meeting."""
    return _sealed(peer, kind="bye", why=_short(why))


def _sealed(peer: Peer, **said: object) -> Send:
    return Send(*peer.channel.seal(json.dumps(said, separators=(",", ":")).encode()))


def _short(why: str) -> str:
    """So much of it as fits, whatever the letters take."""
    while len(json.dumps(why)) > BODY_BYTES // 2:
        why = why[: len(why) * 3 // 4]
    return why


def _broken(what: str) -> SignallingError:
    return SignallingError(
        f"the peer has the code, and does not keep to what simopen's peers say to each other ({what}): is the same "
        f"version of simopen on both sides?"
    )


def _read(record: bytes) -> dict[str, Any]:
    try:
        said = json.loads(record)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise _broken("what it says cannot be read")
    return said


def _number(said: dict[str, Any], name: str, least: int = 0) -> int:
    value = said.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < _LAST_NS:
        raise _broken(f"{name} is no number that can be meant")
    return value


def _round(said: dict[str, Any]) -> int:
    if not 1 <= (number := _number(said, "round")) <= ROUNDS:
        raise _broken("there are three rounds")
    return number


def _text(said: dict[str, Any], name: str) -> str:
    value = said.get(name)
    if not isinstance(value, str):
        raise _broken(f"{name} is no text")
    return value


def _go(said: dict[str, Any]) -> Go:
    return Go(_number(said, "at"), _number(said, "difference", -_LAST_NS), _number(said, "bound"))
