"""Tickets: what a peer must know to punch, as one word that survives a chat message.

Theory of operation. A ticket is bytes in RFC 4648's base32 without padding: letters and 2 to 7, so that nothing in it
is markup, a link or a quote, and a double click selects it whole. Case means nothing; white space, line breaks, quotes
and invisible characters around or inside it are ignored, and punctuation around it. The first byte is the version and
the second the length, the last four are a BLAKE2s digest of all before. These three stay where they are in every
version, so that another version, a cut and an alteration are told apart. The digest finds mistakes; it proves nothing
about who made the ticket.

After these two comes the X25519 public key of the ticket's holder (RFC 7748, 32 bytes), one for each ticket: of two
tickets `agreement` makes what both ends prove to each other. No text, repr or pickle has the private half.

A ticket carries what `plan` and `predict` ask of the peer's profile, and no more: of the observations only the
latest new mappings at the address last seen (at most `MOST_MAPPINGS`), to 0.1 ms, without the servers' names,
and of other local ports only their parity. Ports that this host's other flows took among them are taken out, so that
the peer, who knows nothing of these, foresees the same. Their times are UTC ns, so that `predict` takes UTC ns, too.

Its owner's consent to a spray is a bit. What one side would fire by it goes with nothing at the other, so it counts for
nothing unless both tickets have it: see `agreement.both_spray`.

Pure: text, bytes and `now` in, values out.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import struct
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2s
from typing import TYPE_CHECKING, Any

from simopen.errors import Flaw, TicketError
from simopen.model.endpoint import ANY, Endpoint, canonical, check_port, spelled
from simopen.model.nat import Allocation, Filtering, Mapping, Observation, Pooling, Profile, check
from simopen.model.times import UtcNs
from simopen.model.wording import quoted
from simopen.nat.own_ports import own_taken_out

if TYPE_CHECKING:
    from simopen.ticket.keys import PrivateKey

VERSION = 2
"""1 held no key: whoever answered was taken for its maker."""
KEY_BYTES = 32
MOST_HOSTS = 6
MOST_MAPPINGS = 14  # what `discover` makes, where each gets its own
END_S = 2**32
"""Tickets have room for instants before this, UTC seconds."""
LONGEST = 800
"""Characters of a text that are looked at: the longest ticket has 408, and a chat may put something between them."""

_SHORTEST = 24  # a ticket with nothing in it has 84 characters, and this is still worth a word on what is missing

_HEADER = struct.Struct("!HIHBbB")  # choices, instant, local port, confidence, step, busy
_DIGEST_BYTES = 4
_MOST_BYTES = 255  # what the second byte can tell
_TICK_NS = 100_000  # what others' rate is estimated from: SYNs of one batch leave less than a millisecond apart
_TICKS_PER_S = 10**9 // _TICK_NS
_HOUR = 3600 * _TICKS_PER_S
_UNTOLD = 255
_LONGEST_NUMBER = 5  # bytes: twice an hour of ticks takes four
_IGNORED = dict.fromkeys(map(ord, "\"'`<>()[]*_~|“”‘’„‚«»‹›"))
_NEW_FOR_OTHERS = {Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT}
_FORESEEABLE = {Allocation.PRESERVING, Allocation.CONSTANT_DELTA, Allocation.SEQUENTIAL}

# Each choice takes as many bits as its values need; the order of the values is the format.
_HAIRPINNING = (None, False, True)
_LAYERS = (None, 0, 1, 2)
_CHOICES: tuple[tuple[str, Sequence[object], int], ...] = (
    ("mapping", tuple(Mapping), 3),
    ("allocation", tuple(Allocation), 3),
    ("filtering", tuple(Filtering), 2),
    ("pooling", tuple(Pooling), 2),
    ("hairpinning", _HAIRPINNING, 2),
    ("layers", _LAYERS, 2),
)


_SPRAYS = 1 << sum(bits for _, _, bits in _CHOICES)  # the bit above them
_ONE_ROW = _SPRAYS << 1  # and the last: a row for each protocol and "nobody knows" come to the same


@dataclass(frozen=True, slots=True)
class Ticket:
    """A profile, the instant (UTC seconds, 0 to 2^32 - 1) and the local port from which its owner will fire.

    The profile's observations are timed in UTC ns: see `in_utc`. `key`: its holder's X25519 public key, 32 bytes.
    `spray`: whether its owner lets a plan take hundreds of SYNs a second, provided that the peer's ticket does, too.
    `private`: the key's private half, of a ticket of this side's own, and only in this process.
    """

    profile: Profile
    instant: int
    local_port: int
    key: bytes
    spray: bool = False
    private: PrivateKey | None = field(default=None, repr=False, compare=False)
    _received: bytes | None = field(default=None, init=False, repr=False, compare=False)

    def encode(self) -> str:
        """One word of capitals and 2 to 7: about 100 characters, or 150 where ports are predicted.

        One that was parsed comes out as it came in. Raises: as `sealed`.
        """
        return base64.b32encode(self.sealed()).decode().rstrip("=")

    def sealed(self) -> bytes:
        """The ticket as bytes, version, length and digest included: the same at its maker and at whoever received it.

        Raises: TypeError or ValueError for an instant, a key, an endpoint or a number that no ticket can hold.
        """
        if self._received is not None:
            return self._received
        check_instant(self)
        check_port(self.local_port, "the local port")
        _check_key(self.key)
        check(self.profile)
        try:
            body = _body(self)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"a ticket has no room for a number of its profile's: {error}") from error
        whole = bytes([VERSION, 2 + len(body) + _DIGEST_BYTES]) + body
        return whole + _digest(whole)

    def owned(self, private: PrivateKey) -> Ticket:
        """The same, byte for byte, as its maker has it."""
        mine = replace(self, private=private)
        object.__setattr__(mine, "_received", self._received)
        return mine


def in_utc(profile: Profile, ahead_ns: int) -> Profile:
    """The profile with its observations in UTC ns. `ahead_ns`: add it to their clock to get UTC."""
    moved = tuple(replace(each, at_ns=UtcNs(each.at_ns + ahead_ns)) for each in profile.observations)
    return replace(profile, observations=moved)


def parse_ticket(text: str) -> Ticket:
    """The ticket in a text, however old.

    Raises: TicketError for a text that is no ticket, or one that is cut short, altered or of another version; TypeError
    for what is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"a ticket is read from a string, not {type(text).__name__}")
    data = _decoded(text)
    ticket = _read(_checked(data))
    object.__setattr__(ticket, "_received", data)  # not `replace`: a ticket with another instant is another ticket
    return ticket


def _check_key(key: bytes) -> None:
    if not isinstance(key, bytes):
        raise TypeError(f"a ticket's key is {KEY_BYTES} bytes, not {quoted(key)}")
    if len(key) != KEY_BYTES:
        raise ValueError(f"a ticket's key is {KEY_BYTES} bytes, not {len(key)}")


def check_hosts(theirs: Ticket) -> None:
    """Raises: TicketError for one of a host that has link-local addresses only: they mean nothing to another host."""
    if not theirs.profile.hosts:
        raise TicketError(
            Flaw.UNREACHABLE,
            "it names no endpoint of its maker's, as that host has link-local addresses only; ask your peer to connect "
            "it to a network that leads further, and then for a new one",
        )


def check_instant(ticket: Ticket) -> None:
    if not 0 <= ticket.instant < END_S:
        raise ValueError(f"a ticket's instant is UTC seconds, 0 to 2^32 - 1, not {quoted(ticket.instant)}")


def looks_like_ticket(text: str) -> bool:
    """Whether this is meant as a ticket, intact or not: a long word with none of a name's dots or an address's colons.

    A host may have such a name in theory, but no owner that types it.
    """
    word = _word(text)
    return len(word) >= _SHORTEST and word.isalnum()


def _word(text: str) -> str:
    """All that counts of it, in capitals: no full stop or comma of the sentence that it stood in."""
    text = text[:LONGEST]
    if not text.isascii():
        text = "".join(each for each in unicodedata.normalize("NFKC", text) if unicodedata.category(each) != "Cf")
    word = "".join(text.translate(_IGNORED).split())
    letters = [each.isalnum() for each in word]
    return word[letters.index(True) : len(word) - letters[::-1].index(True)].upper() if True in letters else ""


def _decoded(text: str) -> bytes:
    word = _word(text)
    if len(word) < 4:
        raise TicketError(
            Flaw.NO_TICKET, "there is hardly any text; paste the word that `simopen nat --ticket` printed"
        )
    word = word[: len(word) - (len(word) % 8 in {1, 3, 6})]  # no number of bytes ends like that: one character is lost
    try:
        return base64.b32decode(word + "=" * (-len(word) % 8))
    except (binascii.Error, ValueError) as error:
        raise TicketError(
            Flaw.NO_TICKET, "a ticket is one word of letters and the digits 2 to 7; paste that word alone"
        ) from error


def _checked(data: bytes) -> bytes:
    """The body."""
    version, length = data[0], data[1]
    intact = len(data) == length > 2 + _DIGEST_BYTES and _digest(data[:-_DIGEST_BYTES]) == data[-_DIGEST_BYTES:]
    if intact and version == VERSION:
        return data[2:-_DIGEST_BYTES]
    if intact:
        raise TicketError(
            Flaw.OTHER_VERSION,
            f"it is version {version}, and this simopen reads {VERSION}; install the same version on both sides, and "
            f"make a new one: simopen nat --ticket",
        )
    if 0 < version <= VERSION and len(data) < length:
        raise TicketError(Flaw.CUT_SHORT, f"{len(data)} of {length} bytes are here; copy it again, to its end")
    if len(data) < _SHORTEST * 5 // 8:
        raise TicketError(Flaw.NO_TICKET, "a ticket is one word of a hundred letters and digits or so; paste that one")
    raise TicketError(Flaw.ALTERED, "a character is wrong, missing or too many; copy it again, do not retype it")


def _digest(data: bytes) -> bytes:
    return blake2s(data, digest_size=_DIGEST_BYTES).digest()


def _read(body: bytes) -> Ticket:
    try:
        return _ticket(_Bytes(body))
    except (IndexError, ValueError, struct.error) as error:
        raise TicketError(Flaw.ALTERED, "what it says makes no sense; ask your peer for a new one") from error


def _body(ticket: Ticket) -> bytes:
    """Where it gets too long, with fewer mappings: the latest tell most."""
    begun, told = b"".join(_unwalked(ticket)), _told(ticket)
    room = _MOST_BYTES - 2 - _DIGEST_BYTES - len(begun)
    while len(mappings := b"".join(_mappings(ticket, told))) > room and told:
        told = told[1:]
    return begun + mappings


def _unwalked(ticket: Ticket) -> Iterator[bytes]:
    """All but the mappings."""
    profile = ticket.profile
    busy = _UNTOLD if profile.busy is None else round(200 * profile.busy)
    confidence = round(200 * profile.confidence)
    choices = _packed(profile) | _SPRAYS * ticket.spray | _ONE_ROW * (profile.one_row is True)
    yield ticket.key
    yield _HEADER.pack(choices, ticket.instant, ticket.local_port, confidence, profile.step or 0, busy)
    hosts = [host for host in profile.hosts if "%" not in host.address][:MOST_HOSTS]  # a scope is this host's own
    yield bytes([len(hosts) << 1 | (profile.mapped is not None)])
    for endpoint in [*([profile.mapped] if profile.mapped else []), *hosts]:
        yield from _endpoint(endpoint, ticket.local_port)
    yield _number(profile.delta or 0)


def _packed(profile: Profile) -> int:
    packed = 0
    for name, values, bits in _CHOICES:
        packed = packed << bits | values.index(getattr(profile, name))
    return packed


def _endpoint(endpoint: Endpoint, usual_port: int) -> Iterator[bytes]:
    endpoint = spelled(endpoint, "a profile's")
    address = ipaddress.ip_address(endpoint.address)
    yield bytes([(address.version == 6) << 1 | (endpoint.port != usual_port)])
    yield address.packed
    if endpoint.port != usual_port:
        yield endpoint.port.to_bytes(2)


def _mappings(ticket: Ticket, told: Sequence[Observation]) -> Iterator[bytes]:
    """Each mapping's port and time as distances from the one before, and whether the punch port's, and its parity."""
    yield bytes([len(told)])
    port, at = (ticket.profile.mapped or Endpoint("", 0)).port, ticket.instant * _TICKS_PER_S
    for each in told:
        ours = each.local.port == ticket.local_port
        yield _number((each.mapped.port - port) * 4 + 2 * ours + (each.local.port & 1))
        later = min(max(each.at_ns // _TICK_NS - at, -_HOUR), _HOUR)  # what is older says nothing of ports
        yield _number(later)
        port, at = each.mapped.port, at + later


def _told(ticket: Ticket) -> list[Observation]:
    profile = ticket.profile
    if profile.mapped is None or profile.mapping not in _NEW_FOR_OTHERS or profile.allocation not in _FORESEEABLE:
        return []
    here = own_taken_out(profile)
    if profile.allocation is not Allocation.SEQUENTIAL:  # other local ports have nothing to do with ours
        here = [each for each in here if each.local.port == ticket.local_port]
    return here[-MOST_MAPPINGS:]


def _number(value: int) -> bytes:
    """A signed number in as few bytes as it needs, seven bits each, the last ones first (zigzag and LEB128)."""
    rest = value * 2 if value >= 0 else -value * 2 - 1
    digits = []
    while rest > 127:
        digits.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*digits, rest])


class _Bytes:
    """A body, read from its beginning. Raises: IndexError or ValueError where it ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) < length:
            raise ValueError("the body ends too early")
        self._at += length
        return taken

    def number(self) -> int:
        rest = shift = 0
        while (digit := self.take(1)[0]) > 127:
            rest |= (digit & 127) << shift
            shift += 7
            if shift == 7 * _LONGEST_NUMBER:
                raise ValueError("a number is too long")
        rest |= digit << shift
        return -(rest + 1) // 2 if rest & 1 else rest // 2

    def endpoint(self, usual_port: int) -> Endpoint:
        kind = self.take(1)[0]
        address = ipaddress.ip_address(self.take(16 if kind & 2 else 4))
        port = int.from_bytes(self.take(2)) if kind & 1 else usual_port
        return Endpoint(canonical(str(address)), check_port(port, "a port"))


def _ticket(body: _Bytes) -> Ticket:
    key = body.take(KEY_BYTES)
    choices, instant, local_port, confidence, step, busy = _HEADER.unpack(body.take(_HEADER.size))
    check_port(local_port, "the local port")
    count = body.take(1)[0]
    if count >> 1 > MOST_HOSTS:
        raise ValueError("there are too many hosts")
    mapped = body.endpoint(local_port) if count & 1 else None
    hosts = tuple(body.endpoint(local_port) for _ in range(count >> 1))
    delta = body.number()
    profile = Profile(
        **_unpacked(choices),
        mapped=mapped,
        hosts=hosts,
        step=step or None,
        busy=None if busy == _UNTOLD else min(busy, 200) / 200,
        delta=delta or None,
        one_row=True if choices & _ONE_ROW else None,
        confidence=min(confidence, 200) / 200,
    )
    seen = tuple(_seen(body, mapped, instant, local_port)) if mapped else ()
    return Ticket(replace(profile, observations=seen), instant, local_port, key, bool(choices & _SPRAYS))


def _seen(body: _Bytes, mapped: Endpoint, instant: int, local_port: int) -> Iterator[Observation]:
    """The mappings, with stand-ins for what is not told: the servers, and other local ports of the same parity."""
    nowhere = ANY[mapped.family]
    stand_in = 4 if local_port in {2, 3} else 2
    port, at = mapped.port, instant * _TICKS_PER_S
    count = body.take(1)[0]
    if count > MOST_MAPPINGS:
        raise ValueError("there are too many mappings")
    for _ in range(count):
        told = body.number()
        port, at = check_port(port + (told >> 2), "a mapped port"), at + body.number()
        local = Endpoint(nowhere, local_port if told & 2 else stand_in + (told & 1))
        yield Observation(local, Endpoint(nowhere, 0), Endpoint(mapped.address, port), UtcNs(at * _TICK_NS))


def _unpacked(choices: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, values, bits in reversed(_CHOICES):
        found[name] = values[choices & (1 << bits) - 1]
        choices >>= bits
    return found
