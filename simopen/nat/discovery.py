"""What the NATs in front of a port do, found out from that port itself, and the mapping held while it is wanted.

Theory of operation: `probe` asks, `classify` judges, and here the two meet. The connections to the servers stay open as
long as `discovering` is, and so does the mapping (a FIN may close it): nobody who means to punch lets go of it before.

CHANGE-REQUEST does not exist on TCP (RFC 5780 §7.2). Filtering is learnt where one of the servers connects back, as
those of `simopen serve` do, and where it is asked for: it takes a second and more.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from simopen import _logs
from simopen.clock.instant import positive_s
from simopen.errors import StunError
from simopen.model.endpoint import Endpoint, Local, Reach, local_endpoint, refusal
from simopen.model.nat import Allocation, Mapping, Profile
from simopen.model.server import Server
from simopen.model.times import MonoNs
from simopen.model.wording import by_reason, first_few
from simopen.nat.classify import classify
from simopen.nat.filtering import LetIn, judged
from simopen.nat.probe import Inquiry
from simopen.nat.punch_port import PunchPort
from simopen.nat.stun_tcp import DEFAULT_SERVERS, parse_servers
from simopen.net import own_flows
from simopen.net.aside import aside

logger = _logs.logger("discovery")

TIMEOUT_S = 4.0
"""A SYN that is lost on the way is sent again after 1 s, and once more 2 s later."""
LOOK_S = 1.0
"""How often to look whether the mapping is still held: coturn 4.6 resets a connection that allocates nothing 3 s after
it began, asked again or not (measured), and Linux forgets a flow 10 s after a RST (nf_conntrack_tcp_timeout_close)."""
LOOKS_A_REFRESH = 25
"""Looks from one question to the next on a living connection: 25 s are below any NAT's idle time-out for TCP."""
_EACH_ITS_OWN = {Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT}


async def discover(
    local: Local = None,
    *,
    servers: Sequence[str | tuple[str, int]] = DEFAULT_SERVERS,
    timeout: float = TIMEOUT_S,
) -> Profile:
    """What the NATs in front of a local port do to TCP, in RFC 4787's terms.

    Takes three round trips to the servers: four where UDP is blocked and the answers differ. Meanwhile the nearest
    router is asked for its outer address, by NAT-PMP. The filtering is found where one of the servers is a
    `simopen serve`, which connects back: 1.1 s and a few round trips more where it is not let in. The mapping may be
    gone once it returns: `simopen.holding` keeps it.

    Args:
        local: the local port or (IP address, port) to ask from; left out, one that is free.
        servers: STUN servers that answer over TCP, asked side by side: "host", "host:port" or (host, port) each, port
            3478 unless given. One named twice is asked once.
        timeout: seconds after which what was heard by then must do.

    Raises:
        TypeError, ValueError: a bad argument.
        LocalEndpointError: the local endpoint cannot be had.
        StunError: no server answered; the message says what each one did.
    """
    async with discovering(local, servers=servers, timeout=timeout, kind=Discovery, filtering=True) as found:
        found.give_up()
        return found.profile


D = TypeVar("D", bound="Discovery")


@contextlib.asynccontextmanager
async def discovering(
    local: Local = None,
    *,
    servers: Sequence[str | tuple[str, int]] = DEFAULT_SERVERS,
    timeout: float = TIMEOUT_S,
    kind: Callable[[PunchPort, Inquiry], D],
    filtering: bool = False,
    even_unseen: bool = False,
) -> AsyncIterator[D]:
    """`discover`, and hold the mapping while inside; `simopen.holding` for those who make no `kind` of their own.

    The connections to the servers stay open and are asked again every 25 s; where all servers have hung up, one is
    connected to anew. Leaving closes them by FIN. `filtering`: whether to find that out, too. `even_unseen`: go on
    where no server answers and this host has addresses that a peer may reach; see `Discovery.unseen`. Arguments and
    errors are as in `discover`.
    """
    asked, timeout_s = parse_servers(servers), positive_s("timeout", timeout)
    address, port = (None, 0) if local is None else local_endpoint(local, 0)
    with PunchPort(address, port) as punch_port:
        inquiry = Inquiry(punch_port, filtering=filtering)
        try:
            logger.info(
                "asking STUN servers: %d, from port %d, for at most %.1f s", len(asked), punch_port.port, timeout_s
            )
            unseen = await _unseen(inquiry, asked, timeout_s)
            found = kind(punch_port, inquiry)
            if unseen is not None:
                if not (even_unseen and found.has_own_address):
                    raise unseen
                found.unseen = str(unseen)
            await found._judge()
            logger.info("STUN servers that answered: %d; %s", len(found.servers), found.profile)
            async with found._kept():
                yield found
        finally:
            inquiry.close()


async def _unseen(inquiry: Inquiry, servers: Sequence[Server], timeout_s: float) -> StunError | None:
    """Ask; why nobody saw this host, where no server answered."""
    try:
        await inquiry.run(servers, timeout_s)
    except StunError as error:
        return error
    return None


class Discovery:
    """What was found out, and the connections that hold the mapping. Made by `discovering`.

    `profile`: what all answers so far show of IPv4, or of IPv6 where no server answered over IPv4. `profile6`: what
    they show of IPv6; None where no server answered over it. Both are replaced where an answer shows something new.
    `unseen`: None; else no server answered, this says what each did, and `profile` has this host's own addresses alone.
    """

    def __init__(self, punch_port: PunchPort, inquiry: Inquiry, *, look_s: float = LOOK_S) -> None:
        self._inquiry = inquiry
        self._look_s = look_s
        self._servers = tuple(inquiry.held)
        self._hosts = punch_port.hosts(each.local.address for each in inquiry.held.values())
        self._untold = [punch_port.untold] if punch_port.untold else []
        self._one_at_a_time = asyncio.Lock()
        self.port = punch_port.port
        self.profile = Profile(hosts=self._hosts)
        self.profile6: Profile | None = None
        self.unseen: str | None = None
        self._judged: dict[socket.AddressFamily, tuple[object, Profile]] = {}  # the evidence, and what it shows

    @property
    def has_own_address(self) -> bool:
        """Whether a peer may reach one of this host's own addresses, as far as these show."""
        return any(refusal(host, Reach.SITE) is None for host in self._hosts)

    @property
    def servers(self) -> tuple[Endpoint, ...]:
        """Those that answered, from the punch port."""
        return self._servers

    @property
    def notes(self) -> tuple[str, ...]:
        """What the servers that were of no use did, one sentence each; of very many, the first few."""
        return first_few(by_reason([*self._untold, *self._inquiry.notes]))

    async def refresh(self) -> Profile:
        """Ask every server that answered once more, connecting anew where it hung up; return what that shows."""
        async with self._one_at_a_time:
            await self._asked_again(self._servers)
            await self._judge()
        return self.profile

    @property
    def walks(self) -> bool:
        """Whether each destination gets the next port in a row."""
        return self.profile.mapping in _EACH_ITS_OWN and self.profile.allocation is Allocation.SEQUENTIAL

    async def look_again(self) -> Profile:
        """Ask from one more local port: how far a row of ports has moved shows only with time."""
        async with self._one_at_a_time:
            await self._inquiry.probe(self._servers[0])
            await self._judge()
        return self.profile

    def give_up(self) -> None:
        """Let the mapping go at the end, by RST, so that this port can ask the same servers again at once."""
        for binding in self._inquiry.held.values():
            binding.give_up()

    @contextlib.asynccontextmanager
    async def _kept(self) -> AsyncIterator[None]:
        keeper = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})

    async def _keep(self) -> None:
        for look in itertools.count(1):
            await asyncio.sleep(self._look_s)
            try:
                async with self._one_at_a_time:
                    await self._look(look)
            except Exception as error:  # whatever it is, the mapping is still wanted, and its holder must know
                self._tell(error)

    def _tell(self, error: Exception) -> None:
        what = f"whether the mapping is still held could not be seen: {str(error) or type(error).__name__}"
        if what not in self._inquiry.notes:  # there is a look a second
            logger.warning("a look at the mapping of port %d failed", self.port, exc_info=error)
        self._inquiry.note(what)

    async def _look(self, look: int) -> None:
        if await self._asked_again(self._due(look)):
            await self._asked_again(self._servers)  # what the others saw before is of no more use
        await self._judge()

    async def _asked_again(self, servers: Sequence[Endpoint]) -> bool:
        """Whether one of them sees another mapping than before."""
        return any(await asyncio.gather(*map(self._inquiry.ask_again, servers)))

    def _due(self, look: int) -> tuple[Endpoint, ...]:
        """Whom to ask at this look: nobody, all that live, or, where none does, one after the other.

        Where each server gets a mapping of its own, no connection holds what a peer will get, and each new one
        would take a port in the row that is predicted.
        """
        living = self._inquiry.living()
        if not self._servers:
            return ()
        if not living and self.profile.mapping in _EACH_ITS_OWN:
            return ()
        if not living:
            return (self._servers[look % len(self._servers)],)
        return () if look % LOOKS_A_REFRESH else living

    async def _judge(self) -> None:
        """See what the answers show. In a thread: it takes up to 0.3 s (measured), and most looks find nothing new."""
        profile6 = await self._shown(socket.AF_INET6)
        self.profile = await self._shown(socket.AF_INET) or profile6 or self.profile
        self.profile6 = profile6

    async def _shown(self, family: socket.AddressFamily) -> Profile | None:
        seen = tuple(each for each in self._inquiry.observations if each.server.family == family)
        if not seen:
            return None
        gateway = self._inquiry.gateway if family == socket.AF_INET else None
        times = [MonoNs(each.at_ns) for each in seen]  # as `Inquiry` keeps them
        begun_ns, latest_ns = min(times), max(times)
        own_flows.shared.judge(self.port, latest_ns)
        sent = tuple(flow for flow in own_flows.shared.since(begun_ns) if flow.at_ns <= latest_ns)
        let_in = self._inquiry.backs.let_in.get(family, LetIn())
        evidence = (seen, self._inquiry.hairpinning, gateway, sent, let_in)
        if family not in self._judged or self._judged[family][0] != evidence:
            judge = functools.partial(
                classify,
                hosts=self._hosts,
                hairpinning=evidence[1],
                filtering=judged(let_in),
                gateway=gateway,
                flows=sent,
            )
            self._judged[family] = evidence, await aside(judge, seen)
        return self._judged[family][1]
