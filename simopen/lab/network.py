"""Networks and their hosts, as a test or a program uses them.

Theory of operation. `Network` owns a lab process (see `supervisor.py`), the descriptors of its hosts' namespaces, and
every program started in a host. A program is started through `launcher.py`, in a session of its own, so that its whole
process group can be ended. Leaving the network ends them all.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from simopen.errors import LabError
from simopen.lab.nat.model import Nat
from simopen.lab.net.conditions import Addresses, Conditions
from simopen.lab.net.linux_router import LinuxRouter
from simopen.lab.net.record import Record
from simopen.lab.process.control import Control, Reply, close_all, start_lab
from simopen.lab.process.fork_server import tail
from simopen.lab.process.messages import AddHost, FetchRecord, ForgetRecord, HostAdded, LinkKind, Request

_LONGEST_NAME = 200  # characters; it goes in every message about it
_LAUNCHER = str(Path(__file__).with_name("host") / "launcher.py")
_AFTER_KILL_S = 5  # a killed program's pipes end at once, unless it gave them away
_CHUNK_BYTES = 65536

Argument = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended. A negative `returncode` is the signal that ended it."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Host:
    """One host of a network. Made by `Network.host`."""

    def __init__(
        self, network: Network, name: str, addresses: Addresses, namespace: int, conditions: Conditions
    ) -> None:
        self._network = network
        self._addresses = addresses
        self._namespace = namespace
        self.name = name
        self.router: Host | None = None
        """The `LinuxRouter` that it is behind, as a place to run programs: `nft list ruleset`, say."""
        self.conditions = conditions

    def __repr__(self) -> str:
        return f"<Host {self.name}: {self.address} seen as {self.public_address}>"

    @property
    def address(self) -> str:
        """The host's own IPv4 address."""
        return self._addresses.private

    @property
    def second_address(self) -> str | None:
        """Its further public IPv4 address; None where it was not made with `two_addresses`."""
        return self._addresses.second

    @property
    def public_address(self) -> str:
        """The IPv4 address that others see: its outermost NAT's, where it has one; of an arbitrary pool's, any one."""
        return self._addresses.public

    @property
    def address6(self) -> str:
        """The host's own IPv6 address."""
        return self._addresses.private6

    @property
    def public_address6(self) -> str:
        """The IPv6 address that others see: the host's own, since no model translates IPv6."""
        return self._addresses.public6

    async def start(
        self,
        argv: Sequence[Argument],
        *,
        stdin: int | None = PIPE,
        stdout: int | None = PIPE,
        stderr: int | None = PIPE,
        env: Mapping[str, str] | None = None,
        cwd: Argument | None = None,
    ) -> Process:
        """Start a program on this host. It is ended with the network, if not before.

        The three streams as `asyncio.create_subprocess_exec` takes them. A program that cannot be executed ends with
        127. Raises: LabError where the network is closed, or no process can be had.
        """
        user_namespace, lifeline = self._network.user_namespace, self._network.lifeline
        fds = [fd for fd in (user_namespace, self._namespace, lifeline) if fd is not None]
        self._network.require_open()
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *_launching(user_namespace, self._namespace, lifeline),
                *argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=fds,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        )
        try:
            process = await asyncio.shield(starting)
        except OSError as error:
            raise LabError(f"no process can be started on host {self.name!r}: {error.strerror}") from error
        except asyncio.CancelledError:
            await _unstart(starting)
            raise
        self._network.own(process)
        return process

    async def run(
        self,
        argv: Sequence[Argument],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
        env: Mapping[str, str] | None = None,
        cwd: Argument | None = None,
    ) -> Completed:
        """Run a program on this host to its end. Cancelling, or the time-out, kills it and its process group.

        Raises: LabError at the time-out, with the end of what the program wrote to standard error.
        """
        # No pipe where there is nothing to say: of a program that ends at once, uvloop complains by a RuntimeError.
        source = PIPE if stdin else DEVNULL
        process = await self.start(argv, stdin=source, env=env, cwd=cwd)
        talk = asyncio.create_task(process.communicate(stdin or None))
        try:
            await asyncio.wait({talk}, timeout=timeout_s)
            if not talk.done():
                raise LabError(await self._timed_out(argv, process, talk, timeout_s))
            stdout, stderr = talk.result()
        finally:
            await _end(process, talk)
            self._network.disown(process)
        return Completed(process.returncode or 0, stdout, stderr)

    async def _timed_out(
        self, argv: Sequence[Argument], process: Process, talk: asyncio.Task[tuple[bytes, bytes]], timeout_s: float
    ) -> str:
        kill_group(process)
        await asyncio.wait({talk}, timeout=_AFTER_KILL_S)
        complaint = tail(talk.result()[1]) if talk.done() else ""
        command = " ".join(map(str, argv))
        return f"on host {self.name!r}, after {timeout_s} s: killed `{command}`, whose last words were: {complaint}"


class Network:
    """A small internet on this machine.

    `seed` makes loss and jitter repeatable. `link` is "tun", "veth", or "auto": TUN where it can be had. Times that it
    takes, and what it needs: see the package's docstring.

    Raises (on entering): LabError where no lab can be had; `available()` says so beforehand.
    """

    def __init__(self, *, seed: int = 0, link: str = "auto") -> None:
        self._seed = seed
        self._link = LinkKind(link)
        self._control: Control | None = None
        self._processes: list[Process] = []
        self._namespaces: list[int] = []
        self.lifeline: int | None = None
        self.user_namespace: int | None = None

    async def __aenter__(self) -> Self:
        if self._control is not None:
            raise RuntimeError("a network is entered once")
        self._control, self.lifeline, self.user_namespace = await start_lab(self._seed, self._link)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        control = self.require_open()
        for process in self._processes:
            kill_group(process)
        control.hang_up()
        try:
            await control.close()
        finally:
            await self._reap()

    async def host(
        self,
        name: str,
        *,
        delay_s: float = 0.0,
        jitter_s: float = 0.0,
        loss: float = 0.0,
        hops: int = 3,
        nat: Nat | LinuxRouter | Sequence[Nat | LinuxRouter] | None = None,
        reorder: bool = False,
        duplicate: float = 0.0,
        bandwidth_bps: float | None = None,
        isolated: bool = False,
        beside: Host | None = None,
        two_addresses: bool = False,
    ) -> Host:
        """Add a host. The options describe its access to the core: see `Conditions`.

        `nat`: several stand in a row, from the host outwards: the home's, then the carrier's. `beside`: a host that
        is on the same LAN, behind the same NATs. The two share that host's access, so no other option is given.

        `two_addresses`: a host without NAT has a further public IPv4 address, `Host.second_address`, as a STUN server
        wants it.

        The first, which is the host's own, may be a real router. The record then shows packets as they are on that
        router's outer side, and counts what reaches the router as delivered.

        Raises: TypeError, ValueError for an option that `Conditions` refuses, or beside `beside`; LabError for a name
        already taken, one host too many, or a `LinuxRouter` where none can be had: `available(router=True)` says so
        beforehand.
        """
        if not isinstance(name, str):
            raise TypeError(f"a host's name is text, not {type(name).__name__}")
        if len(name) > _LONGEST_NAME:
            raise ValueError(f"a host's name has at most {_LONGEST_NAME} characters, not {len(name)}")
        router, nats = _told_apart(nat)
        conditions = Conditions(delay_s, jitter_s, loss, hops, nats, reorder, duplicate, bandwidth_bps, isolated)
        if isolated and router is not None:
            raise ValueError("a real router's LAN is a real one: there nobody is isolated")
        if beside is not None:
            conditions = _shared(conditions, beside, router)
        if two_addresses and (conditions.nats or router is not None or beside is not None):
            raise ValueError("only a host without NAT, and beside nobody, has two addresses")
        request = AddHost(name, conditions, None if beside is None else beside.name, router, two_addresses)
        answer, fds = await self._request(request)
        assert isinstance(answer, HostAdded)
        self._namespaces += fds
        host = Host(self, name, answer.addresses, fds[0], conditions)
        host.router = beside.router if beside else None
        if router is not None:
            host.router = Host(self, f"{name}'s router", answer.addresses, fds[1], conditions)
        return host

    async def record(self) -> Record:
        """Every packet since the network began, or since `clear_record`."""
        _, (fd,) = await self._request(FetchRecord())
        with os.fdopen(fd, "rb") as file:
            file.seek(0)
            return Record(pickle.load(file))

    async def clear_record(self) -> None:
        """Begin the record anew."""
        await self._request(ForgetRecord())

    @property
    def lab_pid(self) -> int:
        """The pid of the lab's own process."""
        return self.require_open().pid

    def require_open(self) -> Control:
        """Raises: LabError where the network was not entered, or is closed."""
        if self._control is None:
            raise LabError("the network is not open: enter it with `async with`")
        return self._control

    def own(self, process: Process) -> None:
        """End this process with the network."""
        self._processes.append(process)

    def disown(self, process: Process) -> None:
        """It has ended."""
        self._processes.remove(process)

    async def _request(self, message: Request) -> Reply:
        return await self.require_open().request(message)

    async def _reap(self) -> None:
        """Wait for every process, so that nothing is left to the garbage collector; then close the namespaces."""
        try:
            await asyncio.gather(*map(_see_off, self._processes))
        finally:
            self._processes.clear()
            held = (*self._namespaces, self.lifeline, self.user_namespace)
            close_all([fd for fd in held if fd is not None])
            self._namespaces.clear()
            self._control = self.lifeline = self.user_namespace = None


def _told_apart(
    nat: Nat | LinuxRouter | Sequence[Nat | LinuxRouter] | None,
) -> tuple[LinuxRouter | None, Nat | tuple[Nat, ...] | None]:
    """The real router, and the models behind it as `Conditions` has them. Raises: ValueError."""
    if nat is None or isinstance(nat, Nat):
        return None, nat
    row = (nat,) if isinstance(nat, LinuxRouter) else tuple(nat)
    models = tuple(each for each in row if isinstance(each, Nat))
    if len(models) == len(row):
        return None, models
    if row[1:] != models or not isinstance(row[0], LinuxRouter):
        raise ValueError("of NATs in a row only the first, next to the host, can be a LinuxRouter")
    return row[0], models or None


def _shared(given: Conditions, beside: Host, router: LinuxRouter | None) -> Conditions:
    if given != Conditions() or router is not None:
        raise ValueError(f"beside {beside.name!r}, a host has that host's access: give no other option")
    return beside.conditions


def kill_group(process: Process) -> None:
    """Kill a program started here, and what it started in its process group."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _launching(*fds: int | None) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", _LAUNCHER, *("-1" if fd is None else str(fd) for fd in fds))


async def _unstart(starting: asyncio.Future[Process]) -> None:
    """End what somebody no longer wants. uvloop kills it as well, where it is cancelled itself, but sees nobody off."""
    await asyncio.wait({starting})
    if starting.exception() is None:
        kill_group(starting.result())
        await _see_off(starting.result())


async def _end(process: Process, talk: asyncio.Task[tuple[bytes, bytes]]) -> None:
    if talk.done():
        return
    kill_group(process)
    await asyncio.wait({talk}, timeout=_AFTER_KILL_S)
    talk.cancel()
    await asyncio.wait({talk})


async def _see_off(process: Process) -> None:
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            await _drain(stream)
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()


async def _drain(stream: asyncio.StreamReader) -> None:
    """Read a dead program's pipe to its end, which is what closes its transport."""
    with suppress(RuntimeError):  # somebody else is reading it, and gets the end
        while await stream.read(_CHUNK_BYTES):
            pass
