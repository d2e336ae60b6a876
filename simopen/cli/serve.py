"""`simopen serve`: a rendezvous and STUN server, until it is ended.

Theory of operation: `signalling.server` serves; here is what is typed, and what is told. Standard output gets the URL,
once the server can be reached. Ctrl-C and SIGTERM end it, and those who wait are told.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import ssl
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from simopen import _logs
from simopen.cli.arguments import UsageError, argument, count, judged
from simopen.cli.console import Screen, answer
from simopen.cli.warned import warned
from simopen.model.endpoint import host_and_port, own_address
from simopen.net.os_errors import reason

if TYPE_CHECKING:
    from simopen.signalling.server_limits import Limits

EXAMPLE = """\
on a server that both peers can reach:
  $ simopen serve --certificate fullchain.pem --key privkey.pem
and each peer then says --via wss://THAT-SERVER:4000/v1
"""
PORT = 4000
STUN_PORTS = (3478, 3479)
_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES = -3, 131_072  # malloc.h; the value is glibc's own at first


def _port(text: str) -> int:
    """0 takes a free one."""
    return 0 if text == "0" else count(text, 65_535)


def _ports(text: str) -> tuple[int, int]:
    one, comma, other = text.partition(",")
    if not comma:
        raise ValueError(f"two ports are needed, as in 3478,3479, not {text!r}")
    return _port(one), _port(other)


def _metrics(text: str) -> tuple[str, int]:
    if text.isdecimal():
        return "127.0.0.1", _port(text)
    host, number = host_and_port(text)
    if number is None:
        raise ValueError(f"a port is needed, as in 9100 or 127.0.0.1:9100, not {text!r}")
    return own_address(host), number


def _limit(text: str) -> tuple[str, float]:
    """NAME=NUMBER."""
    from simopen.signalling.server_limits import Limits

    name, equals, number = text.partition("=")
    known = [field.name for field in fields(Limits)]
    if not equals or name not in known:
        raise ValueError(f"a limit is NAME=NUMBER, and NAME one of {', '.join(known)}")
    try:
        value = float(number)
    except ValueError:
        raise ValueError(f"{number!r} is no number (in {text!r})") from None
    if not 0 < value < float("inf"):
        raise ValueError(f"a limit is above zero, and has an end, unlike {text!r}")
    return name, value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen serve` takes."""
    parser.add_argument(
        "--host", metavar="ADDRESS", action="append", default=[], help="listen at this address; may be repeated"
    )
    parser.add_argument(
        "--port",
        metavar="N",
        type=argument(_port),
        default=PORT,
        help="for peers (default: %(default)s)",
    )
    parser.add_argument("--certificate", metavar="FILE", help="speak TLS: the certificate and its chain, PEM")
    parser.add_argument("--key", metavar="FILE", help="the certificate's private key, PEM; left out: in the same file")
    parser.add_argument("--motd", metavar="TEXT", help="a line that is shown to the peers' users")
    parser.add_argument(
        "--stun-ports",
        metavar="N,N",
        type=argument(_ports),
        default=STUN_PORTS,
        help="for STUN over TCP and UDP (default: 3478,3479)",
    )
    parser.add_argument("--no-stun", action="store_true", help="serve no STUN")
    parser.add_argument(
        "--stun-address",
        metavar="ADDRESS[/LOCAL]",
        action="append",
        default=[],
        help="serve STUN at this public address, which on this host is LOCAL; with two of them (repeat it) peers learn "
        "the filtering of their NATs, too",
    )
    parser.add_argument("--state", metavar="FILE", help="keep the rooms in this file, through a restart")
    parser.add_argument(
        "--metrics",
        metavar="[ADDRESS:]PORT",
        type=argument(_metrics),
        help="tell Prometheus the numbers, at /metrics of this port (at 127.0.0.1 unless said otherwise)",
    )
    parser.add_argument(
        "--limit",
        metavar="NAME=NUMBER",
        type=argument(_limit),
        action="append",
        default=[],
        help="another bound than the usual one, as in connections_an_address=100; may be repeated",
    )


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """The whole command: until it is cancelled."""
    from simopen.signalling.server import serve
    from simopen.signalling.server_stun import sites

    tls = _tls(options.certificate, options.key)
    with judged():
        sites(options.stun_address)
        hosts = [own_address(each) for each in options.host]
    serving = serve(
        hosts,
        options.port,
        tls=tls,
        motd=options.motd,
        stun_ports=None if options.no_stun else options.stun_ports,
        stun_addresses=options.stun_address,
        state=options.state,
        metrics=options.metrics,
        limits=_limits(options.limit),
    )
    if tls is not None:
        _leave_buffers_untouched()
    with warned(options, screen, _logs.PACKAGE):
        async with serving as server:
            stun = "" if server.stun_ports is None else "; STUN on ports {} and {}".format(*server.stun_ports)
            screen.say(f"simopen: serving at {', '.join(map(str, server.addresses))}{stun}")
            if tls is None:
                screen.say("simopen: without TLS: for this host alone, or behind what speaks TLS (--certificate)")
            if server.metrics_address is not None:
                screen.say(f"simopen: numbers for Prometheus at http://{server.metrics_address}/metrics")
            told = {"url": server.url, "addresses": list(map(str, server.addresses)), "stun_ports": server.stun_ports}
            told["metrics"] = None if server.metrics_address is None else str(server.metrics_address)
            answer(json.dumps(told) if options.json else server.url)
            await asyncio.get_running_loop().create_future()
    raise AssertionError("it serves until it is cancelled")


def _tls(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """Raises: UsageError for files that cannot be read, or do not fit together."""
    if certificate is None:
        if key is not None:
            raise UsageError("--key goes with --certificate")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.num_tickets = 0  # nobody resumes a session
    for path in (certificate, key):
        if path is not None and not Path(path).is_file():
            raise UsageError(f"there is no file {path!r}")
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise UsageError(f"the certificate and its key cannot be used: {reason(error)}") from error
    return context


def _leave_buffers_untouched() -> None:
    """Let each TLS connection's buffer of 256 KiB (uvloop's) be memory of its own, of which only what is used counts.

    glibc would move such blocks to its heap once one has been freed, where their pages were touched before: measured,
    53 KiB a waiting peer instead of 31, for a fifth of the pairs a second. Another libc is left as it is.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


def _limits(given: list[tuple[str, float]]) -> Limits:
    from simopen.signalling.server_limits import Limits

    usual = Limits()
    with judged():
        return replace(usual, **{name: type(getattr(usual, name))(value) for name, value in given})
