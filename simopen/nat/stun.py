"""STUN on the wire: what a Binding request is, and what of an answer is believed.

Theory of operation. Pure: bytes in, `Answer` or `StunError` out. `aioice.stun` knows the attributes' layout; it was
made for UDP among friends, and this module adds what it leaves out. Its `parse_message` raises struct.error and more
beside ValueError, and does not look at the magic cookie. It ignores the two leading bits and attributes that run over
the end, takes the last of two attributes of a kind where RFC 8489 §14 has the first count, and skips what it does not
know even where §6.3.1 says that such an answer fails.

What must not live here: sockets and time-outs (`stun_tcp` has them), and whom to believe (`classify` judges that).
Every refusal is a sentence that follows the server's name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from simopen.errors import StunError
from simopen.model.endpoint import Endpoint, Reach, canonical, reach, refusal
from simopen.model.server import Heard
from simopen.nat import stun_answer
from simopen.nat.stun_answer import CONNECT_BACK, ConnectBack

COOKIE = 0x2112A442
"""RFC 8489 §5. An answer without it is RFC 3489's, whose addresses NATs and their helpers rewrite."""
HEADER_BYTES = 20
MOST_BYTES = 2048
"""An answer with every attribute of RFC 5780 has about 100 bytes, and the longest SOFTWARE 763 (RFC 8489 §14.14)."""
TRANSACTION_BYTES = 12

_COOKIE_BYTES = COOKIE.to_bytes(4, "big")
_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_SUCCESS, _ERROR = 0x0101, 0x0111
_MAPPED, _XOR_MAPPED, _OTHER = 0x0001, 0x0020, 0x802C
_OURS = {_MAPPED, _XOR_MAPPED, _OTHER}
_OPTIONAL = 0x8000  # from here on, an attribute may be skipped by who does not know it (RFC 8489 §14)
_REASON_MOST = 80


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: the endpoint that it saw us come from, and its OTHER-ADDRESS (RFC 5780 §7.4), if any.

    `back`: whether it could connect to us, or what came of that; None for a server that never does.
    """

    mapped: Endpoint
    other: Endpoint | None
    back: ConnectBack | None = None


def request(transaction: bytes, *, connect_back: ConnectBack | None = None) -> bytes:
    """A Binding request. `transaction`: 12 random bytes, so that nobody off the path can forge an answer.

    `connect_back`: let these ends of the server connect to where it sees us, before it answers (`stun_answer`).
    """
    if connect_back is not None:
        wanted = stun_answer.attribute(CONNECT_BACK, connect_back.encode())
        return stun_answer.message(stun_answer.REQUEST, transaction, wanted)
    from aioice import stun

    return bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST, transaction))


def missing(data: bytes) -> int:
    """How many more bytes to read before `data` may be looked at again; 0: it is one whole message.

    STUN on a stream has no framing but its own length (RFC 8489 §6.2.2).

    Raises:
        StunError: as soon as `data` cannot become an answer: of another protocol, too long, not a multiple of four.
    """
    _check_start(data)
    if len(data) < HEADER_BYTES:
        return HEADER_BYTES - len(data)
    length: int = _HEADER.unpack_from(data)[1]
    if length % 4 or HEADER_BYTES + length > MOST_BYTES:
        raise StunError(f"its answer claims a body of {length} bytes")
    if len(data) > HEADER_BYTES + length:
        raise StunError("more bytes came than its answer has")
    return HEADER_BYTES + length - len(data)


def parse(data: bytes, transaction: bytes, server: Endpoint) -> Answer:
    """Believe or refuse a message. `server`: whom we asked.

    Raises:
        StunError: with the reason. Nothing else, whatever the bytes.
    """
    if missing(data):
        raise StunError(f"its answer was cut short, after {len(data)} bytes")
    kind, _, _, echoed = _HEADER.unpack_from(data)
    if echoed != transaction:
        raise StunError("it answered another transaction than ours")
    if kind not in {_SUCCESS, _ERROR}:
        raise StunError(f"a message of type 0x{kind:04x} answers no Binding request")
    _check_attributes(data)
    attributes = _attributes(data)
    if kind == _ERROR:
        raise StunError(_refusal(attributes.get("ERROR-CODE")))
    return Answer(_mapped(attributes, server), _other(attributes, server), _back(data))


def _check_start(data: bytes) -> None:
    if data[:4] == b"HTTP":
        raise StunError(
            "an HTTP server answered: is a captive portal in the way? Open a web page and log in", (Heard.PORTAL,)
        )
    if len(data) >= 4 and data[0] & 0xC0:
        raise StunError("what answered does not speak STUN")
    if data[4:8] != _COOKIE_BYTES[: len(data[4:8])]:
        raise StunError("its answer lacks STUN's magic cookie")


def _check_attributes(data: bytes) -> None:
    """What aioice would pass over in silence."""
    import aioice.stun

    known = aioice.stun.ATTRIBUTES_BY_TYPE
    seen: set[int] = set()
    for kind, _ in _raw(data):
        if kind < _OPTIONAL and kind not in known:
            raise StunError(f"its answer has an attribute that must be understood, 0x{kind:04x}, and is not")
        if kind in seen & _OURS:
            raise StunError(f"its answer has two attributes 0x{kind:04x}: which one counts?")
        seen.add(kind)


def _raw(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each attribute's kind and value."""
    position = HEADER_BYTES
    while position < len(data):
        kind, length = _ATTRIBUTE.unpack_from(data, position)  # four bytes are left: the body is a multiple of four
        begin = position + _ATTRIBUTE.size
        position = begin + (length + 3) // 4 * 4
        yield kind, data[begin : begin + length]
    if position > len(data):
        raise StunError("an attribute of its answer runs over the end")


def _attributes(data: bytes) -> dict[str, Any]:
    import aioice.stun

    try:
        return aioice.stun.parse_message(data).attributes
    except Exception as error:  # struct.error, ValueError, UnicodeDecodeError today; any other would be no different
        raise StunError(f"its answer cannot be read: {error}") from error


def _refusal(error_code: tuple[int, str] | None) -> str:
    """An error in words. 300 (Try Alternate) is none that we follow: it would let a server send us anywhere."""
    if error_code is None:
        return "it refused, and did not say why"
    code, reason = error_code
    printable = "".join(each for each in reason if each.isprintable())[:_REASON_MOST]
    return f"it refused with error {code} {printable}".rstrip()


def _mapped(attributes: dict[str, Any], server: Endpoint) -> Endpoint:
    """XOR-MAPPED-ADDRESS, since some NATs rewrite the other in passing (RFC 8489 §14.2)."""
    found = attributes.get("XOR-MAPPED-ADDRESS") or attributes.get("MAPPED-ADDRESS")
    if found is None:
        raise StunError("its answer names no mapped address")
    mapped = _canonical(found)
    if mapped.family != server.family:
        raise StunError(f"its answer names an address of another family, {mapped.address} (by a NAT64?)")
    if not mapped.port or reach(mapped.address) is Reach.NOBODY:
        raise StunError(f"its answer names {mapped}, which is nobody's")
    if (why := refusal(mapped, reach(server.address))) is not None:
        raise StunError(f"its answer names {mapped}: that is {why}")
    return mapped


def _canonical(found: tuple[str, int]) -> Endpoint:
    """Some servers that take both families on one socket name IPv4 addresses in IPv6's form."""
    return Endpoint(canonical(found[0]), found[1])


def _other(attributes: dict[str, Any], server: Endpoint) -> Endpoint | None:
    """None as well where it is nearer to us than the server: nobody sends us further in than he is himself."""
    found = attributes.get("OTHER-ADDRESS")
    other = None if found is None else _canonical(found)
    if other is None or not other.port or other.family != server.family:
        return None
    return other if refusal(other, reach(server.address)) is None else None


def _back(data: bytes) -> ConnectBack | None:
    return next((ConnectBack.decode(value) for kind, value in _raw(data) if kind == CONNECT_BACK), None)


def second_round(server: Endpoint, other: Endpoint) -> tuple[Endpoint, ...]:
    """Whom else to ask for RFC 5780 §4.3's mapping tests: the other port, the other address, both.

    Some servers name their own address as the other one, against RFC 5780 §7.4 (coturn 4.6 does, on its second
    address): then only the other port is left. One that names what it cannot know (`refusal`) is asked no more.
    """
    if refusal(other, reach(server.address)) is not None:
        return ()
    ends = [
        Endpoint(address, port) for address in (server.address, other.address) for port in (server.port, other.port)
    ]
    return tuple(dict.fromkeys(end for end in ends if end != server))
