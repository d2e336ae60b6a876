"""`simopen doctor`: is this host fit to punch, in a table, with one line on what to do about each thing that is not.

Theory of operation: here facts are read, all side by side, each within the time that the caller gives; `doctor_checks`
judges them. Whatever becomes of one check, the others are told. Nothing is changed, and the only packets that leave
this host are the questions to time and STUN servers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import math
import os
import shutil
import socket
from collections.abc import Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path

from simopen.cli import doctor_checks
from simopen.cli.arguments import add_stun_servers, add_timeout, judged
from simopen.cli.console import Screen, answer
from simopen.cli.doctor_checks import Check, Finding, Verdict
from simopen.clock import ntp_client
from simopen.clock import source as clock
from simopen.errors import ClockError, LocalEndpointError, SimopenError, StunError
from simopen.model.endpoint import Endpoint, normalise
from simopen.model.estimate import Estimate
from simopen.model.wording import shortened
from simopen.net.os_errors import reason
from simopen.net.routes import source_address
from simopen.net.sockets import connect as connect_socket
from simopen.net.sockets import is_self_connected, open_socket

TIMEOUT_S = 4.0
"""As for `simopen nat`: a SYN that is lost on the way is sent again after 1 s, and once more 2 s later."""
_MORE_S = 5.0
"""What a check gets beyond that, to load what it needs and to judge what it heard: 0.3 s each, on a machine at rest."""
_ITSELF_S = 2.5  # loopback takes microseconds, and a busy machine: what has not come by then was dropped
_LOOPBACK = ("127.0.0.1", 0)
# Documentation addresses (RFC 5737, RFC 3849): for the routing table they are as good as any, and nobody has them.
_ANYWHERE = {Check.IPV4: Endpoint("192.0.2.1", 9), Check.IPV6: Endpoint("2001:db8::1", 9)}
_SBIN = "/usr/sbin:/sbin"  # where nft is, and where a user's PATH does not lead

Names = Sequence[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen doctor` takes, but for `--ntp` and `--no-ntp`."""
    add_stun_servers(parser)
    add_timeout(parser, TIMEOUT_S)


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """The whole command. Returns the exit status: 1 where something fails.

    Raises: UsageError for a server that cannot be read.
    """
    ntp = () if options.no_ntp else options.ntp or ntp_client.DEFAULT_SERVERS
    with screen.line("examining this host ..."):
        found = await examine(ntp, options.stun, options.timeout)
    status = int(any(each.verdict is Verdict.FAIL for each in found))
    if options.json:
        warnings = [each.check for each in found if each.verdict is Verdict.WARN]
        answer(json.dumps({"fit": not status, "warnings": warnings, "findings": list(map(asdict, found))}))
        return status
    rows = [(each.check, each.verdict, each.found, each.advice) for each in found]
    screen.table("is this host fit to punch?", ("check", "verdict", "found", "what to do"), rows)
    for note in (note for each in found for note in each.notes):
        screen.note(note)
    screen.say(doctor_checks.summary(found))
    return status


async def examine(ntp: Names, stun: Names | None, timeout_s: float) -> list[Finding]:
    """Every check, side by side; servers get `timeout_s` seconds to answer.

    `ntp`: the time servers to ask; none: nobody is. `stun`: the STUN servers; None: the default ones.

    Raises: UsageError for a server that cannot be read.
    """
    from simopen.nat.stun_tcp import DEFAULT_SERVERS, parse_servers

    stun = stun or DEFAULT_SERVERS
    with judged():
        parse_servers(stun)
        if ntp:
            ntp_client.parse_servers(ntp)
    checks: dict[Check, Coroutine[object, object, Finding]] = {
        Check.CLOCK: _clock(ntp, timeout_s),
        Check.SIMULTANEOUS_OPEN: _simultaneous_open(min(_ITSELF_S, timeout_s)),
        Check.PORT_SHARING: _port_sharing(),
        Check.DESCRIPTORS: _descriptors(),
        Check.FIREWALL: _firewall(),
        Check.IPV4: _ipv4(),
        Check.IPV6: _ipv6(),
        Check.STUN: _stun(stun, timeout_s),
    }
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(in_time(*each, timeout_s + _MORE_S)) for each in checks.items()]
    return [task.result() for task in tasks]


async def in_time(check: Check, looking: Coroutine[object, object, Finding], timeout_s: float) -> Finding:
    """The finding, or UNKNOWN and the reason: a check that breaks must not hide the others."""
    try:
        async with asyncio.timeout(timeout_s):
            return await looking
    except TimeoutError:
        return Finding(check, Verdict.UNKNOWN, f"no result within {timeout_s:g} s", "give it longer with --timeout")
    except (SimopenError, OSError) as error:
        return Finding(check, Verdict.UNKNOWN, f"could not be looked at: {error}", "see to that, then ask again")
    except Exception as error:
        said = shortened(f"{type(error).__name__}: {error}")
        return Finding(check, Verdict.UNKNOWN, f"could not be looked at: {said}", "this is a bug in simopen: report it")


async def _clock(servers: Names, timeout_s: float) -> Finding:
    return doctor_checks.judge_clock(clock.kernel_word(), await _true_time(servers, timeout_s))


async def _true_time(servers: Names, timeout_s: float) -> Estimate | str:
    if not servers:
        return "no time server was asked (--no-ntp)"
    try:
        return await clock.check_clock(servers, timeout_s)
    except ClockError as error:
        return str(error)


async def _simultaneous_open(timeout_s: float) -> Finding:
    switch = _text(Path("/proc/sys/net/ipv4/tcp_simult_connect"))
    return doctor_checks.judge_simultaneous_open(await _connects_to_itself(timeout_s), switch)


async def _connects_to_itself(timeout_s: float) -> bool | str:
    """Whether a SYN that crosses another connects, the two being one; or why that could not be tried."""
    try:
        with open_socket(_LOOPBACK, socket.AF_INET) as sock:
            async with asyncio.timeout(timeout_s):
                await connect_socket(sock, normalise(sock.getsockname()))
            return is_self_connected(sock)
    except TimeoutError:
        return False
    except OSError as error:
        return reason(error)


async def _port_sharing() -> Finding:
    with open_socket(_LOOPBACK, socket.AF_INET) as one:
        try:
            open_socket(one.getsockname(), socket.AF_INET).close()
        except LocalEndpointError as error:
            return doctor_checks.judge_port_sharing(str(error))
    return doctor_checks.judge_port_sharing(None)


async def _descriptors() -> Finding:
    try:
        import resource
    except ImportError:  # Windows
        return Finding(Check.DESCRIPTORS, Verdict.UNKNOWN, "this system does not tell")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (math.inf if each == resource.RLIM_INFINITY else each for each in limits)
    return doctor_checks.judge_descriptors(soft, hard)


async def _firewall() -> Finding:
    legacy = [_text(Path(f"/proc/net/{name}_tables_names")) for name in ("ip", "ip6")]
    readable = [each for each in legacy if each is not None]
    return doctor_checks.judge_firewall(await _nft_chains(), "\n".join(readable), firewalls_on())


async def _nft_chains() -> str | None:
    """Every chain without its rules; None where there is no nft, or it is not for us to ask."""
    path = shutil.which("nft", path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")
    return await output_of(path, "list", "chains") if path else None


async def output_of(program: str, *arguments: str) -> str | None:
    """What a program writes to standard output; None where it fails. Cancelled, it is killed."""
    null, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(program, *arguments, stdin=null, stdout=pipe, stderr=null)
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                process.kill()
            await process.wait()
    return None if process.returncode else output.decode(errors="replace")


def firewalls_on(root: Path = Path("/")) -> list[str]:
    """The firewalls that are switched on, as far as any user can see: ufw's own switch, and firewalld's process."""
    on = ["ufw"] if "ENABLED=yes" in (_text(root / "etc/ufw/ufw.conf") or "").split() else []
    names = (_text(each) for each in root.glob("proc/[0-9]*/comm"))
    return on + ["firewalld"] * ("firewalld" in names)


async def _ipv4() -> Finding:
    return doctor_checks.judge_ipv4(_source(Check.IPV4), _source(Check.IPV6))


async def _ipv6() -> Finding:
    return doctor_checks.judge_ipv6(_source(Check.IPV6), _source(Check.IPV4))


def _source(check: Check) -> str | None:
    try:
        return source_address(_ANYWHERE[check], None)
    except LocalEndpointError as error:
        if error.errno != errno.EAFNOSUPPORT:  # then there may well be a route
            raise
        return None


async def _stun(servers: Names, timeout_s: float) -> Finding:
    from simopen.nat.stun_tcp import parse_servers
    from simopen.ticket.hold import holding

    ports = [each.port for each in parse_servers(servers)]
    try:
        async with holding(servers=servers, timeout=timeout_s, filtering=True) as found:
            found.give_up()
            return doctor_checks.judge_stun(ports, found.servers, found.profile, found.notes)
    except StunError as error:
        return doctor_checks.judge_stun(ports, (), None, (str(error),), error.heard)


def _text(path: Path) -> str | None:
    """What a small file says, without white space around it; None where it is missing, or not for us to read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
