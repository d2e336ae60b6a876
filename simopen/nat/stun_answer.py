"""A STUN server's words: a Binding request read, and the answer to it made.

Theory of operation. Pure, bytes in and out, without the codec that clients have (`stun.py`), so that the two can be
held against each other. What it does not know: authentication, and CHANGE-REQUEST, which does not exist on TCP (RFC
5780 §7.2).

CONNECT-BACK is our own, for TCP. A server that has it says in each answer which of its ends could connect to the one
who asks; who asks with it, naming one or both, gets the answer when these have tried, with what came of it. That tells
the *filtering* in front of him (RFC 5780 §4.4). Its number is one that may be skipped by who does not know it (RFC 8489
§14), so that other servers answer as ever. The server connects to the endpoint that it sees, and nowhere else.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum

from simopen.errors import StunError
from simopen.model.endpoint import Endpoint

COOKIE = 0x2112A442
HEADER_BYTES = 20
MOST_BYTES = 548
"""Of a request: what fits into one datagram everywhere (RFC 8489 §6.1)."""
REQUEST, SUCCESS, ERROR = 0x0001, 0x0101, 0x0111
MAPPED, XOR_MAPPED, ERROR_CODE, SOFTWARE, OTHER = 0x0001, 0x0020, 0x0009, 0x8022, 0x802C
CONNECT_BACK = 0xCBAC
_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_OPTIONAL = 0x8000


class Back(IntEnum):
    """What a server can say of one of its ends: whether it could connect to who asks, or what came of it."""

    CANNOT = 0
    CAN = 1
    CONNECTED = 2
    REFUSED = 3
    SILENT = 4
    BUSY = 5


@dataclass(frozen=True, slots=True)
class ConnectBack:
    """Of the server's other port at the address that was asked, and of its other address."""

    port: Back
    address: Back

    def encode(self) -> bytes:
        """The attribute's value."""
        return bytes((self.port, self.address, 0, 0))

    @staticmethod
    def decode(value: bytes) -> ConnectBack | None:
        """None for a value that is none of ours."""
        known = {each.value for each in Back}
        if len(value) != 4 or value[0] not in known or value[1] not in known:
            return None
        return ConnectBack(Back(value[0]), Back(value[1]))


@dataclass(frozen=True, slots=True)
class Request:
    """A Binding request. `connect_back`: which ends are to try, by `CAN`; None: none is asked to.

    `unknown`: attributes that it says must be understood, and are not.
    """

    transaction: bytes
    connect_back: ConnectBack | None
    unknown: tuple[int, ...] = ()


def missing(data: bytes) -> int:
    """How many more bytes to read before `data` is one whole request; 0: it is.

    Raises:
        StunError: as soon as it cannot become one.
    """
    if data and data[0] & 0xC0:
        raise StunError("this is no STUN")
    if len(data) < HEADER_BYTES:
        return HEADER_BYTES - len(data)
    kind, length, cookie, _ = _HEADER.unpack_from(data)
    if kind != REQUEST or cookie != COOKIE or length % 4 or HEADER_BYTES + length > MOST_BYTES:
        raise StunError("this is no Binding request")
    return max(0, HEADER_BYTES + int(length) - len(data))


def read(data: bytes) -> Request:
    """Read one whole request.

    Raises:
        StunError: it is none. Nothing else, whatever the bytes.
    """
    if missing(data):
        raise StunError("this request was cut short")
    _, length, _, transaction = _HEADER.unpack_from(data)
    if len(data) != HEADER_BYTES + length:
        raise StunError("this is more than a request")
    found, position = dict[int, bytes](), HEADER_BYTES
    while position < len(data):
        kind, size = _ATTRIBUTE.unpack_from(data, position)
        begin = position + _ATTRIBUTE.size
        position = begin + (size + 3) // 4 * 4
        found.setdefault(kind, data[begin : begin + size])  # the first of a kind counts (RFC 8489 §14)
    if position > len(data):
        raise StunError("an attribute of this request runs over its end")
    unknown = tuple(kind for kind in found if kind < _OPTIONAL)
    return Request(transaction, ConnectBack.decode(found.get(CONNECT_BACK, b"")), unknown)


def answer(request: Request, mapped: Endpoint, other: Endpoint | None, back: ConnectBack | None = None) -> bytes:
    """What a server says. `other`: its OTHER-ADDRESS; `back`: over TCP, what it can do, or what came of it.

    Error 420 for what it does not understand (RFC 8489 §6.3.1).
    """
    if request.unknown:
        kinds = struct.pack(f"!{len(request.unknown)}H", *request.unknown)
        code = attribute(ERROR_CODE, struct.pack("!HBB", 0, 4, 20) + b"Unknown Attribute")
        return message(ERROR, request.transaction, code, attribute(_UNKNOWN_ATTRIBUTES, kinds))
    attributes = [attribute(XOR_MAPPED, address(mapped, request.transaction)), attribute(SOFTWARE, b"simopen")]
    attributes += [attribute(OTHER, address(other))] if other else []
    attributes += [attribute(CONNECT_BACK, back.encode())] if back else []
    return message(SUCCESS, request.transaction, *attributes)


_UNKNOWN_ATTRIBUTES = 0x000A


def address(endpoint: Endpoint, transaction: bytes = b"") -> bytes:
    """An address attribute's value, XORed where a transaction is given."""
    packed = ipaddress.ip_address(endpoint.address).packed
    pad = COOKIE.to_bytes(4, "big") + transaction if transaction else bytes(20)
    port = endpoint.port ^ int.from_bytes(pad[:2], "big")
    xored = bytes(a ^ b for a, b in zip(packed, pad, strict=False))
    return struct.pack("!BBH", 0, 1 if len(packed) == 4 else 2, port) + xored


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to a multiple of four bytes."""
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def message(kind: int, transaction: bytes, *attributes: bytes, cookie: int = COOKIE) -> bytes:
    """A whole message."""
    body = b"".join(attributes)
    return struct.pack("!HHI", kind, len(body), cookie) + transaction + body


def success(request: bytes, mapped: Endpoint, other: Endpoint | None = None) -> bytes:
    """The right answer to a Binding request. `other`: the server's OTHER-ADDRESS."""
    transaction = request[8:HEADER_BYTES]
    attributes = [attribute(XOR_MAPPED, address(mapped, transaction)), attribute(SOFTWARE, b"fake")]
    attributes += [attribute(OTHER, address(other))] if other else []
    return message(SUCCESS, transaction, *attributes)
