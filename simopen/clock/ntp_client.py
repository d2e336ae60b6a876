"""Time servers: whom to ask, and the sockets that ask them.

Theory of operation. All servers are asked side by side, each on a UDP socket per address family. The sockets
are not connected, so that an answer from elsewhere is seen and named instead of vanishing in the kernel. `ntp`
judges each answer, `selection` all of them together; here is only who is asked, when, and how.
Clocks are read through what is passed in, never directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from simopen.clock import ntp
from simopen.model.endpoint import ANY, normalise
from simopen.model.server import Heard, Server, read_servers
from simopen.model.wording import listed
from simopen.net import own_flows
from simopen.net.os_errors import local_error, reason
from simopen.net.resolve import MOST_ADDRESSES, Ask, look_up
from simopen.net.routes import NO_WAY
from simopen.net.sockets import sockaddr

NTP_PORT = 123

DEFAULT_SERVERS = (
    "time.cloudflare.com",  # anycast in some 300 cities; "free"; documented not to smear leap seconds
    "any.time.nl",  # TimeNL (SIDN Labs): anycast, 28 nodes world-wide; "available for anyone to use"
    "ntp.netnod.se",  # Netnod: the one name it asks everybody to use; caesium clocks traceable to UTC(SP)
    "ptbtime1.ptb.de",  # PTB, Germany's metrology institute: "publicly accessible", fed by UTC(PTB) itself
)
"""Four operators, none of which smears leap seconds, all open to the public without being asked first.

Two are anycast: the bound is about as good as the second nearest server. Left out on purpose: pool.ntp.org
(asks software vendors for a zone of their own), NIST (at most one query in 4 s), NICT (at most 20 an hour),
and Google, AWS and Meta (they smear).
"""

PAUSES_S = (0.05, 0.05, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Pauses between the at most eight queries to a server. 50 ms lets a queue on the path drain in between, and
four of them are over in 0.2 s. chrony's rate limit lets a burst of eight pass; ntpd's answers the first, then
RATE: we stop, and keep that first. Growing afterwards, so that a lost burst is survived and a silent server
is not hammered."""
GRACE_S = 0.25
"""What the rest still gets once enough servers agree: a round trip to the other side of the world."""

SMEARING = (
    # developers.google.com/time: "leap-smeared time ... we recommend that you don't configure" it with others
    (r"time\d*\.google\.com|time\.android\.com|216\.239\.35\.(0|4|8|12)|2001:4860:4806:[048c]?::", "Google"),
    # docs.aws.amazon.com/AWSEC2/latest/UserGuide/set-time.html: local and public service smear alike
    (r"time\.aws\.com|169\.254\.169\.123|fd00:ec2::123", "AWS"),
    # engineering.fb.com, 2020-03-18 on its public time service: smears
    (r"time\d*\.facebook\.com", "Meta"),
)
"""Who is known to smear leap seconds: names or addresses (a pattern), operator, and the source."""


def parse_servers(servers: Sequence[str | tuple[str, int]]) -> tuple[Server, ...]:
    """The servers meant: "host", "host:port", "v6", "[v6]:port" or (host, port) each; port 123 unless given.

    Raises:
        TypeError: a bare string, where a sequence of them is meant; a name that is no string.
        ValueError: none at all, one that cannot be read, one named twice (it would have two votes), or one
            that smears leap seconds beside one that does not (up to 0.5 s apart for a day).
    """
    parsed = read_servers(servers, NTP_PORT, "a time server")
    if len(set(parsed)) < len(parsed):
        raise ValueError(f"a time server is named twice, and would vote twice: {listed(_named_twice(parsed), ', ')}")
    _refuse_mixed(parsed)
    return parsed


def _named_twice(servers: tuple[Server, ...]) -> list[Server]:
    return [server for server, count in Counter(servers).items() if count > 1]


def smears(server: Server) -> str | None:
    """The operator, where `server` is known to smear leap seconds."""
    return next((operator for names, operator in SMEARING if re.fullmatch(names, server.host)), None)


def _refuse_mixed(servers: tuple[Server, ...]) -> None:
    smearing = [f"{each} ({operator})" for each in servers if (operator := smears(each))]
    if 0 < len(smearing) < len(servers):
        raise ValueError(f"{listed(smearing, ', ')} smears leap seconds, the others do not: ask one kind only")


async def ask(
    servers: Sequence[Server],
    local: ntp.ReadsClocks,
    timeout_s: float,
    enough: Callable[[Sequence[ntp.Answers]], bool],
    *,
    look_up_by: Ask = socket.getaddrinfo,
) -> list[ntp.Answers]:
    """Ask all servers side by side; by `timeout_s`, return all that was heard, in their order.

    Ends when every server is settled, or `GRACE_S` after `enough(answers)` became true. Servers that fail do
    not raise: their `Answers` say why. `look_up_by`: who knows the servers' names.
    """
    loop = asyncio.get_running_loop()
    answers = [ntp.Answers(str(server)) for server in servers]
    deadline_s = loop.time() + timeout_s
    async with _tasks(_ask_server(*each, local, look_up_by) for each in zip(servers, answers, strict=True)) as waiting:
        while waiting and (left_s := deadline_s - loop.time()) > 0:
            await _first_done(waiting, left_s)
            if enough(answers):
                deadline_s = min(deadline_s, loop.time() + GRACE_S)
    return answers


@contextlib.asynccontextmanager
async def _tasks(coroutines: Iterable[Any]) -> AsyncIterator[set[asyncio.Task[None]]]:
    """The coroutines as running tasks; whatever happens inside, none is left behind."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        yield set(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _first_done(waiting: set[asyncio.Task[None]], timeout_s: float | None = None) -> None:
    """Wait for one task at least, take out those that ended, and let a bug in them be seen."""
    done, _ = await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    waiting -= done
    for task in done:
        task.result()


async def _ask_server(
    server: Server, answers: ntp.Answers, local: ntp.ReadsClocks, look_up_by: Ask = socket.getaddrinfo
) -> None:
    """Ask one address of each family side by side: so it shows which family has a way there."""
    try:
        addresses = await _resolve(server, look_up_by)
    except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be had
        answers.unnamed = Heard.NO_NAME
        answers.refuse(f"its name cannot be resolved ({reason(error)})")
        return
    except asyncio.CancelledError:
        answers.unnamed = Heard.NO_NAME_YET
        answers.refuse("its name was not resolved in time")
        raise
    async with _tasks(_ask_family(answers, *each, local) for each in addresses.items()) as waiting:
        while waiting and not (answers.no_more or answers.samples):
            await _first_done(waiting)


async def _ask_family(
    answers: ntp.Answers, family: socket.AddressFamily, addresses: Sequence[Any], local: ntp.ReadsClocks
) -> None:
    """One after the other, until one has answered: a name may stand for some that live and some that do not."""
    async with contextlib.AsyncExitStack() as stack:
        waiting: set[asyncio.Task[None]] = set()
        for address in addresses:
            exchange = _Exchange(answers, family, address, local)
            waiting |= await stack.enter_async_context(_tasks([exchange.run()]))
            await _first_done(waiting, ntp.PATIENCE_S)
            if answers.no_more or answers.samples:
                break
        while waiting and not answers.no_more:
            await _first_done(waiting)
            if answers.samples:
                break


async def _resolve(server: Server, look_up_by: Ask) -> dict[socket.AddressFamily, list[Any]]:
    """The addresses of each family, in the resolver's order: at most `MOST_ADDRESSES` of each."""
    try:  # an address needs no resolver, and so no thread
        flags = socket.AI_NUMERICHOST
        found: list[Any] = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM, flags=flags)
    except socket.gaierror:
        found = await look_up(server.host, server.port, socket.SOCK_DGRAM, ask=look_up_by)
    by_family: dict[socket.AddressFamily, list[Any]] = {}
    for end in dict.fromkeys(normalise(address) for family, *_, address in found if family in ANY):
        by_family.setdefault(end.family, []).append(sockaddr(end))
    return {family: those[:MOST_ADDRESSES] for family, those in by_family.items()}


_SO_TIMESTAMPNS = 35  # asm-generic/socket.h, and the control message's type; unknown to `socket`
_TIMESPEC = struct.Struct("@ll")
_RECVERR = {  # linux/in.h, linux/in6.h: so that an unconnected socket hears of "port unreachable"
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}
_DATAGRAM_MAX = 1024  # 48 and room for extension fields; longer ones are cut, and only the header is read
_ORIGIN = slice(24, 32)  # RFC 5905 figure 8
_BATCH = 16  # a flood must not keep the loop
_MOST_DATAGRAMS = 4096
"""Where eight answers are asked for: what comes then is a flood, in which none would be found any more."""


class _Exchange:
    """The queries to one address of one server, and its answers, on a socket of their own."""

    def __init__(self, answers: ntp.Answers, family: socket.AddressFamily, to: Any, local: ntp.ReadsClocks) -> None:
        self._answers, self._family, self._to, self._local = answers, family, to, local
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._sent: dict[bytes, ntp.Reads] = {}
        self._answered: set[bytes] = set()
        self._heard = 0

    async def run(self) -> None:
        """Query until the server is settled, or this address turns out to be dead."""
        try:
            with socket.socket(self._family, socket.SOCK_DGRAM) as sock:
                self._take_port(sock)
                await self._converse(sock)
        except OSError as error:  # no route, no such family: this address is dead, not the check
            self._dead(error)

    def _take_port(self, sock: socket.socket) -> None:
        """Windows wants one before it reads; and a query that gets none looks like one that a full queue lost."""
        anywhere = ANY[self._family], 0
        try:
            sock.bind(anywhere)
        except OSError as error:
            raise local_error(error, anywhere) from error

    async def _converse(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._ask_for_stamps(sock)
        self._send(sock)
        own_flows.shared.note_socket(sock, normalise(self._to), self._local.read().monotonic_ns)
        async with self._reading(sock):
            for pause_s in PAUSES_S:
                if await self._settled(pause_s):
                    return
                self._send(sock)
            await self._settled(None)

    async def _settled(self, pause_s: float | None) -> bool:
        await asyncio.wait({self._over}, timeout=pause_s)
        return self._over.done() or self._answers.settled(self._loop.time() - self._began_s)

    def _send(self, sock: socket.socket) -> None:
        cookie = os.urandom(8)
        packet = ntp.request(cookie)
        self._answers.queries += 1
        self._sent[cookie] = self._local.read()  # T1: the last thing before the query leaves
        with contextlib.suppress(BlockingIOError):  # a full queue: the same as a lost query
            sock.sendto(packet, self._to)

    @contextlib.asynccontextmanager
    async def _reading(self, sock: socket.socket) -> AsyncIterator[None]:
        if not self._watch(sock):
            async with _tasks([self._pump(sock)]):
                yield
            return
        try:
            yield
        finally:
            self._loop.remove_reader(sock)

    def _watch(self, sock: socket.socket) -> bool:
        """False where that cannot be: Windows has no recvmsg, and its default loop watches no sockets."""
        if not hasattr(sock, "recvmsg"):
            return False
        try:
            self._loop.add_reader(sock, self._readable, sock)
        except NotImplementedError:
            return False
        return True

    async def _pump(self, sock: socket.socket) -> None:
        try:
            while not self._over.done():
                self._received(*await self._loop.sock_recvfrom(sock, _DATAGRAM_MAX), None)
                await asyncio.sleep(0)  # where more is there already, nothing else lets the loop run
        except OSError as error:
            self._dead(error)

    def _ask_for_stamps(self, sock: socket.socket) -> None:
        if sys.platform == "linux":
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            sock.setsockopt(*_RECVERR[self._family], 1)

    def _readable(self, sock: socket.socket) -> None:
        try:
            for _ in range(_BATCH if not self._over.done() else 0):
                data, control, _, source = sock.recvmsg(_DATAGRAM_MAX, socket.CMSG_SPACE(_TIMESPEC.size))
                self._received(data, source, _stamp_ns(control))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:  # from ICMP; the queue it came from goes with the socket
            self._dead(error)

    def _received(self, data: bytes, source: Any, stamp_ns: int | None) -> None:
        now = self._local.read()
        self._heard += 1
        if self._heard > _MOST_DATAGRAMS:
            self._answers.refuse(f"more than {_MOST_DATAGRAMS:,} datagrams came (at {_text(self._to)}): a flood")
            self._finish()
            return
        try:
            self._take(data[_ORIGIN], self._sample(data, source, now, stamp_ns))
        except ntp.Refused as refused:
            self._answers.take(refused)
        if self._answers.settled(self._loop.time() - self._began_s):
            self._finish()

    def _sample(self, data: bytes, source: Any, now: ntp.Reads, stamp_ns: int | None) -> ntp.Sample:
        if source[:2] != self._to[:2]:
            raise ntp.Stray(f"an answer came from {_text(source)} instead of {_text(self._to)}", "from elsewhere")
        answer = ntp.parse(data, self._sent)
        sent = self._sent[data[_ORIGIN]]
        return ntp.sample(_text(self._to), sent.monotonic_ns, answer, ntp.arrival_ns(sent, now, stamp_ns))

    def _take(self, cookie: bytes, sample: ntp.Sample) -> None:
        (self._answers.repeated if cookie in self._answered else self._answers.samples).append(sample)
        self._answered.add(cookie)

    def _dead(self, error: OSError) -> None:
        # Of a datagram's socket, which shares no port, this means that no address of this host's leads there.
        said = NO_WAY if error.errno == errno.EADDRNOTAVAIL else reason(error)
        self._answers.refuse(f"{said} (at {_text(self._to)})")
        self._finish()

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


def _text(address: Any) -> str:
    host, port, *_ = address
    return str(Server(host, port, NTP_PORT))


def _stamp_ns(control: Iterable[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in control:
        if (level, kind, len(data)) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS, _TIMESPEC.size):
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return None
