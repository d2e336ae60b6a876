"""Does on a lab host what a user would: `python -m benchmarks.user`, a JSON object per line on stdin.

{"id", "method": "discover", "local": [address, port], "servers", "beside": port or null, "by_ticket"} finds out what
the NATs do to that port, and holds the mapping; the answer has the "profile", as text that another such program reads,
and its "mapping", and a "ticket" where that is wanted. Meanwhile it does the same for the port "beside" that one.

{"id", "method": "punch", "port", "theirs": their profile, "ticket": theirs or null, "at_ns" (CLOCK_MONOTONIC), "spray",
"first_ttl", "ntp": time servers or null} punches from that port, and lets go of the mapping once that is over. The
answer has "established_ns" (CLOCK_MONOTONIC) and "plan"; by ticket, it is when this side had the link. Or it has
"error", and "refused": whether the pair was called impossible.

{"id", "method": "meet", "code", "via", "local": [address, port], "servers", "spray"} meets by a code. The answer has
"fired_ns", when its first SYN left, and "established_ns", when it had the link; or "error" and "refused", which is also
what the peer has said of that. Either has "paired_ns": when it began to tell the peer what its NATs do.

All hosts of a lab share one clock, so that nobody need ask for the time.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import pickle
import socket
import sys
import time

import simopen
from benchmarks.agent import serve
from benchmarks.common import run_on
from benchmarks.orders import Order
from simopen.errors import ImpossiblePair, PeerLeft
from simopen.model.nat import Profile
from simopen.model.times import MonoNs
from simopen.ticket import hold
from simopen.ticket.codec import Ticket, in_utc

_GREETING = b"simopen"
_NO_WAY = "leave no way"  # what a peer says that was the first to call a pair impossible
_PATIENCE_S = 5.0  # a greeting lost twice (the kernel resends it after 0.2, 0.4, ... s), on a busy machine


class User:
    """One host's user, with the profiles whose mappings are held, by local port."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[contextlib.AsyncExitStack, Profile, Ticket]] = {}

    async def discover(self, order: Order, now: simopen.Estimate) -> Order:
        address, port = order["local"]
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as others:
            if order["beside"] is not None:
                others.create_task(simopen.discover((address, order["beside"]), servers=order["servers"]))
            found = await stack.enter_async_context(hold.holding((address, port), servers=order["servers"]))
            ours = in_utc(found.profile, now.utc_at(MonoNs(0)))  # what means the same on the other host
            ticket = found.ticket(now=now)
            self._held[port] = stack.pop_all(), ours, ticket
        told = {"profile": written(ours), "mapping": ours.mapping.value}
        return told | ({"ticket": ticket.encode()} if order["by_ticket"] else {})

    async def punch(self, order: Order, now: simopen.Estimate) -> Order:
        holding, ours, ticket = self._held.pop(order["port"])
        at = now.utc_at(order["at_ns"]) / 1e9
        async with holding:
            try:
                if order["ticket"] is not None:
                    return await linked(ticket, order, at, now)
                sock, report = await simopen.punch(
                    read(order["theirs"]),
                    mine=ours,
                    at=at,
                    spray=order["spray"],
                    first_ttl=order["first_ttl"],
                    clock=order["ntp"] or now,
                )
            except simopen.PunchError as error:
                return {"error": f"{type(error).__name__}: {error}", "refused": isinstance(error, ImpossiblePair)}
            with sock:
                await greet(sock)
        return {"established_ns": report.established_ns, "plan": report.plan}


async def linked(mine: Ticket, order: Order, at: float, now: simopen.Estimate) -> Order:
    """By two tickets. Raises: PunchError."""
    reader, writer = await simopen.connect(
        simopen.parse_ticket(order["ticket"]),
        mine=mine,
        at=at,
        spray=order["spray"],
        first_ttl=order["first_ttl"],
        clock=order["ntp"] or now,
    )
    had_ns, report = time.monotonic_ns(), writer.get_extra_info("simopen")
    await greet_by_link(reader, writer)
    return {"established_ns": had_ns, "plan": report.plan}


async def meet(order: Order, now: simopen.Estimate) -> Order:
    """By a code, whatever that takes. Raises: SimopenError for what is no answer of a punch's."""
    first_ns: dict[str, int] = {}
    try:
        reader, writer = await simopen.meet(
            order["code"],
            via=order["via"],
            local=tuple(order["local"]),
            servers=order["servers"],
            spray=order["spray"],
            allow_plain=True,
            on_event=lambda event: first_ns.setdefault(event.step, event.at_ns),
        )
    except (simopen.PunchError, PeerLeft) as error:
        refused = isinstance(error, ImpossiblePair) or _NO_WAY in str(error)
        told = {"error": f"{type(error).__name__}: {error}", "refused": refused}
    else:
        had_ns, report = time.monotonic_ns(), writer.get_extra_info("simopen")
        await greet_by_link(reader, writer)
        told = {"fired_ns": first_ns["fired"], "established_ns": had_ns, "plan": report.plan}
    return told | {"paired_ns": first_ns.get("round")}


async def greet_by_link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Have a few bytes go each way, and close. Raises: OSError where that is not so."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            writer.write(_GREETING)
            heard = await reader.readexactly(len(_GREETING))
    finally:
        writer.close()
    if heard != _GREETING:
        raise ConnectionError(f"the link came up, and said {heard!r}")


def written(profile: Profile) -> str:
    """A profile as text. Pickled: both ends are this program."""
    return base64.b64encode(pickle.dumps(profile)).decode()


def read(text: str) -> Profile:
    """The profile that `written` wrote."""
    profile: Profile = pickle.loads(base64.b64decode(text))
    return profile


async def greet(sock: socket.socket) -> None:
    """Have a few bytes go each way: both sides have this stream, and not one each. Raises: OSError where not."""
    loop, heard = asyncio.get_running_loop(), b""
    async with asyncio.timeout(_PATIENCE_S):
        await loop.sock_sendall(sock, _GREETING)
        while len(heard) < len(_GREETING):
            came = await loop.sock_recv(sock, len(_GREETING) - len(heard))
            if not came:
                raise ConnectionError("the stream came up, and was closed by the other side")
            heard += came
    if heard != _GREETING:
        raise ConnectionError(f"the stream came up, and said {heard!r}")


if __name__ == "__main__":
    user = User()
    run_on(sys.argv[1], serve({"discover": user.discover, "punch": user.punch, "meet": meet}))
