"""NATs in a row, as behind a carrier's: the home's, then the carrier's.

Theory of operation. NAT 0 is next to the hosts. What goes out passes each in order, what comes in passes them in
reverse, and each refuses for itself; whoever then answers sends the answer out through those between itself and the
core. A packet that meets its own NAT's public address on the way out turns there and comes in again, where that NAT
hairpins (RFC 4787 §6). Pure, as `model.py` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from simopen.lab.nat.model import Unsolicited
from simopen.lab.nat.translator import Decision, Translator
from simopen.lab.packet import Headers, Numbers


class Outcome(NamedTuple):
    """What a row of NATs did with a packet. `nat`: the index of the one that refused it, None where it passed.

    `headers` are the packet's as that NAT saw them, or as they are after the last. `inside`: it passed, and is before
    the hosts now. `passed`: each NAT that let it through, and the headers after it, in the order of its way.
    """

    decision: Decision
    headers: Headers
    nat: int | None = None
    inside: bool = False
    passed: tuple[tuple[int, Headers], ...] = ()


class Chain:
    """The NATs between some hosts and the core, from the hosts outwards; none at all is fine.

    `tracks`: one of them looks at a TCP segment's `numbers`, where it is given some.
    """

    def __init__(self, translators: Sequence[Translator] = ()) -> None:
        self.translators = tuple(translators)
        self.tracks = any(translator.nat.tracking for translator in self.translators)

    def outbound(self, headers: Headers, now_ns: int, first: int = 0, numbers: Numbers | None = None) -> Outcome:
        """Take a packet outwards, from the NAT of that index. Where it turned, it is `inside` again."""
        passed: tuple[tuple[int, Headers], ...] = ()
        for index in range(first, len(self.translators)):
            translator = self.translators[index]
            decision = translator.outbound(headers, now_ns, numbers)
            if isinstance(decision, Unsolicited):
                return Outcome(decision, headers, index, passed=passed)
            headers, passed = decision, (*passed, (index, decision))
            if headers.destination.address in translator.public_addresses:
                turned = self._turn(headers, now_ns, index, numbers)
                return turned._replace(passed=passed + turned.passed)
        return Outcome(headers, headers, passed=passed)

    def inbound(
        self, headers: Headers, now_ns: int, first: int | None = None, numbers: Numbers | None = None
    ) -> Outcome:
        """Take a packet inwards, from the NAT of that index, from the outermost where none is given."""
        passed: tuple[tuple[int, Headers], ...] = ()
        for index in reversed(range(len(self.translators) if first is None else first + 1)):
            decision = self.translators[index].inbound(headers, now_ns, numbers)
            if isinstance(decision, Unsolicited):
                return Outcome(decision, headers, index, passed=passed)
            headers, passed = decision, (*passed, (index, decision))
        return Outcome(headers, headers, inside=True, passed=passed)

    def answer(self, headers: Headers, now_ns: int, nat: int, numbers: Numbers | None = None) -> Outcome:
        """Send what the NAT of that index itself says: outwards, or inwards where it answers somebody inside."""
        if headers.destination.address in self.translators[nat].public_addresses:
            return self.inbound(headers, now_ns, nat, numbers)
        return self.outbound(headers, now_ns, nat + 1, numbers)

    def _turn(self, headers: Headers, now_ns: int, index: int, numbers: Numbers | None) -> Outcome:
        if not self.translators[index].nat.hairpinning:
            return Outcome(Unsolicited.DROP, headers, index)
        return self.inbound(headers, now_ns, index, numbers)
