"""What one client, one address and all together may take of a rendezvous server, and the accounts of that.

Theory of operation. A rate is a bucket that fills at a steady pace and is emptied by use (RFC 2697's token bucket): a
burst passes, a flood does not. An address stands for its owner: an IPv6 one for its /64, which is what one customer
gets. Where a budget is used up, whoever used it waits or is refused, and nobody else hears of it.

Pure: `now` is seconds of any one clock that never steps.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one server. Seconds, bytes and counts; what is refused is told the one who asked for it.

    A room is a mailbox with its number (the nameplate of a code). `rooms_tried`: rooms that an address names without
    having been given them, which is how a guesser finds where somebody waits. An honest peer tries one a
    meeting.
    """

    connections: int = 25_000
    connections_an_address: int = 1_000
    rooms: int = 50_000
    rooms_an_address: int = 500
    rooms_tried_at_once: int = 60
    rooms_tried_a_minute: float = 12.0
    message_bytes: int = 262_144
    messages_at_once: int = 500
    messages_a_second: float = 50.0
    bytes_at_once: int = 1_048_576
    bytes_a_second: float = 262_144.0
    """Of one connection; a frame counts for 1 KiB more than it has."""
    bytes_at_once_an_address: int = 16_777_216
    bytes_a_second_an_address: float = 4_194_304.0
    """Of all its connections, counted alike."""
    room_messages: int = 1_000
    room_bytes: int = 4_194_304
    kept_bytes: int = 268_435_456
    """Messages that are kept for peers, of all rooms."""
    kept_bytes_an_address: int = 33_554_432
    """Of the rooms that it began."""
    unread_bytes: int = 1_048_576
    """What may wait for a client that does not read."""
    bad_messages: int = 16
    """After so many that cannot be understood, the connection ends."""
    handshake_s: float = 10.0
    """For TLS and the HTTP request, each."""
    bind_s: float = 30.0
    """From the handshake to `bind`."""
    roomless_s: float = 900.0
    """Bound, and in no room: somebody types a code meanwhile."""
    ping_s: float = 20.0
    """Between two pings; who has not been heard since the last one is gone."""
    unattended_s: float = 660.0
    """How long a room is kept that nobody is connected to: a client that lost its network may take so long."""
    room_s: float = 86_400.0
    """How long it is kept at most, whoever waits in it."""

    stun_connections: int = 10_000
    stun_connections_an_address: int = 300
    """`simopen.discover` takes a dozen, and keeps four while it holds a mapping."""
    connect_backs: int = 256
    """At a time; each takes two seconds and two ports at most."""
    connect_backs_at_once: int = 60
    connect_backs_a_minute: float = 60.0
    """Of one address; `simopen.discover` asks for two."""

    def __post_init__(self) -> None:
        """Raises: ValueError for a bound that is not above zero."""
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"the limit {field.name} must be above zero, not {getattr(self, field.name)!r}")


class Bucket:
    """Tokens of one account; full at first."""

    __slots__ = ("_at_s", "_tokens")

    def __init__(self, most: float, now: float) -> None:
        self._tokens = float(most)
        self._at_s = now

    def take(self, count: float, now: float, *, a_second: float, most: float) -> float:
        """Take so many, and return 0; or, where they are not there, take nothing and return the seconds until they are.

        More than `most` at once are had as soon as it is full, and leave a debt.
        """
        self._fill(now, a_second, most)
        if (lacking := min(count, most) - self._tokens) > 0:
            return lacking / a_second
        self._tokens -= count
        return 0.0

    def spend(self, count: float, now: float, *, a_second: float, most: float) -> float:
        """Take so many in any case; returns how many seconds it takes until the debt is paid, 0 where there is none."""
        self._fill(now, a_second, most)
        self._tokens -= count
        return max(0.0, -self._tokens / a_second)

    def is_full(self, now: float, *, a_second: float, most: float) -> bool:
        """Whether nothing is to be remembered of it."""
        self._fill(now, a_second, most)
        return self._tokens >= most

    def _fill(self, now: float, a_second: float, most: float) -> None:
        self._tokens = min(most, self._tokens + (now - self._at_s) * a_second)
        self._at_s = now


def owner(address: str) -> str:
    """Whom an IP address stands for: an IPv4 address itself, an IPv6 one its /64. What is no address, itself."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.version == 4:
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))


class _Account:
    __slots__ = ("connections", "kept", "rooms", "spent", "tried")

    def __init__(self) -> None:
        self.connections = 0
        self.rooms = 0
        self.kept = 0
        self.tried: Bucket | None = None
        self.spent: Bucket | None = None


class Accounts:
    """What each address has of this server now. `most`: addresses that are remembered when they have nothing."""

    def __init__(self, limits: Limits, *, most: int = 100_000) -> None:
        self._limits = limits
        self._most = most
        self._by_owner: dict[str, _Account] = {}
        self._pace = {"a_second": limits.bytes_a_second_an_address, "most": float(limits.bytes_at_once_an_address)}
        self.connections = 0

    def __len__(self) -> int:
        return len(self._by_owner)

    def is_full(self) -> bool:
        """Whether nobody more can connect, from whatever address."""
        return self.connections >= self._limits.connections

    def connect(self, whose: str) -> str | None:
        """Count one more connection, and return None; or why there can be none."""
        if self.is_full():
            return "this server is full: try again later"
        account = self._account(whose)
        if account.connections >= self._limits.connections_an_address:
            self._forget(whose)
            return "too many connections from this address"
        account.connections += 1
        self.connections += 1
        return None

    def disconnect(self, whose: str) -> None:
        """Count one connection less."""
        self.connections -= 1
        self._by_owner[whose].connections -= 1
        self._forget(whose)

    def take_room(self, whose: str) -> str | None:
        """Count one more room that this address began, and return None; or why it cannot."""
        account = self._account(whose)
        if account.rooms >= self._limits.rooms_an_address:
            return "too many rooms from this address"
        account.rooms += 1
        return None

    def leave_room(self, whose: str) -> None:
        """Count one room less."""
        self._by_owner[whose].rooms -= 1
        self._forget(whose)

    def keep(self, whose: str, count: int) -> bool:
        """Count so many bytes more of messages in its rooms, or less; False, and nothing counted, for too many."""
        account = self._by_owner[whose]
        if count > 0 and account.kept + count > self._limits.kept_bytes_an_address:
            return False
        account.kept += count
        return True

    def try_room(self, whose: str, now: float) -> float:
        """Count one room named without having been given; returns the seconds to wait where these are too many."""
        account = self._account(whose)
        if account.tried is None:
            account.tried = Bucket(self._limits.rooms_tried_at_once, now)
        return account.tried.take(1, now, **self._tries())

    def spend(self, whose: str, count: int, now: float) -> float:
        """Count bytes that a connection of this address has sent; returns the seconds until that debt is paid."""
        account = self._by_owner.get(whose) or self._account(whose)
        if account.spent is None:
            account.spent = Bucket(self._pace["most"], now)
        return account.spent.spend(count, now, **self._pace)

    def sweep(self, now: float) -> None:
        """Forget those of whom nothing is to be remembered; of too many, the oldest."""
        for whose in [each for each, account in self._by_owner.items() if self._is_blank(account, now)]:
            del self._by_owner[whose]
        idle = (each for each, account in self._by_owner.items() if not account.connections and not account.rooms)
        for whose in [each for each, _ in zip(idle, range(len(self) - self._most), strict=False)]:
            del self._by_owner[whose]

    def _account(self, whose: str) -> _Account:
        return self._by_owner.setdefault(whose, _Account())

    def _forget(self, whose: str) -> None:
        account = self._by_owner[whose]
        if not account.connections and not account.rooms and account.tried is account.spent is None:
            del self._by_owner[whose]

    def _is_blank(self, account: _Account, now: float) -> bool:
        if account.connections or account.rooms:
            return False
        spent, tried = account.spent, account.tried
        return (spent is None or spent.is_full(now, **self._pace)) and (
            tried is None or tried.is_full(now, **self._tries())
        )

    def _tries(self) -> dict[str, float]:
        return {"a_second": self._limits.rooms_tried_a_minute / 60, "most": self._limits.rooms_tried_at_once}
