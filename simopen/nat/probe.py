"""One inquiry: which questions go out from which port, when the next ones do, and when it is enough.

Theory of operation. All servers are asked side by side from the punch port, each over TCP; and, so that its other
addresses are known one round trip earlier, over UDP for these alone. The other addresses are asked as soon as they are
known. A few other local ports ask too, to show how ports are allocated, and then try the NAT's hairpin. Meanwhile the
nearest router is asked for its outer address. Whatever is still silent when enough is known gets a little longer, not
the whole time-out; the router gets no time of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeAlias

from simopen.errors import LocalEndpointError, ResolutionError, StunError, no_names, too_short
from simopen.model.endpoint import ANY, Endpoint
from simopen.model.nat import Observation
from simopen.model.server import Heard, Server
from simopen.model.times import MonoNs
from simopen.model.wording import by_reason, human, listed
from simopen.nat import stun
from simopen.nat.connect_back import Backs
from simopen.nat.hairpin import Mapped, hairpins, in_a_row
from simopen.nat.patience import ENOUGH, Patience
from simopen.nat.punch_port import PunchPort
from simopen.nat.stun_tcp import Binding, other_address
from simopen.net.aside import aside
from simopen.net.resolve import Ask, resolved
from simopen.net.routes import is_own, source_address
from simopen.portmap.nat_pmp import outer_address

PROBES = 7
"""Other local ports that ask: `classify` needs five mappings to tell random ports, and eight to call them paired."""
SECOND_ROUNDS = 3
"""Servers whose other addresses are asked: one is enough, the rest is for those that name a wrong one."""
MOST_OBSERVATIONS = 200
"""What is kept of a mapping that changes again and again, or of a server that says so."""
HAIRPIN_FLOOR_S = 0.05
"""With a server nearby, a round trip to it is less than what a few tasks may take to be run."""
BACKS = 2
"""Servers that are to connect back: one may have but one address."""
SILENT_S = 1.0
"""Until a name's next address is asked: three round trips to the other side of the world, or a SYN sent again."""
AGAIN_S = 5.0
"""What a server gets that answered before: a request lost once or twice."""
_NONE_ASKED = "the time was over before one was asked: this machine is busy; allow more of it"
_OTHER_FAMILY = "it has no address of the family that this host's port has"
_FIRST_NOTES = _LATEST_NOTES = 32
PAUSES_S = (0.0, 0.3, 1.0)
"""Before each try of a connection that ended: the kernel keeps its 5-tuple until both have closed it."""


Question: TypeAlias = "Callable[[Endpoint], Coroutine[object, object, None]]"


class Inquiry:
    """All the questions that leave from one punch port. `close` it, whatever happened.

    `held`: the connections that hold the mapping, by server. `hairpinning`: None where that could not be seen.
    `gateway`: the nearest router's outer address; None where it did not say. `look_up`: who knows the servers' names.
    `filtering`: whether servers that can are to connect back, which takes a second and more where they do not get in.
    `backs`: who did.
    """

    def __init__(self, punch_port: PunchPort, look_up: Ask = socket.getaddrinfo, *, filtering: bool = False) -> None:
        self._punch_port = punch_port
        self._look_up = look_up
        self.held: dict[Endpoint, Binding] = {}
        self.observations: list[Observation] = []
        self.notes: list[str] = []
        self._heard: Counter[Heard] = Counter()  # what came of those that were of no use
        self._told_of: set[Endpoint] = set()
        self.hairpinning: bool | None = None
        self.gateway: str | None = None
        self.backs = Backs(BACKS if filtering else 0)
        self._router: asyncio.Task[None] | None = None
        self._open: set[Binding] = set()
        self._asked: set[Endpoint] = set()
        self._second_rounds: set[Endpoint] = set()
        self._probes: list[Binding] = []
        self._hairpinned = False

    async def run(self, servers: Sequence[Server], timeout_s: float) -> None:
        """Ask until all is answered, or `timeout_s` is over, or enough is known and the rest had its time.

        Raises:
            StunError: nobody answered; the message says what each server did.
        """
        loop = asyncio.get_running_loop()
        called_s, asked_s = loop.time(), timeout_s
        await aside(stun.request, bytes(stun.TRANSACTION_BYTES))  # loads the codec: 0.1 s and more
        self._patience = Patience(len(servers), loop.time())
        timeout_s = max(timeout_s / 2, timeout_s - (self._patience.began_s - called_s))  # which must not take all of it
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s) as self._limit, asyncio.TaskGroup() as self._group:
                    self._last_s = self._end_s = self._limit.when() or loop.time()
                    for number, server in enumerate(servers):
                        self._group.create_task(self._server(server, len(range(number, PROBES, len(servers)))))
        finally:
            await self._leave_router()
        silent = self._drop_silent()
        if not self.held:
            raise self._nobody(asked_s, silent=silent)

    def _nobody(self, asked_s: float, *, silent: bool) -> StunError:
        """`asked_s`: for how long; `silent`: whether somebody has still to answer."""
        each_said, heard = listed(by_reason(self.notes)) or _NONE_ASKED, tuple(self._heard.elements())
        late = Heard.NO_NAME_YET in heard or not self.notes
        if (late or silent) and (words := too_short(asked_s, "STUN server")):
            error = StunError(words, heard)
            error.add_note(each_said)
            return error
        if len(heard) == self._patience.servers > 1 and all(each.is_unnamed for each in heard):
            error = StunError(no_names(self._patience.servers, "STUN"), heard)
            error.add_note(each_said)
            return error
        return StunError(f"no STUN server told this host's mapping: {each_said}", heard)

    def _note_of(self, server: Endpoint, what: str, heard: Heard) -> None:
        self._told_of.add(server)
        self.note(f"{server}: {what}", heard)

    def note(self, what: str, heard: Heard | None = None) -> None:
        """Once; and as this may go on for days, of very many the first and the latest. `heard`: of a server, if so."""
        if what not in self.notes:
            self._heard.update([heard] if heard else [])
            self.notes.append(what)
            del self.notes[_FIRST_NOTES:-_LATEST_NOTES]

    def close(self) -> None:
        """Close every connection."""
        for binding in self._open:
            binding.close()

    async def _server(self, server: Server, probes: int) -> None:
        """Ask the first address of each family that lives; from elsewhere, over IPv4 where there is any: NATs are its
        matter."""
        try:
            found = (await resolved([(server.host, server.port)], ask=self._look_up)).endpoints
        except ResolutionError as error:
            self.note(str(error), Heard.NO_NAME)
            return
        except asyncio.CancelledError:
            self.note(f"the name {server.host!r} was not looked up in time", Heard.NO_NAME_YET)
            raise
        by_family = {family: [each for each in found if each.family == family] for family in ANY}
        spoken = {family: those for family, those in by_family.items() if those and self._punch_port.speaks(family)}
        if not spoken:
            refused = [error for family, error in self._punch_port.refused.items() if by_family[family]]
            self.note(f"{server}: {refused[0] if refused else _OTHER_FAMILY}", Heard.UNUSABLE)
            return
        if socket.AF_INET in spoken and self._router is None:
            self._router = asyncio.create_task(self._ask_router(spoken[socket.AF_INET][0]))
        for those in spoken.values():
            self._group.create_task(self._one_after_another(those, self._first_round))
        for _ in range(probes):
            those = spoken.get(socket.AF_INET) or spoken[socket.AF_INET6]
            self._group.create_task(self._one_after_another(those, self._ask_from_elsewhere))

    async def _one_after_another(self, servers: Sequence[Endpoint], ask: Question) -> None:
        """Until one has answered: a name may stand for some that live and some that do not."""
        for server in servers:
            asked = self._group.create_task(ask(server))
            await asyncio.wait({asked}, timeout=SILENT_S)
            if any(each.server == server for each in self.observations):
                return

    async def _ask_router(self, server: Endpoint) -> None:
        with contextlib.suppress(LocalEndpointError):  # for want of descriptors, say: then nobody knows
            source = source_address(server, self._punch_port.address)
            self.gateway = None if source is None else await outer_address(server, source)

    async def _leave_router(self) -> None:
        if self._router is not None:
            self._router.cancel()
            await asyncio.wait({self._router})

    async def _first_round(self, server: Endpoint) -> None:
        hint = self._group.create_task(self._hint(server))
        answer = await self._ask(server)
        hint.cancel()
        if answer is not None:
            self._second_round(server, answer.other)
            self._have_connected_back(server, answer)
            self._hurry()
            await self._try_hairpin()

    async def _hint(self, server: Endpoint) -> None:
        self._second_round(server, await other_address(server))

    def _second_round(self, server: Endpoint, other: Endpoint | None) -> None:
        if other is None or server in self._second_rounds or len(self._second_rounds) >= SECOND_ROUNDS:
            return
        self._second_rounds.add(server)
        for end in stun.second_round(server, other):
            if _means_this_host(end, server):
                continue
            self._patience.awaited += 1
            self._group.create_task(self._ask_second(end))

    async def _ask_second(self, end: Endpoint) -> None:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        answer = await self._ask(end)
        self._patience.awaited -= 1
        if answer is not None:
            self._patience.answered(begun_s, loop.time())
        self._hurry()
        if answer is not None:
            await self._try_hairpin()

    def _hurry(self) -> None:
        """Bring the end forward, now that something is known."""
        now_s = asyncio.get_running_loop().time()
        if self.held and not self._limit.expired():
            self._end_s = min(self._end_s, self._patience.end_s(self._ours(), now_s))
            self._limit.reschedule(self._last_s if self.backs.under_way else self._end_s)

    def _have_connected_back(self, server: Endpoint, answer: stun.Answer) -> None:
        """The end waits for what comes of it: the server's time for that is bounded, and so is this inquiry's."""
        if self.backs.takes(answer):
            self._group.create_task(self._connected_back(server, answer.other))

    async def _connected_back(self, server: Endpoint, other: Endpoint | None) -> None:
        if why := await self.backs.ask(self._punch_port.elsewhere(server.family), server, other):
            self.note(f"{server}: connecting back: {why}")
        self._hurry()

    def _ours(self) -> list[Observation]:
        """What servers that answer saw of the punch port, for the address family with more of their addresses."""
        by_family: dict[socket.AddressFamily, list[Observation]] = defaultdict(list)
        for each in self.observations:
            if each.server in self.held and each.local.port == self._punch_port.port:
                by_family[each.server.family].append(each)
        return max(by_family.values(), key=lambda seen: len({each.server.address for each in seen}), default=[])

    def _mapped_by_address(self) -> dict[str, Endpoint]:
        """What each server's address saw of the punch port."""
        return {each.server.address: each.mapped for each in self._ours()}

    async def _ask(self, server: Endpoint) -> stun.Answer | None:
        """Ask from the punch port, once; the connection is held where it answers."""
        if server in self._asked:
            return None
        self._asked.add(server)
        return await self._hold(server)

    async def _hold(self, server: Endpoint) -> stun.Answer | None:
        binding = self._connection(self._punch_port.local(server.family), server)
        answer = await self._question(binding) if binding else None
        if binding is None or answer is None:
            return None
        self.held[server] = binding
        self._observe(binding, answer)
        return answer

    def _connection(self, local: tuple[str, int], server: Endpoint) -> Binding | None:
        try:
            binding = Binding(local, server)
        except LocalEndpointError as error:
            self._note_of(server, str(error), Heard.UNUSABLE)
            return None
        self._open.add(binding)
        return binding

    async def _question(self, binding: Binding) -> stun.Answer | None:
        try:
            return await binding.ask()
        except StunError as error:
            self._note_of(binding.server, str(error), error.heard[0])
            self._end(binding)
            return None

    def _end(self, binding: Binding) -> None:
        binding.close()
        self._open.discard(binding)
        if self.held.get(binding.server) is binding:
            del self.held[binding.server]

    def _observe(self, binding: Binding, answer: stun.Answer) -> None:
        self._keep(Observation(binding.local, binding.server, answer.mapped, binding.at_ns))

    def _keep(self, seen: Observation) -> None:
        self.observations = [*self.observations[1 - MOST_OBSERVATIONS :], seen]

    async def _ask_from_elsewhere(self, server: Endpoint) -> None:
        await asyncio.sleep(0)  # behind the question over UDP: between two TCP ones, it shows whether they share a row
        binding = self._connection(self._punch_port.elsewhere(server.family), server)
        answer = await self._question(binding) if binding else None
        if binding is None or answer is None:
            return
        self._observe(binding, answer)
        self._probes.append(binding)
        await self._try_hairpin()

    async def _try_hairpin(self) -> None:
        """Between the first two ports, once; not where they are not translated: then no NAT has a hand in it.

        Nor where the servers see different mappings: theirs are no use to anybody else, and the two SYNs would take two
        ports of a row that is to be foreseen. So it waits for a second server's word, where there will be one; for that
        of the first one's other address, a round trip later, only where there seems to be a row.
        """
        mapped = self._mapped_by_address()
        if self._hairpinned or len(self._probes) < 2 or len(mapped) < self._patience.wanted:
            return
        ends = [Mapped(each.local, self._mapped_of(each)) for each in self._probes[:2]]
        if len(mapped) < ENOUGH and in_a_row(*ends):
            return
        self._hairpinned = True
        if len(set(mapped.values())) > 1:
            return
        if any(each.local.address == each.mapped.address for each in ends):
            return
        if any(_means_this_host(end.mapped, each.server) for end, each in zip(ends, self._probes, strict=False)):
            return
        trip_s = max(each.handshake_s for each in self._probes[:2])
        with contextlib.suppress(LocalEndpointError):
            self.hairpinning = await hairpins(ends[0], ends[1], max(trip_s, HAIRPIN_FLOOR_S))

    async def probe(self, server: Endpoint) -> None:
        """Ask once more from another local port, to see where a new mapping is put now."""
        binding = self._connection(self._punch_port.elsewhere(server.family), server)
        answer = await self._answer_in_time(binding) if binding else None
        if binding is not None and answer is not None:
            self._observe(binding, answer)
            binding.give_up()
            self._end(binding)

    def _mapped_of(self, binding: Binding) -> Endpoint:
        return next(each.mapped for each in self.observations if each.local == binding.local)

    def _drop_silent(self) -> bool:
        """Close all but what holds the mapping, and say who never answered; returns whether anybody did not.

        Of whom something else is told, nothing is added: it hung up, say, and was being asked once more.
        """
        waited_s = asyncio.get_running_loop().time() - self._patience.began_s
        silent, unheard = self._open - set(self.held.values()), list[Endpoint]()
        for binding in sorted(silent, key=lambda each: each.at_ns):
            if binding in self._probes:
                binding.give_up()
            else:
                unheard.append(binding.server)
            self._end(binding)
        for server in unheard:
            if server not in self._told_of:
                self._note_of(server, f"no answer within {_waited(waited_s)}", Heard.NOTHING)
        return bool(unheard)

    def living(self) -> tuple[Endpoint, ...]:
        """The servers that have not hung up on us; the connections to the others are closed on this side too."""
        for binding in tuple(self.held.values()):
            if binding.ended:
                self._end(binding)
        return tuple(self.held)

    async def ask_again(self, server: Endpoint) -> bool:
        """Ask one that answered before, on the same connection or, where that has ended, on a new one.

        Returns whether it sees another mapping now.
        """
        binding = self.held.get(server) if server in self.living() else None
        answer = await self._answer_in_time(binding) if binding else None
        if binding is None or answer is None:
            return await self._hold_anew(server)
        changed = answer.mapped != self._latest(server)
        if changed:
            self._keep(Observation(binding.local, server, answer.mapped, MonoNs(time.monotonic_ns())))
        return changed

    async def _answer_in_time(self, binding: Binding) -> stun.Answer | None:
        try:
            async with asyncio.timeout(AGAIN_S):
                return await self._question(binding)
        except TimeoutError:
            self.note(f"{binding.server}: no answer within {AGAIN_S:g} s, where there had been one before")
            self._end(binding)
            return None

    def _latest(self, server: Endpoint) -> Endpoint:
        return self._from_punch_port(server)[-1].mapped

    def _from_punch_port(self, server: Endpoint) -> list[Observation]:
        port = self._punch_port.port
        return [each for each in self.observations if (each.server, each.local.port) == (server, port)]

    async def _hold_anew(self, server: Endpoint) -> bool:
        """What the ended connection was mapped to no longer counts: a NAT may well map a new one otherwise."""
        for pause_s in PAUSES_S:
            await asyncio.sleep(pause_s)
            binding = self._connection(self._punch_port.local(server.family), server)
            answer = await self._answer_in_time(binding) if binding else None
            if binding is not None and answer is not None:
                return self._replace(binding, answer)
        return False

    def _replace(self, binding: Binding, answer: stun.Answer) -> bool:
        before = self._from_punch_port(binding.server)
        self.observations = [each for each in self.observations if each not in before]
        self.held[binding.server] = binding
        self._observe(binding, answer)
        changed = before[-1].mapped != answer.mapped
        if changed:
            self.note(f"{binding.server}: saw {before[-1].mapped} before, sees {answer.mapped} now")
        return changed


def _means_this_host(named: Endpoint, server: Endpoint) -> bool:
    """Whether a server elsewhere names this host itself: one of its services would answer."""
    return is_own(named.address) and not is_own(server.address)


def _waited(waited_s: float) -> str:
    return f"{waited_s:.1f} s" if waited_s >= 0.1 else human(waited_s)
