"""A time server on loopback whose error is known, and which misbehaves as told.

`python -m tests.fake_ntp ADDRESS OFFSET` is one at port 123 of a lab's host, which says when it is ready.

The clock it serves is this machine's wall clock plus `offset_s`, exactly: the arrival is stamped by the
kernel, the departure when the answer leaves, so a busy loop makes it slow but never wrong. The way there
takes `up_s`, the way back `down_s`, both simulated on the server's side.

What it cannot represent: lost or reordered packets (but see `answers`), jitter, and a clock that drifts.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

UNIX_EPOCH_S = 2_208_988_800  # of 1970 in 1900's seconds, RFC 868
_PACKET = struct.Struct("!BBbbIII8s8s8s8s")  # RFC 5905 figure 8
_SO_TIMESTAMPNS = 35


def stamp(utc_ns: int) -> bytes:
    """RFC 5905's 64-bit time stamp of UTC ns since 1970, of whatever era."""
    seconds, ns = divmod(utc_ns, 1_000_000_000)
    return struct.pack("!II", (seconds + UNIX_EPOCH_S) % 2**32, (ns << 32) // 1_000_000_000)


def packet(**changes: Any) -> bytes:
    """A good server's answer, 48 bytes, but for the named fields. Times are UTC ns since 1970 or 8 raw
    bytes."""
    now_ns = time.time_ns()
    fields: dict[str, Any] = {
        "leap": 0, "version": 4, "mode": 4, "stratum": 2, "poll": 6, "precision": -24,
        "root_delay_s": 0.0, "root_dispersion_s": 0.0, "reference_id": 0x7F000001,
        "reference": now_ns - 10_000_000_000, "origin": bytes(8), "receive": now_ns, "transmit": now_ns,
    } | changes  # fmt: skip
    assert len(fields) == 13, changes
    times = (fields[name] for name in ("reference", "origin", "receive", "transmit"))
    return _PACKET.pack(
        fields["leap"] << 6 | fields["version"] << 3 | fields["mode"],
        fields["stratum"],
        fields["poll"],
        fields["precision"],
        round(fields["root_delay_s"] * 2**16),
        round(fields["root_dispersion_s"] * 2**16),
        fields["reference_id"],
        *(each if isinstance(each, bytes) else stamp(each) for each in times),
    )


HOUR_NS = 3_600_000_000_000
MISBEHAVIOURS: dict[str, tuple[dict[str, Any], str]] = {
    "kiss RATE": ({"stratum": 0, "leap": 3, "reference_id": 0x52415445}, "kiss-o'-death RATE"),
    "kiss DENY": ({"stratum": 0, "leap": 3, "reference_id": 0x44454E59}, "kiss-o'-death DENY"),
    "leap alarm": ({"leap": 3}, "leap alarm"),
    "stratum 16": ({"stratum": 16}, "stratum 16"),
    "mode 3": ({"mode": 3}, "mode 3"),
    "version 7": ({"version": 7}, "version 7"),
    "other's origin": ({"origin": b"theirs!!"}, "origin time stamp"),
    "zero transmit": ({"transmit": bytes(8)}, "zero"),
    "zero receive": ({"receive": bytes(8)}, "zero"),
    "backward": ({"receive": time.time_ns() + HOUR_NS}, "transmitted before"),
    "root dispersion": ({"root_dispersion_s": 20.0}, "root distance"),
    "root delay": ({"root_delay_s": 40.0}, "root distance"),
    "precision": ({"precision": 3}, "root distance"),
    "never set": ({"reference": bytes(8)}, "never set"),
    "set two days ago": ({"reference": time.time_ns() - 48 * HOUR_NS}, "more than a day"),
    "set in the future": ({"reference": time.time_ns() + HOUR_NS}, "later than now"),
}
"""Name: the fields that are wrong, and the words that must be in the refusal."""


class FakeNtp:
    """`async with FakeNtp(...) as server`: it answers at `server.name` until the end.

    `wrong`: fields of the answer to override, as in MISBEHAVIOURS. `answers`: how many queries to answer
    properly before being silent, or, with `wrong`, before being wrong. `garble`: what to make of an answer's
    bytes. `other_port`: answer from a socket that nobody asked. `host`: "127.0.0.1" or "::1".
    `in_turn_s`: offsets, one for each answer in turn, instead of `offset_s`. `both_s`: offsets, one for each of the
    answers that every query gets, at once.
    """

    def __init__(
        self,
        offset_s: float = 0.0,
        up_s: float = 0.0,
        down_s: float = 0.0,
        *,
        wrong: dict[str, Any] | None = None,
        answers: int | None = None,
        garble: Callable[[bytes], bytes] = bytes,
        other_port: bool = False,
        in_turn_s: Sequence[float] = (),
        both_s: Sequence[float] = (),
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.offset_ns = round(offset_s * 1e9)
        self.up_s, self.down_s, self.host, self.port = up_s, down_s, host, port
        self.queries = 0
        self.clients: set[Any] = set()  # the addresses that asked
        self.queried = asyncio.Event()
        self._wrong, self._answers, self._garble = wrong, answers, garble
        self._other_port = other_port
        self._late: set[asyncio.TimerHandle] = set()
        self._both_ns = [round(each * 1e9) for each in both_s]
        self._in_turn = itertools.cycle(round(each * 1e9) for each in in_turn_s or (offset_s,))

    async def __aenter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._socks = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
        for sock in self._socks:
            sock.setblocking(False)
            sock.bind((self.host, self.port if sock is self._socks[0] else 0))
        self._socks[0].setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.port = self._socks[0].getsockname()[1]
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socks[0], self._readable)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.remove_reader(self._socks[0])
        for timer in self._late:
            timer.cancel()
        for sock in self._socks:
            sock.close()

    @property
    def name(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def _readable(self) -> None:
        query, control, _, client = self._socks[0].recvmsg(1024, 64)
        seconds, ns = struct.unpack("@ll", control[0][2])
        self.queries += 1
        self.offset_ns = next(self._in_turn)
        self.clients.add(client)
        self.queried.set()
        wrong = self._wrong
        if self._answers is not None:
            if self.queries > self._answers and not wrong:
                return
            wrong = wrong if self.queries > self._answers else None
        arrival_ns = seconds * 1_000_000_000 + ns
        self._answer(query, client, arrival_ns, wrong or {})

    def _answer(self, query: bytes, client: Any, arrival_ns: int, wrong: dict[str, Any]) -> None:
        """Answer once the simulated way is over. Again and again, because a loop's timer may fire early."""
        now_ns, (up_ns, down_ns) = time.time_ns(), (round(each * 1e9) for each in (self.up_s, self.down_s))
        if (left_ns := arrival_ns + up_ns + down_ns - now_ns) > 0:
            timer = self._loop.call_later(left_ns / 1e9, self._answer, query, client, arrival_ns, wrong)
            self._late.add(timer)
            return
        for offset_ns in self._both_ns or [self.offset_ns]:
            receive_ns = arrival_ns + up_ns + offset_ns
            answer = {
                "origin": query[40:48],
                "receive": receive_ns,
                "transmit": now_ns - down_ns + offset_ns,
                "reference": receive_ns - 10_000_000_000,
            }
            self._socks[self._other_port].sendto(self._garble(packet(**(answer | wrong))), client)


def random_bytes(answer: bytes) -> bytes:
    return os.urandom(len(answer))


def short(answer: bytes) -> bytes:
    return answer[:47]


async def _serve(host: str, offset_s: str) -> None:
    async with FakeNtp(float(offset_s), host=host, port=123):
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
